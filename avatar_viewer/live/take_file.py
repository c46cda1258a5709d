"""A take file, `name.take`: the performance beside its mp4, from which it can be rendered again at any size and rate.

An ordinary zip, nothing compressed, of three ordinary files: `log.jsonl` (`take_journal.py` says what is in it), `heard.flac`
(48 kHz stereo, the whole take) and `speech.wav` (16 kHz mono float, what moved the face, one stretch after the other).
Knows files, not faces; `replay.py` performs them.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from ..config import SAMPLE_RATE
from ..errors import InputError
from .decoding import PLAYBACK_RATE
from .spool import SpoolFormat, SpoolReader, SpoolWriter
from .take_folder import HEARD, LOG, PACKED, SPEECH, TakeFolder

FORMAT, FORMAT_VERSION = "avatar-viewer take", 1
MAX_SECONDS = 12 * 3600.0
_PARTS = ("log.jsonl", "heard.flac", "speech.wav")
_MAX_LOG_BYTES = 256 << 20
_BLOCK = 1 << 16  # sample frames at a time
# What each kind of entry has besides `at` and `does`; a tuple of types is what the value may be.
_NUMBER = (int, float)
_ENTRIES: dict[str, dict[str, tuple[type, ...]]] = {
    "play": {"from": (int,)},
    "pause": {"from": (int,)},
    "speak": {
        "first": (int,), "seconds": _NUMBER, "is_whole": (bool,), "seed": (int,), "blinks": (bool,),
        "guidance": _NUMBER, "hop_ms": (int,), "lookahead_ms": (int,),
    },
    "rest": {},
    "hop": {"seconds": _NUMBER, "edit": (dict,)},
    "edit": {"seconds": _NUMBER, "ease_seconds": _NUMBER, "edit": (dict,)},
    "forget": {},
    "look": {"yaw_degrees": _NUMBER, "pitch_degrees": _NUMBER, "distance": _NUMBER, "fov_degrees": _NUMBER, "target": (list,)},
    "prompt": {"text": (str,)},
    "avatar": {"name": (str,), "sha256": (str,)},
}  # fmt: skip
_RANGES = (
    ("from", 0, 2**53), ("first", 0, 2**53), ("seed", 0, 2**63 - 1), ("ease_seconds", 0, 60), ("hop_ms", 1, 1000), ("lookahead_ms", 0, 1000),
    ("yaw_degrees", -1e4, 1e4), ("pitch_degrees", -90, 90), ("distance", 0.01, 100), ("fov_degrees", 1, 170),
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A line of the log."""

    at: int  # sample frame of the take
    does: str
    values: dict[str, Any]  # by the names of `_ENTRIES`; `edit` is an `AUEdit`


@dataclass(frozen=True)
class TakeLog:
    """The whole log, in order of time."""

    avatar_name: str
    avatar_sha256: str
    size: tuple[int, int]
    fps: float
    started: str
    entries: tuple[Entry, ...]


def pack_take(folder: TakeFolder, on_progress: Callable[[], None] = lambda: None) -> Path:
    """The take file of a take in the making, in its folder, whole or not at all; `OSError` where it cannot be written."""
    packed, partial = folder / PACKED, folder / (PACKED + ".partial")
    flac, wav = folder / "heard.flac", folder / "speech.wav"
    try:
        _spool_to_sound(SpoolFormat(str(folder / HEARD), PLAYBACK_RATE, 2, "int16"), flac, "FLAC", "PCM_16", on_progress)
        _spool_to_sound(SpoolFormat(str(folder / SPEECH), SAMPLE_RATE, 1, "float32"), wav, "WAV", "FLOAT", on_progress)
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            for path, name in zip((folder / LOG, flac, wav), _PARTS):
                archive.write(path, name)
        with open(partial, "r+b") as file:
            os.fsync(file.fileno())
        os.replace(partial, packed)
    except soundfile.LibsndfileError as error:
        raise OSError(None, str(error)) from error
    finally:
        for path in (partial, flac, wav):
            path.unlink(missing_ok=True)
    return packed


def _spool_to_sound(spool: SpoolFormat, path: Path, kind: str, subtype: str, on_progress: Callable[[], None]) -> None:
    options = {"compression_level": 0.5} if kind == "FLAC" else {}  # twenty minutes a second, and no larger than at 1
    reader = SpoolReader(spool)
    try:
        with soundfile.SoundFile(path, "w", spool.rate, spool.channels, subtype, format=kind, **options) as sound:
            for start in range(0, reader.count, _BLOCK):
                sound.write(reader.read(start, min(_BLOCK, reader.count - start)))
                on_progress()
    finally:
        reader.close()


class TakeFile:
    """A take file, opened and checked: its log, and its sounds as spools. One `InputError` says what is wrong with it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise InputError(f"take {self.path}: no such file")
        self._folder = tempfile.mkdtemp(prefix="avatar-viewer-")
        self.heard = SpoolFormat(os.path.join(self._folder, HEARD), PLAYBACK_RATE, 2, "int16")
        self.speech = SpoolFormat(os.path.join(self._folder, SPEECH), SAMPLE_RATE, 1, "float32")
        with ExitStack() as undo:  # whatever ends the unpacking, Ctrl-C too
            undo.callback(self.close)
            try:
                self.heard_frames, self.speech_samples = self._unpack()
            except (zipfile.BadZipFile, soundfile.LibsndfileError, OSError, ValueError, RuntimeError, EOFError) as error:
                raise InputError(f"take {self.path}: not a readable take file ({' '.join(str(error).split())[:160]})") from None
            undo.pop_all()

    @property
    def seconds(self) -> float:
        return self.heard_frames / PLAYBACK_RATE

    def _unpack(self) -> tuple[int, int]:
        with zipfile.ZipFile(self.path) as archive:
            found = {info.filename: info for info in archive.infolist()}
            if missing := [name for name in _PARTS if name not in found]:
                raise InputError(f"take {self.path}: lacks {', '.join(missing)}; it is not a take file, or damaged")
            if any(found[name].compress_type != zipfile.ZIP_STORED for name in _PARTS):  # such as a zip bomb
                raise InputError(f"take {self.path}: its parts are compressed; a take file stores them as they are")
            if found["log.jsonl"].file_size > _MAX_LOG_BYTES:
                raise InputError(f"take {self.path}: its log has {found['log.jsonl'].file_size} bytes; at most {_MAX_LOG_BYTES} are read")
            self.log = parse_log(archive.read("log.jsonl"), str(self.path))
            heard, speech = (self._unpack_sound(archive, *part) for part in zip(_PARTS[1:], (self.heard, self.speech)))
        for entry in self.log.entries:
            if entry.does == "speak" and not 0 <= entry.values["first"] <= speech:
                raise InputError(f"take {self.path}: speech begins at sample {entry.values['first']} of {speech}")
        return heard, speech

    def _unpack_sound(self, archive: zipfile.ZipFile, name: str, spool: SpoolFormat) -> int:
        """By way of a file: read from within a zip, libsndfile's callbacks swallow what is wrong with it."""
        extracted = Path(archive.extract(name, self._folder))
        frames = _sound_to_spool(extracted, spool, f"take {self.path}: {name}")
        extracted.unlink()
        return frames

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> TakeFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _sound_to_spool(path: Path, spool: SpoolFormat, what: str) -> int:
    """Copy a block at a time; -> sample frames."""
    writer = SpoolWriter(spool)
    try:
        with soundfile.SoundFile(path) as sound:
            if (sound.samplerate, sound.channels) != (spool.rate, spool.channels):
                raise InputError(f"{what} has {sound.samplerate} Hz and {sound.channels} channels, not {spool.rate} and {spool.channels}")
            while len(block := sound.read(_BLOCK, dtype=spool.dtype, always_2d=True)):
                if writer.count > MAX_SECONDS * spool.rate:
                    raise InputError(f"{what} is longer than {MAX_SECONDS / 3600:.0f} hours")
                writer.append(np.nan_to_num(block, nan=0.0, posinf=0.0, neginf=0.0) if spool.dtype == "float32" else block)
        return writer.count
    finally:
        writer.close()


def parse_log(data: bytes, source: str) -> TakeLog:
    """The checked log; a last line that a kill has torn is left out. `InputError` names the first line that is wrong."""
    lines = data.split(b"\n")[:-1]
    values = [_parse_line(line, number, source) for number, line in enumerate(lines, start=1)]
    header = values[0] if values else {}
    if header.get("format") != FORMAT or header.get("version") != FORMAT_VERSION:
        found = f"{header.get('format')!r} version {header.get('version')!r}"[:80]
        raise InputError(f"take {source}: format is {found}; this program reads {FORMAT!r} version {FORMAT_VERSION}")
    try:
        avatar, (width, height), fps = header["avatar"], header["size"], float(header["fps"])
        named = str(avatar["name"]), str(avatar["sha256"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"take {source}: line 1 lacks or misstates {error}") from None
    if not all(isinstance(side, int) and 16 <= side <= 8192 for side in (width, height)) or not 1 <= fps <= 240:
        raise InputError(f"take {source}: states {width} x {height} at {fps} fps")
    entries = [_check_entry(value, number, source) for number, value in enumerate(values[1:], start=2)]
    entries.sort(key=lambda entry: entry.at)  # stable: what is noted late stands after what was noted before it
    return TakeLog(*named, (width, height), fps, str(header.get("started", "")), tuple(entries))


def _parse_line(line: bytes, number: int, source: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"take {source}: line {number} of its log is not JSON ({str(error)[:80]})") from None
    if not isinstance(value, dict):
        raise InputError(f"take {source}: line {number} of its log is not an object")
    return value


def _check_entry(value: dict[str, Any], number: int, source: str) -> Entry:
    at, does = value.pop("at", None), value.pop("does", None)
    known = _ENTRIES.get(does) if isinstance(does, str) else None
    where = f"take {source}: line {number} of its log"
    if known is None or type(at) is not int or at < 0:
        raise InputError(f"{where} says {str(does)[:40]!r} at {str(at)[:40]}; known: {', '.join(_ENTRIES)}")
    if set(value) != set(known):
        raise InputError(f"{where} ({does}) has {', '.join(sorted(value))[:120]}, expected {', '.join(sorted(known))}")
    for name, types in known.items():
        found = value[name]
        if type(found) not in types or (isinstance(found, float) and not math.isfinite(found)):
            raise InputError(f"{where} ({does}): {name} is {str(found)[:40]!r}")
    for name, low, high in _RANGES:
        if name in value and not low <= value[name] <= high:
            raise InputError(f"{where} ({does}): {name} is {value[name]}, beyond {low:g} to {high:g}")
    if does == "look":
        if len(value["target"]) != 3 or not all(type(x) in _NUMBER and abs(x) < 1e3 for x in value["target"]):
            raise InputError(f"{where} (look): target is {str(value['target'])[:60]}")
        value["target"] = tuple(value["target"])
    elif "edit" in value:
        from ..avatar.edit_track import edit_from_json  # not sooner: the encoder, which packs takes, has no need of torch

        try:
            value["edit"] = edit_from_json(value["edit"])
        except InputError as error:
            raise InputError(f"{where} ({does}): {error}") from None
    return Entry(at, does, value)
