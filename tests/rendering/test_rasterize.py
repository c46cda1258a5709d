"""The rasterisers: parity with the float64 reference, gradients, and what may never happen."""

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from random_scenes import NAMES, random_camera, random_frame

from avatar_viewer import Camera, GaussianFrame, rasterize
from avatar_viewer.geometry import intrinsics_from_fov, orbit_camera
from avatar_viewer.rendering import cpu_backend, gsplat_backend
from avatar_viewer.rendering.cpu_backend import CpuRasterizer, cpu_rasterizers

FRONT = orbit_camera(0, 0, 1.0, 30, 40, 40)


def as_double(frame: GaussianFrame) -> GaussianFrame:
    return GaussianFrame(*(getattr(frame, name).double() for name in NAMES))


def one_dot(**changes) -> GaussianFrame:
    """One round, opaque, red Gaussian at the origin; changes replace tensors."""
    tensors = {
        "means": torch.zeros(1, 3),
        "quats": torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
        "scales": torch.full((1, 3), 0.05),
        "opacities": torch.ones(1),
        "colors": torch.tensor([[1.0, 0.0, 0.0]]),
    }
    return GaussianFrame(**(tensors | changes))


def join(*frames: GaussianFrame) -> GaussianFrame:
    return GaussianFrame(*(torch.cat([getattr(f, name) for f in frames]) for name in NAMES))


def test_the_middle_of_a_dot_has_its_colour_times_its_clamped_opacity():
    camera = orbit_camera(0, 0, 1.0, 30, 41, 41)  # the middle of pixel 20 is the centre of the picture
    for backend in ("cpu", "reference"):
        render = rasterize(one_dot(), camera, background=(0.0, 0.0, 1.0), backend=backend)
        assert render.color[20, 20].tolist() == pytest.approx([0.999, 0.0, 0.001], abs=1e-5)
        assert render.alpha[20, 20].item() == pytest.approx(0.999, abs=1e-5)
        assert render.color[0, 0].tolist() == [0.0, 0.0, 1.0]


def test_opacity_falls_off_with_the_blurred_covariance():
    camera = orbit_camera(0, 0, 1.0, 30, 41, 41)
    focal = camera.K[0, 0].item()
    variance = (0.05 * focal) ** 2 + 0.3
    expected = 0.8 * math.exp(-0.5 * 3**2 / variance)
    render = rasterize(one_dot(opacities=torch.tensor([0.8])), camera, backend="cpu")
    assert render.alpha[20, 23].item() == pytest.approx(expected, abs=1e-5)
    assert render.alpha[23, 20].item() == pytest.approx(expected, abs=1e-5)


def test_the_cpu_follows_the_float64_reference_on_random_scenes():
    pixels = near = 0
    squares = worst = 0.0
    for seed in range(25):
        frame, camera = random_frame(seed), random_camera(seed)
        exact = rasterize(as_double(frame), camera, (0.2, 0.5, 0.9), backend="reference")
        found = rasterize(frame, camera, (0.2, 0.5, 0.9), backend="cpu")
        error = (found.color.double() - exact.color).abs()
        pixels += error[..., 0].numel()
        near += int((error.amax(-1) <= 1 / 255).sum())
        worst = max(worst, error.max().item(), (found.alpha.double() - exact.alpha).abs().max().item())
        squares += error.square().mean(-1).sum().item()
    assert near >= 0.9999 * pixels
    assert worst <= 4 / 255
    assert -10 * math.log10(squares / pixels) >= 50


@pytest.mark.parametrize("seed", range(50, 62))
def test_gradients_follow_autograd_of_the_reference(seed):
    frame, camera = random_frame(seed), random_camera(seed)
    generator = torch.Generator().manual_seed(seed)
    color_weights = torch.randn(camera.height, camera.width, 3, generator=generator)
    alpha_weights = torch.randn(camera.height, camera.width, generator=generator)

    def gradients(backend, dtype):
        tensors = [getattr(frame, name).to(dtype, copy=True).requires_grad_() for name in NAMES]
        background = torch.tensor([0.2, 0.5, 0.9], dtype=dtype).requires_grad_()
        render = rasterize(GaussianFrame(*tensors), camera, background, backend=backend)
        ((render.color * color_weights.to(dtype)).sum() + (render.alpha * alpha_weights.to(dtype)).sum()).backward()
        return [t.grad.double() for t in (*tensors, background)]

    for name, found, exact in zip((*NAMES, "background"), gradients("cpu", torch.float32), gradients("reference", torch.float64)):
        assert (found - exact).norm() <= 1e-3 * exact.norm() + 1e-9, name


def test_a_backward_after_another_picture_still_knows_its_own():
    first, second, camera = random_frame(1, 100), random_frame(2, 50), random_camera(3)
    expected = first.means.clone().requires_grad_()
    rasterize(
        GaussianFrame(expected, first.quats, first.scales, first.opacities, first.colors), camera, backend="cpu"
    ).color.sum().backward()
    found = first.means.clone().requires_grad_()
    render = rasterize(GaussianFrame(found, first.quats, first.scales, first.opacities, first.colors), camera, backend="cpu")
    rasterize(second, FRONT, backend="cpu")
    render.color.sum().backward()
    assert torch.equal(found.grad, expected.grad)


def test_bands_and_threads_change_nothing(monkeypatch):
    frame, camera = random_frame(7, 280), orbit_camera(20, 10, 0.4, 60, 90, 70)

    def picture_and_gradient():
        means = frame.means.clone().requires_grad_()
        render = rasterize(GaussianFrame(means, frame.quats, frame.scales, frame.opacities, frame.colors), camera, backend="cpu")
        (render.color * torch.linspace(0, 1, 90)[None, :, None]).sum().backward()
        return render.color.detach(), render.alpha.detach(), means.grad

    expected = picture_and_gradient()
    monkeypatch.setattr(cpu_rasterizers(), "threads", 1)
    alone = picture_and_gradient()
    monkeypatch.setattr(cpu_backend, "MOST_PAIRS", 300)
    monkeypatch.setattr(cpu_backend, "MOST_PAIRS_BACKWARD", 100)
    banded = picture_and_gradient()
    for want, one, piece in zip(expected, alone, banded):
        assert torch.equal(want, one)
        assert torch.equal(want, piece)


def test_nearer_covers_farther_and_equal_depths_keep_their_order():
    red, green = one_dot(), one_dot(colors=torch.tensor([[0.0, 1.0, 0.0]]))
    behind = GaussianFrame(red.means - torch.tensor([[0.0, 0.0, 0.1]]), red.quats, red.scales, red.opacities, red.colors)
    for backend in ("cpu", "reference"):
        assert rasterize(join(behind, green), FRONT, backend=backend).color[20, 20, 1] > 0.95
        assert rasterize(join(red, green), FRONT, backend=backend).color[20, 20, 0] > 0.95
        assert rasterize(join(green, red), FRONT, backend=backend).color[20, 20, 1] > 0.95


def test_no_gaussians_give_the_background():
    empty = GaussianFrame(torch.zeros(0, 3), torch.zeros(0, 4), torch.zeros(0, 3), torch.zeros(0), torch.zeros(0, 3))
    for backend in ("auto", "cpu", "reference"):
        render = rasterize(empty, FRONT, background=(0.1, 0.2, 0.3), backend=backend)
        assert torch.allclose(render.color, torch.tensor([0.1, 0.2, 0.3]).expand(40, 40, 3))
        assert render.alpha.abs().max() == 0


def test_nothing_but_malformed_gaussians_give_the_background():
    for backend in ("cpu", "reference"):
        render = rasterize(one_dot(means=torch.full((1, 3), math.nan)), FRONT, (0.1, 0.2, 0.3), backend=backend)
        assert torch.allclose(render.color, torch.tensor([0.1, 0.2, 0.3]).expand(40, 40, 3))
        assert render.dropped == 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_gaussian_that_is_not_finite_is_dropped_counted_and_stains_nothing(name, value):
    clean = random_frame(11, 37)
    tensors = {n: getattr(one_dot(), n).clone() for n in NAMES}
    tensors[name].view(-1)[0] = value
    for backend in ("cpu", "reference"):
        expected = rasterize(clean, FRONT, backend=backend)
        found = rasterize(join(GaussianFrame(**tensors), clean), FRONT, backend=backend)
        assert found.dropped == 1 and expected.dropped == 0
        assert torch.equal(found.color, expected.color)


@pytest.mark.parametrize(
    "changes", [{"quats": torch.zeros(1, 4)}, {"scales": torch.zeros(1, 3)}, {"scales": torch.tensor([[0.1, -0.1, 0.1]])}]
)
def test_a_gaussian_without_shape_is_dropped_and_gets_no_gradient(changes):
    broken = one_dot(**changes)
    for backend in ("cpu", "reference"):
        frame = join(broken, one_dot())
        tensors = [getattr(frame, name).requires_grad_() for name in NAMES]
        render = rasterize(GaussianFrame(*tensors), FRONT, backend=backend)
        assert render.dropped == 1
        render.color.sum().backward()
        for tensor in tensors:
            assert torch.isfinite(tensor.grad).all()
            assert tensor.grad[0].abs().max() == 0


def test_gaussians_behind_the_camera_or_too_faint_are_not_malformed():
    frame = join(one_dot(means=torch.tensor([[0.0, 0.0, 2.0]])), one_dot(opacities=torch.tensor([0.0039])))
    render = rasterize(frame, FRONT, backend="cpu")
    assert render.dropped == 0 and render.alpha.max() == 0


@pytest.mark.parametrize("fov", [1.0, 30.0, 170.0])
@pytest.mark.parametrize("distance", [0.0005, 0.05, 1.0, 100.0])
@pytest.mark.parametrize("size", [(1, 1), (3, 70), (255, 33)])
def test_any_finite_camera_gives_a_finite_picture(fov, distance, size):
    frame, camera = random_frame(5, 150), orbit_camera(25, -40, distance, fov, *size)
    tensors = [getattr(frame, name).clone().requires_grad_() for name in NAMES]
    render = rasterize(GaussianFrame(*tensors), camera, backend="cpu")
    assert render.color.shape == (size[1], size[0], 3) and render.alpha.shape == (size[1], size[0])
    assert torch.isfinite(render.color).all() and render.alpha.min() >= 0 and render.alpha.max() <= 1
    render.color.sum().backward()
    assert all(torch.isfinite(t.grad).all() for t in tensors)


STRANGE = torch.tensor([math.nan, math.inf, -math.inf, 0.0, -0.0, 1e38, -1e38, 1e-38, 1e-45, -1.0])


@pytest.mark.parametrize("seed", range(24))
def test_whatever_the_numbers_the_picture_is_finite_and_repeats(seed):
    """Gaussians of any magnitude with strange values among them, by cameras that need not be rigid."""
    generator = torch.Generator().manual_seed(seed)

    def spread(decades: float, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 10 ** (decades * (torch.rand(1, generator=generator).item() - 0.5))

    count, decades = (1, 16, 17, 300)[seed % 4], (0.5, 4.0, 16.0, 60.0)[seed // 4 % 4]
    tensors = [spread(decades, count, 3), spread(decades, count, 4), spread(decades, count, 3).abs(), spread(2, count).abs()]
    for tensor in tensors:
        odd = torch.rand(tensor.shape, generator=generator) < (0.0, 0.1)[seed % 2]
        tensor[odd] = STRANGE[torch.randint(len(STRANGE), (int(odd.sum()),), generator=generator)]
    tensors.append(torch.rand(count, 3, generator=generator))
    width, height = ((1, 1), (1, 40), (64, 64), (301, 5))[seed % 4]
    view = (spread(8, 4, 4), orbit_camera(40 * seed, 5 * seed - 60, 10.0 ** (seed % 7 - 4), 30, 8, 8).viewmat)[seed % 2]
    K = intrinsics_from_fov((1.0, 60.0, 170.0)[seed % 3], width, height)
    K[:2, 2] += spread(12, 2) * (seed % 3 == 1)
    camera = Camera(view, K, width, height)
    leaves = [t.clone().requires_grad_() for t in tensors]
    render = rasterize(GaussianFrame(*leaves), camera, backend="cpu")
    assert torch.isfinite(render.color).all() and render.color.min() >= 0 and render.color.max() <= 1 + 1e-5
    assert render.alpha.min() >= 0 and render.alpha.max() <= 1
    assert count >= render.dropped >= int((~torch.isfinite(torch.cat(tensors[:3], dim=1)).all(dim=1)).sum())
    render.color.sum().backward()
    assert all(torch.isfinite(t.grad).all() for t in leaves)
    with torch.no_grad():
        again = rasterize(GaussianFrame(*tensors), camera, backend="cpu")
    assert torch.equal(again.color, render.color) and torch.equal(again.alpha, render.alpha)


def test_needles_and_giants_match_the_reference():
    """Elongated a thousand times, and far larger than the picture: where float32 covariances lose their digits."""
    generator = torch.Generator().manual_seed(3)
    count = 30
    scales = torch.tensor([[2.0, 0.0008, 0.0008]]).repeat(count, 1)
    scales[::3] = torch.tensor([30.0, 20.0, 10.0])
    frame = GaussianFrame(
        0.2 * torch.randn(count, 3, generator=generator), torch.randn(count, 4, generator=generator), scales,
        torch.full((count,), 0.4), torch.rand(count, 3, generator=generator),
    )  # fmt: skip
    exact = rasterize(as_double(frame), FRONT, backend="reference")
    assert (rasterize(frame, FRONT, backend="cpu").color - exact.color).abs().max() < 2e-3


def test_a_4k_picture_is_drawn():
    render = rasterize(one_dot(), orbit_camera(0, 0, 1.0, 30, 3840, 2160), backend="cpu")
    assert render.color.shape == (2160, 3840, 3) and render.alpha[1080, 1920] > 0.99


def test_pictures_handed_over_are_not_written_again():
    first = rasterize(random_frame(1, 60), FRONT, backend="cpu")
    kept = first.color.clone()
    rasterize(random_frame(2, 60), FRONT, backend="cpu")
    assert torch.equal(first.color, kept)


def test_threads_that_draw_at_once_do_not_share_buffers():
    frames = [random_frame(seed, 150 + 40 * seed) for seed in range(4)]
    expected = [rasterize(frame, FRONT, backend="cpu").color for frame in frames]
    with ThreadPoolExecutor(4) as pool:
        jobs = [(k % 4, pool.submit(rasterize, frames[k % 4], FRONT, backend="cpu")) for k in range(80)]
        assert all(torch.equal(job.result().color, expected[k]) for k, job in jobs)


def test_torch_keeps_its_thread_count():
    before = torch.get_num_threads()
    CpuRasterizer(threads=2).draw([getattr(one_dot(), n).numpy() for n in NAMES], FRONT, (1.0, 1.0, 1.0), *empty_picture(FRONT))
    assert torch.get_num_threads() == before


def empty_picture(camera: Camera):
    return torch.empty(camera.height, camera.width, 3).numpy(), torch.empty(camera.height, camera.width).numpy()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"means": torch.zeros(1, 4)}, r"frame.means must have shape \[any, 3\], got \[1, 4\]"),
        ({"quats": torch.zeros(2, 4)}, r"frame.quats must have shape \[1, 4\], got \[2, 4\]"),
        ({"opacities": torch.zeros(1, 1)}, r"frame.opacities must have shape \[1\], got \[1, 1\]"),
        (
            {"colors": torch.zeros(1, 3, dtype=torch.float64)},
            r"frame.colors must be torch.float32 like frame.means, got torch.float64",
        ),
        ({"scales": torch.zeros(1, 3).numpy()}, "frame.scales must be a torch tensor, got ndarray"),
        ({"means": None}, "frame.means must be a torch tensor, got NoneType"),
    ],
)
def test_a_wrong_tensor_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        rasterize(one_dot(**changes), FRONT)


def test_double_precision_is_for_the_reference():
    with pytest.raises(ValueError, match="frame.means must be float32 for backend 'cpu', got torch.float64"):
        rasterize(as_double(one_dot()), FRONT, backend="cpu")


@pytest.mark.parametrize(
    ("camera", "message"),
    [
        (Camera(torch.eye(3), torch.eye(3), 4, 4), "camera.viewmat"),
        (Camera(torch.eye(4), torch.eye(3), 0, 4), "camera.width"),
        (Camera(torch.eye(4), torch.eye(3), 4, 100_000), "camera.height"),
        (Camera(torch.full((4, 4), math.nan), intrinsics_from_fov(30, 4, 4), 4, 4), "camera.viewmat must be finite"),
        (Camera(torch.eye(4), torch.zeros(3, 3), 4, 4), "focal"),
        (Camera(torch.eye(4), torch.eye(3), 4, True), "camera.height"),
        (Camera(torch.eye(4), torch.eye(3), 4.0, 4), "camera.width"),
        (Camera(torch.eye(4).numpy(), torch.eye(3), 4, 4), "camera.viewmat must be a torch tensor, got ndarray"),
        (Camera(torch.eye(4), torch.eye(3) * 1j, 4, 4), "camera.K must hold real numbers, got torch.complex64"),
    ],
)
def test_a_wrong_camera_is_named(camera, message):
    with pytest.raises(ValueError, match=message):
        rasterize(one_dot(), camera)


@pytest.mark.parametrize("background", [(1.0, 1.0), (1.0, 1.0, math.nan), "white", None, (1.0, 1.0, "x")])
def test_a_wrong_background_is_named(background):
    with pytest.raises(ValueError, match="background"):
        rasterize(one_dot(), FRONT, background)


def test_what_is_no_frame_or_no_camera_is_named():
    with pytest.raises(ValueError, match="frame must be a GaussianFrame, got Camera"):
        rasterize(FRONT, one_dot())
    with pytest.raises(ValueError, match="camera must be a Camera, got NoneType"):
        rasterize(one_dot(), None)


def test_an_unknown_backend_is_named():
    with pytest.raises(ValueError, match="backend must be one of auto, cpu, gsplat, reference, got 'metal'"):
        rasterize(one_dot(), FRONT, backend="metal")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without a GPU is the subject")
def test_without_a_gpu_the_reason_is_kept_and_the_cpu_draws():
    assert gsplat_backend.why_unavailable() == "no CUDA device"
    assert torch.equal(rasterize(one_dot(), FRONT).color, rasterize(one_dot(), FRONT, backend="cpu").color)
    with pytest.raises(RuntimeError, match="no CUDA device"):
        rasterize(one_dot(), FRONT, backend="gsplat")


@pytest.mark.gpu
@pytest.mark.skipif(bool(gsplat_backend.why_unavailable()), reason=gsplat_backend.why_unavailable() or "gsplat is here")
def test_gsplat_and_the_cpu_agree():
    for seed in range(10):
        frame, camera = random_frame(seed), random_camera(seed)
        error = (rasterize(frame, camera, backend="gsplat").color - rasterize(frame, camera, backend="cpu").color).abs()
        assert (error.amax(-1) <= 2 / 255).float().mean() >= 0.999


def test_a_turning_head_allocates_nothing_but_its_pictures():
    rasterizer, frame = CpuRasterizer(), random_frame(9, 250)
    inputs, picture = [getattr(frame, name).numpy() for name in NAMES], empty_picture(FRONT)
    for yaw in range(0, 360, 20):
        rasterizer.draw(inputs, orbit_camera(yaw, 5, 0.5, 30, 40, 40), (1.0, 1.0, 1.0), *picture)
    settled = {name: buffer.ctypes.data for name, buffer in rasterizer._buffers.items()}
    for yaw in range(0, 360, 30):
        rasterizer.draw(inputs, orbit_camera(yaw, 5, 0.5, 30, 40, 40), (1.0, 1.0, 1.0), *picture)
    assert {name: buffer.ctypes.data for name, buffer in rasterizer._buffers.items()} == settled
