"""`avatar-viewer bench`: how fast this machine is at what the viewer does; one module a benchmark."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from .bench_live import bench_live
from .bench_render import bench_render
from .bench_speech import bench_motion, bench_speech
from .errors import InputError

BENCHMARKS: dict[str, Callable[..., dict]] = {"render": bench_render, "speech": bench_speech, "motion": bench_motion, "live": bench_live}


def run(names: list[str], as_json: bool, avatar_folder: str | Path | None) -> int:
    """Run the named benchmarks and print their tables, or one JSON object."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        raise InputError(f"unknown benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    results = {name: BENCHMARKS[name](avatar_folder, quiet=as_json) for name in names}
    if as_json:
        print(json.dumps(results, indent=1))
    return 0
