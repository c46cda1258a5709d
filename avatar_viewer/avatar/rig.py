"""The canonical Gaussians on disk: `rig.safetensors`, checked number by number as it is read.

Means, which carry the face's geometry, are float32; everything whose rounding cannot be seen is float16; vertex ids are
int32. Groups (teeth, tongue, eyes) travel in the file's metadata as JSON. Knows nothing of the rest of an avatar.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError
from ..types import GaussianRig, RigidGroup
from .tensor_files import TensorFile, read_tensor_file, write_tensor_file

BINDING_NEIGHBOURS = 4
LOG_SCALE_RANGE = (math.log(1e-6), math.log(1.0))  # metres: from a thousandth of a millimetre to beyond any head
OPACITY_LOGIT_RANGE = (-30.0, 30.0)
POSITION_RANGE = (-10.0, 10.0)  # metres

_DTYPES = {
    "means": torch.float32,
    "quats": torch.float16,
    "log_scales": torch.float16,
    "opacity_logits": torch.float16,
    "colors": torch.float16,
    "binding_vertices": torch.int32,
    "binding_weights": torch.float16,
    "group_ids": torch.int32,
}
_GROUP_FIELDS = {"name", "parent", "pivot", "follows_gaze"}


def save_rig(rig: GaussianRig, path: Path) -> None:
    """Write `rig`, atomically; `InputError` where the path cannot be written."""
    tensors = {name: getattr(rig, name).detach().cpu().to(dtype).contiguous() for name, dtype in _DTYPES.items()}
    metadata = {"num_face": str(rig.num_face), "groups": json.dumps([asdict(group) for group in rig.groups])}
    write_tensor_file(path, tensors, metadata)


def load_rig(path: Path) -> GaussianRig:
    """Read and check a rig; one `InputError` lists everything that is wrong with it."""
    faults: list[str] = []
    rig = read_rig(path, faults)
    if rig is None or faults:
        raise InputError("; ".join(faults))
    return rig


def read_rig(path: Path, faults: list[str]) -> GaussianRig | None:
    """Read a rig, adding what is wrong to `faults`; None where there is nothing to build."""
    file = read_tensor_file(path, faults)
    if file is None:
        return None
    before = len(faults)
    num_face, groups = _read_metadata(file, faults)
    if num_face is None:
        return None
    num_gaussians = len(file.tensors["means"]) if "means" in file.tensors and file.tensors["means"].dim() == 2 else None
    rest = None if num_gaussians is None else num_gaussians - num_face
    if rest is not None and rest < 0:
        faults.append(f"{file.label}: {num_face} face Gaussians of only {num_gaussians}")
        return None
    shapes: dict[str, tuple[int | None, ...]] = {
        "means": (num_gaussians, 3),
        "quats": (num_gaussians, 4),
        "log_scales": (num_gaussians, 3),
        "opacity_logits": (num_gaussians,),
        "colors": (num_gaussians, 3),
        "binding_vertices": (rest, BINDING_NEIGHBOURS),
        "binding_weights": (rest, BINDING_NEIGHBOURS),
        "group_ids": (rest,),
    }
    file.check_tensors({name: (shapes[name], dtype) for name, dtype in _DTYPES.items()}, faults)
    if len(faults) > before:
        return None
    file.check_range("means", *POSITION_RANGE, faults)
    file.check_range("log_scales", *LOG_SCALE_RANGE, faults)
    file.check_range("opacity_logits", *OPACITY_LOGIT_RANGE, faults)
    file.check_range("colors", 0.0, 1.0, faults)
    file.check_range("binding_vertices", 0, num_face - 1, faults)
    file.check_range("binding_weights", 0.0, 1.0, faults)
    file.check_range("group_ids", -1, len(groups) - 1, faults)
    _check_units(file, faults)
    if len(faults) > before:
        return None
    tensors = {name: _in_memory(tensor) for name, tensor in file.tensors.items()}
    tensors["quats"] = torch.nn.functional.normalize(tensors["quats"], dim=-1)
    return GaussianRig(num_face=num_face, groups=groups, **tensors)


def _in_memory(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor.long()


def _check_units(file: TensorFile, faults: list[str]) -> None:
    norms = file.tensors["quats"].float().norm(dim=-1)
    if not bool(((norms > 0.9) & (norms < 1.1)).all()):
        faults.append(f"{file.label}: quats must have length 1, found {norms.min():.3g} to {norms.max():.3g}")
    totals = file.tensors["binding_weights"].float().sum(dim=-1)
    if not bool((totals <= 1.01).all()):
        faults.append(f"{file.label}: binding_weights of a Gaussian must sum to 1 or less, found {totals.max():.3g}")


def _read_metadata(file: TensorFile, faults: list[str]) -> tuple[int | None, tuple[RigidGroup, ...]]:
    count = file.metadata.get("num_face", "")
    if not (count.isascii() and count.isdigit() and len(count) < 10 and int(count) > 0):
        faults.append(f"{file.label}: metadata num_face is {count[:20]!r}, expected a positive number")
        return None, ()
    try:
        entries = json.loads(file.metadata.get("groups", ""))
    except (ValueError, RecursionError):
        faults.append(f"{file.label}: metadata groups is not JSON")
        return None, ()
    if not isinstance(entries, list) or not all(_is_group(entry) for entry in entries):
        faults.append(f"{file.label}: metadata groups must be a list of {{{', '.join(sorted(_GROUP_FIELDS))}}}")
        return None, ()
    return int(count), tuple(
        RigidGroup(e["name"], e["parent"], tuple(float(x) for x in e["pivot"]), e["follows_gaze"]) for e in entries
    )


def _is_group(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and set(entry) == _GROUP_FIELDS
        and isinstance(entry["name"], str)
        and entry["parent"] in ("head", "jaw")
        and isinstance(entry["follows_gaze"], bool)
        and isinstance(entry["pivot"], list)
        and len(entry["pivot"]) == 3
        and all(isinstance(x, (int, float)) and not isinstance(x, bool) and abs(x) < POSITION_RANGE[1] for x in entry["pivot"])
    )
