"""Gain and gate: by hand, and the same however the sound is cut."""

import numpy as np
import pytest

from avatar_viewer.live.voice_chain import VoiceChain, VoiceSettings, decibels

RATE = 48_000


def tone(amplitude, seconds):
    return (amplitude * np.sin(2 * np.pi * 400 * np.arange(int(RATE * seconds)) / RATE)).astype(np.float32)


def chain(**settings):
    made = VoiceChain(RATE)
    made.settings = VoiceSettings(**settings)
    return made


def test_untouched_sound_is_the_same_samples():
    samples = tone(0.5, 0.3)
    assert np.array_equal(chain().process(samples)[0], samples)


def test_gain_is_in_decibels_and_stays_within_full_scale():
    samples = tone(0.1, 0.1)
    assert np.allclose(chain(gain_db=20.0).process(samples)[0], 10 * samples, atol=1e-6)
    assert np.abs(chain(gain_db=36.0).process(tone(0.9, 0.1))[0]).max() == 1.0


def test_what_is_not_a_number_is_silence():
    samples = np.array([0.1, np.nan, np.inf, -np.inf, 0.2], np.float32)
    assert chain().process(samples)[0] == pytest.approx([0.1, 0, 0, 0, 0.2])


def test_the_gate_keeps_the_voice_with_its_ends_and_silences_the_room():
    room, voice = tone(0.003, 1.0), tone(0.3, 1.0)  # -50 dB, -10 dB
    heard, before = chain(gate_db=-40.0).process(np.concatenate((room, voice, room)))
    assert np.array_equal(before, np.concatenate((room, voice, room)))
    second = RATE
    assert not heard[second // 2 : second - 1].any(), "the room before the voice"
    assert np.allclose(heard[second + RATE // 50 : 2 * second], voice[RATE // 50 :]), "the voice"
    assert np.abs(heard[2 * second : 2 * second + RATE // 5]).max() > 0.0025, "the end of a word"
    assert not heard[2 * second + RATE // 2 :].any(), "the room after the voice"
    assert np.abs(np.diff(heard)).max() < 0.03, "no click"


def test_the_gate_does_not_flutter_between_its_two_levels():
    gate = chain(gate_db=-40.0)
    gate.process(tone(0.3, 0.2))
    held, _ = gate.process(tone(0.007, 1.0))  # -43 dB: below the level that opens, above the one that closes
    assert np.allclose(held, tone(0.007, 1.0)) and gate.is_open


def test_any_way_of_cutting_the_sound_into_pieces_of_5_ms_gives_the_same():
    samples = np.concatenate((tone(0.003, 0.4), tone(0.3, 0.3), tone(0.003, 0.6)))
    whole, _ = chain(gate_db=-40.0).process(samples)
    cut = chain(gate_db=-40.0)
    pieces = [cut.process(samples[start : start + 480])[0] for start in range(0, len(samples), 480)]
    assert np.allclose(np.concatenate(pieces), whole, atol=1e-6)


def test_decibels_of_full_scale_and_of_silence():
    assert decibels(1.0) == 0.0 and decibels(0.1) == pytest.approx(-20.0) and decibels(0.0) == -120.0
