"""Which sound devices there are, asked in a child process: a broken sound server may hang whoever asks it."""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from multiprocessing.connection import Connection

_TIMEOUT_SECONDS = 8.0


@dataclass(frozen=True)
class SoundDevice:
    name: str
    inputs: int  # channels
    outputs: int


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
        return receiver.recv()
    except EOFError:
        return (), "asking for sound devices ended the process that asked"
    finally:
        process.kill()
        process.join()
        receiver.close()


def _ask(connection: Connection) -> None:
    try:
        import sounddevice
    except OSError as error:  # PortAudio itself is missing
        connection.send(((), f"{error}; install PortAudio (Debian: libportaudio2)"))
        return
    try:
        found = tuple(
            SoundDevice(str(device["name"]), int(device["max_input_channels"]), int(device["max_output_channels"]))
            for device in sounddevice.query_devices()
        )
    except sounddevice.PortAudioError as error:
        connection.send(((), str(error)))
        return
    connection.send((found, "" if found else "no sound device"))
