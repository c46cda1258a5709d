"""Where a command is to write, judged before it works: a wrong place is said at once, not after minutes. Writes nothing."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import InputError


def check_file_destination(
    path: Path,
    suffix: str,  # ".npz"
    *,
    makes_folders: bool = False,  # the command makes the folders that are not there yet
) -> None:
    """`InputError` where a file of this kind cannot be put at `path`, or would take the place of another kind's."""
    if path.is_dir() or not path.name:
        raise InputError(f"{str(path)!r} is a folder; give a file name ending in {suffix}")
    if path.suffix.lower() != suffix:
        raise InputError(f"{path}: what is written is a {suffix}; give a file name ending in {suffix}")
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is a device or the like; give a file name ending in {suffix}")
    _check_parents(path, makes_folders)


def check_folder_destination(path: Path) -> None:
    """`InputError` where `path` is no folder and cannot become one."""
    if path.is_dir():
        _check_writable(path, path)
    elif path.exists() or path.is_symlink():
        raise InputError(f"{path} is a file, not a folder; choose another place")
    else:
        _check_parents(path, True)


def _check_parents(path: Path, makes_folders: bool) -> None:
    parent = path.parent
    while makes_folders and not parent.exists() and parent != parent.parent:
        parent = parent.parent
    if not parent.exists():
        raise InputError(f"{path}: the folder {parent} does not exist; create it or choose another")
    if not parent.is_dir():
        raise InputError(f"{path}: {parent} is a file, not a folder; choose another place")
    _check_writable(parent, path)


def _check_writable(folder: Path, path: Path) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{path}: cannot be written, {folder} is read-only; choose another place")
