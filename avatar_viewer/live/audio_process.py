"""What runs in the child processes of `audio_io`: one PortAudio stream each, for sound out or for sound in.

The audio callbacks only copy: no waiting, no files' names, no printing. The only home of sounddevice's streams.
"""

from __future__ import annotations

import os
import queue
import time
from multiprocessing.connection import Connection

import numpy as np

from ..config import SAMPLE_RATE
from .decoding import PLAYBACK_RATE
from .gaps import GapFiller
from .pulse import PulseServer
from .spool import SharedFields, SpoolFormat, SpoolReader, SpoolWriter
from .voice_chain import VoiceChain

PLAYER_FIELDS = ("generation", "frame", "heard_at", "is_playing", "has_ended", "underflows")
MICROPHONE_FIELDS = ("samples", "captured_at", "level", "peak", "is_open", "overflows", "lost_seconds")
_OUTPUT_LATENCY_SECONDS = 0.08
_FADE_FRAMES = 240  # 5 ms against clicks after a seek
_SPEECH_RING_SECONDS, _PLAYBACK_RING_SECONDS = 60, 120


def microphone_spools(folder: str) -> tuple[SpoolFormat, SpoolFormat]:
    """Where a microphone's process writes: 16 kHz for the speech path, 48 kHz to record and to monitor."""
    speech_frames, playback_frames = _SPEECH_RING_SECONDS * SAMPLE_RATE, _PLAYBACK_RING_SECONDS * PLAYBACK_RATE
    return (
        SpoolFormat(os.path.join(folder, "speech.f32"), SAMPLE_RATE, 1, "float32", speech_frames),
        SpoolFormat(os.path.join(folder, "playback.s16"), PLAYBACK_RATE, 2, "int16", playback_frames),
    )


# ---- sound out -----------------------------------------------------------------------------------------------------


class _Playing:
    """What the audio callback needs, replaced whole by the control side."""

    def __init__(self, generation: int, reader: SpoolReader | None, frame: float, is_playing: bool, rate: float = 1.0) -> None:
        self.generation, self.reader, self.frame, self.is_playing, self.rate = generation, reader, frame, is_playing, rate
        self.has_ended = False
        self.fade = _FADE_FRAMES

    def read(self, count: int) -> np.ndarray:  # -> [<= count, 2] int16
        """The next frames to hear; fewer where no more are there."""
        assert self.reader is not None
        if self.rate == 1.0:
            start = int(self.frame)
            available = max(0, min(count, self.reader.count - start))
            self.frame = start + available
            return self.reader.read(start, available)
        places = self.frame + self.rate * np.arange(count)
        places = places[: max(0, int(np.searchsorted(places, self.reader.count - 1)))]
        if not len(places):
            return np.zeros((0, 2), dtype=np.int16)
        first = int(places[0])
        block = self.reader.read(first, int(places[-1]) - first + 2).astype(np.float32)
        index = places.astype(np.int64) - first
        part = (places - first - index)[:, None].astype(np.float32)
        self.frame += self.rate * len(places)
        return np.rint(block[index] * (1 - part) + block[index + 1] * part).astype(np.int16)


def run_player(fields_path: str, connection: Connection, folder: str, device: str | None) -> None:
    _enter_child()
    fields = SharedFields(fields_path, PLAYER_FIELDS)
    playing = _Playing(0, None, 0, False)
    is_complete = is_quitting = False
    underflows = 0
    try:
        index, name, _ = _pick_device(device, "output")
        import sounddevice
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
            block = state.read(count)
            if len(block):
                if state.fade > 0:
                    length = min(state.fade, len(block))
                    ramp = (_FADE_FRAMES - state.fade + np.arange(length)) / _FADE_FRAMES
                    block[:length] = (block[:length] * ramp[:, None]).astype(np.int16)
                    state.fade -= length
                out[: len(block)] = block
            elif is_complete:
                state.has_ended = True
        fields.publish(
            generation=state.generation, frame=start, heard_at=stamp + delay,
            is_playing=state.is_playing, has_ended=state.has_ended, underflows=underflows,
        )  # fmt: skip

    def on_finished() -> None:
        if not is_quitting:
            _report_failure(connection, RuntimeError("the sound device is gone"))

    def handle(message: tuple) -> None:
        nonlocal playing, is_complete
        if message[0] == "load":
            is_complete = False
            playing = _Playing(playing.generation, SpoolReader(message[1]), 0, False)
        elif message[0] == "complete":
            is_complete = True
        elif message[0] == "play":
            playing = _Playing(message[1], playing.reader, message[2], True, message[3])
        elif message[0] == "pause":
            playing = _Playing(playing.generation, playing.reader, playing.frame, False)

    try:
        with sounddevice.OutputStream(
            samplerate=PLAYBACK_RATE, channels=2, dtype="int16", device=index, latency=_OUTPUT_LATENCY_SECONDS,
            callback=fill, finished_callback=on_finished,
        ):  # fmt: skip
            connection.send(("ready", name))
            _wait_for_quit(connection, handle)
            is_quitting = True
    except Exception as error:  # the end of the process: PortAudio's errors have no narrower base
        _report_failure(connection, error)


# ---- sound in ------------------------------------------------------------------------------------------------------


def run_microphone(fields_path: str, connection: Connection, folder: str, device: str | None) -> None:
    _enter_child()
    fields = SharedFields(fields_path, MICROPHONE_FIELDS)
    speech, playback = (SpoolWriter(spool) for spool in microphone_spools(folder))
    blocks: queue.SimpleQueue[tuple[np.ndarray, float, float, bool] | None] = queue.SimpleQueue()  # None: the stream has ended
    try:
        index, name, rate = _pick_device(device, "input")
        import sounddevice
        import soxr

        def take(data: np.ndarray, count: int, times, status) -> None:
            age = times.currentTime - times.inputBufferAdcTime - count / rate
            blocks.put((data[:, 0].copy(), time.monotonic(), age if 0.0 <= age < 1.0 else 0.0, bool(status.input_overflow)))

        to_speech = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="MQ")
        to_playback = soxr.ResampleStream(rate, PLAYBACK_RATE, 1, dtype="float32", quality="MQ")
        chain = VoiceChain(rate)
        overflows = 0
        with sounddevice.InputStream(
            samplerate=rate, channels=1, dtype="float32", device=index, latency="low", callback=take,
            finished_callback=lambda: blocks.put(None),
        ) as stream:  # fmt: skip
            connection.send(("ready", name, float(stream.latency)))
            gaps = GapFiller(rate, float(stream.latency))
            while True:
                if connection.poll():
                    message = connection.recv()
                    if message[0] == "quit":
                        return
                    chain.settings = message[1]
                try:
                    taken = blocks.get(timeout=0.1)
                except queue.Empty:
                    continue
                if taken is None:
                    raise RuntimeError("the device is gone")
                block, arrived, age, overflowed = taken
                overflows += overflowed
                pieces = gaps.take(block, arrived, age)
                if not pieces:
                    continue
                voice, amplified = chain.process(np.concatenate(pieces))
                heard = to_playback.resample_chunk(voice)
                playback.append(np.rint(np.clip(heard, -1, 1) * 32767).astype(np.int16)[:, None].repeat(2, axis=1))
                speech.append(to_speech.resample_chunk(voice)[:, None])
                level = float(np.sqrt(np.mean(amplified**2))) if len(amplified) else 0.0
                fields.publish(
                    samples=speech.count, captured_at=gaps.captured_at, level=level,
                    peak=float(np.abs(amplified).max(initial=0.0)), is_open=chain.is_open, overflows=overflows,
                    lost_seconds=gaps.lost_seconds,
                )  # fmt: skip
    except EOFError:  # the parent is gone
        return
    except Exception as error:  # the end of the process: PortAudio's errors have no narrower base
        _report_failure(connection, error)


# ---- both ----------------------------------------------------------------------------------------------------------


def _enter_child() -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    quiet = os.open(os.devnull, os.O_WRONLY)  # ALSA and PortAudio write pages to stderr; what matters is reported
    os.dup2(quiet, 2)
    os.close(quiet)


def _pick_device(wanted: str | None, kind: str) -> tuple[int | None, str, int]:
    """PortAudio's index (None: the system's choice), the name for people, the rate.

    `wanted` is a part of a name, or PortAudio's number; `ValueError` lists the names. On Linux the sound server's own names
    come first: it is asked through the environment, which must be set before PortAudio looks around.
    """
    server_device, server_names = _pick_from_server(wanted, kind)
    import sounddevice

    entries = list(enumerate(sounddevice.query_devices()))
    if server_device is not None:
        index = next((index for index, entry in entries if entry["name"] in ("pulse", "default", "pipewire")), None)
        if index is not None:
            return index, server_device.name, server_device.rate
        if wanted:
            raise ValueError(f"PortAudio does not reach the sound server that has {server_device.name!r}; install its ALSA plug-in (Debian: libasound2-plugins)")
    if not wanted:
        described = sounddevice.query_devices(None, kind)
        return None, str(described["name"]), int(described["default_samplerate"])
    devices = [(index, entry) for index, entry in entries if entry[f"max_{kind}_channels"] > 0]
    for index, entry in devices:
        if wanted == str(index) or wanted.lower() in entry["name"].lower():
            return index, str(entry["name"]), int(entry["default_samplerate"])
    names = server_names or [entry["name"] for _, entry in devices]
    raise ValueError(f"no {kind} device is called {wanted!r}; there are: {', '.join(names) or 'none'}")


def _pick_from_server(wanted: str | None, kind: str):
    """The sound server's device, and the names of all of this kind; None and no names where no server is."""
    try:
        server = PulseServer()
        state = server.ask()
        server.close()
    except OSError:
        return None, []
    devices = state.inputs if kind == "input" else state.outputs
    names = [device.name for device in devices]
    if not wanted:
        return next((device for device in devices if device.is_default), None), names
    exact = [device for device in devices if wanted in (device.name, device.key)]
    near = [device for device in devices if wanted.lower() in device.name.lower() or wanted.lower() in device.key.lower()]
    found = next(iter(exact + near), None)
    if found is not None:
        os.environ["PULSE_SOURCE" if kind == "input" else "PULSE_SINK"] = found.key
    return found, names


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
        connection.send(("failed", " ".join(str(error).split())[:200] or type(error).__name__))
    except (BrokenPipeError, OSError):
        pass
