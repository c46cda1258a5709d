"""Readings become edits, and several become one."""

from dataclasses import replace

import pytest
import torch
from avatar.edits import aus, reading

from avatar_viewer.action_units import au_index
from avatar_viewer.avatar.modulation import modulate
from avatar_viewer.avatar.prompt_edit import blend_readings, prompt_edit
from avatar_viewer.errors import InputError
from avatar_viewer.types import AUEdit


def test_prompt_edit_keeps_the_sliders_of_its_base():
    base = AUEdit(offset=aus(AU04=1.0), gain=2 * torch.ones(17), limit=7.0)
    edit = prompt_edit(reading(AU12=3.0), base=base, strength=1.5)
    assert torch.equal(edit.offset, base.offset) and torch.equal(edit.gain, base.gain) and edit.limit == 7.0
    assert edit.strength == 1.5 and edit.active[au_index("AU12")] == 1


def test_what_a_prompt_denies_is_turned_down_in_the_voice_but_never_its_speech():
    nothing = reading()
    unsmiling = replace(nothing, denied=(aus(AU12=1.0, AU25=1.0) > 0))
    voice = aus(AU12=3.0, AU25=3.0, AU04=1.0)[None]
    result = modulate(voice, torch.ones(1), prompt_edit(unsmiling))[0]
    assert result[au_index("AU12")] < 0.5 and result[au_index("AU25")] == 3.0 and result[au_index("AU04")] == 1.0


def test_blended_readings_mix_intensities_by_their_shares():
    mixed = blend_readings([reading(AU12=4.0), reading(AU01=2.0, AU12=2.0)], [0.75, 0.25])
    assert mixed.intensity[au_index("AU12")] == pytest.approx(3.5)
    assert mixed.intensity[au_index("AU01")] == pytest.approx(0.5)
    faint = blend_readings([reading(AU12=4.0)], [0.25])
    assert faint.intensity[au_index("AU12")] == pytest.approx(1.0)
    with pytest.raises(InputError):
        blend_readings([reading(AU12=1.0)], [-1.0])
