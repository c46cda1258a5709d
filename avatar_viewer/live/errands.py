"""Work that may take a moment, one piece after the other, off the frame loop.

Some of it has to be done whatever happens (closing what was opened, recovering a take); the rest (loading, reading a prompt) is
dropped when nobody will see it any more. The thread is built in `session.py`.
"""

from __future__ import annotations

import queue
from collections.abc import Callable

from .handoff import FirstFailure
from .stage_trace import StageTrace

Errand = Callable[[], None]


class Errands:
    """`run` belongs to the errand thread, everything else to the main thread."""

    def __init__(self, failure: FirstFailure, trace: StageTrace) -> None:
        self._failure, self._trace = failure, trace
        self._waiting: queue.Queue[tuple[Errand, bool] | None] = queue.Queue()
        self._is_closed = False
        self.is_needed = False  # what the thread does at this moment

    def put(self, errand: Errand) -> None:
        """Have this done, also if the session closes meanwhile: then at once, by whoever calls."""
        if self._is_closed:
            self._do(errand)
        else:
            self._waiting.put((errand, True))

    def put_droppable(self, errand: Errand) -> None:
        """Have this done, unless the session closes before its turn comes."""
        if not self._is_closed:
            self._waiting.put((errand, False))

    @property
    def num_waiting(self) -> int:
        return self._waiting.qsize()

    def run(self) -> None:
        while (waiting := self._waiting.get()) is not None:
            errand, self.is_needed = waiting
            self._do(errand)
            self.is_needed = False

    def close(self) -> None:
        """Do here what waits and has to be done; the one that runs, which may take long, is not waited for."""
        self._is_closed = True
        left = []
        while not self._waiting.empty():  # the thread may take one meanwhile
            try:
                left.append(self._waiting.get_nowait())
            except queue.Empty:
                break
        self._waiting.put(None)
        for errand, is_needed in left:
            if is_needed:
                self._do(errand)

    def _do(self, errand: Errand) -> None:
        try:
            with self._trace.span(getattr(errand, "__qualname__", type(errand).__name__)):
                errand()
        except Exception as error:  # the end of this errand, not of the thread
            self._failure.put("worker", error)
