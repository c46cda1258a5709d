"""Which stage is given what: backbones and ablations reach their stage alone, and nothing else takes them."""

from importlib import import_module
from pathlib import Path

import pytest
import torch

from avatar_viewer.errors import InputError
from avatar_viewer.training import stages


@pytest.fixture
def calls(monkeypatch) -> dict[str, dict]:
    found: dict[str, dict] = {}
    monkeypatch.setattr(stages, "_load_stage", lambda name: lambda data, out, **options: found.setdefault(name, options))
    return found


GIVEN = {"scale": "dev", "resume": False, "device": "cpu"}


def test_each_backbone_reaches_its_own_stage(calls, tmp_path, capsys):
    stages.run_stage("all", tmp_path, tmp_path, **GIVEN, speech_backbone="ear", text_backbone="eye")
    assert {name: options.get("backbone") for name, options in calls.items()} == {
        "rig": None, "speech": "ear", "motion": None, "appearance": None, "text": "eye",
    }  # fmt: skip
    assert tuple(calls) == stages.STAGES and "trained in rig" in capsys.readouterr().out


def test_a_seed_reaches_speech_and_motion_only(calls, tmp_path):
    stages.run_stage("all", tmp_path, tmp_path, **GIVEN, seed=3)
    assert {name: options.get("seed") for name, options in calls.items()} == {
        "rig": None, "speech": 3, "motion": 3, "appearance": None, "text": None,
    }  # fmt: skip


def test_an_ablation_reaches_its_stage(calls, tmp_path):
    stages.run_stage("motion", tmp_path, tmp_path, **GIVEN, ablation="gru")
    assert calls["motion"]["ablation"] == "gru"


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("rig", {"speech_backbone": "ear"}, "train rig uses no speech backbone"),
        ("speech", {"text_backbone": "eye"}, "train speech uses no text backbone"),
        ("text", {"ablation": "gru"}, "train text has no ablation"),
        ("rig", {"seed": 1}, "train rig takes no seed"),
    ],
)
def test_what_a_stage_does_not_take_is_named(calls, name, options, said):
    with pytest.raises(InputError, match=said):
        stages.run_stage(name, Path("data"), Path("out"), **GIVEN, **options)
    assert not calls


def test_a_finished_stage_is_not_done_again(calls, tmp_path, capsys):
    stages.run_stage("all", tmp_path, tmp_path, **GIVEN)
    calls.clear()
    stages.run_stage("all", tmp_path, tmp_path, **(GIVEN | {"resume": True}))
    assert not calls and "rig: done before" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_said_before_any_work(calls, tmp_path):
    with pytest.raises(InputError, match="--device cuda"):
        stages.run_stage("rig", tmp_path, tmp_path / "out", **(GIVEN | {"device": "cuda"}))
    assert not calls and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name, first", [("motion", "train speech"), ("appearance", "train rig")])
def test_a_stage_names_the_one_that_it_needs(tmp_path, monkeypatch, name, first):
    module = import_module(f"avatar_viewer.training.{name}")
    monkeypatch.setattr(module, "open_capture", lambda data: None)
    with pytest.raises(InputError, match=f"{first} --data"):
        stages.run_stage(name, tmp_path, tmp_path / "out", **GIVEN)


def test_a_prompt_corpus_that_is_not_there_is_not_replaced_in_silence(tmp_path):
    with pytest.raises(InputError, match="nowhere.jsonl"):
        stages.run_stage("text", tmp_path / "nowhere.jsonl", tmp_path / "out", **GIVEN)
    assert not (tmp_path / "out").exists()
