"""Which sound devices there are, asked in child processes: a broken sound server may hang whoever asks it.

`list_devices` asks once. `DeviceWatch` keeps asking: it hears of devices that come and go, and through which one a process
really plays or listens. Without PulseAudio or PipeWire it knows what PortAudio lists, when asked to look again.
"""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from .pulse import PulseServer, PulseState

_TIMEOUT_SECONDS = 8.0
_POLL_SECONDS = 0.25  # between looks for a question from the window
_SERVER_SECONDS = 2.0  # between tries to find a sound server


@dataclass(frozen=True)
class SoundDevice:
    name: str
    inputs: int  # channels
    outputs: int
    is_default: bool = False


@dataclass(frozen=True)
class SoundDevices:
    """What is known of them at one moment."""

    devices: tuple[SoundDevice, ...] = ()
    reason: str = ""  # why there are none
    listening: dict[int, str] = field(default_factory=dict)  # process id -> device that it really hears, where that is known
    playing: dict[int, str] = field(default_factory=dict)

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(device.name for device in self.devices if device.inputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(device.name for device in self.devices if device.outputs)


def list_devices() -> tuple[tuple[SoundDevice, ...], str]:
    """The devices, and where there are none one line that says why."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_ask, args=(sender,), name="device list", daemon=True)
    process.start()
    sender.close()
    try:
        if not receiver.poll(_TIMEOUT_SECONDS):
            return (), f"the sound system did not answer within {_TIMEOUT_SECONDS:.0f} s"
        found: SoundDevices = receiver.recv()
        return found.devices, found.reason
    except EOFError:
        return (), "asking for sound devices ended the process that asked"
    finally:
        process.kill()
        process.join()
        receiver.close()


class DeviceWatch:
    """The devices as they come and go. Belongs to the main thread; nothing here waits."""

    def __init__(self) -> None:
        self.found = SoundDevices()
        self.is_asking = True
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, child_end = context.Pipe()
        self._process = context.Process(target=_watch, args=(child_end,), name="device watch", daemon=True)
        self._process.start()
        child_end.close()
        self._asked_at = time.monotonic()

    def refresh(self) -> None:
        """Look again now; `found` changes once there is an answer, or none within `_TIMEOUT_SECONDS`."""
        self.is_asking, self._asked_at = True, time.monotonic()
        try:
            self._connection.send("refresh")
        except OSError:
            self._restart()

    def poll(self) -> bool:
        """Take in what the process says; True where `found` is new."""
        newest = None
        try:
            while self._connection.poll():
                newest = self._connection.recv()
        except (EOFError, OSError):
            if self._process.exitcode is not None and not self.is_asking:
                return False  # it ended and nobody asks: not again and again
            newest = SoundDevices(reason="asking for sound devices ended the process that asked")
        if newest is None and self.is_asking and time.monotonic() - self._asked_at > _TIMEOUT_SECONDS:
            newest = SoundDevices(reason=f"the sound system did not answer within {_TIMEOUT_SECONDS:.0f} s")
            self._restart()
        if newest is None:
            return False
        self.is_asking = False
        is_new, self.found = newest != self.found, newest
        return is_new

    def _restart(self) -> None:
        self.close()
        self._start()

    def close(self) -> None:
        self._process.kill()
        self._process.join(timeout=1.0)
        self._connection.close()


# ---- child processes -----------------------------------------------------------------------------------------------


def _ask(connection: Connection) -> None:
    connection.send(_pulse_devices_once() or _portaudio_devices())


def _watch(connection: Connection) -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server: PulseServer | None = None
    shown: SoundDevices | None = None
    is_asked, looked_at = True, 0.0
    while True:
        try:
            if server is None and (is_asked or time.monotonic() - looked_at > _SERVER_SECONDS):
                looked_at = time.monotonic()
                server = _connect()
                is_asked = is_asked or server is not None
                if server is None and (is_asked or shown is None or shown.listening or shown.playing):
                    shown = _portaudio_devices()
                    connection.send(shown)
                is_asked = is_asked and server is not None
            if server is not None and (is_asked or server.has_changed or shown is None):
                found = _pulse_devices(server.ask())
                if is_asked or found != shown:
                    connection.send(found)
                shown, is_asked = found, False
            if server is not None:
                server.wait(_POLL_SECONDS)
                if not server.is_alive:
                    raise OSError("the sound server has ended")
            if connection.poll(0.0 if server is not None else _POLL_SECONDS):
                is_asked = connection.recv() == "refresh"
        except EOFError:  # the parent is gone
            return
        except BrokenPipeError:
            return
        except OSError as error:  # the server is gone or hangs; it may come back
            if server is not None:
                server.close()
            server, looked_at = None, time.monotonic()
            shown = SoundDevices(reason=str(error))
            connection.send(shown)


def _connect() -> PulseServer | None:
    try:
        return PulseServer()
    except OSError:
        return None


def _pulse_devices(state: PulseState) -> SoundDevices:
    devices = [SoundDevice(device.name, 1, 0, device.is_default) for device in state.inputs]
    devices += [SoundDevice(device.name, 0, 2, device.is_default) for device in state.outputs]
    return SoundDevices(tuple(devices), "" if devices else "no sound device", state.listening, state.playing)


def _pulse_devices_once() -> SoundDevices | None:
    try:
        server = PulseServer()
        try:
            return _pulse_devices(server.ask())
        finally:
            server.close()
    except OSError:
        return None


def _portaudio_devices() -> SoundDevices:
    """PortAudio's list is frozen when it starts, so it starts anew; no stream lives in this process."""
    try:
        import sounddevice
    except OSError as error:  # PortAudio itself is missing
        return SoundDevices(reason=f"{error}; install PortAudio (Debian: libportaudio2)")
    try:
        sounddevice._terminate()
        sounddevice._initialize()
        default_input, default_output = sounddevice.default.device
        devices = tuple(
            SoundDevice(
                str(entry["name"]), int(entry["max_input_channels"]), int(entry["max_output_channels"]),
                index in (default_input, default_output),
            )
            for index, entry in enumerate(sounddevice.query_devices())
        )  # fmt: skip
    except sounddevice.PortAudioError as error:
        return SoundDevices(reason=str(error))
    return SoundDevices(devices, "" if devices else "no sound device")
