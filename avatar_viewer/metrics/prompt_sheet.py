"""One picture of what prompts do to a face: each one slight, plain and very, as a trained avatar shows it in silence.

Read and drawn by the avatar's own parts, as if an artist had typed it. A stranger should name the feeling and order the degrees.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from ..action_units import AU_NAMES
from ..avatar.animation import Animator
from ..avatar.bundle import Avatar
from ..avatar.prompt_edit import prompt_edit
from ..geometry import orbit_camera
from ..networks.prompt_reading import PromptReading
from ..rendering.rasterize import rasterize
from ..studio.atomic_files import write_bytes
from ..types import Camera
from .avatar_sheet import settle_under

# The emotions of the paper's supplement, section 7, as an artist would type them.
TEN_EMOTIONS = ("happy", "sad", "angry", "afraid", "disgusted", "confused", "worried", "anxious", "disappointed", "shy")
DEGREES = ("slightly {}", "{}", "very {}")
CAMERA = orbit_camera(0, 0, 1.0, 17, 240, 240, (0.0, -0.01, 0.0))
_LABEL = 34  # pixels under each tile: the prompt, and the action units read


def draw_prompt_sheet(avatar: Avatar, prompts: Sequence[str], path: Path, camera: Camera = CAMERA) -> None:
    """A row a prompt, a column a degree, to the PNG `path`. The avatar must have a text controller."""
    assert avatar.text is not None, "the avatar reads no prompts"
    animator = Animator(avatar)
    sheet = Image.new("RGB", (len(DEGREES) * camera.width, len(prompts) * (camera.height + _LABEL)), "white")
    pen = ImageDraw.Draw(sheet)
    for row, prompt in enumerate(prompts):
        for column, degree in enumerate(DEGREES):
            asked = degree.format(prompt)
            reading = avatar.text.read(asked)
            color = rasterize(settle_under(avatar, animator, prompt_edit(reading)), camera).color
            left, top = column * camera.width, row * (camera.height + _LABEL)
            sheet.paste(Image.fromarray((color.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()), (left, top))
            pen.text((left + 4, top + camera.height + 2), _printable(asked), fill="black")
            pen.text((left + 4, top + camera.height + 17), _name_units(reading), fill="dimgray")
    data = io.BytesIO()
    sheet.save(data, "PNG")
    write_bytes(path, data.getvalue())


def _name_units(reading: PromptReading) -> str:
    units = [(float(value), name[2:]) for name, value, is_active in zip(AU_NAMES, reading.intensity, reading.active) if is_active]
    return "  ".join(f"{name} {value:.1f}" for value, name in sorted(units, reverse=True)[:5]) or reading.note[:38]


def _printable(prompt: str) -> str:
    """What the sheet's plain font can show of a prompt."""
    return prompt[:38].encode("latin-1", "replace").decode("latin-1")
