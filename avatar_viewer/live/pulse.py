"""What a PulseAudio or PipeWire server knows of its devices: PortAudio on Linux shows all of them as one, "pulse".

Names to choose from, word of every change (hot-plug), and through which device a process really plays or listens: after
an unplugging the server moves a stream elsewhere without a word to it. Only asks, through libpulse; a device is chosen by
the environment variables PULSE_SINK and PULSE_SOURCE of the process that opens it. Runs in child processes: a server that
hangs holds up whoever asks it.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import sys
import time
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_int, c_uint8, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass, field

_READY, _FAILED, _TERMINATED = 4, 5, 6  # pa_context_state_t
_NO_AUTOSPAWN = 1
_NOT_A_MONITOR = 0xFFFFFFFF
_ALL_EVENTS = 0x0001 | 0x0002 | 0x0004 | 0x0008 | 0x0080  # sinks, sources, playing and listening streams, the server's defaults
_ASK_SECONDS = 2.0


class _SampleSpec(ctypes.Structure):
    _fields_ = [("format", c_int), ("rate", c_uint32), ("channels", c_uint8)]


class _ChannelMap(ctypes.Structure):
    _fields_ = [("channels", c_uint8), ("map", c_int * 32)]


class _Volume(ctypes.Structure):
    _fields_ = [("channels", c_uint8), ("values", c_uint32 * 32)]


class _Device(ctypes.Structure):
    """The common beginning of pa_sink_info and pa_source_info; `monitor` means something in the latter only."""

    _fields_ = [
        ("name", c_char_p), ("index", c_uint32), ("description", c_char_p), ("sample_spec", _SampleSpec), ("channel_map", _ChannelMap),
        ("owner_module", c_uint32), ("volume", _Volume), ("mute", c_int), ("monitor", c_uint32),
    ]  # fmt: skip


class _Playing(ctypes.Structure):
    """The beginning of pa_sink_input_info."""

    _fields_ = [
        ("index", c_uint32), ("name", c_char_p), ("owner_module", c_uint32), ("client", c_uint32), ("device", c_uint32),
        ("sample_spec", _SampleSpec), ("channel_map", _ChannelMap), ("volume", _Volume), ("buffer_usec", c_uint64),
        ("device_usec", c_uint64), ("resample_method", c_char_p), ("driver", c_char_p), ("mute", c_int), ("proplist", c_void_p),
    ]  # fmt: skip


class _Listening(ctypes.Structure):
    """The beginning of pa_source_output_info."""

    _fields_ = [
        ("index", c_uint32), ("name", c_char_p), ("owner_module", c_uint32), ("client", c_uint32), ("device", c_uint32),
        ("sample_spec", _SampleSpec), ("channel_map", _ChannelMap), ("buffer_usec", c_uint64), ("device_usec", c_uint64),
        ("resample_method", c_char_p), ("driver", c_char_p), ("proplist", c_void_p),
    ]  # fmt: skip


class _Server(ctypes.Structure):
    """The beginning of pa_server_info."""

    _fields_ = [
        ("user_name", c_char_p), ("host_name", c_char_p), ("server_version", c_char_p), ("server_name", c_char_p),
        ("sample_spec", _SampleSpec), ("default_sink", c_char_p), ("default_source", c_char_p),
    ]  # fmt: skip


_ON_LIST = ctypes.CFUNCTYPE(None, c_void_p, c_void_p, c_int, c_void_p)
_ON_SERVER = ctypes.CFUNCTYPE(None, c_void_p, POINTER(_Server), c_void_p)
_ON_EVENT = ctypes.CFUNCTYPE(None, c_void_p, c_int, c_uint32, c_void_p)


@dataclass(frozen=True)
class PulseDevice:
    key: str  # the server's name for it
    name: str  # for people
    rate: int  # Hz
    is_default: bool = False


@dataclass(frozen=True)
class PulseState:
    """Everything at one moment. Monitors of outputs are left out of the inputs: they hear what plays."""

    inputs: tuple[PulseDevice, ...] = ()
    outputs: tuple[PulseDevice, ...] = ()
    listening: dict[int, str] = field(default_factory=dict)  # process id -> name of the input it really hears
    playing: dict[int, str] = field(default_factory=dict)  # process id -> name of the output it really plays to


class PulseServer:
    """A connection. `OSError` where there is no library or no server."""

    def __init__(self) -> None:
        if not sys.platform.startswith("linux"):
            raise OSError("no PulseAudio on this system")
        self._lib = lib = ctypes.CDLL(ctypes.util.find_library("pulse") or "libpulse.so.0")
        for name in ("pa_mainloop_new", "pa_mainloop_get_api", "pa_context_new", "pa_context_subscribe", "pa_context_get_server_info"):
            getattr(lib, name).restype = c_void_p
        for kind in ("sink", "source", "sink_input", "source_output"):
            getattr(lib, f"pa_context_get_{kind}_info_list").restype = c_void_p
        lib.pa_proplist_gets.restype = c_char_p
        self._loop = c_void_p(lib.pa_mainloop_new())
        self._context = c_void_p(lib.pa_context_new(c_void_p(lib.pa_mainloop_get_api(self._loop)), b"avatar viewer"))
        self._on_event = _ON_EVENT(lambda *_: setattr(self, "has_changed", True))
        self.has_changed = False  # since the last `ask`
        lib.pa_context_connect(self._context, None, _NO_AUTOSPAWN, None)
        deadline = time.monotonic() + _ASK_SECONDS
        while (state := lib.pa_context_get_state(self._context)) != _READY:
            if state in (_FAILED, _TERMINATED) or time.monotonic() > deadline:
                self.close()
                raise OSError("no sound server answers")
            self.wait(0.1)
        lib.pa_context_set_subscribe_callback(self._context, self._on_event, None)
        self._drop(lib.pa_context_subscribe(self._context, _ALL_EVENTS, c_void_p(None), None))

    @property
    def is_alive(self) -> bool:
        return self._lib.pa_context_get_state(self._context) == _READY

    def wait(self, seconds: float) -> None:
        """Handle what the server says, or come back after this time."""
        lib = self._lib
        if lib.pa_mainloop_prepare(self._loop, int(seconds * 1e6)) >= 0 and lib.pa_mainloop_poll(self._loop) >= 0:
            lib.pa_mainloop_dispatch(self._loop)

    def ask(self) -> PulseState:
        """The state now; `OSError` where the server does not answer."""
        self.has_changed = False
        defaults: list[bytes] = []
        found: dict[str, list] = {kind: [] for kind in ("sink", "source", "sink_input", "source_output")}
        lib, waiting = self._lib, set(found) | {"server"}

        def on_server(_context, info, _data) -> None:
            if info:
                defaults.extend((info.contents.default_sink or b"", info.contents.default_source or b""))
            waiting.discard("server")

        def listener(kind: str, read: Callable[[int], object]):
            def on_entry(_context, info, end, _data) -> None:
                if end:
                    waiting.discard(kind)
                elif info:
                    found[kind].append(read(info))

            return _ON_LIST(on_entry)

        callbacks = [_ON_SERVER(on_server)]
        self._drop(lib.pa_context_get_server_info(self._context, callbacks[0], None))
        readers = (_read_device, _read_device, self._reader_of(_Playing), self._reader_of(_Listening))
        for kind, read in zip(found, readers):
            callbacks.append(listener(kind, read))
            self._drop(getattr(lib, f"pa_context_get_{kind}_info_list")(self._context, callbacks[-1], None))
        deadline = time.monotonic() + _ASK_SECONDS
        while waiting:
            if time.monotonic() > deadline or not self.is_alive:
                self.close()  # before the callbacks are forgotten, which a late answer would call
                raise OSError("the sound server does not answer")
            self.wait(0.1)
        return _state(found, defaults)

    def _reader_of(self, kind: type[ctypes.Structure]):
        def read(address: int) -> tuple[int, int]:  # -> process, device index
            entry = ctypes.cast(address, POINTER(kind)).contents
            process = self._lib.pa_proplist_gets(c_void_p(entry.proplist), b"application.process.id")
            return (int(process) if process and process.isdigit() else 0), entry.device

        return read

    def _drop(self, operation: int | None) -> None:
        if operation:
            self._lib.pa_operation_unref(c_void_p(operation))

    def close(self) -> None:
        if self._context:
            self._lib.pa_context_disconnect(self._context)
            self._lib.pa_context_unref(self._context)
            self._lib.pa_mainloop_free(self._loop)
            self._context = None


def _read_device(address: int) -> tuple[int, bytes, str, int, bool]:
    entry = ctypes.cast(address, POINTER(_Device)).contents
    text = (entry.description or entry.name or b"").decode("utf-8", "replace")
    return entry.index, entry.name or b"", text, entry.sample_spec.rate, entry.monitor != _NOT_A_MONITOR


def _state(found: dict[str, list], defaults: list[bytes]) -> PulseState:
    def devices(entries: list) -> tuple[PulseDevice, ...]:
        texts = [text for _, _, text, _, _ in entries]
        return tuple(
            PulseDevice(
                key.decode("utf-8", "replace"), text if texts.count(text) == 1 else f"{text} ({key.decode('utf-8', 'replace')})",
                rate, key in defaults,
            )
            for _, key, text, rate, _ in entries
        )  # fmt: skip

    def routes(streams: list, entries: list) -> dict[int, str]:
        names = {entry[0]: device.name for entry, device in zip(entries, devices(entries))}
        return {process: names.get(device, "") for process, device in streams if process}

    microphones = [entry for entry in found["source"] if not entry[4]]
    return PulseState(
        inputs=devices(microphones), outputs=devices(found["sink"]),
        listening=routes(found["source_output"], found["source"]), playing=routes(found["sink_input"], found["sink"]),
    )  # fmt: skip
