"""Pictures of a head under soft, neutral studio light, path-traced (only home of mitsuba).

Every surface is diffuse, so what it sends to one camera it sends to all: the light is path-traced once a pose, at the
vertices, and the cameras then only look (`zbuffer`). One set of colours for all views, no grain, and a tenth of the time
of tracing each picture, which was the first way. Knows meshes, cameras and light; knows no files.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.spatial import cKDTree

from ..errors import InputError
from ..types import Camera
from .blendshapes import BlendshapeRig, Mesh, PosedHead
from .zbuffer import draw_triangles

LANES = 131_072  # rays traced at once
RAY_METRES = 2e-4  # rays that gather light start so far above the surface
FIREFLY = 3.0  # a white wall in the key light sends about 1
FILL_ROUNDS = 3  # how many rows of covered vertices get their neighbours' light
BURIED = 0.12  # light under which a still part counts as covered by another: a wall in the open gets about 1
FAR_METRES = 0.03  # what keeps away so far from the lips keeps its light in every pose; so do brows and lashes, dark anyway
PART_SHARE = 8  # the face gets so many times the light paths of a part
STATIC_PART_SHARE = 4  # and so many times those of a part that is lit only once: fewer paths mottle neck and shoulders
SMOOTHING = {True: 2, False: 6}  # rounds of averaging over neighbours: on the face, on parts
# drjit compiles with whatever libLLVM it finds, and an old one (15 was seen) ends the whole process with "Cannot select:
# fminimum": hence the trial in a child process. LLVM 19 works. The scalar variant needs none and is far slower.
_TRIAL = """
import sys
import numpy as np
import mitsuba as mi
mi.set_variant("llvm_ad_rgb")
light = {"type": "envmap", "bitmap": mi.Bitmap(np.ones((4, 8, 3), dtype=np.float32))}
sensor = {"type": "perspective", "film": {"type": "hdrfilm", "width": 8, "height": 8}}
scene = mi.load_dict({"type": "scene", "integrator": {"type": "path"}, "light": light, "shape": {"type": "cube"}, "sensor": sensor})
sys.exit(0 if np.array(mi.render(scene, spp=2)).shape[0] == 8 else 1)
"""


@functools.cache
def choose_variant() -> str:
    """The fastest of mitsuba's variants that works on this machine."""
    trial = subprocess.run([sys.executable, "-c", _TRIAL], capture_output=True, timeout=120, check=False)
    return "llvm_ad_rgb" if trial.returncode == 0 else "scalar_rgb"


@dataclass(frozen=True)
class Picture:
    color: np.ndarray  # [H, W, 3] uint8 sRGB over white
    mask: np.ndarray  # [H, W] uint8 coverage


def srgb_to_linear(values: np.ndarray) -> np.ndarray:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4).astype(np.float32)


def linear_to_srgb(values: np.ndarray) -> np.ndarray:
    values = np.clip(values, 0, 1)
    return np.where(values <= 0.0031308, values * 12.92, 1.055 * values ** (1 / 2.4) - 0.055).astype(np.float32)


def studio_light(height: int = 32) -> np.ndarray:  # -> [height, 2 * height, 3] radiance
    """A bright room with a broad, gentle key from the upper left of the picture; a white wall in front of it reads about 0.9."""
    polar = (np.arange(height) + 0.5) / height * np.pi
    azimuth = (np.arange(2 * height) + 0.5) / height * np.pi
    polar, azimuth = np.meshgrid(polar, azimuth, indexing="ij")
    directions = np.stack((np.sin(azimuth) * np.sin(polar), np.cos(polar), -np.cos(azimuth) * np.sin(polar)), -1)
    key = np.array([-0.5, 0.62, 0.6])
    key /= np.linalg.norm(key)
    radiance = 0.62 + 0.2 * directions[..., 1] + 1.5 * np.exp(5.0 * (directions @ key - 1.0))
    facing = np.array([0.0, 0.1, 0.995])
    cosine = np.clip(directions @ facing, 0, None) * np.sin(polar)
    radiance *= 0.9 * np.pi / ((radiance * cosine).sum() * (np.pi / height) ** 2)
    return np.repeat(radiance[..., None], 3, -1).astype(np.float32)


class StudioRenderer:
    """Pictures of one posed head after another; the same seed gives the same picture on the same variant."""

    def __init__(
        self,
        rig: BlendshapeRig,
        neutral: PosedHead,
        supersampling: int = 4,
        light_samples: int = 48,  # paths a vertex of the face
        seed: int = 0,
        variant: str | None = None,
    ) -> None:
        try:
            import mitsuba
        except ModuleNotFoundError as error:
            raise InputError("the studio's light needs mitsuba: pip install 'avatar-viewer[studio]'") from error
        self.variant = variant or choose_variant()
        mitsuba.set_variant(self.variant)
        mitsuba.set_log_level(mitsuba.LogLevel.Error)
        self._mi = mitsuba
        self._rig = rig
        self._supersampling = supersampling
        self._light_samples = light_samples
        self._seed = seed
        counts = [len(rig.face.vertices)] + [len(part.mesh.vertices) for part in rig.parts]
        starts = np.cumsum([0] + counts)
        self._slices = [slice(int(a), int(b)) for a, b in zip(starts, starts[1:])]
        meshes = [rig.face] + [part.mesh for part in rig.parts]
        lips = cKDTree(rig.face.vertices[rig.regions["lips"]])
        far = [part.attachment == "head" and lips.query(part.mesh.vertices)[0].min() > FAR_METRES for part in rig.parts]
        keeps = [is_far or part.attachment == "face" and part.translucency == 0 for part, is_far in zip(rig.parts, far)]
        turned = [
            mesh.faces[:, ::-1] if i and keeps[i - 1] and _is_inside_out(mesh) else mesh.faces for i, mesh in enumerate(meshes)
        ]
        self._faces = np.concatenate([faces + start for faces, start in zip(turned, starts)])
        self._changing = [0] + [i + 1 for i, kept in enumerate(keeps) if not kept]
        self._scene = None
        self._vertices = np.zeros((starts[-1], 3), dtype=np.float32)
        self._light = np.zeros((starts[-1], 3), dtype=np.float32)
        self._shining = np.zeros((starts[-1], 3), dtype=np.float32)
        self._place(neutral, range(len(counts)), 2 * light_samples)

    def set_head(self, posed: PosedHead) -> None:
        """What the next pictures show."""
        self._place(posed, self._changing, self._light_samples)

    def take_picture(self, camera: Camera) -> Picture:
        """The head from `camera`."""
        linear, alpha, _ = draw_triangles(self._vertices, self._faces, self._shining, camera, self._supersampling)
        color = linear_to_srgb(linear / np.maximum(alpha, 1e-4)[..., None])
        over_white = color * alpha[..., None] + (1 - alpha[..., None])
        return Picture(_to_bytes(over_white), _to_bytes(alpha))

    def measure_depth(self, camera: Camera) -> np.ndarray:  # -> [H, W] metres along the view axis, 0 where nothing is
        return draw_triangles(self._vertices, self._faces, self._shining, camera)[2]

    def _place(self, posed: PosedHead, lit_anew: Iterable[int], samples: int) -> None:
        places = [posed.face] + [posed.parts[part.name] for part in self._rig.parts]
        colors = [posed.face_colors] + [part.mesh.colors for part in self._rig.parts]
        self._vertices = np.concatenate(places).astype(np.float32)
        albedo = srgb_to_linear(np.concatenate(colors))
        self._update_scene(albedo)
        shares = [1 if i == 0 else PART_SHARE if i in self._changing else STATIC_PART_SHARE for i in lit_anew]
        chosen = [(i, max(1, samples // share)) for i, share in zip(lit_anew, shares)]
        for (i, _), light in zip(chosen, self._gather_light(albedo, chosen)):
            self._light[self._slices[i]] = light ** (1.0 - self._rig.parts[i - 1].translucency) if i else light
        self._shining = albedo * self._light

    def _update_scene(self, albedo: np.ndarray) -> None:
        mi = self._mi
        if self._scene is None:  # once: drjit compiles anew for another set of shapes
            properties = mi.Properties()
            texture = {"type": "mesh_attribute", "name": "vertex_color"}
            properties["bsdf"] = mi.load_dict({"type": "twosided", "bsdf": {"type": "diffuse", "reflectance": texture}})
            surface = mi.Mesh("head", len(self._vertices), len(self._faces), props=properties)
            surface.add_attribute("vertex_color", 3, albedo.ravel())
            parameters = mi.traverse(surface)
            parameters["vertex_positions"] = self._vertices.ravel()
            parameters["faces"] = self._faces.astype(np.uint32).ravel()
            parameters.update()
            light = {"type": "envmap", "bitmap": mi.Bitmap(studio_light())}
            integrator = {"type": "path", "max_depth": 4, "hide_emitters": True}
            self._scene = mi.load_dict({"type": "scene", "integrator": integrator, "light": light, "head": surface})
            return
        parameters = mi.traverse(self._scene)
        parameters["head.vertex_positions"] = self._vertices.ravel()
        parameters["head.vertex_color"] = albedo.ravel()
        parameters.update()

    def _gather_light(self, albedo: np.ndarray, chosen: Sequence[tuple[int, int]]) -> list[np.ndarray]:  # [P, 3] each
        """Path-traced light off a white surface, for each (mesh, paths a vertex), averaged over the surroundings."""
        rng = np.random.default_rng(self._seed)
        corners = self._vertices[self._faces].astype(np.float64)
        points, meshes = [], []
        for index, samples in chosen:
            place = self._slices[index]
            inside = (self._faces[:, 0] >= place.start) & (self._faces[:, 0] < place.stop)
            faces = self._faces[inside]
            points.append(_points_around_vertices(faces - place.start, corners[inside], albedo[faces], samples, rng))
            meshes.append((faces - place.start, place.stop - place.start))
        radiance = self._trace(np.concatenate([p[1] for p in points]), np.concatenate([p[2] for p in points]))
        lights, position = [], 0
        for (index, _), (vertex, _, _, own), (faces, count) in zip(chosen, points, meshes):
            light = np.clip(radiance[position : position + len(vertex)] / np.maximum(own, 0.01), 0, FIREFLY)
            position += len(vertex)
            total = np.stack([np.bincount(vertex, light[:, c], minlength=count) for c in range(3)], axis=1)
            mean = total / np.maximum(np.bincount(vertex, minlength=count), 1)[:, None]
            buried = _border(faces, count) if index == 0 else (mean.mean(axis=1) < BURIED) & (index not in self._changing)
            mean = _fill_buried(mean, faces, buried)
            lights.append(_smooth_over_mesh(mean, faces, SMOOTHING[index == 0]).astype(np.float32))
        return lights

    def _trace(self, places: np.ndarray, normals: np.ndarray) -> np.ndarray:  # [R, 3], [R, 3] -> [R, 3]
        """The light that leaves each place along its normal."""
        mi = self._mi
        origin, direction = (places + RAY_METRES * normals).astype(np.float32), (-normals).astype(np.float32)
        radiance = np.zeros((len(origin), 3), dtype=np.float32)
        integrator, sampler = self._scene.integrator(), mi.load_dict({"type": "independent"})
        if self.variant == "scalar_rgb":
            sampler.seed(self._seed)
            for i in range(len(origin)):
                ray = mi.RayDifferential3f(mi.Ray3f(mi.Point3f(*origin[i]), mi.Vector3f(*direction[i])))
                radiance[i] = integrator.sample(self._scene, sampler, ray)[0]
            return np.nan_to_num(radiance)
        for first in range(0, len(origin), LANES):
            rows = np.arange(first, first + LANES) % len(origin)  # always LANES rays: drjit compiles anew for another number
            sampler.seed(self._seed, LANES)
            ray = mi.RayDifferential3f(mi.Ray3f(mi.Point3f(*origin[rows].T), mi.Vector3f(*direction[rows].T)))
            radiance[rows] = np.array(integrator.sample(self._scene, sampler, ray)[0]).reshape(3, -1).T
        return np.nan_to_num(radiance)


def _is_inside_out(mesh: Mesh) -> bool:
    """Whether the triangles of a (nearly) closed mesh face inwards: light would be gathered in the dark."""
    corners = mesh.vertices[mesh.faces].astype(np.float64) - mesh.vertices.mean(axis=0)
    return float(np.einsum("fi,fi->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2]))) < 0


def _points_around_vertices(
    faces: np.ndarray,  # [F, 3]
    corners: np.ndarray,  # [F, 3, 3] metres
    colors: np.ndarray,  # [F, 3, 3] albedo of the corners
    samples: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:  # [R] vertex, then [R, 3] place, normal, albedo
    """Random points near each vertex: around it rather than on it, since a ray at the seam of triangles may slip through."""
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-20)
    order = np.argsort(faces, axis=None, kind="stable")  # triangle corners, grouped by their vertex
    starts = np.searchsorted(faces.ravel()[order], np.arange(faces.max() + 2))
    vertex = np.tile(np.flatnonzero(np.diff(starts) > 0), samples)
    pick = order[starts[vertex] + (rng.random(len(vertex)) * (starts[vertex + 1] - starts[vertex])).astype(int)]
    triangle, corner = pick // 3, pick % 3
    share, split = 0.45 * rng.random(len(vertex)), rng.random(len(vertex))
    weights, row = np.zeros((len(vertex), 3)), np.arange(len(vertex))
    weights[row, corner], weights[row, (corner + 1) % 3], weights[row, (corner + 2) % 3] = (
        1 - share,
        share * split,
        share * (1 - split),
    )
    place, own = ((values[triangle] * weights[..., None]).sum(axis=1) for values in (corners, colors))
    return vertex, place, normals[triangle], own


def _border(faces: np.ndarray, count: int) -> np.ndarray:  # [F, 3] -> [P] bool
    """Vertices of edges that only one triangle has."""
    edges = np.sort(np.concatenate((faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]])), axis=1)
    unique, uses = np.unique(edges, axis=0, return_counts=True)
    result = np.zeros(count, dtype=bool)
    result[unique[uses == 1]] = True
    return result


def _fill_buried(light: np.ndarray, faces: np.ndarray, buried: np.ndarray) -> np.ndarray:  # [P, C], [F, 3], [P] bool -> [P, C]
    """Light for vertices that lie under other skin, from lit neighbours: or a dark line runs along every seam of the skin."""
    edges = np.concatenate((faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]))
    edges = np.concatenate((edges, edges[:, ::-1]))
    count, light, buried = len(light), light.copy(), buried.copy()
    links = coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(count, count)).tocsr()
    for _ in range(FILL_ROUNDS):
        lit = (~buried).astype(float)
        number = links @ lit
        fill = buried & (number > 0)
        light[fill] = (links @ (light * lit[:, None]))[fill] / number[fill, None]
        buried[fill] = False
    return light


def _smooth_over_mesh(values: np.ndarray, faces: np.ndarray, rounds: int) -> np.ndarray:  # [P, C], [F, 3] -> [P, C]
    """Each vertex averaged with its neighbours, `rounds` times."""
    edges = np.concatenate((faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]))
    edges = np.concatenate((edges, edges[:, ::-1]))
    count = len(values)
    links = coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(count, count)).tocsr()
    degree = np.maximum(np.asarray(links.sum(axis=1)), 1.0)
    for _ in range(rounds):
        values = 0.5 * values + 0.5 * (links @ values) / degree
    return values


def _to_bytes(values: np.ndarray) -> np.ndarray:
    return (np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)
