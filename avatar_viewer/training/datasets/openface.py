"""Reads action units as OpenFace writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ...action_units import AU_NAMES, reorder
from ...errors import InputError
from ...types import AUCodes
from .capture_files import read_csv


def read_openface_csv(path: Path) -> AUCodes:
    """AU intensities of an OpenFace-like CSV (`AU01_r` ...), joined by name in the registry's order.

    Header names may carry spaces, as OpenFace's do; unreliable frames (success 0) take their neighbours' values.
    """
    header, rows = read_csv(path)
    names = [name.strip() for name in header]
    columns = [(i, name[:-2]) for i, name in enumerate(names) if name.startswith("AU") and name.endswith("_r")]
    if not columns:
        raise InputError(f"{path} has no AU intensity column (AU01_r ...); found {', '.join(names[:8])} ...")
    try:
        values = np.array([[float(row[i]) for i, _ in columns] for row in rows], dtype=np.float32).reshape(
            len(rows), len(columns)
        )
        success = (
            np.array([float(row[names.index("success")]) > 0.5 for row in rows])
            if "success" in names
            else np.ones(len(rows), bool)
        )
    except (ValueError, IndexError) as error:
        raise InputError(f"{path} holds something that is no number: {error}") from error
    if len(rows) and success.any() and not success.all():
        good = np.flatnonzero(success)
        every = np.arange(len(rows))
        values = np.stack([np.interp(every, good, values[good, i]) for i in range(values.shape[1])], axis=1).astype(np.float32)
    ordered, _, _ = reorder(np.clip(values, 0.0, 5.0), [name for _, name in columns])
    return AUCodes(torch.from_numpy(ordered), AU_NAMES)
