"""Safetensors files of an avatar: written atomically, and read with every doubt spoken rather than raised.

The reader checks the header's structure, then names, shapes, dtypes, finiteness and ranges on request, and lists what is
wrong; it never raises for a bad file. Knows no rig and no network.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import InputError


@dataclass(frozen=True)
class TensorFile:
    label: str  # the file's name in messages
    tensors: dict[str, Tensor]
    metadata: dict[str, str]

    def check_tensors(
        self,
        expected: dict[str, tuple[tuple[int | None, ...], torch.dtype | tuple[torch.dtype, ...]]],
        faults: list[str],
    ) -> None:
        """Names, shapes (None: any), dtypes and finiteness against `expected`; nothing may be missing or left over."""
        missing, unknown = sorted(set(expected) - set(self.tensors)), sorted(set(self.tensors) - set(expected))
        if missing:
            faults.append(f"{self.label}: tensors missing: {_some(missing)}")
        if unknown:
            faults.append(f"{self.label}: unknown tensors: {_some(unknown)}")
        for name, (shape, dtypes) in expected.items():
            if name not in self.tensors:
                continue
            tensor = self.tensors[name]
            found = tuple(tensor.shape)
            if len(found) != len(shape) or any(want is not None and want != got for want, got in zip(shape, found)):
                expected_text = "[" + ", ".join("any" if n is None else str(n) for n in shape) + "]"
                faults.append(f"{self.label}: {name} has shape {list(found)}, expected {expected_text}")
            allowed = dtypes if isinstance(dtypes, tuple) else (dtypes,)
            if tensor.dtype not in allowed:
                names = " or ".join(_dtype_name(dtype) for dtype in allowed)
                faults.append(f"{self.label}: {name} is {_dtype_name(tensor.dtype)}, expected {names}")
            self.check_finite(name, faults)

    def check_finite(self, name: str, faults: list[str]) -> None:
        """No NaN and no infinity in `name`; whole numbers are always fine."""
        tensor = self.tensors[name]
        if tensor.is_floating_point():
            # numpy: torch wakes its threads for each of hundreds of small tensors
            wrong = ~np.isfinite((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy())
            if wrong.any():
                faults.append(f"{self.label}: {name} holds {int(wrong.sum())} values that are NaN or infinite")

    def check_range(self, name: str, low: float, high: float, faults: list[str]) -> None:
        """Every value of `name` within `low` to `high`; an empty tensor is fine."""
        tensor = self.tensors[name]
        if tensor.numel() == 0:
            return
        values = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        least, most = float(values.min()), float(values.max())
        if not (low <= least and most <= high):  # written so that NaN fails
            faults.append(f"{self.label}: {name} runs from {least:.4g} to {most:.4g}, expected {low:.4g} to {high:.4g}")


def read_tensor_file(path: Path, faults: list[str], label: str | None = None) -> TensorFile | None:
    """The tensors and metadata of a safetensors file, or None with the reason added to `faults`."""
    label = label or path.name
    if not path.is_file():
        faults.append(f"{label}: missing")
        return None
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
        # torch has no type for some dtypes of the format; the library reports that in several ways.
        faults.append(f"{label}: not a readable safetensors file ({_one_line(error)})")
        return None
    return TensorFile(label, tensors, metadata)


def write_tensor_file(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write `tensors` whole or not at all; `InputError` where the path cannot be written."""
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial, metadata=metadata or {"format": "pt"})
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):  # where nothing can be written, nothing was left behind
            partial.unlink(missing_ok=True)
        raise InputError(f"cannot write {path}: {_one_line(error)}") from error


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _some(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
