"""`bench live`: it drives the real window from outside, and says in one line what it needs."""

import pytest
from virtual_devices import screen  # noqa: F401  a fixture

from avatar_viewer import bench_live
from avatar_viewer.errors import InputError


def test_without_a_screen_it_says_what_to_do(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(InputError, match="xvfb-run"):
        bench_live.bench_live(None, quiet=True)


def test_latencies_are_summed_up_and_what_was_not_answered_is_counted():
    waits = [(10.0, 10.0 + ms / 1000) for ms in (50, 60, 70, 80, 90)] + [(20.0, None)]
    assert bench_live._latency(waits) == {"median_ms": 70, "p95_ms": 90, "answers": 5, "unanswered": 1}
    assert bench_live._latency([(1.0, None)])["median_ms"] is None


@pytest.mark.window
def test_it_uses_the_window_as_a_person_does(screen, tiny_avatar_folder, monkeypatch):
    monkeypatch.setenv("DISPLAY", screen)
    monkeypatch.setenv("LIBGL_ALWAYS_SOFTWARE", "1")
    monkeypatch.setenv("PULSE_SERVER", "unix:/nowhere")
    monkeypatch.setattr(bench_live, "PHASE_SECONDS", 1.5)
    monkeypatch.setattr(bench_live, "ROUNDS", 2)
    report = bench_live.bench_live(tiny_avatar_folder, quiet=True)
    assert list(report["phases"]) == ["playing", "playing, sliders and prompts in use", "the same, recording", "idle"]
    playing, idle = report["phases"]["playing"], report["phases"]["idle"]
    assert playing["pictures_a_second"] > 1 and idle["pictures_a_second"] == 0
    assert 0 < idle["window_percent"] < playing["window_percent"]
    assert set(report["latencies"]) == {"slider to pixel", "prompt to pixel"}
    assert report["latencies"]["slider to pixel"]["answers"] == 2, "the held slider must move the face"
