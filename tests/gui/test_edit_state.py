import torch

from avatar_viewer.action_units import au_index
from avatar_viewer.gui.edit_state import EditState, describe_leftovers, describe_reading
from avatar_viewer.networks.prompt_reading import PromptReading


def reading_of(**intensities):
    intensity = torch.zeros(17)
    for name, value in intensities.items():
        intensity[au_index(name)] = value
    return PromptReading(intensity > 0, (intensity > 0).float(), intensity, ("zorp",), "", "")


def test_nothing_set_asks_for_nothing():
    edit = EditState().edit
    assert not edit.active.any() and not edit.offset.any() and not edit.mute.any()


def test_the_edit_is_the_same_object_until_something_changes():
    state = EditState()
    assert state.edit is state.edit
    before = state.edit
    state.set_offset(3, 2.0)
    assert state.edit is not before and state.edit.offset[3] == 2.0


def test_sliders_are_held_within_their_range():
    state = EditState()
    state.set_offset(0, 99.0)
    state.set_strength(9.0)
    assert state.edit.offset[0] == 5.0 and state.strength == 2.0


def test_prompt_and_sliders_meet_in_one_edit():
    state = EditState()
    assert state.set_prompt("  a   happy person ") and state.prompt == "a happy person"
    assert not state.set_prompt("a happy person")
    state.set_reading(reading_of(AU12=3.0, AU06=2.0))
    state.set_mute(au_index("AU45"), True)
    edit = state.edit
    assert edit.intensity[au_index("AU12")] == 3.0 and edit.mute[au_index("AU45")] == 1.0
    state.set_prompt("")
    assert not state.edit.active.any() and state.edit.mute.any()


def test_a_solo_mutes_all_others_and_a_mute_wins_over_it():
    state = EditState()
    state.set_solo(au_index("AU12"), True)
    assert state.edit.mute.sum() == 16 and state.edit.mute[au_index("AU12")] == 0
    state.set_mute(au_index("AU12"), True)
    assert state.edit.mute.sum() == 17
    state.reset_slider(au_index("AU12"))
    assert not state.edit.mute.any()


def test_gains_and_the_range_reach_the_edit_and_are_bounded():
    state = EditState()
    assert state.edit.gain.eq(1).all() and state.edit.limit == 5.0
    state.set_gain(4, 2.5)
    state.set_gain(5, -3.0)
    state.set_over_range(True)
    assert state.edit.gain[4] == 2.5 and state.edit.gain[5] == 0.0 and state.edit.limit == 7.0
    state.reset_sliders()
    assert state.edit.gain.eq(1).all() and state.edit.limit == 5.0


def test_history_has_no_doubles_and_ends():
    state = EditState()
    for number in range(30):
        state.set_prompt(f"prompt {number}")
    state.set_prompt("prompt 25")
    assert state.history[0] == "prompt 25" and len(state.history) == len(set(state.history)) == 20


def test_long_prompts_are_bounded():
    state = EditState()
    state.set_prompt("x" * 10_000)
    assert len(state.prompt) == 512


def test_a_reading_is_told_strongest_first_with_what_was_left_over():
    reading = reading_of(AU06=1.0, AU12=2.5)
    text = describe_reading(reading)
    assert text.index("AU12") < text.index("AU06") and "2.5" in text
    assert "zorp" in describe_leftovers(reading)
    assert "no action units" in describe_reading(reading_of())
