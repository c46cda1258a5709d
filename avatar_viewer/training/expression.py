"""Stage speech, last part: the branch that hears feelings, trained on a finished encoder, which it leaves as it is.

In one network the two are at odds: a loss that asks for the units of feelings costs lip closures (measured: of closures in
human speech a tenth to a third). Both parts before it are frozen, so each segment is heard once and kept, and the branch
runs over long stretches, many times, in minutes. Progress is kept every minute.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import DEFAULT_STREAM, LOW_DELAY_STREAM, StreamContext
from ..metrics.actions import ACTIVE
from ..networks.au_encoder import AUEncoder
from ..networks.speech import SpeechBackbone
from .coded_batches import draw_batch
from .course import run_paced
from .datasets.performed_speech import PerformedSpeech
from .losses import au_loss

# What feelings move. The lips' opening and closing (AU24, 25, 26) stay with the encoder, which is trained to miss no closure.
EXPRESSION_AUS = (
    "AU01", "AU02", "AU04", "AU05", "AU06", "AU07", "AU09", "AU10", "AU12", "AU14", "AU15", "AU17", "AU23",
)  # fmt: skip


@dataclass(frozen=True)
class ExpressionSettings:
    dim: int = 64
    segments: int = 800  # heard once, each in one of the contexts
    seconds: float = 12.0  # a segment: several feelings, one after another
    steps: int = 1000
    batch: int = 16  # segments a step
    learning_rate: float = 3e-3
    warmup: int = 30  # steps
    decay: float = 0.5
    low_delay_share: float = 0.3
    dropout: float = 0.1  # of the features: a few thousand sentences are soon known by heart
    activity_weight: float = 1.0  # of the cross-entropy of active or not, beside equation 11
    intensity_weight: float = 0.3  # of the intensity where active
    lookahead_weight: float = 0.3


@dataclass(frozen=True)
class HeardBatch:
    """What the frozen parts make of some segments, all in one context."""

    context: StreamContext
    features: Tensor  # [B, H, M + R, D] float16
    articulated: Tensor  # [B, H, F + A, 17] float16, the encoder's own codes
    codes: Tensor  # [B, H, F + A, 17] float16, the truth
    hop_frames: int  # F

    def choose(self, rows: Tensor) -> HeardBatch:
        fields = {name: getattr(self, name)[rows] for name in ("features", "articulated", "codes")}
        return replace(self, **fields)


def train_expression(
    backbone: SpeechBackbone,
    encoder: AUEncoder,
    training: list[PerformedSpeech],
    work: Path,
    settings: ExpressionSettings,
    *,
    fps: float = 25.0,
    resume: bool = False,
    device: str = "cpu",
    seed: int = 0,
    progress=lambda share: None,
) -> AUEncoder:
    """`encoder` with a branch for feelings; its own part keeps every weight."""
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    whole = add_expression(encoder, settings.dim).to(device)
    branch = whole.expression
    optimizer = torch.optim.AdamW(branch.parameters(), lr=settings.learning_rate, weight_decay=0.05, betas=(0.9, 0.98))
    heard: list[HeardBatch] = []

    def loss_at(step: int) -> Tensor:
        if not heard:  # only where there is a step left to do
            heard.extend(hear_segments(backbone, encoder, training, settings, fps, device, seed, lambda share: progress(share / 2)))
        rng = np.random.default_rng((seed, 9, step))
        torch.manual_seed(int(rng.integers(2**31)))  # of the dropout: a run that was stopped draws as one that was not
        source = heard[1 if len(heard) > 1 and rng.random() < settings.low_delay_share else 0]
        count = len(source.features)
        batch = source.choose(torch.from_numpy(rng.choice(count, min(settings.batch, count), replace=False)))
        return expression_loss(whole, batch, settings, fps)

    state = work / "expression_state.safetensors"
    run_paced("expression", branch, optimizer, settings, loss_at, state, resume=resume, progress=lambda share: progress(0.5 + share / 2))
    return whole.eval()


def add_expression(encoder: AUEncoder, dim: int, units: tuple[str, ...] = EXPRESSION_AUS) -> AUEncoder:
    """A copy of `encoder` with a new branch of this width for these units."""
    whole = AUEncoder(replace(encoder.config, expression_dim=dim, expression_aus=units))
    articulation = {name: tensor for name, tensor in encoder.state_dict().items() if not name.startswith("expression.")}
    missing = whole.load_state_dict(articulation, strict=False).missing_keys
    assert all(name.startswith("expression.") for name in missing), missing
    return whole


@torch.no_grad()
def hear_segments(
    backbone: SpeechBackbone,
    encoder: AUEncoder,
    training: list[PerformedSpeech],
    settings: ExpressionSettings,
    fps: float,
    device: str,
    seed: int,
    progress,
) -> list[HeardBatch]:
    """Augmented segments as the frozen parts hear them: one batch a context, the default's first."""
    low = round(settings.segments * settings.low_delay_share)
    shares = [(DEFAULT_STREAM, settings.segments - low), (LOW_DELAY_STREAM, low)]
    result, done = [], 0
    for number, (context, count) in enumerate(shares):
        rng = np.random.default_rng((seed, 8, number))
        rows: list[tuple[Tensor, Tensor, Tensor]] = []
        for _ in range(count):
            batch = draw_batch(training, rng, 1, settings.seconds, context, fps, device)
            features = backbone.forward_blocks(batch.samples, context).float()
            articulated, _ = encoder.forward_blocks(features, context, fps)
            rows.append((features.half(), articulated.half(), batch.codes.half()))
            done += 1
            progress(done / settings.segments)
        if rows:
            joined = (torch.cat(part) for part in zip(*rows))
            result.append(HeardBatch(context, *joined, context.hop_frames(fps)))
    return result


def expression_loss(encoder: AUEncoder, batch: HeardBatch, settings: ExpressionSettings, fps: float = 25.0) -> Tensor:
    """Equation 11 of the branch's units over the hops' own frames in order, whether each is active, and how strongly if so."""
    columns = encoder.expression.columns
    features = F.dropout(batch.features.float(), settings.dropout, encoder.training)
    articulated = batch.articulated.float()
    activity, intensity = encoder.feel_blocks(features, articulated, batch.context, fps)
    found = encoder.expression.complete(articulated, activity, intensity)[..., columns]
    truth = batch.codes.float()[..., columns]
    active = (truth >= ACTIVE).float()
    certain = settings.activity_weight * F.binary_cross_entropy_with_logits(activity, active, reduction="none")
    certain = certain + settings.intensity_weight * active * (intensity - truth).abs()
    own, ahead = slice(0, batch.hop_frames), slice(batch.hop_frames, None)
    loss = au_loss(found[:, :, own].flatten(1, 2), truth[:, :, own].flatten(1, 2)) + certain[:, :, own].mean()
    return loss + settings.lookahead_weight * certain[:, :, ahead].mean()
