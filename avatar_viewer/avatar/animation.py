"""Rig + motion + edit -> the Gaussians of one instant.

Face rows move by the offsets, plus the instant response to what the artist changed since they were made; they turn with
the skin and by RotNet, and their opacity follows OPCNet; the rest is carried (`skinning`). Colour and scale are static
(C14). Knows no time, sound, thread or picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..geometry import quat_multiply
from ..networks.appearance import AppearanceChange
from ..types import AUEdit, GaussianFrame, GaussianRig, MotionFrame
from .modulation import modulate
from .skinning import SkinTables, build_skin, place_gaussians, turn_skin

if TYPE_CHECKING:
    from .bundle import Avatar

UNSEEN_CODE_CHANGE = 1e-3  # of an intensity 0..5: two thousandths of a millimetre on the face
# Within a motion frame the voice's own codes drift by interpolation; only an edit moves them further at once.
KEPT_CODE_CHANGE = 0.05


def pose_gaussians(avatar: Avatar, motion: MotionFrame, edit: AUEdit) -> GaussianFrame:
    """The head at `motion`, with `edit` as it is now. One shot: for more than one frame hold an `Animator`."""
    return Animator(avatar).pose(motion, edit)


def compose_frame(
    rig: GaussianRig,
    tables: SkinTables,
    offsets: Tensor,  # [V, 3] metres
    gaze: Tensor,  # [2] radians
    change: AppearanceChange | None,  # None: as if at rest
    transforms: Tensor | None = None,  # [G, 4, 4] of the rigid groups, where a capture knows them
) -> GaussianFrame:
    """The Gaussians of a face so moved; differentiable in offsets and appearance."""
    return _place(rig, tables, offsets, gaze, look(rig, tables, offsets, change), transforms)


@dataclass(frozen=True)
class Look:
    """What changes at the pace of motion, not of the display: how the face is turned, and every opacity."""

    face_quats: Tensor  # [V, 4] wxyz
    opacities: Tensor  # [N] 0..1


def look(rig: GaussianRig, tables: SkinTables, offsets: Tensor, change: AppearanceChange | None) -> Look:
    """The face turned with its skin and by `change`, and the opacities."""
    count = rig.num_face
    quats = quat_multiply(turn_skin(tables, offsets), rig.quats[:count])
    logits = rig.opacity_logits
    if change is not None:
        quats = quat_multiply(change.quats, quats)
        logits = torch.cat((logits[:count] + change.opacity_logits, logits[count:]))
    return Look(quats, torch.sigmoid(logits))


def _place(
    rig: GaussianRig, tables: SkinTables, offsets: Tensor, gaze: Tensor, shown: Look, transforms: Tensor | None = None
) -> GaussianFrame:
    means, quats = place_gaussians(tables, rig, offsets, gaze, shown.face_quats, transforms)
    return GaussianFrame(means=means, quats=quats, scales=tables.scales, opacities=shown.opacities, colors=rig.colors)


class Animator:
    """One avatar in motion: holds what does not change, and the look of the last motion frame.

    The look is worked out anew when a new motion frame begins or the edited codes change visibly; between, the display
    moves the Gaussians and keeps it. So frames shown one a motion frame (export) are exactly those of `pose_gaussians`.
    """

    def __init__(self, avatar: Avatar) -> None:
        self.avatar = avatar
        with torch.inference_mode():
            self._tables = build_skin(avatar.rig, avatar.face)
            self._face_quats = avatar.rig.quats[: avatar.rig.num_face]
            self._rest = avatar.appearance.rest(self._face_quats, self._tables.neutral)
        self.reset()

    def reset(self) -> None:
        self._shown: tuple[int, Tensor, Look] | None = None  # motion frame, codes, look

    @torch.inference_mode()
    def pose(self, motion: MotionFrame, edit: AUEdit) -> GaussianFrame:
        """The head at `motion`, with `edit` as it is now; a fresh value each time, safe to keep."""
        avatar = self.avatar
        codes = edited_codes(motion, edit)
        offsets = motion.offsets
        if (codes - motion.au_applied).abs().max() > UNSEEN_CODE_CHANGE:
            offsets = offsets + (avatar.denoiser.response(codes) - avatar.denoiser.response(motion.au_applied))
        shown = self._look(motion.seconds, codes, offsets)
        return _place(avatar.rig, self._tables, offsets, motion.gaze, shown)

    def _look(self, seconds: float, codes: Tensor, offsets: Tensor) -> Look:
        index = int(seconds * self.avatar.fps + 1e-6)
        if self._shown is not None:
            shown_index, shown_codes, shown = self._shown
            if index == shown_index and (codes - shown_codes).abs().max() < KEPT_CODE_CHANGE:
                return shown
        change = self.avatar.appearance(self._face_quats, codes, self._tables.neutral, offsets, self._rest)
        shown = look(self.avatar.rig, self._tables, offsets, change)
        self._shown = (index, codes, shown)
        return shown


def edited_codes(motion: MotionFrame, edit: AUEdit) -> Tensor:  # -> [17] 0..7
    """E~ now: the voice's codes of this instant under the edit of this instant."""
    return modulate(motion.au_codes[None], motion.au_codes.new_tensor([motion.voice]), edit)[0]
