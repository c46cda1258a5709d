"""The benchmarks: their report is complete, and what they compare draws one picture."""

import json

import pytest
import torch

from avatar_viewer import bench, bench_render, bench_speech
from avatar_viewer.errors import InputError
from avatar_viewer.rendering import obvious_cpp
from avatar_viewer.rendering.cpu_backend import CpuRasterizer
from avatar_viewer.rendering.obvious import draw_obviously
from avatar_viewer.rendering.obvious_cpp import build_obvious_cpp


def test_the_obvious_loops_draw_the_same_picture():
    frame, camera = bench_render._synthetic_head(3000), bench_render._camera(0, 120, 90)
    inputs = [t.numpy() for t in (frame.means, frame.quats, frame.scales, frame.opacities, frame.colors)]
    draws = {
        "product": CpuRasterizer().draw,
        "numba": lambda *a: draw_obviously(*a[:3], 1, *a[3:]),
        "C++": lambda *a: build_obvious_cpp()(*a[:3], 2, *a[3:]),
    }
    if build_obvious_cpp() is None:
        del draws["C++"]
    pictures = {}
    for name, draw in draws.items():
        color, alpha = torch.empty(90, 120, 3), torch.empty(90, 120)
        draw(inputs, camera, (1.0, 1.0, 1.0), color.numpy(), alpha.numpy())
        pictures[name] = torch.cat((color, alpha[..., None]), dim=-1)
    for name, picture in pictures.items():
        assert (pictures["product"] - picture).square().mean() < 1e-5, name  # the tails beyond three sigmas
        assert (pictures["numba"] - picture).abs().quantile(0.99) < 0.02, name
    assert pictures["product"].std() > 0.1


def test_without_a_compiler_the_report_has_no_figure_for_it(monkeypatch):
    monkeypatch.setattr(obvious_cpp.shutil, "which", lambda name: None)
    build_obvious_cpp.cache_clear()
    assert build_obvious_cpp() is None
    monkeypatch.undo()
    build_obvious_cpp.cache_clear()


def test_the_render_report_has_every_count_at_every_size(monkeypatch, capsys):
    monkeypatch.setattr(bench_render, "COUNTS", (300, 600))
    monkeypatch.setattr(bench_render, "SIZES", ((64, 48),))
    monkeypatch.setattr(bench_render, "ROUNDS", 1)
    monkeypatch.setattr(bench_render, "REFERENCE_SCENE", (50, 16, 16))
    assert bench.run(["render"], True, None) == 0
    report = json.loads(capsys.readouterr().out)["render"]
    assert {"processor", "threads", "gpu", "backend", "scene"} <= set(report["machine"])
    assert [row["gaussians"] for row in report["rows"]] == [300, 600]
    for row in report["rows"]:
        assert row["ms"] > 0 and row["obvious_ms"] > 0 and row["times_faster"] > 0
        assert set(row["phase_ms"]) == set(row["phase_p95_ms"]) == {"project", "sort", "list", "blend"}
        assert row["p95_ms"] >= row["ms"] and row["still_ms"] > 0 and row["forward_backward_ms"] > 0
        assert 0 < row["useful_lanes"] <= 1 and row["pairs"] > 0 and row["lanes"] % 16 == 0
    assert bench.run(["render"], False, None) == 0
    assert "synthetic head" in capsys.readouterr().out


def test_a_back_end_on_a_device_is_waited_for_and_compared():
    waits = []
    found = bench_render._measure_backend(bench_render._synthetic_head(40), 16, 12, "reference", "cpu", lambda: waits.append(1))
    assert len(waits) == 2 * 5 + 50 + 20
    assert found["within_2_of_255"] == 1.0 and 0 < found["ms"] <= found["p95_ms"] and found["forward_backward_ms"] > 0


def test_the_talking_head_of_the_benchmark_leaves_the_rest_as_it_is():
    head = bench_render._synthetic_head(3000)
    moved = (bench_render._talk(head).means != head.means).any(dim=1)
    assert moved.sum() == 1000
    assert head.means[moved, 2].mean() > head.means[:, 2].mean()


def test_an_unknown_benchmark_is_named():
    with pytest.raises(InputError, match="juggling"):
        bench.run(["juggling"], False, None)


def test_the_speech_and_motion_reports_count_the_delay_and_time_every_part(monkeypatch, capsys, tiny_avatar_folder):
    monkeypatch.setattr(bench_speech, "HOPS", 2)
    monkeypatch.setattr(bench_speech, "SECONDS", 1.0)
    threads = torch.get_num_threads()
    assert bench.run(["speech", "motion"], True, tiny_avatar_folder) == 0
    report = json.loads(capsys.readouterr().out)
    default, low = (report["speech"]["settings"][name] for name in ("default", "low delay"))
    assert (default["delay_ms"], low["delay_ms"]) == (280, 160)
    assert set(default["parts_ms"]) == {"HuBERT", "AU encoder", "modulation", "denoiser", "vertices"}
    # 200 ms hops: 5 a second, each with its rows over the window's and the history's frames.
    assert default["tokens_a_second"] * default["fewer_tokens"] == pytest.approx(41_250)
    assert default["tokens_a_second"] % (5 * default["rows"]) == 0
    assert default["arithmetic"] > 1 and 0 < default["share_of_hop"]
    assert report["motion"]["settings"]["default"]["times_real_time"] > 0 and report["motion"]["pose_ms"][0] > 0
    assert torch.get_num_threads() == threads
    assert bench.run(["speech"], False, tiny_avatar_folder) == 0
    assert "algorithmic delay 280 ms" in capsys.readouterr().out


def test_speech_cannot_be_measured_without_an_avatar():
    with pytest.raises(InputError, match="--avatar"):
        bench.run(["speech"], True, None)
