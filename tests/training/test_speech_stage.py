"""The speech stage on toys: labels follow the sound, blocks carry the right targets, training learns, stops and goes on."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from avatar_viewer.action_units import AU_NAMES
from avatar_viewer.config import DEFAULT_STREAM, LOW_DELAY_STREAM
from avatar_viewer.networks.speech import load_speech_backbone
from avatar_viewer.studio.delivery import track_pitch
from avatar_viewer.training import speech_backbone
from avatar_viewer.training.course import learning_rate_factor
from avatar_viewer.training.datasets.performed_speech import draw_coded_segment, join_takes
from avatar_viewer.training.datasets.speech_augment import disturb, draw_segment, measure_loudness
from avatar_viewer.training.datasets.speech_corpus import NO_FEELING, PHONES, SpeechCorpus, articulation_table, read_sentences
from avatar_viewer.training.speech import EncoderSettings, draw_batch, encoder_loss, measure_au_encoder, train_au_encoder
from avatar_viewer.training.speech_backbone import BackboneSettings, collate, train_backbone

HIGH, LOW = PHONES.index("s"), PHONES.index("aa")
SETTINGS = BackboneSettings(steps=40, batch=4, seconds=1.0, warmup=5, learning_rate=3e-3, low_delay_share=0.25, layers=1,
                            measured_segments=4)  # fmt: skip


@pytest.fixture(scope="module")
def corpus() -> SpeechCorpus:
    """40 s of a language of two phones and a pause: hiss, a 300 Hz buzz, nothing; each 0.1 to 0.3 s."""
    rng = np.random.default_rng(0)
    pieces, starts, ids, clock = [], [], [], 0
    while clock < 40 * 16_000:
        phone, length = int(rng.choice([0, HIGH, LOW])), int(rng.uniform(0.1, 0.3) * 16_000)
        time = np.arange(length) / 16_000
        sound = {0: np.zeros(length), HIGH: 0.1 * rng.normal(size=length), LOW: 0.2 * np.sign(np.sin(2 * np.pi * 300 * time))}[
            phone
        ]
        pieces.append((sound * 20_000).astype(np.int16))
        starts.append(clock)
        ids.append(phone)
        clock += length
    samples = np.concatenate(pieces)
    return SpeechCorpus(
        samples, np.array(starts), np.array(ids, np.uint8), np.where(np.array(ids) == 0, NO_FEELING, 1).astype(np.uint8),
        track_pitch(samples), ("toy",), np.array([[0, clock]]),
    )


def test_plain_segments_carry_the_phone_at_each_features_centre(corpus):
    segment = draw_segment(corpus, np.random.default_rng(1), 16_000, augmented=False)
    assert len(segment.phones) == len(segment.loudness) == len(segment.pitch) == 49
    assert {0, HIGH, LOW} >= set(segment.phones) and len(set(segment.phones)) > 1
    energy = np.array([np.square(segment.samples[k * 320 + 120 : k * 320 + 280]).mean() for k in range(49)])
    assert (energy[segment.phones == 0] < 1e-6).mean() > 0.8
    assert (energy[segment.phones != 0] > 1e-5).mean() > 0.8


def test_augmented_segments_keep_their_labels_on_the_sound(corpus):
    """Zero crossings tell hiss from buzz, whatever level, band and tempo were drawn."""
    agreements = []
    for seed in range(30):
        segment = draw_segment(corpus, np.random.default_rng(seed), 16_000)
        assert segment.samples.dtype == np.float32 and np.abs(segment.samples).max() <= 1
        power = np.array([np.square(segment.samples[k * 320 + 100 : k * 320 + 300]).mean() for k in range(49)])
        if segment.phones.any() and not segment.phones.all():
            agreements.append(power[segment.phones > 0].mean() > power[segment.phones == 0].mean())
    assert np.mean(agreements) > 0.9


def test_disturbance_keeps_timing_and_range():
    rng = np.random.default_rng(0)
    click = np.zeros(16_000, np.float32)
    click[8000:8040] = 0.5
    for _ in range(20):
        voice, mixed = disturb(click, rng)
        assert len(voice) == len(mixed) == 16_000 and np.isfinite(mixed).all() and np.abs(mixed).max() <= 1
        assert abs(int(np.abs(voice).argmax()) - 8020) < 500


def test_loudness_is_in_steps_of_25_db_above_minus_50():
    tone = np.full(3200, 10 ** (-30 / 20))
    np.testing.assert_allclose(measure_loudness(tone, 8), (-30 + 50) / 25, atol=1e-4)
    assert (measure_loudness(np.zeros(3200), 8) == -1).all()


def test_pitch_of_a_buzz_is_found_and_hiss_has_none():
    time = np.arange(16_000) / 16_000
    pitch = track_pitch(0.3 * np.sign(np.sin(2 * np.pi * 125 * time)))
    np.testing.assert_allclose(pitch[10:-10].astype(float), 125, rtol=0.03)
    hiss = track_pitch(0.1 * np.random.default_rng(0).normal(size=16_000))
    assert (hiss > 0).mean() < 0.2


@pytest.mark.parametrize("context", [DEFAULT_STREAM, LOW_DELAY_STREAM], ids=["default", "low_delay"])
def test_targets_in_blocks_repeat_the_look_ahead(corpus, context):
    length = 5 * context.hop_samples + context.lookahead_samples
    segment = draw_segment(corpus, np.random.default_rng(2), length)
    samples, target = collate([segment], context, "cpu")
    main, right = context.hop_features, context.lookahead_features
    assert target["phones"].shape == (1, 5, main + right)
    flat = target["phones"][0, :, :main].flatten().numpy()
    np.testing.assert_array_equal(flat, segment.phones[: 5 * main])
    assert torch.equal(target["phones"][0, :-1, main:], target["phones"][0, 1:, :right])
    assert target["spectrum"].shape == (1, 5 * main + right, 32)
    np.testing.assert_allclose(target["spectrum"].mean(-1), 0, atol=1e-4)


def test_the_learning_rate_rises_holds_and_falls():
    factors = [learning_rate_factor(step, 100, 10, 0.4) for step in range(100)]
    assert factors[0] == 0.1 and factors[9] == factors[50] == 1.0
    assert factors[80] == pytest.approx(0.5) and factors[99] == pytest.approx(0.025)


def test_phones_are_described_by_their_articulation():
    table = articulation_table()
    assert table.shape == (41, 14)
    assert [PHONES[i] for i in np.flatnonzero(table[:, 0])] == ["b", "m", "p"]
    assert not table[0].any()


def test_sentences_of_the_test_split_are_not_trained_on():
    assert len(read_sentences("train")) > 50 and len(read_sentences("test")) >= 10
    assert not set(read_sentences("train")) & set(read_sentences("test"))


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    """A backbone that was stopped halfway and went on."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("speech")
    settings = SETTINGS
    create = speech_backbone.create_speech_backbone
    patch = pytest.MonkeyPatch()
    patch.setattr(speech_backbone, "create_speech_backbone", lambda layers: create(
        hidden=48, layers=layers, heads=2, feed_forward=64, channels=(24, 24, 32), position_kernel=5))  # fmt: skip
    calls = []
    drawn = speech_backbone._draw_batch

    def stop_halfway(*arguments):
        calls.append(1)
        if len(calls) == 21:
            raise KeyboardInterrupt
        return drawn(*arguments)

    patch.setattr(speech_backbone, "_draw_batch", stop_halfway)
    patch.setattr(speech_backbone, "SAVE_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        train_backbone(corpus, corpus, out, settings, resume=False)
    scores = train_backbone(corpus, corpus, out, settings, resume=True)
    patch.undo()
    return out, scores, len(calls)


def test_a_stopped_training_goes_on_and_learns(trained):
    out, scores, batches = trained
    assert batches == 20 + 1 + 20
    assert scores["step"] == 40 and json.loads((out / "backbone_scores.json").read_text()) == scores
    assert scores["accuracy_clean"] > 0.6  # three equally frequent answers


def test_what_was_trained_is_a_backbone_folder(trained):
    backbone = load_speech_backbone(trained[0] / "speech_backbone")
    assert backbone.feature_dim == 48 and backbone.left_features == 80


@pytest.fixture(scope="module")
def performed(corpus):
    """AU25 opens with the buzz, AU04 with nothing; voice is any sound."""
    takes = []
    for first in range(0, 36, 4):
        sound = corpus.samples[first * 16_000 : (first + 4) * 16_000].astype(np.float32) / 32768
        phones = corpus.phones_at(first * 16_000 + np.arange(200) * 320)
        codes = np.zeros((200, 17), np.float32)
        codes[:, 14] = 3.0 * (phones == LOW)
        takes.append((sound, codes, (phones > 0).astype(np.float32)))
    return join_takes(takes)


def test_codes_are_read_at_their_instant(performed):
    codes, voice = performed.codes_at(np.array([0.0, 320.0 * 10, 320.0 * 10 + 160]))
    rows = performed.codes[[0, 10, 11]].astype(np.float32)
    np.testing.assert_allclose(codes[:2], rows[:2])
    np.testing.assert_allclose(codes[2], (rows[1] + rows[2]) / 2)
    assert set(voice) <= {0.0, 1.0}


def test_a_batch_arranges_codes_hop_by_hop_with_their_look_ahead(performed):
    batch = draw_batch([performed], np.random.default_rng(0), 2, 2.0, DEFAULT_STREAM, 25.0, "cpu")
    assert batch.samples.shape == (2, 10 * 3200 + 1280)
    assert batch.codes.shape == (2, 10, 7, 17) and batch.voice.shape == (2, 10, 7)
    assert torch.equal(batch.codes[:, :-1, 5:], batch.codes[:, 1:, :2])


def test_a_segment_without_voice_rests(performed):
    resting = [draw_coded_segment([performed], np.random.default_rng(seed), 16_000, 25, 25.0) for seed in range(40)]
    silent = [segment for segment in resting if not segment.voice.any()]
    assert silent and all((segment.codes == 0).all() for segment in silent)


def test_the_encoder_learns_codes_and_voice_on_a_frozen_backbone(trained, performed, tmp_path):
    backbone = load_speech_backbone(trained[0] / "speech_backbone")
    before = {name: p.clone() for name, p in backbone.named_parameters()}
    settings = EncoderSettings(steps=40, batch=4, seconds=1.4, warmup=5, learning_rate=5e-3, measured_batches=1)
    encoder = train_au_encoder(backbone, [performed], tmp_path, settings)
    scores = measure_au_encoder(backbone, encoder, performed, fps=25.0, batches=1)
    assert all(torch.equal(p, before[name]) for name, p in backbone.named_parameters())
    assert scores["clean"]["by_au"]["AU25"]["correlation"] > 0.7
    assert scores["clean"]["voice_accuracy"] > 0.8
    assert scores["clean"]["by_au"]["AU04"]["mae"] < 0.2
    assert set(scores) == {"clean", "noisy", "low_delay", "loudness_only"}
    again = measure_au_encoder(backbone, encoder, performed, fps=25.0, batches=1)
    assert again["clean"] == scores["clean"]


def test_the_encoder_loss_weighs_own_frames_by_equation_11(performed):
    batch = draw_batch([performed], np.random.default_rng(0), 2, 1.0, DEFAULT_STREAM, 25.0, "cpu")
    settings = EncoderSettings(lookahead_weight=0.0, voice_weight=0.0, square_weight=0.5)
    codes = batch.codes + 1.0
    own = batch.codes[:, :, :5].flatten(1, 2)
    expected = 1.0 + 0.1 * own.diff(dim=1).square().mean() + 0.5 * 1.0
    torch.testing.assert_close(encoder_loss(codes, batch.voice, batch, settings), expected)  # too much: no closure is missed
    short = batch.codes.clone()
    short[..., AU_NAMES.index("AU24")] -= 1.0
    plain, weighed = (encoder_loss(short, batch.voice, batch, replace(settings, closure_weight=weight)) for weight in (0.0, 1.7))
    torch.testing.assert_close(weighed - plain, torch.tensor(0.1))
