"""What the motion stage trains on: face motion as latents, and the sounds as the denoiser will hear them.

Fits the low-rank basis, plays every performance through the rig once, adds counterfactual tracks and silence, and lets
the trained backbone and AU encoder listen, clean and disturbed. A capture without a rig brings its meshes and codes as
they are. Knows rigs and networks; knows no optimiser.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.ndimage import maximum_filter1d
from torch import Tensor

from ..action_units import MAX_INTENSITY, MAX_OVER_RANGE, NUM_AUS
from ..avatar.face import FaceTemplate
from ..config import SAMPLE_RATE, StreamContext
from ..errors import InputError
from ..metrics.lips import lip_gap_mm
from ..networks.au_encoder import AUEncoder
from ..networks.denoiser import frame_pooling
from ..networks.speech import SpeechBackbone
from ..studio.blendshapes import RIG_CHANNELS, VISEMES, BlendshapeRig
from ..studio.performance import Performance, act, counterfactual, speech_activity, viseme_matrix
from ..studio.voices import TRAIN_VOICES
from .datasets.motion_windows import Entry, Sounds, Tracks
from .datasets.speech_augment import disturb, noise
from .datasets.speech_corpus import random_text, read_sentences, read_words

# A frame is a lip frame (A8) where the lips are open or move, and two frames about, so that closures between count.
LIP_OPEN_MM, LIP_SPEED_MM_S, LIP_MARGIN_FRAMES = 1.0, 10.0, 2
CLOSURE_EMPHASIS, CLOSURE_REACH_MM = 3.0, 1.5  # extra weight exp(-gap / reach) of lips that (nearly) meet while speaking
RECORDED_VOICE_WEIGHT = 6.0  # how often a recorded-unit voice speaks, against a formant voice
SMALLEST_SCALE = 0.01  # of the largest: components below it are not blown up to unit variance
Progress = Callable[[float], None]


@dataclass(frozen=True)
class Clip:
    """A performance; with `offsets` and `codes` where no rig can play its coefficients."""

    performance: Performance
    split: str = "train"  # or "test"
    offsets: np.ndarray | None = None  # [T, V, 3] metres
    codes: np.ndarray | None = None  # [T, 17] 0..5


@dataclass(frozen=True)
class Basis:
    rows: Tensor  # [K, V * 3] orthonormal, representable in float16
    scale: Tensor  # [K] metres


@dataclass(frozen=True)
class MotionData:
    basis: Basis
    tracks: Tracks
    sounds: tuple[Sounds, ...]  # one a context; the first is the avatar's own
    train: tuple[tuple[Entry, ...], ...]  # one tuple a context
    silence: Tensor  # [D], what the backbone makes of silence


def more_performances(minutes: float, fps: float, seed: int) -> list[Performance]:
    """Performances of the training voices beyond a capture's own, in any voice, rate, pitch and feeling."""
    rng = np.random.default_rng(seed)
    sentences, words = read_sentences("train"), read_words()
    weights = np.array([RECORDED_VOICE_WEIGHT if voice.engine == "flite" else 1.0 for voice in TRAIN_VOICES])
    result: list[Performance] = []
    missing = minutes * 60 * SAMPLE_RATE
    while missing > 0:
        voice = TRAIN_VOICES[rng.choice(len(TRAIN_VOICES), p=weights / weights.sum())]
        text = random_text(rng, sentences, words)
        result.append(act(text, voice, rng, fps=fps, before=(0.2, 0.6), after=(0.3, 0.8)))
        missing -= len(result[-1].samples)
    return result


def clip_offsets(clip: Clip, rig: BlendshapeRig | None) -> np.ndarray:  # [T, V, 3] metres
    """What the face does in a clip."""
    if clip.offsets is not None:
        return clip.offsets
    assert rig is not None, "a clip of coefficients needs its rig"
    return rig.offsets(clip.performance.values)


def clip_codes(clip: Clip, rig: BlendshapeRig | None) -> np.ndarray:  # [T, 17] 0..7
    """True codes: AU channels plus what the visemes show; over range where a counterfactual asks for it."""
    if clip.codes is not None:
        return clip.codes
    assert rig is not None, "a clip of coefficients needs its rig"
    performance = clip.performance
    visemes = performance.values[:, NUM_AUS : NUM_AUS + len(VISEMES)]
    shown = np.clip(visemes @ viseme_matrix(rig.viseme_aus), 0.0, MAX_INTENSITY)
    return np.clip(performance.values[:, :NUM_AUS] + shown, 0.0, MAX_OVER_RANGE).astype(np.float32)


def fit_basis(clips: Sequence[Clip], rig: BlendshapeRig | None, size: int, *, frames: int = 800, seed: int = 0) -> Basis:
    """Principal directions of what the face does in these clips, at every AU's extremes, and in random mixtures."""
    rng = np.random.default_rng(seed)
    share = min(1.0, frames / sum(len(clip.performance.values) for clip in clips))
    played = []
    for clip in clips:
        chosen = rng.random(len(clip.performance.values)) < share
        if clip.offsets is not None:
            played.append(clip.offsets[chosen])
        elif chosen.any():
            assert rig is not None
            played.append(rig.offsets(clip.performance.values[chosen]))
    count = sum(map(len, played))
    if rig is not None:
        played.append(rig.offsets(_extreme_values(rng)))
    offsets = np.concatenate(played).reshape(sum(map(len, played)), -1)
    gram = torch.from_numpy(offsets.astype(np.float64) @ offsets.T.astype(np.float64))
    energy, vectors = torch.linalg.eigh(gram)
    best = energy.argsort(descending=True)[:size]
    if len(best) < size:
        raise InputError(f"a basis of {size} needs as many frames of motion; the capture has {len(best)}")
    rows = torch.from_numpy(offsets).double().T @ (vectors[:, best] / energy[best].clamp(min=1e-12).sqrt())
    rows = torch.linalg.qr(rows)[0].T.half().float().contiguous()
    scale = (torch.from_numpy(offsets[:count]) @ rows.T).square().mean(dim=0).sqrt()
    return Basis(rows, scale.clamp(min=SMALLEST_SCALE * float(scale.max())))


def _extreme_values(rng: np.random.Generator) -> np.ndarray:  # [201, C]
    """Every AU by itself, up to over range, and three at a time."""
    single = np.zeros((NUM_AUS * 3, len(RIG_CHANNELS)), np.float32)
    for row, intensity in enumerate((2.0, MAX_INTENSITY, MAX_OVER_RANGE)):
        single[row * NUM_AUS + np.arange(NUM_AUS), np.arange(NUM_AUS)] = intensity
    mixtures = np.zeros((150, len(RIG_CHANNELS)), np.float32)
    for row in mixtures:
        row[rng.choice(NUM_AUS, size=3, replace=False)] = rng.uniform(0, MAX_INTENSITY, 3)
    return np.concatenate((single, mixtures))


def silent_performances(rig: BlendshapeRig, fps: float, seed: int, count: int) -> list[Performance]:
    """Ten seconds each of no voice: rest, single AUs rising and falling, and everything else; the codes must rule here too."""
    rng = np.random.default_rng(seed)
    frames = round(10 * fps)
    result = []
    for index in range(count):
        samples = _quiet(rng, round(frames / fps * SAMPLE_RATE))
        still = Performance(
            fps, np.zeros((frames, len(RIG_CHANNELS)), np.float32), RIG_CHANNELS, (), samples, "", "", emotion="none"
        )
        kind = index % 4
        if kind == 0:
            result.append(still)
        elif kind == 1:
            values = still.values.copy()
            times = np.arange(frames) / fps
            for slot in range(5):
                phase = times / 2.0 - slot
                hill = np.clip(np.minimum(phase, 1 - phase) * 2.6, 0.0, 1.0)
                values[:, rng.integers(NUM_AUS)] += rng.uniform(1.0, MAX_OVER_RANGE) * hill
            result.append(replace(still, values=values.clip(0, MAX_OVER_RANGE).astype(np.float32), kind="counterfactual"))
        else:
            result.append(counterfactual(still, rig.viseme_aus, int(rng.integers(2**31))))
    return result


def _quiet(rng: np.random.Generator, length: int) -> np.ndarray:
    if rng.random() < 0.4:
        return np.zeros(length, np.float32)
    return np.clip(noise(rng, length) * 10 ** (rng.uniform(-70, -40) / 20), -1, 1).astype(np.float32)


def over_range(performance: Performance, factor: float) -> Performance:
    """The same with AU channels above the visemes scaled by `factor`, up to 7."""
    values = performance.values.copy()
    aus = values[:, :NUM_AUS]
    values[:, :NUM_AUS] = np.where(aus > 0, np.minimum(aus * factor, MAX_OVER_RANGE), aus)
    return replace(performance, values=values)


def plan_tracks(
    clips: Sequence[Clip], rig: BlendshapeRig | None, *, extra_tracks: int, silent: int, seed: int
) -> list[list[Clip]]:
    """Clips by sound, the performed one first, with more counterfactual ones and with silence where a rig can play them."""
    rng = np.random.default_rng((seed, 23))
    clips = list(clips)
    if rig is not None:
        clips += [Clip(performance) for performance in silent_performances(rig, clips[0].performance.fps, seed, silent)]
    by_sound: dict[bytes, list[Clip]] = {}
    for clip in clips:
        by_sound.setdefault(clip.performance.samples.tobytes(), []).append(clip)
    groups = []
    for group in by_sound.values():
        group = sorted(group, key=lambda clip: clip.performance.kind != "performed")
        if rig is not None and group[0].performance.phones:
            group += [Clip(_other_aus(group[0].performance, rig, rng)) for _ in range(extra_tracks)]
        groups.append(group)
    return groups


def _other_aus(performance: Performance, rig: BlendshapeRig, rng: np.random.Generator) -> Performance:
    """A counterfactual track, now and then over range."""
    other = counterfactual(performance, rig.viseme_aus, int(rng.integers(2**31)))
    return over_range(other, rng.uniform(1.0, 1.6)) if rng.random() < 0.15 else other


def play_tracks(
    clips: Sequence[Clip], face: FaceTemplate, rig: BlendshapeRig | None, basis: Basis, padding: int, progress: Progress
) -> Tracks:
    """Every clip through the rig, one after another; the last frame of each is held for `padding` more."""
    parts: dict[str, list[Tensor]] = {name: [] for name in _TRACK_FIELDS}
    for done, clip in enumerate(clips):
        progress(done / len(clips))
        performance, offsets = clip.performance, clip_offsets(clip, rig)
        gap = lip_gap_mm(offsets + face.neutral.numpy(), face.lip_upper.numpy(), face.lip_lower.numpy())
        speaking = speech_activity(performance.phones, len(gap), performance.fps)
        near = maximum_filter1d(speaking, size=5)  # 80 ms about the voice: lips lead and linger
        arrays = {
            "latents": torch.from_numpy(offsets.reshape(len(offsets), -1)) @ basis.rows.T / basis.scale,
            "codes": torch.from_numpy(clip_codes(clip, rig)),
            "gap_mm": torch.from_numpy(gap.astype(np.float32)),
            "lip_weight": torch.from_numpy(lip_weights(gap, speaking, performance.fps)),
            "speaking": torch.from_numpy(near.astype(np.float32)),
        }
        for name, values in arrays.items():
            parts[name].append(torch.cat((values, values[-1:].expand(padding, *values.shape[1:]))))
    return Tracks(**{name: torch.cat(pieces) for name, pieces in parts.items()})


_TRACK_FIELDS = tuple(field.name for field in fields(Tracks))


def _play_or_remember(
    clips: Sequence[Clip],
    face: FaceTemplate,
    rig: BlendshapeRig | None,
    basis_size: int,
    padding: int,
    seed: int,
    cache: Path | None,
    progress: Progress,
) -> tuple[Basis, Tracks]:
    """Basis and tracks, from `cache` if it was made from the very same clips and rig: playing hours takes minutes."""
    key = _fingerprint(clips, face, rig, basis_size, padding, seed)
    if cache is not None and cache.is_file():
        with safe_open(cache, "pt") as file:
            if (file.metadata() or {}).get("made_from") == key:
                stored = {name: file.get_tensor(name) for name in ("rows", "scale", *_TRACK_FIELDS)}
                return Basis(stored["rows"], stored["scale"]), Tracks(**{name: stored[name] for name in _TRACK_FIELDS})
    basis = fit_basis(clips, rig, basis_size, seed=seed)
    tracks = play_tracks(clips, face, rig, basis, padding, progress)
    if cache is not None:
        tensors = {"rows": basis.rows, "scale": basis.scale} | {name: getattr(tracks, name) for name in _TRACK_FIELDS}
        unfinished = cache.with_suffix(".tmp")
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, unfinished, metadata={"made_from": key})
        unfinished.replace(cache)
    return basis, tracks


def _fingerprint(
    clips: Sequence[Clip], face: FaceTemplate, rig: BlendshapeRig | None, basis_size: int, padding: int, seed: int
) -> str:
    digest = hashlib.sha256(f"1 {basis_size} {padding} {seed}".encode())
    arrays = [face.neutral.numpy()] + ([rig.shapes[name] for name in sorted(rig.shapes)] if rig is not None else [])
    for clip in clips:
        arrays += [array for array in (clip.performance.values, clip.codes, clip.offsets) if array is not None]
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def lip_weights(gap_mm: np.ndarray, speaking: np.ndarray, fps: float) -> np.ndarray:  # [T], [T] -> [T] float32
    """Weight of each frame in the lip loss: T_lip, with closures while speaking weighing most."""
    speed = np.abs(np.gradient(gap_mm)) * fps if len(gap_mm) > 1 else np.zeros_like(gap_mm)
    active = (gap_mm > LIP_OPEN_MM) | (speed > LIP_SPEED_MM_S)
    active = maximum_filter1d(active.astype(np.float32), size=2 * LIP_MARGIN_FRAMES + 1)
    closure = CLOSURE_EMPHASIS * np.exp(-gap_mm / CLOSURE_REACH_MM) * (speaking > 0)
    return (active * (1 + closure)).astype(np.float32)


class _Listener:
    """Hears sounds within one context, as the denoiser and the AU encoder will."""

    def __init__(
        self, backbone: SpeechBackbone, encoder: AUEncoder | None, context: StreamContext, fps: float, window_frames: int
    ) -> None:
        self.backbone, self.encoder, self.context, self.fps = backbone, encoder, context, fps
        self.hop_frames = context.hop_frames(fps)
        self.pooling = frame_pooling(context, fps, window_frames)
        self.speech: list[Tensor] = []
        self.errors: list[Tensor] = []
        self.hops = 0

    @torch.no_grad()
    def hear(self, samples: np.ndarray, codes: Tensor) -> tuple[int, int]:
        """First hop and number of hops of this sound; `codes` [T, 17] are the performed truth."""
        context = self.context
        hops = max(2, -(-len(samples) // context.hop_samples))
        padded = np.pad(samples, (0, hops * context.hop_samples + context.lookahead_samples - len(samples)))
        device = next(self.backbone.parameters()).device
        blocks = self.backbone.forward_blocks(
            torch.from_numpy(padded.astype(np.float32))[None].to(device), context
        )  # [1, H, M + R, D]
        self.speech.append(pool_blocks(blocks[0], self.pooling.to(device), context).half().cpu())
        error = torch.zeros(hops, self.hop_frames, NUM_AUS)
        if self.encoder is not None:
            heard = self.encoder.forward_blocks(blocks, context, self.fps)[0][0, :, : self.hop_frames].cpu()
            held = torch.cat((codes, codes[-1:].expand(max(0, hops * self.hop_frames - len(codes)), -1)))
            error = heard - held[: hops * self.hop_frames].unflatten(0, (hops, self.hop_frames))
        self.errors.append(error.half())
        first, self.hops = self.hops, self.hops + hops
        return first, hops

    def build(self) -> Sounds:
        return Sounds(self.context, self.hop_frames, torch.cat(self.speech), torch.cat(self.errors))


def pool_blocks(blocks: Tensor, pooling: Tensor, context: StreamContext) -> Tensor:  # [H, M + R, D] -> [H, F + A, D]
    """Speech at motion frames, all hops at once: what `SpeechMotion` works out hop by hop."""
    last = blocks[:-1, context.hop_features - 1]
    before = torch.cat((blocks[:1, 0], last))[:, None]
    return pooling @ torch.cat((before, blocks), dim=1)


@torch.no_grad()
def hear_silence(backbone: SpeechBackbone, context: StreamContext, seconds: float = 4.0) -> Tensor:  # [D]
    """The backbone's steady answer to digital silence."""
    hops = round(seconds * 1000 / context.hop_ms)
    device = next(backbone.parameters()).device
    samples = torch.zeros(1, hops * context.hop_samples + context.lookahead_samples, device=device)
    return backbone.forward_blocks(samples, context)[0, hops // 2 :, : context.hop_features].flatten(0, 1).mean(dim=0).cpu()


def prepare_motion(
    clips: Sequence[Clip],  # of the training split
    face: FaceTemplate,
    rig: BlendshapeRig | None,  # None: no counterfactual track can be made
    backbone: SpeechBackbone,
    encoder: AUEncoder | None,
    *,
    contexts: Sequence[StreamContext],
    basis_size: int,
    lookahead_frames: int,
    extra_tracks: int = 1,  # counterfactual tracks a performance on top of the capture's own
    disturbed: int = 1,  # disturbed hearings of every sound, in the first context
    silent: int = 24,  # clips without a voice
    seed: int = 0,
    cache: Path | None = None,  # a file that keeps the tracks
    progress: Progress = lambda share: None,
) -> MotionData:
    """Everything that training reads."""
    rng = np.random.default_rng((seed, 17))
    fps = clips[0].performance.fps
    padding = 2 * max(context.hop_frames(fps) for context in contexts) + lookahead_frames
    groups = plan_tracks(clips, rig, extra_tracks=extra_tracks, silent=silent, seed=seed)
    in_order = [clip for group in groups for clip in group]
    basis, tracks = _play_or_remember(in_order, face, rig, basis_size, padding, seed, cache, lambda share: progress(0.6 * share))
    listeners = [_Listener(backbone, encoder, context, fps, context.hop_frames(fps) + lookahead_frames) for context in contexts]
    entries: list[list[Entry]] = [[] for _ in contexts]
    frame = 0
    for done, group in enumerate(groups):
        progress(0.6 + 0.4 * done / len(groups))
        firsts = []
        for clip in group:
            firsts.append(frame)
            frame += len(clip.performance.values) + padding
        codes, samples = torch.from_numpy(clip_codes(group[0], rig)), group[0].performance.samples
        for which, listener in enumerate(listeners):
            for hearing in range(1 + (disturbed if which == 0 else 0)):
                sound = samples if hearing == 0 else disturb(samples, rng)[1]
                # The grid of hops falls anywhere in a sentence: whole frames are cut from the start.
                cut = int(rng.integers(listener.hop_frames)) if len(codes) > 4 * listener.hop_frames else 0
                first_hop, hops = listener.hear(sound[round(cut * SAMPLE_RATE / fps) :], codes[cut:])
                entries[which] += [Entry(first + cut, first_hop, hops) for first in firsts]
    return MotionData(
        basis=basis,
        tracks=tracks,
        sounds=tuple(listener.build() for listener in listeners),
        train=tuple(tuple(chosen) for chosen in entries),
        silence=hear_silence(backbone, contexts[0]),
    )
