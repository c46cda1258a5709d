"""numba kernels compiled once and kept on disk, until any source of this folder changes.

numba's own cache looks only at the file that holds the function: after a change of a constant or a helper in another file it
goes on running the old machine code. Here the stamp of a cached kernel is the content of the modules that kernels are made of.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import numba

_NOT_IN_KERNELS = ("rasterize", "gsplat_backend", "orbit", "cpu_backend", "last_picture", "__init__")  # plain Python around them


def kernel(parallel: bool = False) -> Callable[[Callable], Callable]:
    """A decorator: numba.njit with the cache of this folder."""

    def decorate(function: Callable) -> Callable:
        compiled = numba.njit(cache=True, parallel=parallel)(function)
        # numba has no public door to the stamp; the cache reads it when it first opens the index, which is later than here.
        cache_file = getattr(getattr(compiled, "_cache", None), "_cache_file", None)
        if cache_file is not None and hasattr(cache_file, "_source_stamp"):
            cache_file._source_stamp = folder_stamp()
        return compiled

    return decorate


@functools.cache
def folder_stamp() -> str:
    """Of the content of every module here that goes into a kernel, constants included."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.name.startswith(_NOT_IN_KERNELS):
            continue
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
