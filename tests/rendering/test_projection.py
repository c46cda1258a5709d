"""The projection against gsplat's own maths, which its torch implementation states without a GPU."""

import importlib.util
from pathlib import Path

import pytest
import torch
from random_scenes import NAMES, random_frame

from avatar_viewer.geometry import orbit_camera, quat_to_rotmat
from avatar_viewer.rendering.cpu_backend import CpuRasterizer
from avatar_viewer.rendering.cpu_project import HALF_LOG2E, L11, L12, L22, X, Y
from avatar_viewer.rendering.reference import project_gaussians


@pytest.fixture(scope="module")
def gsplat_maths():
    """gsplat's file of torch maths, by its path: importing gsplat would build CUDA kernels."""
    package = importlib.util.find_spec("gsplat")
    if package is None:
        pytest.skip("gsplat is not installed")
    path = Path(package.submodule_search_locations[0]) / "cuda" / "_torch_impl.py"
    spec = importlib.util.spec_from_file_location("gsplat_torch_maths", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def gsplat_projection(maths, frame, camera):
    rotations = quat_to_rotmat(frame.quats.double()) * frame.scales.double()[:, None, :]
    covariances = rotations @ rotations.transpose(-1, -2)
    means = frame.means.double()
    K, viewmat = camera.K.double()[None], camera.viewmat.double()[None]
    _, centres, depths, conics, _ = maths._fully_fused_projection(means, covariances, viewmat, K, camera.width, camera.height)
    seen = depths[0] > 0.05
    return centres[0][seen], depths[0][seen], conics[0][seen], seen


@pytest.mark.parametrize("seed", range(8))
def test_the_reference_projects_as_gsplat_does(gsplat_maths, seed):
    frame, camera = random_frame(seed, 200), orbit_camera(40 * seed, 10 * seed - 40, 0.1 + 0.1 * seed, 20 + 15 * seed, 120, 80)
    centres, depths, conics, seen = gsplat_projection(gsplat_maths, frame, camera)
    found = [t[seen] for t in project_gaussians(frame.means.double(), frame.quats.double(), frame.scales.double(), camera)]
    inverse = torch.linalg.inv(found[1])
    assert torch.allclose(found[0], centres, rtol=1e-9, atol=1e-7)
    assert torch.allclose(found[2], depths, rtol=1e-9)
    assert torch.allclose(torch.stack((inverse[:, 0, 0], inverse[:, 0, 1], inverse[:, 1, 1]), -1), conics, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("seed", range(8))
def test_the_records_of_the_cpu_say_the_same_as_the_reference(seed):
    frame, camera = random_frame(seed, 203), orbit_camera(40 * seed, 10 * seed - 40, 0.1 + 0.1 * seed, 20 + 15 * seed, 120, 80)
    rasterizer = CpuRasterizer()
    rasterizer._prepare([getattr(frame, name).numpy() for name in NAMES], camera)
    drawn = torch.from_numpy(rasterizer._order[: rasterizer._visible].copy()).long()
    assert len(drawn) > 0
    records = torch.from_numpy(rasterizer._records)[drawn].double()
    centres, covariances, _ = project_gaussians(frame.means.double(), frame.quats.double(), frame.scales.double(), camera)
    conics = torch.linalg.inv(covariances[drawn])
    l11, l12, l22 = records[:, L11], records[:, L12], records[:, L22]
    found = torch.stack((l11 * l11, l11 * l12, l12 * l12 + l22 * l22), -1) / HALF_LOG2E
    expected = torch.stack((conics[:, 0, 0], conics[:, 0, 1], conics[:, 1, 1]), -1)
    assert torch.allclose(records[:, [X, Y]], centres[drawn], rtol=1e-5, atol=1e-3)
    assert ((found - expected).norm(dim=1) <= 1e-4 * expected.norm(dim=1)).all()
