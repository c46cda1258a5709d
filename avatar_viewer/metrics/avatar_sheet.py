"""Every action unit and emotion as a trained avatar shows it in silence, beside the rig that it was trained from.

The avatar is asked as an artist asks it: sliders on a quiet sound, through its own diffusion.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..action_units import NUM_AUS
from ..avatar.animation import Animator
from ..avatar.bundle import Avatar, load_avatar
from ..avatar.edit_track import EditTrack
from ..avatar.speech_motion import speak
from ..config import SAMPLE_RATE
from ..errors import InputError
from ..rendering.rasterize import rasterize
from ..studio.blendshapes import GAZE_CHANNELS, RIG_CHANNELS
from ..studio.contact_sheet import Draw, draw_rig, write_sheet
from ..studio.rig_source import open_rig
from ..training.datasets.capture import open_capture
from ..types import AUEdit, Camera, GaussianFrame, MotionFrame

SETTLE_SECONDS = 1.6  # by then a face that nobody disturbs has come to rest


def draw_avatar_sheet(avatar_folder: Path, data: Path, path: Path, say: Callable[[str], None] = print) -> None:
    """The sheet of the avatar to a PNG, with the rig of its capture `data` on the left of each tile where it can be lit."""
    avatar, capture = load_avatar(avatar_folder), open_capture(data)
    draws = [draw_avatar(avatar)]
    if capture.rig_source:
        try:
            draws.insert(0, draw_rig(open_rig(capture.rig_source)))
        except InputError as error:
            say(f"the sheet shows the avatar alone: {error}")
    write_sheet(draws, path)


def draw_avatar(avatar: Avatar) -> Draw:
    """Faces of rig coefficients as the avatar shows them; channels other than AUs and gaze are beyond it."""
    animator = Animator(avatar)
    settled: list[tuple[np.ndarray, GaussianFrame]] = []

    def draw(values: np.ndarray, camera: Camera) -> np.ndarray:
        if not settled or not np.array_equal(settled[-1][0], values):
            settled[:] = [(values, settle(avatar, animator, values))]
        color = rasterize(settled[-1][1], camera).color
        return (color.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()

    return draw


def settle(avatar: Avatar, animator: Animator, values: np.ndarray) -> GaussianFrame:  # [C] values of RIG_CHANNELS
    """The Gaussians once the face has come to rest under sliders at `values`."""
    edit = replace(AUEdit(), offset=torch.from_numpy(np.asarray(values[:NUM_AUS], dtype=np.float32)))
    gaze = torch.tensor([float(values[RIG_CHANNELS.index(name)]) for name in GAZE_CHANNELS])
    return settle_under(avatar, animator, edit, gaze)


def settle_under(avatar: Avatar, animator: Animator, edit: AUEdit, gaze: Tensor | None = None) -> GaussianFrame:  # gaze [2]
    """The Gaussians once the face has come to rest under `edit`, in silence and without blinks."""
    window = speak(avatar, torch.zeros(round(SETTLE_SECONDS * SAMPLE_RATE)), EditTrack.constant(edit), blinks=False)
    last = (window.au_codes[-1], window.au_applied[-1], float(window.voice[-1]), window.offsets[-1])
    animator.reset()
    return animator.pose(MotionFrame(window.end_seconds, *last, torch.zeros(2) if gaze is None else gaze), edit)
