"""A voice's face, as rig coefficients: visemes with coarticulation, brows on accents, emotion in the melody.

Knows phones, prosody and coefficients; knows no mesh and no picture. The truth that the speech path learns from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter1d

from ..action_units import AU_NAMES, MAX_INTENSITY, NUM_AUS, SPEECH_AUS
from ..config import SAMPLE_RATE
from .blendshapes import RIG_CHANNELS, VISEMES
from .delivery import Delivery, speak
from .voices import SILENCE, Phone, Utterance, Voice, pad_with_silence

GRID = 100  # Hz, the clock on which curves are drawn before they are sampled at the motion rate


@dataclass(frozen=True)
class Performance:
    """What the rig does while an utterance is spoken; frame i is the pose at i / fps."""

    fps: float
    values: np.ndarray  # [T, C] float32: AUs 0..5 (negative where an edit holds a viseme back), visemes 0..1, gaze radians
    channels: tuple[str, ...]
    phones: tuple[Phone, ...]
    samples: np.ndarray  # [S] float32 at 16 kHz
    voice: str
    text: str
    kind: str = "performed"  # or "counterfactual": the same sound under other AUs
    emotion: str = "neutral"


@dataclass(frozen=True)
class Emotion:
    """How an emotion sounds and looks (AU intensities), at strength 1."""

    delivery: Delivery
    aus: Mapping[str, float]


# Looks after FACS (Ekman, Friesen and Hager 2002, the prototypes of the emotions), sounds after Scherer (2003) and Laver (1980):
# joy with spread lips, surprise with round ones, disgust with a narrow throat, contempt through the nose.
EMOTIONS: dict[str, Emotion] = {
    "neutral": Emotion(Delivery(), {}),
    "happy": Emotion(
        Delivery(1.12, 1.28, 1.6, lilt=0.3, rise=0.1, tilt=1.0, dynamics=1.1, formants=1.06, spread=1.0),
        {"AU06": 2.4, "AU12": 3.0},
    ),
    "sad": Emotion(
        Delivery(0.75, 0.88, 0.4, rise=-0.25, tilt=-5.0, dynamics=0.75, breath=0.2),
        {"AU01": 2.8, "AU04": 1.9, "AU15": 2.6, "AU17": 2.2},
    ),
    "angry": Emotion(
        Delivery(1.12, 1.0, 1.2, rise=-0.25, tilt=6.0, dynamics=1.5, roughness=0.08), {"AU04": 3.2, "AU07": 2.4, "AU23": 2.4}
    ),
    "fearful": Emotion(
        Delivery(1.2, 1.45, 0.7, tilt=0.5, tremor=0.16, breath=0.12), {"AU01": 2.8, "AU02": 2.4, "AU04": 2.0, "AU05": 2.8}
    ),
    "disgusted": Emotion(
        Delivery(0.85, 0.8, 0.8, rise=-0.1, tilt=1.5, dynamics=1.2, roughness=0.1, formants=0.95, creak=0.7, constriction=1.0),
        {"AU09": 2.9, "AU10": 2.4},
    ),
    "surprised": Emotion(
        Delivery(0.95, 1.35, 1.6, lilt=0.1, rise=1.1, tilt=1.0, dynamics=1.2, formants=0.96, rounding=1.0),
        {"AU01": 2.6, "AU02": 3.0, "AU05": 2.4},
    ),
    "contemptuous": Emotion(Delivery(0.85, 0.85, 0.3, rise=-0.4, tilt=-1.0, nasality=1.3), {"AU14": 2.8, "AU07": 1.8}),
}
_NEUTRAL_SHARE = 0.3  # of what is acted without a feeling


@dataclass(frozen=True)
class _Gesture:
    """One articulatory target: where in the phone it is held, how strongly it rules, how fast it gives way."""

    visemes: Mapping[str, float]
    strength: float = 1.0  # dominance over the neighbours
    hold: tuple[float, float] = (0.25, 0.75)  # the part of the phone in which it is reached
    release_seconds: float = 0.055  # dominance falls to 1/e
    lead_seconds: float = 0.0  # lips and tongue are there before the sound


def _vowel(**visemes: float) -> tuple[_Gesture, ...]:
    return (_Gesture(visemes),)


def _diphthong(first: Mapping[str, float], second: Mapping[str, float]) -> tuple[_Gesture, ...]:
    return (_Gesture(first, hold=(0.15, 0.45)), _Gesture(second, hold=(0.7, 0.9)))


def _consonant(strength: float = 0.8, **visemes: float) -> tuple[_Gesture, ...]:
    return (_Gesture(visemes, strength, hold=(0.2, 0.7), release_seconds=0.04, lead_seconds=0.01),)


# A closure is not negotiable: the lips meet whatever the neighbours want, before the sound is heard.
_BILABIAL = (_Gesture({"PP": 1.0}, strength=14.0, hold=(0.0, 0.6), release_seconds=0.012, lead_seconds=0.015),)
_LABIODENTAL = (_Gesture({"FF": 1.0}, strength=8.0, hold=(0.1, 0.7), release_seconds=0.014, lead_seconds=0.015),)

GESTURES: dict[str, tuple[_Gesture, ...]] = {
    "aa": _vowel(aa=1.0), "ae": _vowel(aa=0.65, E=0.35), "ah": _vowel(aa=0.6), "ax": _vowel(aa=0.3, E=0.2), "ao": _vowel(oh=0.95),
    "eh": _vowel(E=0.9), "ih": _vowel(ih=0.75), "iy": _vowel(ih=1.0), "uh": _vowel(ou=0.55, oh=0.25), "uw": _vowel(ou=1.0),
    "er": _vowel(RR=0.85),
    "aw": _diphthong({"aa": 0.95}, {"ou": 0.75}), "ay": _diphthong({"aa": 0.95}, {"ih": 0.6}), "ey": _diphthong({"E": 0.9}, {"ih": 0.7}),
    "ow": _diphthong({"oh": 0.95}, {"ou": 0.75}), "oy": _diphthong({"oh": 0.95}, {"ih": 0.6}),
    "p": _BILABIAL, "b": _BILABIAL, "m": _BILABIAL, "f": _LABIODENTAL, "v": _LABIODENTAL,
    "th": _consonant(2.0, TH=1.0), "dh": _consonant(1.2, TH=0.9),
    "t": _consonant(DD=0.9), "d": _consonant(DD=0.9), "n": _consonant(nn=0.85), "l": _consonant(nn=0.85),
    "s": _consonant(2.0, SS=1.0), "z": _consonant(2.0, SS=1.0),
    "sh": _consonant(3.0, CH=1.0), "zh": _consonant(3.0, CH=1.0), "ch": _consonant(3.0, CH=1.0), "jh": _consonant(3.0, CH=1.0),
    "k": _consonant(0.4, kk=0.8), "g": _consonant(0.4, kk=0.8), "ng": _consonant(0.4, kk=0.8), "hh": _consonant(0.1, kk=0.5),
    "r": _consonant(1.5, RR=1.0), "w": _consonant(4.0, ou=1.0), "y": _consonant(0.8, ih=0.8),
}  # fmt: skip


def act(
    text: str,
    voice: Voice,
    rng: np.random.Generator,
    *,
    fps: float = 25.0,
    before: tuple[float, float] = (0.2, 0.9),  # seconds of silence, drawn between
    after: tuple[float, float] = (0.3, 1.2),
) -> Performance:
    """`text` spoken in a drawn feeling of a drawn strength, in the voice's own and a slightly varied manner."""
    feeling, strength = draw_feeling(rng)
    manner = EMOTIONS[feeling].delivery.at(strength)
    # Whose voice it is says nothing of how it feels: rate and pitch vary as they do from one person to the next.
    manner = replace(manner, rate=manner.rate * rng.uniform(0.88, 1.12), pitch=manner.pitch * np.exp(rng.uniform(-0.18, 0.18)))
    spoken = pad_with_silence(speak(text, voice, manner, rng), float(rng.uniform(*before)), float(rng.uniform(*after)))
    return perform(spoken, emotion=feeling, strength=strength, fps=fps)


def draw_feeling(rng: np.random.Generator) -> tuple[str, float]:
    """An emotion and its strength; often none."""
    names = tuple(EMOTIONS)
    feeling = "neutral" if rng.random() < _NEUTRAL_SHARE else names[rng.integers(1, len(names))]
    return feeling, float(rng.uniform(0.7, 1.2))


def perform(utterance: Utterance, *, emotion: str = "neutral", strength: float = 1.0, fps: float = 25.0) -> Performance:
    """The face of an utterance: coarticulated visemes, accents on the brows, the emotion's AUs with the voice's arousal."""
    duration = len(utterance.samples) / SAMPLE_RATE
    ticks = np.arange(int(np.ceil(duration * GRID)) + 1) / GRID
    loudness = _loudness(utterance.samples, len(ticks))
    values = np.zeros((len(ticks), len(RIG_CHANNELS)))
    values[:, NUM_AUS : NUM_AUS + len(VISEMES)] = _visemes(utterance.phones, ticks, loudness)
    values[:, :NUM_AUS] = _expression(utterance, ticks, loudness, emotion, strength)
    return Performance(
        fps, _sample(values, ticks, duration, fps), RIG_CHANNELS, utterance.phones, utterance.samples, utterance.voice, utterance.text,
        emotion=emotion,
    )  # fmt: skip


def counterfactual(performance: Performance, viseme_aus: Mapping[str, Mapping[str, float]], seed: int) -> Performance:
    """The same sound under AUs that have nothing to do with it, so that a network learns to obey the codes.

    Speech AUs are also scaled up and held back around what the visemes show; the sum stays within 0..5.
    """
    rng = np.random.default_rng(seed)
    frames = len(performance.values)
    visemes = performance.values[:, NUM_AUS : NUM_AUS + len(VISEMES)]
    shown = np.clip(visemes @ viseme_matrix(viseme_aus), 0.0, MAX_INTENSITY)  # [T, 17]
    wanted = np.maximum(_random_tracks(frames, performance.fps, rng), shown)
    for name in SPEECH_AUS:
        column = AU_NAMES.index(name)
        if rng.random() < 0.5:
            gain = _random_curve(frames, performance.fps, rng, lambda: rng.uniform(0.0, 1.6))
            wanted[:, column] = np.clip(shown[:, column] * gain, 0.0, MAX_INTENSITY)
    values = performance.values.copy()
    values[:, :NUM_AUS] = wanted - shown
    return replace(performance, values=values.astype(np.float32), kind="counterfactual", emotion="none")


def au_codes(
    values: np.ndarray,  # [T, C]
    viseme_aus: Mapping[str, Mapping[str, float]],
) -> np.ndarray:  # [T, 17] float32, 0..5
    """What an observer would code: the AU channels plus what each viseme shows of an AU."""
    visemes = values[:, NUM_AUS : NUM_AUS + len(VISEMES)]
    return np.clip(values[:, :NUM_AUS] + visemes @ viseme_matrix(viseme_aus), 0.0, MAX_INTENSITY).astype(np.float32)


def viseme_matrix(viseme_aus: Mapping[str, Mapping[str, float]]) -> np.ndarray:  # [14, 17]
    matrix = np.zeros((len(VISEMES), NUM_AUS))
    for row, viseme in enumerate(VISEMES):
        for name, intensity in viseme_aus.get(viseme, {}).items():
            matrix[row, AU_NAMES.index(name)] = intensity
    return matrix


def speech_activity(phones: tuple[Phone, ...], frames: int, fps: float) -> np.ndarray:  # [T] 0 or 1
    """1 while a phone sounds, at each motion frame."""
    times = np.arange(frames) / fps
    active = np.zeros(frames, dtype=np.float32)
    for phone in phones:
        if phone.symbol != SILENCE:
            active[(times >= phone.start) & (times < phone.end)] = 1.0
    return active


def _visemes(phones: tuple[Phone, ...], ticks: np.ndarray, loudness: np.ndarray) -> np.ndarray:  # [ticks, 14]
    """Cohen and Massaro's coarticulation: every target rules by its dominance, which decays away from its hold."""
    weighted, total = np.zeros((len(ticks), len(VISEMES))), np.zeros(len(ticks))
    for phone in phones:
        for gesture in _gestures_of(phone):
            length = phone.end - phone.start
            start = phone.start + gesture.hold[0] * length - gesture.lead_seconds
            end = phone.start + gesture.hold[1] * length
            if gesture.strength > 5.0:  # a closure must survive the sampling at 25 frames a second
                end = max(end, start + 0.05)
            away = np.maximum(0.0, np.maximum(start - ticks, ticks - end))
            dominance = gesture.strength * np.exp(-((away / gesture.release_seconds) ** 1.3))
            total += dominance
            for viseme, weight in gesture.visemes.items():
                weighted[:, VISEMES.index(viseme)] += dominance * weight
    visemes = weighted / np.maximum(total, 1e-6)[:, None]
    vowels = [VISEMES.index(name) for name in ("aa", "E", "ih", "oh", "ou")]
    visemes[:, vowels] *= (0.82 + 0.25 * loudness)[:, None]  # louder is wider, but the phone decides
    return np.clip(gaussian_filter1d(visemes, sigma=0.012 * GRID, axis=0), 0.0, 1.0)


def _gestures_of(phone: Phone) -> tuple[_Gesture, ...]:
    if phone.symbol != SILENCE:
        return GESTURES.get(phone.symbol, GESTURES["ax"])
    length = max(phone.end - phone.start, 1e-3)
    # A breath between words hardly closes the mouth; a pause is a rest, reached 80 ms after the last sound.
    margin = min(0.08 / length, 0.35)
    return (_Gesture({}, strength=1.2 if length > 0.15 else 0.4, hold=(margin, 1 - margin * 0.75), release_seconds=0.05),)


def _expression(utterance: Utterance, ticks: np.ndarray, loudness: np.ndarray, emotion: str, strength: float) -> np.ndarray:
    """AU channels [ticks, 17]: the emotion with the arousal of the voice, and brows that rise on accents.

    A feeling comes with the voice that carries it and fades after the last word: before it speaks, nobody can hear it.
    """
    tracks = np.zeros((len(ticks), NUM_AUS))
    arousal = 0.65 + 0.45 * gaussian_filter1d(loudness, sigma=0.4 * GRID)
    spoken = [phone for phone in utterance.phones if phone.symbol != SILENCE]
    if spoken:
        into, out_of = (ticks - spoken[0].start) / 0.6, (spoken[-1].end + 0.6 - ticks) / 0.6
        presence = np.clip(np.minimum(into, out_of), 0.0, 1.0) * np.clip((ticks[-1] - ticks) / 0.2, 0.0, 1.0)
        for name, intensity in EMOTIONS[emotion].aus.items():
            tracks[:, AU_NAMES.index(name)] += strength * intensity * arousal * presence
    accent = _accents(utterance.samples, len(ticks), loudness)
    tracks[:, AU_NAMES.index("AU01")] += 1.3 * accent
    tracks[:, AU_NAMES.index("AU02")] += 1.6 * accent
    return np.clip(tracks, 0.0, MAX_INTENSITY)


def _loudness(samples: np.ndarray, ticks: int) -> np.ndarray:  # [ticks] 0..1, relative to the utterance's loud parts
    """RMS in 30 ms windows on a scale of 40 dB below the 95th percentile."""
    window = int(0.03 * SAMPLE_RATE)
    squares = np.concatenate(([0.0], np.cumsum(np.pad(samples.astype(np.float64), (window // 2, window)) ** 2)))
    starts = np.minimum((np.arange(ticks) * SAMPLE_RATE) // GRID, len(squares) - 1 - window)
    decibels = 10 * np.log10((squares[starts + window] - squares[starts]) / window + 1e-9)
    return np.clip((decibels - (np.percentile(decibels, 95) - 40)) / 40, 0.0, 1.0)


def _accents(samples: np.ndarray, ticks: int, loudness: np.ndarray) -> np.ndarray:  # [ticks] about 0..1.5
    """Where the melody peaks: pitch well above the utterance's own, on a loud syllable."""
    window, hop = int(0.04 * SAMPLE_RATE), SAMPLE_RATE // GRID
    padded = np.pad(samples, (window // 2, window))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[: ticks * hop : hop][:ticks]
    spectrum = np.fft.rfft(frames * np.hanning(window), n=2 * window)
    autocorrelation = np.fft.irfft(np.abs(spectrum) ** 2)[:, :window]
    lags = slice(SAMPLE_RATE // 400, SAMPLE_RATE // 70)
    periodicity = autocorrelation[:, lags] / np.maximum(autocorrelation[:, :1], 1e-9)
    voiced = (periodicity.max(axis=1) > 0.4) & (loudness[: len(frames)] > 0.4)
    pitch = np.log(SAMPLE_RATE / (periodicity.argmax(axis=1) + lags.start))
    if voiced.sum() < 10:
        return np.zeros(ticks)
    centre, spread = np.median(pitch[voiced]), max(pitch[voiced].std(), 0.05)
    height = np.where(voiced, np.clip((pitch - centre) / spread - 0.7, 0.0, 2.0), 0.0)
    smooth = gaussian_filter1d(np.pad(height, (0, ticks - len(height))), sigma=0.09 * GRID)
    return np.clip(smooth, 0.0, 1.5)


def _random_tracks(frames: int, fps: float, rng: np.random.Generator) -> np.ndarray:  # [T, 17] 0..5
    """A few AUs at a time, held for a while: single muscles, emotions and mixtures, with blinks on top."""
    prototypes = [emotion.aus for emotion in EMOTIONS.values() if emotion.aus]

    def draw() -> np.ndarray:
        target = np.zeros(NUM_AUS)
        kind = rng.random()
        if kind < 0.25:
            for name, intensity in prototypes[rng.integers(len(prototypes))].items():
                target[AU_NAMES.index(name)] = min(MAX_INTENSITY, intensity * rng.uniform(0.3, 2.0))
        elif kind < 0.9:
            chosen = rng.choice(NUM_AUS, size=rng.integers(1, 5), replace=False)
            target[chosen] = rng.uniform(0.3, MAX_INTENSITY, size=len(chosen))
        return target

    tracks = _random_curve(frames, fps, rng, draw)
    blink = np.zeros(frames)
    for start in np.cumsum(rng.uniform(1.0, 4.0, size=int(frames / fps) + 1)):
        phase = (np.arange(frames) / fps - start) / rng.uniform(0.16, 0.3)
        blink = np.maximum(blink, MAX_INTENSITY * np.clip(np.minimum(phase / 0.35, (1 - phase) / 0.5), 0.0, 1.0))
    tracks[:, AU_NAMES.index("AU45")] = np.maximum(tracks[:, AU_NAMES.index("AU45")], blink)
    return tracks


def _random_curve(frames: int, fps: float, rng: np.random.Generator, draw) -> np.ndarray:  # [T, ...]
    """Targets from `draw()` held for 0.3 to 2 s, with cosine passages of 0.12 to 0.5 s between."""
    current = np.asarray(draw(), dtype=np.float64)
    curve = np.empty((frames,) + current.shape)
    position = 0
    while position < frames:
        following = np.asarray(draw(), dtype=np.float64)
        hold, passage = (max(1, round(rng.uniform(*span) * fps)) for span in ((0.3, 2.0), (0.12, 0.5)))
        ease = 0.5 - 0.5 * np.cos(np.pi * np.arange(1, passage + 1) / passage)
        ease = ease.reshape((-1,) + (1,) * current.ndim)
        piece = np.concatenate((np.broadcast_to(current, (hold,) + current.shape), current + ease * (following - current)))
        length = min(len(piece), frames - position)
        curve[position : position + length] = piece[:length]
        position, current = position + length, following
    return curve


def _sample(values: np.ndarray, ticks: np.ndarray, duration: float, fps: float) -> np.ndarray:  # [T, C] float32
    times = np.arange(int(np.ceil(round(duration * fps, 6)))) / fps
    position = np.clip(times * GRID, 0, len(ticks) - 1.000001)
    index = position.astype(int)
    share = (position - index)[:, None]
    return ((1 - share) * values[index] + share * values[np.minimum(index + 1, len(ticks) - 1)]).astype(np.float32)
