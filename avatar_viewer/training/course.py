"""A course of training: steps with warm-up and cosine decay, a running average, a checkpoint to go on from. Knows no stage."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from .checkpoint import RunningAverage, load_checkpoint, save_checkpoint

_SAVED_EVERY = 100  # steps


def run_course(
    name: str,
    parts: Sequence[tuple[nn.Module, float]],  # with their highest learning rates
    steps: int,
    loss_at: Callable[[int], Tensor],  # of a step; draws by the step's number, so that a stopped run goes on exactly
    path: Path | None,  # of the checkpoint; the one there is gone on from
    report: Callable[[str], None],
) -> None:
    """Train the parts together by AdamW with clipped gradients; they end as their running average."""
    network = nn.ModuleList(module for module, _ in parts)
    groups = [{"params": [p for p in module.parameters() if p.requires_grad], "lr": rate} for module, rate in parts]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    average = RunningAverage(network, keep=0.99)
    first = load_checkpoint(path, network, average, optimizer) if path is not None and path.is_file() else 0
    total = 0.0
    for step in range(first, steps):
        share = min(1.0, (step + 1) / (0.08 * steps)) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group, (_, rate) in zip(optimizer.param_groups, parts):
            group["lr"] = rate * share
        loss = loss_at(step)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        average.update(network, step)
        total += float(loss.detach())
        if (step + 1) % _SAVED_EVERY == 0 or step + 1 == steps:
            report(f"{name}: step {step + 1} of {steps}, loss {total / (step % _SAVED_EVERY + 1):.3f}")
            total = 0.0
            if path is not None:
                save_checkpoint(path, network, average, optimizer, step + 1)
    average.copy_to(network)
