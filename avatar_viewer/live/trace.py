"""What a session does, as JSON lines: for looking into a slow machine, and for tests that drive the real window."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from ..errors import InputError
from .stage_trace import StageTrace


class Trace:
    """Appends one line each time; every line is whole once written."""

    def __init__(self, path: str | Path) -> None:
        try:
            self._file = open(path, "w", encoding="utf-8", buffering=1)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror})") from None
        self._began = time.monotonic()

    def write(self, **values: Any) -> None:
        line = {"seconds": round(time.monotonic() - self._began, 3), **values}
        self._file.write(json.dumps(line, ensure_ascii=True, default=str) + "\n")

    def close(self) -> None:
        self._file.close()


class StageTimes:
    """Where a frame's milliseconds go, smoothed; each stage also goes to `trace`."""

    def __init__(self, trace: StageTrace) -> None:
        self._trace = trace
        self.ms: dict[str, float] = {}
        self._since = 0.0

    def start(self) -> None:
        self._since = time.perf_counter()

    def lap(self, stage: str) -> None:
        """The time since the last call was spent on `stage`."""
        now = time.perf_counter()
        spent = 1000.0 * (now - self._since)
        self.ms[stage] = 0.9 * self.ms.get(stage, spent) + 0.1 * spent
        self._trace.note(stage, self._since, now)
        self._since = now
