"""Sound and numbers that two processes share through files: no locks, no pickled samples, nothing to clean up after a crash.

A `Spool` is written by one process and read by any number; it is a plain file, so an hour of sound costs no memory, a seek
costs nothing, and a reader that dies takes nothing with it. It knows bytes and rates, not decoders, devices or clocks.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import numpy as np

_HEADER_BYTES = 4096


class SharedFields:
    """A few named numbers, written by one process and read whole by another.

    A sequence number that is odd during a write makes torn reads visible; readers try again.
    """

    def __init__(self, path: Path | str, names: tuple[str, ...], *, create: bool = False) -> None:
        self._names = names
        size = 8 * (1 + len(names))
        if create:
            Path(path).write_bytes(bytes(size))
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), size)
        self._cells = np.frombuffer(self._map, dtype=np.float64)

    def publish(self, **values: float) -> None:
        cells = self._cells
        cells[0] += 1
        for name, value in values.items():
            cells[1 + self._names.index(name)] = value
        cells[0] += 1

    def read(self) -> dict[str, float]:
        cells = self._cells
        while True:
            before = cells[0]
            values = cells[1:].tolist()
            if before % 2 == 0 and cells[0] == before:
                return dict(zip(self._names, values))


@dataclass(frozen=True)
class SpoolFormat:
    """Where a spool lies and what it holds; small enough to send to another process."""

    path: str
    rate: int  # Hz
    channels: int
    dtype: str  # "float32" or "int16"
    ring_frames: int = 0  # 0: keeps everything; otherwise only the last so many


def create_spool(spool: SpoolFormat) -> None:
    """Make it, empty. Whoever starts the writing process does so first: readers may then open it at once.

    Never again after that: a file cut short under a reader's memory map ends the reader's process.
    """
    with open(spool.path, "xb") as file:
        file.write(bytes(_HEADER_BYTES))  # not a hole: writing into the map of one on a full disk ends the process


def write_whole(file: FileIO, data: bytes | memoryview) -> None:
    """Write all of it, or `OSError`: an unbuffered file on a disk that fills up takes a part and says nothing."""
    rest = memoryview(data)
    while len(rest):
        rest = rest[file.write(rest) or 0 :]


class SpoolWriter:
    """Appends sample frames; the count in the file's head moves only once they are readable."""

    def __init__(self, spool: SpoolFormat) -> None:
        self._format = spool
        if not os.path.exists(spool.path):
            create_spool(spool)
        self._file = open(spool.path, "r+b", buffering=0)
        self._map = mmap.mmap(self._file.fileno(), _HEADER_BYTES)
        self._count = np.frombuffer(self._map, dtype=np.int64, count=1)
        self._frame_bytes = spool.channels * np.dtype(spool.dtype).itemsize

    @property
    def count(self) -> int:
        return int(self._count[0])

    def append(self, samples: np.ndarray) -> None:  # [frames, channels] of the spool's dtype
        assert samples.ndim == 2 and samples.shape[1] == self._format.channels and samples.dtype == self._format.dtype
        written = 0
        while written < len(samples):
            position = self.count + written
            room = len(samples) - written
            if self._format.ring_frames:
                position %= self._format.ring_frames
                room = min(room, self._format.ring_frames - position)
            self._file.seek(_HEADER_BYTES + position * self._frame_bytes)
            write_whole(self._file, np.ascontiguousarray(samples[written : written + room]).data.cast("B"))
            written += room
        self._count[0] += len(samples)

    def close(self) -> None:
        self._file.close()


class SpoolReader:
    """Reads what a `SpoolWriter` of this or another process has written so far. One reader belongs to one thread."""

    def __init__(self, spool: SpoolFormat) -> None:
        self.format = spool
        self._file = open(spool.path, "r+b", buffering=0)
        self._map = mmap.mmap(self._file.fileno(), _HEADER_BYTES)
        self._count = np.frombuffer(self._map, dtype=np.int64, count=1)
        self._frame_bytes = spool.channels * np.dtype(spool.dtype).itemsize

    @property
    def count(self) -> int:
        """Sample frames written since the start, forgotten ones of a ring included."""
        return int(self._count[0])

    @property
    def oldest(self) -> int:
        return max(0, self.count - self.format.ring_frames) if self.format.ring_frames else 0

    def read(self, start: int, count: int) -> np.ndarray:  # -> [count, channels]
        """Sample frames `start` to `start + count`; silence where nothing is written, or no longer."""
        result = np.zeros((count, self.format.channels), dtype=self.format.dtype)
        position, end = max(start, self.oldest), min(start + count, self.count)
        ring = self.format.ring_frames
        while position < end:
            offset = position % ring if ring else position
            length = min(end - position, ring - offset) if ring else end - position
            self._file.seek(_HEADER_BYTES + offset * self._frame_bytes)
            data = self._file.read(length * self._frame_bytes)
            got = len(data) // self._frame_bytes  # fewer than `length` only where a power cut took the file's end
            block = np.frombuffer(data, dtype=self.format.dtype, count=got * self.format.channels)
            result[position - start : position - start + got] = block.reshape(-1, self.format.channels)
            position += length
        return result

    def close(self) -> None:
        self._file.close()
