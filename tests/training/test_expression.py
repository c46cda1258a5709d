"""The expression branch on a toy: what is heard once and for all, what the loss asks for, and a frozen encoder beside it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from avatar_viewer.action_units import AU_NAMES
from avatar_viewer.config import DEFAULT_STREAM, LOW_DELAY_STREAM
from avatar_viewer.networks.au_encoder import AUEncoder, AUEncoderConfig
from avatar_viewer.networks.speech import create_speech_backbone
from avatar_viewer.training import course, expression
from avatar_viewer.training.datasets.performed_speech import PerformedSpeech, join_takes
from avatar_viewer.training.expression import (
    EXPRESSION_AUS,
    ExpressionSettings,
    HeardBatch,
    add_expression,
    expression_loss,
    hear_segments,
    train_expression,
)

SETTINGS = ExpressionSettings(dim=12, segments=10, seconds=2.0, steps=30, batch=6, learning_rate=1e-2, warmup=2, dropout=0.0)
SMILE = AU_NAMES.index("AU12")


@pytest.fixture(scope="module")
def parts():
    torch.manual_seed(0)
    backbone = create_speech_backbone(hidden=32, layers=1, heads=2, feed_forward=48, channels=(16, 16, 16), position_kernel=5)
    encoder = AUEncoder(AUEncoderConfig(32, dim=16, layers=2, heads=2, feedforward=24, head_hidden=16))
    return backbone.eval().requires_grad_(False), encoder.eval()


@pytest.fixture(scope="module")
def performed() -> PerformedSpeech:
    """Takes of 3 s: half of them hiss with a smile, half buzz without."""
    rng = np.random.default_rng(0)
    takes = []
    for number in range(12):
        smiling = number % 2 == 0
        buzz = 0.2 * np.sign(np.sin(2 * np.pi * 200 * np.arange(48_000) / 16_000))
        codes = np.zeros((150, 17), np.float32)
        codes[:, SMILE] = 3.0 * smiling
        takes.append((0.1 * rng.normal(size=48_000) if smiling else buzz, codes, np.ones(150, np.float32)))
    return join_takes(takes)


def test_segments_are_heard_in_both_contexts_by_the_frozen_parts(parts, performed):
    default, low = hear_segments(*parts, [performed], SETTINGS, 25.0, "cpu", 0, lambda share: None)
    assert (default.context, low.context) == (DEFAULT_STREAM, LOW_DELAY_STREAM)
    assert default.features.shape == (7, 10, 13, 32) and low.features.shape == (3, 25, 7, 32)
    codes, _ = parts[1].forward_blocks(default.features.float(), DEFAULT_STREAM)
    torch.testing.assert_close(codes, default.articulated.float(), atol=2e-2, rtol=2e-2)  # kept in half precision


def toy_segments(count: int) -> HeardBatch:
    """The voice says once, in the third hop, whether it smiles from there on: the sign of four features, amid noise."""
    draws = torch.Generator().manual_seed(3)
    features = torch.randn(count, 10, 13, 32, generator=draws)
    smiling = torch.arange(count) % 2 == 0
    features[:, 2, :, :4] = torch.where(smiling, 4.0, -4.0)[:, None, None]
    codes = torch.zeros(count, 10, 7, 17)
    codes[smiling, 3:, :, SMILE] = 3.0
    return HeardBatch(DEFAULT_STREAM, features.half(), torch.zeros_like(codes).half(), codes.half(), 5)


def test_the_branch_learns_what_was_heard_long_ago_and_the_encoder_stays_as_it_was(parts, performed, tmp_path, monkeypatch):
    backbone, encoder = parts
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    monkeypatch.setattr(expression, "hear_segments", lambda *_: [toy_segments(24)])
    settings = replace(SETTINGS, dim=16, steps=60, batch=24, decay=0.3, learning_rate=3e-2)
    whole = train_expression(backbone, encoder, [performed], tmp_path, settings)
    assert all(torch.equal(whole.state_dict()[name], tensor) for name, tensor in before.items())
    assert whole.config.expression_aus == EXPRESSION_AUS and not whole.training
    heard = toy_segments(24)
    with torch.no_grad():
        activity, intensity = whole.feel_blocks(heard.features.float(), heard.articulated.float())
        shown = whole.expression.complete(heard.articulated.float(), activity, intensity)[:, -1, 0, SMILE]
    assert shown[::2].mean() > 1.5 > 0.7 > shown[1::2].mean()  # 1.4 s later


def test_a_training_that_is_stopped_goes_on_to_the_same_branch(parts, performed, tmp_path, monkeypatch):
    settings = replace(SETTINGS, steps=8, dropout=0.1)
    straight = train_expression(*parts, [performed], tmp_path / "a", settings)
    monkeypatch.setattr(course, "SAVE_SECONDS", 0.0)
    calls = []
    loss = expression.expression_loss

    def stop_halfway(*arguments):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return loss(*arguments)

    monkeypatch.setattr(expression, "expression_loss", stop_halfway)
    with pytest.raises(KeyboardInterrupt):
        train_expression(*parts, [performed], tmp_path / "b", settings)
    resumed = train_expression(*parts, [performed], tmp_path / "b", settings, resume=True)
    assert len(calls) == 4 + 1 + 4
    for name, tensor in straight.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], tensor)
    finished = train_expression(*parts, [performed], tmp_path / "b", settings, resume=True)  # nothing is heard again
    assert len(calls) == 9 and finished.config.expression_dim == 12


def test_the_loss_is_nought_for_certain_truth_and_a_missed_unit_still_pulls(parts):
    whole = add_expression(parts[1], 12)
    truth = torch.zeros(1, 10, 7, 17)
    truth[..., SMILE] = 2.0
    batch = HeardBatch(DEFAULT_STREAM, torch.zeros(1, 10, 13, 32), torch.zeros_like(truth), truth, 5)
    units = len(EXPRESSION_AUS)
    own = EXPRESSION_AUS.index("AU12")
    last = whole.expression.read[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(-30.0)
        last.bias[own], last.bias[units + own] = 30.0, np.log(np.expm1(2.0))
    assert expression_loss(whole, batch, SETTINGS).item() == pytest.approx(0.0, abs=1e-4)
    with torch.no_grad():
        last.bias[own] = -30.0
    expression_loss(whole, batch, SETTINGS).backward()
    assert last.bias.grad[own] < -0.05  # however sure the branch is that nobody smiles
