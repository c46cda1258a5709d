"""Held-out takes spoken by an avatar from their sound alone, beside the truth; disturbed, at low delay, and edited."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import signal

from ..action_units import AU_NAMES, MAX_INTENSITY, SPEECH_AUS
from ..avatar.bundle import Avatar
from ..avatar.edit_track import EditTrack
from ..avatar.speech_motion import speak
from ..config import LOW_DELAY_STREAM, SAMPLE_RATE
from ..studio.performance import speech_activity
from ..studio.voices import Phone
from ..training.datasets.capture import TalkingSequence
from ..types import AUEdit, MotionWindow
from . import actions, lips, motion

BILABIALS = ("p", "b", "m")
OPEN_VOWELS = ("aa", "ae", "ao", "aw", "ay")
PIXELS_PER_METRE = 512 / 0.42  # of the landmarks' front view: a head and shoulders in 512 pixels
MANY_STEPS = 50  # of the sampler that the default's few are held against
EDIT_LEVELS = (1.0, 2.0, 3.0, 4.0)
EDITED_TAKES = 2  # of the held-out ones: 17 units at four levels each
UPPER_FACE = ("AU01", "AU02", "AU04", "AU05", "AU06", "AU07", "AU09")


@dataclass(frozen=True)
class SpokenTake:
    """One held-out take: the truth, what the avatar makes of the sound, and the figures."""

    sequence: TalkingSequence
    window: MotionWindow
    truth: np.ndarray  # [T, V, 3] metres from neutral
    gap: np.ndarray  # [T] mm
    true_gap: np.ndarray  # [T] mm
    true_codes: np.ndarray  # [T, 17]
    figures: dict[str, float]

    @property
    def speaking(self) -> np.ndarray:  # [T] bool
        return speech_activity(_phones(self.sequence), len(self.gap), self.sequence.fps) > 0


def measure_take(avatar: Avatar, sequence: TalkingSequence, truth: np.ndarray) -> SpokenTake:
    """`truth` is [T, V, 3] metres from neutral."""
    window = speak(avatar, torch.from_numpy(sequence.samples), blinks=False)
    frames = min(len(truth), len(window.offsets))
    offsets, truth = window.offsets[:frames].numpy(), truth[:frames]
    gap, true_gap = _gap(avatar, offsets), _gap(avatar, truth)
    phones, regions = _phones(sequence), {name: np.asarray(ids) for name, ids in avatar.face.regions.items()}
    speaking = speech_activity(phones, frames, sequence.fps) > 0
    codes, found = sequence.au_codes.values[:frames].numpy(), window.au_codes[:frames].numpy()
    neutral = avatar.face.neutral.numpy()
    agreement = actions.agreement(found, codes)
    figures = {
        "lip_gap_correlation": lips.correlation(gap[speaking], true_gap[speaking]),
        "loudness_baseline": lips.loudness_baseline(sequence.samples, true_gap, sequence.fps, speaking),
        "closure_rate": lips.closure_rate(gap, sequence.fps, _middles(phones, BILABIALS)),
        "closure_rate_truth": lips.closure_rate(true_gap, sequence.fps, _middles(phones, BILABIALS)),
        "open_vowel_ratio": _open_vowel_ratio(gap, true_gap, phones, sequence.fps),
        "rest_rate": lips.rest_rate(gap, ~speaking),
        "sync_offset_ms": lips.sync_offset_ms(gap, true_gap, sequence.fps),
        "vertex_rmse_mm": motion.vertex_rmse_mm(offsets, truth),
        "lve_mm": motion.lip_vertex_error_mm(offsets, truth, regions["lips"]),
        "lip_excursion_mm": motion.lip_vertex_error_mm(np.zeros_like(truth), truth, regions["lips"]),
        "lmd_px": motion.landmark_distance_px(neutral + offsets, neutral + truth, regions["lips"], PIXELS_PER_METRE),
        "fdd_1e-5_m2": motion.upper_face_dynamics_deviation(offsets, truth, regions["upper_face"]) * 1e5,
        "mod_mm": motion.mouth_opening_difference_mm(gap, true_gap),
        "seam_ratio": motion.seam_ratio(offsets, avatar.stream.hop_frames(avatar.fps)),
        "jitter_mm": motion.jitter_mm(offsets),
        "jitter_truth_mm": motion.jitter_mm(truth),
        "au_mae": agreement["mae"],
    }
    return SpokenTake(sequence, window, truth, gap, true_gap, codes, figures)


def measure_aus(takes: list[SpokenTake]) -> dict:
    """The AU encoder over all takes together: F1, MAE, ICC and correlation by AU, beside what loudness alone reaches."""
    found = np.concatenate([take.window.au_codes[: len(take.true_codes)].numpy() for take in takes])
    truth = np.concatenate([take.true_codes for take in takes])
    fps = takes[0].sequence.fps
    sounds = [_cut(take.sequence.samples, len(take.true_codes), fps) for take in takes]
    floor = actions.loudness_floor(sounds, truth, fps)
    return {"voice": actions.agreement(found, truth), "loudness_only": actions.agreement(floor, truth)}


def measure_robustness(avatar: Avatar, takes: list[SpokenTake]) -> dict[str, float]:
    """Correlation of the lip gap with the clean take's, mean over the takes, under each disturbance."""
    result = {}
    for name, disturb in DISTURBANCES.items():
        found = [_respoken(avatar, take, disturb(take.sequence.samples)) for take in takes]
        result[name] = float(np.mean([lips.correlation(gap[t.speaking], t.gap[t.speaking]) for gap, t in zip(found, takes)]))
    return result


def measure_settings(avatar: Avatar, takes: list[SpokenTake]) -> dict[str, float]:
    """The low-delay setting's lip error against the default's, and the few steps' vertex error against many."""
    low, many, default_lips, default_all = [], [], [], []
    lip_ids = np.asarray(avatar.face.regions["lips"])
    for take in takes:
        sound = torch.from_numpy(take.sequence.samples)
        offsets = take.window.offsets[: len(take.truth)].numpy()
        fast = speak(avatar, sound, blinks=False, stream=LOW_DELAY_STREAM).offsets[: len(take.truth)].numpy()
        slow = speak(avatar, sound, blinks=False, steps=min(MANY_STEPS, avatar.denoiser.config.diffusion_steps))
        low.append(motion.lip_vertex_error_mm(fast, take.truth, lip_ids))
        default_lips.append(motion.lip_vertex_error_mm(offsets, take.truth, lip_ids))
        many.append(motion.vertex_rmse_mm(slow.offsets[: len(take.truth)].numpy(), take.truth))
        default_all.append(motion.vertex_rmse_mm(offsets, take.truth))
    return {
        "low_delay_lve_ratio": float(np.mean(low) / max(np.mean(default_lips), 1e-9)),
        "few_steps_error_ratio": float(np.mean(default_all) / max(np.mean(many), 1e-9)),
    }


def measure_edits(avatar: Avatar, takes: list[SpokenTake], shapes: Mapping[str, np.ndarray]) -> dict:
    """Sliders while speaking: slope and R^2 of obtained on requested intensity, movement outside the AU's region, and the
    lips' correlation with the unedited take under edits of the upper face; by AU, and in all."""
    rows = {name: _measure_edit(avatar, takes[:EDITED_TAKES], name, shapes) for name in AU_NAMES if name in shapes}
    free = [row["r2"] for name, row in rows.items() if name not in SPEECH_AUS]
    upper = [row["lip_correlation"] for name, row in rows.items() if name in UPPER_FACE]
    return {
        "slope_worst": min(row["slope"] for row in rows.values()),
        "r2_worst": min(row["r2"] for row in rows.values()),
        "r2_mean": float(np.mean([row["r2"] for row in rows.values()])),
        "monotone": all(row["monotone"] for row in rows.values()),
        "leakage_worst": max(row["leakage"] for row in rows.values()),
        "leakage_mean": float(np.mean([row["leakage"] for row in rows.values()])),
        "r2_worst_beside_speech": min(free, default=None),
        "lip_correlation_worst_upper_face": min(upper, default=None),
        "by_au": rows,
    }


def _measure_edit(avatar: Avatar, takes: list[SpokenTake], name: str, shapes: Mapping[str, np.ndarray]) -> dict:
    column, requested, obtained, outside, lip = AU_NAMES.index(name), [0.0], [0.0], [], []
    for level in EDIT_LEVELS:
        moved, asked, gaps = [], [], []
        for take in takes:
            offset = torch.zeros(len(AU_NAMES))
            offset[column] = level
            track = EditTrack.constant(replace(AUEdit(), offset=offset))
            window = speak(avatar, torch.from_numpy(take.sequence.samples), track, blinks=False)
            frames = len(take.gap)
            moved.append((window.offsets[:frames] - take.window.offsets[:frames]).numpy().mean(axis=0))
            asked.append(float((window.au_applied[:frames, column] - take.window.au_applied[:frames, column]).mean()))
            gaps.append(lips.correlation(_gap(avatar, window.offsets[:frames].numpy()), take.gap))
        mean = np.mean(moved, axis=0)
        requested.append(float(np.mean(asked)))
        obtained.append(float(motion.obtained_aus(mean[None], shapes)[0, column]))
        if name in avatar.face.regions:
            outside.append(motion.leakage(mean, np.asarray(avatar.face.regions[name])))
        lip.append(min(gaps))
    slope, fit = motion.edit_slope(np.array(requested), np.array(obtained))
    return {
        "slope": slope, "r2": fit, "monotone": bool((np.diff(obtained) > 0).all()), "leakage": outside[-1] if outside else 0.0,
        "lip_correlation": min(lip), "obtained_at_most": obtained[-1], "requested_at_most": min(requested[-1], MAX_INTENSITY),
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------------ disturbances


def _with_noise(samples: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(len(samples))
    return samples + noise * np.sqrt(np.mean(samples**2)) * 10 ** (-20 / 20)


def _over_telephone(samples: np.ndarray) -> np.ndarray:
    return signal.sosfilt(signal.butter(4, (300, 3400), "bandpass", fs=SAMPLE_RATE, output="sos"), samples)


def _in_a_room(samples: np.ndarray) -> np.ndarray:
    """A small room: the direct sound and a tail 12 dB below it that falls by 60 dB in 0.3 s."""
    time = np.arange(int(0.3 * SAMPLE_RATE)) / SAMPLE_RATE
    tail = np.random.default_rng(0).standard_normal(len(time)) * 10 ** (-3 * time / 0.3)
    response = tail * 10 ** (-6 / 20) / np.sqrt((tail**2).sum())
    response[0] = 1.0
    return signal.fftconvolve(samples, response)[: len(samples)]


DISTURBANCES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "18 dB softer": lambda samples: samples * 10 ** (-18 / 20),
    "6 dB louder, clipped": lambda samples: np.clip(samples / max(np.abs(samples).max(), 1e-6) * 10 ** (6 / 20), -1, 1),
    "noise at 20 dB": _with_noise,
    "telephone": _over_telephone,
    "small room": _in_a_room,
}


# ------------------------------------------------------------------------------------------------------------ pieces


def _respoken(avatar: Avatar, take: SpokenTake, samples: np.ndarray) -> np.ndarray:  # [T] mm
    window = speak(avatar, torch.from_numpy(np.asarray(samples, dtype=np.float32)), blinks=False)
    return _gap(avatar, window.offsets[: len(take.gap)].numpy())


def _gap(avatar: Avatar, offsets: np.ndarray) -> np.ndarray:
    return lips.lip_gap_mm(avatar.face.neutral.numpy() + offsets, avatar.face.lip_upper.numpy(), avatar.face.lip_lower.numpy())


def _phones(sequence: TalkingSequence) -> tuple[Phone, ...]:
    return tuple(Phone(*phone) for phone in sequence.phones)


def _middles(phones: tuple[Phone, ...], symbols: tuple[str, ...]) -> np.ndarray:
    return np.array([(phone.start + phone.end) / 2 for phone in phones if phone.symbol in symbols])


def _open_vowel_ratio(gap: np.ndarray, true_gap: np.ndarray, phones: tuple[Phone, ...], fps: float) -> float:
    """Mean gap in the middle of open vowels over the truth's; NaN without any."""
    times = np.arange(len(gap)) / fps
    near = np.zeros(len(gap), bool)
    for middle in _middles(phones, OPEN_VOWELS):
        near |= np.abs(times - middle) <= 0.5 / fps
    return float(gap[near].mean() / max(true_gap[near].mean(), 0.1)) if near.any() else float("nan")


def _cut(samples: np.ndarray, frames: int, fps: float) -> np.ndarray:
    length = round(frames / fps * SAMPLE_RATE)
    return np.pad(samples[:length], (0, max(0, length - len(samples))))
