"""How a feeling is heard: melody, pitch, effort, breath and tremor laid over a synthesised voice.

Synthesisers speak every sentence alike; a face whose brows have nothing to do with the sound teaches a network nothing.
The voice is bent by Praat's pitch-synchronous overlap-add, which leaves every phone where it was. Knows sound and phones;
knows no face. Only home of parselmouth. Cues after Scherer (2003), "Vocal communication of emotion".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import fft
from scipy.ndimage import gaussian_filter1d

from ..config import SAMPLE_RATE
from ..errors import InputError
from .voices import SILENCE, Utterance, Voice, synthesise

PITCH_FLOOR, PITCH_CEILING = 60.0, 500.0  # Hz
PITCH_HOP = 160  # samples between two values of `track_pitch`
TREMOR_HZ = 5.5
TILT_CORNER = 400.0  # Hz: above it the spectrum leans


@dataclass(frozen=True)
class Delivery:
    """What a feeling does to a voice; the defaults do nothing."""

    rate: float = 1.0  # times the voice's own
    pitch: float = 1.0  # times the voice's own
    melody: float = 1.0  # times the excursions of its pitch, in octaves
    lilt: float = 0.0  # octaves by which loud syllables stand above soft ones: a monotonous voice has no melody to widen
    rise: float = 0.0  # octaves from the first to the last word
    tilt: float = 0.0  # dB an octave above 400 Hz: pressed and bright, or soft and dull
    dynamics: float = 1.0  # exponent on the loudness of syllables
    tremor: float = 0.0  # octaves of pitch, 5.5 times a second
    roughness: float = 0.0  # octaves of pitch, from period to period
    breath: float = 0.0  # air beside the voice, as a share of its level

    def at(self, strength: float) -> Delivery:
        """The same feeling weaker or stronger; 0 is plain speech."""
        factors = {name: getattr(self, name) ** strength for name in ("rate", "pitch", "melody", "dynamics")}
        terms = {name: getattr(self, name) * strength for name in ("lilt", "rise", "tilt", "tremor", "roughness", "breath")}
        return replace(self, **factors, **terms)


def speak(text: str, voice: Voice, delivery: Delivery, rng: np.random.Generator) -> Utterance:
    """`text` in this voice and manner; `InputError` where synthesiser or parselmouth is not installed."""
    spoken = synthesise(text, voice, rate=delivery.rate)
    return deliver(spoken, delivery, rng)


def deliver(utterance: Utterance, delivery: Delivery, rng: np.random.Generator) -> Utterance:
    """The same words at the same times with another voice quality; the rate, which the synthesiser obeys, is not touched."""
    if len(utterance.samples) < SAMPLE_RATE // 8:
        return utterance  # shorter than a syllable: there is nothing to bend
    samples = _bend_pitch(utterance, delivery, rng)
    samples = _lean_spectrum(samples, delivery.tilt)
    samples = _shape_loudness(samples, delivery.dynamics)
    samples = _add_breath(samples, delivery.breath, rng)
    level = np.sqrt(np.mean(utterance.samples**2)) / max(1e-6, np.sqrt(np.mean(samples**2)))
    samples *= min(level, 0.98 / max(1e-6, np.abs(samples).max()))
    return replace(utterance, samples=samples.astype(np.float32))


def track_pitch(
    samples: np.ndarray,  # [S] int16 or float -1..1
) -> np.ndarray:  # [S / 160] float16 Hz, 0 where unvoiced
    """Pitch at 100 values a second, value k at sample 160 k, by Praat's autocorrelation method (Boersma 1993)."""
    parselmouth = _praat()
    count = len(samples) // PITCH_HOP
    sound = samples.astype(np.float64) / (32768 if samples.dtype == np.int16 else 1)
    result = np.zeros(count, np.float16)
    for first in range(0, count, 6000):  # a minute at a time: memory, not accuracy
        piece = sound[first * PITCH_HOP : (first + 6000) * PITCH_HOP]
        if len(piece) < SAMPLE_RATE // 8:
            break
        pitch = parselmouth.Sound(piece, SAMPLE_RATE).to_pitch_ac(
            time_step=PITCH_HOP / SAMPLE_RATE, pitch_floor=PITCH_FLOOR, pitch_ceiling=PITCH_CEILING
        )
        place = round(pitch.x1 * SAMPLE_RATE / PITCH_HOP) + np.arange(pitch.nx)
        inside = place < len(piece) // PITCH_HOP
        result[first + place[inside]] = pitch.selected_array["frequency"][inside]
    return result


def _praat():
    try:
        import parselmouth
    except ImportError as error:
        raise InputError("parselmouth, which bends voices, is not installed; run: pip install 'avatar-viewer[studio]'") from error
    return parselmouth


def _bend_pitch(utterance: Utterance, delivery: Delivery, rng: np.random.Generator) -> np.ndarray:
    parselmouth = _praat()
    call = parselmouth.praat.call
    samples = utterance.samples.astype(np.float64)
    spoken = [p for p in utterance.phones if p.symbol != SILENCE]
    if not spoken:
        return samples
    manipulation = call(parselmouth.Sound(samples, SAMPLE_RATE), "To Manipulation", 0.01, PITCH_FLOOR, PITCH_CEILING)
    tier = call(manipulation, "Extract pitch tier")
    count = call(tier, "Get number of points")
    if count == 0:
        return samples
    times = np.array([call(tier, "Get time from index", i + 1) for i in range(count)])
    octaves = np.log2([call(tier, "Get value at index", i + 1) for i in range(count)])
    centre = np.median(octaves)
    progress = np.clip((times - spoken[0].start) / max(0.1, spoken[-1].end - spoken[0].start), 0, 1)
    bent = (
        centre
        + np.log2(delivery.pitch)
        + (octaves - centre) * delivery.melody
        + delivery.lilt * _stress(samples, times)
        + delivery.rise * (progress - 0.5)
        + delivery.tremor * np.sin(2 * np.pi * (TREMOR_HZ * times + rng.random()))
        + delivery.roughness * rng.standard_normal(count)
    )
    melody = call("Create PitchTier", "melody", 0, len(samples) / SAMPLE_RATE)
    for time, value in zip(times, np.clip(2.0**bent, PITCH_FLOOR, PITCH_CEILING)):
        call(melody, "Add point", float(time), float(value))
    call([manipulation, melody], "Replace pitch tier")
    found = call(manipulation, "Get resynthesis (overlap-add)").values[0]
    return np.pad(found, (0, max(0, len(samples) - len(found))))[: len(samples)]


def _stress(samples: np.ndarray, times: np.ndarray) -> np.ndarray:
    """How much louder than its neighbourhood the voice is at these seconds, in units of its own spread, -1.5 to 2."""
    level = np.log(gaussian_filter1d(samples**2, sigma=0.05 * SAMPLE_RATE)[:: SAMPLE_RATE // 100] + 1e-6)
    at = np.clip(np.round(times * 100).astype(int), 0, len(level) - 1)
    return np.clip((level[at] - level[at].mean()) / (level[at].std() + 1e-3), -1.5, 2.0)


def _lean_spectrum(samples: np.ndarray, tilt: float) -> np.ndarray:
    if tilt == 0.0:
        return samples
    size = fft.next_fast_len(len(samples) + 1024, real=True)
    octaves = np.log2(np.maximum(np.fft.rfftfreq(size, 1 / SAMPLE_RATE), TILT_CORNER) / TILT_CORNER)
    return fft.irfft(fft.rfft(samples, size) * 10 ** (tilt * octaves / 20), size)[: len(samples)]


def _shape_loudness(samples: np.ndarray, dynamics: float) -> np.ndarray:
    if dynamics == 1.0:
        return samples
    envelope = _envelope(samples)
    reference = np.percentile(envelope, 90) + 1e-6
    gain = np.clip(envelope / reference, 0.05, 2.0) ** (dynamics - 1.0)
    return samples * gain


def _add_breath(samples: np.ndarray, breath: float, rng: np.random.Generator) -> np.ndarray:
    if breath <= 0.0:
        return samples
    air = np.diff(rng.standard_normal(len(samples) + 1))  # a first difference leans towards the highs, as breath does
    return samples + breath * _envelope(samples) * air / np.sqrt(2.0)


def _envelope(samples: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(gaussian_filter1d(samples**2, sigma=0.02 * SAMPLE_RATE), 0.0))
