"""Which head is on the stage, and how finely it is drawn."""

from __future__ import annotations

from collections.abc import Callable

from ..avatar.bundle import Avatar
from . import gate, theme

SIDES = (256, 384, 512, 768, 1024)


class AvatarPanel:
    def __init__(
        self, look: theme.Look, size: tuple[int, int], open_avatar: Callable[[], None], set_quality: Callable[[tuple[int, int]], None],
        reset_camera: Callable[[], None], width: int,
    ) -> None:  # fmt: skip
        self._set_quality = set_quality
        sizes = sorted({(side, side) for side in SIDES} | {size})
        with gate.row():
            self._name = gate.text("no avatar")
            gate.bind_font(look.strong, self._name)
            self._about = gate.text("", color=theme.DIM)
        with gate.row():
            gate.explain(gate.button("Open avatar...", open_avatar), "A folder with avatar.json (Ctrl+O)")
            quality = gate.choice([_size_text(s) for s in sizes], _size_text(size), self._pick, width=120)
            gate.explain(quality, "Size of the picture; smaller is faster")
            gate.explain(gate.button("Reset view", reset_camera), "Camera to where it began (Shift+F)")

    def show_avatar(self, avatar: Avatar) -> None:
        gate.set_text(self._name, avatar.name, 60)
        gate.set_text(self._about, f"{avatar.rig.num_gaussians:,} Gaussians")

    def _pick(self, text: str) -> None:
        width, height = text.split(" x ")
        self._set_quality((int(width), int(height)))


def _size_text(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
