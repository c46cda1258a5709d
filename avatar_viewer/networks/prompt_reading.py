"""What was found in a prompt, and how it is told: for people, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..action_units import AU_NAMES, NUM_AUS


@dataclass(frozen=True)
class PromptReading:
    """What was found in a prompt, and what was not understood."""

    active: Tensor  # [17] bool: y of the paper
    probability: Tensor  # [17] 0..1
    intensity: Tensor  # [17] 0..5, 0 where not active
    ignored: tuple[str, ...]  # words that had no part in the answer
    truncated: str  # the text past the tower's 77 tokens, or ""
    note: str = ""  # one line to show beside it, or ""
    denied: Tensor = field(default_factory=lambda: torch.zeros(NUM_AUS, dtype=torch.bool))  # [17]: "not smiling" denies AU12


def neutral_reading(
    note: str,
    *,
    ignored: Sequence[str] = (),
    truncated: str = "",
    probability: Tensor | None = None,
    denied: Tensor | None = None,
) -> PromptReading:
    """A reading that asks for nothing, and says why."""
    return PromptReading(
        denied=torch.zeros(NUM_AUS, dtype=torch.bool) if denied is None else denied,
        active=torch.zeros(NUM_AUS, dtype=torch.bool),
        probability=torch.zeros(NUM_AUS) if probability is None else probability,
        intensity=torch.zeros(NUM_AUS),
        ignored=tuple(ignored),
        truncated=truncated,
        note=note,
    )


def format_readings(prompts: Sequence[str], read: Callable[[str], PromptReading], *, as_json: bool = False) -> str:
    """What `avatar-viewer text` prints of what `read` (`TextToAU.read`) finds: for people, or one JSON object a prompt and line."""
    lines: list[str] = []
    for prompt in prompts:
        reading = read(prompt)
        if as_json:
            lines.append(json.dumps(reading_to_json(reading), ensure_ascii=True))
            continue
        shown = prompt if len(prompt) <= 100 else prompt[:100] + "..."
        lines.append("".join(c if c.isprintable() else "�" for c in shown.encode("utf-8", "replace").decode("utf-8")))
        order = sorted(range(NUM_AUS), key=lambda n: -float(reading.intensity[n]))
        for n in order:
            if reading.active[n]:
                bar = "#" * round(4 * float(reading.intensity[n]))
                lines.append(
                    f"  {AU_NAMES[n]}  {float(reading.intensity[n]):.1f}  {bar:20s}  p {float(reading.probability[n]):.2f}"
                )
        others = [f"{AU_NAMES[n][2:]} {float(reading.probability[n]):.2f}" for n in range(NUM_AUS) if not reading.active[n]]
        if bool(reading.active.any()):
            lines.append(f"  not asked for, p: {', '.join(others)}")
        if reading.note:
            lines.append(f"  ({reading.note})")
        if reading.ignored:
            lines.append(f"  not understood: {', '.join(reading.ignored)[:500]}".encode("utf-8", "replace").decode("utf-8"))
        if reading.truncated:
            lines.append(f"  cut off: {reading.truncated[:500]}")
    return "\n".join(lines)


def reading_to_json(reading: PromptReading) -> dict:
    """One line of `text --json`: all 17 by name."""
    aus = {
        name: {
            "active": bool(reading.active[n]),
            "probability": round(float(reading.probability[n]), 4),
            "intensity": round(float(reading.intensity[n]), 3),
        }
        for n, name in enumerate(AU_NAMES)
    }
    denied = [name for name, is_denied in zip(AU_NAMES, reading.denied.tolist()) if is_denied]
    return {"aus": aus, "ignored": list(reading.ignored), "truncated": reading.truncated, "note": reading.note, "denied": denied}
