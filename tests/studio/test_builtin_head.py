"""The built-in head keeps what its rig promises: regions, symmetry, muscles in their places, lips and lids that meet."""

from __future__ import annotations

import numpy as np
import pytest

from avatar_viewer.action_units import AU_NAMES
from avatar_viewer.studio.blendshapes import RIG_CHANNELS, VISEMES, BlendshapeRig
from avatar_viewer.studio.builtin_head import build_builtin_rig
from avatar_viewer.studio.head_hair import eyebrow_parts
from avatar_viewer.studio.head_surface import EYE_RADIUS
from avatar_viewer.studio.head_template import build_face_sheet

REGIONS = (
    "lips",
    "lip_upper",
    "lip_lower",
    "eyelids",
    "upper_face",
    "jaw",
    "nose",
    "cheeks",
    "brows",
    "forehead",
    "chin",
    *AU_NAMES,
)


@pytest.fixture(scope="module")
def rig() -> BlendshapeRig:
    return build_builtin_rig()


def values(**channels: float) -> np.ndarray:
    row = np.zeros(len(RIG_CHANNELS), np.float32)
    for name, value in channels.items():
        row[RIG_CHANNELS.index(name)] = value
    return row


def lip_gaps_mm(rig: BlendshapeRig, rows: np.ndarray) -> np.ndarray:  # [T, C] -> [T, P]
    face = rig.offsets(rows) + rig.face.vertices
    return 1000 * (face[:, rig.regions["lip_upper"], 1] - face[:, rig.regions["lip_lower"], 1])


def central_gap_mm(rig: BlendshapeRig, rows: np.ndarray) -> np.ndarray:  # [T, C] -> [T]
    gaps = lip_gaps_mm(rig, rows)
    third = gaps.shape[1] // 3
    return np.maximum(gaps[:, third : gaps.shape[1] - third], 0).mean(axis=1)


def twins(rig: BlendshapeRig) -> np.ndarray:
    from scipy.spatial import cKDTree

    distance, twin = cKDTree(rig.face.vertices).query(rig.face.vertices * [-1, 1, 1])
    assert distance.max() < 1e-6
    return twin


def test_the_rig_has_every_shape_region_and_part(rig):
    assert 7000 <= len(rig.face.vertices) <= 8600
    assert set(rig.shapes) == set(AU_NAMES) | set(VISEMES)
    assert all(len(rig.regions[name]) > 0 for name in REGIONS)
    assert set(rig.viseme_aus) == set(VISEMES)
    names = [part.name for part in rig.parts]
    assert len(names) == len(set(names))
    assert {"hair", "scalp", "neck", "garment", "teeth_upper", "teeth_lower", "tongue", "eye_left", "eye_right"} <= set(names)
    for mesh in (rig.face, *(part.mesh for part in rig.parts)):
        assert np.isfinite(mesh.vertices).all() and mesh.faces.max() < len(mesh.vertices)
        assert 0 <= mesh.colors.min() and mesh.colors.max() <= 1


def test_the_face_is_one_connected_sheet_of_sound_triangles(rig):
    import trimesh

    mesh = trimesh.Trimesh(rig.face.vertices, rig.face.faces, process=False)
    assert mesh.body_count == 1
    assert mesh.is_winding_consistent
    assert mesh.area_faces.min() > 1e-10  # m^2
    assert len(np.unique(rig.face.faces)) == len(rig.face.vertices)
    edges, counts = np.unique(mesh.edges_sorted, axis=0, return_counts=True)
    assert counts.max() == 2, "no edge has three triangles"


def test_building_twice_gives_the_same_face_and_strands(rig):
    again = build_face_sheet()
    assert np.array_equal((again.vertices / 1000).astype(np.float32), rig.face.vertices)
    assert np.array_equal(again.faces, rig.face.faces)
    brows = {part.name: part.mesh.vertices for part in eyebrow_parts(again)}
    for part in rig.parts:
        assert part.name not in brows or np.array_equal(brows[part.name], part.mesh.vertices)


def test_shapes_are_symmetric_within_two_percent(rig):
    twin = twins(rig)
    for name, offsets in rig.shapes.items():
        difference = np.abs(offsets - offsets[twin] * [-1, 1, 1]).sum()
        assert difference <= 0.02 * np.abs(offsets).sum(), name


@pytest.mark.parametrize("name", AU_NAMES)
def test_an_action_unit_moves_its_own_region(rig, name):
    moved = np.linalg.norm(rig.offsets(values(**{name: 5.0})[None])[0], axis=1)
    assert moved.max() > 0.001, "metres at intensity 5"
    assert moved[rig.regions[name]].sum() >= 0.8 * moved.sum()
    if name in rig.wrinkles:
        assert rig.wrinkles[name][rig.regions[name]].sum() >= 0.8 * rig.wrinkles[name].sum()


@pytest.mark.parametrize("name", AU_NAMES)
def test_an_action_unit_grows_with_its_intensity(rig, name):
    rows = np.stack([values(**{name: intensity}) for intensity in (0, 1, 2, 3, 4, 5)])
    moved = np.linalg.norm(rig.offsets(rows), axis=2).sum(axis=1)
    assert (np.diff(moved) > 0).all()


def test_lips_touch_at_rest_and_seal_when_pressed(rig):
    rows = np.stack([values(), values(AU24=5), values(PP=1), values(AU23=5), values(AU17=5)])
    assert (central_gap_mm(rig, rows) < 0.5).all()
    assert np.abs(lip_gaps_mm(rig, values()[None])).max() < 0.5


def test_lips_never_cross(rig):
    rows = [values(**{name: 5.0}) for name in AU_NAMES] + [values(**{name: 1.0}) for name in VISEMES]
    rows += [values(**{a: 5.0, b: 5.0}) for a in AU_NAMES for b in AU_NAMES if a < b]
    assert lip_gaps_mm(rig, np.stack(rows)).min() > -1e-3


def test_the_jaw_opens_the_mouth(rig):
    gap = central_gap_mm(rig, np.stack([values(aa=1), values(AU26=5), values(AU25=5)]))
    assert 14 < gap[0] < 26 and 14 < gap[1] < 28 and 3 < gap[2] < 10
    posed = rig.pose(values(AU26=5))
    drop = rig.parts[[p.name for p in rig.parts].index("teeth_lower")].mesh.vertices - posed.parts["teeth_lower"]
    assert drop[:, 1].max() > 0.012
    angle = np.degrees(np.arccos((np.trace(posed.transforms["jaw"][:3, :3]) - 1) / 2))
    assert 8 < angle < 14


def face_normals(rig: BlendshapeRig, vertices: np.ndarray) -> np.ndarray:  # [V, 3] -> [F, 3], as long as twice the area
    corners = vertices[rig.face.faces].astype(np.float64)
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def test_an_open_jaw_does_not_fold_the_skin_over(rig):
    rest = face_normals(rig, rig.face.vertices)
    for row in (values(AU26=5), values(aa=1), values(AU26=5, AU25=5)):
        moved = face_normals(rig, rig.pose(row).face)
        assert ((moved * rest).sum(axis=1) < 0).sum() <= 20


def test_wrinkles_are_unbroken_lines(rig):
    edges = np.concatenate((rig.face.faces[:, [0, 1]], rig.face.faces[:, [1, 2]], rig.face.faces[:, [2, 0]]))
    for name in ("AU04", "AU06", "AU12"):
        depth = rig.wrinkles[name]
        bottom = depth > 0.75 * depth.max()
        linked = np.unique(edges[bottom[edges].all(axis=1)])
        assert bottom.sum() > 8 and len(linked) >= 0.8 * bottom.sum(), name


def test_wrinkles_are_darker_and_redder_than_the_skin(rig):
    rest, frown = rig.colors(np.stack([values(), values(AU04=5)]))
    lined = rig.wrinkles["AU04"] > 0.5
    left = frown[lined] / rest[lined]
    assert (left < 0.95).all() and (left[:, 0] > left[:, 1]).all() and (left[:, 1] > left[:, 2]).all()
    assert np.array_equal(frown[rig.wrinkles["AU04"] == 0], rest[rig.wrinkles["AU04"] == 0])


def lid_opening_mm(rig: BlendshapeRig, rows: np.ndarray) -> np.ndarray:  # [T, C] -> [T] mean height between the lids' rims
    face = rig.offsets(rows) + rig.face.vertices
    eye = next(part for part in rig.parts if part.name == "eye_right")
    neutral = rig.face.vertices - np.asarray(eye.pivot)
    shell = (np.linalg.norm(neutral, axis=1) < EYE_RADIUS / 1000 + 0.0002) & (np.abs(neutral[:, 0]) < 0.006) & (neutral[:, 2] > 0)
    upper, lower = shell & (neutral[:, 1] > 0.002), shell & (neutral[:, 1] < -0.002)
    assert upper.any() and lower.any()
    return 1000 * (face[:, upper, 1].mean(axis=1) - face[:, lower, 1].mean(axis=1))


def test_lids_meet_when_blinking_narrow_when_tight_and_open_wide(rig):
    rest, blink, tight, wide = lid_opening_mm(rig, np.stack([values(), values(AU45=5), values(AU07=5), values(AU05=5)]))
    assert rest > 8 and blink < 0.6 and tight < 0.85 * rest and wide > 1.15 * rest


def test_grief_lets_the_outer_part_of_the_upper_lid_droop(rig):
    rest, grief = rig.offsets(np.stack([values(), values(AU01=5, AU04=2.5, AU15=5)])) + rig.face.vertices
    eye = next(part for part in rig.parts if part.name == "eye_right")
    place = rest - np.asarray(eye.pivot)
    margin = (np.linalg.norm(place, axis=1) < EYE_RADIUS / 1000 + 0.0002) & (place[:, 2] > 0) & (place[:, 1] > 0.002)
    fall = 1000 * (rest - grief)[:, 1]
    outer, inner = margin & (place[:, 0] > 0.006), margin & (place[:, 0] < -0.006)
    assert fall[outer].mean() > 1.0 and fall[outer].mean() > fall[inner].mean() + 1.0


def test_lids_stay_outside_the_eyeball(rig):
    rows = np.stack(
        [values(AU45=i) for i in np.linspace(0, 5, 11)] + [values(AU45=5, AU07=5), values(AU45=5, AU05=5), values(AU06=5, AU07=5)]
    )
    face = rig.offsets(rows) + rig.face.vertices
    eye = next(part for part in rig.parts if part.name == "eye_right")
    near = rig.regions["eyelids"][rig.face.vertices[rig.regions["eyelids"], 0] > 0]
    radius = np.linalg.norm(face[:, near] - np.asarray(eye.pivot), axis=-1)
    assert radius.min() > EYE_RADIUS / 1000


def test_a_smile_lifts_the_corners_and_gaze_turns_the_eyes(rig):
    posed = rig.pose(values(AU12=5, gaze_yaw=0.3, gaze_pitch=0.2))
    corner = rig.regions["lip_upper"][-1]
    moved = posed.face[corner] - rig.face.vertices[corner]
    assert np.linalg.norm(moved) > 0.008 and moved[0] > 0 and moved[1] > 0 and moved[2] < 0
    forward = posed.transforms["eye_left"][:3, :3] @ [0, 0, 1]
    assert np.allclose(forward, [np.sin(0.3) * np.cos(0.2), np.sin(0.2), np.cos(0.3) * np.cos(0.2)], atol=1e-6)


def test_the_neutral_pose_is_the_neutral_head(rig):
    posed = rig.pose(np.stack([values(), values()]))
    assert np.abs(posed.face[1] - rig.face.vertices).max() < 1e-4
    for part in rig.parts:
        assert np.abs(posed.parts[part.name][0] - part.mesh.vertices).max() < 1e-3, part.name
