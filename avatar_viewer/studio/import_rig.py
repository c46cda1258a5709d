"""An artist's head as a blendshape rig: a GLB with morph targets, or a folder of OBJ files (a neutral and one file a shape).

Shapes are recognised by ARKit names (through assets/arkit_to_au.json) or by FACS names. Units, axes, seams and flaws are put
right and said; nothing that the file lacks is invented in silence.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.optimize import nnls
from scipy.spatial import cKDTree

from ..action_units import AU_NAMES, MAX_INTENSITY
from ..errors import InputError
from .blendshapes import VISEMES, BlendshapeRig, Mesh, Part, fit_rigid_motion
from .gltf_meshes import read_glb
from .import_parts import STILL_METRES, as_parts, kind_of, make_part, split_face
from .obj_meshes import read_obj_folder
from .raw_meshes import RawMesh, Say, drop_flaws, subdivide, weld

ARKIT_TABLE = Path(__file__).parents[2] / "assets" / "arkit_to_au.json"
PLAIN_SKIN = (0.80, 0.62, 0.53)
HEAD_METRES = (0.12, 0.6)  # a face mesh, with or without neck and crown, is so high
LIP_GAP_METRES, LIP_STEP_METRES, LIP_FORWARD = 0.006, 0.002, 0.3  # the last: metres of gap a metre of depth
_UNITS = (("metres", 1.0), ("centimetres", 0.01), ("millimetres", 0.001), ("inches", 0.0254))
# Vertices are all that carries colour, and the face's are its Gaussians: a coarse mesh is made finer, up to so many.
FACE_VERTICES, PART_VERTICES = 12_000, 5_000
SHAPE_NAMES = r"brow(down|inner|outer)|eye(blink|look|squint|wide)|tongueout|^au\d+|viseme"  # that sound like parts
MANY_VERTICES = 25_000  # of a face: beyond, the avatar's files pass 15 MB


def import_rig(path: Path, say: Say = print) -> BlendshapeRig:
    """The rig in `path`; `say` gets one line for everything corrected, missing or invented. `InputError` says what cannot do."""
    meshes = read_obj_folder(path, _is_part_file, say) if path.is_dir() else read_glb(path, say)
    if not any(mesh.shapes for mesh in meshes):
        raise InputError(f"{path} has no morph targets; export the head with its blendshapes (ARKit or FACS names)")
    if not any(mesh.shapes for mesh in meshes if kind_of(mesh.name) is None):
        raise InputError(f"{path}: only eyes, teeth or tongue have morph targets; the face mesh needs them")
    meshes = _stand_upright(meshes, path, say)
    moving = [bool(mesh.shapes) and kind_of(mesh.name) is None and _moves(mesh) for mesh in meshes]
    skins = [mesh for mesh, moves in zip(meshes, moving) if moves]
    face = weld(_join(_refine_face(skins, say), say), say)
    face.shapes, absent = to_action_units(face.shapes, say)
    if absent:
        say(f"no shape for {', '.join(absent)}: those stay still")
    skin, pieces = split_face(face, face.shapes["AU26"], say)
    parts = [make_part(face.take(ids), f"{name}_{i}", None, how, say) for i, (name, how, ids) in enumerate(pieces)]
    face = face.take(skin)
    fall = float(np.linalg.norm(face.shapes["AU26"], axis=1).max())
    others = [mesh for mesh, moves in zip(meshes, moving) if not moves]
    for index, other in enumerate(others):
        parts += as_parts(_refine(other), mix_shapes(other.shapes)[0].get("AU26"), fall, index, say)
    if face.colors is None:
        say(f"{face.name}: no texture and no vertex colours; a plain skin was invented")
    if len(face.vertices) > MANY_VERTICES:
        say(f"{face.name}: {len(face.vertices)} vertices make an avatar's files large and slow; {MANY_VERTICES} are plenty")
    return _as_rig(path, face, parts)


def _is_part_file(stem: str) -> bool:
    """Whether a file of an OBJ folder is a mesh of its own, by its name: eyes.obj is, eyeBlinkLeft.obj is not."""
    return kind_of(stem) is not None and re.search(SHAPE_NAMES, stem, re.IGNORECASE) is None


def _moves(mesh: RawMesh) -> bool:
    return any(np.abs(offsets).max(initial=0) > STILL_METRES for offsets in mesh.shapes.values())


def _as_rig(path: Path, face: RawMesh, parts: list[Part]) -> BlendshapeRig:
    colors = np.tile(PLAIN_SKIN, (len(face.vertices), 1)) if face.colors is None else face.colors
    mesh = Mesh(face.vertices.astype(np.float32), face.faces.astype(np.int32), np.clip(colors, 0, 1).astype(np.float32))
    return BlendshapeRig(
        name=path.stem,
        face=mesh,
        shapes={name: offsets.astype(np.float32) for name, offsets in face.shapes.items()},
        parts=tuple(parts),
        regions=_find_regions(mesh, face.shapes, path),
        viseme_aus=_viseme_aus(face.shapes),
    )


def _refine_face(skins: list[RawMesh], say: Say) -> list[RawMesh]:
    """All skin meshes made finer together, so that what was joined stays joined."""
    count = sum(len(mesh.vertices) for mesh in skins)
    while sum(len(mesh.vertices) for mesh in skins) * 4 <= FACE_VERTICES:
        skins = [subdivide(mesh) for mesh in skins]
    finer = sum(len(mesh.vertices) for mesh in skins)
    if finer > count:
        say(f"{skins[0].name}: {count} vertices are few for a face; triangles split to {finer}")
    return skins


def _refine(mesh: RawMesh) -> RawMesh:
    """Finer where a texture has more to show than the vertices can carry; painted."""
    while mesh.texture is not None and len(mesh.vertices) * 4 <= PART_VERTICES:
        mesh = subdivide(mesh)
    return RawMesh(mesh.name, mesh.vertices, mesh.faces, mesh.paint(), mesh.shapes)


def _join(meshes: list[RawMesh], say: Say) -> RawMesh:
    """One painted mesh, named after the largest; a shape that one of them lacks leaves that one still."""
    meshes = sorted(meshes, key=lambda mesh: (-len(mesh.shapes), -len(mesh.vertices)))
    if len(meshes) > 1:
        say(f"{meshes[0].name}: joined with {', '.join(mesh.name for mesh in meshes[1:])}, which have morph targets too")
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    painted = [mesh.paint() for mesh in meshes]
    colors = None
    if any(paint is not None for paint in painted):
        plain = [np.tile(PLAIN_SKIN, (len(mesh.vertices), 1)) for mesh in meshes]
        colors = np.concatenate([invented if paint is None else paint for paint, invented in zip(painted, plain)])
    shapes = {}
    for name in dict.fromkeys(name for mesh in meshes for name in mesh.shapes):
        shapes[name] = np.concatenate([mesh.shapes.get(name, np.zeros_like(mesh.vertices)) for mesh in meshes])
    faces = np.concatenate([mesh.faces + start for mesh, start in zip(meshes, starts)])
    return RawMesh(meshes[0].name, np.concatenate([mesh.vertices for mesh in meshes]), faces, colors, shapes)


def to_action_units(found: dict[str, np.ndarray], say: Say) -> tuple[dict[str, np.ndarray], list[str]]:
    """AU and viseme shapes from ARKit or FACS names, and the AUs that have none."""
    shapes, unmapped = mix_shapes(found)
    if unmapped:
        say(f"shapes without a use here: {', '.join(sorted(unmapped))}")
    if not any(name in shapes for name in AU_NAMES):
        raise InputError(f"no shape has an ARKit or FACS name; found {', '.join(sorted(found)[:8])} ...")
    if "AU26" not in shapes:
        raise InputError("no shape opens the jaw (ARKit jawOpen or FACS AU26): lips and jaw cannot be found without it")
    return shapes, [name for name in AU_NAMES if name not in shapes]


def mix_shapes(found: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[str]]:
    """What can be made of the shapes `found`, and the names of those that nothing asks for."""
    table = json.loads(ARKIT_TABLE.read_text(encoding="utf-8"))
    known = {_key(source) for kind in ("action_units", "visemes") for mix in table[kind].values() for source in mix}
    by_key = {_arkit_key(name, known): offsets for name, offsets in found.items()}
    shapes: dict[str, np.ndarray] = {}
    used: set[str] = set()
    for name in (*AU_NAMES, *VISEMES):
        sides = [key for key in by_key if _facs_name(key) == name] if name in AU_NAMES else [_key(f"viseme_{name}")]
        sides = [key for key in sides if key in by_key]
        if sides:
            shapes[name] = sum(by_key[key] for key in sides)
            used.update(sides)
    for kind in ("action_units", "visemes"):
        for name, mix in table[kind].items():
            present = {source: weight for source, weight in mix.items() if _key(source) in by_key}
            used.update(_key(source) for source in present)
            if name not in shapes and present:
                shapes[name] = sum(weight * by_key[_key(source)] for source, weight in present.items())
    return shapes, [name for name in found if _arkit_key(name, known) not in used]


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().rsplit(".", 1)[-1])


def _arkit_key(name: str, known: set[str]) -> str:
    """The name as ARKit writes it, where it differs by `_L`, `_R` or a leading mesh name."""
    key = _key(name)
    if key in known:
        return key
    sided = re.sub(r"(l|r)$", lambda side: {"l": "left", "r": "right"}[side[1]], key)
    if sided in known:
        return sided
    return next((end for end in sorted(known, key=len, reverse=True) if key.endswith(end) or sided.endswith(end)), key)


def _facs_name(key: str) -> str | None:
    match = re.fullmatch(r"au0*(\d{1,2})(l|r|left|right)?", key)
    return f"AU{int(match[1]):02d}" if match else None


def _stand_upright(meshes: list[RawMesh], path: Path, say: Say) -> list[RawMesh]:
    """Metres, y up, facing +z, the head's centre in the origin, without flawed triangles.

    The mesh that most shapes move is measured; its jaw's fall says which way is down.
    """
    shaped = [mesh for mesh in meshes if mesh.shapes and kind_of(mesh.name) is None]
    face = max(shaped, key=lambda mesh: (_count_moving(mesh), len(mesh.vertices)))
    jaw = to_action_units(face.shapes, _unsaid)[0]["AU26"]
    moving = np.linalg.norm(jaw, axis=1)
    if moving.max() <= 0:
        raise InputError(f"{path}: the shape that should open the jaw moves nothing")
    fall = jaw.sum(axis=0) / np.linalg.norm(jaw.sum(axis=0))
    turn = np.eye(3)
    if abs(fall[2]) > abs(fall[1]) and fall[2] < 0:
        turn = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
        say("z was up: turned to y up")
    vertices = face.vertices @ turn.T
    if vertices[moving > 0.7 * moving.max()].mean(axis=0)[2] < vertices.mean(axis=0)[2]:
        turn = np.diag([-1.0, 1.0, -1.0]) @ turn
        say("the face looked along -z: turned to +z")
    height = np.ptp((face.vertices @ turn.T)[:, 1])
    fitting = [(name, unit) for name, unit in _UNITS if HEAD_METRES[0] <= height * unit <= HEAD_METRES[1]]
    if not fitting:
        raise InputError(
            f"{path}: the face is {height:.4g} units high, which is no head in metres, centimetres, millimetres or inches"
        )
    name, unit = fitting[0]
    if unit != 1.0:
        say(f"units were {name}: converted to metres")
    vertices = face.vertices @ turn.T * unit
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    centre = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, high[2] - 0.1])
    placed = []
    for mesh in meshes:
        shapes = {key: offsets @ turn.T * unit for key, offsets in mesh.shapes.items()}
        placed.append(replace(mesh, vertices=mesh.vertices @ turn.T * unit - centre, shapes=shapes))
    return [solid for solid in (drop_flaws(mesh, say) for mesh in placed) if len(solid.faces)]


def _count_moving(mesh: RawMesh) -> int:
    """How many shapes move the mesh by a ten-thousandth of its size or more."""
    least = 1e-4 * np.ptp(mesh.vertices, axis=0).max()
    return sum(np.abs(offsets).max(initial=0) > least for offsets in mesh.shapes.values())


def _unsaid(line: str) -> None:
    """For what is said later, of the whole face."""


def _find_regions(face: Mesh, shapes: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    """Named vertex sets, from what each shape moves."""
    lengths = {name: np.linalg.norm(offsets, axis=1) for name, offsets in shapes.items()}
    regions = {n: np.flatnonzero(length > 0.2 * max(length.max(), 1e-9)) for n, length in lengths.items() if n in AU_NAMES}
    fall = lengths["AU26"] / max(lengths["AU26"].max(), 1e-9)
    upper, lower = _pair_lips(face, fall)
    if len(upper) < 3:
        raise InputError(f"{path}: found no lips that part when the jaw opens; is jawOpen (AU26) a shape of the face mesh?")
    middle = face.vertices[np.concatenate((upper, lower))]
    near = cKDTree(middle).query(face.vertices)[0]
    lids = regions.get("AU45", np.zeros(0, dtype=np.int64))
    eye_height = face.vertices[lids, 1].mean() if len(lids) else middle[:, 1].mean() + 0.06
    return regions | {
        "lips": np.flatnonzero(near < 0.012),
        "lip_upper": upper,
        "lip_lower": lower,
        "eyelids": lids,
        "upper_face": np.flatnonzero(face.vertices[:, 1] > eye_height),
        "jaw": _rigid_jaw(face, shapes["AU26"], fall),
    }


def _pair_lips(face: Mesh, fall: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inner-lip vertices: close together at rest, parted by the jaw; one pair every few millimetres from -x to +x."""
    falls, stays = np.flatnonzero(fall > 0.55), np.flatnonzero(fall < 0.35)
    if not len(falls) or not len(stays):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    gap, partner = cKDTree(face.vertices[stays]).query(face.vertices[falls])
    near = np.flatnonzero(gap < LIP_GAP_METRES)
    low, high, gap = falls[near], stays[partner[near]], gap[near]
    # Lips touch in front of the mouth's bag and behind their red: what lies deeper must be that much closer to count.
    rank = gap - LIP_FORWARD * face.vertices[low, 2]
    best: dict[int, int] = {}
    for pair in np.argsort(rank, kind="stable"):
        best.setdefault(int(face.vertices[high[pair], 0] // LIP_STEP_METRES), int(pair))
    pairs = {int(high[pair]): int(low[pair]) for pair in best.values()}
    ordered = sorted(pairs, key=lambda vertex: face.vertices[vertex, 0])
    return np.asarray(ordered, dtype=np.int64), np.asarray([pairs[vertex] for vertex in ordered], dtype=np.int64)


def _rigid_jaw(face: Mesh, offsets: np.ndarray, fall: np.ndarray) -> np.ndarray:
    """The vertices that move with the mandible as one piece."""
    chosen = np.flatnonzero(fall > 0.75)
    for _ in range(5):
        transform = fit_rigid_motion(face.vertices[chosen], (face.vertices + offsets)[None, chosen])[0]
        carried = face.vertices @ transform[:3, :3].T + transform[:3, 3]
        error = np.linalg.norm(carried - face.vertices - offsets, axis=1)
        better = np.flatnonzero((error < 0.08 * np.linalg.norm(offsets, axis=1).max()) & (fall > 0.6))
        if len(better) < 12:
            break
        chosen = better
    return chosen


def _viseme_aus(shapes: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """What each viseme shows of each AU: non-negative least squares on the shapes."""
    names = [name for name in AU_NAMES if name in shapes]
    basis = np.stack([shapes[name].ravel() / MAX_INTENSITY for name in names], axis=1)
    gram, result = basis.T @ basis, {}
    factor = np.linalg.cholesky(gram + 1e-9 * np.trace(gram) * np.eye(len(names)))
    for viseme in VISEMES:
        if viseme in shapes:
            weights, _ = nnls(factor.T, np.linalg.solve(factor, basis.T @ shapes[viseme].ravel()))
            result[viseme] = {name: float(min(w, MAX_INTENSITY)) for name, w in zip(names, weights) if w > 0.05}
    return result
