"""Open_clip's towers with random weights: the compact one, and one in the format of the public ViT-B-32/openai."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from avatar_viewer.avatar.bundle import save_avatar
from avatar_viewer.errors import InputError
from avatar_viewer.networks import text_backbone
from avatar_viewer.networks.text_backbone import (
    BACKBONE_CONFIG,
    BACKBONE_WEIGHTS,
    TextBackbone,
    build_compact_model,
    clip_tokenizer,
    encode_tokens,
    load_text_backbone,
    save_compact_backbone,
)
from avatar_viewer.networks.text_to_au import load_text_to_au
from avatar_viewer.training.datasets.prompts import DEFAULT_CORPUS
from avatar_viewer.training.stages import run_stage

# The public model's config, with every width cut down; its text tower is not a part of its own ("custom_text" is unsaid).
TINY_PUBLIC_MODEL = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 16, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("compact")
    save_compact_backbone(build_compact_model(), folder)
    return folder


@pytest.fixture(scope="module")
def compact(folder) -> TextBackbone:
    return load_text_backbone(folder)


@pytest.fixture(scope="module")
def public_folder(tmp_path_factory) -> Path:
    """A folder as `hf download timm/vit_base_patch32_clip_224.openai` leaves it, but tiny and random."""
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("ViT-B-32--openai")
    parts = TINY_PUBLIC_MODEL
    vision, text = CLIPVisionCfg(**parts["vision_cfg"]), CLIPTextCfg(**parts["text_cfg"])
    model = CLIP(embed_dim=24, vision_cfg=vision, text_cfg=text, quick_gelu=True)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / BACKBONE_WEIGHTS)
    config = {"model_cfg": parts, "preprocess_cfg": {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28]}}
    (folder / BACKBONE_CONFIG).write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_the_tower_comes_from_open_clip_without_its_vision_half(compact):
    model = compact.model
    assert type(model).__module__.startswith("open_clip") and model.visual is None
    assert compact.feature_dim == 512
    assert not any(key.startswith("visual") for key in model.state_dict())


def test_short_texts_are_encoded_as_open_clip_encodes_them(compact, public_folder):
    ids = clip_tokenizer()(["a happy man", "x", "a long story of a smile " * 40])
    for tower in (compact, load_text_backbone(public_folder)):
        whole, short = tower.model.encode_text(ids), encode_tokens(tower.model, ids)
        assert torch.allclose(whole, short, atol=1e-5)
        assert torch.allclose(encode_tokens(tower.model, ids[:2]), whole[:2], atol=1e-5)


def test_the_order_of_a_batch_is_kept(compact):
    texts = ["smile", "a much longer prompt about a very happy person", "no"]
    together = compact.encode(texts)
    for row, prompt in zip(together, texts):
        assert torch.allclose(row, compact.encode([prompt])[0], atol=1e-4)


def test_a_missing_backbone_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match="605 MB.*hf download"):
        load_text_backbone("ViT-B-32/openai")
    with pytest.raises(InputError, match="no such folder"):
        load_text_backbone(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="open_clip_config.json"):
        load_text_backbone(tmp_path / "empty")


def test_a_broken_backbone_is_one_line(folder, tmp_path):
    broken = tmp_path / "text_backbone"
    broken.mkdir()
    for file in folder.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    weights = load_file(broken / BACKBONE_WEIGHTS)
    weights["text.ln_final.weight"][3] = float("nan")
    save_file(weights, broken / BACKBONE_WEIGHTS)
    with pytest.raises(InputError, match="not finite"):
        load_text_backbone(broken)
    (broken / BACKBONE_WEIGHTS).write_bytes(b"no safetensors at all")
    with pytest.raises(InputError) as error:
        load_text_backbone(broken)
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------------------------------- training with a public tower


@pytest.fixture
def small_corpus(tmp_path) -> Path:
    """Eight entries of each split."""
    lines = DEFAULT_CORPUS.read_text(encoding="utf-8").splitlines()
    chosen = [line for split in ("train", "val", "test") for line in [x for x in lines if f'"split": "{split}"' in x][:8]]
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(chosen), encoding="utf-8")
    return path


def train(corpus: Path, out: Path, backbone: str, monkeypatch) -> None:
    from avatar_viewer.training import text

    monkeypatch.setitem(text.SCALES, "dev", text.TextScale(0, 0, 0, variants=32, epochs=1))
    run_stage("text", corpus, out, scale="dev", resume=False, device="cpu", text_backbone=backbone)


def test_a_public_tower_is_trained_for_by_name_and_not_copied(public_folder, small_corpus, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(text_backbone, "public_backbone_folder", lambda name: public_folder)
    out = tmp_path / "avatar"
    save_avatar(out, text_backbone=folder)  # it had the compact one before
    train(small_corpus, out, "ViT-B-32/openai", monkeypatch)
    manifest = json.loads((out / "avatar.json").read_text(encoding="utf-8"))
    assert manifest["text_backbone"] == "ViT-B-32/openai" and manifest["training"]["text"]["backbone"] == "ViT-B-32/openai"
    assert not (out / "text_backbone").exists()
    head = load_text_to_au(out, load_text_backbone("ViT-B-32/openai"))
    assert head.config.feature_dim == 24 and head.read("a happy person").probability.shape == (17,)


def test_a_tower_given_as_a_folder_is_bundled(public_folder, small_corpus, tmp_path, monkeypatch):
    out = tmp_path / "avatar"
    train(small_corpus, out, str(public_folder), monkeypatch)
    assert str(public_folder) not in (out / "avatar.json").read_text(encoding="utf-8")
    assert load_text_to_au(out).backbone.feature_dim == 24


def test_a_public_tower_that_is_not_there_stops_training_before_anything_is_written(small_corpus, tmp_path):
    with pytest.raises(InputError, match="hf download"):
        run_stage("text", small_corpus, tmp_path / "a", scale="dev", resume=False, device="cpu", text_backbone="ViT-B-32/openai")
    assert not (tmp_path / "a").exists()
    with pytest.raises(InputError, match="no text backbone"):
        run_stage("rig", small_corpus, tmp_path / "a", scale="dev", resume=False, device="cpu", text_backbone="x")
