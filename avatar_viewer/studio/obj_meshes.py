"""Meshes with shapes out of a folder of OBJ files, a neutral and one file a shape; knows the format and nothing of faces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import InputError
from .raw_meshes import RawMesh, Say

NEUTRAL_NAMES = ("neutral", "base", "basis", "rest", "default")


@dataclass
class _Obj:
    """One file, numbered as it numbers."""

    path: Path
    vertices: np.ndarray  # [P, 3]
    colors: np.ndarray | None  # [P, 3] the widespread extension of `v`
    uvs: np.ndarray  # [U, 2] v up
    corners: np.ndarray  # [F, 3, 2] vertex and texture place (-1: none)
    pieces: np.ndarray  # [F] index into `labels`
    labels: list[tuple[str, str]]  # (object or group, material)
    materials: dict[str, _Material]


@dataclass
class _Material:
    diffuse: np.ndarray | None = None  # [3] linear enough to be taken as sRGB: what modelling programs show
    texture: np.ndarray | None = None


def read_obj_folder(folder: Path, is_part: Callable[[str], bool], say: Say) -> list[RawMesh]:
    """One mesh for each object, group and material of the neutral, all with every other file as a shape.

    Files whose name `is_part` recognises (eyes, teeth, hair) stay meshes of their own.
    """
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() == ".obj")
    neutral = next((file for file in files if file.stem.lower() in NEUTRAL_NAMES), None)
    if neutral is None:
        raise InputError(f"{folder} has no neutral.obj (or base, basis, rest, default) among {len(files)} OBJ files")
    face = _read(neutral, say)
    meshes, moved, differing = [], {}, []
    for file in files:
        if file == neutral:
            continue
        if is_part(file.stem):
            meshes += _to_meshes(_read(file, say), {})
            continue
        vertices = _read(file, say, shape_only=True).vertices
        if len(vertices) != len(face.vertices):
            differing.append(f"{file.name} ({len(vertices)} vertices)")
        else:
            moved[file.stem] = vertices - face.vertices
    if differing:
        raise InputError(
            f"{neutral.name} has {len(face.vertices)} vertices; not so {', '.join(differing)}: all shapes need one topology"
        )
    return _to_meshes(face, moved) + meshes


def _read(path: Path, say: Say, shape_only: bool = False) -> _Obj:
    vertices: list[list[float]] = []
    colors: list[list[float] | None] = []
    uvs: list[list[float]] = []
    corners: list[tuple[tuple[int, int], ...]] = []
    pieces: list[int] = []
    labels: dict[tuple[str, str], int] = {}
    materials: dict[str, _Material] = {}
    group = material = ""
    try:
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            words = line.split()
            kind = words[0] if words else ""
            if kind == "v":
                vertices.append([float(x) for x in words[1:4]])
                colors.append([float(x) for x in words[4:7]] if len(words) >= 7 else None)
            elif shape_only:
                continue
            elif kind == "vt":
                uvs.append([float(x) for x in words[1:3]])
            elif kind == "f":
                ring = [_corner(word, len(vertices), len(uvs)) for word in words[1:]]
                corners += [(ring[0], ring[i], ring[i + 1]) for i in range(1, len(ring) - 1)]
                pieces += [labels.setdefault((group, material), len(labels))] * (len(ring) - 2)
            elif kind in ("o", "g"):
                group = " ".join(words[1:])
            elif kind == "usemtl":
                material = " ".join(words[1:])
            elif kind == "mtllib":
                materials |= _read_materials(path.parent / " ".join(words[1:]), say)
        points = np.asarray(vertices, dtype=np.float64).reshape(-1, 3)
        painted = None
        if colors and all(color is not None for color in colors):
            painted = np.asarray(colors, dtype=np.float64)
        places = np.asarray(uvs, dtype=np.float64).reshape(-1, 2)
    except (OSError, ValueError, IndexError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    triangles = np.asarray(corners, dtype=np.int64).reshape(-1, 3, 2)
    ids = triangles[..., 0]
    if not len(points) or not shape_only and (not len(ids) or ids.min() < 0 or ids.max() >= len(points)):
        raise InputError(f"{path} holds no mesh, or a face names a vertex that is not there")
    if not np.isfinite(points).all():
        raise InputError(f"{path} has vertices that are not numbers")
    if len(triangles) and triangles[..., 1].max() >= len(places):
        raise InputError(f"{path}: a face names texture place {triangles[..., 1].max() + 1} of {len(places)}")
    return _Obj(path, points, painted, places, triangles, np.asarray(pieces, dtype=np.int64), list(labels), materials)


def _corner(word: str, vertices: int, uvs: int) -> tuple[int, int]:
    """Vertex and texture place from 0 on; negative numbers count from the end."""
    numbers = word.split("/")
    vertex, place = int(numbers[0]), int(numbers[1]) if len(numbers) > 1 and numbers[1] else 0
    return vertex - 1 if vertex > 0 else vertices + vertex, place - 1 if place > 0 else uvs + place if place < 0 else -1


def _read_materials(library: Path, say: Say) -> dict[str, _Material]:
    """The colours of a material library; what is missing is said and left out."""
    if not library.exists():
        say(f"{library.name} is missing: its materials' colours are left out")
        return {}
    materials: dict[str, _Material] = {}
    current = _Material()
    for line in library.read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split(maxsplit=1)
        key, value = (words[0].lower(), words[1].strip()) if len(words) == 2 else ("", "")
        if key == "newmtl":
            current = materials[value] = _Material()
        elif key == "kd":
            current.diffuse = np.asarray([float(x) for x in value.split()[:3]])
        elif key == "map_kd":
            picture = library.parent / value.replace("\\", "/")
            if not picture.exists():
                picture = library.parent / picture.name  # a path of the machine it was made on
            try:
                with Image.open(picture) as image:
                    current.texture = np.asarray(image.convert("RGB"))
            except (OSError, UnidentifiedImageError):
                say(f"{library.name} names the texture {picture.name}, which cannot be read in {library.parent}; left out")
    return materials


def _to_meshes(obj: _Obj, moved: dict[str, np.ndarray]) -> list[RawMesh]:
    """A mesh for each label, with a vertex for each pair of vertex and texture place."""
    meshes = []
    for piece, (group, material) in enumerate(obj.labels):
        corners = obj.corners[obj.pieces == piece]
        pairs, faces = np.unique(corners.reshape(-1, 2), axis=0, return_inverse=True)
        rows, places = pairs.T
        found = obj.materials.get(material, _Material())
        uv = None
        if found.texture is not None and (places >= 0).all():
            uv = np.stack((obj.uvs[places, 0], 1 - obj.uvs[places, 1]), axis=1)
        colors = None if obj.colors is None or uv is not None else obj.colors[rows]
        if colors is None and uv is None and found.diffuse is not None:
            colors = np.tile(found.diffuse, (len(rows), 1))
        name = " ".join(word for word in (obj.path.stem, group, material) if word)
        shapes = {key: offsets[rows] for key, offsets in moved.items()}
        meshes.append(
            RawMesh(name, obj.vertices[rows], faces.reshape(-1, 3), colors, shapes, uv, found.texture if uv is not None else None)
        )
    return meshes
