"""What is performed in front of the cameras: which sentences, in whose voice, with which feeling, and which frames are pictured.

Knows sentences, voices and performances; knows no mesh, camera or file of a capture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..config import SAMPLE_RATE
from ..errors import InputError
from .blendshapes import RIG_CHANNELS, BlendshapeRig
from .performance import Performance, act, counterfactual
from .poses import HIDDEN_SURFACE_POSES, action_unit_sweep
from .voices import TEST_VOICES, TRAIN_VOICES, Voice

SWEEP = "au_sweep"
DEFAULT_SENTENCES = Path(__file__).parents[2] / "assets" / "sentences.txt"
TEST_MARK = "# test"
FPS = 25.0


@dataclass(frozen=True)
class CaptureScale:
    name: str
    size: int  # pixels a side
    supersampling: int  # samples a pixel, squared
    light_samples: int  # light paths a vertex of the face
    scaffold_points: int
    poses: int  # how many of the hidden-surface poses
    takes: int  # voices a sentence
    sentences: int  # at most
    test_sentences: int
    pictured_sequences: int  # talking sequences of each kind that get pictures
    pictured_frames: int  # in each
    cameras_a_frame: int
    sweep_intensities: tuple[float, ...]


SCALES: dict[str, CaptureScale] = {
    "demo": CaptureScale("demo", 512, 4, 48, 29_000, len(HIDDEN_SURFACE_POSES), 1, 200, 12, 3, 4, 3, (5.0,)),
    "dev": CaptureScale("dev", 256, 4, 24, 6_000, 4, 1, 6, 2, 1, 4, 2, (5.0,)),
}


@dataclass(frozen=True)
class Take:
    """A performance to be recorded."""

    name: str
    performance: Performance
    split: str  # "train" or "test"
    pictured: tuple[int, ...] = ()  # frames that get pictures


def choose_sentences(scale: CaptureScale, path: Path | None) -> tuple[list[str], list[str]]:
    """What is said for training and for testing, of a file or of the bundled sentences; at most what the scale asks for."""
    train, test = read_sentences(path or DEFAULT_SENTENCES)
    if not train or not test:
        raise InputError(
            f"{path} holds {len(train)} sentences to train on and {len(test)} to test; both are needed: ten lines, "
            f"or the last ones below a line {TEST_MARK!r}"
        )
    return train[: scale.sentences], test[: scale.test_sentences]


def plan_takes(rig: BlendshapeRig, scale: CaptureScale, sentences: tuple[list[str], list[str]], seed: int) -> Iterator[Take]:
    """The sweep, then every sentence in several voices and feelings, each once more under other AUs."""
    train, test = sentences
    yield sweep_take(scale)
    jobs = [("train", index, text, take) for take in range(scale.takes) for index, text in enumerate(train)]
    jobs += [("test", index, text, 0) for index, text in enumerate(test)]
    pictured = {
        "train": _pick(len(train) * scale.takes, scale.pictured_sequences),
        "test": _pick(len(test), max(1, scale.pictured_sequences // 2)),
    }
    counts = {"train": 0, "test": 0}
    for split, index, text, take in tqdm(jobs, desc="voices", unit="sentence"):
        rng = np.random.default_rng((seed, split == "test", index, take))
        performance = _perform(text, split, take, rng)
        frames = pick_frames(len(performance.values), scale.pictured_frames) if counts[split] in pictured[split] else ()
        counts[split] += 1
        name = f"{split}_{index:03d}_{take}"
        yield Take(name, performance, split, frames)
        other = counterfactual(performance, rig.viseme_aus, int(rng.integers(2**31)))
        yield Take(f"{name}_counterfactual", other, split, frames)


def sweep_take(scale: CaptureScale) -> Take:
    """Every AU by itself and the paper's emotions, in silence: each frame is pictured."""
    values = action_unit_sweep(scale.sweep_intensities)
    samples = np.zeros(round(len(values) / FPS * SAMPLE_RATE), dtype=np.float32)
    performance = Performance(FPS, values, RIG_CHANNELS, (), samples, "", "", kind="counterfactual", emotion="none")
    return Take(SWEEP, performance, "train", tuple(range(len(values))))


def read_sentences(path: Path) -> tuple[list[str], list[str]]:
    """Training and test sentences of a file; a file without "# test" holds its every tenth sentence out."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read sentences from {path}: {error}") from error
    marker = lines.index(TEST_MARK) if TEST_MARK in lines else None
    spoken = [line for line in lines if line and not line.startswith("#")]
    if marker is None:
        return [s for i, s in enumerate(spoken) if i % 10 != 9], spoken[9::10]
    held_out = [line for line in lines[marker:] if line and not line.startswith("#")]
    return spoken[: len(spoken) - len(held_out)], held_out


def pick_frames(frames: int, count: int) -> tuple[int, ...]:
    """`count` frames spread over the talking part of a take, its silent ends left out."""
    inner = np.linspace(0.12, 0.88, count) * (frames - 1)
    return tuple(sorted({int(round(position)) for position in inner}))


def _pick(available: int, wanted: int) -> set[int]:
    return {int(i) for i in np.linspace(0, available - 1, min(wanted, available)).round()} if available else set()


def _perform(text: str, split: str, take: int, rng: np.random.Generator) -> Performance:
    voices: tuple[Voice, ...] = TEST_VOICES if split == "test" else TRAIN_VOICES
    voice = voices[rng.integers(len(voices))]
    return act(text, voice, rng, fps=FPS, before=(0.2, 0.5), after=(0.3, 0.6))
