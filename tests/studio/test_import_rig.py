"""A head from a GLB or a folder of OBJ files becomes the same rig, put upright, in metres, with every lack and flaw said."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree
from studio.other_head import EYES, ArtistMesh, build_other_head, carry_jaw
from studio.rig_files import write_container, write_glb, write_obj_folder

from avatar_viewer.action_units import AU_NAMES
from avatar_viewer.errors import InputError
from avatar_viewer.studio import import_rig as importing
from avatar_viewer.studio.blendshapes import BlendshapeRig
from avatar_viewer.studio.import_rig import import_rig
from avatar_viewer.studio.obj_meshes import read_obj_folder
from avatar_viewer.studio.poses import coefficients
from avatar_viewer.studio.rig_source import BUILTIN, name_rig, open_rig

Z_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])


@functools.cache
def _meshes() -> tuple[ArtistMesh, ...]:
    return tuple(build_other_head(24, 16, 128))


def _import(path: Path, meshes: list[ArtistMesh]) -> tuple[BlendshapeRig, str]:
    said: list[str] = []
    write_glb(path / "head.glb", meshes)
    return import_rig(path / "head.glb", said.append), "\n".join(said)


def _changed(**changes: Callable[[ArtistMesh], ArtistMesh]) -> list[ArtistMesh]:
    return [changes[mesh.name](mesh) if mesh.name in changes else mesh for mesh in _meshes()]


def _part(rig: BlendshapeRig, word: str):
    return next(part for part in rig.parts if word in part.name)


def test_a_glb_becomes_a_rig_with_every_unit_and_every_part(tmp_path: Path):
    rig, said = _import(tmp_path, list(_meshes()))
    assert set(AU_NAMES) <= set(rig.shapes)
    assert "no shape for" not in said and "cheekPuff" in said
    ways = {word: _part(rig, word).attachment for word in ("eyel", "eyer", "teethupper", "teethlower", "tongue", "hair", "body")}
    assert ways == {
        "eyel": "eye",
        "eyer": "eye",
        "teethupper": "head",
        "teethlower": "jaw",
        "tongue": "tongue",
        "hair": "head",
        "body": "head",
    }
    left = _part(rig, "eyel")
    assert left.pivot[0] == pytest.approx(EYES[0], abs=1e-3)
    assert len(rig.regions["lip_upper"]) == len(rig.regions["lip_lower"]) > 8
    neutral, opened = rig.pose(coefficients({})).face, rig.pose(coefficients({"AU26": 5.0})).face
    upper, lower = rig.regions["lip_upper"], rig.regions["lip_lower"]
    middle = slice(len(upper) // 3, -len(upper) // 3)
    assert np.abs(neutral[upper] - neutral[lower])[middle].max() < 0.004
    assert (opened[upper] - opened[lower])[middle, 1].min() > 0.010


def test_textures_are_seen_at_the_vertices_and_coarse_meshes_are_made_finer_for_them(tmp_path: Path):
    rig, said = _import(tmp_path, list(_meshes()))
    assert "are few for a face" in said
    coarse = len(_meshes()[0].vertices)
    assert len(rig.face.vertices) > 3 * coarse and len(rig.face.vertices) <= importing.FACE_VERTICES
    lips = rig.face.colors[rig.regions["lip_upper"]].mean(axis=0)
    assert lips[0] > 1.7 * lips[1]  # painted red
    eye = _part(rig, "eyel").mesh
    front = eye.vertices[:, 2] > eye.vertices[:, 2].max() - 2e-4
    assert eye.colors[front].max() < 0.2 and np.median(eye.colors) > 0.8  # a pupil in the white


def test_an_obj_folder_gives_the_same_rig_as_the_glb(tmp_path: Path):
    """Names such as eyeBlinkLeft.obj are shapes and no eyes."""
    said: list[str] = []
    write_obj_folder(tmp_path / "folder", _meshes())
    first, (second, _) = import_rig(tmp_path / "folder", said.append), _import(tmp_path, list(_meshes()))
    values = coefficients({"AU26": 4.0, "AU12": 2.0, "AU45": 3.0, "aa": 0.5})
    a, b = first.pose(values), second.pose(values)
    assert a.face.shape == b.face.shape
    distance, partner = cKDTree(b.face).query(a.face)
    assert distance.max() < 1e-5
    assert np.abs(a.face_colors - b.face_colors[partner]).mean() < 0.01
    assert sorted(part.attachment for part in first.parts) == sorted(part.attachment for part in second.parts)


def test_centimetres_and_z_up_are_put_right_and_said(tmp_path: Path):
    said: list[str] = []
    write_glb(tmp_path / "turned.glb", _meshes(), 100.0, Z_UP)
    turned, (straight, _) = import_rig(tmp_path / "turned.glb", said.append), _import(tmp_path, list(_meshes()))
    assert any("z was up" in line for line in said) and any("centimetres" in line for line in said)
    assert np.ptp(turned.face.vertices, axis=0) == pytest.approx(np.ptp(straight.face.vertices, axis=0), abs=1e-5)
    assert turned.shapes["AU26"].sum(axis=0) == pytest.approx(straight.shapes["AU26"].sum(axis=0), abs=1e-2)
    assert _part(turned, "eyel").pivot == pytest.approx(_part(straight, "eyel").pivot, abs=1e-5)


def test_a_face_that_looks_backwards_is_turned(tmp_path: Path):
    said: list[str] = []
    write_glb(tmp_path / "back.glb", _meshes(), 1.0, np.diag([-1.0, 1.0, -1.0]))
    rig = import_rig(tmp_path / "back.glb", said.append)
    assert any("looked along -z" in line for line in said)
    assert _part(rig, "eyel").pivot[2] > 0


def test_sided_names_by_letter_and_facs_names_are_understood(tmp_path: Path):
    def rename(mesh: ArtistMesh) -> ArtistMesh:
        short = {name.replace("Left", "_L").replace("Right", "_R"): offsets for name, offsets in mesh.targets.items()}
        short["AU_01"] = short.pop("browInnerUp")
        return replace(mesh, targets={f"head_bs.{name}": offsets for name, offsets in short.items()})

    rig, said = _import(tmp_path, _changed(Head_geo=rename))
    assert set(AU_NAMES) <= set(rig.shapes) and "no shape for" not in said


def test_what_is_missing_is_said_and_stays_still(tmp_path: Path):
    def strip(mesh: ArtistMesh) -> ArtistMesh:
        return replace(mesh, texture=None, uv=None, targets={name: mesh.targets[name] for name in ("jawOpen", "eyeBlinkLeft")})

    rig, said = _import(tmp_path, _changed(Head_geo=strip))
    assert "a plain skin was invented" in said and "no shape for AU01, AU02, AU04" in said
    assert "AU12" not in rig.shapes and np.abs(rig.pose(coefficients({"AU12": 5.0})).face - rig.face.vertices).max() == 0


def test_eyes_and_teeth_in_the_face_mesh_are_found_by_connected_part(tmp_path: Path):
    face, *rest = _meshes()
    taken = [mesh for mesh in rest if mesh.name.startswith(("Eye", "Teeth"))]
    starts = np.cumsum([len(face.vertices), *(len(mesh.vertices) for mesh in taken)])
    grown = {
        name: np.concatenate([offsets, *(mesh.targets.get(name, np.zeros_like(mesh.vertices)) for mesh in taken)])
        for name, offsets in face.targets.items()
    }
    whole = ArtistMesh(
        "Head", np.concatenate([face.vertices, *(mesh.vertices for mesh in taken)]),
        np.concatenate([face.faces, *(mesh.faces + start for mesh, start in zip(taken, starts))]), targets=grown,
    )  # fmt: skip
    rig, said = _import(tmp_path, [whole])
    assert sorted(part.attachment for part in rig.parts) == ["eye", "eye", "head", "jaw"]
    assert "unconnected pieces taken from the face" in said
    assert len(rig.face.vertices) < len(_import(tmp_path, list(_meshes()))[0].face.vertices) * 1.01


def test_both_eyes_in_one_mesh_and_both_rows_of_teeth_are_parted(tmp_path: Path):
    meshes = {mesh.name: mesh for mesh in _meshes()}

    def together(name: str, first: ArtistMesh, second: ArtistMesh) -> ArtistMesh:
        vertices = np.concatenate((first.vertices, second.vertices))
        return ArtistMesh(name, vertices, np.concatenate((first.faces, second.faces + len(first.vertices))))

    pair = together("Eyes", meshes["Eye_L"], meshes["Eye_R"])
    rows = together("Teeth", meshes["Teeth_upper"], meshes["Teeth_lower"])
    rig, said = _import(tmp_path, [meshes["Head_geo"], pair, rows])
    assert sorted(part.attachment for part in rig.parts) == ["eye", "eye", "head", "jaw"]
    assert "both eyes in one mesh" in said and "upper and lower teeth" in said
    pivots = {part.name[-5:]: part.pivot[0] for part in rig.parts if part.attachment == "eye"}
    assert pivots["right"] < 0 < pivots["_left"]
    nameless = together("Object_7", meshes["Eye_L"], meshes["Eye_R"])
    rig, said = _import(tmp_path, [meshes["Head_geo"], nameless])
    assert [part.attachment for part in rig.parts] == ["eye", "eye"] and "by its shape" in said


def test_flawed_triangles_are_dropped_and_named(tmp_path: Path):
    def spoil(mesh: ArtistMesh) -> ArtistMesh:
        loose = np.concatenate((mesh.vertices, [[0.0, 0.0, 0.05]]))
        targets = {name: np.concatenate((offsets, [[0.0, 0.0, 0.0]])) for name, offsets in mesh.targets.items()}
        a, b, _ = mesh.faces[-1]
        faces = np.concatenate((mesh.faces, [[a, a, b], mesh.faces[-1], [a, b, len(mesh.vertices) // 2]]))
        return replace(mesh, vertices=loose, faces=faces, targets=targets, uv=None, texture=None)

    _, said = _import(tmp_path, _changed(Head_geo=spoil))
    assert "1 degenerate triangles, 1 doubled triangles, 1 vertices without a triangle dropped" in said
    assert "non-manifold" in said


def test_a_texture_that_is_missing_is_named_and_left_out(tmp_path: Path):
    said: list[str] = []
    write_obj_folder(tmp_path / "folder", _meshes())
    (tmp_path / "folder" / "skin.png").unlink()
    rig = import_rig(tmp_path / "folder", said.append)
    assert any("skin.png" in line and "left out" in line for line in said)
    assert np.ptp(rig.face.colors, axis=0).max() < 1e-6  # the material's own colour
    document = {
        "asset": {"version": "2.0"}, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}], "images": [{"uri": "lost%20skin.png"}],
        "textures": [{"source": 0}], "materials": [{"name": "skin", "pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "material": 0, "targets": [{"POSITION": 0}]}]}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": 3, "type": kind} for kind in ("VEC3", "VEC2")],
        "bufferViews": [{"buffer": 0, "byteLength": 36}], "buffers": [{"byteLength": 36}],
    }  # fmt: skip
    write_container(tmp_path / "lost.glb", document, struct.pack("<9f", *range(9)))
    with pytest.raises(InputError, match="ARKit or FACS"):
        import_rig(tmp_path / "lost.glb", said.append)
    assert any("lost%20skin.png" in line and "left out" in line for line in said)


def test_files_of_an_obj_folder_that_are_parts_stay_meshes_of_their_own(tmp_path: Path):
    face, *rest = _meshes()
    write_obj_folder(tmp_path / "all", [face])
    for mesh in rest[:2]:
        write_obj_folder(tmp_path / "one", [replace(mesh, targets={})])
        for name in ("neutral.obj", "eyeball.png"):
            target = f"{mesh.name}.obj" if name.endswith("obj") else name
            (tmp_path / "one" / name).rename(tmp_path / "all" / target)
    found = read_obj_folder(tmp_path / "all", importing._is_part_file, lambda line: None)
    assert [bool(mesh.shapes) for mesh in found] == [True, False, False]
    assert set(found[0].shapes) == set(face.targets)


def test_what_cannot_be_a_rig_is_refused_with_the_reason(tmp_path: Path):
    still = [replace(mesh, targets={}) for mesh in _meshes()]
    with pytest.raises(InputError, match="no morph targets"):
        _import(tmp_path, still)
    with pytest.raises(InputError, match="only eyes, teeth or tongue"):
        _import(tmp_path, [still[0], *_meshes()[3:5]])
    with pytest.raises(InputError, match="no head in metres"):
        huge = replace(_meshes()[0], vertices=_meshes()[0].vertices * 5000)
        _import(tmp_path, [huge])
    with pytest.raises(InputError, match="opens the jaw"):
        _import(
            tmp_path, _changed(Head_geo=lambda mesh: replace(mesh, targets={"mouthSmileLeft": mesh.targets["mouthSmileLeft"]}))
        )
    (tmp_path / "junk.glb").write_bytes(b"glTF" + b"\xff" * 40)
    with pytest.raises(InputError):
        import_rig(tmp_path / "junk.glb")
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(InputError, match=r"neutral\.obj"):
        import_rig(folder)
    write_obj_folder(folder, _meshes()[:1])
    (folder / "eyeBlinkLeft.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    with pytest.raises(InputError, match="3 vertices"):
        import_rig(folder)
    (folder / "neutral.obj").write_text("v 0 0 0\nv 1 0 nan\nv 0 1 0\nf 1 2 3\n")
    with pytest.raises(InputError, match="not numbers"):
        import_rig(folder)


def test_lower_teeth_go_with_the_jaw_and_upper_ones_stay(tmp_path: Path):
    """carry_jaw is what the file's own jaw does, in the file's coordinates."""
    rig, _ = _import(tmp_path, list(_meshes()))
    opened = rig.pose(coefficients({"AU26": 5.0}))
    own = {mesh.name: mesh.vertices for mesh in _meshes()}
    lower, upper = _part(rig, "teethlower"), _part(rig, "teethupper")
    origin = own["Teeth_lower"][0] - lower.mesh.vertices[0]
    wanted = carry_jaw(own["Teeth_lower"]) - origin
    assert np.abs(opened.parts[lower.name] - wanted).max() < 0.004
    assert np.abs(opened.parts[upper.name] - upper.mesh.vertices).max() < 1e-6


def test_a_capture_remembers_its_rig_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _import(tmp_path, list(_meshes()))
    monkeypatch.chdir(tmp_path)
    named = name_rig("head.glb")
    monkeypatch.chdir(Path(__file__).parent)
    assert len(open_rig(named).shapes) >= len(AU_NAMES)
    assert name_rig(BUILTIN) == BUILTIN
    with pytest.raises(InputError, match="no rig at"):
        open_rig("head.glb")
