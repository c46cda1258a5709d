"""The benchmarks: their report is complete, and what they compare draws one picture."""

import json

import pytest
import torch

from avatar_viewer import bench
from avatar_viewer.errors import InputError
from avatar_viewer.rendering.cpu_backend import CpuRasterizer
from avatar_viewer.rendering.obvious import draw_obviously


def test_the_obvious_loop_draws_the_same_picture():
    frame, camera = bench._synthetic_head(3000), bench._camera(0, 120, 90)
    inputs = [t.numpy() for t in (frame.means, frame.quats, frame.scales, frame.opacities, frame.colors)]
    pictures = []
    for draw in (CpuRasterizer().draw, lambda *a: draw_obviously(*a[:3], 1, *a[3:])):
        color, alpha = torch.empty(90, 120, 3), torch.empty(90, 120)
        draw(inputs, camera, (1.0, 1.0, 1.0), color.numpy(), alpha.numpy())
        pictures.append(color)
    assert (pictures[0] - pictures[1]).square().mean() < 1e-5  # the tails beyond three sigmas
    assert pictures[0].std() > 0.1


def test_the_render_report_has_every_count_at_every_size(monkeypatch, capsys):
    monkeypatch.setattr(bench, "COUNTS", (300, 600))
    monkeypatch.setattr(bench, "SIZES", ((64, 48),))
    monkeypatch.setattr(bench, "ROUNDS", 1)
    monkeypatch.setattr(bench, "REFERENCE_SCENE", (50, 16, 16))
    assert bench.run(["render"], True, None) == 0
    report = json.loads(capsys.readouterr().out)["render"]
    assert [row["gaussians"] for row in report["rows"]] == [300, 600]
    for row in report["rows"]:
        assert row["ms"] > 0 and row["obvious_ms"] > 0 and row["times_faster"] > 0
        assert set(row["phase_ms"]) == {"project", "sort", "list", "blend"}
        assert 0 < row["useful_lanes"] <= 1 and row["pairs"] > 0 and row["lanes"] % 16 == 0
    assert bench.run(["render"], False, None) == 0
    assert "synthetic head" in capsys.readouterr().out


def test_an_unknown_benchmark_is_named():
    with pytest.raises(InputError, match="juggling"):
        bench.run(["juggling"], False, None)
