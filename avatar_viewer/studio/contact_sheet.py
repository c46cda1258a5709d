"""One picture of everything a rig can do: each action unit at 1, 3 and 5 from three sides, and the paper's emotions."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from ..action_units import ACTION_UNITS
from ..geometry import orbit_camera
from ..types import Camera
from .atomic_files import write_bytes
from .blendshapes import BlendshapeRig
from .poses import EMOTION_AUS, coefficients
from .renderer import StudioRenderer

TILE = 160  # pixels
LIGHT_SAMPLES = 32  # paths a vertex
INTENSITIES = (1.0, 3.0, 5.0)
VIEWS: dict[str, Camera] = {
    "front": orbit_camera(0, 0, 1.0, 17, TILE, TILE, (0.0, -0.01, 0.0)),
    "three-quarter": orbit_camera(38, 3, 1.0, 17, TILE, TILE, (0.0, -0.01, 0.0)),
    "side": orbit_camera(85, 0, 1.0, 17, TILE, TILE, (0.0, -0.01, 0.0)),
}
_LABEL = 18  # pixels under each tile
_COLUMNS = len(INTENSITIES) * len(VIEWS)

Draw = Callable[[np.ndarray, Camera], np.ndarray]  # coefficients [C], camera -> [H, W, 3] uint8


def draw_contact_sheet(rig: BlendshapeRig, path: Path) -> None:
    """Path-trace the sheet of `rig` to a PNG."""
    write_sheet([draw_rig(rig)], path)


def draw_rig(rig: BlendshapeRig) -> Draw:
    """The rig's own faces, path-traced; a face is lit once for all the cameras that see it in a row."""
    renderer = StudioRenderer(rig, rig.pose(coefficients({})), light_samples=LIGHT_SAMPLES)
    lit: list[np.ndarray] = []

    def draw(values: np.ndarray, camera: Camera) -> np.ndarray:
        if not lit or not np.array_equal(lit[-1], values):
            renderer.set_head(rig.pose(values))
            lit[:] = [values]
        return renderer.take_picture(camera).color

    return draw


def write_sheet(draws: Sequence[Draw], path: Path) -> None:
    """The sheet with faces by each of `draws` side by side: the rig's, a trained avatar's."""
    rows = [
        [(f"{unit.code} {intensity:g} {view}", {unit.code: intensity}, view) for intensity in INTENSITIES for view in VIEWS]
        for unit in ACTION_UNITS
    ]
    emotions = [(f"{name} {view}", aus, view) for name, aus in EMOTION_AUS.items() for view in ("front", "three-quarter")]
    rows += [emotions[start : start + _COLUMNS] for start in range(0, len(emotions), _COLUMNS)]
    width = len(draws) * TILE
    sheet = Image.new("RGB", (_COLUMNS * width, len(rows) * (TILE + _LABEL)), "white")
    pen = ImageDraw.Draw(sheet)
    tiles = [(r, c, *cell) for r, row in enumerate(rows) for c, cell in enumerate(row)]
    for row, column, label, named, view in tqdm(tiles, desc="contact sheet", unit="tile"):
        left, top = column * width, row * (TILE + _LABEL)
        for place, draw in enumerate(draws):
            sheet.paste(Image.fromarray(draw(coefficients(named), VIEWS[view])), (left + place * TILE, top))
        pen.text((left + 4, top + TILE + 2), label, fill="black")
    data = io.BytesIO()
    sheet.save(data, "PNG")
    write_bytes(path, data.getvalue())
