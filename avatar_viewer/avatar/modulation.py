"""What an edit does to the action units of the voice: one pure function, and the track that eases edits in time.

Knows codes and edits; knows no thread, no clock and no network. The paper's formula multiplies, so it cannot make a
smile out of a neutral voice; "blend", the default, moves towards the prompt's intensities instead and protects speech.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from ..action_units import AU_NAMES, MAX_OVER_RANGE, NUM_AUS, SPEECH_AUS, au_index
from ..errors import InputError
from ..networks.text_to_au import PromptReading
from ..types import AUEdit, ensure_shape

MODES = ("blend", "paper")
MAX_STRENGTH = 2.0
MAX_ENHANCE = 5.0

_DENIED_SHARE = 0.85  # of the voice's own share of an AU that the prompt denies

_AU = {name: column for column, name in enumerate(AU_NAMES)}
_SPEECH_COLUMNS = [_AU[name] for name in SPEECH_AUS]

# What a push on one AU takes from the voice's share of its antagonist: (pushed, antagonist, share taken at full push).
# An antagonist that the prompt asks for itself keeps its share: "sad but smiling" is AU12 with AU15.
_ANTAGONISTS = (
    ("AU12", "AU15", 0.9), ("AU15", "AU12", 0.9),
    ("AU01", "AU04", 0.3), ("AU02", "AU04", 0.7), ("AU04", "AU01", 0.4), ("AU04", "AU02", 0.6),
    ("AU05", "AU07", 0.6), ("AU45", "AU05", 1.0),
    ("AU24", "AU25", 0.9), ("AU24", "AU26", 0.7), ("AU25", "AU24", 0.9), ("AU26", "AU24", 0.9),
)  # fmt: skip


def modulate(
    au_codes: Tensor,  # [T, 17] 0..5, of the voice
    voice: Tensor,  # [T] 0..1, how much the voice is speaking
    edit: AUEdit,
) -> Tensor:
    """The edited codes E~ [T, 17], within 0..`edit.limit`; an edit that asks for nothing gives `au_codes` back.

    "paper": E~ = E * (1 + s * enhance * y) - min(1, s * suppress) * (1 - y) * E, the published formula at strength s = 1.
    "blend": the voice's share fades by `suppress` where the prompt asks for something else, then every asked-for AU
    moves up to its target (intensity * strength * enhance). Speech AUs are never faded while the voice speaks, and
    are pushed only as far as the lips can still close and open (`_articulation_room`).
    In both modes gain acts on the voice's codes; offset and mute act last.
    """
    ensure_shape("au_codes", au_codes, (None, NUM_AUS))
    ensure_shape("voice", voice, (len(au_codes),))
    if edit.mode not in MODES:
        raise InputError(f"unknown modulation mode {edit.mode!r}; use one of: {', '.join(MODES)}")
    codes = au_codes * edit.gain.clamp(min=0)
    if edit.mode == "paper":
        codes = _modulate_as_published(codes, edit)
    elif edit.strength > 0 and bool((edit.active > 0).any()):
        codes = _blend(codes, voice.clamp(0, 1)[:, None], edit)
    codes = codes + edit.offset
    codes = torch.nan_to_num(codes, nan=0.0).clamp(0, edit.limit)
    return codes * (1 - edit.mute.clamp(0, 1))


def _modulate_as_published(codes: Tensor, edit: AUEdit) -> Tensor:
    enhance = edit.strength * edit.enhance
    suppress = min(1.0, edit.strength * edit.suppress)
    return codes * (1 + enhance * edit.active) - suppress * (1 - edit.active) * codes


def _blend(codes: Tensor, voice: Tensor, edit: AUEdit) -> Tensor:
    active = edit.active.clamp(0, 1)
    targets = (edit.intensity * (edit.strength * edit.enhance)).clamp(0, edit.limit)

    # Fade what the prompt did not ask for, as far as there is a prompt; a blink is no emotion and stays whole.
    fade = min(1.0, edit.strength * edit.suppress) * (1 - active) * active.max()
    fade[_AU["AU45"]] = 0
    fade = fade.expand(len(codes), NUM_AUS).clone()
    fade[:, _SPEECH_COLUMNS] *= 1 - voice
    faded = codes * (1 - fade)

    push = active * (targets - faded).clamp(min=0) * _articulation_room(codes, voice)
    push = _couple(push, faded, codes, voice, edit.limit)
    for pushed, antagonist, share in _ANTAGONISTS:
        taken = share * push[:, _AU[pushed]] / edit.limit * (1 - active[_AU[antagonist]])
        if antagonist in SPEECH_AUS:
            taken = taken * (1 - voice[:, 0])
        faded[:, _AU[antagonist]] *= 1 - taken
    return faded + push


def _articulation_room(codes: Tensor, voice: Tensor) -> Tensor:
    """[T, 17] 0..1: how much of a push the mouth can take at this instant of speech; 1 everywhere in silence.

    `is_open` follows the voice's own lips: at a closure nothing may open them, in a vowel nothing may press them shut.
    A raised upper lip and a wrinkled nose take the lips apart too (1.9 and 0.8 mm at 3 and 3.5 on the built-in head).
    """
    lips = codes[:, [_AU["AU25"], _AU["AU26"]]].amax(dim=1, keepdim=True)
    pressed = codes[:, _AU["AU24"] : _AU["AU24"] + 1]
    is_open = _smoothstep(((lips - 0.4 - 0.5 * pressed) / 1.5).clamp(0, 1))
    shares = {
        "AU25": 0.4 * is_open,
        "AU26": 0.4 * is_open,
        "AU24": 0.6 * (1 - is_open),
        "AU17": 0.6 - 0.3 * is_open,
        "AU23": 0.6 - 0.3 * is_open,
        "AU10": 0.7 * is_open,
        "AU09": 0.4 + 0.6 * is_open,
    }
    room = torch.ones_like(codes)
    for name, share in shares.items():
        room[:, _AU[name] : _AU[name] + 1] = 1 - voice * (1 - share)
    return room


def _couple(push: Tensor, faded: Tensor, codes: Tensor, voice: Tensor, limit: float) -> Tensor:
    """Pushes that anatomy brings along, or does not allow, when others act."""
    push = push.clone()
    # A broad smile lifts the cheeks by itself; a falling jaw takes the lips apart.
    cheeks = 0.5 * (push[:, _AU["AU12"]] - 3).clamp(min=0) - faded[:, _AU["AU06"]]
    push[:, _AU["AU06"]] = torch.maximum(push[:, _AU["AU06"]], cheeks)
    lips = (0.7 * push[:, _AU["AU26"]] - faded[:, _AU["AU25"]]).clamp(min=0)
    push[:, _AU["AU25"]] = torch.maximum(push[:, _AU["AU25"]], lips * (1 - 0.5 * voice[:, 0]))
    # Wide eyes still blink, closed eyes are not wide, and lips that part are not pressed.
    closing = ((codes[:, _AU["AU45"]] + push[:, _AU["AU45"]]) / limit).clamp(0, 1)
    push[:, _AU["AU05"]] *= 1 - closing
    parting = ((push[:, _AU["AU25"]] + push[:, _AU["AU26"]]) / limit).clamp(0, 1)
    push[:, _AU["AU24"]] *= 1 - parting
    return push


def _smoothstep(u: Tensor) -> Tensor:
    return u * u * (3 - 2 * u)


# ---------------------------------------------------------------------------------------------- prompts become edits


def prompt_edit(
    reading: PromptReading,
    *,
    strength: float = 1.0,
    enhance: float = 1.0,
    suppress: float = 0.3,
    mode: str = "blend",
    base: AUEdit | None = None,
) -> AUEdit:
    """The edit that a prompt asks for; gain, offset, mute and limit come from `base` (the sliders).

    What the prompt denies ("not smiling") is turned down in the voice's own codes, except for the speech AUs.
    A reading without action units gives strength 0, so that the "paper" mode too leaves the voice alone.
    """
    _check_range("strength", strength, 0.0, MAX_STRENGTH)
    _check_range("enhance", enhance, 0.0, MAX_ENHANCE)
    _check_range("suppress", suppress, 0.0, 1.0)
    if mode not in MODES:
        raise InputError(f"unknown modulation mode {mode!r}; use one of: {', '.join(MODES)}")
    active = reading.active.to(torch.float32)
    base = base or AUEdit()
    held_back = min(1.0, float(strength)) * _DENIED_SHARE * reading.denied.to(torch.float32)
    held_back[_SPEECH_COLUMNS] = 0
    return replace(
        base,
        active=active,
        gain=base.gain * (1 - held_back),
        intensity=torch.where(active > 0, reading.intensity, torch.zeros_like(reading.intensity)),
        enhance=float(enhance),
        suppress=float(suppress),
        strength=float(strength) if bool((active > 0).any()) else 0.0,
        mode=mode,
    )


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise InputError(f"{name} is {value}; use a number from {low:g} to {high:g}")


def blend_readings(readings: Sequence[PromptReading], weights: Sequence[float] | None = None) -> PromptReading:
    """Several prompts at once: intensities and probabilities by weight, and every AU that any of them asks for.

    Weights are shares: they are divided by their sum where that exceeds 1, so two prompts at 0.3 stay faint.
    """
    if not readings:
        raise InputError("no prompt to blend; give at least one")
    shares = [1.0 / len(readings)] * len(readings) if weights is None else [float(w) for w in weights]
    if len(shares) != len(readings):
        raise InputError(f"{len(readings)} prompts but {len(shares)} weights; give one weight a prompt")
    if not all(math.isfinite(w) and w >= 0 for w in shares):
        raise InputError(f"prompt weights are {shares}; use numbers of 0 or more")
    total = max(1.0, sum(shares))
    shares = [w / total for w in shares]
    active = torch.stack([r.active.to(torch.float32) * (w > 0) for r, w in zip(readings, shares)]).amax(dim=0)
    intensity = sum(w * r.intensity * r.active for r, w in zip(readings, shares))
    probability = sum(w * r.probability for r, w in zip(readings, shares))
    ignored = tuple(dict.fromkeys(word for r in readings for word in r.ignored))
    return PromptReading(
        active=active > 0,
        probability=probability,
        intensity=intensity,
        ignored=ignored,
        truncated=" ".join(r.truncated for r in readings if r.truncated),
        note="; ".join(dict.fromkeys(r.note for r in readings if r.note)),
        denied=torch.stack([r.denied & (w > 0) for r, w in zip(readings, shares)]).all(dim=0),
    )


# --------------------------------------------------------------------------------------------------- edits over time


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
        _check_range("ease_seconds", ease_seconds, 0.0, 60.0)
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
        _check_range("ease_seconds", ease, 0.0, 60.0)
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
            tensor = torch.full((NUM_AUS,), _TENSOR_FIELDS[name])
            for au, number in given.items():
                _check_range(f"{name} of {au}", float(number), -MAX_OVER_RANGE, max(MAX_OVER_RANGE, 10.0))
                tensor[au_index(au)] = float(number)
            changes[name] = tensor
        elif name == "mode":
            if given not in MODES:
                raise InputError(f"unknown modulation mode {given!r}; use one of: {', '.join(MODES)}")
            changes[name] = given
        else:
            _check_range(name, float(given), 0.0, 10.0)
            changes[name] = float(given)
    return replace(AUEdit(), **changes)
