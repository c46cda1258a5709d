"""Windows for the motion stage: truth, codes and speech around a hop, drawn at random as one batch of tensors.

A sound is heard once and serves several tracks: the performed one and counterfactual ones with other AUs. Knows arrays;
knows no rig, backbone or file of a capture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...config import StreamContext
from ...networks.denoiser import Conditions, MotionHistory


@dataclass(frozen=True)
class Tracks:
    """All motion, one track after another."""

    latents: Tensor  # [sum T, K]
    codes: Tensor  # [sum T, 17] 0..7, true
    gap_mm: Tensor  # [sum T], true
    lip_weight: Tensor  # [sum T], 0 where the lips are at rest
    speaking: Tensor  # [sum T] 0..1


@dataclass(frozen=True)
class Sounds:
    """All sounds as the denoiser hears them within one `StreamContext`, hop by hop."""

    context: StreamContext
    hop_frames: int  # F
    speech: Tensor  # [sum H, F + A, D] float16
    code_error: Tensor  # [sum H, F, 17], what the AU encoder hears minus the performed truth; zeros without an encoder


@dataclass(frozen=True)
class Entry:
    """A track with a sound that it goes with."""

    first_frame: int  # of the track in `Tracks`, where the sound begins
    first_hop: int  # of the sound in `Sounds`
    hops: int


@dataclass(frozen=True)
class WindowBatch:
    """Two consecutive windows a sample; frames are those of the first window, then the second's."""

    latents: Tensor  # [B, P + 2 F + A, K] from P frames before the first window on
    codes: Tensor  # [B, P + 2 F + A, 17] true
    code_error: Tensor  # [B, P + 2 F + A, 17]
    speech: tuple[Tensor, Tensor]  # each [B, P + F + A, D]: history and window, as heard at each of the two hops
    lip_weight: Tensor  # [B, P + 2 F + A]
    speaking: Tensor  # [B, P + 2 F + A]
    known: Tensor  # [B, P + F] bool: the frames before a window that exist


class WindowSource:
    """Draws batches of window pairs from the entries of one context."""

    def __init__(self, tracks: Tracks, sounds: Sounds, entries: list[Entry], previous_frames: int) -> None:
        self.tracks, self.sounds = tracks, sounds
        self.previous = previous_frames
        self.lookahead = sounds.speech.shape[1] - sounds.hop_frames
        # Every hop that has a successor, of every entry.
        rows = [(entry.first_frame, entry.first_hop, hop) for entry in entries for hop in range(entry.hops - 1)]
        self.windows = torch.tensor(rows, dtype=torch.int64).reshape(-1, 3)

    def __len__(self) -> int:
        return len(self.windows)

    def draw(self, rng: np.random.Generator, batch: int) -> WindowBatch:
        return self.gather(torch.from_numpy(rng.integers(len(self.windows), size=batch)))

    def gather(self, chosen: Tensor) -> WindowBatch:  # [B] indices of windows
        first_frame, first_hop, hop = self.windows[chosen].unbind(1)
        frames, previous = self.sounds.hop_frames, self.previous
        steps = torch.arange(-previous, 2 * frames + self.lookahead)
        in_track = hop[:, None] * frames + steps  # [B, L]
        index = (first_frame[:, None] + in_track.clamp(min=0)).clamp(max=len(self.tracks.latents) - 1)
        hop_of = in_track.clamp(min=0) // frames
        hop_of = torch.minimum(hop_of, hop[:, None] + 1)  # the second window's look-ahead belongs to its own hop
        row = first_hop[:, None] + hop_of
        error = self.sounds.code_error[row, (in_track.clamp(min=0) - hop_of * frames).clamp(max=frames - 1)]
        return WindowBatch(
            latents=self.tracks.latents[index],
            codes=self.tracks.codes[index],
            code_error=error.float(),
            speech=(self._speech_at(first_hop, hop), self._speech_at(first_hop, hop + 1)),
            lip_weight=self.tracks.lip_weight[index],
            speaking=self.tracks.speaking[index],
            known=in_track[:, : previous + frames] >= 0,
        )

    def _speech_at(self, first_hop: Tensor, hop: Tensor) -> Tensor:  # [B], [B] -> [B, P + F + A, D]
        """What has been heard when this hop is computed: hops before it by their own values, its look-ahead as yet unsure."""
        frames = self.sounds.hop_frames
        steps = torch.arange(-self.previous, frames + self.lookahead)
        in_sound = (hop[:, None] * frames + steps).clamp(min=0)
        hop_of = torch.minimum(in_sound // frames, hop[:, None])
        return self.sounds.speech[first_hop[:, None] + hop_of, in_sound - hop_of * frames].float()


def window_of(
    batch: WindowBatch,
    which: int,  # 0: the first window, 1: the second
    frames: int,  # F
    codes: Tensor,  # [B, P + 2 F + A, 17] as given to the network
    history_latents: Tensor,  # [B, P, K]
    template: Tensor,
) -> tuple[MotionHistory, Conditions]:
    """What the network is given for one of the two windows."""
    previous = history_latents.shape[1]
    start = which * frames
    speech = batch.speech[which]
    window = speech.shape[1] - previous
    history = MotionHistory(
        history_latents, codes[:, start : start + previous], speech[:, :previous], batch.known[:, start : start + previous]
    )
    return history, Conditions(codes[:, start + previous : start + previous + window], speech[:, previous:], template)
