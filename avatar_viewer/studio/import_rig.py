"""An artist's head as a blendshape rig: a GLB with morph targets, or a folder of OBJ files (a neutral and one file a shape).

Shapes are recognised by ARKit names (through assets/arkit_to_au.json) or by FACS names; eyes, teeth and tongue by the names
of meshes and materials. Units, axes and seams are put right and said; nothing that the file lacks is invented in silence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.optimize import nnls
from scipy.spatial import cKDTree

from ..action_units import AU_NAMES, MAX_INTENSITY
from ..errors import InputError
from .blendshapes import VISEMES, BlendshapeRig, Mesh, Part, fit_rigid_motion
from .gltf_meshes import RawMesh, read_glb, sample_texture

ARKIT_TABLE = Path(__file__).parents[2] / "assets" / "arkit_to_au.json"
NEUTRAL_NAMES = ("neutral", "base", "basis", "rest", "default")
PLAIN_SKIN = (0.80, 0.62, 0.53)
PLAIN_COLORS = {"eye": (0.93, 0.93, 0.93), "teeth": (0.92, 0.89, 0.83), "tongue": (0.72, 0.35, 0.35), "hair": (0.25, 0.17, 0.12)}
HEAD_METRES = (0.12, 0.6)  # a face mesh, with or without neck and crown, is so high
_UNITS = (("metres", 1.0), ("centimetres", 0.01), ("millimetres", 0.001), ("inches", 0.0254))
Say = Callable[[str], None]


def import_rig(path: Path, say: Say = print) -> BlendshapeRig:
    """The rig in `path`; `say` gets one line for everything corrected, missing or invented. `InputError` says what cannot do."""
    meshes = read_obj_folder(path) if path.is_dir() else read_glb(path)
    shaped = [mesh for mesh in meshes if mesh.shapes]
    if not shaped:
        raise InputError(f"{path} has no morph targets; export the head with its blendshapes (ARKit or FACS names)")
    face = max((m for m in shaped if _kind_of(m.name) is None), default=None, key=lambda m: (len(m.shapes), len(m.vertices)))
    if face is None:
        raise InputError(f"{path}: only eyes, teeth or tongue have morph targets; the face mesh needs them")
    others = [mesh for mesh in meshes if mesh is not face]
    shapes, absent = _to_action_units(face.shapes, say)
    _stand_upright(face, others, shapes, path, say)
    face, shapes = _weld(face, shapes, say)
    if absent:
        say(f"no shape for {', '.join(absent)}: those stay still")
    if face.colors is None:
        say(f"{face.name}: no texture and no vertex colours; a plain skin was invented")
    colors = np.tile(PLAIN_SKIN, (len(face.vertices), 1)) if face.colors is None else face.colors
    mesh = Mesh(face.vertices.astype(np.float32), face.faces.astype(np.int32), np.clip(colors, 0, 1).astype(np.float32))
    return BlendshapeRig(
        name=path.stem,
        face=mesh,
        shapes={name: offsets.astype(np.float32) for name, offsets in shapes.items()},
        parts=tuple(_as_part(other, i, say) for i, other in enumerate(others)),
        regions=_find_regions(mesh, shapes, path),
        viseme_aus=_viseme_aus(shapes),
    )


def read_obj_folder(folder: Path) -> list[RawMesh]:
    """The neutral with every other file as a shape; files of parts (eyes, teeth, tongue, hair) stay meshes of their own."""
    files = sorted(folder.glob("*.obj"))
    neutral = next((file for file in files if file.stem.lower() in NEUTRAL_NAMES), None)
    if neutral is None:
        raise InputError(f"{folder} has no neutral.obj (or base, basis, rest, default) among {len(files)} OBJ files")
    face = _read_obj(neutral)
    meshes, differing = [face], []
    for file in files:
        if file == neutral:
            continue
        mesh = _read_obj(file)
        if _kind_of(file.stem) is not None:
            meshes.append(mesh)
        elif len(mesh.vertices) != len(face.vertices):
            differing.append(f"{file.name} ({len(mesh.vertices)} vertices)")
        else:
            face.shapes[file.stem] = mesh.vertices - face.vertices
    if differing:
        raise InputError(
            f"{neutral.name} has {len(face.vertices)} vertices; not so {', '.join(differing)}: all shapes need one topology"
        )
    return meshes


def _read_obj(path: Path) -> RawMesh:
    vertices, colors, uvs, faces, corners_uv, image = [], [], [], [], {}, None
    try:
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            words = line.split()
            if words[:1] == ["v"]:
                vertices.append([float(x) for x in words[1:4]])
                colors.append([float(x) for x in words[4:7]] if len(words) >= 7 else None)
            elif words[:1] == ["vt"]:
                uvs.append([float(x) for x in words[1:3]])
            elif words[:1] == ["f"]:
                pieces = [word.split("/") for word in words[1:]]
                ids = [int(p[0]) - 1 if int(p[0]) > 0 else len(vertices) + int(p[0]) for p in pieces]
                corners_uv.update({v: int(p[1]) - 1 for v, p in zip(ids, pieces) if len(p) > 1 and p[1]})
                faces += [(ids[0], ids[i], ids[i + 1]) for i in range(1, len(ids) - 1)]
            elif words[:1] == ["mtllib"]:
                image = _texture_of(path.parent / " ".join(words[1:]))
        points, triangles = (
            np.asarray(vertices, dtype=np.float64).reshape(-1, 3),
            np.asarray(faces, dtype=np.int64).reshape(-1, 3),
        )
        if not len(triangles) or triangles.min() < 0 or triangles.max() >= len(points):
            raise InputError(f"{path} holds no mesh, or a face names a vertex that is not there")
        found = None
        if image is not None and len(corners_uv) == len(points):
            uv = np.asarray([uvs[corners_uv[i]] for i in range(len(points))])
            found = sample_texture(image, np.stack((uv[:, 0], 1 - uv[:, 1]), axis=1))
        elif all(color is not None for color in colors):
            found = np.asarray(colors, dtype=np.float64)
    except (OSError, ValueError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot read {path}: {error}") from error
    return RawMesh(path.stem, points, triangles, found)


def _texture_of(library: Path) -> np.ndarray | None:
    """The first colour texture of a material library; `InputError` names one that is missing."""
    if not library.exists():
        return None
    for line in library.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.strip().lower().startswith("map_kd"):
            picture = library.parent / line.split(maxsplit=1)[1].strip()
            if not picture.exists():
                raise InputError(f"{library.name} names the texture {picture.name}, which is not in {library.parent}")
            with Image.open(picture) as image:
                return np.asarray(image.convert("RGB"))
    return None


def _to_action_units(found: dict[str, np.ndarray], say: Say) -> tuple[dict[str, np.ndarray], list[str]]:
    """AU and viseme shapes from ARKit or FACS names, and the AUs that have none."""
    table = json.loads(ARKIT_TABLE.read_text(encoding="utf-8"))
    by_key = {_key(name): offsets for name, offsets in found.items()}
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
    unmapped = [name for name in found if _key(name) not in used]
    if unmapped:
        say(f"shapes without a use here: {', '.join(sorted(unmapped))}")
    if not any(name in shapes for name in AU_NAMES):
        raise InputError(f"no shape has an ARKit or FACS name; found {', '.join(sorted(found)[:8])} ...")
    if "AU26" not in shapes:
        raise InputError("no shape opens the jaw (ARKit jawOpen or FACS AU26): lips and jaw cannot be found without it")
    return shapes, [name for name in AU_NAMES if name not in shapes]


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().rsplit(".", 1)[-1])


def _facs_name(key: str) -> str | None:
    match = re.fullmatch(r"au0*(\d{1,2})(l|r|left|right)?", key)
    return f"AU{int(match[1]):02d}" if match else None


def _stand_upright(face: RawMesh, others: list[RawMesh], shapes: dict[str, np.ndarray], path: Path, say: Say) -> None:
    """Metres, y up, facing +z, the head's centre in the origin; the jaw's fall says which way is down."""
    fall = shapes["AU26"].sum(axis=0)
    fall = fall / max(np.linalg.norm(fall), 1e-12)
    turn = np.eye(3)
    if abs(fall[2]) > abs(fall[1]) and fall[2] < 0:
        turn = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
        say("z was up: turned to y up")
    vertices = face.vertices @ turn.T
    moving = np.linalg.norm(shapes["AU26"], axis=1)
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
    for mesh in (face, *others):
        mesh.vertices = mesh.vertices @ turn.T * unit - centre
    shapes.update({name: offsets @ turn.T * unit for name, offsets in shapes.items()})


def _weld(face: RawMesh, shapes: dict[str, np.ndarray], say: Say) -> tuple[RawMesh, dict[str, np.ndarray]]:
    """One vertex where texture seams made several, and no degenerate triangle."""
    signature = np.concatenate([face.vertices, *shapes.values()], axis=1)
    _, first, back = np.unique(np.round(signature, 6), axis=0, return_index=True, return_inverse=True)
    faces = back.reshape(-1)[face.faces]
    solid = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    if len(first) < len(face.vertices):
        say(f"{face.name}: {len(face.vertices) - len(first)} seam vertices welded, {len(first)} left")
    if not solid.all():
        say(f"{face.name}: {int((~solid).sum())} degenerate triangles dropped")
    colors = None if face.colors is None else face.colors[first]
    return RawMesh(face.name, face.vertices[first], faces[solid], colors), {
        name: values[first] for name, values in shapes.items()
    }


def _kind_of(name: str) -> str | None:
    """eye, teeth, tongue, hair ... from a mesh's name; None for what may be the face."""
    lowered = name.lower()
    if "tongue" in lowered:
        return "tongue"
    if "teeth" in lowered or "tooth" in lowered or "gum" in lowered:
        return "teeth"
    if any(word in lowered for word in ("brow", "lash")):
        return "strands"
    if "eye" in lowered and not any(word in lowered for word in ("lid", "wet", "occlu")):
        return "eye"
    return "hair" if "hair" in lowered else None


def _as_part(mesh: RawMesh, index: int, say: Say) -> Part:
    kind = _kind_of(mesh.name)
    color = PLAIN_COLORS.get(kind or "", (0.6, 0.6, 0.6))
    if mesh.colors is None:
        say(f"{mesh.name}: no colour; a plain one was invented")
    colors = np.tile(color, (len(mesh.vertices), 1)) if mesh.colors is None else mesh.colors
    solid = Mesh(mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32), np.clip(colors, 0, 1).astype(np.float32))
    centre = (mesh.vertices.min(axis=0) + mesh.vertices.max(axis=0)) / 2
    lowered = mesh.name.lower()
    is_lower = any(word in lowered for word in ("lower", "bottom", "down", "mandib"))
    attachment = {"eye": "eye", "tongue": "tongue", "strands": "face"}.get(kind or "", "head")
    if kind == "teeth" and is_lower:
        attachment = "jaw"
    if attachment == "eye" and np.ptp(mesh.vertices[:, 0]) > 0.045:
        say(f"{mesh.name}: both eyes in one mesh, so gaze cannot turn them; separate them by name")
        attachment = "head"
    return Part(f"{_key(mesh.name) or 'part'}_{index}", solid, attachment, tuple(float(x) for x in centre))


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
    """Inner-lip vertices: close together at rest, parted by the jaw; sorted from -x to +x."""
    falls, stays = np.flatnonzero(fall > 0.55), np.flatnonzero(fall < 0.35)
    if not len(falls) or not len(stays):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    distance, partner = cKDTree(face.vertices[stays]).query(face.vertices[falls])
    pairs: dict[int, tuple[float, int]] = {}
    for low, gap, high in zip(falls, distance, stays[partner]):
        if gap < 0.006 and (int(high) not in pairs or gap < pairs[int(high)][0]):
            pairs[int(high)] = (float(gap), int(low))
    ordered = sorted(pairs, key=lambda high: face.vertices[high, 0])
    return np.asarray(ordered, dtype=np.int64), np.asarray([pairs[high][1] for high in ordered], dtype=np.int64)


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
