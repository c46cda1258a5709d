"""How a feeling is heard: melody, pitch, effort, breath, tremor, creak and the shape of the mouth laid over a synthesised voice.

Synthesisers speak every sentence alike; a face whose brows have nothing to do with the sound teaches a network nothing.
The voice is bent by Praat's pitch-synchronous overlap-add, which leaves every phone where it was. Knows sound and phones;
knows no face. Only home of parselmouth. Cues after Scherer (2003), "Vocal communication of emotion"; lasting settings of the
mouth after Laver (1980), "The phonetic description of voice quality". The settings are what a listener knows a feeling by who
does not know the speaker: with pitch, rate, melody and tilt alone, joy, disgust and contempt passed for plain speech.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import soxr
from scipy import fft
from scipy.ndimage import gaussian_filter1d

from ..config import SAMPLE_RATE
from ..errors import InputError
from .voices import SILENCE, Utterance, Voice, synthesise

PITCH_FLOOR, PITCH_CEILING = 60.0, 500.0  # Hz
PITCH_HOP = 160  # samples between two values of `track_pitch`
TREMOR_HZ = 5.5
TILT_CORNER = 400.0  # Hz: above it the spectrum leans
# What a lasting setting of the mouth (Laver 1980) does to the spectrum of every sound: bands of (Hz, width in octaves, dB).
SETTINGS: dict[str, tuple[tuple[float, float, float], ...]] = {
    "nasality": ((280.0, 0.35, 5.0), (620.0, 0.28, -16.0), (1050.0, 0.22, 5.0)),  # the nose's resonances and the gap between
    "spread": ((1500.0, 0.3, -11.0), (3000.0, 0.3, 11.0)),  # spread lips: a short front cavity rings higher
    "constriction": ((850.0, 0.25, 8.0), (2200.0, 0.35, -16.0)),  # a narrow throat: first and second formants draw together
    "rounding": ((500.0, 0.3, 7.0), (1200.0, 0.3, -15.0), (3400.0, 0.3, -8.0)),  # protruded lips: a long front cavity
}


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
    formants: float = 1.0  # times the voice's own: a smile shortens the mouth, a raised tongue root narrows the throat
    creak: float = 0.0  # how much weaker every other period is, 0..1: a voice that rattles
    nasality: float = 0.0  # 1: through the nose; with the next three, shares of `SETTINGS`
    spread: float = 0.0
    constriction: float = 0.0
    rounding: float = 0.0

    def at(self, strength: float) -> Delivery:
        """The same feeling weaker or stronger; 0 is plain speech."""
        factors = {name: getattr(self, name) ** strength for name in ("rate", "pitch", "melody", "dynamics", "formants")}
        added = ("lilt", "rise", "tilt", "tremor", "roughness", "breath", "creak", *SETTINGS)
        terms = {name: getattr(self, name) * strength for name in added}
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
    samples = _lean_spectrum(samples, delivery)
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
    """Pitch-synchronous overlap-add along a new melody. Formants move by playing faster, at the old pitch and length."""
    parselmouth = _praat()
    call = parselmouth.praat.call
    samples, faster = utterance.samples.astype(np.float64), delivery.formants
    spoken = [p for p in utterance.phones if p.symbol != SILENCE]
    if not spoken:
        return samples
    played = samples if faster == 1.0 else soxr.resample(samples, SAMPLE_RATE * faster, SAMPLE_RATE)
    seconds = len(played) / SAMPLE_RATE
    manipulation = call(parselmouth.Sound(played, SAMPLE_RATE), "To Manipulation", 0.01, PITCH_FLOOR, PITCH_CEILING)
    tier = call(manipulation, "Extract pitch tier")
    count = call(tier, "Get number of points")
    if count == 0:
        return samples
    places = np.array([call(tier, "Get time from index", i + 1) for i in range(count)])
    times = places * faster  # in the utterance
    octaves = np.log2([call(tier, "Get value at index", i + 1) for i in range(count)]) - np.log2(faster)
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
    hertz = np.clip(2.0**bent, PITCH_FLOOR, PITCH_CEILING)
    melody = call("Create PitchTier", "melody", 0, seconds)
    for place, value in zip(places, hertz):
        call(melody, "Add point", float(place), float(value))
    call([manipulation, melody], "Replace pitch tier")
    if faster != 1.0:
        duration = call("Create DurationTier", "duration", 0, seconds)
        call(duration, "Add point", seconds / 2, faster)
        call([manipulation, duration], "Replace duration tier")
    found = call(manipulation, "Get resynthesis (overlap-add)").values[0]
    found = np.pad(found, (0, max(0, len(samples) - len(found))))[: len(samples)]
    return found * _rattle(times, hertz, len(found), delivery.creak)


def _rattle(times: np.ndarray, hertz: np.ndarray, count: int, creak: float) -> np.ndarray | float:
    """The gain of a voice whose every other period is weaker; 1 without creak."""
    if creak <= 0.0:
        return 1.0
    phase = 2 * np.pi * np.cumsum(np.interp(np.arange(count) / SAMPLE_RATE, times, hertz)) / SAMPLE_RATE
    return 1.0 - min(1.0, creak) * (0.5 - 0.5 * np.cos(phase / 2))


def _stress(samples: np.ndarray, times: np.ndarray) -> np.ndarray:
    """How much louder than its neighbourhood the voice is at these seconds, in units of its own spread, -1.5 to 2."""
    level = np.log(gaussian_filter1d(samples**2, sigma=0.05 * SAMPLE_RATE)[:: SAMPLE_RATE // 100] + 1e-6)
    at = np.clip(np.round(times * 100).astype(int), 0, len(level) - 1)
    return np.clip((level[at] - level[at].mean()) / (level[at].std() + 1e-3), -1.5, 2.0)


def _lean_spectrum(samples: np.ndarray, delivery: Delivery) -> np.ndarray:
    if not any(getattr(delivery, name) for name in ("tilt", *SETTINGS)):
        return samples
    size = fft.next_fast_len(len(samples) + 1024, real=True)
    hertz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    gain_db = delivery.tilt * np.log2(np.maximum(hertz, TILT_CORNER) / TILT_CORNER)
    for name, bands in SETTINGS.items():
        for centre, width, gain in bands:
            away = np.log2(np.maximum(hertz, 20.0) / centre) / width
            gain_db += getattr(delivery, name) * gain * np.exp(-0.5 * away**2)
    return fft.irfft(fft.rfft(samples, size) * 10 ** (gain_db / 20), size)[: len(samples)]


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
