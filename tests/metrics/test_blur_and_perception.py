"""CPBD on edges of known width; LPIPS through its library with random weights."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from avatar_viewer.metrics import perceptual
from avatar_viewer.metrics.cpbd import cpbd


def stripes(blur: float) -> np.ndarray:
    """Bars of 64 pixels, 200 grey levels apart, blurred along the row."""
    bars = np.tile((np.arange(256) // 64 % 2) * (200 / 255) + 0.1, (128, 1))
    return gaussian_filter1d(bars, blur, axis=1) if blur else bars


def test_sharp_bars_show_no_blur_and_soft_ones_do():
    assert cpbd(stripes(0.0)) == 1.0
    assert cpbd(stripes(3.0)) == 0.0
    assert cpbd(np.repeat(stripes(0.0)[..., None], 3, axis=2)) == 1.0


def test_a_ramp_of_just_noticeable_width_is_the_border():
    """P = 0.63 at a width of 3 pixels where the contrast is high: 3 pass, 5 do not."""
    for width, expected in ((3, 1.0), (5, 0.0)):
        ramp = np.clip((np.arange(64) - 30) / width, 0, 1)
        row = np.concatenate((ramp, ramp[::-1]))
        assert cpbd(np.tile(np.tile(row, 2), (128, 1)) * 0.8) == expected, width


def test_a_flat_picture_has_no_edge_to_judge():
    assert np.isnan(cpbd(np.full((128, 128), 0.5)))


def test_lpips_says_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    reason = perceptual.why_no_lpips()
    assert "not reported" in reason and ("pip install lpips" in reason or perceptual.WEIGHTS_FILE in reason)


def test_lpips_is_nought_for_equal_pictures_and_grows_with_the_difference():
    library = pytest.importorskip("lpips")
    torch.manual_seed(0)
    model = library.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    picture = torch.rand(64, 64, 3)
    assert perceptual.lpips(picture, picture, model) == 0.0
    near, far = (perceptual.lpips((picture + amount * torch.randn_like(picture)).clamp(0, 1), picture, model) for amount in (0.05, 0.4))
    assert 0 < near < far
