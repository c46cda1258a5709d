"""Meshes with morph targets out of a GLB file; knows the container and nothing of faces."""

from __future__ import annotations

import io
import json
import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import InputError

_COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_TRIANGLES = 4


@dataclass
class RawMesh:
    """A mesh as a file has it: units, axes and names are the author's."""

    name: str
    vertices: np.ndarray  # [P, 3]
    faces: np.ndarray  # [F, 3]
    colors: np.ndarray | None  # [P, 3] sRGB, None where the file gives none
    shapes: dict[str, np.ndarray] = field(default_factory=dict)  # name -> [P, 3] offsets


def read_glb(path: Path) -> list[RawMesh]:
    """Every triangle mesh of the scene in world space; `InputError` where the file is damaged or uses an extension we lack."""
    try:
        document, binary = _open(path)
        return _Reader(document, binary).meshes()
    except (OSError, KeyError, IndexError, ValueError, TypeError, struct.error, UnidentifiedImageError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot read {path} as GLB: {type(error).__name__} {error}") from error


def _open(path: Path) -> tuple[dict, bytes]:
    data = path.read_bytes()
    if data[:4] != b"glTF":
        raise InputError(f"{path} is no GLB file; export the rig as binary glTF (.glb)")
    document, binary, position = None, b"", 12
    while position + 8 <= len(data):
        length, kind = struct.unpack_from("<II", data, position)
        chunk = data[position + 8 : position + 8 + length]
        if kind == 0x4E4F534A:
            document = json.loads(chunk)
        elif kind == 0x004E4942:
            binary = chunk
        position += 8 + length
    if not isinstance(document, dict):
        raise InputError(f"{path} holds no glTF document")
    compressed = [name for name in document.get("extensionsRequired", ()) if "draco" in name or "meshopt" in name]
    if compressed:
        raise InputError(f"{path} is compressed with {', '.join(compressed)}; export it without mesh compression")
    return document, binary


class _Reader:
    def __init__(self, document: dict, binary: bytes) -> None:
        self._document, self._binary = document, binary
        self._images: dict[int, np.ndarray] = {}

    def meshes(self) -> list[RawMesh]:
        found: list[RawMesh] = []
        scenes = self._document.get("scenes", [{"nodes": list(range(len(self._document.get("nodes", ()))))}])
        for root in scenes[self._document.get("scene", 0)].get("nodes", ()):
            self._walk(root, np.eye(4), found)
        return found

    def _walk(self, index: int, parent: np.ndarray, found: list[RawMesh]) -> None:
        node = self._document["nodes"][index]
        world = parent @ _node_matrix(node)
        if "mesh" in node:
            mesh = self._document["meshes"][node["mesh"]]
            names = mesh.get("extras", {}).get("targetNames", [])
            for primitive in mesh["primitives"]:
                if primitive.get("mode", _TRIANGLES) == _TRIANGLES:
                    found.append(self._primitive(node, mesh, primitive, names, world))
        for child in node.get("children", ()):
            self._walk(child, world, found)

    def _primitive(self, node: dict, mesh: dict, primitive: dict, names: list[str], world: np.ndarray) -> RawMesh:
        vertices = self._accessor(primitive["attributes"]["POSITION"]).astype(np.float64)
        faces = (
            self._accessor(primitive["indices"]).reshape(-1, 3)
            if "indices" in primitive
            else np.arange(len(vertices)).reshape(-1, 3)
        )
        shapes = {}
        for position, target in enumerate(primitive.get("targets", ())):
            name = names[position] if position < len(names) else f"target{position}"
            if "POSITION" in target:
                shapes[name] = self._accessor(target["POSITION"]).astype(np.float64) @ world[:3, :3].T
        material = self._document.get("materials", [{}])[primitive["material"]] if "material" in primitive else {}
        label = " ".join(str(thing.get("name", "")) for thing in (node, mesh, material)).strip() or "mesh"
        colors = self._colors(primitive, material, len(vertices))
        return RawMesh(label, vertices @ world[:3, :3].T + world[:3, 3], faces.astype(np.int64), colors, shapes)

    def _colors(self, primitive: dict, material: dict, count: int) -> np.ndarray | None:
        surface = material.get("pbrMetallicRoughness", {})
        factor = np.asarray(surface.get("baseColorFactor", (1.0, 1.0, 1.0, 1.0)), dtype=np.float64)[:3]
        factor = np.where(factor <= 0.0031308, factor * 12.92, 1.055 * np.maximum(factor, 1e-9) ** (1 / 2.4) - 0.055)
        if "baseColorTexture" in surface:
            texture = surface["baseColorTexture"]
            uv = self._accessor(primitive["attributes"][f"TEXCOORD_{texture.get('texCoord', 0)}"]).astype(np.float64)
            image = self._image(self._document["textures"][texture["index"]]["source"])
            return sample_texture(image, uv) * factor
        if "COLOR_0" in primitive["attributes"]:
            stored = self._accessor(primitive["attributes"]["COLOR_0"])
            linear = stored[:, :3] / (np.iinfo(stored.dtype).max if stored.dtype.kind == "u" else 1.0)
            return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055) * factor
        return np.tile(factor, (count, 1)) if "baseColorFactor" in surface else None

    def _image(self, index: int) -> np.ndarray:
        if index not in self._images:
            entry = self._document["images"][index]
            if "bufferView" not in entry:
                raise InputError(f"texture {entry.get('uri', index)!r} lies outside the GLB file; export with textures embedded")
            with Image.open(io.BytesIO(self._view(entry["bufferView"]))) as image:
                self._images[index] = np.asarray(image.convert("RGB"))
        return self._images[index]

    def _view(self, index: int) -> bytes:
        view = self._document["bufferViews"][index]
        start = view.get("byteOffset", 0)
        return self._binary[start : start + view["byteLength"]]

    def _accessor(self, index: int) -> np.ndarray:
        accessor = self._document["accessors"][index]
        kind, width = np.dtype(_COMPONENTS[accessor["componentType"]]), _WIDTHS[accessor["type"]]
        values = np.zeros((accessor["count"], width), dtype=kind)
        if "bufferView" in accessor:
            view = self._document["bufferViews"][accessor["bufferView"]]
            start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
            stride = view.get("byteStride", kind.itemsize * width)
            values = np.ndarray(values.shape, kind, self._binary, start, (stride, kind.itemsize)).copy()
        if "sparse" in accessor:
            values[self._sparse(accessor["sparse"], "indices", 1)[:, 0]] = self._sparse(accessor["sparse"], "values", width, kind)
        return values

    def _sparse(self, sparse: dict, part: str, width: int, kind: np.dtype | None = None) -> np.ndarray:
        entry = sparse[part]
        kind = kind or np.dtype(_COMPONENTS[entry["componentType"]])
        data = self._view(entry["bufferView"])[entry.get("byteOffset", 0) :]
        return np.frombuffer(data, kind, sparse["count"] * width).reshape(-1, width)


def sample_texture(image: np.ndarray, uv: np.ndarray) -> np.ndarray:  # [H, W, 3] uint8, [P, 2] v down -> [P, 3] sRGB
    height, width = image.shape[:2]
    x = np.clip((uv[:, 0] % 1.0) * width, 0, width - 1).astype(int)
    y = np.clip((uv[:, 1] % 1.0) * height, 0, height - 1).astype(int)
    return image[y, x] / 255.0


def _node_matrix(node: dict) -> np.ndarray:
    if "matrix" in node:
        return np.asarray(node["matrix"], dtype=np.float64).reshape(4, 4).T
    result = np.eye(4)
    x, y, z, w = node.get("rotation", (0.0, 0.0, 0.0, 1.0))
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    result[:3, :3] = rotation * np.asarray(node.get("scale", (1.0, 1.0, 1.0)))
    result[:3, 3] = node.get("translation", (0.0, 0.0, 0.0))
    return result
