"""Picture metrics against values worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from avatar_viewer.metrics.image import psnr, sharpness, ssim, ssim_map


def test_psnr_of_a_uniform_error_of_a_tenth_is_20_db():
    truth = torch.full((8, 8, 3), 0.5)
    assert psnr(truth + 0.1, truth) == pytest.approx(20.0, abs=1e-4)
    assert psnr(truth, truth) == math.inf


def test_masked_psnr_counts_only_what_the_mask_covers():
    truth = torch.zeros(4, 4, 3)
    image = truth.clone()
    image[:2] = 0.1
    image[2:] = 0.9
    mask = torch.zeros(4, 4)
    mask[:2] = 1
    assert psnr(image, truth, mask) == pytest.approx(20.0, abs=1e-4)
    assert psnr(image, truth) == pytest.approx(-10 * math.log10((0.01 + 0.81) / 2), abs=1e-4)
    with pytest.raises(ValueError, match="covers nothing"):
        psnr(image, truth, torch.zeros(4, 4))


def test_ssim_of_two_flat_pictures_is_the_luminance_term():
    a, b = 0.4, 0.6
    image, truth = torch.full((32, 32, 3), a), torch.full((32, 32, 3), b)
    expected = (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)
    inner = ssim_map(image, truth)[8:-8, 8:-8]
    assert torch.allclose(inner, torch.full_like(inner, expected), atol=1e-3)


def test_ssim_matches_a_window_summed_by_hand():
    generator = torch.Generator().manual_seed(1)
    image, truth = torch.rand(11, 11, 3, generator=generator), torch.rand(11, 11, 3, generator=generator)
    weights = torch.tensor([[math.exp(-((i - 5) ** 2 + (j - 5) ** 2) / (2 * 1.5**2)) for j in range(11)] for i in range(11)])
    weights /= weights.sum()
    x, y = image[..., 0], truth[..., 0]
    mx, my = (weights * x).sum(), (weights * y).sum()
    vx, vy = (weights * x * x).sum() - mx**2, (weights * y * y).sum() - my**2
    cov = (weights * x * y).sum() - mx * my
    expected = (2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
    assert ssim_map(image, truth)[5, 5, 0].item() == pytest.approx(expected.item(), abs=1e-5)


def test_ssim_is_one_for_equal_pictures_and_falls_with_noise():
    picture = torch.rand(24, 24, 3, generator=torch.Generator().manual_seed(2))
    assert ssim(picture, picture) == pytest.approx(1.0, abs=1e-6)
    assert ssim((picture + 0.3 * torch.randn(24, 24, 3)).clamp(0, 1), picture) < 0.9


def test_sharpness_of_a_ramp_is_its_slope():
    ramp = torch.linspace(0, 1, 11).repeat(6, 1)[..., None].expand(6, 11, 3)
    assert sharpness(ramp) == pytest.approx(0.1, abs=1e-6)


def test_the_gradient_of_ssim_is_that_of_its_formula():
    torch.manual_seed(0)
    image, truth = torch.rand(7, 9, 3, dtype=torch.float64, requires_grad=True), torch.rand(7, 9, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda picture: ssim_map(picture, truth), (image,))
