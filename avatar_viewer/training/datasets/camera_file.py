"""Reads cameras.json: a capture's cameras, or the one that a clip is to be rendered from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...errors import InputError
from ...types import Camera
from .capture_files import read_json
from .undistort import Undistortion

_ORTHONORMAL = 1e-3  # how far a rotation may be from one


def read_cameras(path: Path, faults: list[str]) -> tuple[dict[str, Camera], dict[str, Undistortion]]:
    """All cameras by name, and how to take the lens's distortion out of the pictures of those that have one."""
    found = read_json(path, faults)
    cameras, undistortions = {}, {}
    for name, entry in found.items() if isinstance(found, dict) else ():
        try:
            camera, distortion = _parse_camera(entry), np.asarray(entry.get("D", [0.0] * 5), dtype=np.float64).reshape(-1)
            cameras[name] = camera
            if distortion.any():
                undistortions[name] = Undistortion(camera.K.double().numpy(), distortion, camera.width, camera.height)
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            faults.append(f"cameras.json: {name}: {type(error).__name__} {error}")
    return cameras, undistortions


def read_camera(path: Path) -> Camera:
    """The camera in a file of one: an entry of a cameras.json, with or without its name. Distortion is left out.

    `InputError` says what is wrong with the file.
    """
    faults: list[str] = []
    found = read_json(path, faults)
    if faults:
        raise InputError(f"camera {path}: {faults[0]}")
    if isinstance(found, dict) and "K" not in found and len(found) != 1:
        names = ", ".join(list(found)[:4])
        raise InputError(f"camera {path}: {len(found)} cameras there ({names} ...); give a file with one entry of them")
    entry = next(iter(found.values())) if isinstance(found, dict) and "K" not in found else found
    if not isinstance(entry, Mapping):
        raise InputError(f"camera {path}: no object with K, camera_to_world, width and height")
    try:
        return _parse_camera(entry)
    except KeyError as error:
        raise InputError(f"camera {path}: {error.args[0]} is missing; an entry has K, camera_to_world, width and height") from error
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"camera {path}: {' '.join(str(error).split())[:160]}") from error


def _parse_camera(entry: Mapping[str, object]) -> Camera:
    """`KeyError`, `TypeError` or `ValueError` for an entry that is none."""
    K = _parse_matrix(entry, "K", 3)
    pose = _parse_matrix(entry, "camera_to_world", 4)
    width, height = int(entry["width"]), int(entry["height"])
    if min(width, height) < 1:
        raise ValueError(f"{width} x {height} is no size of a picture")
    if min(K[0, 0], K[1, 1]) <= 0:
        raise ValueError(f"focal lengths {K[0, 0].item():g} and {K[1, 1].item():g} in K, expected pixels above 0")
    rotation = pose[:3, :3]
    if (rotation @ rotation.T - torch.eye(3, dtype=pose.dtype)).abs().max() > _ORTHONORMAL or torch.det(rotation) < 0:
        raise ValueError("camera_to_world has no rotation in its first three rows and columns")
    return Camera(torch.linalg.inv(pose).float(), K.float(), width, height)


def _parse_matrix(entry: Mapping[str, object], name: str, size: int) -> Tensor:  # [size, size] float64
    try:
        values = torch.tensor(entry[name], dtype=torch.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is no table of numbers: {error}") from error
    if values.numel() != size * size or not bool(values.isfinite().all()):
        raise ValueError(f"{name} must be {size} x {size} finite numbers")
    return values.reshape(size, size)
