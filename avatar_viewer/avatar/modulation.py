"""What an edit does to the action units of the voice: one pure function.

Knows codes and edits; knows no prompt, no clock and no network. The paper's formula multiplies, so it cannot make a
smile out of a neutral voice; "blend", the default, moves towards the prompt's intensities instead and protects speech.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..action_units import AU_NAMES, NUM_AUS, SPEECH_AUS
from ..errors import InputError
from ..types import AUEdit, ensure_shape

MODES = ("blend", "paper")
MAX_STRENGTH = 2.0
MAX_ENHANCE = 5.0

_AU = {name: column for column, name in enumerate(AU_NAMES)}
SPEECH_COLUMNS = [_AU[name] for name in SPEECH_AUS]

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
    fade[:, SPEECH_COLUMNS] *= 1 - voice
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
