"""A capture of the crude head in seconds: 48 x 48 pixels, two short takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from studio.crude_rig import build_crude_rig

from avatar_viewer.config import SAMPLE_RATE
from avatar_viewer.studio.blendshapes import RIG_CHANNELS, BlendshapeRig
from avatar_viewer.studio.capture import write_capture
from avatar_viewer.studio.performance import Performance
from avatar_viewer.studio.poses import coefficients
from avatar_viewer.studio.takes import SCALES, Take
from avatar_viewer.studio.voices import Phone

TINY = replace(SCALES["dev"], size=48, supersampling=2, light_samples=3, scaffold_points=300, poses=2)


def _take(name: str, split: str, pictured: tuple[int, ...]) -> Take:
    values = np.stack([coefficients({"AU26": 5 * i / 9, "AU12": 2.0}) for i in range(10)])
    sound = 0.1 * np.sin(np.arange(round(10 / 25 * SAMPLE_RATE)) / 20).astype(np.float32)
    phones = (Phone(0.0, 0.1, "pau"), Phone(0.1, 0.4, "aa"))
    return Take(name, Performance(25.0, values, RIG_CHANNELS, phones, sound, "flite:slt", "Ah."), split, pictured)


def write_crude_capture(out: Path, seed: int = 0, rig: BlendshapeRig | None = None) -> None:
    """Write it to `out`, of the crude head or of `rig`, or go on where an earlier run was."""
    takes = [_take("train_000", "train", (2, 8)), _take("test_000", "test", ())]
    rig = rig or build_crude_rig()
    write_capture(rig, out, takes, scale=TINY, seed=seed, rig_source=rig.name, held_out_voices=("espeak:x",))
