"""The values that cross a module or thread border: the project's vocabulary.

Shape legend, used in every signature of the project:
    T motion frames, S samples, V face vertices, N Gaussians, Q face Gaussians (= V), H W pixels.
Values are immutable: a tensor that has been handed over is not written again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .action_units import NUM_AUS
from .errors import InputError


def ensure_shape(name: str, tensor: Tensor, shape: tuple[int | None, ...]) -> None:
    """Raise `ValueError` naming `name`, the expected and the found shape; `None` matches any length."""
    found = tuple(tensor.shape)
    if len(found) != len(shape) or any(want is not None and want != got for want, got in zip(shape, found)):
        expected = "[" + ", ".join("any" if n is None else str(n) for n in shape) + "]"
        raise ValueError(f"{name} must have shape {expected}, got {list(found)}")


def ensure_range(name: str, value: float, low: float, high: float) -> None:
    """Raise `InputError` naming `name` and the value where it is not a number from `low` to `high`."""
    if not (math.isfinite(value) and low <= value <= high):
        raise InputError(f"{name} is {value}; use a number from {low:g} to {high:g}")


@dataclass(frozen=True)
class AudioChunk:
    """Mono sound at 16 kHz, in order."""

    samples: Tensor  # [S] float32, -1..1
    start_seconds: float


@dataclass(frozen=True)
class SpeechFeatures:
    """What the speech backbone hears; value k is centred at 12.5 ms + 20 ms * k."""

    values: Tensor  # [T, D]
    fps: float


@dataclass(frozen=True)
class AUCodes:
    """Action unit intensities, addressed by name."""

    values: Tensor  # [T, K] in 0..5
    names: tuple[str, ...]


def _zeros() -> Tensor:
    return torch.zeros(NUM_AUS)


@dataclass(frozen=True)
class AUEdit:
    """What the artist asks of the action units at one instant; the default asks for nothing.

    The prompt's part (`active`, `intensity`) is scaled by `strength`; the sliders' part (`gain`, `offset`, `mute`)
    is taken as it is. `avatar.modulation.modulate` gives the meaning.
    """

    active: Tensor = field(default_factory=_zeros)  # [17] 0..1: y of the paper; fractions while a prompt eases in
    intensity: Tensor = field(default_factory=_zeros)  # [17] 0..5, the prompt's targets
    enhance: float = 1.0  # the paper's alpha
    suppress: float = 0.3  # the paper's beta, 0..1
    strength: float = 1.0  # 0..2, how much of the prompt
    gain: Tensor = field(default_factory=lambda: torch.ones(NUM_AUS))  # [17] >= 0, on the voice's codes
    offset: Tensor = field(default_factory=_zeros)  # [17] -5..5 (to 7 over range), added last
    mute: Tensor = field(default_factory=_zeros)  # [17] 0..1: 1 silences the AU altogether
    mode: str = "blend"  # or "paper"
    limit: float = 5.0  # 5, or 7 over range


@dataclass(frozen=True)
class MotionWindow:
    """A piece of face motion; frame i is the pose at `start_seconds + i / fps`."""

    start_seconds: float
    fps: float
    au_codes: Tensor  # [T, 17] 0..5, what the voice (and the blink generator) asked for, unedited
    au_applied: Tensor  # [T, 17] 0..5, after edits: what the offsets contain
    voice: Tensor  # [T] 0..1, how much the voice is speaking
    offsets: Tensor  # [T, V, 3] metres, from the neutral face
    gaze: Tensor  # [T, 2] radians: yaw (positive to +x), pitch (positive up)

    @property
    def end_seconds(self) -> float:
        return self.start_seconds + len(self.au_codes) / self.fps


@dataclass(frozen=True)
class MotionFrame:
    """The face at one instant, interpolated between motion frames for the display."""

    seconds: float
    au_codes: Tensor  # [17] unedited
    au_applied: Tensor  # [17] what the offsets contain
    voice: float  # 0..1
    offsets: Tensor  # [V, 3] metres
    gaze: Tensor  # [2] radians


@dataclass(frozen=True)
class GaussianRig:
    """Canonical Gaussians G_0 = {mu_0, S_0, R_0, alpha_0, c_0} (supplement eq. 5) before activations.

    The first `num_face` rows are the face, one per template vertex, in vertex order.
    """

    means: Tensor  # [N, 3] metres
    quats: Tensor  # [N, 4] wxyz
    log_scales: Tensor  # [N, 3]
    opacity_logits: Tensor  # [N]
    colors: Tensor  # [N, 3] sRGB 0..1, baked from the triplane
    num_face: int  # Q
    # What carries row Q + i: its nearest face vertices with weights that sum to 1 or less, the rest is the head's.
    binding_vertices: Tensor  # [N - Q, 4] int64
    binding_weights: Tensor  # [N - Q, 4]
    group_ids: Tensor  # [N - Q] int64: -1 bound to the face by the two above, otherwise an index into `groups`
    groups: tuple[RigidGroup, ...]

    @property
    def num_gaussians(self) -> int:
        return len(self.means)


@dataclass(frozen=True)
class RigidGroup:
    """Teeth, tongue or an eye: moves as one piece."""

    name: str  # eye_left, eye_right, teeth_upper, teeth_lower, tongue
    parent: str  # "head", or "jaw": follows the rigid fit to the face's jaw region
    pivot: tuple[float, float, float]  # metres; eyes turn about it
    follows_gaze: bool


@dataclass(frozen=True)
class GaussianFrame:
    """The Gaussians of one instant, activations applied, in gsplat's words."""

    means: Tensor  # [N, 3] metres
    quats: Tensor  # [N, 4] wxyz
    scales: Tensor  # [N, 3] metres, standard deviations
    opacities: Tensor  # [N] 0..1
    colors: Tensor  # [N, 3] sRGB 0..1

    def to(self, device: torch.device | str) -> GaussianFrame:
        return GaussianFrame(*(t.to(device) for t in (self.means, self.quats, self.scales, self.opacities, self.colors)))


@dataclass(frozen=True)
class Camera:
    """A pinhole camera in OpenCV's convention: x right, y down, z forward."""

    viewmat: Tensor  # [4, 4] world to camera
    K: Tensor  # [3, 3] pixels
    width: int
    height: int


@dataclass(frozen=True)
class Render:
    """A picture: colour over the background, and coverage."""

    color: Tensor  # [H, W, 3] sRGB 0..1
    alpha: Tensor  # [H, W] 0..1
    dropped: int = 0  # Gaussians left out because a value was not finite or they had no shape
