"""Path-traced pictures of meshes under soft, neutral studio light (only home of mitsuba).

Every surface is diffuse: the Gaussians that learn from these pictures carry one colour for all views.
Knows triangles, cameras and light; knows no shapes and no files.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from dataclasses import dataclass
from typing import Sequence

import numpy as np

from ..types import Camera
from .blendshapes import BlendshapeRig, Mesh, PosedHead
from .denoise import remove_grain

# drjit compiles with whatever libLLVM it finds, and an old one (15 was seen) ends the whole process with "Cannot
# select: fminimum": hence the trial in a child process. The scalar variant needs no LLVM and is about 3 times slower.
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


def head_meshes(rig: BlendshapeRig, posed: PosedHead) -> list[Mesh]:
    """A posed head as meshes with albedo: the face first, then the parts in the rig's order."""
    face = Mesh(posed.face, rig.face.faces, posed.face_colors)
    return [face] + [Mesh(posed.parts[part.name], part.mesh.faces, part.mesh.colors) for part in rig.parts]


class StudioRenderer:
    """Pictures of one posed scene after another; the same seed gives the same picture on the same variant."""

    def __init__(self, samples: int = 64, seed: int = 0, variant: str | None = None) -> None:
        import mitsuba

        self.variant = variant or choose_variant()
        mitsuba.set_variant(self.variant)
        mitsuba.set_log_level(mitsuba.LogLevel.Error)
        self._mi = mitsuba
        self._samples = samples
        self._seed = seed
        self._light = {"type": "envmap", "bitmap": mitsuba.Bitmap(studio_light())}
        self._scene = None

    def set_scene(self, meshes: Sequence[Mesh]) -> None:
        """What the next pictures show; colours are sRGB albedo."""
        surfaces = {f"mesh{i}": self._surface(mesh) for i, mesh in enumerate(meshes) if len(mesh.faces)}
        path = {"type": "path", "max_depth": 4, "hide_emitters": True}
        integrator = {"type": "aov", "aovs": "albedo:albedo,normal:sh_normal,depth:depth", "image": path}
        self._scene = self._mi.load_dict({"type": "scene", "integrator": integrator, "light": self._light, **surfaces})

    def take_picture(self, camera: Camera) -> Picture:
        """The scene from `camera`, whose principal point is the picture's middle."""
        assert self._scene is not None, "set_scene first"
        image = self._mi.render(self._scene, sensor=self._sensor(camera), seed=self._seed, spp=self._samples)
        linear = np.array(image, dtype=np.float32)
        alpha = np.clip(linear[..., 3], 0, 1)
        clean = remove_grain(linear[..., :3], linear[..., 4:7], linear[..., 7:10], linear[..., 10] / np.maximum(alpha, 1e-4))
        color = linear_to_srgb(clean / np.maximum(alpha, 1e-4)[..., None])
        over_white = color * alpha[..., None] + (1 - alpha[..., None])
        return Picture(_to_bytes(over_white), _to_bytes(alpha))

    def measure_depth(self, camera: Camera) -> np.ndarray:  # -> [H, W] metres along each ray, 0 where nothing is
        """How far away the nearest surface is at each pixel's centre region."""
        assert self._scene is not None, "set_scene first"
        integrator = self._mi.load_dict({"type": "aov", "aovs": "depth:depth"})
        image = self._mi.render(self._scene, sensor=self._sensor(camera), integrator=integrator, seed=self._seed, spp=1)
        return np.array(image, dtype=np.float32)[..., -1]

    def _surface(self, mesh: Mesh) -> object:
        mi = self._mi
        properties = mi.Properties()
        reflectance = {"type": "mesh_attribute", "name": "vertex_color"}
        properties["bsdf"] = mi.load_dict({"type": "twosided", "bsdf": {"type": "diffuse", "reflectance": reflectance}})
        surface = mi.Mesh("surface", len(mesh.vertices), len(mesh.faces), has_vertex_normals=True, props=properties)
        surface.add_attribute("vertex_color", 3, srgb_to_linear(mesh.colors).ravel())
        parameters = mi.traverse(surface)
        parameters["vertex_positions"] = np.ascontiguousarray(mesh.vertices, dtype=np.float32).ravel()
        parameters["faces"] = np.ascontiguousarray(mesh.faces, dtype=np.uint32).ravel()
        parameters.update()
        return surface

    def _sensor(self, camera: Camera) -> object:
        mi = self._mi
        to_world = np.linalg.inv(camera.viewmat.double().numpy())
        to_world[:, :2] *= -1  # mitsuba's camera has x left and y up, OpenCV's x right and y down
        fov = 2 * np.degrees(np.arctan(camera.height / 2 / float(camera.K[1, 1])))
        film = {"type": "hdrfilm", "width": camera.width, "height": camera.height, "pixel_format": "rgba", "rfilter": {"type": "box"}}
        return mi.load_dict(
            {
                "type": "perspective", "fov": float(fov), "fov_axis": "y", "near_clip": 1e-3, "far_clip": 10.0,
                "to_world": mi.ScalarTransform4f(to_world), "film": film,
                "sampler": {"type": "independent", "sample_count": self._samples},
            }
        )  # fmt: skip


def _to_bytes(values: np.ndarray) -> np.ndarray:
    return (np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)
