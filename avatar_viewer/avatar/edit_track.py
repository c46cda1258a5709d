"""Edits stamped with session time, eased from one to the next, and how they are written into a take.

Knows no thread and no clock: time is a number that comes in.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from ..action_units import AU_NAMES, MAX_OVER_RANGE, NUM_AUS, au_index
from ..errors import InputError
from ..types import AUEdit, ensure_range
from .modulation import MODES


@dataclass(frozen=True)
class EditEvent:
    """From `seconds` on the face eases to `edit`, and is there `ease_seconds` later."""

    seconds: float
    edit: AUEdit
    ease_seconds: float


class EditTrack:
    """Edits stamped with session time; `at` gives the eased edit, a pure function of the events.

    Every event moves the value of the track towards its edit by a smooth step of time: always a convex mix, so
    nothing overshoots, however many events overlap. One thread adds, any number read: the events are an immutable
    tuple that is exchanged whole.
    """

    def __init__(self, ease_seconds: float = 0.25, *, initial: AUEdit | None = None) -> None:
        ensure_range("ease_seconds", ease_seconds, 0.0, 60.0)
        self.ease_seconds = ease_seconds
        self._initial = initial or AUEdit()
        self._events: tuple[EditEvent, ...] = ()

    @classmethod
    def constant(cls, edit: AUEdit) -> EditTrack:
        """A track that gives `edit` at every time."""
        return cls(initial=edit)

    @property
    def initial(self) -> AUEdit:
        """What holds before the first event."""
        return self._initial

    @property
    def events(self) -> tuple[EditEvent, ...]:
        """In order of time."""
        return self._events

    def add(self, seconds: float, edit: AUEdit, *, ease_seconds: float | None = None) -> None:
        """Ask for `edit` from `seconds` on; one that changes nothing is not stored."""
        if not math.isfinite(seconds):
            raise InputError(f"an edit's time is {seconds}; use a finite number of seconds")
        ease = self.ease_seconds if ease_seconds is None else ease_seconds
        ensure_range("ease_seconds", ease, 0.0, 60.0)
        events = self._events
        place = bisect_right(events, seconds, key=_seconds)
        before = events[place - 1].edit if place else self._initial
        if place == len(events) and _same_edit(before, edit):
            return
        self._events = events[:place] + (EditEvent(float(seconds), edit, float(ease)),) + events[place:]

    def clear(self) -> None:
        """Forget all events; `initial` holds again."""
        self._events = ()

    def at(self, seconds: float) -> AUEdit:
        """The edit at `seconds`, eased."""
        events = self._events
        running: list[tuple[AUEdit, float]] = []
        for place in range(bisect_right(events, seconds, key=_seconds) - 1, -1, -1):
            event = events[place]
            u = (seconds - event.seconds) / event.ease_seconds if event.ease_seconds > 0 else 1.0
            running.append((event.edit, 1.0 if u >= 1 else u * u * (3 - 2 * u)))
            if u >= 1:  # what came before has no part in it any more
                break
        value = self._initial
        for edit, share in reversed(running):
            value = edit if share == 1.0 else _mix(value, edit, share)
        return value

    def to_json(self) -> str:
        """The track as text, to save in a take."""
        events = [{"seconds": e.seconds, "ease_seconds": e.ease_seconds, "edit": edit_to_json(e.edit)} for e in self._events]
        return json.dumps({"ease_seconds": self.ease_seconds, "initial": edit_to_json(self._initial), "events": events})

    @classmethod
    def from_json(cls, text: str) -> EditTrack:
        """The track that `to_json` saved; `InputError` where the text is something else."""
        try:
            value = json.loads(text)
            track = cls(float(value["ease_seconds"]), initial=edit_from_json(value["initial"]))
            events = [
                EditEvent(float(e["seconds"]), edit_from_json(e["edit"]), float(e["ease_seconds"])) for e in value["events"]
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"not a saved edit track: {error}") from error
        track._events = tuple(sorted(events, key=_seconds))
        return track


def _seconds(event: EditEvent) -> float:
    return event.seconds


def _same_edit(a: AUEdit, b: AUEdit) -> bool:
    for field in fields(AUEdit):
        first, second = getattr(a, field.name), getattr(b, field.name)
        if not (torch.equal(first, second) if isinstance(first, Tensor) else first == second):
            return False
    return True


def _mix(a: AUEdit, b: AUEdit, share: float) -> AUEdit:
    """`a` moved towards `b` by `share` in 0..1. A mode cannot be mixed: it changes at half the way."""

    def lerp(x: Any, y: Any) -> Any:
        return x + share * (y - x)

    active = lerp(a.active, b.active)
    # An AU that only one side asks for keeps that side's target while its activation fades in or out.
    wanted = lerp(a.active * a.intensity, b.active * b.intensity)
    intensity = torch.where(active > 0, wanted / active.clamp(min=1e-6), torch.zeros_like(wanted))
    return AUEdit(
        active=active,
        intensity=intensity,
        enhance=lerp(a.enhance, b.enhance),
        suppress=lerp(a.suppress, b.suppress),
        strength=_mix_strength(a, b, share),
        gain=lerp(a.gain, b.gain),
        offset=lerp(a.offset, b.offset),
        mute=lerp(a.mute, b.mute),
        mode=b.mode if share >= 0.5 else a.mode,
        limit=lerp(a.limit, b.limit),
    )


def _mix_strength(a: AUEdit, b: AUEdit, share: float) -> float:
    """In "blend", a side that asks for no AU has no say in the strength: its activation of 0 already fades the prompt."""
    if a.mode == b.mode == "blend":
        if not bool((a.active > 0).any()):
            return b.strength
        if not bool((b.active > 0).any()):
            return a.strength
    return a.strength + share * (b.strength - a.strength)


_TENSOR_FIELDS = {"active": 0.0, "intensity": 0.0, "gain": 1.0, "offset": 0.0, "mute": 0.0}  # and what goes unsaid


def edit_to_json(edit: AUEdit) -> dict[str, Any]:
    """The edit by AU name, JSON-able, without what is as in `AUEdit()`."""
    result: dict[str, Any] = {}
    for name, default in _TENSOR_FIELDS.items():
        values = {au: float(v) for au, v in zip(AU_NAMES, getattr(edit, name).tolist()) if v != default}
        if values:
            result[name] = values
    for name in ("enhance", "suppress", "strength", "mode", "limit"):
        if getattr(edit, name) != getattr(AUEdit(), name):
            result[name] = getattr(edit, name)
    return result


def edit_from_json(value: Mapping[str, Any]) -> AUEdit:
    """The edit that `edit_to_json` gave; `InputError` names what is unknown or out of range."""
    if not isinstance(value, Mapping):
        raise InputError(f"an edit must be an object of names and values, got {type(value).__name__}")
    known = {field.name for field in fields(AUEdit)}
    unknown = sorted(set(value) - known)
    if unknown:
        raise InputError(f"unknown in an edit: {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    changes: dict[str, Any] = {}
    for name, given in value.items():
        if name in _TENSOR_FIELDS:
            if not isinstance(given, Mapping):
                raise InputError(f"{name} of an edit is {str(given)[:60]!r}; expected values by AU name")
            tensor = torch.full((NUM_AUS,), _TENSOR_FIELDS[name])
            for au, number in given.items():
                tensor[au_index(au)] = _number(f"{name} of {au}", number, -MAX_OVER_RANGE, max(MAX_OVER_RANGE, 10.0))
            changes[name] = tensor
        elif name == "mode":
            if given not in MODES:
                raise InputError(f"unknown modulation mode {given!r}; use one of: {', '.join(MODES)}")
            changes[name] = given
        else:
            changes[name] = _number(name, given, 0.0, 10.0)
    return replace(AUEdit(), **changes)


def _number(name: str, given: object, low: float, high: float) -> float:
    if type(given) not in (int, float):
        raise InputError(f"{name} of an edit is {str(given)[:60]!r}; expected a number")
    ensure_range(name, float(given), low, high)
    return float(given)
