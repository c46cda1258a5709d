"""The speech thread's work: sound from a spool, through `SpeechMotion`, into the timeline, never far ahead of the clock.

The thread itself is built in `session.py`. A seek begins a second early, so that the networks know what was being said.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from ..avatar.speech_motion import SpeechMotion
from ..config import SAMPLE_RATE
from ..types import AudioChunk, AUEdit
from .handoff import FirstFailure, Latest, MotionTimeline
from .spool import SpoolFormat, SpoolReader
from .stage_trace import StageTrace

HOPS_AHEAD = 2
PRE_ROLL_SECONDS = 1.0
_POLL_SECONDS = 0.01  # between looks for new sound
_AHEAD_SECONDS = 0.05  # between looks at the clock while there is motion enough


@dataclass(frozen=True)
class SpeechJob:
    """Move a face by this sound, from here on."""

    motion: SpeechMotion
    spool: SpoolFormat
    is_complete: Callable[[], bool]  # the spool will not grow any more
    from_seconds: float
    generation: int = 0  # of the timeline; set by `begin`


@dataclass(frozen=True)
class SpeechRun:
    """What moves the face since the speech path last began anew: all that is needed to do it again."""

    motion: SpeechMotion
    spool: SpoolFormat
    start_samples: int  # of the source
    edit_log: list[tuple[int, AUEdit]]  # hop and edit; grows
    generation: int  # of the timeline


class SpeechDriver:
    """`run` belongs to the speech thread, everything else to the main thread."""

    def __init__(self, timeline: MotionTimeline, failure: FirstFailure, trace: StageTrace) -> None:
        self.timeline, self._trace = timeline, trace
        self.now_seconds = 0.0  # the clock, as the main thread last saw it
        self.hop_seconds_spent = 0.0  # what the newest hop took
        self._run: SpeechRun | None = None
        self._generation = -1  # of the newest job
        self._failure = failure
        self._jobs: Latest[SpeechJob] = Latest()
        self._wake = threading.Event()
        self._is_leaving = self._is_stopping = False

    @property
    def speech_run(self) -> SpeechRun | None:
        """None while the newest job has not begun."""
        run = self._run
        return run if run is not None and run.generation == self._generation else None

    def begin(self, job: SpeechJob) -> None:
        """Leave what is being done and do this."""
        self.now_seconds = job.from_seconds
        self._is_leaving = False
        self._generation = self.timeline.restart()
        self._jobs.put(replace(job, generation=self._generation))
        self._wake.set()

    def leave(self) -> None:
        """Do nothing until there is another job."""
        self._is_leaving = True
        self._wake.set()

    def stop(self) -> None:
        self._is_stopping = True
        self._wake.set()

    def run(self) -> None:
        while not self._is_stopping:
            job = self._jobs.take()
            if job is None:
                self._rest(0.5)
                continue
            try:
                self._follow(job)
            except Exception as error:  # the end of this job: the session shows it and goes on
                self._failure.put("speech", error)

    def _rest(self, seconds: float) -> None:
        self._wake.wait(seconds)
        self._wake.clear()

    def _start(self, job: SpeechJob, position: int) -> None:
        job.motion.reset(position / SAMPLE_RATE)
        self._run = SpeechRun(job.motion, job.spool, position, job.motion.edit_log, job.generation)

    def _follow(self, job: SpeechJob) -> None:
        motion, hop = job.motion, job.motion.stream.hop_samples
        hop_seconds = hop / SAMPLE_RATE
        reader = SpoolReader(job.spool)
        try:
            start = max(0.0, job.from_seconds - PRE_ROLL_SECONDS)
            position = int(start / hop_seconds + 1e-6) * hop  # on the grid that an export of this sound has
            if job.spool.ring_frames:
                position = max(position, -(-reader.oldest // hop) * hop)
            # Pieces end where a hop's look-ahead does: a hop is worked out as soon as it can be, not at the end of the next one.
            first = piece = hop + motion.stream.lookahead_samples
            self._start(job, position)
            while self._jobs.is_empty and not self._is_leaving and not self._is_stopping:
                end = self.timeline.end_seconds
                if end is not None and end - self.now_seconds >= HOPS_AHEAD * hop_seconds:
                    self._rest(_AHEAD_SECONDS)
                    continue
                is_complete = job.is_complete()
                available = reader.count - position
                if job.spool.ring_frames and available > 10 * hop:  # this machine cannot follow: leave sound out, not time
                    position = (reader.count // hop - 2) * hop
                    self._start(job, position)
                    piece = first
                    continue
                if available < piece and not is_complete:
                    self._rest(_POLL_SECONDS)
                    continue
                count, piece = min(piece, available), hop
                began = time.perf_counter()
                windows = motion.feed(AudioChunk(torch.from_numpy(reader.read(position, count)[:, 0]), position / SAMPLE_RATE))
                position += count
                if is_complete and position >= reader.count:
                    windows = windows + motion.finish()
                for window in windows:
                    self.timeline.extend(window, job.generation)
                ended = time.perf_counter()
                self._trace.note("speech hop", began, ended)
                self._trace.count(speech_unheard_ms=1000 * (reader.count - position) / SAMPLE_RATE)
                self.hop_seconds_spent = ended - began
                self.timeline.prune(self.now_seconds - 1.0)
                if is_complete and position >= reader.count:
                    self.timeline.finish(job.generation)
                    return
        finally:
            reader.close()
