"""What in an artist's file is not the face: eyes, teeth, tongue, hair, brows ... told by name, by material or by connected part.

Works on upright meshes in metres whose colours are painted. Knows how a part may move; knows no file format.
"""

from __future__ import annotations

import re

import numpy as np

from .blendshapes import Mesh, Part
from .raw_meshes import RawMesh, Say, find_islands

PLAIN_COLORS = {"eye": (0.93, 0.93, 0.93), "teeth": (0.92, 0.89, 0.83), "tongue": (0.72, 0.35, 0.35), "hair": (0.25, 0.17, 0.12)}
PLAIN_COLOR = (0.6, 0.6, 0.6)
EYEBALL_METRES = (0.014, 0.045)  # across: from a child's iris-sided shell to a stylised giant's
ROUND = 0.25  # how far the sides of an eyeball's box may differ
SKIN_SHARE = 0.2  # of the largest island's triangles: an island so large is skin too
STILL_METRES = 2e-4
CARRIED = 0.6  # of the jaw's fall: what moves so far goes with the jaw


def kind_of(name: str) -> str | None:
    """eye, teeth, tongue, hair or strands, from the names of file, mesh and material; None for what may be the face."""
    lowered = name.lower()
    if "tongue" in lowered:
        return "tongue"
    if any(word in lowered for word in ("teeth", "tooth", "gum", "denture")):
        return "teeth"
    if any(word in lowered for word in ("brow", "lash")):
        return "strands"
    if re.search(r"eye(?!\s*_?(?:lid|wet|occlu|line))|cornea|sclera|iris", lowered):
        return "eye"
    return "hair" if "hair" in lowered else None


def split_face(face: RawMesh, jaw: np.ndarray, say: Say) -> tuple[np.ndarray, list[tuple[str, str, np.ndarray]]]:
    """Which triangles of the face mesh are skin, and the others as (name, attachment, triangles) by how they look and move.

    `jaw` [P, 3] is what the jaw's shape adds.
    """
    islands = find_islands(face)
    sizes = np.bincount(islands)
    fall = np.linalg.norm(jaw, axis=1)
    reach = np.max([np.linalg.norm(offsets, axis=1) for offsets in face.shapes.values()], axis=0)
    vertices = [np.unique(face.faces[islands == island]) for island in range(len(sizes))]
    is_still = np.array([reach[used].max() < STILL_METRES for used in vertices])
    is_carried = np.array([fall[used].min() > CARRIED * fall.max() for used in vertices])
    supple = ~is_still & ~is_carried
    largest = sizes[supple].max(initial=0)
    is_skin = supple & (sizes > SKIN_SHARE * largest)
    collected: dict[tuple[str, str], list[np.ndarray]] = {}
    for island in np.flatnonzero(~is_skin):
        points = face.vertices[vertices[island]]
        if is_still[island] and is_eyeball(points):
            key = ("eye_left" if points[:, 0].mean() > 0 else "eye_right", "eye")
        elif is_carried[island]:
            key = ("teeth_lower", "jaw")
        else:
            key = ("still", "head") if is_still[island] else ("riding", "face")
        collected.setdefault(key, []).append(np.flatnonzero(islands == island))
    if collected:
        names = ", ".join(sorted(name for name, _ in collected))
        say(f"{face.name}: {int((~is_skin).sum())} unconnected pieces taken from the face as {names}")
    pieces = [(name, attachment, np.concatenate(ids)) for (name, attachment), ids in collected.items()]
    return np.flatnonzero(is_skin[islands]), pieces


def as_parts(mesh: RawMesh, jaw: np.ndarray | None, fall: float, index: int, say: Say) -> list[Part]:
    """A mesh of its own as one part, or two where eyes or teeth share it; `jaw` [P, 3] is its own shape for the jaw, if any."""
    kind = kind_of(mesh.name)
    islands = find_islands(mesh)
    groups = np.zeros(len(mesh.faces), dtype=np.int64)
    label = re.sub(r"[^a-z0-9]", "", mesh.name.lower()) or "part"
    if kind is None and _are_eyeballs(mesh, islands):
        say(f"{mesh.name}: taken for eyes by its shape")
        kind = "eye"
    if kind == "eye" and np.ptp(mesh.vertices[:, 0]) > EYEBALL_METRES[1]:
        groups = _split_by(mesh, islands, axis=0)
        if groups.max() == 0:
            say(f"{mesh.name}: both eyes are one connected piece, so gaze cannot turn them; separate them")
            return [make_part(mesh, f"{label}_{index}", kind, "head", say)]
        say(f"{mesh.name}: both eyes in one mesh, parted by the middle")
        names = [f"{label}_{index}_right", f"{label}_{index}_left"]
        return [make_part(mesh.take(groups == g), name, kind, "eye", say) for g, name in enumerate(names)]
    if kind == "teeth":
        groups, carried = _jaws_of(mesh, islands, jaw, fall)
        parts = []
        for g, moves in enumerate(carried):
            suffix = "" if len(carried) == 1 else ("_lower" if moves else "_upper")
            parts.append(make_part(mesh.take(groups == g), f"{label}_{index}{suffix}", kind, "jaw" if moves else "head", say))
        if len(carried) == 2:
            say(f"{mesh.name}: parted into upper and lower teeth")
        return parts
    attachment = {"eye": "eye", "tongue": "tongue", "strands": "face"}.get(kind or "", "head")
    return [make_part(mesh, f"{label}_{index}", kind, attachment, say)]


def make_part(mesh: RawMesh, name: str, kind: str | None, attachment: str, say: Say) -> Part:
    colors = mesh.paint()
    if colors is None:
        say(f"{mesh.name}: no colour; a plain one was invented")
        colors = np.tile(PLAIN_COLORS.get(kind or "", PLAIN_COLOR), (len(mesh.vertices), 1))
    solid = Mesh(mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32), colors.astype(np.float32))
    centre = (mesh.vertices.min(axis=0) + mesh.vertices.max(axis=0)) / 2
    return Part(name, solid, attachment, tuple(float(x) for x in centre))


def is_eyeball(points: np.ndarray) -> bool:  # [P, 3] metres
    """Whether the points fill a box as wide as high, of an eye's size, and at least half as deep."""
    width, height, depth = np.ptp(points, axis=0)
    low, high = EYEBALL_METRES
    return low < width < high and abs(width - height) < ROUND * width and 0.5 * width < depth < (1 + ROUND) * width


def _are_eyeballs(mesh: RawMesh, islands: np.ndarray) -> bool:
    large = [np.unique(mesh.faces[islands == island]) for island in range(int(islands.max()) + 1)]
    return len(large) <= 8 and all(is_eyeball(mesh.vertices[used]) for used in large)


def _split_by(mesh: RawMesh, islands: np.ndarray, axis: int) -> np.ndarray:  # -> [F] 0 below the middle of the box, 1 above
    """Islands by their side of the middle; all 0 where they lie on one side or across it."""
    middle = (mesh.vertices[:, axis].min() + mesh.vertices[:, axis].max()) / 2
    centres = mesh.vertices[mesh.faces].mean(axis=1)[:, axis]
    mean = np.bincount(islands, centres) / np.bincount(islands)
    sides = (mean > middle)[islands].astype(np.int64)
    return sides if len(np.unique(islands)) > 1 and len(np.unique(sides)) == 2 else np.zeros_like(sides)


def _jaws_of(mesh: RawMesh, islands: np.ndarray, jaw: np.ndarray | None, fall: float) -> tuple[np.ndarray, list[bool]]:
    """A group for each triangle, and whether each group goes with the jaw: by its own jaw shape, by name, by height."""
    lowered = mesh.name.lower()
    if jaw is not None:
        moved = np.linalg.norm(jaw, axis=1)[mesh.faces].mean(axis=1)
        mean = np.bincount(islands, moved) / np.bincount(islands)
        carried = (mean > CARRIED * fall)[islands]
        if carried.all() or not carried.any():
            return np.zeros(len(islands), dtype=np.int64), [bool(carried[0])]
        return carried.astype(np.int64), [False, True]
    if any(word in lowered for word in ("lower", "bottom", "down", "mandib")):
        return np.zeros(len(islands), dtype=np.int64), [True]
    if any(word in lowered for word in ("upper", "top", "maxil")):
        return np.zeros(len(islands), dtype=np.int64), [False]
    groups = _split_by(mesh, islands, axis=1)
    return (groups, [True, False]) if groups.max() else (groups, [False])
