"""Where the pictures and the sound of a clip go: an mp4, or a folder of numbered pictures. Nothing half-written stays behind."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .recorder import Recorder

_VIDEO_SUFFIXES = (".mov", ".avi", ".mkv", ".webm", ".gif", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts")


class ClipSink(Protocol):
    def hear(self, samples: np.ndarray) -> None: ...

    def show(self, color: Tensor, index: int) -> None: ...

    def finish(self, total: int) -> Path: ...

    def discard(self) -> None: ...


class _VideoSink:
    def __init__(self, path: Path, size: tuple[int, int], fps: float, with_sound: bool) -> None:
        self._recorder = Recorder(path, size, fps, with_sound=with_sound, waits=True, overwrite=True)
        self.hear = self._recorder.hear
        self.finish = self._recorder.finish
        self.discard = self._recorder.discard

    def show(self, color: Tensor, index: int) -> None:
        self._recorder.offer(color, index)


class _FolderSink:
    """Numbered PNG files, in a temporary folder until all are there."""

    def __init__(self, path: Path) -> None:
        if not path.name:  # "." or "/": there is no name to put a partial folder beside
            raise InputError(f"{str(path)!r} is no name for a clip; give name.mp4, or a new folder for pictures")
        self._path = path
        self._partial = path.with_name(path.name + ".partial")
        for folder in (path, self._partial):
            if folder.exists() and (not folder.is_dir() or any(not _is_frame_name(entry.name) for entry in folder.iterdir())):
                raise InputError(f"{folder}: exists and holds other things; give a new or empty folder")
        try:
            shutil.rmtree(self._partial, ignore_errors=True)
            self._partial.mkdir()
        except FileNotFoundError:
            raise InputError(f"{path}: the folder {path.parent} does not exist; create it or choose another") from None
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror}); choose another place") from None

    def hear(self, samples: np.ndarray) -> None:
        pass

    def show(self, color: Tensor, index: int) -> None:
        from PIL import Image

        Image.fromarray(to_bytes(color)).save(self._partial / f"frame_{index:06d}.png", compress_level=1)

    def finish(self, total: int) -> Path:
        if self._path.exists():
            shutil.rmtree(self._path)
        os.replace(self._partial, self._path)
        return self._path

    def discard(self) -> None:
        shutil.rmtree(self._partial, ignore_errors=True)


def open_sink(path: Path, given: str, size: tuple[int, int], fps: float, *, with_sound: bool) -> ClipSink:
    if path.suffix.lower() == ".mp4" and not given.endswith(("/", os.sep)):
        return _VideoSink(path, size, fps, with_sound)
    if path.suffix.lower() in _VIDEO_SUFFIXES:
        raise InputError(f"{path}: only .mp4 is written as video; use name.mp4, or a folder for pictures")
    return _FolderSink(path)


def _is_frame_name(name: str) -> bool:
    return re.fullmatch(r"frame_\d{6,}\.png", name) is not None  # as `show` writes them: nobody else's pictures are replaced


def to_bytes(color: Tensor) -> np.ndarray:  # [H, W, 3] 0..1 -> uint8
    return color.detach().mul(255.0).add_(0.5).clamp_(0.0, 255.0).to(torch.uint8).cpu().numpy()
