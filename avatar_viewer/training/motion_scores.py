"""How good a trained denoiser is: played hop by hop over held-out clips, as `SpeechMotion` plays it, many clips at once.

Knows the denoiser, its conditions and the metrics; knows no optimiser and no file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..action_units import AU_NAMES, MAX_INTENSITY, NUM_AUS, SPEECH_AUS
from ..avatar.face import FaceTemplate
from ..avatar.speech_motion import lip_gate
from ..config import StreamContext
from ..metrics.lips import closure_rate, correlation, lip_gap_mm, loudness_baseline, rest_rate
from ..metrics.motion import edit_slope, leakage, obtained_aus, seam_ratio, vertex_rmse_mm
from ..networks.au_encoder import AUEncoder
from ..networks.denoiser import RESPONSE_LEVELS, Conditions, Denoiser, frame_pooling
from ..networks.speech import SpeechBackbone
from ..studio.blendshapes import BlendshapeRig
from ..studio.performance import speech_activity
from .motion_data import Clip, clip_codes, clip_offsets, pool_blocks

OPEN_VOWELS = ("aa", "ae", "ao", "aw", "ay")
BILABIALS = ("p", "b", "m")
SETTLING_HOPS = 8  # until a constant input gives a constant face


@dataclass(frozen=True)
class HeardClip:
    """A held-out clip with everything that the denoiser is given for it."""

    clip: Clip
    speech: Tensor  # [H, F + A, D]
    true_codes: Tensor  # [H, F + A, 17]
    heard_codes: Tensor | None  # [H, F + A, 17] of the AU encoder
    heard_voice: Tensor | None  # [H, F + A] 0..1


@torch.no_grad()
def hear_clip(
    clip: Clip,
    rig: BlendshapeRig | None,
    backbone: SpeechBackbone,
    encoder: AUEncoder | None,
    context: StreamContext,
    window_frames: int,
    samples: np.ndarray | None = None,  # another recording of the same sound
) -> HeardClip:
    performance = clip.performance
    samples = performance.samples if samples is None else samples
    hop_frames = context.hop_frames(performance.fps)
    hops = max(1, -(-len(performance.values) // hop_frames))
    padded = np.zeros(hops * context.hop_samples + context.lookahead_samples, np.float32)
    padded[: min(len(samples), len(padded))] = samples[: len(padded)]
    device = next(backbone.parameters()).device
    blocks = backbone.forward_blocks(torch.from_numpy(padded)[None].to(device), context)
    pooling = frame_pooling(context, performance.fps, window_frames).to(device)
    codes = torch.from_numpy(clip_codes(clip, rig))
    frames = torch.arange(hops)[:, None] * hop_frames + torch.arange(window_frames)
    heard, voice = encoder.forward_blocks(blocks, context, performance.fps) if encoder is not None else (None, None)
    return HeardClip(
        clip,
        pool_blocks(blocks[0], pooling, context).cpu(),
        codes[frames.clamp(max=len(codes) - 1)],
        None if heard is None else heard[0].cpu(),
        None if voice is None else voice[0].sigmoid().cpu(),
    )


@torch.no_grad()
def play(
    denoiser: Denoiser,
    speech: Tensor,  # [B, H, F + A, D]
    codes: Tensor,  # [B, H, F + A, 17]
    template: Tensor,
    *,
    rows: int | None = None,
    seed: int = 0,
) -> Tensor:  # [B, H * F, K]
    """Latents hop after hop, each from its predecessors' answers; the same noise in every hop and clip."""
    batch, hops, window = speech.shape[:3]
    frames = window - denoiser.config.lookahead_frames
    device = denoiser.scale.device
    noise = torch.randn(1, window, denoiser.config.basis_size, generator=torch.Generator().manual_seed(seed)).to(device)
    history = denoiser.start_history(batch)
    result = []
    for hop in range(hops):
        conditions = Conditions(codes[:, hop].to(device), speech[:, hop].float().to(device), template)
        latents = denoiser.generate(noise.expand(batch, -1, -1), history, conditions, rows=rows)[:, :frames]
        history = history.advance(latents, conditions.codes[:, :frames], conditions.speech[:, :frames])
        result.append(latents)
    return torch.cat(result, dim=1)


def measure_response(denoiser: Denoiser, template: Tensor, window_frames: int) -> Tensor:  # [17, L, K]
    """Steady latents of every AU at every level in silence, against no AU at all."""
    levels = len(RESPONSE_LEVELS)
    codes = torch.zeros(NUM_AUS * levels, NUM_AUS)
    codes[torch.arange(NUM_AUS * levels), torch.arange(NUM_AUS).repeat_interleave(levels)] = torch.tensor(RESPONSE_LEVELS).repeat(
        NUM_AUS
    )
    window = codes[:, None, None].expand(-1, SETTLING_HOPS, window_frames, -1)
    speech = denoiser.silence.cpu().expand(*window.shape[:3], -1)
    frames = window_frames - denoiser.config.lookahead_frames
    steady = play(denoiser, speech, window, template)[:, -2 * frames :].mean(dim=1).cpu().unflatten(0, (NUM_AUS, levels))
    return steady - steady[:, :1]


def score_response(denoiser: Denoiser, shapes: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Obedience in silence: slope and R^2 of obtained on requested intensity (0 to 5) of every AU, worst and mean."""
    levels = [i for i, level in enumerate(RESPONSE_LEVELS) if level <= MAX_INTENSITY]
    slopes, fits = [], []
    for column, name in enumerate(AU_NAMES):
        if name in shapes:
            offsets = denoiser.decode_offsets(denoiser.response_latents[column, levels]).cpu().numpy()
            slope, fit = edit_slope(np.array(RESPONSE_LEVELS)[levels], obtained_aus(offsets, shapes)[:, column])
            slopes.append(slope), fits.append(fit)
    return {
        "au_slope_mean": float(np.mean(slopes)), "au_slope_worst": float(np.min(slopes)),
        "au_r2_mean": float(np.mean(fits)), "au_r2_worst": float(np.min(fits)),
    }  # fmt: skip


def score_edits(
    denoiser: Denoiser,
    heard: HeardClip,
    face: FaceTemplate,
    shapes: Mapping[str, np.ndarray],
    levels: Sequence[float] = (0.0, 1.5, 3.0, 4.5),
) -> dict[str, float]:
    """Obedience while speaking: every AU that speech does not need, raised by `levels` under one and the same voice.

    Slope and R^2 of the obtained change, the share of the movement outside the AU's region, and the lips' correlation
    with the unedited take.
    """
    template = denoiser.describe_template(face.neutral.to(denoiser.scale.device))
    edited = [name for name in AU_NAMES if name in shapes and name not in SPEECH_AUS]
    codes = heard.true_codes.repeat(len(edited) * len(levels), 1, 1, 1)
    for row, name in enumerate(edited):
        for place, level in enumerate(levels):
            codes[row * len(levels) + place, ..., AU_NAMES.index(name)] += level
    speech = heard.speech.expand(len(codes), *heard.speech.shape)
    latents = play(denoiser, speech, codes.clamp(max=MAX_INTENSITY), template)
    frames = len(heard.clip.performance.values)
    neutral, upper, lower = face.neutral.numpy(), face.lip_upper.numpy(), face.lip_lower.numpy()
    slopes, fits, outside, lips = [], [], [], []
    for row, name in enumerate(edited):
        plain, *raised = denoiser.decode_offsets(latents[row * len(levels) : (row + 1) * len(levels), :frames]).cpu().numpy()
        moved = [np.zeros_like(plain[0])] + [(track - plain)[5:].mean(axis=0) for track in raised]
        requested = [
            float((codes[row * len(levels) + place] - codes[row * len(levels)])[1:, :, AU_NAMES.index(name)].mean())
            for place in range(len(levels))
        ]
        slope, fit = edit_slope(np.array(requested), obtained_aus(np.stack(moved), shapes)[:, AU_NAMES.index(name)])
        slopes.append(slope), fits.append(fit)
        if name in face.regions:
            outside.append(leakage(moved[-1], face.regions[name].numpy()))
        gaps = [lip_gap_mm(track + neutral, upper, lower) for track in (plain, raised[-1])]
        lips.append(correlation(*gaps))
    return {
        "slope_mean": float(np.mean(slopes)), "slope_worst": float(np.min(slopes)), "r2_worst": float(np.min(fits)),
        "leakage_mean": float(np.mean(outside)), "lip_r_mean": float(np.mean(lips)), "lip_r_worst": float(np.min(lips)),
    }  # fmt: skip


def score_clips(
    denoiser: Denoiser,
    heard: Sequence[HeardClip],
    face: FaceTemplate,
    rig: BlendshapeRig | None,
    *,
    codes: str = "true",  # or "heard": what the AU encoder makes of the voice, with its gate on the lips
    rows: int | None = None,
) -> dict[str, float]:
    """Means over clips of the motion metrics against the studio's truth; speech frames only where lips are compared."""
    template = denoiser.describe_template(face.neutral.to(denoiser.scale.device))
    hops = max(len(item.speech) for item in heard)
    speech, given = [], []
    for item in heard:
        own_speech, own_codes = item.speech.float(), item.true_codes
        if codes == "heard":
            assert item.heard_codes is not None and item.heard_voice is not None
            own_speech, own_codes = lip_gate(own_speech, item.heard_codes, item.heard_voice, denoiser.silence.cpu())
        speech.append(torch.cat((own_speech, own_speech[-1:].expand(hops - len(own_speech), -1, -1))))
        given.append(torch.cat((own_codes, own_codes[-1:].expand(hops - len(own_codes), -1, -1))))
    latents = play(denoiser, torch.stack(speech), torch.stack(given), template, rows=rows)
    hop_frames = latents.shape[1] // hops
    rows_of: dict[str, list[float]] = {}
    for item, track in zip(heard, latents):
        truth = clip_offsets(item.clip, rig)
        predicted = denoiser.decode_offsets(track[: len(truth)]).cpu().numpy()
        for name, value in _score_clip(item.clip, predicted, truth, face, hop_frames).items():
            rows_of.setdefault(name, []).append(value)
    return {name: float(np.nanmean(values)) for name, values in rows_of.items() if not np.all(np.isnan(values))}


def _score_clip(clip: Clip, predicted: np.ndarray, truth: np.ndarray, face: FaceTemplate, hop_frames: int) -> dict[str, float]:
    performance = clip.performance
    neutral, upper, lower = face.neutral.numpy(), face.lip_upper.numpy(), face.lip_lower.numpy()
    gap, true_gap = lip_gap_mm(predicted + neutral, upper, lower), lip_gap_mm(truth + neutral, upper, lower)
    scores = {"vertex_rmse_mm": vertex_rmse_mm(predicted, truth), "seam_ratio": seam_ratio(predicted, hop_frames)}
    speaking = speech_activity(performance.phones, len(truth), performance.fps) > 0
    if not speaking.any():
        return scores
    middles = np.array([(p.start + p.end) / 2 for p in performance.phones if p.symbol in BILABIALS])
    times = np.arange(len(truth)) / performance.fps
    open_frames = np.zeros(len(truth), bool)
    for phone in performance.phones:
        if phone.symbol in OPEN_VOWELS:
            open_frames |= np.abs(times - (phone.start + phone.end) / 2) <= 0.5 / performance.fps
    scores |= {
        "lip_r": correlation(gap[speaking], true_gap[speaking]),
        "loudness_r": loudness_baseline(performance.samples, true_gap, performance.fps, speaking),
        "quiet_gap_mm": float(gap[~speaking].mean()) if (~speaking).any() else float("nan"),
        "true_quiet_gap_mm": float(true_gap[~speaking].mean()) if (~speaking).any() else float("nan"),
        "rest_rate": rest_rate(gap, ~speaking),
        "closure_rate": closure_rate(gap, performance.fps, middles),
        "true_closure_rate": closure_rate(true_gap, performance.fps, middles),
    }
    if open_frames.any():
        scores["open_vowel_gap_ratio"] = float(gap[open_frames].mean() / max(true_gap[open_frames].mean(), 0.1))
    return scores
