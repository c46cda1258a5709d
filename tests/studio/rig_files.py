"""Artist's meshes as files: a GLB with morph targets, or a folder of OBJ files with a material library."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from studio.other_head import ArtistMesh


def write_glb(path: Path, meshes: Sequence[ArtistMesh], unit: float = 1.0, turn: np.ndarray | None = None) -> None:
    """One node, mesh and material each; pictures inside the file."""
    turn = (np.eye(3) if turn is None else turn) * unit
    blob = bytearray()
    document: dict = {"asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": list(range(len(meshes)))}]}
    for key in ("nodes", "meshes", "materials", "textures", "images", "accessors", "bufferViews"):
        document[key] = []

    def view(data: bytes) -> int:
        document["bufferViews"].append({"buffer": 0, "byteOffset": len(blob), "byteLength": len(data)})
        blob.extend(data + b"\0" * (-len(data) % 4))
        return len(document["bufferViews"]) - 1

    def add(array: np.ndarray, kind: str) -> int:
        component = 5125 if array.dtype.kind == "u" else 5126
        document["accessors"].append(
            {"bufferView": view(array.tobytes()), "componentType": component, "count": len(array), "type": kind}
        )
        return len(document["accessors"]) - 1

    for index, mesh in enumerate(meshes):
        primitive = {
            "attributes": {"POSITION": add((mesh.vertices @ turn.T).astype("<f4"), "VEC3")},
            "indices": add(mesh.faces.astype("<u4").ravel(), "SCALAR"),
            "targets": [{"POSITION": add((offsets @ turn.T).astype("<f4"), "VEC3")} for offsets in mesh.targets.values()],
            "material": index,
        }
        surface: dict = {}
        if mesh.uv is not None:
            primitive["attributes"]["TEXCOORD_0"] = add(mesh.uv.astype("<f4"), "VEC2")
        if mesh.texture is not None:
            picture = io.BytesIO()
            Image.fromarray(mesh.texture).save(picture, "PNG")
            document["images"].append({"bufferView": view(picture.getvalue()), "mimeType": "image/png"})
            document["textures"].append({"source": len(document["images"]) - 1})
            surface["baseColorTexture"] = {"index": len(document["textures"]) - 1}
        document["nodes"].append({"mesh": index, "name": mesh.name})
        document["meshes"].append({"primitives": [primitive], "extras": {"targetNames": list(mesh.targets)}})
        document["materials"].append({"name": mesh.material, "pbrMetallicRoughness": surface})
    document["buffers"] = [{"byteLength": len(blob)}]
    write_container(path, {key: value for key, value in document.items() if value}, bytes(blob))


def write_container(path: Path, document: dict, blob: bytes) -> None:
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(blob), 0x004E4942) + blob
    path.write_bytes(b"glTF" + struct.pack("<II", 2, 12 + len(body)) + body)


def write_obj_folder(folder: Path, meshes: Sequence[ArtistMesh], unit: float = 1.0, turn: np.ndarray | None = None) -> None:
    """All meshes in each file, one object each; textures beside them."""
    turn = (np.eye(3) if turn is None else turn) * unit
    folder.mkdir(exist_ok=True)
    library = []
    for material in dict.fromkeys(mesh.material for mesh in meshes):
        texture = next(mesh.texture for mesh in meshes if mesh.material == material)
        library.append(f"newmtl {material}\nKd 0.8 0.8 0.8")
        if texture is not None:
            Image.fromarray(texture).save(folder / f"{material}.png")
            library.append(f"map_Kd {material}.png")
    (folder / "head.mtl").write_text("\n".join(library) + "\n")
    names = dict.fromkeys(name for mesh in meshes for name in mesh.targets)
    for shape in (None, *names):
        moved = [mesh.vertices + (0 if shape is None else mesh.targets.get(shape, 0)) for mesh in meshes]
        lines, first, first_uv = ["mtllib head.mtl"], 1, 1
        for mesh, vertices in zip(meshes, moved):
            lines += [f"o {mesh.name}", f"usemtl {mesh.material}"]
            lines += [f"v {x:.7g} {y:.7g} {z:.7g}" for x, y, z in vertices @ turn.T]
            if mesh.uv is not None:
                lines += [f"vt {u:.6f} {1 - v:.6f}" for u, v in mesh.uv]
            for face in mesh.faces:
                lines.append(
                    "f " + " ".join(f"{i + first}/{i + first_uv}" if mesh.uv is not None else str(i + first) for i in face)
                )
            first += len(vertices)
            first_uv += 0 if mesh.uv is None else len(mesh.uv)
        (folder / f"{shape or 'neutral'}.obj").write_text("\n".join(lines) + "\n")
