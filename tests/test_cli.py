"""The commands: what they accept, what they refuse in one line with exit code 2, and that nothing half-written stays."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from avatar_viewer.cli import main


@pytest.fixture
def speech(tmp_path) -> Path:
    path = tmp_path / "speech.wav"
    seconds = np.arange(int(0.9 * 16_000)) / 16_000
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 140 * seconds) * (np.sin(2 * np.pi * 3 * seconds) > 0), 16_000)
    return path


@pytest.fixture
def avatar(tiny_avatar_folder) -> str:
    return str(tiny_avatar_folder)


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = stop.code
    printed = capsys.readouterr()
    return code or 0, printed.out, printed.err


def assert_refused(result: tuple[int, str, str], *words: str) -> None:
    code, _, err = result
    assert code == 2, err
    assert len(err.strip().splitlines()) == 1 and "Traceback" not in err
    for word in words:
        assert word in err


def test_motion_writes_a_take_with_a_frame_for_every_started_25th_of_a_second(capsys, avatar, speech, tmp_path):
    out = tmp_path / "take.npz"
    code, printed, _ = run(capsys, "motion", "--audio", speech, "--out", out, "--avatar", avatar, "--json")
    take = np.load(out)
    frames = math.ceil(0.9 * 25)
    assert code == 0 and json.loads(printed)["frames"] == frames
    assert take["offsets"].shape[0] == len(take["au"]) == len(take["lip_gap_mm"]) == frames
    assert list(take["au_names"])[12] == "AU23" and take["offsets"].dtype == np.float32


def test_the_chunks_of_a_stream_do_not_change_a_take(capsys, avatar, speech, tmp_path):
    for name, more in (("a", ()), ("b", ("--stream", 7)), ("c", ("--stream", 333))):
        assert run(capsys, "motion", "--audio", speech, "--out", tmp_path / f"{name}.npz", "--avatar", avatar, *more)[0] == 0
    whole = np.load(tmp_path / "a.npz")
    for name in ("b", "c"):
        other = np.load(tmp_path / f"{name}.npz")
        assert all(np.array_equal(whole[key], other[key]) for key in whole.files)


def test_an_au_offset_reaches_the_take(capsys, avatar, speech, tmp_path):
    out = tmp_path / "take.npz"
    run(capsys, "motion", "--audio", speech, "--out", out, "--avatar", avatar, "--au", "AU12=4", "--au", "AU06=2", "--no-blinks")
    take = np.load(out)
    column = list(take["au_names"]).index("AU12")
    assert take["au"][:, column].min() >= 4 - 1e-6


def test_several_offsets_may_follow_one_au(capsys, avatar, speech, tmp_path):
    out = tmp_path / "take.npz"
    result = run(capsys, "motion", "--audio", speech, "--out", out, "--avatar", avatar, "--au", "AU12=4", "AU06=2", "--au", "AU01=1")
    assert result[0] == 0, result[2]
    take = np.load(out)
    lowest = dict(zip(take["au_names"], take["au"].min(axis=0)))
    assert [lowest[name] >= value - 1e-6 for name, value in (("AU12", 4), ("AU06", 2), ("AU01", 1))] == [True] * 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_back_end_that_cannot_draw_here_is_refused(capsys, avatar, speech, tmp_path):
    out = tmp_path / "clip.mp4"
    assert_refused(run(capsys, "render", "--audio", speech, "--out", out, "--avatar", avatar, "--backend", "gsplat"), "gsplat", "CUDA")
    assert list(tmp_path.iterdir()) == [speech]


def test_render_takes_a_take(capsys, avatar, speech, tmp_path):
    run(capsys, "motion", "--audio", speech, "--out", tmp_path / "take.npz", "--avatar", avatar)
    result = run(capsys, "render", "--take", tmp_path / "take.npz", "--out", f"{tmp_path}/frames/", "--avatar", avatar, "--size", "48x32")
    assert result[0] == 0, result[2]
    assert len(list((tmp_path / "frames").glob("*.png"))) == 23


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--au", "AU13=2"], ["AU13", "AU12"]),
        (["--au", "AU12=9"], ["AU12=9", "--over-range"]),
        (["--au", "AU12=nan"], ["AU12=nan"]),
        (["--au", "AU12"], ["AU12", "NAME=VALUE"]),
        (["--au", "AU12=6"], ["0 to 5"]),
        (["--over-range", "--au", "AU12=7.5"], ["0 to 7"]),
        (["--strength", "3"], ["--strength", "0 to 2"]),
        (["--suppress", "-1"], ["--suppress"]),
        (["--steps", "0"], ["--steps"]),
        (["--prompts", "nowhere.txt"], ["nowhere.txt"]),
        (["--stream", "0"], ["--stream"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_values_out_of_range_are_refused(capsys, avatar, speech, tmp_path, arguments, words):
    out = tmp_path / "take.npz"
    assert_refused(run(capsys, "motion", "--audio", speech, "--out", out, "--avatar", avatar, *arguments), *words)
    assert not out.exists()


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "header only", "10 ms", "folder"])
def test_what_is_not_sound_is_refused(capsys, avatar, tmp_path, kind):
    path = tmp_path / "sound.wav"
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("this is not sound" * 50)
    elif kind == "header only":
        soundfile.write(path, np.zeros(0), 16_000)
    elif kind == "10 ms":
        soundfile.write(path, np.zeros(160), 16_000)
    elif kind == "folder":
        path.mkdir()
    out = tmp_path / "clip.mp4"
    assert_refused(run(capsys, "render", "--audio", path, "--out", out, "--avatar", avatar), "sound.wav")
    assert [p.name for p in tmp_path.iterdir()] in ([], ["sound.wav"])


@pytest.mark.parametrize("rate, channels", [(8_000, 1), (96_000, 2), (44_100, 6)])
def test_any_rate_and_number_of_channels_speaks(capsys, avatar, tmp_path, rate, channels):
    path = tmp_path / "sound.wav"
    samples = 0.2 * np.random.default_rng(0).standard_normal((rate // 2, channels))
    samples[5] = np.nan
    soundfile.write(path, samples, rate, subtype="FLOAT")
    out = tmp_path / "take.npz"
    code, _, err = run(capsys, "motion", "--audio", path, "--out", out, "--avatar", avatar)
    assert code == 0, err
    take = np.load(out)
    assert len(take["au"]) == 13 and all(np.isfinite(take[key]).all() for key in ("au", "offsets", "lip_gap_mm"))


@pytest.mark.parametrize("out", ["nowhere/clip.mp4", "nowhere/take.npz", "blocked/take.npz"])
def test_a_path_that_cannot_be_written_is_refused(capsys, avatar, speech, tmp_path, out):
    (tmp_path / "blocked").write_text("a file where a folder is wanted")
    command = "render" if out.endswith("mp4") else "motion"
    before = sorted(p.name for p in tmp_path.iterdir())
    assert_refused(run(capsys, command, "--audio", speech, "--out", tmp_path / out, "--avatar", avatar), out.split("/")[1])
    assert sorted(p.name for p in tmp_path.iterdir()) == before


@pytest.mark.parametrize("out", ["", ".", "/", "speech.wav", "noise.wav", "frames"])
def test_no_clip_or_take_is_put_where_something_else_is(capsys, avatar, speech, tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "noise.wav").write_bytes(speech.read_bytes())
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "frame_final.png").write_bytes(b"an artist's own picture")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for command in ("motion", "render"):
        assert_refused(run(capsys, command, "--audio", speech, "--out", out, "--avatar", avatar))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_clip_does_not_take_the_place_of_the_film_it_is_made_from(capsys, avatar, speech, tmp_path):
    film, again = tmp_path / "film.mp4", tmp_path / "again.mp4"
    film.write_bytes(speech.read_bytes())
    again.symlink_to(film)
    assert_refused(run(capsys, "render", "--audio", film, "--out", again, "--avatar", avatar), "again.mp4", "to be read")
    assert film.read_bytes() == speech.read_bytes()


@pytest.mark.parametrize(
    "command",
    [
        ["studio", "--out", "speech.wav"],
        ["studio", "--out", "new", "--contact-sheet", "new"],
        ["train", "text", "--scale", "dev", "--out", "speech.wav"],
        ["train", "demo", "--scale", "dev", "--out", "speech.wav/run"],
        ["evaluate", "--data", "capture", "--out", "speech.wav"],
        ["evaluate", "--data", "capture", "--out", "new", "--contact-sheet", "sheet.jpg"],
        ["text", "--sheet", "speech.wav/sheet.png"],
        ["text", "--sheet", "sheet.jpg"],
    ],
    ids=lambda command: " ".join(command),
)
def test_a_wrong_place_is_told_before_any_work(capsys, speech, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    assert_refused(run(capsys, *command), command[-1].split("/")[0])
    assert list(tmp_path.iterdir()) == [speech]


@pytest.mark.parametrize(
    "more", [["--strength", "2"], ["--mode", "paper"], ["--enhance", "3"], ["--over-range"], ["--steps", "9"], ["--seed", "4"], ["--no-blinks"]]
)
def test_a_take_is_not_said_to_be_edited_where_it_is_not(capsys, avatar, tmp_path, more):
    assert_refused(run(capsys, "render", "--take", tmp_path / "t.npz", "--out", tmp_path / "x.mp4", "--avatar", avatar, *more), more[0])


def test_a_take_keeps_its_own_frame_rate(capsys, avatar, speech, tmp_path):
    path = tmp_path / "take.npz"
    run(capsys, "motion", "--audio", speech, "--out", path, "--avatar", avatar)
    arrays = dict(np.load(path))
    np.savez(path, **(arrays | {"fps": np.float64(50)}))
    result = run(capsys, "render", "--take", path, "--out", tmp_path / "frames", "--avatar", avatar, "--size", "16x16")
    assert result[0] == 0 and "23 frames at 50 fps" in result[1], result


def test_what_has_no_effect_and_what_is_odd_about_a_sound_is_said(capsys, avatar, tmp_path):
    samples = np.zeros(16_000, dtype=np.float32)
    samples[100:107] = np.nan
    soundfile.write(tmp_path / "odd.wav", samples, 16_000, subtype="FLOAT")
    code, _, err = run(capsys, "motion", "--audio", tmp_path / "odd.wav", "--out", tmp_path / "t.npz", "--avatar", avatar, "--enhance", "3")
    assert code == 0 and "--enhance: without --prompt" in err and "7 of 16000 samples were NaN" in err


@pytest.mark.parametrize("prompt", ["", "   ", "🙂🙃😀", "word " * 2000, "\u202e\u0000\x1b[31m", "\ud800 smile"])
def test_no_prompt_breaks_a_command(capsys, avatar, prompt):
    code, out, err = run(capsys, "text", prompt, "--json", "--avatar", avatar)
    assert code == 0, err
    line = json.loads(out)
    assert len(line["aus"]) == 17 and set(line) >= {"aus", "ignored", "truncated"}


def test_text_prints_a_line_of_json_a_prompt(capsys, avatar):
    code, out, _ = run(capsys, "text", "smile", "frown", "--json", "--avatar", avatar)
    lines = [json.loads(line) for line in out.strip().splitlines()]
    assert code == 0 and len(lines) == 2
    assert set(lines[0]["aus"]["AU12"]) == {"active", "probability", "intensity"}


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["render", "--out", "x.mp4"], ["--audio", "--take"]),
        (["render", "--audio", "a.wav", "--out", "x.mp4", "--size", "0x10"], ["0x10"]),
        (["render", "--audio", "a.wav", "--out", "x.mp4", "--size", "²x16"], ["²x16", "WIDTHxHEIGHT"]),
        (["render", "--audio", "a.wav", "--out", "x.mp4", "--seed=--5"], ["'--5'", "whole number"]),
        (["render", "--audio", "a.wav", "--out", "x.mp4", "--steps", "²"], ["'²'", "whole number"]),
        (["render", "--audio", "a.wav", "--out", "x.mp4", "--fov", "200"], ["--fov", "170"]),
        (["motion", "--audio", "a.wav"], ["--out"]),
        (["train", "rig", "--out", "x"], ["--data"]),
        (["train", "rig", "--data", "x"], ["--out"]),
        (["train", "everything"], ["everything"]),
        (["studio", "--rig", "nowhere.glb", "--out", "x"], ["nowhere.glb"]),
        (["render", "--audio", "a.wav", "--out", "x.mp4", "--avatar", "nowhere"], ["nowhere"]),
        (["bench", "everything"], ["everything"]),
        (["fly"], ["fly"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_wrong_use_is_one_line_and_exit_code_2(capsys, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert_refused(run(capsys, *arguments), *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["render", "motion", "text", "studio", "train", "evaluate", "bench", "doctor"])
def test_every_command_has_help(capsys, command):
    code, out, _ = run(capsys, command, "--help")
    assert code == 0 and command in out


def test_the_module_is_the_console_script():
    result = subprocess.run([sys.executable, "-m", "avatar_viewer", "--version"], capture_output=True, text=True)
    assert result.returncode == 0 and result.stdout.startswith("avatar-viewer ")


def test_the_doctor_names_every_part(capsys, avatar):
    code, out, _ = run(capsys, "doctor", "--json", "--avatar", avatar)
    findings = {finding["name"]: finding for finding in json.loads(out)}
    assert set(findings) >= {"python", "torch", "gsplat", "cpu rasteriser", "screen", "sound", "mp4", "avatar"}
    assert findings["avatar"]["state"] == "ok" and findings["cpu rasteriser"]["state"] == "ok"
    assert code == int(any(finding["state"] == "broken" for finding in findings.values()))
