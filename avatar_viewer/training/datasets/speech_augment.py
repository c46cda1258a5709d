"""Speech as a microphone, a room, a telephone and a stranger's throat would give it: augmentation on the fly.

Works on plain arrays at 16 kHz. `disturb` changes how a sound sounds and keeps its timing (labels stay valid);
`draw_segment` also resamples, which changes tempo, pitch and vocal-tract length together, and moves the labels along.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import soxr
from scipy import fft

from ...config import FEATURE_FIELD, FEATURE_HOP, SAMPLE_RATE
from ...studio.delivery import PITCH_HOP
from .speech_corpus import NO_FEELING, SpeechCorpus

MEL_BANDS = 32
_HANN = np.hanning(FEATURE_FIELD).astype(np.float32)
NOMINAL_RMS = 0.1  # of active speech: -20 dBFS


@dataclass(frozen=True)
class Segment:
    """A stretch of sound and what is true at each feature's centre (12.5 ms + 20 ms k)."""

    samples: np.ndarray  # [S] float32
    phones: np.ndarray  # [K] int64 into PHONES
    feelings: np.ndarray  # [K] int64 into FEELINGS, or NO_FEELING
    loudness: np.ndarray  # [K] float32, of the voice alone: (dBFS + 50) / 25, floor -1
    pitch: np.ndarray  # [K] float32, log2(Hz / 140); NaN where unvoiced

    def spectrum_shape(self) -> np.ndarray:  # [K, 32] float32
        """Log-mel spectrum of what the microphone gives, less its own mean: the tilt and the formants, not the level."""
        frames = np.lib.stride_tricks.sliding_window_view(self.samples, FEATURE_FIELD)[::FEATURE_HOP] * _HANN
        power = np.abs(fft.rfft(frames, 512)) ** 2
        bands = np.log(power @ _mel_bands().T + 1e-6)
        return (bands - bands.mean(1, keepdims=True)).astype(np.float32) / 2


def draw_segment(corpus: SpeechCorpus, rng: np.random.Generator, length: int, *, augmented: bool = True) -> Segment:
    """`length` samples from anywhere in the corpus; now and then no voice at all: silence, noise or music."""
    features = max(0, (length - FEATURE_FIELD) // FEATURE_HOP + 1)
    centres = np.arange(features) * FEATURE_HOP + FEATURE_FIELD // 2
    if augmented and rng.random() < 0.04:
        empty = np.zeros(features)
        return Segment(
            no_voice(rng, length),
            empty.astype(np.int64),
            np.full(features, NO_FEELING),
            np.full(features, -1, np.float32),
            np.full(features, np.nan, np.float32),
        )
    ratio = float(np.exp(rng.uniform(-0.24, 0.2))) if augmented else 1.0  # above 1: faster, higher, a shorter throat
    start, speech = excerpt(corpus.samples, corpus.voice_spans, rng, length, ratio)
    positions = start + (centres * ratio).astype(np.int64)
    phones = corpus.phones_at(positions).astype(np.int64)
    feelings = corpus.feelings_at(positions).astype(np.int64)
    hertz = corpus.pitch[np.minimum(positions // PITCH_HOP, len(corpus.pitch) - 1)].astype(np.float32) * ratio
    pitch = np.where(hertz > 0, np.log2(np.maximum(hertz, 30) / 140), np.nan).astype(np.float32)
    speech *= NOMINAL_RMS / max(1e-3, active_rms(speech))
    if not augmented:
        return Segment(speech, phones, feelings, measure_loudness(speech, features), pitch)
    voice_only, mixed = disturb(speech, rng, others=lambda: babble(corpus.samples, corpus.voice_spans, rng, length))
    return Segment(mixed, phones, feelings, measure_loudness(voice_only, features), pitch)


def excerpt(
    recorded: np.ndarray,  # [S] int16
    spans: np.ndarray,  # [n, 2] stretches that are not mixed
    rng: np.random.Generator,
    length: int,
    ratio: float,  # speed
) -> tuple[int, np.ndarray]:
    """Where it starts in `recorded`, and `length` samples from there at this speed."""
    needed = int(np.ceil(length * ratio)) + 64
    start = int(rng.integers(len(recorded)))
    begin, end = spans[int(np.searchsorted(spans[:, 1], start, side="right"))]
    start = int(np.clip(start, begin, max(begin, end - needed)))
    raw = recorded[start : min(start + needed, end)].astype(np.float32) / 32768
    speech = raw if ratio == 1.0 else soxr.resample(raw, SAMPLE_RATE * ratio, SAMPLE_RATE, quality="MQ")
    return start, np.pad(speech, (0, max(0, length - len(speech))))[:length].astype(np.float32)


def disturb(
    speech: np.ndarray,  # [S]
    rng: np.random.Generator,
    others=None,  # () -> [S], other people talking
) -> tuple[np.ndarray, np.ndarray]:  # [S] the voice at its new level, [S] what the microphone gives
    """Another microphone, room, band, noise and level, drawn at random; timing is kept."""
    coloured = _colour(speech, rng)
    if rng.random() < 0.65:
        sound = others() if others is not None and rng.random() < 0.25 else noise(rng, len(speech))
        snr = rng.uniform(6, 40)
        sound = sound * (active_rms(coloured) / max(1e-6, active_rms(sound)) * 10 ** (-snr / 20))
    else:
        sound = np.zeros_like(coloured)
    gain = 10 ** (rng.uniform(-30, 9) / 20) if rng.random() < 0.8 else 1.0
    voice, mixed = coloured * gain, (coloured + sound) * gain
    if rng.random() < 0.12:
        drive = rng.uniform(1, 4) / max(1e-3, np.abs(mixed).max())  # a preamplifier that saturates
        mixed = np.tanh(mixed * drive) / drive
    if rng.random() < 0.1:
        mixed = mixed + rng.uniform(-0.03, 0.03)
    mixed = np.clip(mixed, -1, 1)
    if rng.random() < 0.3:
        mixed = np.round(mixed * 32767) / 32767
    return voice, mixed.astype(np.float32)


def _colour(speech: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A smooth random frequency response, sometimes a band limit or a notch, sometimes a small room: one spectrum product."""
    size = fft.next_fast_len(len(speech) + 8000, real=True)
    frequency = np.fft.rfftfreq(size, 1 / SAMPLE_RATE).astype(np.float32)
    pitch_axis = np.log2(np.maximum(frequency, 40))
    gain_db = np.zeros(len(frequency))
    if rng.random() < 0.8:
        knots = np.linspace(np.log2(40), np.log2(8000), 9)
        gain_db += np.interp(pitch_axis, knots, rng.normal(0, 4.0, 9)) + rng.uniform(-2, 2) * (pitch_axis - 10)
    kind = rng.random()
    if kind < 0.13:
        gain_db += _band(frequency, rng.uniform(200, 350), rng.uniform(3100, 3600))  # telephone
    elif kind < 0.25:
        gain_db += _band(frequency, 20, rng.uniform(2800, 7000))
    elif kind < 0.32:
        gain_db += _band(frequency, rng.uniform(100, 300), 8000)
    if rng.random() < 0.15:
        gain_db -= 25 * np.exp(-0.5 * ((pitch_axis - rng.uniform(8.5, 12.8)) / 0.12) ** 2)
    response = 10 ** (gain_db / 20)
    if rng.random() < 0.4:
        response = response * fft.rfft(room(rng), size)
    spectrum = fft.rfft(speech.astype(np.float32), size) * response.astype(np.complex64)
    return fft.irfft(spectrum, size)[: len(speech)]


def _band(frequency: np.ndarray, low: float, high: float) -> np.ndarray:
    """Decibels of a band-pass with steep skirts."""
    octaves = np.maximum(0, np.log2(low / np.maximum(frequency, 1))) + np.maximum(0, np.log2(np.maximum(frequency, 1) / high))
    return -np.minimum(60, 80 * octaves)


def room(rng: np.random.Generator) -> np.ndarray:
    """Impulse response of a small room: the direct sound, a few early echoes, a decaying tail."""
    seconds = rng.uniform(0.08, 0.5)  # to -60 dB
    time = np.arange(int(min(seconds, 0.45) * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.normal(size=len(time)) * 10 ** (-3 * time / seconds)
    tail[: int(rng.uniform(0.002, 0.01) * SAMPLE_RATE)] = 0
    tail *= rng.uniform(0.1, 0.8) / np.sqrt((tail**2).sum() + 1e-9)
    tail[0] = 1.0
    for _ in range(rng.integers(0, 5)):
        tail[int(rng.uniform(0.002, 0.03) * SAMPLE_RATE)] += rng.uniform(-0.5, 0.5)
    return tail


def noise(rng: np.random.Generator, length: int) -> np.ndarray:
    """Unit-level noise: white to brown, hum, clicks or music-like tones, sometimes swelling."""
    kind = rng.random()
    if kind < 0.65:
        size = fft.next_fast_len(length, real=True)
        spectrum = fft.rfft(rng.standard_normal(size, dtype=np.float32))
        sound = fft.irfft(spectrum * np.maximum(1, np.arange(len(spectrum), dtype=np.float32)) ** -rng.uniform(0, 1), size)[
            :length
        ]
    elif kind < 0.8:
        sound = _music(rng, length)
    elif kind < 0.9:
        time = np.arange(length) / SAMPLE_RATE
        base = rng.choice([50, 60, 100, 120])
        sound = sum(rng.uniform(0, 1) * np.sin(2 * np.pi * base * k * time + rng.uniform(0, 6)) for k in range(1, 9))
    else:
        sound = rng.normal(size=length) * 0.05
        for place in rng.integers(length, size=rng.integers(3, 30)):
            click = rng.normal(size=rng.integers(20, 1200))
            click *= np.exp(-np.arange(len(click)) / (len(click) / 4))
            sound[place : place + len(click)] += click[: length - place]
    if rng.random() < 0.3:
        knots = np.linspace(0, length, 8)
        sound = sound * np.exp(np.interp(np.arange(length), knots, rng.normal(0, 0.8, 8)))
    return sound / (np.sqrt(np.mean(sound**2)) + 1e-9)


def _music(rng: np.random.Generator, length: int) -> np.ndarray:
    """A few voices of decaying harmonic notes."""
    sound = np.zeros(length)
    place = 0
    while place < length:
        span = min(int(rng.uniform(0.12, 0.8) * SAMPLE_RATE), length - place)
        time = np.arange(span) / SAMPLE_RATE
        for _ in range(rng.integers(1, 4)):
            base = 110 * 2 ** (rng.integers(0, 36) / 12)
            rolloff, decay = rng.uniform(0.7, 2.0), rng.uniform(0.5, 8)
            for harmonic in range(1, int(min(10, 7500 / base)) + 1):
                sound[place : place + span] += (
                    harmonic**-rolloff * np.sin(2 * np.pi * base * harmonic * time) * np.exp(-decay * time)
                )
        place += span
    return sound


def no_voice(rng: np.random.Generator, length: int) -> np.ndarray:
    if rng.random() < 0.2:
        return np.zeros(length, np.float32)
    return np.clip(noise(rng, length) * 10 ** (rng.uniform(-65, -12) / 20), -1, 1).astype(np.float32)


def babble(recorded: np.ndarray, spans: np.ndarray, rng: np.random.Generator, length: int) -> np.ndarray:
    """Four people talking at once."""
    return sum(excerpt(recorded, spans, rng, length, 1.0)[1] for _ in range(4))


def active_rms(samples: np.ndarray) -> float:
    """Root mean square over the louder half of 20 ms frames: pauses do not count."""
    whole = len(samples) // FEATURE_HOP * FEATURE_HOP
    if whole == 0:
        return float(np.sqrt(np.mean(np.square(samples)))) if len(samples) else 0.0
    power = np.sort(np.mean(np.square(samples[:whole].reshape(-1, FEATURE_HOP)), axis=1))
    return float(np.sqrt(power[len(power) // 2 :].mean()))


def measure_loudness(samples: np.ndarray, features: int) -> np.ndarray:  # [K] float32
    """Level of each feature's field: (dBFS + 50) / 25, at least -1."""
    padded = np.pad(samples, (0, max(0, features * FEATURE_HOP + FEATURE_FIELD - len(samples))))
    power = (
        np.add.reduceat(np.square(padded[: features * FEATURE_HOP]), np.arange(features) * FEATURE_HOP) / FEATURE_HOP
        if features
        else np.zeros(0)
    )
    return np.maximum(-1, (10 * np.log10(power + 1e-10) + 50) / 25).astype(np.float32)


@lru_cache(maxsize=1)
def _mel_bands() -> np.ndarray:  # [32, 257] float32
    """Triangular bands, 60 to 7,800 Hz."""
    edges = 700 * (10 ** (np.linspace(2595 * np.log10(1 + 60 / 700), 2595 * np.log10(1 + 7800 / 700), MEL_BANDS + 2) / 2595) - 1)
    frequency = np.fft.rfftfreq(512, 1 / SAMPLE_RATE)[None]
    low, centre, high = (edges[i : i + MEL_BANDS, None] for i in range(3))
    return np.clip(np.minimum((frequency - low) / (centre - low), (high - frequency) / (high - centre)), 0, None).astype(
        np.float32
    )
