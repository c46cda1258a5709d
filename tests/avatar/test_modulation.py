"""The laws of modulation."""

from dataclasses import replace

import pytest
import torch
from avatar.edits import asking, aus, random_edit, reading

from avatar_viewer.action_units import NUM_AUS, au_index
from avatar_viewer.avatar.modulation import modulate
from avatar_viewer.avatar.prompt_edit import prompt_edit
from avatar_viewer.errors import InputError
from avatar_viewer.networks.prompt_reading import PromptReading
from avatar_viewer.types import AUEdit


@pytest.mark.parametrize("mode", ["blend", "paper"])
def test_the_neutral_edit_gives_the_codes_back_to_the_bit(mode):
    codes = 5 * torch.rand(50, NUM_AUS, generator=torch.Generator().manual_seed(1))
    voice = torch.rand(50, generator=torch.Generator().manual_seed(2))
    nothing = PromptReading(torch.zeros(17, dtype=torch.bool), torch.zeros(17), torch.zeros(17), (), "")
    assert torch.equal(modulate(codes, voice, prompt_edit(nothing, mode=mode)), codes)
    assert torch.equal(modulate(codes, voice, AUEdit()), codes)


def test_paper_mode_is_the_published_formula_to_the_bit():
    generator = torch.Generator().manual_seed(3)
    for _ in range(20):
        codes = 5 * torch.rand(30, NUM_AUS, generator=generator)
        y = (torch.rand(NUM_AUS, generator=generator) < 0.4).float()
        alpha, beta = float(2 * torch.rand(1, generator=generator)), float(torch.rand(1, generator=generator))
        expected = (codes * (1 + alpha * y) - beta * (1 - y) * codes).clamp(0, 5)
        edit = AUEdit(active=y, enhance=alpha, suppress=beta, mode="paper")
        assert torch.equal(modulate(codes, torch.ones(30), edit), expected)


def test_strength_scales_both_terms_of_the_published_formula():
    codes = torch.ones(1, NUM_AUS)
    edit = replace(asking(AU12=3.0), mode="paper", enhance=1.0, suppress=0.4, strength=0.5)
    result = modulate(codes, torch.zeros(1), edit)[0]
    assert result[au_index("AU12")] == pytest.approx(1.5)
    assert result[au_index("AU04")] == pytest.approx(0.8)
    assert torch.equal(modulate(codes, torch.zeros(1), replace(edit, strength=0.0)), codes)


def test_a_smile_appears_from_zero_in_blend_and_cannot_in_paper_mode():
    codes, voice = torch.zeros(3, NUM_AUS), torch.zeros(3)
    smile = asking(AU06=2.0, AU12=3.0)
    assert torch.allclose(modulate(codes, voice, smile), aus(AU06=2.0, AU12=3.0).expand(3, -1))
    assert not modulate(codes, voice, replace(smile, mode="paper")).any()


def test_half_the_strength_gives_half_the_smile():
    codes, voice = torch.zeros(1, NUM_AUS), torch.zeros(1)
    result = modulate(codes, voice, replace(asking(AU12=3.0), strength=0.5))
    assert result[0, au_index("AU12")] == pytest.approx(1.5)


@pytest.mark.parametrize("mode", ["blend", "paper"])
def test_nothing_leaves_the_range_whatever_the_sliders_say(mode):
    generator = torch.Generator().manual_seed(4)
    for _ in range(200):
        edit = replace(random_edit(generator), mode=mode)
        codes = 5 * torch.rand(20, NUM_AUS, generator=generator)
        result = modulate(codes, torch.rand(20, generator=generator), edit)
        assert torch.isfinite(result).all() and result.min() >= 0 and result.max() <= edit.limit


def test_modulate_writes_into_none_of_its_inputs():
    edit = random_edit(torch.Generator().manual_seed(5))
    codes, voice = 5 * torch.rand(8, NUM_AUS), torch.rand(8)
    kept = [t.clone() for t in (codes, voice, edit.active, edit.intensity, edit.offset)]
    modulate(codes, voice, edit)
    assert all(torch.equal(a, b) for a, b in zip(kept, (codes, voice, edit.active, edit.intensity, edit.offset)))


@pytest.mark.parametrize("prompt", [{"AU25": 4.0, "AU26": 4.0}, {"AU26": 5.0, "AU05": 4.0}, {"AU12": 4.0, "AU25": 3.0}])
def test_closed_lips_stay_closed_while_the_voice_speaks(prompt):
    closure = aus(AU24=2.0)[None]  # a "b": pressed, nothing parts the lips
    result = modulate(closure, torch.ones(1), replace(asking(**prompt), strength=2.0))[0]
    assert result[au_index("AU25")] == 0 and result[au_index("AU26")] == 0
    assert result[au_index("AU24")] == pytest.approx(2.0)
    assert modulate(closure, torch.zeros(1), asking(**prompt))[0, [au_index("AU25"), au_index("AU26")]].max() > 2.5


@pytest.mark.parametrize("prompt", [{"AU24": 4.0}, {"AU04": 4.0, "AU23": 3.0, "AU24": 4.0}, {"AU12": 4.0, "AU06": 3.0}])
def test_open_lips_stay_open_while_the_voice_speaks(prompt):
    vowel = aus(AU25=3.0, AU26=2.0)[None]
    result = modulate(vowel, torch.ones(1), replace(asking(**prompt), strength=2.0, suppress=1.0))[0]
    assert result[au_index("AU25")] == pytest.approx(3.0) and result[au_index("AU26")] == pytest.approx(2.0)
    assert result[au_index("AU24")] == 0


def test_the_lips_keep_the_order_of_their_openings_under_a_gaping_prompt():
    opening = torch.linspace(0, 4, 40)
    codes = torch.zeros(40, NUM_AUS)
    codes[:, au_index("AU25")] = opening
    codes[:, au_index("AU26")] = 0.6 * opening
    result = modulate(codes, torch.ones(40), replace(asking(AU25=3.0, AU26=4.0, AU05=3.0), strength=2.0))
    for name in ("AU25", "AU26"):
        assert (result[:, au_index(name)].diff() > -1e-5).all(), name


def test_a_blink_passes_through_a_wide_eyed_prompt_and_through_suppression():
    blink = aus(AU45=5.0)[None]
    result = modulate(blink, torch.zeros(1), replace(asking(AU05=5.0), suppress=1.0))[0]
    assert result[au_index("AU45")] == pytest.approx(5.0) and result[au_index("AU05")] == 0


def test_a_smile_takes_down_the_voices_sad_corners_unless_asked_for_both():
    sad = aus(AU15=2.0)[None]
    alone = modulate(sad, torch.zeros(1), replace(asking(AU12=4.0), suppress=0.0))[0, au_index("AU15")]
    both = modulate(sad, torch.zeros(1), replace(asking(AU12=4.0, AU15=2.0), suppress=0.0))[0, au_index("AU15")]
    assert alone < 1.0 and both == pytest.approx(2.0)


def test_pressed_and_parted_lips_are_never_both_pushed_to_the_full():
    result = modulate(torch.zeros(1, NUM_AUS), torch.zeros(1), asking(AU24=4.0, AU25=4.0, AU26=4.0))[0]
    assert result[au_index("AU24")] < 0.5


def test_mute_silences_an_action_unit_altogether():
    edit = replace(asking(AU12=3.0), offset=aus(AU12=2.0), mute=aus(AU12=1.0))
    assert modulate(5 * torch.ones(1, NUM_AUS), torch.zeros(1), edit)[0, au_index("AU12")] == 0


def test_wrong_shapes_and_modes_are_named():
    with pytest.raises(ValueError, match="au_codes"):
        modulate(torch.zeros(3, 16), torch.zeros(3), AUEdit())
    with pytest.raises(InputError, match="sideways"):
        modulate(torch.zeros(3, 17), torch.zeros(3), AUEdit(mode="sideways"))
    with pytest.raises(InputError, match="strength is 3"):
        prompt_edit(reading(AU12=1.0), strength=3)
