"""Stage speech: a backbone that hears phones, then the encoder that reads action units from it (equations 9 to 11), then
the encoder's branch for feelings.

The backbone learns from its own corpus of synthesised voices; the encoder from the capture's performed sequences and
more performances of the same rig. All see the world block-wise, as the stream does, in both stream contexts. A part that
is finished is not trained again by `resume`.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from ..action_units import AU_NAMES, NUM_AUS
from ..avatar.bundle import save_avatar
from ..config import DEFAULT_STREAM, LOW_DELAY_STREAM
from ..errors import InputError
from ..metrics.actions import agreement, loudness_floor
from ..networks.au_encoder import AUEncoder, AUEncoderConfig
from ..networks.speech import SpeechBackbone, load_speech_backbone
from ..studio.voices import TEST_VOICES, TRAIN_VOICES
from .coded_batches import CodedBatch, draw_batch
from .course import run_paced
from .datasets.capture import Capture, TalkingSequence, open_capture
from .datasets.performed_speech import CODE_RATE, PerformedSpeech, build_performances, join_takes
from .datasets.speech_corpus import build_speech_corpus
from .expression import ExpressionSettings, train_expression
from .losses import au_loss, au_regression_loss
from .speech_backbone import BackboneSettings, is_low_precision_faster, train_backbone

log = logging.getLogger(__name__)
_LIP_PRESSOR = AU_NAMES.index("AU24")


@dataclass(frozen=True)
class EncoderSettings:
    steps: int = 2200
    batch: int = 6  # segments a step
    seconds: float = 5.6  # a segment
    learning_rate: float = 2e-3
    warmup: int = 100  # steps
    decay: float = 0.4
    low_delay_share: float = 0.3
    square_weight: float = 0.1  # of the squared error beside equation 9: the median of a unit that is rare is nought
    # A closure that is missed is seen at once; one too many, where a t or an n was said, hardly.
    closure_weight: float = 1.0  # of AU24 falling short of the truth, beside equation 9
    voice_weight: float = 0.2
    lookahead_weight: float = 0.3  # of the frames beyond the hop, which the next hop says again
    measured_batches: int = 12  # of 4 segments of 8 s, of each kind, at the end


@dataclass(frozen=True)
class SpeechScale:
    corpus_hours: float
    performed_minutes: float  # beyond the capture's own sequences
    backbone: BackboneSettings
    encoder: EncoderSettings
    expression: ExpressionSettings


SCALES = {
    "demo": SpeechScale(2.5, 60.0, BackboneSettings(), EncoderSettings(), ExpressionSettings()),
    "dev": SpeechScale(
        0.15,
        4.0,
        BackboneSettings(steps=120, batch=8, layers=3),
        EncoderSettings(steps=120, batch=6),
        ExpressionSettings(steps=60, batch=8, segments=32),
    ),
}


def train_speech(
    data: Path,
    out: Path,
    *,
    scale: str = "demo",
    resume: bool = False,
    device: str = "cpu",
    backbone: str | None = None,
    seed: int = 0,
) -> dict:
    """Trains backbone, AU encoder and its expression branch from the capture `data`; seals them into the avatar's folder `out`.

    `backbone` names a folder or a public HuBERT to use as it is in place of a compact one trained here. Returns the
    scores that also stand in `avatar.json`.
    """
    if scale not in SCALES:
        raise InputError(f"scale {scale!r} is unknown; use {' or '.join(SCALES)}")
    settings = SCALES[scale]
    device = "cuda" if device == "auto" and torch.cuda.is_available() else "cpu" if device == "auto" else device
    capture = open_capture(data)
    work = Path(out) / "training" / "speech"
    began = time.monotonic()
    heard, backbone_scores = _obtain_backbone(capture, work, settings, backbone, resume, device, seed)
    training, held_out = _performed_speech(capture, settings)
    options = {"fps": capture.fps, "resume": resume, "device": device, "seed": seed}
    articulation = train_au_encoder(heard, training, work, settings.encoder, **options)
    with _bar("expression") as report:
        encoder = train_expression(heard, articulation, training, work, settings.expression, progress=report, **options)
    batches = settings.encoder.measured_batches
    encoder_scores = measure_au_encoder(heard, encoder, held_out, fps=capture.fps, device=device, batches=batches)
    for kind, found in encoder_scores.items():
        log.info("AU encoder, %s: %s", kind, json.dumps({name: value for name, value in found.items() if name != "by_au"}))
    scores = {"backbone": backbone_scores, "au_encoder": encoder_scores}
    record = {"scale": scale, "from": capture.name, "seed": seed, "seconds": round(time.monotonic() - began), **scores}
    speech = backbone if backbone is not None and not Path(backbone).is_dir() else heard.cpu()
    save_avatar(out, fps=capture.fps, stream=DEFAULT_STREAM, speech=speech, au_encoder=encoder.cpu(), training={"speech": record})
    return scores


def _obtain_backbone(
    capture: Capture, work: Path, settings: SpeechScale, backbone: str | None, resume: bool, device: str, seed: int
) -> tuple[SpeechBackbone, dict]:
    if backbone is not None:
        return load_speech_backbone(backbone).to(device), {"name": Path(backbone).name if Path(backbone).is_dir() else backbone}
    finished = work / "backbone_scores.json"
    if resume and finished.is_file() and json.loads(finished.read_text(encoding="utf-8"))["step"] >= settings.backbone.steps:
        scores = json.loads(finished.read_text(encoding="utf-8"))
    else:
        cache = capture.folder / "speech_corpus"
        with _bar("speaking the corpus") as report:
            corpus = build_speech_corpus(
                cache / "train", hours=settings.corpus_hours, voices=TRAIN_VOICES, split="train", progress=report
            )
            test_hours = min(0.1, settings.corpus_hours / 4)
            held_out = build_speech_corpus(cache / "test", hours=test_hours, voices=TEST_VOICES, split="test", seed=1)
        with _bar("speech backbone") as report:
            options = {"resume": resume, "device": device, "seed": seed, "progress": report}
            scores = train_backbone(corpus, held_out, work, settings.backbone, **options)
    return load_speech_backbone(work / "speech_backbone").to(device), scores


def _performed_speech(capture: Capture, settings: SpeechScale) -> tuple[list[PerformedSpeech], PerformedSpeech]:
    """The capture's performed sequences and more performances of its rig; and what is held out of both."""
    own = {split: [s for s in capture.split(split) if s.kind == "performed"] for split in ("train", "test")}
    training = [join_takes([_take(s) for s in own["train"]])] if own["train"] else []
    held_out = join_takes([_take(s) for s in own["test"]]) if own["test"] else None
    if capture.viseme_aus:
        cache, aus = capture.folder / "speech_corpus", capture.viseme_aus
        with _bar("speaking performances") as report:
            training.append(
                build_performances(
                    cache / "performed",
                    aus,
                    minutes=settings.performed_minutes,
                    voices=TRAIN_VOICES,
                    split="train",
                    progress=report,
                )
            )
        minutes = min(10.0, settings.performed_minutes / 2)  # a feeling is in every tenth sentence: four minutes hold five
        held_out = build_performances(cache / "performed_test", aus, minutes=minutes, voices=TEST_VOICES, split="test", seed=1)
    if not training:
        raise InputError(f"capture {capture.folder} has no performed sequence to train the AU encoder on")
    return training, held_out or training[0]


def _take(sequence: TalkingSequence) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sound, codes and voice activity at 50 values a second."""
    codes = sequence.au_codes.values.numpy()
    rows = len(sequence.samples) * CODE_RATE // 16_000
    times, known = np.arange(rows) / CODE_RATE, np.arange(len(codes)) / sequence.fps
    track = np.stack([np.interp(times, known, column) for column in codes.T], axis=1)
    voice = np.zeros(rows)
    for start, end, phone in sequence.phones:
        if phone != "pau":
            voice[(times >= start) & (times < end)] = 1
    return sequence.samples, track, voice


def train_au_encoder(
    backbone: SpeechBackbone,
    training: list[PerformedSpeech],
    work: Path,
    settings: EncoderSettings,
    *,
    fps: float = 25.0,
    resume: bool = False,
    device: str = "cpu",
    seed: int = 0,
) -> AUEncoder:
    """The encoder on a frozen backbone, without its branch for feelings."""
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    backbone.eval().requires_grad_(False)
    encoder = AUEncoder(AUEncoderConfig(backbone.feature_dim)).to(device)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=settings.learning_rate, weight_decay=0.02, betas=(0.9, 0.98))
    low_precision = is_low_precision_faster(device)

    def loss_at(step: int) -> Tensor:
        rng = np.random.default_rng((seed, 7, step))
        context = LOW_DELAY_STREAM if rng.random() < settings.low_delay_share else DEFAULT_STREAM
        batch = draw_batch(training, rng, settings.batch, settings.seconds, context, fps, device)
        with torch.autocast(device, torch.bfloat16, enabled=low_precision):
            with torch.no_grad():
                features = backbone.forward_blocks(batch.samples, context)
            codes, voice = encoder.forward_blocks(features.float(), context, fps)
        return encoder_loss(codes.float(), voice.float(), batch, settings)

    with _bar("AU encoder") as report:
        state = work / "encoder_state.safetensors"
        run_paced("AU encoder", encoder, optimizer, settings, loss_at, state, resume=resume, progress=report)
    return encoder.eval()


def encoder_loss(codes: Tensor, voice: Tensor, batch: CodedBatch, settings: EncoderSettings) -> Tensor:
    """Equation 11, the squared error and missed closures over the hops' own frames in order, the look-ahead frames by
    regression alone, and voice activity."""
    own, ahead = slice(0, batch.hop_frames), slice(batch.hop_frames, None)
    loss = au_loss(codes[:, :, own].flatten(1, 2), batch.codes[:, :, own].flatten(1, 2))
    loss = loss + settings.square_weight * F.mse_loss(codes[:, :, own], batch.codes[:, :, own])
    missed = (batch.codes - codes)[:, :, own, _LIP_PRESSOR].clamp(min=0)
    loss = loss + settings.closure_weight / NUM_AUS * missed.mean()
    loss = loss + settings.lookahead_weight * au_regression_loss(codes[:, :, ahead], batch.codes[:, :, ahead])
    return loss + settings.voice_weight * F.binary_cross_entropy_with_logits(voice, batch.voice)


@torch.no_grad()
def measure_au_encoder(
    backbone: SpeechBackbone, encoder: AUEncoder, speech: PerformedSpeech, *, fps: float, device: str = "cpu", batches: int = 6
) -> dict:
    """F1, MAE and ICC of each AU on held-out voices, clean and disturbed, beside what loudness alone reaches."""
    scores: dict[str, object] = {}
    for kind, context, augmented in (
        ("clean", DEFAULT_STREAM, False),
        ("noisy", DEFAULT_STREAM, True),
        ("low_delay", LOW_DELAY_STREAM, False),
    ):
        rng = np.random.default_rng(11)
        found, truth, activity, spoken, sound = [], [], [], [], []
        for _ in range(batches):
            batch = draw_batch([speech], rng, 4, 8.0, context, fps, device, augmented=augmented)
            codes, voice = encoder.forward_blocks(backbone.forward_blocks(batch.samples, context), context, fps)
            own = slice(0, batch.hop_frames)
            found.append(codes[:, :, own].flatten(0, 2))
            truth.append(batch.codes[:, :, own].flatten(0, 2))
            activity.append(voice[:, :, own].flatten())
            spoken.append(batch.voice[:, :, own].flatten())
            frames = batch.codes.shape[1] * batch.hop_frames
            sound += [row[: round(frames / fps * 16_000)] for row in batch.samples.cpu().numpy()]
        codes, target = torch.cat(found).cpu().numpy(), torch.cat(truth).cpu().numpy()
        scores[kind] = agreement(codes, target)
        scores[kind]["voice_accuracy"] = round(((torch.cat(activity) > 0) == (torch.cat(spoken) > 0.5)).float().mean().item(), 4)
        if kind == "clean":
            scores["loudness_only"] = agreement(loudness_floor(sound, target, fps), target)
    return scores


class _bar:
    """A progress bar fed by shares from 0 to 1."""

    def __init__(self, title: str) -> None:
        self._title = title

    def __enter__(self):
        self._tqdm = tqdm(total=1000, desc=self._title, bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}")
        return lambda share: self._tqdm.update(int(1000 * share) - self._tqdm.n)

    def __exit__(self, *_: object) -> None:
        self._tqdm.close()
