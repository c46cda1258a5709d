"""Takes that were interrupted: found, looked at, and made whole, or thrown away if the artist says so.

What a kill leaves is a `TakeFolder` that nobody holds. Its picture plays as it is; here it becomes an ordinary mp4 under
its own name, and the sound and log beside it a take file. Nothing is deleted before what replaces it is there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from .decoding import PLAYBACK_RATE
from .handoff import Latest
from .messages import Say
from .spool import SpoolFormat, SpoolReader
from .take_file import pack_take
from .take_folder import HEARD, LOG, PACKED, PICTURE, TakeFolder, find_abandoned, free_take_path

_MENDED = "mended.mp4"


@dataclass(frozen=True)
class Remains:
    """What there is of an interrupted take."""

    folder: TakeFolder
    video_seconds: float  # 0: no picture can be decoded
    heard_seconds: float  # of sound and log; 0: none
    num_bytes: int

    @property
    def name(self) -> str:
        return self.folder.video.name

    @property
    def is_empty(self) -> bool:
        return self.video_seconds == 0 and self.heard_seconds == 0


@dataclass(frozen=True)
class Recovered:
    """What a take has become."""

    video: Path | None
    take: Path | None
    seconds: float


def find_remains(folder: Path) -> list[Remains]:
    """The interrupted takes in a folder of takes, oldest first."""
    return [examine(take) for take in find_abandoned(folder)]


def examine(folder: TakeFolder) -> Remains:
    """Look, without changing anything."""
    sizes = [entry.stat().st_size for entry in os.scandir(folder.path)]
    return Remains(folder, video_seconds(folder / PICTURE), _heard_seconds(folder), sum(sizes))


def recover(remains: Remains) -> Recovered:
    """Make the take whole: an mp4 if there is a picture, a take file if there is a log. `InputError` where that fails.

    The folder stays as it was until both are there.
    """
    folder = remains.folder
    if not folder.is_abandoned():
        raise InputError(f"{folder.path}: is in use, or gone")
    folder.hold()
    try:
        video = folder.video
        if video.with_suffix(".take").exists() or (remains.video_seconds and video.exists()):
            video = free_take_path(video.parent)  # the name has been taken meanwhile
        has_log = remains.heard_seconds > 0 and (folder / LOG).exists()
        if has_log and not (folder / PACKED).exists():
            pack_take(folder)
        if remains.video_seconds:
            os.replace(_mend(folder), video)
        if has_log:
            os.replace(folder / PACKED, video.with_suffix(".take"))
    except OSError as error:
        folder.release()
        raise InputError(f"{folder.path}: could not be recovered ({error.strerror or error}); nothing is lost, try again") from None
    if remains.video_seconds or has_log:
        folder.remove()
    folder.release()
    return Recovered(
        video if remains.video_seconds else None,
        video.with_suffix(".take") if has_log else None,
        max(remains.video_seconds, remains.heard_seconds),
    )


def discard(remains: Remains) -> None:
    """Delete the take for good."""
    if remains.folder.is_abandoned():
        remains.folder.remove()


def video_seconds(path: Path) -> float:
    """How long a file plays, by the pictures that are really there; 0 where none can be decoded."""
    import av

    if not path.is_file() or path.stat().st_size == 0:
        return 0.0
    end = 0.0
    try:
        with av.open(f"file:{path}") as container:
            stream = container.streams.video[0]
            for packet in container.demux(stream):
                if packet.pts is not None:
                    end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            container.seek(0)
            next(container.decode(stream))
    except (av.FFmpegError, OSError, ValueError, IndexError, StopIteration):
        return 0.0
    return end


def _heard_seconds(folder: TakeFolder) -> float:
    if not (folder / LOG).exists() or not (folder / HEARD).exists():
        return 0.0
    try:
        reader = SpoolReader(SpoolFormat(str(folder / HEARD), PLAYBACK_RATE, 2, "int16"))
    except (OSError, ValueError):  # no whole head was written
        return 0.0
    try:
        return reader.count / PLAYBACK_RATE
    finally:
        reader.close()


def _mend(folder: TakeFolder) -> Path:
    """The picture as an ordinary mp4: its packets, whole ones only, in a new file; or as it is where that does not work."""
    import av

    source, mended = folder / PICTURE, folder / _MENDED
    try:
        with av.open(f"file:{source}") as old, av.open(f"file:{mended}", "w", format="mp4") as new:
            streams = {stream.index: new.add_stream_from_template(stream) for stream in old.streams if stream.type in ("video", "audio")}
            for packet in old.demux(*(old.streams[index] for index in streams)):
                if packet.dts is not None:
                    packet.stream = streams[packet.stream.index]
                    new.mux(packet)
        if video_seconds(mended) >= video_seconds(source) - 1e-3:
            with open(mended, "r+b") as file:
                os.fsync(file.fileno())
            return mended
    except (av.FFmpegError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (28, 122):  # no space, quota: the caller keeps everything
            raise
    return source


class TakeRescue:
    """Recovery for the window: looks and works off the frame loop, and keeps what was found until the artist decides."""

    def __init__(
        self,
        say: Say,
        defer: Callable[[Callable[[], None]], None],  # has something done that may take a moment
        look: Callable[[Callable[[], None]], None],  # likewise, unless the session closes before
    ) -> None:
        self._say, self._defer, self._look = say, defer, look
        self._news: Latest[tuple[Remains, ...]] = Latest()
        self.found: tuple[Remains, ...] = ()

    def search(self, folder: Path) -> None:
        self._look(lambda: self._news.put(tuple(remains for remains in find_remains(folder) if not remains.is_empty)))

    def update(self) -> bool:
        """Once a frame; True where a search has found something."""
        news = self._news.take()
        if news is not None:
            self.found = news
        return bool(news)

    def recover(self, remains: Remains) -> None:
        """A message follows."""
        self._forget(remains)
        self._defer(lambda: self._recover(remains))

    def discard(self, remains: Remains) -> None:
        self._forget(remains)
        self._defer(lambda: discard(remains))

    def _forget(self, remains: Remains) -> None:
        self.found = tuple(other for other in self.found if other is not remains)

    def _recover(self, remains: Remains) -> None:
        try:
            recovered = recover(remains)
        except InputError as error:
            self._say(str(error), is_error=True)
            return
        made = " and ".join(str(path) for path in (recovered.video, recovered.take) if path is not None)
        self._say(f"Recovered {made or 'nothing'} ({recovered.seconds:.1f} s)")
