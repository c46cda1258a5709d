"""Batches of sound with the codes of the face that speaks it, arranged hop by hop as the stream hears and answers.

What both halves of the AU encoder learn from. Knows segments and tensors; knows no network.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..config import StreamContext
from .datasets.performed_speech import CodedSegment, PerformedSpeech, draw_coded_segment


@dataclass(frozen=True)
class CodedBatch:
    samples: Tensor  # [B, S]
    codes: Tensor  # [B, H, F + A, 17]
    voice: Tensor  # [B, H, F + A]
    hop_frames: int  # F


def draw_batch(
    sources: list[PerformedSpeech], rng: np.random.Generator, count: int, seconds: float, context: StreamContext, fps: float,
    device: str, *, augmented: bool = True, lookahead_frames: int = 2,
) -> CodedBatch:  # fmt: skip
    """Segments of whole hops with their codes arranged hop by hop."""
    hops, hop_frames = round(seconds * 1000 / context.hop_ms), context.hop_frames(fps)
    length, frames = hops * context.hop_samples + context.lookahead_samples, hops * hop_frames + lookahead_frames
    drawn: list[CodedSegment] = [draw_coded_segment(sources, rng, length, frames, fps, augmented=augmented) for _ in range(count)]
    rows = torch.arange(hops)[:, None] * hop_frames + torch.arange(hop_frames + lookahead_frames)
    samples, codes, voice = (
        torch.from_numpy(np.stack([getattr(d, name) for d in drawn])) for name in ("samples", "codes", "voice")
    )
    return CodedBatch(samples.to(device), codes[:, rows].to(device), voice[:, rows].to(device), hop_frames)
