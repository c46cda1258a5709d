"""Any sound file as two spools: 16 kHz mono for the speech path, 48 kHz stereo to hear and to record.

The decoder runs in a child process with limits on its time and memory, reads local files of known containers only, and is
faster than the sound by two orders of magnitude; playing starts while it works. It knows nothing of clocks and devices.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from ..config import FEATURE_FIELD, SAMPLE_RATE
from ..errors import InputError
from .spool import SpoolFormat, SpoolReader, SpoolWriter, create_spool

PLAYBACK_RATE = 48_000  # Hz
MAX_SECONDS = 3 * 3600.0
MIN_SECONDS = FEATURE_FIELD / SAMPLE_RATE  # one value of the speech backbone: 25 ms
SOUND_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".mp4", ".mov", ".mkv", ".webm", ".aiff", ".aif", ".au", ".caf", ".w64")

_CONTAINERS = frozenset(
    (
        "wav", "w64", "flac", "mp3", "ogg", "mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "aac", "aiff", "au",
        "caf", "avi", "mpegts", "amr", "wv", "ape",
    )
)  # fmt: skip
_MEMORY_LIMIT_BYTES = 4 << 30
_PROCESSOR_LIMIT_SECONDS = 1800
_PATIENCE_SECONDS = 40.0  # without a sample: a process may take long to start on a busy machine, or a disk to wake

# How much of a speaker goes to the left and to the right; effects (LFE) are left out, as downmixes do.
_DOWNMIX = {
    "FL": (1.0, 0.0), "FR": (0.0, 1.0), "FC": (0.7071, 0.7071), "LFE": (0.0, 0.0),
    "BL": (0.5, 0.0), "BR": (0.0, 0.5), "SL": (0.5, 0.0), "SR": (0.0, 0.5), "BC": (0.35, 0.35),
}  # fmt: skip


@dataclass(frozen=True)
class SoundInfo:
    """What the file says of itself."""

    rate: int  # Hz
    channels: int
    codec: str
    seconds_stated: float  # 0 where the container does not say


class Sound:
    """A sound file being decoded, or decoded: two spools and what is known so far.

    `poll` and the `wait` functions belong to one thread; the spools may be read anywhere, each reader by one thread.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.name = self.path.name
        self.info: SoundInfo | None = None
        self.notes: tuple[str, ...] = ()  # oddities worth a line: NaN found, damage skipped, channels mixed
        self.is_complete = False
        self._failure = ""
        self._counted, self._progress_at = 0, time.monotonic()
        _check_file(self.path)
        self._folder = tempfile.mkdtemp(prefix="avatar-viewer-")
        self.speech = SpoolFormat(os.path.join(self._folder, "speech.f32"), SAMPLE_RATE, 1, "float32")
        self.playback = SpoolFormat(os.path.join(self._folder, "playback.s16"), PLAYBACK_RATE, 2, "int16")
        for spool in (self.speech, self.playback):
            create_spool(spool)
        self._reader = SpoolReader(self.speech)
        context = multiprocessing.get_context("spawn")
        self._connection, child_end = context.Pipe(duplex=False)
        arguments = (str(self.path), self.speech, self.playback, child_end)
        self._process = context.Process(target=_decode_file, args=arguments, name="decoder", daemon=True)
        self._process.start()
        child_end.close()

    @property
    def seconds_decoded(self) -> float:
        return self._reader.count / SAMPLE_RATE

    @property
    def seconds(self) -> float:
        """The length: exact once complete, until then what the file states or what is decoded."""
        stated = self.info.seconds_stated if self.info and not self.is_complete else 0.0
        return max(stated, self.seconds_decoded)

    @property
    def is_ready(self) -> bool:
        """Playing can start."""
        return self.is_complete or (self.info is not None and self.seconds_decoded >= 0.5)

    def poll(self) -> None:
        """Take in what the decoder has reported; `InputError` where the file turned out to be unusable."""
        while not self.is_complete and not self._failure and self._connection.poll():
            try:
                kind, value = self._connection.recv()
            except EOFError:
                self._fail(f"{self.path}: the decoder stopped unexpectedly; the file may be damaged")
                break
            if kind == "info":
                self.info = value
            elif kind == "failed":
                self._fail(f"{self.path}: {value}")
            else:
                self.notes = value
                self.is_complete = True
        if not self.is_complete and not self._failure:
            self._check_progress()
        if self._failure:
            raise InputError(self._failure)

    def _check_progress(self) -> None:
        if self._reader.count != self._counted:
            self._counted, self._progress_at = self._reader.count, time.monotonic()
        if time.monotonic() - self._progress_at > _PATIENCE_SECONDS:
            self._fail(f"{self.path}: the decoder made no progress for {_PATIENCE_SECONDS:.0f} s; try another file")

    def wait_ready(self) -> None:
        """Block until playing can start."""
        self._wait(lambda: self.is_ready, None)

    def wait_complete(self, on_progress: Callable[[float], None] | None = None) -> None:
        """Block until everything is decoded; `on_progress` gets the seconds done."""
        self._wait(lambda: self.is_complete, on_progress)

    def _wait(self, done: Callable[[], bool], on_progress: Callable[[float], None] | None) -> None:
        while True:
            self.poll()
            if done():
                return
            if on_progress:
                on_progress(self.seconds_decoded)
            self._connection.poll(0.05)

    def _fail(self, message: str) -> None:
        self._failure = message
        self.close()

    def read_speech(self) -> np.ndarray:  # -> [S] float32
        """All samples at 16 kHz; waits for the decoder."""
        self.wait_complete()
        return self._reader.read(0, self._reader.count)[:, 0]

    def close(self) -> None:
        """Stop decoding and forget the spools. A process that still reads them keeps its own handle."""
        if self._process.is_alive():
            self._process.kill()  # nothing it writes is needed, and one that hangs hears nothing else
        self._process.join(timeout=2.0)
        self._connection.close()
        self._reader.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Sound:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_sound(path: str | os.PathLike[str]) -> np.ndarray:  # -> [S] float32 mono 16 kHz
    """Samples of any sound file for the speech path; `InputError` in one line where it cannot be used."""
    with Sound(path) as sound:
        return sound.read_speech()


def _check_file(path: Path) -> None:
    if not path.exists():
        raise InputError(f"{path}: no such sound file; check the name")
    if not path.is_file():
        raise InputError(f"{path}: is not a file; give a sound file such as .wav, .flac or .mp3")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: cannot be read; check its permissions")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the sound file is empty (0 bytes)")


# ---- the child process ---------------------------------------------------------------------------------------------


def _decode_file(path: str, speech: SpoolFormat, playback: SpoolFormat, connection: Connection) -> None:
    """Entry of the child: decode, then report once. The parent may be gone at any time; then there is no one to tell."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _limit_resources()
    try:
        notes = _Decoding(path, speech, playback, connection).run()
        connection.send(("done", notes))
    except InputError as error:
        connection.send(("failed", str(error)))
    except MemoryError:
        connection.send(("failed", "needs more memory than a sound file should; it may be damaged"))
    except BrokenPipeError:
        pass


def _limit_resources() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    for kind, limit in ((resource.RLIMIT_AS, _MEMORY_LIMIT_BYTES), (resource.RLIMIT_CPU, _PROCESSOR_LIMIT_SECONDS)):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


class _Decoding:
    """One run of the decoder over one file."""

    def __init__(self, path: str, speech: SpoolFormat, playback: SpoolFormat, connection: Connection) -> None:
        self._path = path
        self._connection = connection
        self._speech = SpoolWriter(speech)
        self._playback = SpoolWriter(playback)
        self._rate = 0
        self._channels: tuple[str, ...] = ()
        self._bad_samples = 0
        self._all_samples = 0
        self._loud_samples = 0
        self._notes: list[str] = []

    def run(self) -> tuple[str, ...]:
        import av

        try:
            container = av.open("file:" + self._path, options={"protocol_whitelist": "file"})
        except (av.FFmpegError, ValueError, OSError) as error:
            raise InputError(f"is not a sound file that can be decoded ({_reason(error)}); use wav, flac, mp3, ogg or m4a") from None
        with container:
            if not _CONTAINERS.intersection(container.format.name.split(",")):
                raise InputError(f"files of type {container.format.name!r} are not read; use wav, flac, mp3, ogg or m4a")
            if not container.streams.audio:
                raise InputError("holds no sound; give a file with a sound track")
            stream = container.streams.audio[0]
            stated = float(container.duration) / av.time_base if container.duration else 0.0
            if stated > 2**40 or stated < 0:
                stated = 0.0
            codec = stream.codec_context
            self._start(codec.rate, tuple(channel.name for channel in codec.layout.channels))
            self._connection.send(("info", SoundInfo(codec.rate, len(self._channels), codec.name, min(stated, MAX_SECONDS))))
            resampler = av.AudioResampler(format="fltp")
            try:
                for frame in container.decode(stream):
                    if frame.sample_rate != self._rate or len(frame.layout.channels) != len(self._channels):
                        self._notes.append(f"the sound changes its format after {self._seconds:.1f} s; the rest is left out")
                        break
                    for piece in resampler.resample(frame):
                        self._take(piece.to_ndarray())
            except (av.FFmpegError, ValueError, OSError) as error:
                if not self._all_samples:
                    raise InputError(f"cannot be decoded ({_reason(error)}); it may be damaged") from None
                self._notes.append(f"damaged after {self._seconds:.1f} s ({_reason(error)}); the rest is left out")
        said = any("left out" in note for note in self._notes)
        if not said and self._seconds + 0.5 < stated and self._seconds < 0.9 * stated:
            self._notes.append(f"ends after {self._seconds:.1f} s of the {stated:.1f} s that it states; it may be cut off")
        return self._finish()

    @property
    def _seconds(self) -> float:
        return self._all_samples / self._rate if self._rate else 0.0

    def _start(self, rate: int, channels: tuple[str, ...]) -> None:
        if not 1000 <= rate <= 768_000 or not 1 <= len(channels) <= 64:
            raise InputError(f"states {rate} Hz and {len(channels)} channels; 1 to 768 kHz and 1 to 64 channels can be read")
        import soxr

        self._rate, self._channels = rate, channels
        self._to_speech = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        self._to_playback = soxr.ResampleStream(rate, PLAYBACK_RATE, 2, dtype="float32", quality="HQ")
        self._matrix = _downmix_matrix(channels)
        if len(channels) > 2:
            self._notes.append(f"{len(channels)} channels mixed down to two")

    def _take(self, planes: np.ndarray) -> None:  # [C, n] float32
        bad = ~np.isfinite(planes)
        if bad.any():
            planes = np.where(bad, np.float32(0), planes)
            self._bad_samples += int(bad.any(axis=0).sum())
        self._all_samples += planes.shape[1]
        if self._seconds > MAX_SECONDS:
            raise InputError(f"is longer than {MAX_SECONDS / 3600:.0f} hours; cut it into pieces")
        peak = float(np.abs(planes).max(initial=0.0))
        self._loud_samples += int((np.abs(planes) > 1.0).any(axis=0).sum()) if peak > 1.0 else 0
        self._write(np.clip(planes, -1.0, 1.0) if peak > 1.0 else planes, last=False)

    def _write(self, planes: np.ndarray, *, last: bool) -> None:  # [C, n] float32
        stereo = np.ascontiguousarray((self._matrix @ planes).T, dtype=np.float32)  # [n, 2]
        mono = np.ascontiguousarray(stereo.mean(axis=1, keepdims=True))
        heard = self._to_playback.resample_chunk(stereo, last=last)
        self._playback.append(np.rint(np.clip(heard, -1.0, 1.0) * 32767).astype(np.int16).reshape(-1, 2))
        self._speech.append(self._to_speech.resample_chunk(mono, last=last).reshape(-1, 1))

    def _finish(self) -> tuple[str, ...]:
        if not self._all_samples:
            raise InputError("the sound track is empty")
        if self._bad_samples == self._all_samples:
            raise InputError("every sample is NaN or infinite; the file was written wrongly, export it again")
        if self._seconds < MIN_SECONDS:
            raise InputError(f"lasts {self._seconds * 1000:.0f} ms; at least {MIN_SECONDS * 1000:.0f} ms are needed")
        self._write(np.zeros((len(self._channels), 0), dtype=np.float32), last=True)
        if self._bad_samples:
            self._notes.append(f"{self._bad_samples} of {self._all_samples} samples were NaN or infinite and are silence now")
        if self._loud_samples:
            self._notes.append(f"{self._loud_samples} samples beyond full scale were clipped")
        return tuple(self._notes)


def _downmix_matrix(channels: tuple[str, ...]) -> np.ndarray:  # -> [2, C]
    """Stereo from any layout, scaled so that full scale stays full scale."""
    if len(channels) == 1:
        return np.ones((2, 1), dtype=np.float32)
    matrix = np.array([_DOWNMIX.get(name, (0.5, 0.5)) for name in channels], dtype=np.float32).T
    return matrix / max(1.0, float(matrix.sum(axis=1).max()))


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split())[:120] or type(error).__name__
