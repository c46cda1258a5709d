"""The obvious loop in C++ (`obvious.cpp`), built with the machine's own compiler, where it has one, to be compared with."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

_SOURCE = Path(__file__).with_name("obvious.cpp")
_COMPILERS = ("c++", "g++", "clang++")
_OPTIONS = ("-O2", "-fopenmp", "-std=c++17", "-shared", "-fPIC")
_BUILD_SECONDS = 60


@cache
def build_obvious_cpp() -> Callable[..., None] | None:
    """As `draw_obviously`, compiled; None where there is no compiler with OpenMP."""
    compiler = next(filter(None, map(shutil.which, _COMPILERS)), None)
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        library = Path(folder) / "obvious.so"
        try:
            subprocess.run(
                [compiler, *_OPTIONS, str(_SOURCE), "-o", str(library)], check=True, capture_output=True, timeout=_BUILD_SECONDS
            )
            loaded = ctypes.CDLL(str(library)).draw_obviously
        except (OSError, subprocess.SubprocessError):
            return None
    loaded.restype = None

    def draw(inputs, camera, background, threads: int, color, alpha) -> None:
        K, height, width = camera.K.tolist(), *alpha.shape
        tables = [np.ascontiguousarray(table, np.float32) for table in inputs]
        view = np.ascontiguousarray(camera.viewmat.numpy(), np.float32)
        intrinsics = np.array([K[0][0], K[1][1], K[0][2], K[1][2]], np.float32)
        sizes = [ctypes.c_int32(value) for value in (len(tables[0]), threads, width, height)]
        pointers = [_pointer(table) for table in (*tables, view, intrinsics, np.asarray(background, np.float32))]
        loaded(sizes[0], *pointers, *sizes[1:], _pointer(color), _pointer(alpha))

    return draw


def _pointer(table: np.ndarray) -> ctypes.Array:
    return table.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
