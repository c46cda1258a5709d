"""`avatar.json`: what an avatar folder holds, of what sizes, with which fingerprints, and how it was made.

Reads, checks, writes and seals that one file; knows no tensor and builds no network.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from dataclasses import fields, is_dataclass
from pathlib import Path, PurePosixPath
from typing import Any, get_args, get_origin, get_type_hints

from ..action_units import AU_NAMES
from ..config import StreamContext
from ..errors import InputError

MANIFEST = "avatar.json"
FORMAT = "avatar-viewer"
FORMAT_VERSION = 1
BUNDLED = "bundled"  # a backbone whose files lie in the avatar's own folder
BACKBONE_FILES = {
    "speech_backbone": ("config.json", "model.safetensors"),
    "text_backbone": ("open_clip_config.json", "open_clip_model.safetensors"),
}
BACKBONES = tuple(BACKBONE_FILES)
NETWORKS = ("appearance", "au_encoder", "denoiser", "text_to_au")
TENSOR_FILES = ("face.safetensors", "rig.safetensors", *(f"{name}.safetensors" for name in NETWORKS))
MAKERS = {  # which command makes a part that is missing
    "face.safetensors": "train rig",
    "rig.safetensors": "train rig",
    "appearance.safetensors": "train appearance",
    "au_encoder.safetensors": "train speech",
    "denoiser.safetensors": "train motion",
    "text_to_au.safetensors": "train text",
    "speech_backbone": "train speech",
    "text_backbone": "train text",
}
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
CONVERSION = "python -c \"from transformers import AutoModel; AutoModel.from_pretrained('SOURCE').save_pretrained('TARGET')\""
MAX_LAYERS = 100
MAX_SIZE = 1_000_000  # of any dimension of a network

_KEYS: dict[str, type | tuple[type, ...]] = {
    "format": str, "format_version": int, "name": str, "fps": (int, float), "au_names": list, "stream": dict, "networks": dict,
    "speech_backbone": str, "text_backbone": str, "files": dict, "training": dict,
}  # fmt: skip
_PUBLIC_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def read_manifest(folder: Path, faults: list[str]) -> dict[str, Any] | None:
    """The checked manifest of an avatar; None, with the reasons in `faults`, where it cannot be used."""
    path = folder / MANIFEST
    if not path.is_file():
        faults.append(f"{MANIFEST}: missing; is {folder} an avatar's folder?")
        return None
    try:
        manifest = json.loads(path.read_bytes().decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        faults.append(f"{MANIFEST}: not readable JSON ({' '.join(str(error).split())[:120]})")
        return None
    if not isinstance(manifest, dict):
        faults.append(f"{MANIFEST}: must be an object, found {type(manifest).__name__}")
        return None
    if manifest.get("format") != FORMAT or manifest.get("format_version") != FORMAT_VERSION:
        found = f"{manifest.get('format')!r} version {manifest.get('format_version')!r}"
        faults.append(f"{MANIFEST}: format is {found[:80]}; this program reads {FORMAT!r} version {FORMAT_VERSION}")
        return None
    before = len(faults)
    _check_keys(manifest, faults)
    if len(faults) == before:
        _check_values(manifest, faults)
    return manifest if len(faults) == before else None


def check_files(folder: Path, manifest: dict[str, Any], faults: list[str]) -> None:
    """Size and fingerprint of every recorded file, and that nothing is lacking; pickles are named too."""
    for relative, record in manifest["files"].items():
        path = folder / relative
        if not path.is_file():
            faults.append(f"{relative}: missing{_maker(relative)}")
            continue
        size = path.stat().st_size
        if size != record["bytes"]:
            word = "truncated" if size < record["bytes"] else "too long"
            faults.append(f"{relative}: {word}, {size} bytes instead of {record['bytes']}; copy the avatar again")
        elif fingerprint(path) != record["sha256"]:
            faults.append(f"{relative}: contents differ from the recorded sha256; copy the avatar again")
    for relative in _required_files(manifest):
        if relative not in manifest["files"]:
            faults.append(f"{relative}: not part of this avatar yet{_maker(relative)}")
    for pickle in sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICKLES and path.is_file()):
        faults.append(f"{pickle.relative_to(folder).as_posix()}: pickle is never read; convert it to safetensors: {CONVERSION}")


def fingerprint(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def identify(manifest: dict[str, Any]) -> str:
    """Hexadecimal sha256 of what an avatar is: its files' fingerprints. Another training of it is another one."""
    files = sorted((name, record["sha256"]) for name, record in manifest["files"].items())
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


def empty_manifest(name: str, fps: float, stream: StreamContext) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "name": name,
        "fps": fps,
        "au_names": list(AU_NAMES),
        "stream": {"hop_ms": stream.hop_ms, "lookahead_ms": stream.lookahead_ms},
        "networks": {},
        "speech_backbone": BUNDLED,
        "text_backbone": BUNDLED,
        "files": {},
        "training": {},
    }


def seal(folder: Path, manifest: dict[str, Any]) -> None:
    """Record size and fingerprint of every file of the avatar, and write `avatar.json`, atomically."""
    paths = [folder / name for name in TENSOR_FILES]
    for backbone in BACKBONES:
        if manifest[backbone] == BUNDLED:
            paths += sorted(path for path in (folder / backbone).rglob("*") if path.suffix != ".partial")
    manifest["files"] = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": fingerprint(path)}
        for path in paths
        if path.is_file()
    }
    partial = folder / (MANIFEST + ".partial")
    try:
        partial.write_text(json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(partial, folder / MANIFEST)
    except OSError as error:
        raise InputError(f"cannot write {folder / MANIFEST}: {error.strerror}") from error


def config_to_json(config: Any) -> dict[str, Any]:
    """A frozen dataclass of settings as JSON values; tuples become lists."""
    return json.loads(json.dumps({field.name: _plain(getattr(config, field.name)) for field in fields(config)}, allow_nan=False))


def config_from_json(kind: type, values: object, label: str, faults: list[str]) -> Any | None:
    """The dataclass `kind` with these values, types and sizes checked; None with the reasons in `faults`."""
    if not isinstance(values, dict):
        faults.append(f"{label}: must be an object")
        return None
    before = len(faults)
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)]
    # A field that came later has its default in avatars that are older than it.
    converted = {field.name: field.default for field in fields(kind) if field.metadata.get("later")}
    if set(values) | set(converted) != set(names):
        missing, unknown = sorted(set(names) - set(values) - set(converted)), sorted(set(values) - set(names))
        faults.append(
            f"{label}: "
            + "; ".join(f"{word} {', '.join(keys)}" for word, keys in (("missing", missing), ("unknown", unknown)) if keys)
        )
        return None
    converted |= {name: _convert(hints[name], value, f"{label}.{name}", faults) for name, value in values.items()}
    if len(faults) > before:
        return None
    try:
        return kind(**converted)
    except ValueError as error:
        faults.append(f"{label}: {error}")
        return None


def _plain(value: Any) -> Any:
    return config_to_json(value) if is_dataclass(value) else value


def _convert(hint: Any, value: Any, label: str, faults: list[str]) -> Any:
    if is_dataclass(hint):
        return config_from_json(hint, value, label, faults)
    if get_origin(hint) is tuple and isinstance(value, list) and len(value) <= MAX_LAYERS:
        kinds = get_args(hint)
        kinds = kinds[:1] * len(value) if kinds[-1:] == (Ellipsis,) else kinds
        if len(kinds) == len(value):
            return tuple(_convert(kind, item, f"{label}[{i}]", faults) for i, (kind, item) in enumerate(zip(kinds, value)))
    if hint is bool and isinstance(value, bool) or hint is str and isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= MAX_SIZE:
        if hint is float and math.isfinite(value):
            return float(value)
        limit = MAX_LAYERS if re.search("layers|blocks|depth", label.rpartition(".")[2]) else MAX_SIZE
        if hint is int and isinstance(value, int) and 0 <= value <= limit:
            return value
    faults.append(f"{label}: {str(value)[:40]!r} is not a usable {getattr(hint, '__name__', hint)}")
    return None


def _check_keys(manifest: dict[str, Any], faults: list[str]) -> None:
    missing, unknown = sorted(set(_KEYS) - set(manifest)), sorted(set(manifest) - set(_KEYS))
    if missing:
        faults.append(f"{MANIFEST}: keys missing: {', '.join(missing)}")
    if unknown:
        faults.append(f"{MANIFEST}: unknown keys: {', '.join(unknown)[:200]}")
    for key, kind in _KEYS.items():
        if key in manifest and (not isinstance(manifest[key], kind) or isinstance(manifest[key], bool)):
            faults.append(f"{MANIFEST}: {key} is a {type(manifest[key]).__name__}")


def _check_values(manifest: dict[str, Any], faults: list[str]) -> None:
    if not (1 <= manifest["fps"] <= 240):
        faults.append(f"{MANIFEST}: fps is {manifest['fps']}, expected 1 to 240")
    if manifest["au_names"] != list(AU_NAMES):
        faults.append(f"{MANIFEST}: au_names must be {' '.join(AU_NAMES)} in this order; train the avatar again for another set")
    stream = config_from_json(StreamContext, manifest["stream"], f"{MANIFEST}: stream", faults)
    if stream is not None and (not 20 <= stream.hop_ms <= 2000 or not 0 <= stream.lookahead_ms <= 2000 or stream.hop_ms % 20):
        faults.append(f"{MANIFEST}: stream of {stream.hop_ms} + {stream.lookahead_ms} ms; a hop is 20 to 2000 ms in steps of 20")
    elif stream is not None and 1 <= manifest["fps"] <= 240 and stream.hop_ms * manifest["fps"] % 1000:
        faults.append(f"{MANIFEST}: a hop of {stream.hop_ms} ms holds no whole number of frames at {manifest['fps']} fps")
    for name, entry in manifest["networks"].items():
        if name not in NETWORKS:
            faults.append(f"{MANIFEST}: unknown network {name[:40]!r}; known: {', '.join(NETWORKS)}")
        elif not isinstance(entry, dict) or set(entry) != {"class", "config"}:
            faults.append(f"{MANIFEST}: networks.{name} must be {{class, config}}")
    for key in BACKBONES:
        if manifest[key] != BUNDLED and not _PUBLIC_NAME.fullmatch(manifest[key]):
            faults.append(f"{MANIFEST}: {key} is {manifest[key][:60]!r}, expected {BUNDLED!r} or a public name with one '/'")
    for relative, record in manifest["files"].items():
        _check_file_record(relative, record, faults)


def _check_file_record(relative: str, record: object, faults: list[str]) -> None:
    path = PurePosixPath(relative)
    known = relative in TENSOR_FILES or (len(path.parts) > 1 and path.parts[0] in BACKBONES and ".." not in path.parts)
    if not known or "\\" in relative or "\0" in relative or len(relative) > 200:
        faults.append(f"{MANIFEST}: files names {relative[:60]!r}, which is no part of an avatar")
    elif not (
        isinstance(record, dict)
        and set(record) == {"bytes", "sha256"}
        and isinstance(record["bytes"], int)
        and isinstance(record["sha256"], str)
        and re.fullmatch("[0-9a-f]{64}", record["sha256"])
    ):
        faults.append(f"{MANIFEST}: files.{relative} must hold bytes and sha256")


def _required_files(manifest: dict[str, Any]) -> list[str]:
    required = list(TENSOR_FILES)
    for key, names in BACKBONE_FILES.items():
        if manifest[key] == BUNDLED:
            required += [f"{key}/{name}" for name in names]
    return required


def _maker(relative: str) -> str:
    command = MAKERS.get(relative) or MAKERS.get(relative.partition("/")[0])
    return f"; `avatar-viewer {command}` makes it" if command else ""
