"""Pictures and sound into an mp4, from the side that has them: a bounded hand-over to the encoder's process.

Live, a picture that finds no free slot is dropped and counted (the encoder repeats the one before), sound never is.
For export, the caller waits. The file carries a temporary name until it is whole.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .decoding import PLAYBACK_RATE
from .encoding import EncoderSettings, encode_file
from .spool import SpoolFormat, SpoolWriter

_SLOTS_BYTES, _MIN_SLOTS, _MAX_SLOTS = 24 << 20, 4, 24  # live, a second of small pictures waits while the encoder starts
_HANG_SECONDS = 20.0
_PARTIAL_SUFFIX = ".partial.mp4"


class RecorderError(RuntimeError):
    """The encoder failed: disk full, or its process died. The message says what became of the take."""


class Recorder:
    """One take. `offer` and `hear` while it runs, then `finish`, or `discard`."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        size: tuple[int, int],  # width, height, both even
        fps: float,
        *,
        with_sound: bool = True,
        waits: bool = False,  # export: wait for the encoder instead of dropping pictures
        overwrite: bool = False,
    ) -> None:
        width, height = size
        check_video_size(width, height)
        self.path = Path(path)
        self.size = size
        self.fps = fps
        self.frames_dropped = 0
        self.frames_written = 0
        self.bytes_written = 0
        self.is_finished = False
        self._finish_deadline = 0.0
        self._waits = waits
        self._partial = claim_partial(self.path, overwrite=overwrite)
        self._folder = tempfile.mkdtemp(prefix="avatar-viewer-")
        self._sound = None
        self._sound_format = None
        if with_sound:
            self._sound_format = SpoolFormat(os.path.join(self._folder, "heard.s16"), PLAYBACK_RATE, 2, "int16")
            self._sound = SpoolWriter(self._sound_format)
        context = multiprocessing.get_context("spawn")
        slots = max(_MIN_SLOTS, min(_MAX_SLOTS, _SLOTS_BYTES // (height * width * 3)))
        pictures = context.RawArray("B", slots * height * width * 3)
        self._pictures = torch.from_numpy(np.frombuffer(pictures, dtype=np.uint8).reshape(slots, height, width, 3))
        self._free_slots = list(range(slots))
        settings = EncoderSettings(
            str(self._partial), width, height, Fraction(fps).limit_denominator(1001), slots,
            preset="veryfast" if waits else "superfast", quality=17 if waits else 20, bframes=2 if waits else 0,
            sync_to_disk=not waits,
        )  # fmt: skip
        self._connection, child_end = context.Pipe()
        arguments = (settings, pictures, self._sound_format, child_end)
        self._process = context.Process(target=encode_file, args=arguments, name="encoder", daemon=False)
        self._process.start()
        child_end.close()

    @property
    def seconds(self) -> float:
        return self.frames_written / self.fps

    @property
    def sound_seconds(self) -> float:
        """How long the take is."""
        return self.sound_frames / PLAYBACK_RATE

    @property
    def sound_frames(self) -> int:
        """Sample frames heard so far, at `PLAYBACK_RATE`."""
        return self._sound.count if self._sound else 0

    def hear(self, samples: np.ndarray) -> None:  # [n, 2] int16 at PLAYBACK_RATE
        """Append sound; never blocks, never drops."""
        assert self._sound is not None
        self._sound.append(samples)

    def offer(self, color: Tensor, index: int) -> bool:  # [H, W, 3] float 0..1
        """Hand over picture `index` (0, 1, ...; gaps are filled with the picture before). False: dropped, counted."""
        self._take_answers(wait=self._waits)
        if not self._free_slots:
            self.frames_dropped += 1
            return False
        slot = self._free_slots.pop()
        scaled = color.detach().mul(255.0).add_(0.5).clamp_(0.0, 255.0)
        self._pictures[slot].copy_(scaled.to("cpu"))
        self._send(("frame", slot, index, self.sound_frames))
        return True

    def begin_finish(self, total_frames: int) -> None:
        """End the take at `total_frames` pictures, without waiting; `poll` until `is_finished`."""
        self._send(("finish", total_frames))
        self._finish_deadline = time.monotonic() + _HANG_SECONDS

    def finish(self, total_frames: int) -> Path:
        """End the take at `total_frames` pictures; returns the file's final name once it is whole."""
        self.begin_finish(total_frames)
        while not self.is_finished:
            self._take(self._receive(self._finish_deadline))
        return self.path

    def discard(self) -> None:
        """Stop and leave nothing behind."""
        self._stop_process()
        self._partial.unlink(missing_ok=True)

    def keep_what_plays(self) -> Path | None:
        """After a failure: the take so far under its own name if it plays, else nothing."""
        self._stop_process()
        if not is_playable(self._partial):
            self._partial.unlink(missing_ok=True)
            return None
        os.replace(self._partial, self.path)
        return self.path

    def poll(self) -> None:
        """Take in the encoder's answers; `RecorderError` where it has failed."""
        self._take_answers(wait=False)
        if not self.is_finished and self._finish_deadline and time.monotonic() > self._finish_deadline:
            raise RecorderError(f"the video encoder did not end the take within {_HANG_SECONDS:.0f} s")

    def _take_answers(self, *, wait: bool) -> None:
        deadline = time.monotonic() + _HANG_SECONDS
        while not self.is_finished and ((wait and not self._free_slots) or self._connection.poll()):
            self._take(self._receive(deadline))

    def _take(self, answer: tuple) -> None:
        if answer[0] == "free":
            _, slot, self.frames_written, self.bytes_written = answer
            self._free_slots.append(slot)
        else:
            _, self.frames_written, self.bytes_written = answer
            self._process.join(timeout=_HANG_SECONDS)
            self._clean_up()
            os.replace(self._partial, self.path)
            self.is_finished = True

    def _receive(self, deadline: float) -> tuple:
        while not self._connection.poll(0.2):
            if time.monotonic() > deadline:
                raise RecorderError(f"the video encoder did not answer for {_HANG_SECONDS:.0f} s")
        try:
            answer = self._connection.recv()
        except (EOFError, ConnectionResetError):
            raise RecorderError("the video encoder's process ended unexpectedly") from None
        if answer[0] == "failed":
            raise RecorderError(f"{self.path}: recording stopped: {answer[1]}")
        return answer

    def _send(self, message: tuple) -> None:
        try:
            self._connection.send(message)
        except (BrokenPipeError, ConnectionResetError):
            if self._connection.poll():
                self._receive(time.monotonic())  # raises with the encoder's own words, if it left any
            raise RecorderError("the video encoder's process ended unexpectedly") from None

    def _stop_process(self) -> None:
        self._connection.close()  # the child ends the file and goes
        self._process.join(timeout=5.0)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(timeout=2.0)
        self._clean_up()

    def _clean_up(self) -> None:
        self._connection.close()
        if self._sound:
            self._sound.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def check_video_size(width: int, height: int) -> None:
    """`InputError` where H.264 cannot carry the size."""
    if width % 2 or height % 2:
        raise InputError(f"an mp4 needs an even size, not {width}x{height}; use {width + width % 2}x{height + height % 2}")
    if not (16 <= width <= 8192 and 16 <= height <= 8192):
        raise InputError(f"a size of {width}x{height} cannot be encoded; use 16 to 8192 pixels a side")


def claim_partial(path: Path, *, overwrite: bool) -> Path:
    """Create the temporary file beside `path`; `InputError` where nothing can be written there."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give a file name ending in .mp4")
    if path.exists() and not overwrite:
        raise InputError(f"{path}: exists already; choose another name")
    partial = path.with_name(path.name.removesuffix(".mp4") + _PARTIAL_SUFFIX)
    try:
        with open(partial, "wb"):
            pass
    except FileNotFoundError:
        raise InputError(f"{path}: the folder {path.parent} does not exist; create it or choose another") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another place") from None
    return partial


def free_take_path(folder: Path, now: time.struct_time | None = None) -> Path:
    """A name for a new take that collides with nothing."""
    stem = time.strftime("take_%Y-%m-%d_%H-%M-%S", now or time.localtime())
    for number in range(1, 10_000):
        path = folder / (f"{stem}.mp4" if number == 1 else f"{stem}_{number}.mp4")
        if not path.exists() and not path.with_name(path.stem + _PARTIAL_SUFFIX).exists():
            return path
    raise InputError(f"{folder}: ten thousand takes of one second exist; choose another folder")


def is_playable(path: Path) -> bool:
    """At least one picture can be decoded."""
    import av

    if not path.exists() or path.stat().st_size == 0:
        return False
    try:
        with av.open("file:" + str(path)) as container:
            return bool(container.streams.video) and next(container.decode(container.streams.video[0]), None) is not None
    except (av.FFmpegError, OSError, ValueError):
        return False
