"""Edits and readings by action unit name, for the tests of what uses them."""

import torch

from avatar_viewer.action_units import NUM_AUS, au_index
from avatar_viewer.networks.prompt_reading import PromptReading
from avatar_viewer.types import AUEdit


def aus(**values: float) -> torch.Tensor:
    """[17] with the named action units set."""
    result = torch.zeros(NUM_AUS)
    for name, value in values.items():
        result[au_index(name)] = value
    return result


def asking(**targets: float) -> AUEdit:
    return AUEdit(active=(aus(**targets) > 0).float(), intensity=aus(**targets))


def reading(**targets: float) -> PromptReading:
    active = aus(**targets) > 0
    return PromptReading(active, active.float(), aus(**targets), (), "")


def random_edit(generator: torch.Generator) -> AUEdit:
    def rand(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(NUM_AUS, generator=generator)

    return AUEdit(
        active=rand(0, 1).round() if torch.rand(1, generator=generator) < 0.5 else rand(0, 1),
        intensity=rand(0, 7), enhance=float(rand(0, 5)[0]), suppress=float(rand(0, 1)[0]), strength=float(rand(0, 2)[0]),
        gain=rand(0, 10), offset=rand(-7, 7), mute=rand(0, 1).round(), limit=float(rand(5, 7)[0].round()),
    )  # fmt: skip
