"""Stage motion (C8, C9): the AU-prompted denoiser, on windows of performances and of their counterfactual twins.

Two consecutive windows a sample: the first after true frames, roughened so that they are not trusted blindly, the
second after the network's own answer. Codes carry the AU encoder's own errors, or jitter where it has not been trained.
Progress is kept every minute.
"""

from __future__ import annotations

import json
import logging
import math
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..action_units import AU_NAMES, MAX_INTENSITY, MAX_OVER_RANGE, NUM_AUS, SPEECH_AUS
from ..avatar.bundle import load_network, save_avatar
from ..avatar.face import FaceTemplate
from ..config import DEFAULT_STREAM, LOW_DELAY_STREAM, StreamContext
from ..errors import InputError
from ..networks.denoiser import Denoiser, DenoiserConfig
from ..networks.diffusion import add_noise
from ..networks.speech import load_speech_backbone
from ..studio.blendshapes import RIG_CHANNELS, BlendshapeRig
from ..studio.performance import Performance
from ..studio.rig_source import open_rig
from ..studio.voices import Phone
from .checkpoint import RunningAverage, load_checkpoint, save_checkpoint
from .datasets.capture import Capture, TalkingSequence, open_capture
from .datasets.motion_windows import WindowBatch, WindowSource, window_of
from .latent_geometry import GeometryWeights, OffsetGrams, geometry_loss, offset_grams, squared_length
from .losses import uniform_laplacian
from .motion_data import Clip, MotionData, more_performances, prepare_motion
from .motion_scores import hear_clip, measure_response, score_clips, score_edits, score_response

log = logging.getLogger(__name__)
CHECKPOINT_SECONDS = 60.0
SAME_FACE_METRES = 1e-5  # a template's file rounds to 1e-7


@dataclass(frozen=True)
class MotionSettings:
    steps: int = 6000
    batch: int = 32  # samples, of two windows each
    learning_rate: float = 1e-3
    warmup: int = 150  # steps
    decay: float = 0.5  # the last part of the run, over which the rate falls to nothing
    low_delay_share: float = 0.25  # of the batches
    dim: int = 128
    layers: int = 4
    basis_size: int = 64
    more_minutes: float = 24.0  # of performances beyond the capture's own
    extra_tracks: int = 1
    disturbed: int = 1
    silent: int = 24
    latent_weight: float = 0.1  # of the whitened error, beside eq. 17: small muscles count too
    geometry: GeometryWeights = field(default_factory=GeometryWeights)
    drop_codes: float = 0.1
    drop_speech: float = 0.1
    drop_history: float = 0.15
    rough_history: float = 0.3  # most noise on true frames before a window, in whitened units
    truncate: float = 0.3  # share of samples whose second window ends early
    jitter: float = 0.12  # of every code, standard deviation
    speech_jitter: float = 0.35  # of the speech AUs, where no encoder tells its errors
    quiet_share: float = 0.5  # of samples with the lip gate that live use has
    test_clips: int = 16
    network: dict[str, object] = field(default_factory=dict)  # of `DenoiserConfig`, where an ablation asks for others


SCALES = {
    "demo": MotionSettings(),
    "dev": MotionSettings(
        steps=200,
        batch=32,
        dim=96,
        layers=2,
        basis_size=48,
        more_minutes=0.0,
        extra_tracks=0,
        disturbed=0,
        silent=8,
        test_clips=4,
    ),
}


# What each of the paper's ablations takes away (supplement, table of ablations).
ABLATIONS: dict[str, dict[str, object]] = {"no-aus": {"hears_codes": False}, "gru": {"core": "gru"}}


def train_motion(
    data: Path,
    out: Path,
    scale: str = "demo",
    resume: bool = False,
    device: str = "auto",
    ablation: str | None = None,
    seed: int = 0,
) -> None:
    """Train the denoiser on a capture with the speech networks in `out`, and seal it into that avatar.

    `ablation` names one of `ABLATIONS`: a poorer network, to be held against the full one.
    """
    if ablation is not None and ablation not in ABLATIONS:
        raise InputError(f"motion has no ablation {ablation!r}; there are {' and '.join(ABLATIONS)}")
    if scale not in SCALES:
        raise InputError(f"unknown scale {scale!r}; use {' or '.join(SCALES)}")
    if not (out / "au_encoder.safetensors").is_file():
        raise InputError(f"{out} cannot hear yet; run `avatar-viewer train speech --data {data} --out {out}` first")
    settings, device = replace(SCALES[scale], network=dict(ABLATIONS.get(ablation or "", {}))), _pick_device(device)
    capture = open_capture(data)
    rig = _open_matching_rig(capture)
    face = FaceTemplate(
        capture.neutral, capture.faces, dict(capture.regions), capture.regions["lip_upper"], capture.regions["lip_lower"]
    )
    backbone = load_speech_backbone(out / "speech_backbone").to(device)
    encoder = load_network(out, "au_encoder").to(device)
    clips = [read_clip(sequence, capture, rig is not None) for sequence in capture.sequences]
    train, test = ([clip for clip in clips if clip.split == split] for split in ("train", "test"))
    if not train:
        raise InputError(f"capture {data} holds no training sequence")
    if rig is not None and rig.viseme_aus:
        train += [Clip(performance) for performance in more_performances(settings.more_minutes, capture.fps, seed=11 + seed)]
    contexts = (DEFAULT_STREAM, LOW_DELAY_STREAM)
    work = out / "training"
    work.mkdir(parents=True, exist_ok=True)
    with tqdm(total=1.0, desc="motion data", bar_format="{l_bar}{bar}| {elapsed}<{remaining}") as bar:
        prepared = prepare_motion(
            train, face, rig, backbone, encoder, contexts=contexts, basis_size=settings.basis_size,
            lookahead_frames=DenoiserConfig.lookahead_frames, extra_tracks=settings.extra_tracks, disturbed=settings.disturbed,
            silent=settings.silent, cache=work / "motion_tracks.safetensors", progress=lambda share: bar.update(share - bar.n),
        )  # fmt: skip
    trainer = MotionTrainer(prepared, face, backbone.feature_dim, settings, device=device, seed=seed)
    trainer.run(work / "motion_state.safetensors", resume=resume)
    denoiser = trainer.finished()
    performed = _spread([clip for clip in test if clip.performance.kind == "performed"], settings.test_clips)
    other = _spread([clip for clip in test if clip.performance.kind != "performed"], settings.test_clips)
    scores = evaluate(denoiser, performed, other, face, rig, backbone, encoder, contexts[0])
    log.info("motion: %s", json.dumps(scores))
    record = {
        "capture": capture.name,
        "scale": scale,
        "seed": seed,
        "settings": asdict(settings),
        "seconds": round(trainer.seconds),
        "scores": scores,
    }
    (work / "motion_scores.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    save_avatar(out, fps=capture.fps, stream=contexts[0], face=face, denoiser=denoiser, training={"motion": record})


def _open_matching_rig(capture: Capture) -> BlendshapeRig | None:
    """The rig that the capture was recorded from, or None for a capture of meshes."""
    if not capture.rig_source:
        return None
    rig = open_rig(capture.rig_source)
    vertices = torch.from_numpy(rig.face.vertices)
    if vertices.shape != capture.neutral.shape or float((vertices - capture.neutral).abs().max()) > SAME_FACE_METRES:
        raise InputError(f"the rig {capture.rig_source} is not the one that this capture was recorded from; record the capture again")
    return rig


def read_clip(sequence: TalkingSequence, capture: Capture, has_rig: bool) -> Clip:
    """A sequence as coefficients of its rig, or as meshes and codes."""
    phones = tuple(Phone(*row) for row in sequence.phones) if (sequence.folder / "phones.csv").exists() else ()
    stored = sequence.performance if has_rig else None
    if stored is not None:
        values, channels = stored
        if channels != RIG_CHANNELS:
            raise InputError(
                f"{sequence.folder / 'performance.npz'} has other channels than this version's rigs; record the capture again"
            )
    else:
        values = np.zeros((len(sequence.au_codes.values), len(RIG_CHANNELS)), np.float32)
    performance = Performance(
        sequence.fps,
        values,
        RIG_CHANNELS,
        phones,
        sequence.samples,
        sequence.voice,
        "",
        kind=sequence.kind,
        emotion=sequence.emotion,
    )
    if stored is not None:
        return Clip(performance, sequence.split)
    offsets = (sequence.meshes() - capture.neutral).numpy()
    frames = min(len(offsets), len(values))
    performance = replace(performance, values=values[:frames])
    return Clip(performance, sequence.split, offsets[:frames], sequence.au_codes.values[:frames].numpy())


class MotionTrainer:
    """The optimisation itself: draws batches, steps, keeps an average of the weights."""

    def __init__(
        self,
        data: MotionData,
        face: FaceTemplate,
        speech_dim: int,
        settings: MotionSettings,
        *,
        device: str = "cpu",
        seed: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self.settings, self.device, self.seed = settings, device, seed
        window = max(sounds.speech.shape[1] for sounds in data.sounds)
        config = DenoiserConfig(
            len(face.neutral), speech_dim, basis_size=settings.basis_size, dim=settings.dim, layers=settings.layers,
            heads=settings.dim // 32, feedforward=4 * settings.dim, window_frames=window, **settings.network,
        )  # fmt: skip
        self.denoiser = Denoiser(config)
        self.denoiser.basis.copy_(data.basis.rows)
        self.denoiser.scale.copy_(data.basis.scale)
        self.denoiser.silence.copy_(data.silence)
        self.sources = [
            WindowSource(data.tracks, sounds, list(entries), config.previous_frames)
            for sounds, entries in zip(data.sounds, data.train)
        ]
        _start_from_linear_fit(self.denoiser, self.sources[0], seed)
        self.denoiser.to(device)
        self.template = self.denoiser.describe_template(face.neutral.to(device))
        self.grams = _make_grams(self.denoiser, face).to(device)
        self.average = RunningAverage(self.denoiser)
        self.optimizer = torch.optim.AdamW(self.denoiser.parameters(), lr=settings.learning_rate, weight_decay=0.01)
        self.seconds = 0.0

    def run(self, state: Path | None = None, *, resume: bool = False) -> None:
        """All steps, from the checkpoint on if there is one and `resume` is asked for."""
        first = load_checkpoint(state, self.denoiser, self.average, self.optimizer) if resume and state and state.is_file() else 0
        began = saved = time.monotonic()
        shown: dict[str, float] = {}
        self.denoiser.train()
        with tqdm(total=self.settings.steps, initial=first, desc="motion", unit="step") as bar:
            for step in range(first, self.settings.steps):
                for name, value in self.step(step).items():
                    shown[name] = value if name not in shown else shown[name] + 0.02 * (value - shown[name])
                bar.update()
                if step % 50 == 0:
                    bar.set_postfix({name: f"{shown[name]:.3f}" for name in ("rmse_mm", "lip")})
                    log.info("step %d %s", step, {name: round(value, 4) for name, value in shown.items()})
                if state and time.monotonic() - saved > CHECKPOINT_SECONDS:
                    saved = time.monotonic()
                    save_checkpoint(state, self.denoiser, self.average, self.optimizer, step + 1)
        self.seconds = time.monotonic() - began
        if state:
            save_checkpoint(state, self.denoiser, self.average, self.optimizer, self.settings.steps)

    def step(self, step: int) -> dict[str, float]:
        """One optimiser step; the parts of the loss by name (mm^2)."""
        settings, rng = self.settings, np.random.default_rng((self.seed, step))
        torch.manual_seed(self.seed * 1_000_003 + step)
        second = len(self.sources) > 1 and rng.random() < settings.low_delay_share
        source = self.sources[1 if second else 0]
        batch = _to_device(source.draw(rng, settings.batch), self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * _rate(step, settings)
        loss, parts = self.loss(batch, source.sounds.hop_frames)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.denoiser.parameters(), 1.0)
        self.optimizer.step()
        self.average.update(self.denoiser, step)
        return {name: float(value) for name, value in parts.items()}

    def loss(self, batch: WindowBatch, frames: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Both windows of every sample."""
        settings, denoiser = self.settings, self.denoiser
        count, previous = len(batch.latents), denoiser.config.previous_frames
        window = batch.speech[0].shape[1] - previous
        codes = self._disturb_codes(batch)
        batch = self._quieten(batch, previous)
        forget = torch.rand(count, 1, device=self.device) < settings.drop_history
        batch = replace(batch, known=batch.known & ~forget)
        keep_codes = torch.rand(count, device=self.device) >= settings.drop_codes
        keep_speech = torch.rand(count, device=self.device) >= settings.drop_speech
        noise = torch.randn(count, window, denoiser.config.basis_size, device=self.device)

        rough = settings.rough_history * torch.rand(count, 1, 1, device=self.device)
        shown = batch.latents[:, :previous] + rough * torch.randn_like(batch.latents[:, :previous])
        total, merged = torch.zeros((), device=self.device), {}
        for which in (0, 1):
            history, conditions = window_of(batch, which, frames, codes, shown, self.template)
            valid = self._truncate(count, window) if which == 1 else None
            conditions = replace(conditions, keep_codes=keep_codes, keep_speech=keep_speech, valid=valid)
            start = previous + which * frames
            truth = batch.latents[:, start : start + window]
            steps = _draw_steps(count, denoiser.config.diffusion_steps, self.device)
            predicted = denoiser.predict_clean(add_noise(denoiser.schedule, truth, noise, steps), steps, history, conditions)
            loss, parts = geometry_loss(
                predicted, truth, self.grams, batch.lip_weight[:, start : start + window], settings.geometry,
                before=shown[:, -2:] - batch.latents[:, start - 2 : start], has_before=history.known[:, -2], valid=valid,
            )  # fmt: skip
            error = (predicted - truth).square().mean(-1)
            parts["latent"] = error.mean() if valid is None else (error * valid).sum() / valid.sum()
            with torch.no_grad():  # what to watch: samples with all their conditions
                whole = (keep_codes & keep_speech).float() * (valid.all(dim=1) if valid is not None else 1.0)
                distance = squared_length(predicted - truth, self.grams.vertex).mean(dim=1)
                parts["rmse_mm"] = ((distance * whole).sum() / whole.sum().clamp(min=1.0)).sqrt()
            total = total + 0.5 * (loss + settings.latent_weight * parts["latent"])
            merged = {name: merged.get(name, 0.0) + 0.5 * value.detach() for name, value in parts.items()}
            shown = torch.cat((shown, predicted[:, :frames].detach()), dim=1)[:, -previous:]
        return total, merged

    def _disturb_codes(self, batch: WindowBatch) -> Tensor:  # [B, L, 17]
        """Codes as they will be in use.

        The encoder mistakes the lips and the voice puts that right: its errors go onto the speech AUs only. Every other AU is
        obeyed as it is given, with a little jitter so that the net does not count on the last decimal.
        """
        settings, codes = self.settings, batch.codes
        count, length = codes.shape[:2]
        speech = torch.zeros(NUM_AUS, device=self.device)
        speech[[AU_NAMES.index(name) for name in SPEECH_AUS]] = 1.0
        has_errors = bool(batch.code_error.any())
        spread = settings.jitter + (0.0 if has_errors else settings.speech_jitter) * speech
        steady, quick = (
            torch.randn(count, 1, NUM_AUS, device=self.device),
            torch.randn(count, length, NUM_AUS, device=self.device),
        )
        amount = torch.rand(count, 1, 1, device=self.device) * (torch.rand(count, 1, 1, device=self.device) < 0.8)
        heard = torch.rand(count, 1, 1, device=self.device) < 0.7
        disturbed = codes + amount * spread * (steady + 0.6 * quick) + heard * batch.code_error * speech
        return disturbed.clamp(0, MAX_OVER_RANGE)

    def _quieten(self, batch: WindowBatch, previous: int) -> WindowBatch:
        """The lip gate of live use: where nobody speaks, silence is heard."""
        gated = (torch.rand(len(batch.latents), 1, device=self.device) < self.settings.quiet_share).float()
        frames = batch.known.shape[1] - previous
        speech = []
        for which in (0, 1):
            values = batch.speech[which]
            start = which * frames
            gate = (1 - gated * (1 - batch.speaking[:, start : start + values.shape[1]]))[..., None]
            speech.append(self.denoiser.silence + gate * (values - self.denoiser.silence))
        return replace(batch, speech=(speech[0], speech[1]))

    def _truncate(self, count: int, window: int) -> Tensor:  # [B, N] bool
        length = torch.randint(1, window + 1, (count, 1), device=self.device)
        cut = torch.rand(count, 1, device=self.device) < self.settings.truncate
        return (torch.arange(window, device=self.device) < length) | ~cut

    @torch.no_grad()
    def finished(self) -> Denoiser:
        """The averaged network with its measured response, for use."""
        self.average.copy_to(self.denoiser)
        self.denoiser.eval()
        response = measure_response(self.denoiser, self.template, self.sources[0].sounds.speech.shape[1])
        self.denoiser.response_latents.copy_(response)
        return self.denoiser


def evaluate(
    denoiser: Denoiser,
    performed: list[Clip],
    other: list[Clip],  # counterfactual clips
    face: FaceTemplate,
    rig: BlendshapeRig | None,
    backbone,
    encoder,
    context: StreamContext,
) -> dict[str, dict[str, float]]:
    """Scores on held-out clips: with true codes, with heard codes, under counterfactual codes, and of obedience in silence."""
    window = context.hop_frames(performed[0].performance.fps if performed else 25.0) + denoiser.config.lookahead_frames
    scores: dict[str, dict[str, float]] = {}
    if performed:
        heard = [hear_clip(clip, rig, backbone, encoder, context, window) for clip in performed]
        scores["true_codes"] = score_clips(denoiser, heard, face, rig)
        if rig is not None:
            scores["edits"] = score_edits(denoiser, heard[0], face, rig.shapes)
        if encoder is not None:
            scores["heard_codes"] = score_clips(denoiser, heard, face, rig, codes="heard")
            scores["heard_codes_50_rows"] = score_clips(denoiser, heard[:4], face, rig, codes="heard", rows=50)
            scores["heard_codes_same_clips"] = score_clips(denoiser, heard[:4], face, rig, codes="heard")
    if other:
        heard = [hear_clip(clip, rig, backbone, None, context, window) for clip in other]
        scores["counterfactual"] = score_clips(denoiser, heard, face, rig)
    if rig is not None:
        scores["response"] = score_response(denoiser, rig.shapes)
    return {group: {name: round(value, 4) for name, value in values.items()} for group, values in scores.items()}


@torch.no_grad()
def _start_from_linear_fit(denoiser: Denoiser, source: WindowSource, seed: int, windows: int = 4000, ridge: float = 0.02) -> None:
    """The straight road begins as the ridge regression of latents on a frame's codes and speech together."""
    batch = source.draw(np.random.default_rng((seed, 3)), min(windows, 4 * len(source)))
    previous, frames = source.previous, source.sounds.hop_frames
    codes = batch.codes[:, previous : previous + frames].flatten(0, 1) / MAX_INTENSITY * denoiser.config.hears_codes
    speech = denoiser.norm_speech(batch.speech[0][:, previous : previous + frames].flatten(0, 1))
    given = torch.cat((codes, speech, torch.ones(len(codes), 1)), dim=1).double()
    wanted = batch.latents[:, previous : previous + frames].flatten(0, 1).double()
    weights = torch.linalg.solve(
        given.T @ given + ridge * len(given) * torch.eye(given.shape[1], dtype=torch.float64), given.T @ wanted
    )
    weights = weights.T.float()
    denoiser.codes_to_latents.weight.copy_(weights[:, :NUM_AUS])
    denoiser.speech_to_latents.weight.copy_(weights[:, NUM_AUS:-1])
    denoiser.speech_to_latents.bias.copy_(weights[:, -1])


def _make_grams(denoiser: Denoiser, face: FaceTemplate) -> OffsetGrams:
    basis_mm = (denoiser.basis * denoiser.scale[:, None] * 1000).unflatten(1, (-1, 3))
    lips = face.regions.get("lips", torch.cat((face.lip_upper, face.lip_lower)))
    return offset_grams(basis_mm, lips, uniform_laplacian(face.faces, len(face.neutral)))


def _draw_steps(count: int, last: int, device: str) -> Tensor:  # [B] 1..last
    """Any step, and more often the two at which the default sampler asks."""
    steps = torch.randint(1, last + 1, (count,), device=device)
    kind = torch.rand(count, device=device)
    steps = torch.where(kind < 0.35, torch.full_like(steps, last), steps)
    return torch.where((kind >= 0.35) & (kind < 0.5), torch.full_like(steps, last // 2), steps)


def _rate(step: int, settings: MotionSettings) -> float:
    """Rises, holds, then falls along a cosine."""
    rising = min(1.0, (step + 1) / settings.warmup)
    start = settings.steps * (1 - settings.decay)
    share = min(1.0, max(0.0, (step - start) / max(1.0, settings.steps - start)))
    return rising * (0.5 + 0.5 * math.cos(math.pi * share)) + 1e-3


def _to_device(batch: WindowBatch, device: str) -> WindowBatch:
    if device == "cpu":
        return batch
    moved = {
        name: tuple(t.to(device) for t in value) if isinstance(value, tuple) else value.to(device)
        for name, value in vars(batch).items()
    }
    return WindowBatch(**moved)


def _spread(items: list[Clip], count: int) -> list[Clip]:
    """`count` of them, evenly."""
    if len(items) <= count:
        return items
    return [items[round(i * (len(items) - 1) / max(1, count - 1))] for i in range(count)]


def _pick_device(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device
