"""Pictures and sound into an mp4, from the side that has them: a bounded hand-over to the encoder's process.

Live, a picture that finds no free slot is dropped and counted (the encoder repeats the one before), sound never is.
For export, the caller waits. Until it is whole, a take is a folder of its own (`take_folder.py`).
"""

from __future__ import annotations

import multiprocessing
import os
import time
from fractions import Fraction
from multiprocessing.util import Finalize
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .decoding import PLAYBACK_RATE
from .encoding import EncoderSettings, encode_file
from .spool import SpoolFormat, SpoolWriter
from .take_folder import HEARD, LOG, PACKED, PICTURE, TakeFolder, free_take_path

_SLOTS_BYTES, _MIN_SLOTS, _MAX_SLOTS = 24 << 20, 4, 24  # live, a second of small pictures waits while the encoder starts
_START_SECONDS = 60.0  # for a process to come up on a machine that does much else; sound and log wait for it in safety
_HANG_SECONDS = {True: 20.0, False: 5.0}  # without an answer; an export may wait, a live take is better closed and continued
_LAST_SECONDS, _LAST_START_SECONDS = 2.0, 5.0  # likewise, when the program ends: sound and log are safe without it


class RecorderError(RuntimeError):
    """The encoder failed: disk full, or its process died. The message says what became of the take."""


class EncoderLost(RecorderError):
    """Its process died or hangs; another one would do."""


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
        self.codec = ""  # once the encoder runs
        self.take: Path | None = None  # the take file, once there is one
        self.trouble = ""  # why there is none
        self.is_finished = False
        self._overwrites = overwrite
        self._is_finishing = self._is_hung = False
        self._answered_at = time.monotonic()
        self._waits = waits
        self._is_last = False  # the program ends
        self.folder = TakeFolder.create(self.path, overwrite=overwrite)
        self._sound: SpoolWriter | None = None
        try:
            self._start(width, height, with_sound)
        except OSError as error:
            self.folder.remove()
            raise InputError(f"{path}: cannot be written ({error.strerror}); choose another place") from None

    def _start(self, width: int, height: int, with_sound: bool) -> None:
        sound = None
        if with_sound:
            sound = SpoolFormat(str(self.folder / HEARD), PLAYBACK_RATE, 2, "int16")
            self._sound = SpoolWriter(sound)
        context = multiprocessing.get_context("spawn")
        slots = max(_MIN_SLOTS, min(_MAX_SLOTS, _SLOTS_BYTES // (height * width * 3)))
        pictures = context.RawArray("B", slots * height * width * 3)
        self._pictures = torch.from_numpy(np.frombuffer(pictures, dtype=np.uint8).reshape(slots, height, width, 3))
        self._free_slots = list(range(slots))
        self._slots = slots
        waits = self._waits
        settings = EncoderSettings(
            self.path, width, height, Fraction(self.fps).limit_denominator(1001), slots,
            preset="veryfast" if waits else "superfast", quality=17 if waits else 20, bframes=2 if waits else 0, is_live=not waits,
        )  # fmt: skip
        self._connection, child_end = context.Pipe()
        arguments = (settings, pictures, sound, child_end)
        self._process = context.Process(target=encode_file, args=arguments, name="encoder", daemon=False)
        self._process.start()
        child_end.close()
        # A program that ends by an exception waits for its children: the encoder has to see that nobody is there any more.
        self._at_exit = Finalize(None, self._connection.close, exitpriority=1)

    @property
    def num_waiting(self) -> int:
        """Pictures that are handed over and not encoded yet."""
        return self._slots - len(self._free_slots)

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
        """Append sound; never blocks, never drops. `RecorderError` where the disk is full."""
        assert self._sound is not None
        try:
            self._sound.append(samples)
        except OSError as error:
            raise RecorderError(f"{self.path}: recording stopped: {error.strerror}") from None

    def offer(self, color: Tensor, index: int) -> bool:  # [H, W, 3] float 0..1
        """Hand over picture `index` (0, 1, ...; gaps are filled with the picture before). False: dropped, counted."""
        self._take_answers(wait=self._waits)
        if not self._free_slots:
            self.frames_dropped += 1
            return False
        if len(self._free_slots) == self._slots:
            self._answered_at = time.monotonic()  # before, there was nothing to answer
        slot = self._free_slots.pop()
        scaled = color.detach().mul(255.0).add_(0.5).clamp_(0.0, 255.0)
        self._pictures[slot].copy_(scaled.to("cpu"))
        self._send(("frame", slot, index, self.sound_frames))
        return True

    def begin_finish(self, total_frames: int) -> None:
        """End the take at `total_frames` pictures, without waiting; `poll` until `is_finished`."""
        self._send(("finish", total_frames))
        self._is_finishing = True
        self._answered_at = time.monotonic()

    def finish(self, total_frames: int) -> Path:
        """End the take at `total_frames` pictures; returns the file's final name once it is whole."""
        self.begin_finish(total_frames)
        while not self.is_finished:
            self._take(self._receive())
        return self.path

    def hurry(self) -> None:
        """The program ends: an encoder that does not answer gets little time from now on."""
        self._is_last = True

    def discard(self) -> None:
        """Stop and leave nothing behind."""
        self._stop_process()
        self.folder.remove()

    def keep_what_plays(self) -> Path | None:
        """After a failure: the take so far under its own name if it plays, else nothing.

        What was heard and done stays in the folder, to be recovered, unless there is a take file already.
        """
        self._stop_process()
        plays = is_playable(self.folder / PICTURE)
        try:
            if plays:
                self._publish(PICTURE, self.path.suffix)
            if (self.folder / PACKED).exists() or not (self.folder / LOG).exists():
                self._publish_take()
                self.folder.remove()
        except OSError:  # the disk is gone, or not ours to write any more: it stays where it is
            plays = False
        self.folder.release()
        return self.path if plays else None

    def poll(self) -> None:
        """Take in the encoder's answers; `RecorderError` where it has failed."""
        self._take_answers(wait=False)
        is_waited_for = self._is_finishing or len(self._free_slots) < self._slots
        if not self.is_finished and is_waited_for:
            self._check_patience()

    def _take_answers(self, *, wait: bool) -> None:
        while not self.is_finished and ((wait and not self._free_slots) or self._connection.poll()):
            self._take(self._receive())

    def _take(self, answer: tuple) -> None:
        kind, *values = answer
        if kind == "ready":
            (self.codec,) = values
        elif kind == "free":
            slot, self.frames_written, self.bytes_written = values
            self._free_slots.append(slot)
        elif kind == "written":
            self.frames_written, self.bytes_written = values
        elif kind == "done":
            (self.trouble,) = values
            self._process.join(timeout=_HANG_SECONDS[self._waits])
            self._close()
            try:
                self._publish(PICTURE, self.path.suffix)
                self._publish_take()
            except OSError as error:
                raise RecorderError(f"{self.folder / PICTURE} is whole, but cannot be renamed to {self.path}: {error.strerror}") from None
            if self.trouble:
                self.folder.release()
            else:
                self.folder.remove()
            self.is_finished = True

    def _publish_take(self) -> None:
        if (self.folder / PACKED).exists():
            self._publish(PACKED, ".take")
            self.take = self.path.with_suffix(".take")

    def _publish(self, part: str, suffix: str) -> None:
        """Give a part of the folder its own name."""
        target = self.path.with_suffix(suffix)
        if part == PICTURE and target.exists() and not self._overwrites:  # taken meanwhile
            self.path = target = free_take_path(self.path.parent)
        os.replace(self.folder / part, target)

    def _receive(self) -> tuple:
        while not self._connection.poll(0.2):
            self._check_patience()
        try:
            answer = self._connection.recv()
        except (EOFError, ConnectionResetError):
            raise EncoderLost("the video encoder's process ended unexpectedly") from None
        self._answered_at = time.monotonic()
        if answer[0] == "failed":
            raise RecorderError(f"{self.path}: recording stopped: {answer[1]}")
        return answer

    def _check_patience(self) -> None:
        if self.codec:
            patience = _LAST_SECONDS if self._is_last else _HANG_SECONDS[self._waits]
        else:
            patience = _LAST_START_SECONDS if self._is_last else _START_SECONDS
        if time.monotonic() - self._answered_at > patience:
            self._is_hung = True
            raise EncoderLost(f"the video encoder did not answer for {patience:.0f} s")

    def _send(self, message: tuple) -> None:
        try:
            self._connection.send(message)
        except (BrokenPipeError, ConnectionResetError):
            if self._connection.poll():
                self._receive()  # raises with the encoder's own words, if it left any
            raise EncoderLost("the video encoder's process ended unexpectedly") from None

    def _stop_process(self) -> None:
        """The child ends its file when nobody is there any more; one that does not is ended."""
        self._at_exit()
        if not self._is_hung:
            self._process.join(timeout=2.0)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(timeout=2.0)
        self._close()

    def _close(self) -> None:
        self._at_exit()
        if self._sound:
            self._sound.close()


def check_video_size(width: int, height: int) -> None:
    """`InputError` where H.264 cannot carry the size."""
    if width % 2 or height % 2:
        raise InputError(f"an mp4 needs an even size, not {width}x{height}; use {width + width % 2}x{height + height % 2}")
    if not (16 <= width <= 8192 and 16 <= height <= 8192):
        raise InputError(f"a size of {width}x{height} cannot be encoded; use 16 to 8192 pixels a side")


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
