"""A take on disk: `take.npz`, what was said to the face and what it did, frame by frame. Numbers only, never pickle."""

from __future__ import annotations

import os
import zipfile
import zlib
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..action_units import AU_NAMES, NUM_AUS
from ..errors import InputError
from ..types import MotionWindow
from .face import FaceTemplate


@dataclass(frozen=True)
class Take:
    """The arrays of a take under the names that the file gives them."""

    fps: float
    au_speech: np.ndarray  # [T, 17] 0..5, what the voice asked for
    au: np.ndarray  # [T, 17] 0..7, after edits
    voice: np.ndarray  # [T] 0..1
    offsets: np.ndarray | None  # [T, V, 3] metres; None in a take without them
    gaze: np.ndarray  # [T, 2] radians
    neutral: np.ndarray  # [V, 3] metres
    faces: np.ndarray  # [F, 3]
    lip_upper: np.ndarray  # [L] inner-lip vertex ids
    lip_lower: np.ndarray  # [L] their partners
    lip_gap_mm: np.ndarray  # [T]
    seed: int

    def window(self) -> MotionWindow:
        """The take as motion, from second 0."""
        if self.offsets is None:
            raise InputError(
                "this take has no offsets (it was made with --no-offsets), so it cannot be rendered; make it again without"
            )
        parts = (self.au_speech, self.au, self.voice, self.offsets, self.gaze)
        return MotionWindow(0.0, self.fps, *(torch.from_numpy(part) for part in parts))


def measure_lip_gap(
    vertices: Tensor,  # [..., V, 3] metres
    lip_upper: Tensor,  # [L] int64
    lip_lower: Tensor,  # [L] int64
) -> Tensor:  # [...] mm
    """Mean over the central third of the inner-lip pairs of max(0, (upper - lower) . up): what `metrics.lips` measures."""
    pairs = len(lip_upper)
    middle = slice(pairs // 3, max(pairs - pairs // 3, pairs // 3 + 1))
    gaps = vertices[..., lip_upper[middle], 1] - vertices[..., lip_lower[middle], 1]
    return 1000 * gaps.clamp(min=0).mean(dim=-1)


def save_take(
    path: str | Path,
    motion: MotionWindow,
    face: FaceTemplate,
    *,
    seed: int,
    lip_gap_mm: Tensor | None = None,  # [T]; measured from the offsets where not given
    with_offsets: bool = True,
) -> None:
    """Write a take, whole or not at all; `InputError` where the path cannot be written."""
    if lip_gap_mm is None:
        lip_gap_mm = measure_lip_gap(face.neutral + motion.offsets, face.lip_upper, face.lip_lower)
    arrays = {
        "fps": np.float64(motion.fps),
        "au_names": np.array(AU_NAMES),
        "au_speech": _floats(motion.au_codes),
        "au": _floats(motion.au_applied),
        "voice": _floats(motion.voice),
        "gaze": _floats(motion.gaze),
        "neutral": _floats(face.neutral),
        "faces": _ids(face.faces),
        "lip_upper": _ids(face.lip_upper),
        "lip_lower": _ids(face.lip_lower),
        "lip_gap_mm": _floats(lip_gap_mm),
        "seed": np.int64(seed),
    }
    if with_offsets:
        arrays["offsets"] = _floats(motion.offsets)
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            np.savez(file, **arrays)
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):  # where nothing can be written, nothing was left behind
            partial.unlink(missing_ok=True)
        raise InputError(f"cannot write {path}: {error.strerror}; choose another place with --out") from error


def load_take(path: str | Path) -> Take:
    """Read and check a take; one `InputError` lists everything that is wrong with it."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"take {path}: no such file")
    if not zipfile.is_zipfile(path):  # numpy's own words would speak of pickle
        raise InputError(f"take {path}: not a readable take.npz; give one made by `motion`, or a .take recorded in the window")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, NotImplementedError, SyntaxError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"take {path}: not a readable take.npz ({' '.join(str(error).split())[:120]})") from error
    except (TypeError, AttributeError, RuntimeError, MemoryError) as error:
        raise InputError(f"take {path}: damaged ({' '.join(str(error).split())[:120]})") from error
    faults: list[str] = []
    _check(arrays, faults)
    if faults:
        raise InputError(f"take {path}: {'; '.join(faults)}")
    del arrays["au_names"]
    arrays |= {"fps": float(arrays["fps"]), "seed": int(arrays["seed"]), "offsets": arrays.get("offsets")}
    return Take(**arrays)


def _check(arrays: dict[str, np.ndarray], faults: list[str]) -> None:
    names = {field.name for field in fields(Take)} | {"au_names"}
    missing, unknown = sorted(names - {"offsets"} - set(arrays)), sorted(set(arrays) - names)
    if missing or unknown:
        faults.extend(f"{word} {', '.join(found)}" for word, found in (("missing", missing), ("unknown", unknown)) if found)
        return
    frames = len(arrays["au"]) if arrays["au"].ndim else None
    vertices = len(arrays["neutral"]) if arrays["neutral"].ndim else None
    pairs = len(arrays["lip_upper"]) if arrays["lip_upper"].ndim else None
    shapes = {
        "fps": (), "seed": (), "au_names": (NUM_AUS,), "au_speech": (frames, NUM_AUS), "au": (frames, NUM_AUS),
        "voice": (frames,), "offsets": (frames, vertices, 3), "gaze": (frames, 2), "neutral": (vertices, 3), "faces": (None, 3),
        "lip_upper": (pairs,), "lip_lower": (pairs,), "lip_gap_mm": (frames,),
    }  # fmt: skip
    kinds = {"au_names": "U", "faces": "iu", "lip_upper": "iu", "lip_lower": "iu", "seed": "iu"}
    for name, array in arrays.items():
        shape, kind = shapes[name], kinds.get(name, "f")
        if array.dtype.kind not in kind:
            faults.append(f"{name} is {array.dtype}")
        elif array.ndim != len(shape) or any(want is not None and want != got for want, got in zip(shape, array.shape)):
            faults.append(f"{name} has shape {list(array.shape)}, expected {['any' if n is None else n for n in shape]}")
        elif kind == "f" and not np.isfinite(array).all():
            faults.append(f"{name} holds NaN or infinite values")
        elif name in ("faces", "lip_upper", "lip_lower") and array.size and not 0 <= array.min() <= array.max() < (vertices or 0):
            faults.append(f"{name} names vertices beyond the {vertices} of neutral")
    if not faults and tuple(arrays["au_names"]) != AU_NAMES:
        faults.append(f"au_names are {' '.join(arrays['au_names'])[:120]}, expected {' '.join(AU_NAMES)}")
    if not faults and not 1 <= float(arrays["fps"]) <= 240:
        faults.append(f"fps is {float(arrays['fps'])}, expected 1 to 240")


def _floats(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().astype(np.float32, copy=False)


def _ids(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().astype(np.int32)
