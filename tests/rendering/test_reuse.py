"""What is kept from one picture to the next changes no pixel."""

import math
from dataclasses import replace

import pytest
import torch
from random_scenes import NAMES, random_frame

from avatar_viewer import Camera, GaussianFrame, rasterize
from avatar_viewer.geometry import orbit_camera
from avatar_viewer.rendering.cpu_backend import CpuRasterizer

CAMERA = orbit_camera(20, 10, 0.4, 60, 90, 70)
WHITE = (1.0, 1.0, 1.0)


def arrays(frame: GaussianFrame):
    return [getattr(frame, name).numpy() for name in NAMES]


def empty_picture(camera: Camera = CAMERA):
    return torch.full((camera.height, camera.width, 3), -7.0).numpy(), torch.full((camera.height, camera.width), -7.0).numpy()


def full_picture(frame: GaussianFrame, camera: Camera = CAMERA):
    color, alpha = empty_picture(camera)
    dropped, _ = CpuRasterizer().draw(arrays(frame), camera, WHITE, color, alpha)
    return color, alpha, dropped


def changed(frame: GaussianFrame, name: str, rows: slice | int, change) -> GaussianFrame:
    tensor = getattr(frame, name).clone()
    tensor[rows] = change(tensor[rows])
    return replace(frame, **{name: tensor})


CHANGES = {
    "nothing": lambda f: f,
    "a step aside": lambda f: changed(f, "means", slice(3, 9), lambda m: m + 0.02),
    "the least bit of one number": lambda f: changed(f, "means", 5, lambda m: torch.nextafter(m, torch.tensor(9.0))),
    "a turn": lambda f: changed(f, "quats", slice(0, 40), lambda q: q + 0.1),
    "a colour": lambda f: changed(f, "colors", 7, lambda c: 1 - c),
    "fading out": lambda f: changed(f, "opacities", slice(10, 20), lambda o: o * 0),
    "behind the camera": lambda f: changed(f, "means", slice(4, 8), lambda m: m + 5),
    "far out of the picture": lambda f: changed(f, "means", slice(4, 8), lambda m: m - torch.tensor([3.0, 0.0, 0.0])),
    "broken": lambda f: changed(f, "scales", slice(2, 5), lambda s: s * math.nan),
    "all of them": lambda f: changed(f, "means", slice(None), lambda m: m * 1.01),
    "two change places": lambda f: GaussianFrame(*(getattr(f, n)[[1, 0, *range(2, len(f.means))]] for n in NAMES)),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("seed", [1, 4])
def test_by_a_still_camera_a_picture_is_that_of_a_full_draw_to_the_last_bit(name, seed):
    first = random_frame(seed, 150)
    second = CHANGES[name](first)
    rasterizer, before, after = CpuRasterizer(), empty_picture(), empty_picture()
    rasterizer.draw(arrays(first), CAMERA, WHITE, *before)
    dropped, _ = rasterizer.draw(arrays(second), CAMERA, WHITE, *after, before)
    color, alpha, expected_dropped = full_picture(second)
    assert (after[0] == color).all() and (after[1] == alpha).all() and dropped == expected_dropped
    # And on from there: what was kept is as good as what was drawn.
    again = empty_picture()
    rasterizer.draw(arrays(first), CAMERA, WHITE, *again, after)
    assert (again[0] == before[0]).all() and (again[1] == before[1]).all()


def test_depth_alone_reorders():
    """Along the ray of its pixel, smaller as it comes nearer: the same spot on the picture, now in front."""
    camera = Camera(torch.eye(4), torch.tensor([[64.0, 0.0, 32.0], [0.0, 64.0, 32.0], [0.0, 0.0, 1.0]]), 64, 64)
    means = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 2.0]])
    first = GaussianFrame(
        means, torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(2, 1), torch.tensor([[0.125] * 3, [0.25] * 3]),
        torch.tensor([0.9, 0.9]), torch.eye(3)[:2],
    )  # fmt: skip
    second = replace(first, means=means * torch.tensor([[1.0], [0.25]]), scales=first.scales * torch.tensor([[1.0], [0.25]]))
    rasterizer, before, after = CpuRasterizer(), empty_picture(camera), empty_picture(camera)
    rasterizer.draw(arrays(first), camera, WHITE, *before)
    rasterizer.draw(arrays(second), camera, WHITE, *after, before)
    assert before[0][32, 32, 0] > 0.8 and after[0][32, 32, 1] > 0.8
    assert (after[0] == full_picture(second, camera)[0]).all()


def test_only_tiles_whose_gaussians_changed_are_drawn():
    frame = random_frame(2, 200)
    frame = replace(frame, scales=frame.scales.clamp(max=0.002))
    one = changed(frame, "colors", int(frame.opacities.argmax()), lambda c: 1 - c)
    rasterizer, before, after = CpuRasterizer(), empty_picture(), empty_picture()
    rasterizer.draw(arrays(frame), CAMERA, WHITE, *before)
    before[1][:] = 5.0  # a mark that a copied tile carries on
    rasterizer.draw(arrays(one), CAMERA, WHITE, *after, before)
    drawn = after[1] != 5.0
    differs = (full_picture(one)[0] != full_picture(frame)[0]).any(-1)
    assert differs.any() and drawn[differs].all()
    assert drawn.sum() <= 4 * 16 * 16


def test_an_unchanged_frame_and_camera_cost_nothing():
    frame, camera = random_frame(1, 60), orbit_camera(0, 0, 1.0, 30, 40, 40)
    first = rasterize(frame, orbit_camera(0, 0, 1.0, 30, 40, 40), backend="cpu")
    assert rasterize(frame, orbit_camera(0, 0, 1.0, 30, 40, 40), backend="cpu") is first
    assert rasterize(frame, orbit_camera(1, 0, 1.0, 30, 40, 40), backend="cpu") is not first
    again = rasterize(frame, camera, backend="cpu")
    frame.colors.mul_(0.5)
    assert not torch.equal(rasterize(frame, camera, backend="cpu").color, again.color)
    assert rasterize(frame, camera, (0.0, 0.0, 0.0), backend="cpu").color[0, 0].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("grad_mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_a_talking_head_before_a_still_camera_is_drawn_as_if_each_picture_were_the_first(grad_mode):
    with grad_mode():
        for step in range(4):
            frame = changed(random_frame(3, 220), "means", slice(0, 30), lambda m, by=step: m + 0.004 * by)
            found = rasterize(frame, CAMERA, backend="cpu")
            color, alpha, _ = full_picture(frame)
            assert (found.color.numpy() == color).all() and (found.alpha.numpy() == alpha).all()


@pytest.mark.parametrize("grad_mode", [torch.inference_mode, torch.no_grad])
def test_who_paints_over_a_picture_does_not_spoil_the_next(grad_mode):
    with grad_mode():
        frame = random_frame(3, 220)
        rasterize(frame, CAMERA, backend="cpu").color.zero_()
        for second in (frame, changed(frame, "means", slice(0, 3), lambda m: m + 0.001)):
            found = rasterize(second, CAMERA, backend="cpu")
            assert (found.color.numpy() == full_picture(second)[0]).all()
            found.color.zero_()


def test_gradients_after_pictures_by_a_still_camera_are_those_of_a_fresh_rasteriser():
    frame = random_frame(6, 150)

    def gradient():
        means = frame.means.clone().requires_grad_()
        rasterize(replace(frame, means=means), CAMERA, backend="cpu").color.sum().backward()
        return means.grad

    expected = gradient()
    for step in range(3):
        rasterize(changed(frame, "means", 0, lambda m, by=step: m + 0.01 * by), CAMERA, backend="cpu")
    assert torch.equal(gradient(), expected)


def test_a_backward_of_a_picture_that_was_partly_kept_knows_all_gaussians():
    frame = random_frame(6, 150)
    moved = changed(frame, "means", slice(0, 3), lambda m: m + 0.01)
    whole, partly, before, after = CpuRasterizer(), CpuRasterizer(), empty_picture(), empty_picture()
    gradients = []
    for rasterizer, given in ((whole, None), (partly, before)):
        rasterizer.draw(arrays(frame), CAMERA, WHITE, *before)
        _, ticket = rasterizer.draw(arrays(moved), CAMERA, WHITE, *after, given)
        weights = [torch.ones(70, 90, 3).numpy(), torch.zeros(70, 90).numpy()]
        gradients.append([torch.empty_like(getattr(moved, name)) for name in NAMES])
        rasterizer.draw_backward(arrays(moved), CAMERA, ticket, [*after, *weights], [g.numpy() for g in gradients[-1]])
    for found, expected in zip(*gradients):
        assert torch.equal(found, expected)
