"""The text stage: its equations by hand, the laws of the variants, and a run from corpus to a folder that reads prompts."""

import json
import math

import pytest
import torch

from avatar_viewer.action_units import au_index
from avatar_viewer.errors import InputError
from avatar_viewer.networks.text_to_au import load_text_to_au
from avatar_viewer.training import text as text_stage
from avatar_viewer.training import text_tower
from avatar_viewer.training.datasets.prompts import CONTRADICTIONS, read_prompt_corpus
from avatar_viewer.training.losses import focal_bce_loss, info_nce_loss, text_loss
from avatar_viewer.training.prompt_variants import VariantMaker


def test_focal_cross_entropy_worked_by_hand():
    p = torch.tensor([0.8, 0.3])
    loss = focal_bce_loss(torch.logit(p), torch.tensor([1.0, 0.0]))
    by_hand = (-0.35 * 0.2**3 * math.log(0.8) - 0.65 * 0.3**3 * math.log(0.7)) / 2
    assert float(loss) == pytest.approx(by_hand, rel=1e-5)


def test_focal_cross_entropy_is_finite_at_the_extremes():
    logits = torch.tensor([200.0, -200.0, 200.0, -200.0], requires_grad=True)
    loss = focal_bce_loss(logits, torch.tensor([1.0, 0.0, 0.0, 1.0]))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()


def test_info_nce_worked_by_hand():
    anchor, positive = torch.tensor([[2.0, 0.0]]), torch.tensor([[3.0, 4.0]])  # cosine 0.6
    negatives = torch.tensor([[[0.0, 5.0], [-1.0, 0.0]]])  # cosines 0 and -1
    scores = [math.exp(c / 0.07) for c in (0.6, 0.0, -1.0)]
    assert float(info_nce_loss(anchor, positive, negatives)) == pytest.approx(-math.log(scores[0] / sum(scores)), abs=1e-6)


def test_the_total_weighs_the_contrast_as_published():
    assert float(text_loss(torch.tensor(2.0), torch.tensor(4.0))) == pytest.approx(2.02)


@pytest.fixture(scope="module")
def train():
    return [entry for entry in read_prompt_corpus() if entry.split == "train"]


def test_variants_repeat_from_their_seed(train):
    maker = VariantMaker(train, ["the bus is late"], seed=3)
    first = [maker.draw().text for _ in range(50)]
    maker.reseed(3)
    assert [maker.draw().text for _ in range(50)] == first


def test_variants_stay_in_range_and_within_anatomy(train):
    maker = VariantMaker(train, ["the bus is late"])
    for _ in range(2000):
        example = maker.draw()
        assert example.text.strip() and example.intensity.min() >= 0 and example.intensity.max() <= 5
        assert example.relevant or not example.intensity.any()
        for first, second in CONTRADICTIONS:
            assert not (example.intensity[au_index(first)] > 0 and example.intensity[au_index(second)] > 0), example.text


def test_denied_variants_ask_for_nothing_and_are_still_about_a_face(train):
    maker = VariantMaker(train, [])
    for _ in range(100):
        example = maker._denied()
        assert example.relevant and not example.intensity.any()


def test_the_stage_writes_a_folder_that_reads_prompts(tmp_path, monkeypatch):
    monkeypatch.setattr(text_tower, "load_teacher", lambda device: None)
    monkeypatch.setitem(text_stage.SCALES, "dev", text_stage.TextScale(0, 2, 2, variants=64, epochs=2))
    entries = read_prompt_corpus()
    chosen = [e for split in ("train", "val", "test") for e in [x for x in entries if x.split == split][:8]]
    rows = [
        {
            "id": e.id,
            "description": e.description,
            "kind": e.kind,
            "split": e.split,
            "aus": dict(e.aus),
            "positives": e.positives,
            "negatives": e.negatives,
        }
        for e in chosen
    ]
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    said: list[str] = []
    metrics = text_stage.train_text(corpus, tmp_path / "avatar", "dev", cache=tmp_path / "cache", report=said.append)
    assert 0 <= metrics["f1"] <= 1 and "all_zero_accuracy" in metrics
    assert any("not installed" in line for line in said) and any("macro F1" in line for line in said)
    reading = load_text_to_au(tmp_path / "avatar").read("a happy person")
    assert reading.active.shape == (17,)
    total = sum(f.stat().st_size for f in (tmp_path / "avatar").rglob("*") if f.is_file())
    assert total <= 12 * 2**20
    assert len(said) < 60


def test_an_unknown_scale_is_named(tmp_path):
    with pytest.raises(InputError, match="enormous"):
        text_stage.train_text(None, tmp_path, "enormous")
