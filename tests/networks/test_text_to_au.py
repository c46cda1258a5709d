"""Prompts of every kind through a real open_clip tower, with random and with the demo's trained weights."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from avatar_viewer.action_units import AU_NAMES, au_index
from avatar_viewer.errors import InputError
from avatar_viewer.networks.prompt_reading import format_readings
from avatar_viewer.networks.text_backbone import (
    CONTEXT_TOKENS,
    build_compact_model,
    clip_tokenizer,
    save_compact_backbone,
)
from avatar_viewer.networks.text_to_au import HEAD_WEIGHTS, TextToAU, TextToAUConfig, load_text_to_au

DEMO = Path(__file__).parents[2] / "checkpoints" / "demo"
ODD_PROMPTS = {
    "empty": "",
    "blank": " \t\n ",
    "emoji": "😀🎉",
    "a megabyte": "smile " * 170_000,
    "one endless word": "a" * 1_000_000,
    "a lone surrogate": "\ud800",
    "surrogates in words": "a \udfff smile \ud83d",
    "NUL": "\x00",
    "NUL in words": "smi\x00le",
    "right to left": "חיוך רחב",
    "Arabic": "ابتسامة",
    "format codes": "\u202esmile\u202c \u200b",
    "CLIP's marks": "<end_of_text> smile",
    "half a mark": "<start_of_text>",
    "only signs": "!?., ---",
    "Chinese": "微笑",
    "combining": "s\u0336m\u0336i\u0336le",
    "html": "&lt;b&gt;&#0;",
    "many lines": "\n".join(["smile"] * 500),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """An avatar's text part with random weights; its head takes every text for one about a face, and hears AU12 in it."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("text")
    save_compact_backbone(build_compact_model(), folder / "text_backbone")
    head = TextToAU(TextToAUConfig())
    with torch.no_grad():
        head.relevance.bias.fill_(20.0)
        head.classifier.bias.fill_(-20.0)
        head.classifier.bias[au_index("AU12")] = 20.0
    save_file(head.state_dict(), folder / HEAD_WEIGHTS)
    return folder


@pytest.fixture(scope="module")
def text(folder) -> TextToAU:
    return load_text_to_au(folder)


def test_importing_the_module_does_not_import_open_clip():
    code = "import sys, avatar_viewer.networks.text_to_au; sys.exit('open_clip' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0


@pytest.mark.parametrize("prompt", ODD_PROMPTS.values(), ids=ODD_PROMPTS.keys())
def test_no_prompt_raises_and_none_leaves_the_range(text, prompt):
    reading = text.read(prompt)
    assert reading.active.shape == reading.intensity.shape == (17,)
    assert torch.isfinite(reading.intensity).all() and reading.intensity.min() >= 0 and reading.intensity.max() <= 5
    assert not reading.intensity[~reading.active].any()
    json.dumps(format_readings([prompt], text.read)).encode("utf-8")
    format_readings([prompt], text.read, as_json=True).encode("utf-8")


@pytest.mark.parametrize("prompt", ["", "  \n", "😀", "\x00", "\ud800", "?!", "\u200b\u202e"])
def test_a_prompt_without_words_is_neutral_and_says_why(text, prompt):
    reading = text.read(prompt)
    assert not reading.active.any() and not reading.intensity.any() and "stays as it is" in reading.note


def test_what_does_not_fit_into_the_tower_is_reported(text):
    words = [f"word{n}" for n in range(60)]
    reading = text.read(" ".join(words))
    cut = reading.truncated.split()
    assert cut and cut == words[-len(cut) :]
    kept = " ".join(words[: -len(cut)])
    assert len(clip_tokenizer().encode(kept)) <= CONTEXT_TOKENS - 2 < len(clip_tokenizer().encode(kept + " " + cut[0]))
    assert "77" in reading.note
    assert text.read("a short smile").truncated == ""


def test_the_cut_off_text_has_no_part_in_the_reading(text):
    long = "smile " * 75
    assert torch.equal(text.read(long + "furious").probability, text.read(long + "asleep").probability)


def test_a_repeated_prompt_is_answered_from_memory(text, monkeypatch):
    first = text.read("a smile to remember")
    monkeypatch.setattr(text.backbone, "encode", lambda texts: pytest.fail("read again"))
    assert text.read("a smile to remember") is first


def test_memory_does_not_grow_without_end(text):
    for n in range(300):
        text.read(" " * n)
    assert len(text._readings) <= 256


def test_people_see_all_17_values(text):
    lines = format_readings(["one"], text.read).splitlines()
    assert lines[0] == "one" and "AU12" in lines[1]
    assert all(f"{name[2:]} 0." in lines[2] for name in AU_NAMES if name != "AU12")


def test_json_names_all_17_action_units(text):
    lines = format_readings(["one", "two"], text.read, as_json=True).splitlines()
    assert len(lines) == 2
    value = json.loads(lines[0])
    assert tuple(value["aus"]) == AU_NAMES and set(value["aus"]["AU12"]) == {"active", "probability", "intensity"}
    assert value["aus"]["AU12"]["active"] is True and value["truncated"] == "" and isinstance(value["ignored"], list)


def test_a_folder_without_a_head_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match="train text"):
        load_text_to_au(tmp_path)


def test_a_head_for_another_tower_is_refused(text):
    with pytest.raises(InputError, match="train text"):
        TextToAU(TextToAUConfig(feature_dim=256)).attach(text.backbone)


# ------------------------------------------------------------------------------------------------- the trained weights

needs_demo = pytest.mark.skipif(not (DEMO / HEAD_WEIGHTS).is_file(), reason="no trained text part in checkpoints/demo")


@pytest.fixture(scope="module")
def trained() -> TextToAU:
    return load_text_to_au(DEMO)


def value(text: TextToAU, prompt: str, name: str) -> float:
    return float(text.read(prompt).intensity[au_index(name)])


@needs_demo
@pytest.mark.parametrize(
    "prompt, leading",
    [
        ("smile", "AU12"),
        ("a sad person", "AU15"),
        ("furrowed brow", "AU04"),
        ("she is furious", "AU04"),
        ("wide eyes", "AU05"),
        ("close your eyes", "AU45"),
        ("wrinkle your nose", "AU09"),
        ("raised eyebrows", "AU01"),
        ("mouth wide open", "AU25"),
    ],
)
def test_the_trained_controller_hears_the_plain_words(trained, prompt, leading):
    assert bool(trained.read(prompt).active[au_index(leading)]), format_readings([prompt], trained.read)


@needs_demo
def test_the_trained_controller_orders_degrees(trained):
    assert value(trained, "slightly happy", "AU12") < value(trained, "happy", "AU12") < value(trained, "extremely happy", "AU12")


@needs_demo
def test_the_trained_controller_leaves_out_what_is_denied(trained):
    assert value(trained, "smiling", "AU12") > 0 and value(trained, "not smiling", "AU12") == 0


@needs_demo
def test_the_trained_controller_ignores_what_it_does_not_understand(trained):
    nonsense = trained.read("xqzzt flurb gnorp")
    assert not nonsense.active.any() and set(nonsense.ignored) == {"xqzzt", "flurb", "gnorp"} and nonsense.note
    assert "smile" not in trained.read("a warm smile").ignored


@needs_demo
def test_the_trained_controller_says_what_is_denied(trained):
    denied = trained.read("not smiling").denied
    assert bool(denied[au_index("AU12")]) and not trained.read("smiling").denied.any()
    assert "AU12" in trained.read("not smiling").note
