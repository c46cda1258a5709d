"""What a manner of speaking does to a sound, measured on a voice made of harmonics."""

import numpy as np
import pytest

from avatar_viewer.studio.delivery import SETTINGS, Delivery, deliver, track_pitch
from avatar_viewer.studio.voices import Phone, Utterance

pytest.importorskip("parselmouth")


@pytest.fixture(scope="module")
def voice() -> Utterance:
    """2 s at 140 Hz that swings by a tenth of an octave, in syllables of 250 ms, between silences of 0.25 s."""
    time = np.arange(32_000) / 16_000
    hertz = 140 * 2 ** (0.1 * np.sin(2 * np.pi * 1.3 * time))
    phase = 2 * np.pi * np.cumsum(hertz) / 16_000
    buzz = sum(np.sin(k * phase) / k for k in range(1, 12))
    samples = np.pad(0.1 * buzz * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * time)), 4000).astype(np.float32)
    return Utterance(samples, (Phone(0, 0.25, "pau"), Phone(0.25, 2.25, "aa"), Phone(2.25, 2.5, "pau")), "toy", "")


def octaves(samples: np.ndarray) -> np.ndarray:
    pitch = track_pitch(samples).astype(float)
    return np.log2(pitch[pitch > 0])


def brightness(samples: np.ndarray) -> float:
    power, hertz = np.abs(np.fft.rfft(samples)) ** 2, np.fft.rfftfreq(len(samples), 1 / 16_000)
    return 10 * np.log10(power[hertz > 800].sum() / power[hertz < 400].sum())


def heard(voice: Utterance, **manner: float) -> np.ndarray:
    return deliver(voice, Delivery(**manner), np.random.default_rng(0)).samples


def test_pitch_and_melody_change_and_the_words_stay_where_they_were(voice):
    plain, high = heard(voice), heard(voice, pitch=1.3)
    assert len(plain) == len(high) == len(voice.samples)
    assert np.median(octaves(high)) - np.median(octaves(plain)) == pytest.approx(np.log2(1.3), abs=0.05)
    assert octaves(heard(voice, melody=2.0)).std() > 1.5 * octaves(plain).std()
    assert octaves(heard(voice, melody=0.3)).std() < 0.6 * octaves(plain).std()
    loud = np.abs(high) > 0.01
    assert not loud[:3500].any() and not loud[-3500:].any()


def test_a_rising_voice_ends_higher_than_it_began(voice):
    rising = octaves(heard(voice, rise=0.5, melody=0.01))
    assert rising[-20:].mean() - rising[:20].mean() == pytest.approx(0.5, abs=0.1)


def test_lilt_lifts_loud_syllables_of_a_monotonous_voice(voice):
    assert octaves(heard(voice, melody=0.01, lilt=0.2)).std() > 4 * octaves(heard(voice, melody=0.01)).std()


def test_effort_brightens_and_breath_adds_air(voice):
    plain = heard(voice)
    assert brightness(heard(voice, tilt=5.0)) > brightness(plain) + 3
    assert brightness(heard(voice, tilt=-5.0)) < brightness(plain) - 3
    assert brightness(heard(voice, breath=0.3)) > brightness(plain)


def test_formants_move_and_pitch_and_words_do_not(voice):
    """The centre of the harmonics' weight follows the formants; the buzz keeps its pitch, length and pauses."""
    rng = np.random.default_rng(1)
    hiss = rng.normal(size=len(voice.samples)) * (np.abs(voice.samples) > 0)
    spectrum, hertz = np.fft.rfft(voice.samples + 0.02 * hiss), np.fft.rfftfreq(len(hiss), 1 / 16_000)
    resonant = np.fft.irfft(spectrum * np.exp(-0.5 * ((hertz - 1400) / 200) ** 2), len(hiss)).astype(np.float32)
    throat = Utterance(resonant, voice.phones, voice.voice, voice.text)

    def peak(samples: np.ndarray) -> float:
        power = np.abs(np.fft.rfft(samples)) ** 2
        return float((power * hertz).sum() / power.sum())

    short, plain = deliver(throat, Delivery(formants=1.1), rng).samples, deliver(throat, Delivery(), rng).samples
    assert len(short) == len(plain)
    assert peak(short) / peak(plain) == pytest.approx(1.1, abs=0.03)
    assert np.median(octaves(heard(voice, formants=1.1))) == pytest.approx(np.median(octaves(heard(voice))), abs=0.03)
    loud = np.abs(heard(voice, formants=1.1)) > 0.01
    assert loud[6000:34_000:400].any() and not loud[:3500].any() and not loud[-3500:].any()


def test_creak_weakens_every_other_period(voice):
    """Half of the pitch appears between the harmonics."""

    def halves(samples: np.ndarray) -> float:
        steady = samples[8000:32_000] * np.hanning(24_000)
        power, hertz = np.abs(np.fft.rfft(steady)) ** 2, np.fft.rfftfreq(24_000, 1 / 16_000)
        return power[(hertz > 60) & (hertz < 80)].sum() / power[(hertz > 130) & (hertz < 150)].sum()

    assert halves(heard(voice, creak=0.8, melody=0.01)) > 20 * halves(heard(voice, melody=0.01))


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_of_the_mouth_shapes_the_spectrum_where_it_says_and_is_as_strong_as_asked(voice, setting):
    hertz = np.fft.rfftfreq(len(voice.samples), 1 / 16_000)

    def level(share: float, centre: float) -> float:
        power = np.abs(np.fft.rfft(heard(voice, **{setting: share}))) ** 2
        return 10 * np.log10(power[np.abs(np.log2(np.maximum(hertz, 1) / centre)) < 0.15].sum())

    bands = SETTINGS[setting]
    full, half = ([level(share, centre) - level(0.0, centre) for centre, _, _ in bands] for share in (1.0, 0.5))
    lowest, highest = (choose(range(len(bands)), key=lambda i: bands[i][2]) for choose in (min, max))
    asked = bands[highest][2] - bands[lowest][2]
    assert full[highest] - full[lowest] == pytest.approx(asked, abs=0.3 * asked)  # the level of the whole is kept
    assert half[highest] - half[lowest] == pytest.approx(asked / 2, abs=0.2 * asked)


def test_no_manner_is_louder_than_the_voice_or_out_of_range(voice):
    for manner in ({"tilt": 6.0}, {"dynamics": 1.6}, {"breath": 0.3}, {"creak": 0.8}, {"spread": 1.2}, {"formants": 0.9}):
        samples = heard(voice, **manner)
        assert np.abs(samples).max() <= 1.0
        assert np.sqrt(np.mean(samples**2)) <= 1.01 * np.sqrt(np.mean(voice.samples**2))


def test_strength_nought_is_plain_speech():
    assert Delivery(1.2, 1.4, 0.5, rise=0.3, tilt=4, breath=0.1).at(0.0) == Delivery()


def test_silence_and_a_blip_are_left_alone():
    for count in (0, 500, 16_000):
        quiet = Utterance(np.zeros(count, np.float32), (), "toy", "")
        assert len(deliver(quiet, Delivery(pitch=1.3, lilt=0.1), np.random.default_rng(0)).samples) == count
