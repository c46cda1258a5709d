"""Meshes with morph targets out of a GLB file; knows the container and nothing of faces."""

from __future__ import annotations

import base64
import io
import json
import struct
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import InputError
from .raw_meshes import RawMesh, Say

_COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_TRIANGLES = 4


def read_glb(path: Path, say: Say) -> list[RawMesh]:
    """Every triangle mesh of the scene in world space; `InputError` where the file is damaged or uses an extension we lack.

    A texture that cannot be had is said and left out.
    """
    try:
        document, binary = _open(path)
        return _Reader(document, binary, path.parent, say).meshes()
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
    def __init__(self, document: dict, binary: bytes, folder: Path, say: Say) -> None:
        self._document, self._binary, self._folder, self._say = document, binary, folder, say
        self._images: dict[int, np.ndarray | None] = {}

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
        faces = faces.astype(np.int64)
        shapes = {}
        for position, target in enumerate(primitive.get("targets", ())):
            name = names[position] if position < len(names) else f"target{position}"
            if "POSITION" in target:
                shapes[name] = self._accessor(target["POSITION"]).astype(np.float64) @ world[:3, :3].T
        material = self._document.get("materials", [{}])[primitive["material"]] if "material" in primitive else {}
        label = " ".join(str(thing.get("name", "")) for thing in (node, mesh, material)).strip() or "mesh"
        if not np.isfinite(vertices).all() or faces.max(initial=-1) >= len(vertices):
            raise InputError(f"mesh {label}: vertices that are not numbers, or a triangle that names one that is not there")
        placed = vertices @ world[:3, :3].T + world[:3, 3]
        if np.linalg.det(world[:3, :3]) < 0:  # a mirrored node shows its triangles' backs
            faces = faces[:, ::-1]
        uv, texture = self._texture(primitive, material)
        colors = self._colors(primitive, material, len(vertices))
        return RawMesh(label, placed, faces, colors, shapes, uv, texture)

    def _colors(self, primitive: dict, material: dict, count: int) -> np.ndarray | None:
        """Vertex colours times the material's colour, sRGB; None where there is neither."""
        surface = material.get("pbrMetallicRoughness", {})
        factor = np.asarray(surface.get("baseColorFactor", (1.0, 1.0, 1.0, 1.0)), dtype=np.float64)[:3]
        if "COLOR_0" in primitive["attributes"]:
            stored = self._accessor(primitive["attributes"]["COLOR_0"])[:, :3]
            linear = stored / (np.iinfo(stored.dtype).max if stored.dtype.kind == "u" else 1.0)
            return _to_srgb(linear * factor)
        return np.tile(_to_srgb(factor), (count, 1)) if "baseColorFactor" in surface else None

    def _texture(self, primitive: dict, material: dict) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Places [P, 2] and picture of the base colour."""
        entry = material.get("pbrMetallicRoughness", {}).get("baseColorTexture")
        if entry is None:
            return None, None
        transform = entry.get("extensions", {}).get("KHR_texture_transform", {})
        attribute = f"TEXCOORD_{transform.get('texCoord', entry.get('texCoord', 0))}"
        if attribute not in primitive["attributes"]:
            self._say(f"material {material.get('name', '?')} has a texture but its mesh no {attribute}; left out")
            return None, None
        image = self._image(self._document["textures"][entry["index"]], str(material.get("name", "?")))
        if image is None:
            return None, None
        stored = self._accessor(primitive["attributes"][attribute])
        uv = stored / (np.iinfo(stored.dtype).max if stored.dtype.kind == "u" else 1.0)
        turn = transform.get("rotation", 0.0)
        spin = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        return uv * transform.get("scale", (1.0, 1.0)) @ spin.T + transform.get("offset", (0.0, 0.0)), image

    def _image(self, texture: dict, material: str) -> np.ndarray | None:
        index = texture.get("source")
        if index is None:
            self._say(
                f"the texture of material {material} is in a format of {', '.join(texture.get('extensions', {'none': 0}))}; left out"
            )
            return None
        if index not in self._images:
            entry = self._document["images"][index]
            name = entry.get("name") or entry.get("uri", "")[:60] or f"image {index}"
            try:
                data = self._view(entry["bufferView"]) if "bufferView" in entry else self._linked(entry["uri"])
                with Image.open(io.BytesIO(data)) as image:
                    self._images[index] = np.asarray(image.convert("RGB"))
            except (OSError, UnidentifiedImageError):
                self._say(f"the texture {name} of material {material} cannot be read; left out")
                self._images[index] = None
        return self._images[index]

    def _linked(self, uri: str) -> bytes:
        """A picture beside the file or written into it as text."""
        if uri.startswith("data:"):
            return base64.b64decode(uri.partition(",")[2])
        return (self._folder / unquote(uri)).read_bytes()

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
        if accessor.get("normalized") and kind.kind == "i":  # of quantised meshes; unsigned ones are scaled where they are read
            return np.maximum(values / np.iinfo(kind).max, -1.0)
        return values

    def _sparse(self, sparse: dict, part: str, width: int, kind: np.dtype | None = None) -> np.ndarray:
        entry = sparse[part]
        kind = kind or np.dtype(_COMPONENTS[entry["componentType"]])
        data = self._view(entry["bufferView"])[entry.get("byteOffset", 0) :]
        return np.frombuffer(data, kind, sparse["count"] * width).reshape(-1, width)


def _to_srgb(linear: np.ndarray) -> np.ndarray:
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)


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
