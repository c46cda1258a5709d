"""Stage speech, first half: the compact HuBERT learns phones, articulation, melody and feeling from synthesised voices.

Frame-wise targets at HuBERT's own grid, through the very blocks that the stream runs, both stream contexts mixed.
The heads on top exist only here. Progress is kept every minute; a run that is stopped goes on where it was.
"""

from __future__ import annotations

import copy
import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..config import DEFAULT_STREAM, FEATURE_HOP, LOW_DELAY_STREAM, StreamContext
from ..networks.speech import SpeechBackbone, block_shape, create_speech_backbone, save_speech_backbone
from .checkpoint import RunningAverage, load_checkpoint, save_checkpoint
from .course import SAVE_SECONDS, learning_rate_factor
from .datasets.speech_augment import MEL_BANDS, Segment, draw_segment
from .datasets.speech_corpus import ARTICULATIONS, FEELINGS, NO_FEELING, PHONES, SpeechCorpus, articulation_table

log = logging.getLogger(__name__)
EXPORT_SECONDS = 180.0  # of training between two looks at the held-out voices


@dataclass(frozen=True)
class BackboneSettings:
    steps: int = 6400
    batch: int = 8  # segments a step: many small steps learn several times as much in a core's minute as few large ones
    seconds: float = 3.0  # a segment
    learning_rate: float = 2e-3
    warmup: int = 150  # steps
    decay: float = 0.35  # the last part of the run, over which the rate falls to nothing
    low_delay_share: float = 0.3  # of the batches
    layers: int = 6
    measured_segments: int = 32  # of 4 s, of each kind, at every look at the held-out voices


class SpeechHeads(nn.Module):
    """What a feature must tell: the phone, the articulators, loudness, voicing and pitch, and the feeling in the voice."""

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        self.phone = nn.Linear(feature_dim, len(PHONES))
        self.articulation = nn.Linear(feature_dim, len(ARTICULATIONS))
        self.prosody = nn.Linear(feature_dim, 3)
        self.feeling = nn.Linear(feature_dim, len(FEELINGS))
        self.spectrum = nn.Linear(feature_dim, MEL_BANDS)  # of the front end alone, which so learns to hear early on
        self.register_buffer("table", torch.from_numpy(articulation_table()))

    def loss(
        self,
        features: Tensor,  # [B, H, P, D]
        target: dict[str, Tensor],  # each [B, H, P]
        weight: Tensor,  # [P]
    ) -> Tensor:
        def mean(x: Tensor) -> Tensor:
            return (x * weight).sum() / (weight.sum() * x.shape[0] * x.shape[1])

        phones = F.cross_entropy(self.phone(features).movedim(-1, 1), target["phones"], reduction="none", label_smoothing=0.05)
        articulation = F.binary_cross_entropy_with_logits(
            self.articulation(features), self.table[target["phones"]], reduction="none"
        )
        loudness, voicing, pitch = self.prosody(features).unbind(-1)
        voiced = ~target["pitch"].isnan()
        melody = (
            F.smooth_l1_loss(loudness, target["loudness"], reduction="none", beta=0.2)
            + 0.3 * F.binary_cross_entropy_with_logits(voicing, voiced.float(), reduction="none")
            + voiced * F.smooth_l1_loss(pitch, target["pitch"].nan_to_num(), reduction="none", beta=0.2)
        )
        feelings = F.cross_entropy(
            self.feeling(features).movedim(-1, 1), target["feelings"], reduction="none", ignore_index=NO_FEELING
        )
        return mean(phones) + 2.0 * mean(articulation.mean(-1)) + 0.5 * mean(melody) + 0.3 * mean(feelings)


class _Learner(nn.Module):
    def __init__(self, backbone: SpeechBackbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = SpeechHeads(backbone.feature_dim)


def train_backbone(
    corpus: SpeechCorpus,
    held_out: SpeechCorpus,
    out: Path,  # the folder of speech_backbone/, its state and its log
    settings: BackboneSettings,
    *,
    resume: bool = True,
    device: str = "cpu",
    seed: int = 0,
    progress=lambda share: None,
) -> dict:
    """Trains and writes `out/speech_backbone`; returns the last scores on the held-out voices."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    learner = _Learner(create_speech_backbone(layers=settings.layers)).to(device)
    average = RunningAverage(learner)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=settings.learning_rate, weight_decay=0.02, betas=(0.9, 0.98))
    state = out / "backbone_state.safetensors"
    first = load_checkpoint(state, learner, average, optimizer) if resume and state.is_file() else 0
    low_precision = is_low_precision_faster(device)
    log.info("backbone: %.2f M parameters, from step %d, bfloat16 %s", _millions(learner.backbone), first, low_precision)
    saved = exported = time.monotonic()
    running, scores = 0.0, None
    for step in range(first, settings.steps):
        rng = np.random.default_rng((seed, step))
        context = LOW_DELAY_STREAM if rng.random() < settings.low_delay_share else DEFAULT_STREAM
        samples, target, hidden = _draw_batch(corpus, rng, settings, context, device)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * learning_rate_factor(step, settings.steps, settings.warmup, settings.decay)
        with torch.autocast(device, torch.bfloat16, enabled=low_precision):
            local = learner.backbone.hear(samples, context)
            features = learner.backbone.understand_blocks(local, context, hidden)
        loss = learner.heads.loss(features.float(), target, _token_weight(context, device))
        loss = loss + F.smooth_l1_loss(learner.heads.spectrum(local.float()), target["spectrum"])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimizer.step()
        average.update(learner, step)
        running += 0.02 * (loss.item() - running) if running else loss.item()
        now = time.monotonic()
        if now - saved > SAVE_SECONDS:
            saved = now
            save_checkpoint(state, learner, average, optimizer, step + 1)
        if now - exported > EXPORT_SECONDS or step + 1 == settings.steps:
            exported = now
            scores = _export(learner, average, held_out, out, settings, step + 1)
            log.info("step %d/%d loss %.3f %s", step + 1, settings.steps, running, json.dumps(scores))
        elif step % 50 == 0:
            log.info("step %d/%d loss %.3f", step + 1, settings.steps, running)
        progress((step + 1) / settings.steps)
    save_checkpoint(state, learner, average, optimizer, settings.steps)
    return scores or _export(learner, average, held_out, out, settings, settings.steps)


def _draw_batch(
    corpus: SpeechCorpus, rng: np.random.Generator, settings: BackboneSettings, context: StreamContext, device: str
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    length = round(settings.seconds * 1000 / context.hop_ms) * context.hop_samples + context.lookahead_samples
    segments = [draw_segment(corpus, rng, length) for _ in range(settings.batch)]
    samples, target = collate(segments, context, device)
    tokens = round(settings.seconds * 1000 / context.hop_ms) * context.hop_features + context.lookahead_features
    hidden = torch.zeros(settings.batch, tokens, dtype=torch.bool)
    for row in range(settings.batch):
        for _ in range(rng.integers(0, 5)):
            start = rng.integers(tokens)
            hidden[row, start : start + rng.integers(2, 8)] = True
    return samples, target, hidden.to(device)


def collate(segments: list[Segment], context: StreamContext, device: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Samples [B, S]; targets arranged in blocks [B, H, P], but the spectrum's as the front end gives features [B, K, 32]."""
    shape = block_shape(context)
    samples = torch.from_numpy(np.stack([s.samples for s in segments])).to(device)
    tokens = (samples.shape[1] - context.lookahead_samples) // FEATURE_HOP + shape.right
    fields = ("phones", "feelings", "loudness", "pitch")
    rows = {name: torch.from_numpy(np.stack([getattr(s, name)[:tokens] for s in segments])) for name in fields}
    blocks = {name: shape.expand(row).to(device) for name, row in rows.items()}
    spectrum = torch.from_numpy(np.stack([s.spectrum_shape()[:tokens] for s in segments])).to(device)
    return samples, blocks | {"spectrum": spectrum}


def _token_weight(context: StreamContext, device: str) -> Tensor:
    """Look-ahead tokens count half: they hear less and are said again."""
    shape = block_shape(context)
    return torch.cat([torch.ones(shape.main), torch.full((shape.right,), 0.5)]).to(device)


@torch.no_grad()
def measure_backbone(
    backbone: SpeechBackbone, heads: SpeechHeads, corpus: SpeechCorpus, *, segments: int = 32, seed: int = 5
) -> dict:
    """Frame accuracy by voice on clean sound, under disturbance, and how often a bilabial is heard and wrongly heard."""
    scores: dict[str, float] = {}
    device = next(heads.parameters()).device
    bilabial = torch.from_numpy(articulation_table()[:, 0] > 0).to(device)
    for kind, context, augmented in (
        ("clean", DEFAULT_STREAM, False),
        ("noisy", DEFAULT_STREAM, True),
        ("low", LOW_DELAY_STREAM, False),
    ):
        rng = np.random.default_rng(seed)
        length = round(4000 / context.hop_ms) * context.hop_samples + context.lookahead_samples
        drawn = [draw_segment(corpus, rng, length, augmented=augmented) for _ in range(segments)]
        main = block_shape(context).main
        guess, probability, truth, felt = [], [], [], []
        for start in range(0, segments, 8):
            samples, target = collate(drawn[start : start + 8], context, str(device))
            features = backbone.forward_blocks(samples, context)[:, :, :main]
            guess.append(heads.phone(features).argmax(-1).flatten(1))
            right = heads.feeling(features).argmax(-1) == target["feelings"][:, :, :main]
            felt.append(right[target["feelings"][:, :, :main] != NO_FEELING])
            probability.append(heads.articulation(features)[..., 0].sigmoid().flatten(1))
            truth.append(target["phones"][:, :, :main].flatten(1))
        hit = torch.cat(guess) == torch.cat(truth)
        heard, said = torch.cat(probability) > 0.5, bilabial[torch.cat(truth)]
        scores[f"accuracy_{kind}"] = round(hit.float().mean().item(), 4)
        scores[f"speech_{kind}"] = round(hit[torch.cat(truth) > 0].float().mean().item(), 4)
        scores[f"feeling_{kind}"] = round(torch.cat(felt).float().mean().item(), 4)
        scores[f"bilabial_recall_{kind}"] = round((heard & said).sum().item() / max(1, said.sum().item()), 4)
        scores[f"bilabial_precision_{kind}"] = round((heard & said).sum().item() / max(1, heard.sum().item()), 4)
    return scores


def _export(
    learner: _Learner, average: RunningAverage, held_out: SpeechCorpus, out: Path, settings: BackboneSettings, step: int
) -> dict:
    """Writes the averaged weights as a HuBERT folder and scores them."""
    averaged = copy.deepcopy(learner).eval()
    average.copy_to(averaged)
    scores = {"step": step, **measure_backbone(averaged.backbone, averaged.heads, held_out, segments=settings.measured_segments)}
    save_speech_backbone(averaged.backbone, out / "speech_backbone")
    save_file({k: v.contiguous() for k, v in averaged.heads.state_dict().items()}, out / "speech_heads.safetensors")
    (out / "backbone_scores.json").write_text(json.dumps(scores, indent=1), encoding="utf-8")
    return scores


def load_speech_heads(path: Path, feature_dim: int) -> SpeechHeads:
    heads = SpeechHeads(feature_dim)
    heads.load_state_dict(load_file(path))
    return heads.eval()


def is_low_precision_faster(device: str) -> bool:
    """Whether matrix products in bfloat16 pay here: measured, since processors without the instructions emulate them."""
    if device != "cpu":
        return True
    a, b = torch.randn(1024, 256), torch.randn(256, 768)

    def seconds(x: Tensor, y: Tensor) -> float:
        for _ in range(3):
            x @ y
        start = time.perf_counter()
        for _ in range(10):
            x @ y
        return time.perf_counter() - start

    return seconds(a.bfloat16(), b.bfloat16()) < 0.8 * seconds(a, b)


def _millions(module: nn.Module) -> float:
    return sum(p.numel() for p in module.parameters()) / 1e6
