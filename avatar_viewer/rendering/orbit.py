"""A turntable camera about the head: drag, pan, zoom, reset, frame. Plain maths; knows no window and no mouse."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from ..geometry import orbit_camera
from ..types import Camera

DEGREES_PER_PIXEL = 0.35
ZOOM_PER_TURN = 1.12  # of the wheel
MAX_PITCH = 89.0  # a turntable has an up; over the top left and right would change sides
CLEARANCE = 0.18  # metres between the camera and the head's centre: outside the head, whatever it looks at
NEAREST, FARTHEST = 0.05, 5.0  # metres from the target
MAX_TARGET = 0.3  # metres from the head's centre, each way, so that the head cannot get lost


@dataclass
class OrbitCamera:
    """Where the picture is taken from; the defaults frame a head with shoulders."""

    yaw_degrees: float = 0.0  # positive: from +x
    pitch_degrees: float = 0.0  # positive: from above
    distance: float = 1.0  # metres from the target
    fov_degrees: float = 22.0  # vertical
    target: tuple[float, float, float] = (0.0, -0.02, 0.0)  # metres; the head's centre is the origin

    def drag(self, dx: float, dy: float) -> None:
        """Turn the head by a mouse movement in pixels: it follows the hand, to the right and down."""
        self.yaw_degrees = (self.yaw_degrees - DEGREES_PER_PIXEL * dx + 180.0) % 360.0 - 180.0
        self.pitch_degrees = max(-MAX_PITCH, min(MAX_PITCH, self.pitch_degrees + DEGREES_PER_PIXEL * dy))
        self._keep_clear()

    def pan(self, dx: float, dy: float, view_height: float) -> None:
        """Shift by pixels of a view `view_height` pixels high: the point under the hand stays under it."""
        metres = 2 * self.distance * math.tan(math.radians(self.fov_degrees) / 2) / max(view_height, 1.0)
        yaw, pitch = math.radians(self.yaw_degrees), math.radians(self.pitch_degrees)
        right = (math.cos(yaw), 0.0, -math.sin(yaw))
        up = (-math.sin(yaw) * math.sin(pitch), math.cos(pitch), -math.cos(yaw) * math.sin(pitch))
        moved = (t - metres * dx * r + metres * dy * u for t, r, u in zip(self.target, right, up))
        self.target = tuple(max(-MAX_TARGET, min(MAX_TARGET, value)) for value in moved)
        self._keep_clear()

    def zoom(self, turns: float) -> None:
        """Come nearer by turns of the wheel, each by the same ratio."""
        turns = max(-100.0, min(100.0, turns))
        self.distance = max(NEAREST, min(FARTHEST, self.distance * ZOOM_PER_TURN**-turns))
        self._keep_clear()

    def frame(self) -> None:
        """Bring the whole head into the picture, from where the camera is."""
        self.distance, self.target = type(self).distance, type(self).target

    def reset(self) -> None:
        """Back to where `__init__` put it by default."""
        for item in fields(self):
            setattr(self, item.name, item.default)

    def _keep_clear(self) -> None:
        """Back off along the line of sight until the camera is outside the ball of `CLEARANCE` about the head's centre."""
        yaw, pitch = math.radians(self.yaw_degrees), math.radians(self.pitch_degrees)
        outward = (math.sin(yaw) * math.cos(pitch), math.sin(pitch), math.cos(yaw) * math.cos(pitch))
        along = sum(t * o for t, o in zip(self.target, outward))
        under_root = along * along - sum(t * t for t in self.target) + CLEARANCE * CLEARANCE
        if under_root > 0:  # otherwise the line of sight misses the ball
            self.distance = max(self.distance, math.sqrt(under_root) - along)

    def camera(self, width: int, height: int) -> Camera:
        return orbit_camera(self.yaw_degrees, self.pitch_degrees, self.distance, self.fov_degrees, width, height, self.target)
