"""The contact sheet has a tile for every action unit, intensity and view, and for every emotion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from avatar_viewer.action_units import NUM_AUS
from avatar_viewer.studio.blendshapes import RIG_CHANNELS
from avatar_viewer.studio.contact_sheet import INTENSITIES, TILE, VIEWS, write_sheet
from avatar_viewer.studio.poses import EMOTION_AUS
from avatar_viewer.types import Camera


def test_every_unit_intensity_view_and_emotion_is_drawn_once(tmp_path: Path):
    drawn: list[tuple[float, ...]] = []

    def draw(values: np.ndarray, camera: Camera) -> np.ndarray:
        drawn.append((*values.tolist(), *camera.viewmat.flatten().tolist()))
        return np.full((camera.height, camera.width, 3), 100, dtype=np.uint8)

    write_sheet([draw], tmp_path / "sheet.png")
    columns = len(INTENSITIES) * len(VIEWS)
    assert len(drawn) == len(set(drawn)) == NUM_AUS * columns + 2 * len(EMOTION_AUS)
    smile = [d for d in drawn if d[RIG_CHANNELS.index("AU12")] == 5.0 and sum(d[:17]) == 5.0]
    assert len(smile) == len(VIEWS)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == columns * TILE
        assert sheet.getpixel((TILE // 2, TILE // 2)) == (100, 100, 100)


def test_two_drawers_stand_side_by_side(tmp_path: Path):
    def gray(level: int):
        return lambda values, camera: np.full((camera.height, camera.width, 3), level, dtype=np.uint8)

    write_sheet([gray(50), gray(200)], tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert [sheet.getpixel((x * TILE + TILE // 2, TILE // 2))[0] for x in range(4)] == [50, 200, 50, 200]
