"""A take in the making: one folder beside its future mp4, in which a kill at any moment leaves everything usable.

It holds the picture as it is encoded, the sound as it was heard, what the speech path heard, and the log of what was done.
Whoever works in it holds its lock, and the system lets go of that with the process: so a folder without one is a take that
was interrupted (`recovery.py`). Knows names and locks, not what the files mean.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from ..errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

SUFFIX = ".partial"
PICTURE, HEARD, SPEECH, LOG, PACKED = "picture.mp4", "heard.s16", "speech.f32", "log.jsonl", "packed.take"
_OWNER = "owner"
_QUIET_SECONDS = 30.0  # where there are no locks: nobody writes for so long to a take that is alive


class TakeFolder:
    """The folder of one take, by the name that its mp4 will have."""

    def __init__(self, video: Path) -> None:
        self.video = video  # the file that the take becomes
        self.path = video.with_name(video.name + SUFFIX)
        self._lock: int | None = None

    @classmethod
    def create(cls, video: Path, *, overwrite: bool = False) -> TakeFolder:
        """Claim the name; `InputError` where nothing can be written there, or something is there already."""
        if video.is_dir():
            raise InputError(f"{video}: is a folder; give a file name ending in .mp4")
        if video.exists() and not overwrite:
            raise InputError(f"{video}: exists already; choose another name")
        folder = cls(video)
        try:
            if overwrite and folder.is_abandoned():
                shutil.rmtree(folder.path)  # of an export that was killed
            folder.path.mkdir()
            folder.hold()
        except FileExistsError:
            raise InputError(f"{video}: is being written by another program, or was interrupted: see {folder.path}") from None
        except FileNotFoundError:
            raise InputError(f"{video}: the folder {video.parent} does not exist; create it or choose another") from None
        except OSError as error:
            folder.remove()
            raise InputError(f"{video}: cannot be written ({error.strerror}); choose another place") from None
        return folder

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def hold(self) -> None:
        """Say that this process works here, for as long as it lives or until `release`."""
        if self._lock is None:
            self._lock = os.open(self.path / _OWNER, os.O_RDWR | os.O_CREAT, 0o644)
            if fcntl is not None:
                fcntl.flock(self._lock, fcntl.LOCK_SH)  # the program and its encoder both hold it

    def release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def is_abandoned(self) -> bool:
        """There is such a folder, of this program's making, and no process works in it any more."""
        if self._lock is not None or not (self.path / _OWNER).is_file():
            return False
        if fcntl is None:
            return time.time() - max((entry.stat().st_mtime for entry in self.path.iterdir()), default=0.0) > _QUIET_SECONDS
        try:
            lock = os.open(self.path / _OWNER, os.O_RDWR)
        except OSError:  # somebody else's
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(lock)
        return True

    def remove(self) -> None:
        """Delete all that is in it."""
        self.release()
        shutil.rmtree(self.path, ignore_errors=True)


def free_take_path(folder: Path, now: time.struct_time | None = None) -> Path:
    """A name for a new take that collides with nothing."""
    stem = time.strftime("take_%Y-%m-%d_%H-%M-%S", now or time.localtime())
    for number in range(1, 10_000):
        path = folder / (f"{stem}.mp4" if number == 1 else f"{stem}_{number}.mp4")
        if not path.exists() and not path.with_suffix(".take").exists() and not TakeFolder(path).path.exists():
            return path
    raise InputError(f"{folder}: ten thousand takes of one second exist; choose another folder")


def find_abandoned(folder: Path) -> list[TakeFolder]:
    """Takes in `folder` that were interrupted, oldest first; none where it cannot be read."""
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.name.endswith(".mp4" + SUFFIX) and entry.is_dir())
    except OSError:
        return []
    takes = [TakeFolder(folder / name.removesuffix(SUFFIX)) for name in names]
    return [take for take in takes if take.is_abandoned()]
