"""The backbone's training speech: hours of synthesised voices in one array, with the phone at every instant.

Built once into a cache folder from the project's sentences, everyday words in random order and invented words, spoken
by every voice of a split at random rates and pitches and in every feeling. Knows the synthesisers through `studio.voices`; knows no network.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...config import SAMPLE_RATE
from ...errors import InputError
from ...studio.delivery import speak, track_pitch
from ...studio.performance import EMOTIONS, draw_feeling
from ...studio.voices import SILENCE, TRAIN_VOICES, Voice

ASSETS = Path(__file__).resolve().parents[3] / "assets"
CORPUS_VERSION = 4

# ARPAbet in lower case with the schwa (ax), as `studio.voices` gives it. The order is stored in checkpoints.
PHONES: tuple[str, ...] = (
    SILENCE, "aa", "ae", "ah", "ao", "aw", "ax", "ay", "b", "ch", "d", "dh", "eh", "er", "ey", "f", "g", "hh", "ih", "iy", "jh",
    "k", "l", "m", "n", "ng", "ow", "oy", "p", "r", "s", "sh", "t", "th", "uh", "uw", "v", "w", "y", "z", "zh",
)  # fmt: skip
# What the articulators do: easier than the phone, and what a face needs of it.
ARTICULATIONS: dict[str, str] = {
    "bilabial": "p b m",
    "labiodental": "f v",
    "rounded": "w uw uh ow ao oy r sh ch jh zh er",
    "open": "aa ae aw ay ah ao",
    "spread": "iy ih ey eh y ae",
    "dental": "th dh",
    "alveolar": "t d n l s z",
    "postalveolar": "sh ch jh zh r er",
    "velar": "k g ng w",
    "nasal": "m n ng",
    "fricative": "f v th dh s z sh zh hh ch jh",
    "stop": "p b t d k g ch jh",
    "voiced": "aa ae ah ao aw ax ay b d dh eh er ey g ih iy jh l m n ng ow oy r uh uw v w y z zh",
    "vowel": "aa ae ah ao aw ax ay eh er ey ih iy ow oy uh uw",
}
FEELINGS: tuple[str, ...] = tuple(EMOTIONS)
NO_FEELING = 255  # of a pause: nothing is heard


def articulation_table() -> np.ndarray:  # [41, 14] float32 0 or 1
    return np.array([[phone in names.split() for names in ARTICULATIONS.values()] for phone in PHONES], dtype=np.float32)


@dataclass(frozen=True)
class SpeechCorpus:
    """Voices one after another; a range of `voice_spans` is one voice's speech with pauses."""

    samples: np.ndarray  # [S] int16
    phone_starts: np.ndarray  # [P] int64, samples, rising from 0
    phone_ids: np.ndarray  # [P] uint8 into PHONES
    feeling_ids: np.ndarray  # [P] uint8 into FEELINGS, or NO_FEELING
    pitch: np.ndarray  # [S / 160] float16 Hz, 0 where unvoiced
    voices: tuple[str, ...]
    voice_spans: np.ndarray  # [len(voices), 2] int64, samples

    def phones_at(
        self,
        positions: np.ndarray,  # samples
    ) -> np.ndarray:
        """Phone ids at these instants."""
        return self.phone_ids[self._index(positions)]

    def feelings_at(
        self,
        positions: np.ndarray,  # samples
    ) -> np.ndarray:
        """Ids of the feelings at these instants."""
        return self.feeling_ids[self._index(positions)]

    def _index(self, positions: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.phone_starts, positions, side="right") - 1


def read_sentences(split: str) -> list[str]:
    """The project's own sentences; `split` is train or test."""
    lines = (ASSETS / "sentences.txt").read_text(encoding="utf-8").splitlines()
    border = next(i for i, line in enumerate(lines) if line.strip().lower() == "# test")
    chosen = lines[:border] if split == "train" else lines[border:]
    return [line.strip() for line in chosen if line.strip() and not line.startswith("#")]


def read_words() -> list[str]:
    """Everyday English words."""
    lines = (ASSETS / "speech_words.txt").read_text(encoding="utf-8").splitlines()
    return [word for line in lines if not line.startswith("#") for word in line.split()]


def random_text(rng: np.random.Generator, sentences: list[str], words: list[str]) -> str:
    """A sentence, words in random order, or words with invented ones among them: every phone beside every other."""
    if rng.random() < 0.25:
        return sentences[rng.integers(len(sentences))]
    chosen = [words[i] for i in rng.integers(len(words), size=rng.integers(3, 13))]
    if rng.random() < 0.4:
        chosen = [_invented_word(rng) if rng.random() < 0.35 else word for word in chosen]
    commas = rng.random(len(chosen)) < 0.08
    return (
        " ".join(word + "," * int(comma) for word, comma in zip(chosen[:-1], commas))
        + f" {chosen[-1]}"
        + rng.choice([".", ".", "?", "!"])
    )


def _invented_word(rng: np.random.Generator) -> str:
    onsets = "b p m f v w t d n l s z sh ch j k g h r y th br pl fr sm sp tw".split()
    vowels = "a e i o u ee oo ai ow oy ar er or".split()
    codas = ["", "", "", "m", "p", "b", "f", "v", "n", "t", "s", "k", "l", "sh", "mp", "ng"]
    return "".join(rng.choice(onsets) + rng.choice(vowels) + rng.choice(codas) for _ in range(rng.integers(1, 3)))


def build_speech_corpus(
    folder: Path,
    *,
    hours: float,
    voices: tuple[Voice, ...] = TRAIN_VOICES,
    split: str = "train",
    seed: int = 0,
    progress=lambda share: None,
) -> SpeechCorpus:
    """The corpus in `folder`, spoken now if it is not there; recorded-unit voices get the larger share of the time."""
    wanted = {"version": CORPUS_VERSION, "hours": hours, "voices": [v.label for v in voices], "split": split, "seed": seed}
    stamp = folder / "corpus.json"
    if not stamp.is_file() or json.loads(stamp.read_text(encoding="utf-8")) != wanted:
        _speak_corpus(folder, hours, voices, split, seed, progress)
        stamp.with_suffix(".tmp").write_text(json.dumps(wanted), encoding="utf-8")
        os.replace(stamp.with_suffix(".tmp"), stamp)
    return open_speech_corpus(folder)


def open_speech_corpus(folder: Path) -> SpeechCorpus:
    if not (folder / "corpus.json").is_file():
        raise InputError(f"{folder} holds no speech corpus")
    voices = tuple(json.loads((folder / "corpus.json").read_text(encoding="utf-8"))["voices"])
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS}
    return SpeechCorpus(voices=voices, **arrays)


_ARRAYS = ("samples", "phone_starts", "phone_ids", "feeling_ids", "pitch", "voice_spans")


def _speak_corpus(folder: Path, hours: float, voices: tuple[Voice, ...], split: str, seed: int, progress) -> None:
    rng = np.random.default_rng(seed)
    sentences = read_sentences(split)
    words = read_words()
    weights = np.array([12.0 if voice.engine == "flite" else 1.0 for voice in voices])
    budgets = weights / weights.sum() * hours * 3600 * SAMPLE_RATE
    pieces, starts, ids, feelings, spans, clock = [], [], [], [], [], 0
    for voice, budget in zip(voices, budgets):
        begin = clock
        while clock - begin < budget:
            feeling, strength = draw_feeling(rng)
            manner = EMOTIONS[feeling].delivery.at(strength)
            manner = replace(
                manner,
                rate=manner.rate * rng.uniform(0.8, 1.25),
                pitch=manner.pitch * np.exp(rng.uniform(-0.3, 0.3)),
                melody=manner.melody * rng.uniform(0.75, 1.3),
            )
            utterance = speak(random_text(rng, sentences, words), voice, manner, rng)
            for phone in utterance.phones:
                starts.append(clock + round(phone.start * SAMPLE_RATE))
                ids.append(PHONES.index(phone.symbol))
                feelings.append(NO_FEELING if phone.symbol == SILENCE else FEELINGS.index(feeling))
            pause = np.zeros(int(rng.exponential(0.25) * SAMPLE_RATE), np.float32)
            starts.append(clock + len(utterance.samples))
            ids.append(0)
            feelings.append(NO_FEELING)
            for samples in (utterance.samples, pause):
                pieces.append((np.clip(samples, -1, 1) * 32767).astype(np.int16))
                clock += len(samples)
            progress(min(1.0, clock / budgets.sum()))
        spans.append((begin, clock))
    samples = np.concatenate(pieces)
    folder.mkdir(parents=True, exist_ok=True)
    labels = (np.array(starts, np.int64), np.array(ids, np.uint8), np.array(feelings, np.uint8))
    arrays = (samples, *labels, track_pitch(samples), np.array(spans, np.int64))
    for name, array in zip(_ARRAYS, arrays):
        np.save(folder / f"{name}.npy", array)
