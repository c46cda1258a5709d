"""The denoiser's contract: alignment, start of a take, droppable conditions, truncation, latents, instant response."""

import json
from dataclasses import asdict, replace

import pytest
import torch

from avatar_viewer.config import DEFAULT_STREAM, LOW_DELAY_STREAM
from avatar_viewer.networks.denoiser import Conditions, Denoiser, DenoiserConfig, MotionHistory, frame_pooling

CONFIG = DenoiserConfig(
    num_vertices=40, speech_dim=12, basis_size=6, dim=32, layers=2, heads=2, feedforward=64, template_points=8
)


@pytest.fixture()
def denoiser():
    torch.manual_seed(0)
    net = Denoiser(CONFIG).eval()
    net.basis.copy_(torch.linalg.qr(torch.randn(120, 6))[0].T)
    net.scale.copy_(torch.linspace(0.3, 0.01, 6))
    torch.nn.init.normal_(net.codes_to_latents.weight, std=0.3)
    torch.nn.init.normal_(net.no_codes), torch.nn.init.normal_(net.no_speech)
    return net


def a_window(net, batch=2, known=True):
    shape = (batch, CONFIG.previous_frames)
    history = MotionHistory(
        torch.randn(*shape, 6), torch.rand(*shape, 17) * 5, torch.randn(*shape, 12), torch.full(shape, known, dtype=torch.bool)
    )
    conditions = Conditions(torch.rand(batch, 7, 17) * 5, torch.randn(batch, 7, 12), net.describe_template(torch.randn(40, 3)))
    return torch.randn(batch, 7, 6), torch.tensor([500, 250])[:batch], history, conditions


def test_the_answer_has_the_windows_shape_and_depends_on_every_input(denoiser):
    noisy, step, history, conditions = a_window(denoiser)
    plain = denoiser.predict_clean(noisy, step, history, conditions)
    assert plain.shape == (2, 7, 6)
    others = {
        "noise": (noisy + 1, step, history, conditions),
        "step": (noisy, step - 1, history, conditions),
        "history": (noisy, step, replace(history, latents=history.latents + 1), conditions),
        "codes": (noisy, step, history, replace(conditions, codes=conditions.codes + 1)),
        "speech": (noisy, step, history, replace(conditions, speech=conditions.speech.flip(-1))),
        "template": (noisy, step, history, replace(conditions, template=conditions.template + 1)),
    }
    for name, inputs in others.items():
        assert not torch.allclose(denoiser.predict_clean(*inputs), plain, atol=1e-5), name


def test_before_a_take_only_the_learned_start_is_seen(denoiser):
    noisy, step, history, conditions = a_window(denoiser, known=False)
    other = MotionHistory(history.latents * 9, history.codes * 0, history.speech - 4, history.known)
    torch.testing.assert_close(
        denoiser.predict_clean(noisy, step, history, conditions), denoiser.predict_clean(noisy, step, other, conditions)
    )


def test_a_dropped_condition_has_no_influence(denoiser):
    noisy, step, history, conditions = a_window(denoiser)
    history = replace(history, codes=torch.zeros_like(history.codes))
    dropped = replace(conditions, keep_codes=torch.tensor([False, True]), keep_speech=torch.tensor([True, False]))
    plain = denoiser.predict_clean(noisy, step, history, dropped)
    no_code = replace(dropped, codes=torch.cat((conditions.codes[:1] * 0, conditions.codes[1:])))
    torch.testing.assert_close(denoiser.predict_clean(noisy, step, history, no_code), plain)
    other_speech = replace(dropped, speech=torch.cat((conditions.speech[:1], conditions.speech[1:] * 3 + 1)))
    torch.testing.assert_close(denoiser.predict_clean(noisy, step, history, other_speech), plain)
    kept = denoiser.predict_clean(noisy, step, history, conditions)
    assert not torch.allclose(kept, plain)


def test_frames_beyond_a_truncated_end_have_no_influence(denoiser):
    noisy, step, history, conditions = a_window(denoiser)
    valid = torch.ones(2, 7, dtype=torch.bool)
    valid[:, 4:] = False
    cut = replace(conditions, valid=valid)
    plain = denoiser.predict_clean(noisy, step, history, cut)
    changed = torch.cat((noisy[:, :4], noisy[:, 4:] * 5), dim=1)
    torch.testing.assert_close(denoiser.predict_clean(changed, step, history, cut)[:, :4], plain[:, :4])
    shorter = replace(conditions, codes=conditions.codes[:, :4], speech=conditions.speech[:, :4])
    alone = denoiser.predict_clean(noisy[:, :4], step, history, shorter)
    torch.testing.assert_close(alone, plain[:, :4], atol=1e-5, rtol=1e-4)


def test_guidance_one_is_plain_zero_ignores_the_codes_and_two_doubles_their_effect(denoiser):
    noisy, _, history, conditions = a_window(denoiser, batch=1)
    full = torch.full((1,), 500)
    with_codes = denoiser.predict_clean(noisy, full, history, conditions)
    without = denoiser.predict_clean(noisy, full, history, replace(conditions, keep_codes=torch.tensor([False])))
    for guidance, expected in ((1.0, with_codes), (0.0, without), (2.0, 2 * with_codes - without)):
        answer = denoiser.generate(noisy, history, conditions, rows=1, guidance=guidance)
        torch.testing.assert_close(answer, expected, atol=2e-3, rtol=1e-3)  # the last step's signal is not quite 0


def test_latents_and_vertices_are_one_another(denoiser):
    latents = torch.randn(3, 4, 6)
    offsets = denoiser.decode_offsets(latents)
    assert offsets.shape == (3, 4, 40, 3)
    torch.testing.assert_close(denoiser.encode_offsets(offsets), latents, atol=1e-4, rtol=1e-4)


def test_the_response_is_linear_between_levels_zero_at_zero_and_adds_over_aus(denoiser):
    denoiser.response_latents.copy_(torch.randn_like(denoiser.response_latents))
    denoiser.response_latents[:, 0] = 0
    codes = torch.zeros(17)
    assert torch.equal(denoiser.response(codes), torch.zeros(40, 3))
    codes[8], both = 2.25, torch.zeros(17)
    expected = 0.75 * denoiser.response_latents[8, 2] + 0.25 * denoiser.response_latents[8, 3]
    torch.testing.assert_close(denoiser.response(codes), denoiser.decode_offsets(expected))
    both[8], both[2] = 2.25, 6.0
    alone = denoiser.decode_offsets(0.5 * denoiser.response_latents[2, 5] + 0.5 * denoiser.response_latents[2, 6])
    torch.testing.assert_close(denoiser.response(both), denoiser.response(codes) + alone)


def test_speech_values_are_resampled_to_motion_frames_at_25_and_30_fps():
    pooling = frame_pooling(DEFAULT_STREAM, 25.0, 7)
    # Frame 0 lies 0.625 values before the hop's first: 0.625 of the value before, 0.375 of the first.
    torch.testing.assert_close(pooling[0, :3], torch.tensor([0.625, 0.375, 0.0]))
    ramp = torch.arange(14.0) - 1  # value k holds k
    torch.testing.assert_close(pooling @ ramp, 2 * torch.arange(7.0) - 0.625)
    torch.testing.assert_close(frame_pooling(DEFAULT_STREAM, 30.0, 8) @ ramp, torch.arange(8.0) * 50 / 30 - 0.625)
    assert frame_pooling(LOW_DELAY_STREAM, 25.0, 4).shape == (4, 8)
    with pytest.raises(ValueError, match="beyond"):
        frame_pooling(DEFAULT_STREAM, 25.0, 9)


def test_history_keeps_the_last_frames_in_order(denoiser):
    history = denoiser.start_history()
    for first in (0.0, 5.0, 10.0):
        frames = torch.arange(first, first + 5).view(1, 5, 1)
        history = history.advance(frames.expand(1, 5, 6), frames.expand(1, 5, 17), frames.expand(1, 5, 12))
    assert torch.equal(history.latents[0, :, 0], torch.arange(5.0, 15.0))
    assert bool(history.known.all()) and history.codes.shape == (1, 10, 17)


def test_config_and_weights_travel(denoiser):
    config = DenoiserConfig(**json.loads(json.dumps(asdict(CONFIG))))
    assert config == CONFIG
    twin = Denoiser(config)
    twin.load_state_dict(denoiser.state_dict())
    noisy, step, history, conditions = a_window(denoiser)
    assert torch.equal(
        twin.predict_clean(noisy, step, history, conditions), denoiser.predict_clean(noisy, step, history, conditions)
    )


def test_the_demo_size_fits_its_file():
    net = Denoiser(DenoiserConfig(num_vertices=8600, speech_dim=192))
    megabytes = sum(tensor.numel() for tensor in net.state_dict().values()) * 2 / 1e6
    assert megabytes < 8.0


def test_without_aus_the_codes_change_nothing():
    torch.manual_seed(0)
    net = Denoiser(replace(CONFIG, hears_codes=False)).eval()
    torch.nn.init.normal_(net.codes_to_latents.weight, std=0.3)
    noisy, step, history, conditions = a_window(net)
    plain = net.predict_clean(noisy, step, history, conditions)
    other = replace(history, codes=history.codes * 0), replace(conditions, codes=conditions.codes + 2)
    torch.testing.assert_close(net.predict_clean(noisy, step, *other), plain)
    assert not torch.allclose(net.predict_clean(noisy, step, history, replace(conditions, speech=conditions.speech.flip(-1))), plain)


def test_a_gru_in_place_of_diffusion_has_no_noise_and_no_future():
    torch.manual_seed(0)
    net = Denoiser(replace(CONFIG, core="gru")).eval()
    torch.nn.init.normal_(net.codes_to_latents.weight, std=0.3)
    noisy, step, history, conditions = a_window(net)
    plain = net.predict_clean(noisy, step, history, conditions)
    torch.testing.assert_close(net.predict_clean(noisy + 3, step - 1, history, conditions), plain)
    torch.testing.assert_close(net.generate(noisy, history, conditions, rows=4), plain)
    later = conditions.codes.clone()
    later[:, 4:] += 1
    changed = net.predict_clean(noisy, step, history, replace(conditions, codes=later))
    torch.testing.assert_close(changed[:, :4], plain[:, :4])
    assert not torch.allclose(changed[:, 4:], plain[:, 4:], atol=1e-4)
    with pytest.raises(ValueError, match="core is 'lstm'"):
        DenoiserConfig(40, 12, core="lstm")
