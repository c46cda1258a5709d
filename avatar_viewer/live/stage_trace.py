"""What every thread does, and how full every queue is, for some seconds: as a Chrome trace, to be looked at on a time line.

While nothing is recorded a span costs one look at a flag. Any thread may note; `begin` and `take_finished` belong to the main one.
The format is Chrome's trace events (https://ui.perfetto.dev and chrome://tracing open it), times in microseconds.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InputError

TRACE_SECONDS = 10.0
_MAX_EVENTS = 200_000  # some 20 MB; ten seconds have a tenth of it


class StageTrace:
    """Spans and counters of a session."""

    def __init__(self) -> None:
        self._began = self._until = 0.0
        self._events: list[dict[str, object]] = []
        self._threads: dict[int, str] = {}
        self.is_running = False

    def begin(self, seconds: float = TRACE_SECONDS) -> None:
        """Record from now on; what is being recorded already goes on to its own end."""
        if self.is_running:
            return
        self._events, self._threads = [], {}
        self._began = time.perf_counter()
        self._until = self._began + seconds
        self.is_running = True

    def note(self, name: str, began: float, ended: float) -> None:
        """This thread did `name` between two readings of `time.perf_counter`."""
        if self.is_running and len(self._events) < _MAX_EVENTS:
            thread = threading.current_thread()
            number = thread.native_id or 0
            self._threads[number] = thread.name
            duration = round(1e6 * (ended - began), 1)
            self._events.append({"ph": "X", "name": name, "tid": number, "ts": self._microseconds(began), "dur": duration})

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """What is done inside is `name`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.note(name, began, time.perf_counter())

    def count(self, **values: float) -> None:
        """How full queues are, and other numbers, at this moment."""
        if self.is_running and len(self._events) < _MAX_EVENTS:
            at = self._microseconds(time.perf_counter())
            self._events += [{"ph": "C", "name": name, "ts": at, "args": {"value": value}} for name, value in values.items()]

    def take_finished(self) -> list[dict[str, object]] | None:
        """The events, once the time is over; None before, and after they were taken."""
        if not self.is_running or time.perf_counter() < self._until:
            return None
        self.is_running = False
        events, self._events = self._events, []
        names = [{"ph": "M", "name": "thread_name", "tid": tid, "args": {"name": name}} for tid, name in self._threads.items()]
        return [event | {"pid": os.getpid()} for event in names + events]

    def _microseconds(self, moment: float) -> float:
        return round(1e6 * (moment - self._began), 1)


def write_trace(events: list[dict[str, object]], folder: Path) -> Path:
    """The file, under a name that is free; `InputError` where it cannot be written."""
    stem = time.strftime("trace_%Y-%m-%d_%H-%M-%S")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(1, 10_000):
            path = folder / (f"{stem}.json" if number == 1 else f"{stem}_{number}.json")
            try:
                with path.open("x", encoding="utf-8") as file:
                    json.dump({"displayTimeUnit": "ms", "traceEvents": events}, file)
            except FileExistsError:
                continue
            return path
    except OSError as error:
        raise InputError(f"{folder}: the trace cannot be written ({error.strerror})") from None
    raise InputError(f"{folder}: ten thousand traces of one second exist; choose another folder")
