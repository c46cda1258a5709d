"""The action unit registry: the paper's 17, by name, with FACS names, face regions and what to tell the artist.

Order matters to networks, names matter to people and files: every join goes through `reorder`, because
OpenFace's 17 have AU20 and no AU24, and a join by position drives the wrong muscle without a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .errors import InputError

MAX_INTENSITY = 5.0
MAX_OVER_RANGE = 7.0


@dataclass(frozen=True)
class ActionUnit:
    code: str  # "AU12"
    name: str  # FACS name
    group: str  # panel group: Brows, Eyes, Nose and cheeks, Lip corners, Lips and chin, Jaw
    tooltip: str  # the muscle and what one sees


ACTION_UNITS: tuple[ActionUnit, ...] = (
    ActionUnit("AU01", "Inner brow raiser", "Brows", "Frontalis, inner part: lifts the inner ends of the brows; worry, sadness"),
    ActionUnit("AU02", "Outer brow raiser", "Brows", "Frontalis, outer part: lifts the outer ends of the brows; surprise"),
    ActionUnit("AU04", "Brow lowerer", "Brows", "Corrugator and procerus: lowers and draws the brows together; anger, effort"),
    ActionUnit("AU05", "Upper lid raiser", "Eyes", "Levator palpebrae: opens the eyes wide; fear, surprise"),
    ActionUnit("AU06", "Cheek raiser", "Nose and cheeks", "Orbicularis oculi, outer part: lifts the cheeks, crow's feet; a felt smile"),
    ActionUnit("AU07", "Lid tightener", "Eyes", "Orbicularis oculi, inner part: narrows the eyes; anger, strain"),
    ActionUnit("AU09", "Nose wrinkler", "Nose and cheeks", "Levator labii alaeque nasi: wrinkles the nose; disgust"),
    ActionUnit("AU10", "Upper lip raiser", "Lips and chin", "Levator labii: lifts the upper lip, deepens the nasolabial fold; disgust"),
    ActionUnit("AU12", "Lip corner puller", "Lip corners", "Zygomaticus major: pulls the lip corners up and out; smile"),
    ActionUnit("AU14", "Dimpler", "Lip corners", "Buccinator: tightens the lip corners inwards; contempt, a wry smile"),
    ActionUnit("AU15", "Lip corner depressor", "Lip corners", "Depressor anguli oris: pulls the lip corners down; sadness"),
    ActionUnit("AU17", "Chin raiser", "Lips and chin", "Mentalis: pushes the chin boss and lower lip up; doubt, pouting"),
    ActionUnit("AU23", "Lip tightener", "Lips and chin", "Orbicularis oris: narrows and tightens the lips; anger"),
    ActionUnit("AU24", "Lip pressor", "Lips and chin", "Orbicularis oris: presses the lips together; restraint"),
    ActionUnit("AU25", "Lips part", "Jaw", "Depressor labii, or orbicularis oris relaxed: parts the lips, jaw still"),
    ActionUnit("AU26", "Jaw drop", "Jaw", "Masseter relaxed: the jaw falls open; surprise"),
    ActionUnit("AU45", "Blink", "Eyes", "Levator palpebrae relaxed: closes the lids"),
)
AU_NAMES: tuple[str, ...] = tuple(unit.code for unit in ACTION_UNITS)
NUM_AUS = len(AU_NAMES)
AU_GROUPS: tuple[str, ...] = ("Brows", "Eyes", "Nose and cheeks", "Lip corners", "Lips and chin", "Jaw")

# What the voice needs: the articulation guard of modulation protects these while it speaks.
SPEECH_AUS: tuple[str, ...] = ("AU10", "AU17", "AU23", "AU24", "AU25", "AU26")

# The intensity columns of an OpenFace 2.x CSV (`AU01_r` ...), in its order.
OPENFACE_AU_NAMES: tuple[str, ...] = (
    "AU01", "AU02", "AU04", "AU05", "AU06", "AU07", "AU09", "AU10", "AU12",
    "AU14", "AU15", "AU17", "AU20", "AU23", "AU25", "AU26", "AU45",
)  # fmt: skip


def au_index(name: str) -> int:
    """Position of `name` in `AU_NAMES`; accepts "AU12", "au12" and "12"; `InputError` lists the known names."""
    digits = name.strip().upper().removeprefix("AU")
    code = f"AU{int(digits):02d}" if digits.isascii() and digits.isdigit() else name
    if code not in AU_NAMES:
        raise InputError(f"unknown action unit {name!r}; known: {', '.join(AU_NAMES)}")
    return AU_NAMES.index(code)


def reorder(
    values: np.ndarray,  # [..., len(names)]
    names: Sequence[str],
) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """Codes in the registry's order, joined by name.

    Returns (values [..., 17], missing: registry names that `names` lacks and that are therefore 0,
    unused: names that the registry does not have, such as OpenFace's AU20).
    """
    if values.shape[-1] != len(names):
        raise InputError(f"{values.shape[-1]} AU columns but {len(names)} names")
    result = np.zeros(values.shape[:-1] + (NUM_AUS,), dtype=np.float32)
    for column, name in enumerate(names):
        if name in AU_NAMES:
            result[..., AU_NAMES.index(name)] = values[..., column]
    missing = tuple(name for name in AU_NAMES if name not in names)
    unused = tuple(name for name in names if name not in AU_NAMES)
    return result, missing, unused
