"""Courses of training: steps with a rising and falling rate, a running average, a checkpoint to go on from. Know no stage."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from .checkpoint import RunningAverage, load_checkpoint, save_checkpoint

log = logging.getLogger(__name__)
SAVE_SECONDS = 60.0
_SAVED_EVERY = 100  # steps


class Pace(Protocol):
    """The part of a stage's settings that says how long and how fast it learns."""

    steps: int
    learning_rate: float
    warmup: int  # steps
    decay: float  # share of the steps


def learning_rate_factor(step: int, steps: int, warmup: int, decay: float) -> float:
    """Rises, holds, falls linearly to nothing over the last `decay` of the run."""
    return min(1.0, (step + 1) / max(1, warmup), max(0.02, (steps - step) / max(1.0, decay * steps)))


def run_paced(
    name: str,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    pace: Pace,
    loss_at: Callable[[int], Tensor],  # of a step; draws by the step's number, so that a stopped run goes on exactly
    state: Path,  # the checkpoint, written every minute and at the end
    *,
    resume: bool,
    progress: Callable[[float], None],
) -> None:
    """Train with clipped gradients; the network ends as its running average."""
    average = RunningAverage(network)
    first = load_checkpoint(state, network, average, optimizer) if resume and state.is_file() else 0
    saved = time.monotonic()
    for step in range(first, pace.steps):
        for group in optimizer.param_groups:
            group["lr"] = pace.learning_rate * learning_rate_factor(step, pace.steps, pace.warmup, pace.decay)
        loss = loss_at(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        average.update(network, step)
        if step % 50 == 0:
            log.info("%s step %d/%d loss %.4f", name, step, pace.steps, loss.item())
        if time.monotonic() - saved > SAVE_SECONDS:
            saved = time.monotonic()
            save_checkpoint(state, network, average, optimizer, step + 1)
        progress((step + 1) / pace.steps)
    save_checkpoint(state, network, average, optimizer, pace.steps)
    average.copy_to(network)


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
