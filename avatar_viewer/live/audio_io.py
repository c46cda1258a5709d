"""Sound out and sound in, each in a child process that can be abandoned when a driver or a sound server hangs.

The player's sample counter is the session's clock: it reports which sample is heard at which moment. The microphone fills
two rings, 16 kHz for the speech path and 48 kHz for recordings. The only home of sounddevice.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import shutil
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np

from ..config import SAMPLE_RATE
from .clock import CounterClock
from .decoding import PLAYBACK_RATE
from .spool import SharedFields, SpoolFormat, SpoolReader, SpoolWriter, create_spool

_PLAYER_FIELDS = ("generation", "frame", "heard_at", "is_playing", "has_ended", "underflows")
_MICROPHONE_FIELDS = ("samples", "captured_at", "level", "peak", "overflows")
_OUTPUT_LATENCY_SECONDS = 0.08
_FADE_FRAMES = 240  # 5 ms against clicks after a seek
_STALL_SECONDS = 3.0
_START_SECONDS = 20.0  # for a process and a sound server to come up on a machine that is busy loading
_SPEECH_RING_SECONDS, _PLAYBACK_RING_SECONDS = 60, 120


class _DeviceProcess:
    """A child with a connection and published numbers."""

    def __init__(self, entry: Callable[..., None], fields: tuple[str, ...], name: str, device: str | None) -> None:
        self.folder = tempfile.mkdtemp(prefix="avatar-viewer-")
        for spool in _microphone_spools(self.folder) if entry is _run_microphone else ():
            create_spool(spool)
        path = os.path.join(self.folder, "fields")
        self.fields = SharedFields(path, fields, create=True)
        context = multiprocessing.get_context("spawn")
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

    def close(self) -> None:
        """Ask, wait a moment, then kill: a driver that hangs must not hold the window."""
        self.send(("quit",))
        self.process.join(timeout=0.5)
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
        self._child = _DeviceProcess(_run_player, _PLAYER_FIELDS, "sound output", device)
        self._clock = CounterClock()
        self._generation = 0
        self._wanted_seconds = 0.0
        self._started_at = 0.0
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
            self._child.send(("play", self._generation, round(self._wanted_seconds * PLAYBACK_RATE)))

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

    def _restart(self, seconds: float) -> None:
        self._generation += 1
        self._clock.restart(seconds)

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

    def now(self) -> float:
        """Seconds of the sound being heard at this moment."""
        if not self.is_playing:
            return self._wanted_seconds
        state = self._child.fields.read()
        if state["generation"] == self._generation and not state["has_ended"]:
            self._clock.report(state["frame"] / PLAYBACK_RATE, state["heard_at"])
        return self._clock.at(time.monotonic())

    def close(self) -> None:
        self._child.close()


class Microphone:
    """Live sound: two rings, a level, and a clock that runs `delay_seconds` behind the air."""

    def __init__(self, device: str | None = None, *, delay_seconds: float) -> None:
        self._child = _DeviceProcess(_run_microphone, _MICROPHONE_FIELDS, "microphone", device)
        self.speech, self.playback = _microphone_spools(self._child.folder)
        self.delay_seconds = delay_seconds
        self._clock = CounterClock()
        self.is_ready = False
        self.is_playing = True
        self.failure: str | None = None
        self.device_name = ""
        self.level = 0.0  # RMS of the last block, 0..1
        self.peak = 0.0
        self.overflows = 0
        self.capture_seconds = 0.0  # the device's own delay

    def poll(self) -> None:
        for answer in self._child.answers():
            if answer[0] == "ready":
                _, self.device_name, self.capture_seconds = answer
                self.is_ready = True
            elif answer[0] == "failed" and self.failure is None:
                self.failure = answer[1]
        state = self._child.fields.read()
        self.level, self.peak, self.overflows = state["level"], state["peak"], int(state["overflows"])
        if self.is_ready and state["samples"] and time.monotonic() - state["captured_at"] > _STALL_SECONDS and self.failure is None:
            self.failure = "the microphone does not answer"

    def now(self) -> float:
        state = self._child.fields.read()
        if state["samples"]:
            self._clock.report(state["samples"] / SAMPLE_RATE - self.delay_seconds, state["captured_at"])
        return max(0.0, self._clock.at(time.monotonic()))

    def play(self) -> None:
        pass

    def pause(self) -> None:
        pass

    def seek(self, seconds: float) -> None:
        pass

    def close(self) -> None:
        self._child.close()


def _microphone_spools(folder: str) -> tuple[SpoolFormat, SpoolFormat]:
    speech_frames, playback_frames = _SPEECH_RING_SECONDS * SAMPLE_RATE, _PLAYBACK_RING_SECONDS * PLAYBACK_RATE
    return (
        SpoolFormat(os.path.join(folder, "speech.f32"), SAMPLE_RATE, 1, "float32", speech_frames),
        SpoolFormat(os.path.join(folder, "playback.s16"), PLAYBACK_RATE, 2, "int16", playback_frames),
    )


# ---- child processes -----------------------------------------------------------------------------------------------


def _enter_child() -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    quiet = os.open(os.devnull, os.O_WRONLY)  # ALSA and PortAudio write pages to stderr; what matters is reported
    os.dup2(quiet, 2)
    os.close(quiet)


def _pick_device(sounddevice, name: str | None, kind: str) -> int | None:
    """Index of the device whose name contains `name`; None is the system's choice. `ValueError` lists the names."""
    if name is None or name == "":
        return None
    key = f"max_{kind}_channels"
    devices = [(index, entry["name"]) for index, entry in enumerate(sounddevice.query_devices()) if entry[key] > 0]
    for index, found in devices:
        if name == str(index) or name.lower() in found.lower():
            return index
    raise ValueError(f"no {kind} device is called {name!r}; there are: {', '.join(found for _, found in devices) or 'none'}")


def _wait_for_quit(connection: Connection, handle) -> None:
    """Handle messages until "quit", or until the parent is gone."""
    while True:
        try:
            message = connection.recv()
        except (EOFError, OSError):
            return
        if message[0] == "quit":
            return
        handle(message)


def _report_failure(connection: Connection, error: BaseException) -> None:
    try:
        connection.send(("failed", " ".join(str(error).split())[:160] or type(error).__name__))
    except (BrokenPipeError, OSError):
        pass


class _Playing:
    """What the audio callback needs, replaced whole by the control side."""

    def __init__(self, generation: int, reader: SpoolReader | None, frame: int, is_playing: bool) -> None:
        self.generation, self.reader, self.frame, self.is_playing = generation, reader, frame, is_playing
        self.has_ended = False
        self.fade = _FADE_FRAMES


def _run_player(fields_path: str, connection: Connection, folder: str, device: str | None) -> None:
    _enter_child()
    fields = SharedFields(fields_path, _PLAYER_FIELDS)
    playing = _Playing(0, None, 0, False)
    is_complete = False
    underflows = 0
    try:
        import sounddevice

        index = _pick_device(sounddevice, device, "output")
        described = sounddevice.query_devices(index, "output")
    except Exception as error:  # the end of the process: PortAudio's errors have no narrower base
        return _report_failure(connection, error)

    def fill(out: np.ndarray, count: int, times, status) -> None:
        nonlocal underflows
        state = playing
        stamp = time.monotonic()
        delay = times.outputBufferDacTime - times.currentTime
        if not 0.0 <= delay < 2.0:
            delay = _OUTPUT_LATENCY_SECONDS
        if status.output_underflow:
            underflows += 1
        start = state.frame
        out[:] = 0
        if state.is_playing and not state.has_ended and state.reader is not None:
            available = max(0, min(count, state.reader.count - start))
            if available:
                block = state.reader.read(start, available)
                if state.fade > 0:
                    length = min(state.fade, available)
                    ramp = (_FADE_FRAMES - state.fade + np.arange(length)) / _FADE_FRAMES
                    block[:length] = (block[:length] * ramp[:, None]).astype(np.int16)
                    state.fade -= length
                out[:available] = block
                state.frame = start + available
            elif is_complete:
                state.has_ended = True
        fields.publish(
            generation=state.generation, frame=start, heard_at=stamp + delay,
            is_playing=state.is_playing, has_ended=state.has_ended, underflows=underflows,
        )  # fmt: skip

    def handle(message: tuple) -> None:
        nonlocal playing, is_complete
        if message[0] == "load":
            is_complete = False
            playing = _Playing(playing.generation, SpoolReader(message[1]), 0, False)
        elif message[0] == "complete":
            is_complete = True
        elif message[0] == "play":
            playing = _Playing(message[1], playing.reader, message[2], True)
        elif message[0] == "pause":
            playing = _Playing(playing.generation, playing.reader, playing.frame, False)

    try:
        with sounddevice.OutputStream(
            samplerate=PLAYBACK_RATE, channels=2, dtype="int16", device=index, latency=_OUTPUT_LATENCY_SECONDS, callback=fill
        ):
            connection.send(("ready", str(described["name"])))
            _wait_for_quit(connection, handle)
    except Exception as error:  # the end of the process: PortAudio's errors have no narrower base
        _report_failure(connection, error)


def _run_microphone(fields_path: str, connection: Connection, folder: str, device: str | None) -> None:
    _enter_child()
    fields = SharedFields(fields_path, _MICROPHONE_FIELDS)
    speech, playback = (SpoolWriter(spool) for spool in _microphone_spools(folder))
    blocks: queue.SimpleQueue[tuple[np.ndarray, float, bool]] = queue.SimpleQueue()
    try:
        import sounddevice
        import soxr

        index = _pick_device(sounddevice, device, "input")
        described = sounddevice.query_devices(index, "input")
        rate = int(described["default_samplerate"])

        def take(data: np.ndarray, count: int, times, status) -> None:
            age = times.currentTime - times.inputBufferAdcTime - count / rate
            blocks.put((data[:, 0].copy(), time.monotonic() - (age if 0.0 <= age < 1.0 else 0.0), bool(status.input_overflow)))

        to_speech = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="MQ")
        to_playback = soxr.ResampleStream(rate, PLAYBACK_RATE, 1, dtype="float32", quality="MQ")
        overflows = 0
        with sounddevice.InputStream(samplerate=rate, channels=1, dtype="float32", device=index, latency="low", callback=take) as stream:
            connection.send(("ready", str(described["name"]), float(stream.latency)))
            while True:
                if connection.poll() and connection.recv()[0] == "quit":
                    return
                try:
                    block, captured_at, overflowed = blocks.get(timeout=0.1)
                except queue.Empty:
                    continue
                overflows += overflowed
                block = np.nan_to_num(block, nan=0.0, posinf=0.0, neginf=0.0)
                heard = to_playback.resample_chunk(block)
                playback.append(np.rint(np.clip(heard, -1, 1) * 32767).astype(np.int16)[:, None].repeat(2, axis=1))
                speech.append(to_speech.resample_chunk(block)[:, None])
                level = float(np.sqrt(np.mean(block**2))) if len(block) else 0.0
                fields.publish(
                    samples=speech.count, captured_at=captured_at, level=level,
                    peak=float(np.abs(block).max(initial=0.0)), overflows=overflows,
                )  # fmt: skip
    except EOFError:  # the parent is gone
        return
    except Exception as error:  # the end of the process: PortAudio's errors have no narrower base
        _report_failure(connection, error)
