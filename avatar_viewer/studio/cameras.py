"""Where the studio's cameras stand: dense around the front half, a few behind and above, some close, some wide.

Knows geometry; knows no pictures or files. Held-out cameras lie between the others: they measure, they do not teach.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError
from ..geometry import orbit_camera
from ..types import Camera

TARGET = (0.0, -0.02, 0.0)  # metres: a little under the head's centre, so that neck and collar are in the picture
HELD_OUT = ("test_front", "test_side", "test_back")


@dataclass(frozen=True)
class StudioCamera:
    name: str
    camera: Camera
    roles: frozenset[str]  # "canonical", "pose" (hidden surfaces), "dynamic" (talking), "every_frame" (of those), "held_out"


# name: (yaw, pitch in degrees, distance in metres, vertical field of view in degrees, roles beside "canonical")
_STANDS: dict[str, tuple[float, float, float, float, tuple[str, ...]]] = {
    "front": (0, 0, 1.05, 24, ("pose", "dynamic")),
    "front_l25": (25, 2, 1.05, 24, ("dynamic",)),
    "front_r25": (-25, 2, 1.05, 24, ("dynamic",)),
    "front_l50": (50, 0, 1.05, 24, ("pose", "dynamic")),
    "front_r50": (-50, 0, 1.05, 24, ("pose", "dynamic")),
    "side_l78": (78, 2, 1.05, 24, ()),
    "side_r78": (-78, 2, 1.05, 24, ()),
    "high_l20": (20, 26, 1.05, 24, ()),
    "high_r20": (-20, 26, 1.05, 24, ("dynamic",)),
    "high_l62": (62, 24, 1.05, 24, ()),
    "high_r62": (-62, 24, 1.05, 24, ()),
    "low_l18": (18, -24, 1.05, 24, ("dynamic",)),
    "low_r18": (-18, -24, 1.05, 24, ("pose",)),
    "low_l58": (58, -20, 1.05, 24, ()),
    "low_r58": (-58, -20, 1.05, 24, ()),
    "back_l108": (108, 5, 1.05, 24, ()),
    "back_r108": (-108, 5, 1.05, 24, ()),
    "back_l145": (145, 8, 1.05, 24, ()),
    "back_r145": (-145, 8, 1.05, 24, ()),
    "back": (180, 4, 1.05, 24, ()),
    "top_front": (0, 62, 1.05, 24, ()),
    "top_back": (180, 50, 1.05, 24, ()),
    # Of a wrinkle 2 mm wide the others see two pixels: too little to learn a fine line from.
    "close": (4, 0, 0.75, 17, ("pose", "dynamic", "every_frame")),
    "close_l35": (35, -3, 0.75, 17, ("pose", "dynamic")),
    "close_r35": (-35, -3, 0.75, 17, ("dynamic",)),
    "wide_front": (0, 2, 1.05, 40, ()),
    "wide_l90": (90, 2, 1.05, 40, ()),
    "wide_back": (180, 2, 1.05, 40, ()),
    "wide_r90": (-90, 2, 1.05, 40, ()),
    "test_front": (12, 9, 1.05, 24, ("held_out",)),
    "test_side": (-38, 12, 1.05, 24, ("held_out",)),
    "test_back": (122, 16, 1.05, 24, ("held_out",)),
}
_DEV_STANDS = ("front", "front_l25", "front_r50", "side_l78", "back_r108", "back_l145", "close", "test_front")


def studio_cameras(scale: str, size: int) -> tuple[StudioCamera, ...]:
    """The cameras of a capture at `size` x `size` pixels: 32 for "demo", 8 for "dev"."""
    if scale not in ("demo", "dev"):
        raise InputError(f"unknown scale {scale!r}; use demo or dev")
    names = _DEV_STANDS if scale == "dev" else tuple(_STANDS)
    cameras = []
    for name in names:
        yaw, pitch, distance, fov, extra = _STANDS[name]
        camera = orbit_camera(yaw, pitch, distance, fov, size, size, TARGET)
        roles = frozenset(extra) | {"canonical"}
        cameras.append(StudioCamera(name, camera, roles | {"dynamic"} if name == "test_front" else roles))
    return tuple(cameras)
