"""Sound out and sound in, each in a child process that can be abandoned when a driver or a sound server hangs.

The player's sample counter is the session's clock: it reports which sample is heard at which moment. The microphone fills
two rings, 16 kHz for the speech path and 48 kHz for recordings and monitoring. What the children do is `audio_process.py`'s.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable

from ..config import SAMPLE_RATE
from .audio_process import MICROPHONE_FIELDS, PLAYER_FIELDS, microphone_spools, run_microphone, run_player
from .clock import CounterClock
from .decoding import PLAYBACK_RATE
from .spool import SharedFields, SpoolFormat, create_spool
from .voice_chain import VoiceSettings

_STALL_SECONDS = 3.0
_START_SECONDS = 20.0  # for a process and a sound server to come up on a machine that is busy loading
_QUIT_SECONDS = 0.5  # to end when asked
_QUIET_SECONDS = 0.7  # without a block from the microphone, which come every 10 to 40 ms: worth saying, not yet worth giving up


class _DeviceProcess:
    """A child with a connection and published numbers."""

    def __init__(self, entry: Callable[..., None], fields: tuple[str, ...], name: str, device: str | None) -> None:
        self.folder = tempfile.mkdtemp(prefix="avatar-viewer-")
        for spool in microphone_spools(self.folder) if entry is run_microphone else ():
            create_spool(spool)
        path = os.path.join(self.folder, "fields")
        self.fields = SharedFields(path, fields, create=True)
        context = multiprocessing.get_context("spawn")
        self._quit_at: float | None = None
        self.connection, child_end = context.Pipe()
        self.process = context.Process(target=entry, args=(path, child_end, self.folder, device), name=name, daemon=True)
        self.process.start()
        child_end.close()

    def send(self, message: tuple) -> None:
        try:
            self.connection.send(message)
        except (BrokenPipeError, ConnectionResetError, OSError):
            pass  # `poll` reports that the process is gone

    def answers(self) -> list[tuple]:
        found = []
        try:
            while self.connection.poll():
                found.append(self.connection.recv())
        except (EOFError, ConnectionResetError, OSError):
            found.append(("failed", "its process ended unexpectedly"))
        return found

    def quit(self) -> None:
        """Ask it to end, without waiting."""
        if self._quit_at is None:
            self._quit_at = time.monotonic()
            self.send(("quit",))

    def close(self) -> None:
        """Ask, wait a moment, then kill: a driver that hangs must not hold the window."""
        self.quit()
        self.process.join(timeout=max(0.0, self._quit_at + _QUIT_SECONDS - time.monotonic()))
        if self.process.is_alive():
            self.process.kill()
            self.process.join(timeout=1.0)
        self.connection.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Player:
    """Plays a spool through the sound card and tells the time by it. A `Clock`.

    `failure` is a line once there is no (longer a) working device; the caller then goes on with a wall clock.
    """

    def __init__(self, device: str | None = None) -> None:
        self._child = _DeviceProcess(run_player, PLAYER_FIELDS, "sound output", device)
        self._clock = CounterClock()
        self._generation = 0
        self._wanted_seconds = 0.0
        self._rate = 1.0
        self._opened_at = self._started_at = time.monotonic()
        self.is_ready = False
        self.is_playing = False
        self.has_ended = False
        self.underflows = 0
        self.failure: str | None = None
        self.device_name = ""

    def load(self, spool: SpoolFormat) -> None:
        self.pause()
        self._child.send(("load", spool))
        self.seek(0.0)

    def complete(self) -> None:
        """The spool has all its sound: its end is the end."""
        self._child.send(("complete",))

    def play(self) -> None:
        if not self.is_playing:
            self.is_playing, self.has_ended = True, False
            self._started_at = time.monotonic()
            self._restart(self._wanted_seconds)
            self._child.send(("play", self._generation, round(self._wanted_seconds * PLAYBACK_RATE), self._rate))

    def pause(self) -> None:
        if self.is_playing:
            self._wanted_seconds = self.now()
            self.is_playing = False
            self._child.send(("pause",))

    def seek(self, seconds: float) -> None:
        was_playing = self.is_playing
        self.is_playing = False
        self._wanted_seconds = max(0.0, seconds)
        self.has_ended = False
        if was_playing:
            self.play()

    def set_rate(self, rate: float) -> None:
        """Faster or slower, like a tape: the pitch follows."""
        position, self._rate = self.now(), rate
        self.seek(position)

    def _restart(self, seconds: float) -> None:
        self._generation += 1
        self._clock.restart(seconds, self._rate)

    @property
    def process_id(self) -> int:
        """As which the sound server knows it."""
        return self._child.process.pid or 0

    def poll(self) -> None:
        """Take in what the process says; sets `failure`, `has_ended`, `is_ready`."""
        for answer in self._child.answers():
            if answer[0] == "ready":
                self.is_ready, self.device_name = True, answer[1]
            elif answer[0] == "failed" and self.failure is None:
                self.failure = answer[1]
        state = self._child.fields.read()
        self.underflows = int(state["underflows"])
        if self.is_playing and state["generation"] == self._generation:
            if state["has_ended"]:
                self._wanted_seconds = state["frame"] / PLAYBACK_RATE
                self.is_playing, self.has_ended = False, True
            elif time.monotonic() - state["heard_at"] > _STALL_SECONDS and self.failure is None:
                self.failure = "the sound device does not answer"
        elif self.is_playing and time.monotonic() - self._started_at > _START_SECONDS and self.failure is None:
            self.failure = "the sound device does not start"
        if not self.is_ready and time.monotonic() - self._opened_at > _START_SECONDS and self.failure is None:
            self.failure = "the sound system does not answer"

    def now(self) -> float:
        """Seconds of the sound being heard at this moment."""
        if not self.is_playing:
            return self._wanted_seconds
        state = self._child.fields.read()
        if state["generation"] == self._generation and not state["has_ended"]:
            self._clock.report(state["frame"] / PLAYBACK_RATE, state["heard_at"])
        return self._clock.at(time.monotonic())

    def quit(self) -> None:
        """`close` is about to come."""
        self._child.quit()

    def close(self) -> None:
        self._child.close()


class Microphone:
    """Live sound: two rings, a level, and a clock that runs `delay_seconds` behind the air."""

    def __init__(self, device: str | None = None, *, delay_seconds: float) -> None:
        self._child = _DeviceProcess(run_microphone, MICROPHONE_FIELDS, "microphone", device)
        self.speech, self.playback = microphone_spools(self._child.folder)
        self.delay_seconds = delay_seconds
        self._clock = CounterClock()
        self.is_ready = False
        self.failure: str | None = None
        self.device_name = ""
        self.level = 0.0  # RMS of the last block, 0..1
        self.peak = 0.0
        self.is_open = True  # the noise gate
        self.is_quiet = False  # nothing has arrived for a while, not even silence
        self.overflows = 0
        self.lost_seconds = 0.0  # of sound that never arrived; silence stands in its place
        self.capture_seconds = 0.0  # the device's own delay
        self._opened_at = time.monotonic()

    @property
    def process_id(self) -> int:
        """As which the sound server knows it."""
        return self._child.process.pid or 0

    def apply(self, settings: VoiceSettings) -> None:
        """Gain and gate from now on."""
        self._child.send(("voice", settings))

    def poll(self) -> None:
        for answer in self._child.answers():
            if answer[0] == "ready":
                _, self.device_name, self.capture_seconds = answer
                self.is_ready = True
            elif answer[0] == "failed" and self.failure is None:
                self.failure = answer[1]
        state = self._child.fields.read()
        self.level, self.peak, self.overflows = state["level"], state["peak"], int(state["overflows"])
        self.lost_seconds = state["lost_seconds"]
        self.is_open = not state["samples"] or bool(state["is_open"])
        waited = time.monotonic() - (state["captured_at"] if state["samples"] else self._opened_at)
        self.is_quiet = bool(state["samples"]) and waited > _QUIET_SECONDS
        if waited > (_STALL_SECONDS if state["samples"] else _START_SECONDS) and self.failure is None:
            self.failure = "the microphone does not answer"

    @property
    def is_running(self) -> bool:
        """Time is told by what is heard: not before what was in the air `delay_seconds` ago has arrived, nor while nothing does."""
        return not self.is_quiet and self.now() > 0.0

    def now(self) -> float:
        state = self._child.fields.read()
        if state["samples"]:
            self._clock.report(state["samples"] / SAMPLE_RATE - self.delay_seconds, state["captured_at"])
        return max(0.0, self._clock.at(time.monotonic()))

    def quit(self) -> None:
        """`close` is about to come."""
        self._child.quit()

    def close(self) -> None:
        self._child.close()
