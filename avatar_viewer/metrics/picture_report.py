"""Pictures of an avatar beside a capture's: the resting head from unseen cameras, and talking frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..avatar.animation import Animator
from ..avatar.bundle import Avatar
from ..rendering.rasterize import rasterize
from ..training.datasets.capture import Capture, Shot, TalkingSequence
from ..types import AUEdit, MotionFrame, MotionWindow
from . import image
from .cpbd import cpbd
from .perceptual import lpips, why_no_lpips


@dataclass(frozen=True)
class Pair:
    """The truth's picture and the avatar's, as the page shows them."""

    label: str
    truth: np.ndarray  # [H, W, 3] uint8
    found: np.ndarray  # [H, W, 3] uint8


def measure_canonical(avatar: Avatar, capture: Capture) -> tuple[list[dict], list[Pair]]:
    """Figures of the resting head from each camera that training never saw, inside the head's mask."""
    still = MotionFrame(0.0, torch.zeros(17), torch.zeros(17), 0.0, torch.zeros_like(avatar.face.neutral), torch.zeros(2))
    frame = Animator(avatar).pose(still, AUEdit())
    rows, pairs = [], []
    for shot in capture.canonical.shots:
        if shot.camera in capture.held_out_cameras:
            color = rasterize(frame, shot.view).color
            rows.append(compare(color, shot))
            pairs.append(_pair(f"resting, {shot.camera}", color, shot))
    return rows, pairs


def measure_talking(
    avatar: Avatar, capture: Capture, sequence: TalkingSequence, window: MotionWindow
) -> tuple[list[dict], list[Pair]]:
    """The talking frames that have pictures, seen by held-out cameras (by all, where none is held out)."""
    animator, rows, pairs = Animator(avatar), [], []
    for index in sequence.pictured:
        if index >= len(window.offsets):
            continue
        parts = (window.au_codes[index], window.au_applied[index], float(window.voice[index]), window.offsets[index], window.gaze[index])
        frame = animator.pose(MotionFrame(index / sequence.fps, *parts), AUEdit())
        shots = capture.shots(sequence, index)
        for shot in [shot for shot in shots if shot.camera in capture.held_out_cameras] or shots:
            color = rasterize(frame, shot.view).color
            rows.append(compare(color, shot))
            pairs.append(_pair(f"{sequence.name}, frame {index}, {shot.camera}", color, shot))
    return rows, pairs


def compare(color: Tensor, shot: Shot) -> dict[str, float]:
    """PSNR, SSIM and sharpness inside the head's mask; CPBD, and LPIPS where it can be had, of the whole picture."""
    truth, mask = (tensor.float() / 255 for tensor in shot.load())
    figures = {
        "psnr": image.psnr(color, truth, mask),
        "ssim": image.ssim(color, truth, mask),
        "sharpness_ratio": image.sharpness(color, mask) / max(image.sharpness(truth, mask), 1e-9),
        "cpbd": cpbd(color.numpy()),
        "cpbd_truth": cpbd(truth.numpy()),
    }
    if not why_no_lpips():
        figures["lpips"] = lpips(color, truth)
    return figures


def _pair(label: str, color: Tensor, shot: Shot) -> Pair:
    return Pair(label, shot.load()[0].numpy(), (color.clamp(0, 1) * 255).round().to(torch.uint8).numpy())
