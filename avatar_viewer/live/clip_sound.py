"""The sound of a clip, from a file, a take or numbers: for the speech path at 16 kHz, and to be heard at 48."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..config import SAMPLE_RATE
from ..errors import InputError
from .decoding import PLAYBACK_RATE, Sound
from .spool import SpoolReader
from .take_file import TakeFile


class HeardSound(Protocol):
    def heard(self, start: int, count: int) -> np.ndarray: ...  # [<= count, 2] int16 at 48 kHz

    def close(self) -> None: ...


class ClipSound(HeardSound, Protocol):
    num_samples: int  # at 16 kHz
    notes: tuple[str, ...]

    def speech(self, start: int, count: int) -> Tensor: ...  # [count] at 16 kHz


class FileSound:
    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._sound = Sound(path)
        with ExitStack() as undo:  # whatever ends the wait, Ctrl-C too
            undo.callback(self._sound.close)
            self._sound.wait_complete()
            undo.pop_all()
        self._speech = SpoolReader(self._sound.speech)
        self._playback = SpoolReader(self._sound.playback)
        self.num_samples = self._speech.count
        self.notes = self._sound.notes

    def speech(self, start: int, count: int) -> Tensor:
        return torch.from_numpy(self._speech.read(start, min(count, self.num_samples - start))[:, 0])

    def heard(self, start: int, count: int) -> np.ndarray:
        return self._playback.read(start, max(0, min(count, self._playback.count - start)))

    def close(self) -> None:
        self._speech.close()
        self._playback.close()
        self._sound.close()


class TakeSound:
    """What was heard in a take."""

    def __init__(self, take: TakeFile) -> None:
        self._reader = SpoolReader(take.heard)

    def heard(self, start: int, count: int) -> np.ndarray:
        return self._reader.read(start, max(0, min(count, self._reader.count - start)))

    def close(self) -> None:
        self._reader.close()


class TensorSound:
    def __init__(self, samples: Tensor) -> None:  # [S]
        import soxr

        if samples.dim() != 1 or not len(samples):
            raise InputError(f"sound must be one row of samples, got shape {list(samples.shape)}")
        self._samples = torch.nan_to_num(samples.detach().float().cpu(), nan=0.0, posinf=0.0, neginf=0.0).clamp(-1, 1)
        self.num_samples = len(samples)
        self.notes: tuple[str, ...] = ()
        mono = soxr.resample(self._samples.numpy(), SAMPLE_RATE, PLAYBACK_RATE)
        self._heard = np.rint(np.clip(mono, -1, 1) * 32767).astype(np.int16)[:, None].repeat(2, axis=1)

    def speech(self, start: int, count: int) -> Tensor:
        return self._samples[start : start + count]

    def heard(self, start: int, count: int) -> np.ndarray:
        return self._heard[start : start + count]

    def close(self) -> None:
        pass
