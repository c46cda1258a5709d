"""The AU encoder: stream against parallel forward, what each layer may see, ranges, frame pooling."""

from __future__ import annotations

import pytest
import torch

from avatar_viewer.action_units import AU_NAMES
from avatar_viewer.config import DEFAULT_STREAM, LOW_DELAY_STREAM
from avatar_viewer.networks.au_encoder import AUEncoder, AUEncoderConfig
from avatar_viewer.training.expression import EXPRESSION_AUS, ExpressionSettings

CONTEXTS = pytest.mark.parametrize("context", [DEFAULT_STREAM, LOW_DELAY_STREAM], ids=["default", "low_delay"])
FEELING = {"expression_dim": 16, "expression_aus": ("AU06", "AU12")}


def make_encoder(**changes) -> AUEncoder:
    torch.manual_seed(0)
    settings = {"dim": 16, "layers": 4, "heads": 2, "feedforward": 24, "head_hidden": 16} | changes
    encoder = AUEncoder(AUEncoderConfig(12, **settings)).eval()
    with torch.no_grad():
        encoder.edge.normal_()
        encoder.codes.bias.zero_()
    return encoder


def make_features(context, hops: int, batch: int = 1) -> torch.Tensor:
    tokens = context.hop_features + context.lookahead_features
    return torch.randn(batch, hops, tokens, 12, generator=torch.Generator().manual_seed(2))


@CONTEXTS
@pytest.mark.parametrize("fps", [25.0, 50.0])
@pytest.mark.parametrize("branch", [{}, FEELING], ids=["plain", "expression"])
def test_the_stream_equals_the_parallel_forward(context, fps, branch):
    encoder, features = make_encoder(**branch), make_features(context, 24)
    with torch.no_grad():
        codes, voice = encoder.forward_blocks(features, context, fps)
    stream = encoder.stream(context, fps)
    pushed = [stream.push(block) for block in features[0]]
    assert codes.shape == (1, 24, context.hop_frames(fps) + 2, 17)
    torch.testing.assert_close(torch.stack([c for c, _ in pushed]), codes[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.stack([v for _, v in pushed]), voice[0].sigmoid(), atol=1e-5, rtol=1e-5)


def test_gradients_and_use_take_different_attention_kernels_with_one_result():
    encoder, features = make_encoder(), make_features(DEFAULT_STREAM, 6)
    with_gradient, _ = encoder.forward_blocks(features)
    with torch.no_grad():
        without, _ = encoder.forward_blocks(features)
    torch.testing.assert_close(with_gradient, without, atol=1e-5, rtol=1e-5)


def test_lower_layers_see_three_tokens_and_upper_layers_the_left_context():
    features = make_features(DEFAULT_STREAM, 8)
    changed = features.clone()
    changed[:, 2] *= -1  # tokens 20 to 29 of the past
    whole = make_encoder()
    assert [layer.window.reach for layer in whole.layers] == [3, 3, None, None]
    constrained = torch.nn.ModuleList(list(whole.layers)[:2])
    with torch.no_grad():
        assert not torch.allclose(whole.forward_blocks(features)[0][:, 6], whole.forward_blocks(changed)[0][:, 6], atol=1e-6)
        whole.layers = constrained
        torch.testing.assert_close(whole.forward_blocks(features)[0][:, 6], whole.forward_blocks(changed)[0][:, 6])


def test_the_expression_branch_remembers_longer_than_the_layers_and_has_the_last_word_on_its_own_units_only():
    plain, feeling = make_encoder(left_features=20), make_encoder(left_features=20, **FEELING)
    feeling.load_state_dict(plain.state_dict(), strict=False)
    features = make_features(DEFAULT_STREAM, 12)
    changed = features.clone()
    changed[:, 0] *= -3  # 2.2 s before the end; four layers with the position's convolution reach 1.1 s back
    own = [AU_NAMES.index("AU06"), AU_NAMES.index("AU12")]
    others = [column for column in range(17) if column not in own]
    with torch.no_grad():
        before, _ = plain.forward_blocks(features)
        codes, _ = feeling.forward_blocks(features)
        later, _ = feeling.forward_blocks(changed)
        assert torch.equal(codes[..., others], before[..., others])
        assert torch.equal(later[:, 11][..., others], codes[:, 11][..., others])
        assert not torch.equal(later[:, 11][..., own], codes[:, 11][..., own])


def test_a_unit_that_is_surely_active_shows_its_intensity_and_one_that_is_surely_not_nothing():
    encoder = make_encoder(**FEELING)
    codes = torch.full((1, 1, 7, 17), 2.0)
    sure = torch.tensor([30.0, -30.0]).expand(1, 1, 7, 2)
    shown = encoder.expression.complete(codes, sure, torch.full((1, 1, 7, 2), 3.0))
    assert torch.equal(shown[..., AU_NAMES.index("AU06")], torch.full((1, 1, 7), 3.0))
    assert (shown[..., AU_NAMES.index("AU12")] < 1e-6).all()
    assert (shown[..., AU_NAMES.index("AU25")] == 2.0).all() and (codes == 2.0).all()


def test_a_branch_of_no_units_of_unknown_units_or_of_no_width_is_refused():
    with pytest.raises(ValueError, match="AU99"):
        AUEncoderConfig(12, expression_dim=8, expression_aus=("AU06", "AU99"))
    for half in ({"expression_dim": 8}, {"expression_aus": ("AU06",)}):
        with pytest.raises(ValueError, match="both"):
            AUEncoderConfig(12, **half)


@pytest.mark.parametrize("branch", [{}, FEELING], ids=["plain", "expression"])
def test_a_hop_does_not_hear_the_next_one(branch):
    encoder, features = make_encoder(**branch), make_features(DEFAULT_STREAM, 6)
    changed = features.clone()
    changed[:, 4:] *= -1
    with torch.no_grad():
        before, after = encoder.forward_blocks(features)[0], encoder.forward_blocks(changed)[0]
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4], after[:, 4], atol=1e-4)


def test_codes_stay_within_nought_and_five():
    encoder = make_encoder()
    with torch.no_grad():
        encoder.codes.weight.mul_(200)
        codes, _ = encoder.forward_blocks(make_features(DEFAULT_STREAM, 10))
    assert codes.min() >= 0 and codes.max() == 5


def test_reset_puts_the_stream_where_it_began():
    stream = make_encoder(**FEELING).stream()
    first, second = make_features(DEFAULT_STREAM, 2)[0]
    fresh, _ = stream.push(first)
    assert not torch.equal(stream.push(second)[0], fresh)
    stream.reset()
    assert torch.equal(stream.push(first)[0], fresh)


def test_features_of_another_context_are_refused():
    with pytest.raises(ValueError, match=r"\[13, 12\], got \[7, 12\]"):
        make_encoder().stream().push(torch.zeros(7, 12))


def test_the_demo_size_stays_within_one_and_a_half_megabytes():
    config = AUEncoderConfig(192, expression_dim=ExpressionSettings().dim, expression_aus=EXPRESSION_AUS)
    assert sum(p.numel() for p in AUEncoder(config).parameters()) * 2 < 1.5e6
