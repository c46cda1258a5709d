"""Synthesised speech with known phone times: flite (recorded-unit voices) and espeak-ng (formant voices).

Knows the two synthesisers and their phone sets, which it maps to ARPAbet in lower case with `pau` for silence;
knows nothing of faces. Both are programs of the system: Debian's `flite` and `espeak-ng`.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
import soxr

from ..config import SAMPLE_RATE
from ..errors import InputError

SILENCE = "pau"


@dataclass(frozen=True)
class Phone:
    start: float  # seconds
    end: float
    symbol: str  # ARPAbet in lower case, or `pau`


@dataclass(frozen=True)
class Utterance:
    samples: np.ndarray  # [S] float32 at 16 kHz
    phones: tuple[Phone, ...]  # without gaps, from 0 to the end
    voice: str
    text: str


@dataclass(frozen=True)
class Voice:
    engine: str  # "flite" or "espeak"
    name: str  # flite: "slt"; espeak: "en-us+f2"

    @property
    def label(self) -> str:
        return f"{self.engine}:{self.name}"


# Held out are a recorded-unit speaker and three formant voices: nothing that trains may speak with them.
TEST_VOICES: tuple[Voice, ...] = (
    Voice("flite", "kal16"),
    Voice("espeak", "en+f4"),
    Voice("espeak", "en-us+m7"),
    Voice("espeak", "en-us+klatt3"),
)
TRAIN_VOICES: tuple[Voice, ...] = tuple(Voice("flite", name) for name in ("slt", "rms", "awb")) + tuple(
    Voice("espeak", name)
    for name in (
        "en-us", "en-us+f1", "en-us+f2", "en-us+f3", "en-us+f5", "en-us+m1", "en-us+m2", "en-us+m3", "en-us+m4",
        "en-us+m5", "en-us+m6", "en-us+m8", "en-us+klatt", "en-us+klatt2", "en-us+Annie", "en-us+Alex", "en-us+Andy",
        "en-us+linda", "en-us+steph", "en-us+benjamin", "en-us+belinda", "en-us+max", "en-us+victor", "en-us+aunty",
        "en-us+michael", "en-us+robert", "en-us+zac", "en+f2", "en+m3", "en+Lee", "en-gb-scotland+m2",
        "en-gb-x-rp+f3", "en-gb-x-gbclan+m5",
    )
)  # fmt: skip

_ESPEAK_TO_ARPABET = {
    "p": "p", "b": "b", "t": "t", "t#": "d", "d": "d", "k": "k", "g": "g", "f": "f", "v": "v", "T": "th", "D": "dh",
    "s": "s", "z": "z", "S": "sh", "Z": "zh", "h": "hh", "x": "hh", "m": "m", "n": "n", "N": "ng", "l": "l", "L": "l",
    "r": "r", "R": "r", "j": "y", "w": "w", "tS": "ch", "dZ": "jh", "?": SILENCE,
    "a": "ae", "a#": "ax", "aa": "ae", "A": "aa", "A:": "aa", "A@": "aa", "V": "ah", "@": "ax", "@L": "l", "3": "er", "3:": "er",
    "E": "eh", "e": "eh", "eI": "ey", "e:": "ey", "E@": "eh", "e@": "eh", "i": "iy", "i:": "iy", "i@": "iy", "I": "ih", "I#": "ih",
    "O": "ao", "O:": "ao", "O@": "ao", "o@": "ao", "0": "aa", "0#": "ax", "o": "ow", "o:": "ow", "oU": "ow",
    "U": "uh", "u": "uw", "u:": "uw", "U@": "uh", "aI": "ay", "aI@": "ay", "aU": "aw", "aU@": "aw", "OI": "oy",
}  # fmt: skip
_FLITE_TO_ARPABET = {"el": "l", "em": "m", "en": "n", "axr": "er", "ih0": "ih", "nx": "n", "dx": "d", "hv": "hh", "q": SILENCE}


def synthesise(
    text: str,
    voice: Voice,
    *,
    rate: float = 1.0,  # times the voice's own speed
) -> Utterance:
    """`text` spoken, with the time of every phone; `InputError` where the synthesiser is not installed."""
    plain = re.sub(r"[^\w\s.,;:!?'’-]", " ", text).strip() or "."
    speak = {"flite": _speak_flite, "espeak": _speak_espeak}[voice.engine]
    samples, phones = speak(plain, voice.name, rate)
    return Utterance(samples, _without_gaps(phones, len(samples) / SAMPLE_RATE), voice.label, text)


def pad_with_silence(utterance: Utterance, before: float, after: float) -> Utterance:
    """The utterance with digital silence around it; seconds."""
    samples = np.pad(utterance.samples, (round(before * SAMPLE_RATE), round(after * SAMPLE_RATE)))
    phones = [Phone(p.start + before, p.end + before, p.symbol) for p in utterance.phones]
    return Utterance(samples, _without_gaps(phones, len(samples) / SAMPLE_RATE), utterance.voice, utterance.text)


def _without_gaps(phones: list[Phone], duration: float) -> tuple[Phone, ...]:
    result: list[Phone] = []
    clock = 0.0
    for phone in phones:
        start, end = max(phone.start, clock), min(phone.end, duration)
        if start - clock > 1e-4:
            result.append(Phone(clock, start, SILENCE))
        if end > start:
            result.append(Phone(start, end, phone.symbol))
            clock = end
    if duration - clock > 1e-4:
        result.append(Phone(clock, duration, SILENCE))
    return tuple(_merge_silences(result))


def _merge_silences(phones: list[Phone]) -> list[Phone]:
    merged: list[Phone] = []
    for phone in phones:
        if merged and phone.symbol == SILENCE == merged[-1].symbol:
            merged[-1] = Phone(merged[-1].start, phone.end, SILENCE)
        else:
            merged.append(phone)
    return merged


def _speak_flite(text: str, name: str, rate: float) -> tuple[np.ndarray, list[Phone]]:
    if shutil.which("flite") is None:
        raise InputError("flite is not installed; install Debian's package flite (apt-get install flite)")
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder, "speech.wav")
        command = ["flite", "-voice", name, "--setf", f"duration_stretch={1 / rate:.3f}"]
        if name.startswith("kal"):
            command += ["--setf", "int_f0_target_mean=95.0"]
        printed = subprocess.run(command + ["-psdur", "-t", text, "-o", str(wav)], capture_output=True, text=True, check=True)
        samples, file_rate = soundfile.read(wav, dtype="float32")
    phones, clock = [], 0.0
    for symbol, end in re.findall(r"([a-z]+):([\d.]+)", printed.stdout):
        phones.append(Phone(clock, float(end), _FLITE_TO_ARPABET.get(symbol, symbol)))
        clock = float(end)
    return _to_16k(samples, file_rate), phones


class _EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


class _EspeakLibrary:
    """libespeak-ng through ctypes: its command line prints no phone times, its events carry them."""

    RETRIEVAL, PHONEME_EVENTS, PHONEME, UTF8 = 1, 1, 7, 1
    RATE = 1  # parameter: words a minute

    def __init__(self) -> None:
        path = ctypes.util.find_library("espeak-ng")
        if path is None:
            raise InputError("libespeak-ng is not installed; install Debian's package espeak-ng (apt-get install espeak-ng)")
        self._library = ctypes.CDLL(path)
        self.rate = self._library.espeak_Initialize(self.RETRIEVAL, 0, None, self.PHONEME_EVENTS)
        self._pieces: list[np.ndarray] = []
        self._phones: list[tuple[int, str]] = []
        callback_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
        self._callback = callback_type(self._receive)  # kept: the library holds only a pointer
        self._library.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples, count: int, events) -> int:
        if samples and count:
            self._pieces.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        position = 0
        while events[position].type != 0:
            if events[position].type == self.PHONEME:
                self._phones.append((events[position].sample, events[position].id.string.decode("utf-8", "replace")))
            position += 1
        return 0

    def speak(self, text: str, name: str, rate: float) -> tuple[np.ndarray, list[tuple[int, str]]]:
        self._pieces, self._phones = [], []
        if self._library.espeak_SetVoiceByName(name.encode()) != 0:
            raise InputError(f"espeak-ng has no voice {name!r}; `espeak-ng --voices=en` lists them")
        self._library.espeak_SetParameter(self.RATE, int(np.clip(165 * rate, 80, 400)), 0)
        data = text.encode()
        self._library.espeak_Synth(data, len(data) + 1, 0, 0, 0, self.UTF8, None, None)
        self._library.espeak_Synchronize()
        samples = np.concatenate(self._pieces) if self._pieces else np.zeros(0, np.int16)
        return samples.astype(np.float32) / 32768, self._phones


@lru_cache(maxsize=1)
def _espeak_library() -> _EspeakLibrary:
    return _EspeakLibrary()  # the C library itself is a process-wide singleton


def _speak_espeak(text: str, name: str, rate: float) -> tuple[np.ndarray, list[Phone]]:
    library = _espeak_library()
    samples, marks = library.speak(text, name, rate)
    ends = [sample for sample, _ in marks[1:]] + [len(samples)]
    phones = [
        Phone(start / library.rate, end / library.rate, _arpabet_from_espeak(symbol))
        for (start, symbol), end in zip(marks, ends)
        if end > start
    ]
    return _to_16k(samples, library.rate), phones


def _arpabet_from_espeak(symbol: str) -> str:
    """ARPAbet for an espeak mnemonic; variants such as `@2`, `r-` or `aI3` fall back to their base."""
    if symbol.startswith("_") or not symbol:
        return SILENCE
    for length in range(len(symbol), 0, -1):
        if symbol[:length] in _ESPEAK_TO_ARPABET:
            return _ESPEAK_TO_ARPABET[symbol[:length]]
    return "ax"


def _to_16k(samples: np.ndarray, rate: int) -> np.ndarray:
    return samples if rate == SAMPLE_RATE else soxr.resample(samples, rate, SAMPLE_RATE).astype(np.float32)
