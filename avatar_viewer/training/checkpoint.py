"""Training progress on disk: weights, their running average, the optimiser and the step, in one safetensors file.

Written whole or not at all, so that a stopped run goes on where it was. Knows no stage.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import InputError


class RunningAverage:
    """Exponential average of a network's parameters: steadier than the last step."""

    def __init__(self, network: nn.Module, keep: float = 0.998) -> None:
        self.keep = keep
        self.values = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        keep = min(self.keep, (1 + step) / (10 + step))
        for name, parameter in network.named_parameters():
            self.values[name].lerp_(parameter, 1 - keep)

    @torch.no_grad()
    def copy_to(self, network: nn.Module) -> None:
        for name, parameter in network.named_parameters():
            parameter.copy_(self.values[name])


def save_checkpoint(path: Path, network: nn.Module, average: RunningAverage, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Replace the checkpoint at `path`, atomically."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in network.named_parameters():
        tensors[f"weights.{name}"] = parameter.detach()
        tensors[f"average.{name}"] = average.values[name]
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = value
    unfinished = path.with_suffix(".tmp")
    save_file(
        {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}, unfinished, metadata={"step": str(step)}
    )
    unfinished.replace(path)


def load_checkpoint(path: Path, network: nn.Module, average: RunningAverage, optimizer: torch.optim.Optimizer) -> int:
    """Fill network, average and optimiser from `path`; returns the step. `InputError` where it belongs to another network."""
    with safe_open(path, "pt") as file:
        names = set(file.keys())
        for name, parameter in network.named_parameters():
            stored = file.get_tensor(f"weights.{name}") if f"weights.{name}" in names else None
            if stored is None or stored.shape != parameter.shape:
                raise InputError(f"checkpoint {path} was made for another network ({name}); delete it or train without --resume")
            with torch.no_grad():
                parameter.copy_(stored)
                average.values[name].copy_(file.get_tensor(f"average.{name}"))
            prefixes = {key: f"optimizer.{key}.{name}" for key in ("step", "exp_avg", "exp_avg_sq")}
            if all(prefix in names for prefix in prefixes.values()):
                state = {key: file.get_tensor(prefix) for key, prefix in prefixes.items()}
                optimizer.state[parameter] = {k: v if k == "step" else v.to(parameter.device) for k, v in state.items()}
        return int(file.metadata()["step"])
