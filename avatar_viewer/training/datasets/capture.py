"""Reads captures in the neutral layout: checks them, and hands out tensors.

One `InputError` lists everything that is wrong. Pictures are decoded when asked for; meshes, sound and codes too.
Knows the layout; knows no loss and no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from ...config import SAMPLE_RATE
from ...errors import InputError
from ...types import AUCodes, Camera, RigidGroup
from .camera_file import read_cameras
from .capture_files import read_csv, read_json, read_npz, read_picture
from .openface import read_openface_csv
from .undistort import Undistortion

FORMAT_VERSION = 1


@dataclass(frozen=True)
class GroupMotion:
    """The rigid groups of a pose or a sequence."""

    groups: tuple[RigidGroup, ...]
    transforms: Tensor  # [T, G, 4, 4] from neutral
    gaze: Tensor  # [T, 2] radians


@dataclass(frozen=True)
class Scaffold:
    """A start for the Gaussians that are not face skin."""

    points: Tensor  # [P, 3] metres
    normals: Tensor  # [P, 3]
    colors: Tensor  # [P, 3] sRGB
    parts: Tensor  # [P] int64 into the names
    part_names: tuple[str, ...]
    attachments: tuple[str, ...]  # of each part: face, head, jaw, eye, tongue


@dataclass(frozen=True)
class Shot:
    """One picture with its mask, and the camera that took it (undistorted)."""

    camera: str
    color_path: Path
    mask_path: Path
    view: Camera
    undistortion: Undistortion | None

    def load(self) -> tuple[Tensor, Tensor]:  # [H, W, 3] uint8 over white, [H, W] uint8
        """The picture over white and its coverage; `InputError` names a file that cannot be read."""
        color = read_picture(self.color_path, "RGB")
        mask = read_picture(self.mask_path, "L") if self.mask_path.exists() else np.full(color.shape[:2], 255, dtype=np.uint8)
        if self.undistortion is not None:
            color, mask = self.undistortion.apply(color, 255), self.undistortion.apply(mask, 0)
        expected = (self.view.height, self.view.width)
        for path, pixels in ((self.color_path, color), (self.mask_path, mask)):
            if pixels.shape[:2] != expected:
                raise InputError(
                    f"{path} has {pixels.shape[1]} x {pixels.shape[0]} pixels, its camera {expected[1]} x {expected[0]}"
                )
        return torch.from_numpy(color), torch.from_numpy(mask)


@dataclass(frozen=True)
class TalkingSequence:
    """A stretch of talking."""

    name: str
    folder: Path
    split: str  # "train" or "test"
    kind: str  # "performed" or "counterfactual"
    fps: float
    voice: str
    emotion: str
    frames: int
    pictured: tuple[int, ...]  # frames that have pictures

    @cached_property
    def samples(self) -> np.ndarray:  # [S] float32 at 16 kHz
        try:
            samples, rate = soundfile.read(self.folder / "audio.wav", dtype="float32", always_2d=True)
        except (OSError, soundfile.LibsndfileError) as error:
            raise InputError(f"cannot read {self.folder / 'audio.wav'}: {error}") from error
        if rate != SAMPLE_RATE:
            raise InputError(f"{self.folder / 'audio.wav'} has {rate} Hz, captures are at {SAMPLE_RATE} Hz")
        return samples.mean(axis=1)

    @property
    def text(self) -> str:
        return (self.folder / "text.txt").read_text(encoding="utf-8").strip()

    @cached_property
    def phones(self) -> tuple[tuple[float, float, str], ...]:
        rows = read_csv(self.folder / "phones.csv")[1]
        return tuple((float(start), float(end), phone) for start, end, phone in rows)

    @cached_property
    def au_codes(self) -> AUCodes:
        """[T, 17] in the registry's order, joined by name; units that the file lacks are 0."""
        return read_openface_csv(self.folder / "au.csv")

    @cached_property
    def performance(self) -> tuple[np.ndarray, tuple[str, ...]] | None:
        """Rig coefficients [T, C] and their channel names, where the capture has them."""
        path = self.folder / "performance.npz"
        if not path.exists():
            return None
        arrays = read_npz(path, ("values", "channels"))
        return arrays["values"], tuple(str(name) for name in arrays["channels"])

    @property
    def has_meshes(self) -> bool:
        return (self.folder / "meshes.npz").exists()

    def meshes(self) -> Tensor:  # [T, V, 3] metres
        return torch.from_numpy(read_npz(self.folder / "meshes.npz", ("vertices",))["vertices"]).float()

    def groups(self) -> GroupMotion:
        return _read_groups(self.folder / "groups.npz")


@dataclass(frozen=True)
class Pose:
    """The canonical frame or a pose that bares hidden surfaces."""

    name: str
    vertices: Tensor  # [V, 3] metres
    motion: GroupMotion | None
    shots: tuple[Shot, ...]


@dataclass(frozen=True)
class Capture:
    folder: Path
    name: str
    fps: float
    rig_source: str  # what the studio made it from; "" elsewhere
    neutral: Tensor  # [V, 3] metres
    faces: Tensor  # [F, 3] int64
    regions: Mapping[str, Tensor]  # name -> int64 vertex ids
    cameras: Mapping[str, Camera]
    held_out_cameras: tuple[str, ...]
    held_out_voices: tuple[str, ...]
    canonical: Pose
    poses: tuple[Pose, ...]
    sequences: tuple[TalkingSequence, ...]
    viseme_aus: Mapping[str, Mapping[str, float]]
    undistortions: Mapping[str, Undistortion]

    @cached_property
    def scaffold(self) -> Scaffold | None:
        path = self.folder / "scaffold.npz"
        if not path.exists():
            return None
        a = read_npz(path, ("points", "normals", "colors", "parts", "part_names", "attachments"))
        names, attachments = tuple(map(str, a["part_names"])), tuple(map(str, a["attachments"]))
        points, normals, colors = (torch.from_numpy(a[key]).float() for key in ("points", "normals", "colors"))
        return Scaffold(points, normals, colors, torch.from_numpy(a["parts"]).long(), names, attachments)

    def split(self, name: str) -> tuple[TalkingSequence, ...]:  # "train" or "test"
        return tuple(sequence for sequence in self.sequences if sequence.split == name)

    def shots(self, sequence: TalkingSequence, frame: int) -> tuple[Shot, ...]:
        """The pictures of a frame of talking, held-out cameras included."""
        found = []
        for camera, view in self.cameras.items():
            for suffix in (".jpg", ".png"):
                path = sequence.folder / "images" / camera / f"{frame:05d}{suffix}"
                if path.exists():
                    mask = sequence.folder / "masks" / camera / f"{frame:05d}.png"
                    found.append(Shot(camera, path, mask, view, self.undistortions.get(camera)))
                    break
        return tuple(found)


def open_capture(folder: Path | str) -> Capture:
    """Read a capture's index, mesh and cameras and check that its files are there."""
    folder = Path(folder)
    faults: list[str] = []
    index = read_json(folder / "capture.json", faults)
    if not isinstance(index, dict):
        raise InputError(f"{folder} is no capture: {'; '.join(faults) or 'capture.json is no object'}")
    if index.get("format") != FORMAT_VERSION:
        faults.append(f"capture.json: format {index.get('format')!r}, this version reads {FORMAT_VERSION}")
    if index.get("units") != "metres":
        faults.append(f"capture.json: units {index.get('units')!r}, expected 'metres'")
    neutral, faces = _read_template(folder / "template.obj", faults)
    regions = _read_regions(folder / "regions.json", len(neutral), faults)
    cameras, undistortions = read_cameras(folder / "cameras.json", faults)
    split = index.get("split", {})
    held_out = tuple(split.get("held_out_cameras", ()))
    faults += [f"capture.json: held-out camera {name!r} is not in cameras.json" for name in held_out if name not in cameras]
    sequences = _read_sequences(folder, index, faults)

    def shots(pictures: Path, masks: Path) -> tuple[Shot, ...]:
        found = [(name, view, pictures / f"{name}.png") for name, view in cameras.items()]
        return tuple(Shot(n, path, masks / f"{n}.png", view, undistortions.get(n)) for n, view, path in found if path.exists())

    canonical_groups = folder / "canonical" / "groups.npz"
    canonical_motion = _try_groups(canonical_groups, faults) if canonical_groups.exists() else None
    canonical = Pose("canonical", neutral, canonical_motion, shots(folder / "canonical", folder / "masks"))
    if not canonical.shots:
        faults.append(f"{folder / 'canonical'} holds no picture of any camera")
    poses = []
    for name in index.get("poses", ()):
        pose_folder = folder / "poses" / name
        if not (pose_folder / "mesh.npz").exists():
            continue  # a studio that has not come so far yet
        try:
            vertices = torch.from_numpy(read_npz(pose_folder / "mesh.npz", ("vertices",))["vertices"][0]).float()
            groups = _read_groups(pose_folder / "groups.npz") if (pose_folder / "groups.npz").exists() else None
        except InputError as error:
            faults.append(str(error))
            continue
        if vertices.shape != neutral.shape:
            faults.append(f"poses/{name}: {len(vertices)} vertices, the template has {len(neutral)}")
        poses.append(Pose(name, vertices, groups, shots(pose_folder / "images", pose_folder / "masks")))
    if faults:
        raise InputError(f"capture {folder}: " + "; ".join(faults))
    return Capture(
        folder=folder,
        name=str(index.get("name", folder.name)),
        fps=float(index.get("fps", 25.0)),
        rig_source=str(index.get("rig", "")),
        neutral=neutral,
        faces=faces,
        regions=regions,
        cameras=cameras,
        held_out_cameras=held_out,
        held_out_voices=tuple(split.get("held_out_voices", ())),
        canonical=canonical,
        poses=tuple(poses),
        sequences=sequences,
        viseme_aus=index.get("viseme_aus", {}),
        undistortions=undistortions,
    )


def _read_sequences(folder: Path, index: Mapping, faults: list[str]) -> tuple[TalkingSequence, ...]:
    entries = index.get("sequences", {})
    if not isinstance(entries, dict):
        faults.append("capture.json: sequences must be an object, name to description")
        return ()
    result = []
    for name, entry in entries.items():
        place = folder / "sequences" / name
        lacking = [file for file in ("audio.wav", "au.csv") if not (place / file).exists()]
        if not any((place / file).exists() for file in ("meshes.npz", "performance.npz")):
            lacking.append("meshes.npz or performance.npz")
        if lacking:
            faults.append(f"sequences/{name} lacks {', '.join(lacking)}")
            continue
        result.append(
            TalkingSequence(
                name, place, str(entry.get("split", "train")), str(entry.get("kind", "performed")), float(entry.get("fps", 25.0)),
                str(entry.get("voice", "")), str(entry.get("emotion", "")), int(entry.get("frames", 0)), tuple(entry.get("pictured", ())),
            )
        )  # fmt: skip
    return tuple(result)


def _read_template(path: Path, faults: list[str]) -> tuple[Tensor, Tensor]:
    vertices, faces = [], []
    try:
        for line in path.read_text().splitlines():
            words = line.split()
            if words[:1] == ["v"]:
                vertices.append([float(x) for x in words[1:4]])
            elif words[:1] == ["f"]:
                corners = [int(word.split("/")[0]) for word in words[1:]]
                faces += [(corners[0], corners[i], corners[i + 1]) for i in range(1, len(corners) - 1)]
    except (OSError, ValueError) as error:
        faults.append(f"{path.name}: {error}")
    points, triangles = torch.tensor(vertices).reshape(-1, 3), torch.tensor(faces, dtype=torch.int64).reshape(-1, 3) - 1
    if len(points) == 0 or len(triangles) == 0:
        faults.append(f"{path.name} holds no mesh")
    elif int(triangles.min()) < 0 or int(triangles.max()) >= len(points):
        faults.append(f"{path.name}: a face names a vertex outside 1..{len(points)}")
    return points, triangles


def _read_regions(path: Path, count: int, faults: list[str]) -> dict[str, Tensor]:
    found = read_json(path, faults)
    if not isinstance(found, dict):
        return {}
    regions = {name: torch.tensor(ids, dtype=torch.int64).reshape(-1) for name, ids in found.items()}
    for name, ids in regions.items():
        if len(ids) and (int(ids.min()) < 0 or int(ids.max()) >= count):
            faults.append(f"regions.json: {name} names a vertex outside 0..{count - 1}")
    for name in ("lip_upper", "lip_lower", "jaw"):
        if name not in regions:
            faults.append(f"regions.json lacks {name}")
    if "lip_upper" in regions and "lip_lower" in regions and len(regions["lip_upper"]) != len(regions["lip_lower"]):
        faults.append("regions.json: lip_upper and lip_lower must be paired, their lengths differ")
    return regions


def _try_groups(path: Path, faults: list[str]) -> GroupMotion | None:
    try:
        return _read_groups(path)
    except InputError as error:
        faults.append(str(error))
        return None


def _read_groups(path: Path) -> GroupMotion:
    arrays = read_npz(path, ("names", "parents", "pivots", "follows_gaze", "transforms", "gaze"))
    groups = tuple(
        RigidGroup(str(name), str(parent), tuple(float(x) for x in pivot), bool(follows))
        for name, parent, pivot, follows in zip(arrays["names"], arrays["parents"], arrays["pivots"], arrays["follows_gaze"])
    )
    return GroupMotion(groups, torch.from_numpy(arrays["transforms"]).float(), torch.from_numpy(arrays["gaze"]).float())
