"""What the AU encoder learns from: sound with the action units of the face that speaks it, at 50 values a second.

Taken from a capture's performed sequences, and, where the capture comes from a rig with visemes, from more performances
of the studio's voices, which cost no pictures. Knows performances and captures; knows no network.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...config import FEATURE_HOP, SAMPLE_RATE
from ...studio.performance import act, au_codes, speech_activity
from ...studio.voices import Voice
from .speech_augment import NOMINAL_RMS, active_rms, babble, disturb, excerpt, no_voice
from .speech_corpus import random_text, read_sentences, read_words

CODE_RATE = SAMPLE_RATE // FEATURE_HOP  # codes a second
PERFORMED_VERSION = 4


@dataclass(frozen=True)
class PerformedSpeech:
    """Takes one after another; row k of `codes` and `voice` is true at sample 320 k."""

    samples: np.ndarray  # [S] int16
    codes: np.ndarray  # [S / 320, 17] float16, 0..5
    voice: np.ndarray  # [S / 320] uint8, 1 while a phone sounds
    spans: np.ndarray  # [takes, 2] int64, samples

    def codes_at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Codes [T, 17] and voice [T], float32, interpolated at these (fractional) samples."""
        place = np.clip(np.asarray(positions) / FEATURE_HOP, 0, len(self.codes) - 1.001)
        index = place.astype(np.int64)
        share = (place - index)[:, None].astype(np.float32)
        codes = self.codes[index].astype(np.float32) * (1 - share) + self.codes[index + 1].astype(np.float32) * share
        return codes, self.voice[np.round(place).astype(np.int64)].astype(np.float32)


@dataclass(frozen=True)
class CodedSegment:
    samples: np.ndarray  # [S] float32
    codes: np.ndarray  # [T, 17] float32, frame i at i / fps
    voice: np.ndarray  # [T] float32


def join_takes(
    takes: list[tuple[np.ndarray, np.ndarray, np.ndarray]],  # samples float, codes [T, K] and voice [T] at 50 a second
) -> PerformedSpeech:
    """Takes one after another, each cut to whole 20 ms."""
    samples, codes, voice, spans, clock = [], [], [], [], 0
    for sound, track, active in takes:
        rows = min(len(sound) // FEATURE_HOP, len(track))
        samples.append((np.clip(sound[: rows * FEATURE_HOP], -1, 1) * 32767).astype(np.int16))
        codes.append(track[:rows].astype(np.float16))
        voice.append(active[:rows].astype(np.uint8))
        spans.append((clock, clock + rows * FEATURE_HOP))
        clock += rows * FEATURE_HOP
    return PerformedSpeech(np.concatenate(samples), np.concatenate(codes), np.concatenate(voice), np.array(spans, np.int64))


def build_performances(
    folder: Path,
    viseme_aus: Mapping[str, Mapping[str, float]],
    *,
    minutes: float,
    voices: tuple[Voice, ...],
    split: str,
    seed: int = 0,
    progress=lambda share: None,
) -> PerformedSpeech:
    """Performances of the studio's voices in `folder`, spoken now if they are not there, coded as this rig shows them."""
    wanted = {"version": PERFORMED_VERSION, "minutes": minutes, "voices": [v.label for v in voices], "split": split, "seed": seed}
    stamp = folder / "performed.json"
    if not stamp.is_file() or json.loads(stamp.read_text(encoding="utf-8")) != wanted:
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in _perform_voices(minutes, voices, split, seed, progress).items():
            np.save(folder / f"{name}.npy", array)
        stamp.with_suffix(".tmp").write_text(json.dumps(wanted), encoding="utf-8")
        os.replace(stamp.with_suffix(".tmp"), stamp)
    arrays = {
        name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        for name in ("samples", "values", "voice", "spans")
    }
    codes = au_codes(arrays["values"].astype(np.float32), viseme_aus).astype(np.float16)
    return PerformedSpeech(arrays["samples"], codes, arrays["voice"], arrays["spans"])


def _perform_voices(minutes: float, voices: tuple[Voice, ...], split: str, seed: int, progress) -> dict[str, np.ndarray]:
    """Samples, rig coefficients, voice activity and the spans of takes."""
    rng = np.random.default_rng(seed)
    sentences, words = read_sentences(split), read_words()
    weights = np.array([12.0 if voice.engine == "flite" else 1.0 for voice in voices])
    takes, clock = [], 0.0
    while clock < minutes * 60:
        voice = voices[rng.choice(len(voices), p=weights / weights.sum())]
        text = (
            sentences[rng.integers(len(sentences))]
            if split == "test" or rng.random() < 0.4
            else random_text(rng, sentences, words)
        )
        performance = act(text, voice, rng, fps=CODE_RATE)
        active = speech_activity(performance.phones, len(performance.values), CODE_RATE)
        takes.append((performance.samples, performance.values, active))
        clock += len(performance.samples) / SAMPLE_RATE
        progress(min(1.0, clock / (minutes * 60)))
    joined = join_takes(takes)
    return {"samples": joined.samples, "values": joined.codes, "voice": joined.voice, "spans": joined.spans}


def draw_coded_segment(
    sources: list[PerformedSpeech],
    rng: np.random.Generator,
    length: int,  # samples
    frames: int,
    fps: float,
    *,
    augmented: bool = True,
) -> CodedSegment:
    """One or two takes with their codes; now and then no voice at all, under which the face rests."""
    times = np.arange(frames) / fps
    if augmented and rng.random() < 0.05:
        return CodedSegment(no_voice(rng, length), np.zeros((frames, 17), np.float32), np.zeros(frames, np.float32))
    sizes = np.array([len(source.samples) for source in sources], dtype=np.float64)
    source = sources[rng.choice(len(sources), p=sizes / sizes.sum())]
    ratio = float(np.exp(rng.uniform(-0.1, 0.1))) if augmented else 1.0
    # Whole takes are short: the stretch runs on into the next take, which begins and ends in silence.
    whole = np.array([[0, len(source.samples)]])
    start, speech = excerpt(source.samples, whole, rng, length, ratio)
    codes, voice = source.codes_at(start + times * SAMPLE_RATE * ratio)
    speech *= NOMINAL_RMS / max(1e-3, active_rms(speech))
    if augmented:
        _, speech = disturb(speech, rng, others=lambda: babble(source.samples, whole, rng, length))
    return CodedSegment(speech, codes, voice)
