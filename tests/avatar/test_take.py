"""Take files."""

import numpy as np
import pytest
import torch

from avatar_viewer.action_units import AU_NAMES
from avatar_viewer.avatar.take import load_take, measure_lip_gap, save_take
from avatar_viewer.errors import InputError
from avatar_viewer.metrics.lips import lip_gap_mm
from avatar_viewer.types import MotionWindow


def motion_of(face, frames: int = 7) -> MotionWindow:
    generator = torch.Generator().manual_seed(3)
    codes = 5 * torch.rand(frames, 17, generator=generator)
    offsets = 0.01 * torch.randn(frames, len(face.neutral), 3, generator=generator)
    return MotionWindow(0.0, 25.0, codes, codes * 0.5, torch.rand(frames, generator=generator), offsets, torch.zeros(frames, 2))


def test_a_take_comes_back_as_it_was(tmp_path, tiny_face):
    motion = motion_of(tiny_face)
    save_take(tmp_path / "take.npz", motion, tiny_face, seed=7)
    take = load_take(tmp_path / "take.npz")
    assert take.fps == 25 and take.seed == 7
    window = take.window()
    for name in ("au_codes", "au_applied", "voice", "offsets", "gaze"):
        assert torch.equal(getattr(window, name), getattr(motion, name)), name
    assert np.array_equal(take.faces, tiny_face.faces) and np.array_equal(take.neutral, tiny_face.neutral)


def test_a_take_holds_exactly_the_published_names(tmp_path, tiny_face):
    save_take(tmp_path / "take.npz", motion_of(tiny_face), tiny_face, seed=0)
    with np.load(tmp_path / "take.npz", allow_pickle=False) as file:
        names, au_names = set(file.files), tuple(file["au_names"])
    expected = "fps au_names au_speech au voice offsets gaze neutral faces lip_upper lip_lower lip_gap_mm seed"
    assert names == set(expected.split()) and au_names == AU_NAMES


def test_the_lip_gap_of_a_take_is_the_gap_of_the_metrics(tiny_face):
    vertices = tiny_face.neutral + motion_of(tiny_face).offsets
    measured = measure_lip_gap(vertices, tiny_face.lip_upper, tiny_face.lip_lower)
    truth = lip_gap_mm(vertices.numpy(), tiny_face.lip_upper.numpy(), tiny_face.lip_lower.numpy())
    torch.testing.assert_close(measured, torch.from_numpy(truth), check_dtype=False)
    assert measured.max() > 1


def test_a_take_without_offsets_says_why_it_cannot_be_rendered(tmp_path, tiny_face):
    save_take(tmp_path / "take.npz", motion_of(tiny_face), tiny_face, seed=0, with_offsets=False)
    with pytest.raises(InputError, match="--no-offsets"):
        load_take(tmp_path / "take.npz").window()


def test_a_place_that_cannot_be_written_is_an_input_error_and_leaves_nothing(tmp_path, tiny_face):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        save_take(tmp_path / "file" / "take.npz", motion_of(tiny_face), tiny_face, seed=0)
    with pytest.raises(InputError, match="cannot write"):
        save_take(tmp_path / "nowhere" / "take.npz", motion_of(tiny_face), tiny_face, seed=0)
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(InputError, match="cannot write"):
        save_take(tmp_path / "folder.npz", motion_of(tiny_face), tiny_face, seed=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.npz"]


def test_a_wrong_take_names_every_fault_at_once(tmp_path, tiny_face):
    save_take(tmp_path / "take.npz", motion_of(tiny_face), tiny_face, seed=0)
    arrays = dict(np.load(tmp_path / "take.npz", allow_pickle=False))
    arrays["gaze"] = arrays["gaze"][:3]
    arrays["voice"] = arrays["voice"] * np.nan
    arrays["faces"] = arrays["faces"] + 1000
    np.savez(tmp_path / "wrong.npz", **arrays)
    with pytest.raises(InputError, match="(?s)voice.*NaN.*gaze|gaze.*voice.*NaN") as caught:
        load_take(tmp_path / "wrong.npz")
    assert "faces" in str(caught.value) and "\n" not in str(caught.value)


def test_damaged_takes_and_pickles_are_input_errors(tmp_path, tiny_face):
    save_take(tmp_path / "take.npz", motion_of(tiny_face, frames=2), tiny_face, seed=0)
    whole = (tmp_path / "take.npz").read_bytes()
    random = np.random.default_rng(0)
    damaged = tmp_path / "damaged.npz"
    for _ in range(150):
        mutant = bytearray(whole)
        mutant[random.integers(len(whole))] ^= int(random.integers(1, 256))
        damaged.write_bytes(mutant)
        try:
            load_take(damaged)
        except InputError:
            pass
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        damaged.write_bytes(whole[:length])
        with pytest.raises(InputError):
            load_take(damaged)
    np.savez(damaged, au=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError):
        load_take(damaged)
    with pytest.raises(InputError, match="no such file"):
        load_take(tmp_path / "absent.npz")
    damaged.write_text("not a take")
    with pytest.raises(InputError, match="made by `motion`") as error:
        load_take(damaged)
    assert "unsafe" not in str(error.value)  # nobody is to be told how to load what is not trusted
