"""The speech backbone: our block-wise maths against transformers' own, and the stream against the parallel forward."""

from __future__ import annotations

import pytest
import torch
from transformers import HubertConfig, HubertModel

from avatar_viewer.config import DEFAULT_STREAM, LOW_DELAY_STREAM, StreamContext
from avatar_viewer.errors import InputError
from avatar_viewer.networks.speech import (
    SpeechBackbone,
    create_speech_backbone,
    encode_speech,
    load_speech_backbone,
    save_speech_backbone,
)
from avatar_viewer.networks.speech_front_end import convolve, gabor_kernels


def make_compact() -> SpeechBackbone:
    torch.manual_seed(0)
    return create_speech_backbone(hidden=32, layers=2, heads=4, feed_forward=48, channels=(12, 16, 24), position_kernel=7).eval()


def make_stock_shaped() -> SpeechBackbone:
    """HuBERT-base's architecture (GroupNorm front end, 128-wide positional convolution, post-norm), narrow, random."""
    torch.manual_seed(1)
    config = HubertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, conv_dim=(16,) * 7)
    model = HubertModel(config).eval()
    with torch.no_grad():
        model.feature_extractor.conv_layers[0].layer_norm.weight.uniform_(0.5, 1.5)
        model.feature_extractor.conv_layers[0].layer_norm.bias.uniform_(-0.5, 0.5)
    return SpeechBackbone(model, name="stock", left_features=60).eval()


MAKERS = pytest.mark.parametrize("make", [make_compact, make_stock_shaped])
CONTEXTS = pytest.mark.parametrize("context", [DEFAULT_STREAM, LOW_DELAY_STREAM], ids=["default", "low_delay"])


def make_sound(samples: int, batch: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    swell = torch.linspace(0, 20, samples).sin().abs()
    return 0.2 * swell * torch.randn(batch, samples, generator=generator)


@MAKERS
def test_one_hop_as_long_as_the_clip_is_transformers_own_forward(make):
    backbone = make()
    sound = make_sound(16_080, batch=2)
    with torch.no_grad():
        ours = backbone.forward_blocks(sound, StreamContext(hop_ms=1000, lookahead_ms=5))
        theirs = backbone.model(sound).last_hidden_state
    assert ours.shape == (2, 1, 50, 32)
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours[:, 0], theirs, atol=2e-5, rtol=1e-4)


@MAKERS
@CONTEXTS
def test_the_stream_equals_the_parallel_forward(make, context):
    backbone = make()
    hops = 25
    sound = make_sound(hops * context.hop_samples + context.lookahead_samples)
    with torch.no_grad():
        parallel = backbone.forward_blocks(sound, context)[0]
    stream = backbone.stream(context)
    streamed = torch.stack([stream.push(sound[0, h * context.hop_samples :][: stream.window_samples]) for h in range(hops)])
    torch.testing.assert_close(streamed, parallel, atol=1e-5, rtol=1e-5)


@CONTEXTS
def test_no_feature_of_a_hop_hears_beyond_its_look_ahead(context):
    backbone = make_compact()
    hops = 6
    sound = make_sound(hops * context.hop_samples + context.lookahead_samples)
    changed = sound.clone()
    border = 3 * context.hop_samples + context.lookahead_samples
    changed[:, border:] = 0.3
    with torch.no_grad():
        before, after = backbone.forward_blocks(sound, context), backbone.forward_blocks(changed, context)
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:], atol=1e-3)


def test_the_past_beyond_the_left_context_is_forgotten():
    backbone = make_compact()
    backbone.left_features = 10
    # Two layers reach 20 features back, the positional convolution 3, of hop 6's first at 60.
    sound = make_sound(8 * 3200 + 1280)
    changed = sound.clone()
    changed[:, : 35 * 320] = 0.0
    with torch.no_grad():
        before, after = backbone.forward_blocks(sound), backbone.forward_blocks(changed)
    torch.testing.assert_close(before[:, 6:], after[:, 6:])
    assert not torch.allclose(before[:, 4], after[:, 4], atol=1e-3)


def test_reset_puts_the_stream_where_it_began():
    stream = make_stock_shaped().stream()
    first, second = (make_sound(2 * stream.window_samples)[0, i * 3200 :][: stream.window_samples] for i in range(2))
    fresh = stream.push(first)
    assert not torch.equal(stream.push(second), fresh)
    stream.reset()
    assert torch.equal(stream.push(first), fresh)


def test_a_window_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match="4480 samples"):
        make_compact().stream().push(torch.zeros(3200))


@pytest.mark.parametrize("samples, features", [(0, 0), (1, 1), (160, 1), (3200, 10), (3201, 11), (16_000, 50)])
def test_a_sound_gives_a_feature_for_every_20_ms_begun(samples, features):
    heard = encode_speech(make_compact(), make_sound(samples)[0])
    assert heard.values.shape == (features, 32)
    assert heard.fps == 50
    assert torch.isfinite(heard.values).all()


@MAKERS
def test_silence_and_offset_give_finite_features(make):
    for sound in (torch.zeros(9600), torch.full((9600,), 0.5)):
        assert torch.isfinite(encode_speech(make(), sound).values).all()


def test_a_saved_backbone_is_a_hubert_folder_and_loads_back(tmp_path):
    backbone = make_compact()
    save_speech_backbone(backbone, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    assert isinstance(HubertModel.from_pretrained(tmp_path, use_safetensors=True), HubertModel)
    loaded = load_speech_backbone(tmp_path)
    assert loaded.left_features == backbone.left_features
    sound = make_sound(6400)[0]
    torch.testing.assert_close(encode_speech(loaded, sound).values, encode_speech(backbone, sound).values, atol=0.02, rtol=0.02)


def test_the_demo_size_stays_within_eight_megabytes():
    parameters = sum(p.numel() for p in create_speech_backbone().parameters())
    assert parameters * 2 < 8e6


def test_streaming_costs_at_most_1_3_times_one_pass():
    streamed, once = create_speech_backbone().count_products()
    assert 1.1 < streamed / once <= 1.3
    assert 150e6 < once < 400e6


def test_the_count_for_hubert_base_is_the_known_one():
    """Derived in research: 2.45 + 0.24 + 4.25 thousand million products a second, attention beyond the window left out."""
    config = HubertConfig()
    with torch.device("meta"):
        backbone = SpeechBackbone(HubertModel(config), name="base", left_features=80)
    _, once = backbone.count_products()
    assert 6.5e9 < once < 7.5e9


def test_a_folder_without_weights_is_named(tmp_path):
    with pytest.raises(InputError, match="config.json is missing"):
        load_speech_backbone(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="model.safetensors is missing"):
        load_speech_backbone(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(InputError, match="never read; convert"):
        load_speech_backbone(tmp_path)


def test_a_public_name_that_is_not_here_is_answered_with_size_and_command(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="378 MB.*hf download facebook/hubert-base-ls960"):
        load_speech_backbone("facebook/hubert-base-ls960")


def test_a_backbone_on_another_grid_is_refused():
    config = HubertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
                          conv_dim=(8,), conv_kernel=(400,), conv_stride=(160,))  # fmt: skip
    with pytest.raises(InputError, match="400 samples every 160"):
        SpeechBackbone(HubertModel(config), name="odd")


@pytest.mark.parametrize("kernel, stride", [(80, 20), (10, 5), (5, 4), (3, 2), (2, 2), (4, 4)])
def test_convolution_as_matrix_products_is_the_librarys(kernel, stride):
    torch.manual_seed(0)
    conv = torch.nn.Conv1d(3, 5, kernel, stride)
    x = torch.randn(2, 3, 203)
    torch.testing.assert_close(convolve(x.transpose(1, 2), conv).transpose(1, 2), conv(x), atol=1e-5, rtol=1e-5)


def test_gabor_kernels_answer_their_own_tone_with_unit_gain():
    kernels = gabor_kernels(126, 80)
    spectrum = torch.fft.rfft(kernels, 8000).abs()  # 2 Hz a bin
    heights, peaks = spectrum[15:-12].max(1)  # the outermost bands overlap zero and half the sampling rate
    assert 0.9 < heights.min() and heights.max() < 1.1
    centres = (2 * peaks.view(-1, 3)).float()  # Hz; three phases a band
    assert (centres.max(1).values - centres.min(1).values < 40).all()
    assert (centres.mean(1).diff() > 0).all()
    assert centres[0, 0] < 450 and centres[-1, 0] > 5800


def test_hidden_features_are_replaced_by_the_mask_embedding():
    backbone = make_compact()
    sound = make_sound(2 * 3200 + 1280)
    hidden = torch.zeros(1, 23, dtype=torch.bool)
    with torch.no_grad():
        plain = backbone.forward_blocks(sound)
        assert torch.equal(backbone.forward_blocks(sound, hidden=hidden), plain)
        hidden[0, 5:8] = True
        assert not torch.allclose(backbone.forward_blocks(sound, hidden=hidden), plain, atol=1e-3)
