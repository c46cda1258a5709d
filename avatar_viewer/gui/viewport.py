"""The stage: the picture, fitted into its place, and the mouse that orbits it."""

from __future__ import annotations

from ..rendering.orbit import OrbitCamera
from ..types import Render
from . import gate, theme


class ViewportPanel:
    """LMB orbits, RMB or Shift+MMB or Shift+LMB pans, MMB orbits, the wheel zooms."""

    def __init__(self, look: theme.Look, camera: OrbitCamera, size: tuple[int, int]) -> None:
        self.camera = camera
        self.is_moving = False
        self._textures: dict[tuple[int, int], gate.Texture] = {}
        self._texture = self._texture_of(size)
        self._space = (1, 1)
        self._button = ""
        self._mouse = (0.0, 0.0)
        self._was_down = False
        self._shown_height = 1.0
        with gate.child(border=False, no_scrollbar=True, no_scroll_with_mouse=True) as self.tag:
            self._image = gate.image(self._texture, *size)
            with gate.column(show=False) as self._busy:
                gate.busy_sign(style=1, radius=3.0, color=theme.ACCENT)
            self._notice = gate.text("", color=theme.DIM)
        gate.bind_theme(look.stage, self.tag)

    @property
    def tags(self) -> dict[str, gate.Tag]:
        """Items that a test points at."""
        return {"stage": self._image}

    @property
    def size(self) -> tuple[int, int]:
        return self._texture.width, self._texture.height

    def set_size(self, size: tuple[int, int]) -> None:
        """Pictures come at this size from now on. Textures are kept: deleting one in use is not safe everywhere."""
        if size != self.size:
            self._texture = self._texture_of(size)
            gate.set_image(self._image, self._texture)
            self._fit()

    def place(self, width: int, height: int) -> None:
        """The room that there is in the window."""
        if (width, height) != self._space:
            self._space = (width, height)
            gate.set_size(self.tag, width, height)
            self._fit()

    def _fit(self) -> None:
        width, height = self._space
        scale = min(width / self._texture.width, height / self._texture.height)
        shown = (self._texture.width * scale, self._texture.height * scale)
        gate.set_size(self._image, *(int(v) for v in shown))
        gate.set_position(self._image, (width - shown[0]) / 2, (height - shown[1]) / 2)
        gate.set_position(self._busy, width / 2 - 24, height / 2 - 24)
        gate.set_position(self._notice, 16, 12)
        self._shown_height = max(1.0, shown[1])

    def show(self, render: Render) -> None:
        self._texture.show(render.color)

    def show_busy(self, is_busy: bool, notice: str = "") -> None:
        gate.set_shown(self._busy, is_busy)
        gate.set_text(self._notice, notice)

    def update(self) -> bool:
        """Follow the mouse; True where the camera moved."""
        mouse = gate.mouse_position()
        moved_x, moved_y = mouse[0] - self._mouse[0], mouse[1] - self._mouse[1]
        self._mouse = mouse
        down = next((name for name in ("left", "right", "middle") if gate.is_button_down(name)), "")
        if not down:
            self._button = ""
            self.is_moving = False
            self._was_down = False
            return False
        if not self._button:
            if not self._was_down and gate.is_hovered(self.tag):
                self._button = down
            self._was_down = True
            return False
        if down != self._button or (moved_x == 0 and moved_y == 0):
            return False
        self.is_moving = True
        if self._button == "right" or gate.is_key_down("shift"):
            self.camera.pan(moved_x, moved_y, self._shown_height)
        else:
            self.camera.drag(moved_x, moved_y)
        return True

    def wheel(self, turns: float) -> bool:
        """Zoom, if the mouse is over the stage; True where the camera moved."""
        if not gate.is_hovered(self.tag):
            return False
        self.camera.zoom(turns)
        return True

    def _texture_of(self, size: tuple[int, int]) -> gate.Texture:
        if size not in self._textures:
            self._textures[size] = gate.Texture(*size)
            self._textures[size].fill(tuple(v / 255 for v in theme.STAGE))
        return self._textures[size]
