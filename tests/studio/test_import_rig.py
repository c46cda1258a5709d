"""A head from a GLB or a folder of OBJ files becomes the same rig, put upright, in metres, with every lack said."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from studio.crude_rig import build_crude_rig

from avatar_viewer.errors import InputError
from avatar_viewer.studio.import_rig import import_rig
from avatar_viewer.studio.poses import coefficients

ARKIT = {"AU01": "browInnerUp", "AU12": "mouthSmile", "AU26": "jawOpen", "AU45": "eyeBlink"}


def _write_obj(path: Path, vertices: np.ndarray, faces: np.ndarray, colors: np.ndarray | None = None) -> None:
    rows = vertices if colors is None else np.concatenate((vertices, colors), axis=1)
    lines = ["v " + " ".join(f"{x:.7f}" for x in row) for row in rows] + [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in faces]
    path.write_text("\n".join(lines) + "\n")


def _halves(offsets: np.ndarray, vertices: np.ndarray) -> dict[str, np.ndarray]:
    left = (vertices[:, :1] > 0).astype(float)
    return {"Left": offsets * left, "Right": offsets * (1 - left)}


def _arkit_shapes() -> dict[str, np.ndarray]:
    rig = build_crude_rig(40, 40)
    shapes = {"browInnerUp": rig.shapes["AU01"], "jawOpen": rig.shapes["AU26"]}
    for unit, name in (("AU12", "mouthSmile"), ("AU45", "eyeBlink")):
        shapes |= {name + side: half for side, half in _halves(rig.shapes[unit], rig.face.vertices).items()}
    return shapes


def _write_folder(folder: Path, unit: float = 1.0, turn: np.ndarray | None = None) -> None:
    turn = np.eye(3) if turn is None else turn
    face = build_crude_rig(40, 40).face
    _write_obj(folder / "neutral.obj", face.vertices @ turn.T * unit, face.faces, face.colors)
    for name, offsets in _arkit_shapes().items():
        _write_obj(folder / f"{name}.obj", (face.vertices + offsets) @ turn.T * unit, face.faces)


def _write_glb(path: Path, targets: dict[str, np.ndarray]) -> None:
    face = build_crude_rig(40, 40).face
    blob, views, accessors = b"", [], []

    def add(array: np.ndarray, component: int, kind: str) -> int:
        nonlocal blob
        views.append({"buffer": 0, "byteOffset": len(blob), "byteLength": array.nbytes})
        accessors.append(
            {
                "bufferView": len(views) - 1,
                "componentType": component,
                "count": array.size // (3 if kind == "VEC3" else 1),
                "type": kind,
            }
        )
        blob += array.tobytes() + b"\0" * (-array.nbytes % 4)
        return len(accessors) - 1

    primitive = {
        "attributes": {"POSITION": add(face.vertices.astype("<f4"), 5126, "VEC3")},
        "indices": add(face.faces.astype("<u4"), 5125, "SCALAR"),
        "targets": [{"POSITION": add(offsets.astype("<f4"), 5126, "VEC3")} for offsets in targets.values()],
    }
    document = {
        "asset": {"version": "2.0"}, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0, "name": "Head"}], "bufferViews": views,
        "meshes": [{"primitives": [primitive], "extras": {"targetNames": list(targets)}}], "accessors": accessors, "buffers": [{"byteLength": len(blob)}],
    }  # fmt: skip
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(blob), 0x004E4942) + blob
    path.write_bytes(b"glTF" + struct.pack("<II", 2, 12 + len(body)) + body)


def test_an_obj_folder_in_centimetres_with_z_up_becomes_an_upright_rig_in_metres(tmp_path: Path):
    said: list[str] = []
    _write_folder(tmp_path, 100.0, np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]))
    rig = import_rig(tmp_path, said.append)
    original = build_crude_rig(40, 40)
    assert any("z was up" in line for line in said) and any("centimetres" in line for line in said)
    assert np.ptp(rig.face.vertices, axis=0) == pytest.approx(np.ptp(original.face.vertices, axis=0), abs=1e-5)
    jaw = rig.shapes["AU26"].sum(axis=0)
    assert jaw[1] < 0 and abs(jaw[1]) > abs(jaw[0])
    smile = np.linalg.norm(rig.shapes["AU12"], axis=1)
    assert smile.sum() == pytest.approx(np.linalg.norm(original.shapes["AU12"], axis=1).sum(), rel=1e-3)  # both halves


def test_a_glb_gives_the_same_rig_as_the_folder(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    _write_folder(tmp_path / "folder")
    _write_glb(tmp_path / "head.glb", _arkit_shapes())
    said: list[str] = []
    first, second = import_rig(tmp_path / "folder", said.append), import_rig(tmp_path / "head.glb", said.append)
    values = coefficients({"AU26": 4.0, "AU12": 2.0, "aa": 0.5})
    a, b = first.pose(values).face, second.pose(values).face
    assert a.shape == b.shape
    assert np.abs(np.sort(a, axis=0) - np.sort(b, axis=0)).max() < 1e-5
    assert any("invented" in line for line in said)  # the GLB has no colours
    assert any(line.startswith("no shape for") and "AU24" in line for line in said)
    assert len(first.regions["lip_upper"]) == len(first.regions["lip_lower"]) >= 3
    assert first.viseme_aus["aa"]["AU26"] > 1.0


def test_what_cannot_be_a_rig_is_refused_with_the_reason(tmp_path: Path):
    _write_glb(tmp_path / "still.glb", {})
    with pytest.raises(InputError, match="no morph targets"):
        import_rig(tmp_path / "still.glb")
    (tmp_path / "junk.glb").write_bytes(b"glTF" + b"\xff" * 40)
    with pytest.raises(InputError):
        import_rig(tmp_path / "junk.glb")
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(InputError, match="neutral.obj"):
        import_rig(folder)
    _write_folder(folder)
    _write_obj(folder / "jawOpen.obj", np.zeros((3, 3)), np.array([[0, 1, 2]]))
    with pytest.raises(InputError, match="3 vertices"):
        import_rig(folder)
