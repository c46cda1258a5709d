"""The face mesh that carries the face Gaussians, on disk: `face.safetensors`, checked as it is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError
from .tensor_files import TensorFile, read_tensor_file, write_tensor_file

REGION_PREFIX = "region."
REQUIRED_REGIONS = ("lips", "jaw")  # what animation and metrics cannot do without


@dataclass(frozen=True)
class FaceTemplate:
    """The subject's neutral face: V vertices, one face Gaussian each, in the same order."""

    neutral: Tensor  # [V, 3] metres
    faces: Tensor  # [F, 3] int64
    regions: dict[str, Tensor]  # name -> [P] int64 vertex ids: lips, eyelids, upper_face, jaw, one an AU
    lip_upper: Tensor  # [L] int64, inner-lip vertices
    lip_lower: Tensor  # [L] int64, their partners


def save_face(face: FaceTemplate, path: Path) -> None:
    """Write `face`, atomically; `InputError` where the path cannot be written."""
    ids = {"faces": face.faces, "lip_upper": face.lip_upper, "lip_lower": face.lip_lower}
    ids |= {REGION_PREFIX + name: region for name, region in face.regions.items()}
    tensors = {name: tensor.detach().cpu().to(torch.int32).contiguous() for name, tensor in ids.items()}
    write_tensor_file(path, tensors | {"neutral": face.neutral.detach().cpu().float().contiguous()})


def load_face(path: Path) -> FaceTemplate:
    """Read and check a face; one `InputError` lists everything that is wrong with it."""
    faults: list[str] = []
    face = read_face(path, faults)
    if face is None or faults:
        raise InputError("; ".join(faults))
    return face


def read_face(path: Path, faults: list[str]) -> FaceTemplate | None:
    """Read a face, adding what is wrong to `faults`; None where there is nothing to build."""
    file = read_tensor_file(path, faults)
    if file is None:
        return None
    before = len(faults)
    regions = [name for name in file.tensors if name.startswith(REGION_PREFIX)]
    expected: dict[str, tuple[tuple[int | None, ...], torch.dtype]] = {name: ((None,), torch.int32) for name in regions}
    expected |= {REGION_PREFIX + name: ((None,), torch.int32) for name in REQUIRED_REGIONS}
    pairs = len(file.tensors["lip_upper"]) if "lip_upper" in file.tensors and file.tensors["lip_upper"].dim() == 1 else None
    expected |= {
        "neutral": ((None, 3), torch.float32),
        "faces": ((None, 3), torch.int32),
        "lip_upper": ((None,), torch.int32),
        "lip_lower": ((pairs,), torch.int32),
    }
    file.check_tensors(expected, faults)
    if len(faults) > before:
        return None
    _check_values(file, regions, faults)
    if len(faults) > before:
        return None
    ids = {name: tensor.long() for name, tensor in file.tensors.items() if name != "neutral"}
    return FaceTemplate(
        neutral=file.tensors["neutral"],
        faces=ids["faces"],
        regions={name.removeprefix(REGION_PREFIX): ids[name] for name in regions},
        lip_upper=ids["lip_upper"],
        lip_lower=ids["lip_lower"],
    )


def _check_values(file: TensorFile, regions: list[str], faults: list[str]) -> None:
    count = len(file.tensors["neutral"])
    if count < 4 or len(file.tensors["faces"]) < 1 or len(file.tensors["lip_upper"]) < 1:
        faults.append(f"{file.label}: a face needs vertices, triangles and at least one inner-lip pair")
        return
    file.check_range("neutral", -10.0, 10.0, faults)
    for name in ("faces", "lip_upper", "lip_lower", *regions):
        file.check_range(name, 0, count - 1, faults)
    for name in REQUIRED_REGIONS:
        if len(file.tensors[REGION_PREFIX + name]) < 3:
            faults.append(
                f"{file.label}: region {name} holds {len(file.tensors[REGION_PREFIX + name])} vertices, expected 3 or more"
            )
