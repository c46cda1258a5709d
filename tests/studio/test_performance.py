"""Speech with phone times and the face that it makes."""

import shutil

import numpy as np
import pytest

from avatar_viewer.action_units import AU_NAMES, NUM_AUS
from avatar_viewer.studio.blendshapes import VISEMES
from avatar_viewer.studio.performance import EMOTIONS, GESTURES, au_codes, counterfactual, perform, speech_activity
from avatar_viewer.studio.voices import TEST_VOICES, TRAIN_VOICES, Phone, Utterance, Voice, pad_with_silence, synthesise

VISEME_AUS = {"PP": {"AU24": 2.5}, "aa": {"AU25": 4.0, "AU26": 3.5}, "ou": {"AU23": 1.5, "AU25": 1.5}}


def phones_in_a_row(*symbols: str, seconds: float = 0.12) -> Utterance:
    phones = tuple(Phone(i * seconds, (i + 1) * seconds, s) for i, s in enumerate(symbols))
    noise = 0.1 * np.sin(np.arange(int(16000 * seconds * len(symbols))) * 0.05).astype(np.float32)
    return Utterance(noise, phones, "none", "")


def viseme(performance, name):
    return performance.values[:, NUM_AUS + VISEMES.index(name)]


def test_lips_close_on_a_bilabial_between_open_vowels():
    performance = perform(phones_in_a_row("pau", "aa", "b", "aa", "pau"))
    closure = viseme(performance, "PP")[round(0.28 * 25)]
    assert closure > 0.85
    assert viseme(performance, "aa").max() > 0.7
    assert viseme(performance, "aa")[7] < 0.2


def test_a_pause_is_a_rest():
    performance = perform(phones_in_a_row("aa", "pau", "pau", "pau", "pau", "aa"))
    assert np.abs(performance.values[round(0.3 * 25), NUM_AUS : NUM_AUS + len(VISEMES)]).sum() < 0.1


def test_a_performance_has_a_frame_for_every_started_frame_of_sound():
    performance = perform(phones_in_a_row("aa", "b"))
    assert len(performance.values) == int(np.ceil(len(performance.samples) * 25 / 16000))


def test_an_emotion_raises_its_action_units_and_no_others():
    calm, happy = (perform(phones_in_a_row(*("aa", "b") * 8), emotion=name) for name in ("neutral", "happy"))
    difference = (happy.values - calm.values)[:, :NUM_AUS].mean(axis=0)
    raised = {name for name, value in zip(AU_NAMES, difference) if value > 0.3}
    assert raised == set(EMOTIONS["happy"].aus)


def test_counterfactual_codes_stay_in_range_and_leave_the_visemes_alone():
    performance = perform(phones_in_a_row(*("pau", "aa", "b", "uw") * 6))
    other = counterfactual(performance, VISEME_AUS, seed=3)
    codes = au_codes(other.values, VISEME_AUS)
    unclamped = other.values[:, :NUM_AUS] + (codes - np.clip(other.values[:, :NUM_AUS], -9, 9))
    assert np.array_equal(other.values[:, NUM_AUS:], performance.values[:, NUM_AUS:])
    assert codes.min() >= 0 and codes.max() <= 5 and unclamped.max() <= 5 + 1e-4
    assert np.abs(codes - au_codes(performance.values, VISEME_AUS)).max() > 1.0
    assert np.array_equal(other.values, counterfactual(performance, VISEME_AUS, seed=3).values)


def test_every_arpabet_phone_has_a_gesture_of_known_visemes():
    for gestures in GESTURES.values():
        for gesture in gestures:
            assert set(gesture.visemes) <= set(VISEMES)


def test_speech_activity_is_one_where_a_phone_sounds():
    active = speech_activity((Phone(0, 0.2, "pau"), Phone(0.2, 0.4, "aa")), frames=10, fps=25.0)
    assert active.tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]


def test_held_out_voices_never_train():
    assert not {voice.label for voice in TRAIN_VOICES} & {voice.label for voice in TEST_VOICES}


@pytest.mark.skipif(shutil.which("flite") is None or shutil.which("espeak-ng") is None, reason="needs flite and espeak-ng")
@pytest.mark.parametrize("voice", [Voice("flite", "slt"), Voice("flite", "kal16"), Voice("espeak", "en-us+f2")], ids=lambda v: v.name)
def test_synthesised_phones_cover_the_sound_without_gaps(voice):
    utterance = pad_with_silence(synthesise("Baby bees buy a map. Then we measure it!", voice), 0.3, 0.2)
    assert utterance.phones[0].start == 0
    assert all(a.end == pytest.approx(b.start) for a, b in zip(utterance.phones, utterance.phones[1:]))
    assert utterance.phones[-1].end == pytest.approx(len(utterance.samples) / 16000, abs=1e-3)
    spoken = [phone.symbol for phone in utterance.phones]
    assert spoken.count("b") >= 4 and "zh" in spoken and set(spoken) <= set(GESTURES) | {"pau"}
