"""The laws of modulation and of the edit track."""

import threading
from dataclasses import replace

import pytest
import torch

from avatar_viewer.action_units import NUM_AUS, au_index
from avatar_viewer.avatar.modulation import EditTrack, blend_readings, edit_from_json, edit_to_json, modulate, prompt_edit
from avatar_viewer.errors import InputError
from avatar_viewer.networks.text_to_au import PromptReading
from avatar_viewer.types import AUEdit


def aus(**values: float) -> torch.Tensor:
    """[17] with the named action units set."""
    result = torch.zeros(NUM_AUS)
    for name, value in values.items():
        result[au_index(name)] = value
    return result


def asking(**targets: float) -> AUEdit:
    return AUEdit(active=(aus(**targets) > 0).float(), intensity=aus(**targets))


def reading(**targets: float) -> PromptReading:
    active = aus(**targets) > 0
    return PromptReading(active, active.float(), aus(**targets), (), "")


def random_edit(generator: torch.Generator) -> AUEdit:
    def rand(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(NUM_AUS, generator=generator)

    return AUEdit(
        active=rand(0, 1).round() if torch.rand(1, generator=generator) < 0.5 else rand(0, 1),
        intensity=rand(0, 7), enhance=float(rand(0, 5)[0]), suppress=float(rand(0, 1)[0]), strength=float(rand(0, 2)[0]),
        gain=rand(0, 10), offset=rand(-7, 7), mute=rand(0, 1).round(), limit=float(rand(5, 7)[0].round()),
    )  # fmt: skip


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


# ------------------------------------------------------------------------------------------------------- edit track


def test_an_empty_track_is_neutral_and_a_constant_one_constant():
    assert torch.equal(EditTrack().at(12.0).active, torch.zeros(17))
    edit = asking(AU12=3.0)
    track = EditTrack.constant(edit)
    assert track.at(-5.0) is edit and track.at(1e6) is edit


def test_the_track_eases_from_edit_to_edit_without_overshoot():
    track = EditTrack(0.25)
    generator = torch.Generator().manual_seed(6)
    values = torch.rand(12, generator=generator) * 5
    for n, value in enumerate(values):  # events closer than the ease, so many overlap
        track.add(0.1 * n, AUEdit(offset=aus(AU04=float(value))))
    eased = torch.stack([track.at(t).offset[au_index("AU04")] for t in torch.arange(-0.1, 2.0, 0.002).tolist()])
    assert eased.min() >= 0 and eased.max() <= values.max() + 1e-6
    assert eased.diff().abs().max() < 0.15  # no jump: 5 units in 0.25 s is at most 0.06 in 2 ms, more where eases overlap
    assert eased[0] == 0 and eased[-1] == pytest.approx(float(values[-1]))


def test_halfway_through_the_ease_the_edit_is_halfway():
    track = EditTrack(0.5)
    track.add(1.0, AUEdit(offset=aus(AU04=4.0)))
    assert track.at(1.25).offset[au_index("AU04")] == pytest.approx(2.0)
    assert track.at(0.999).offset[au_index("AU04")] == 0
    assert track.at(1.5) is track.events[0].edit


def test_a_dragged_slider_is_followed_within_the_ease():
    track = EditTrack(0.25)
    for n in range(120):
        track.add(n / 60, AUEdit(offset=aus(AU04=n / 60)))
    assert 1.75 < track.at(119 / 60).offset[au_index("AU04")] <= 119 / 60


def test_a_prompt_that_eases_in_keeps_its_target_while_its_activation_grows():
    track = EditTrack(1.0)
    track.add(0.0, asking(AU12=3.0))
    edit = track.at(0.5)
    assert edit.active[au_index("AU12")] == pytest.approx(0.5) and edit.intensity[au_index("AU12")] == pytest.approx(3.0)
    moved = modulate(torch.zeros(1, 17), torch.zeros(1), edit)[0, au_index("AU12")]
    assert moved == pytest.approx(1.5)


def test_the_order_of_adding_does_not_matter():
    forward, backward = EditTrack(), EditTrack()
    events = [(0.2, AUEdit(offset=aus(AU04=1.0))), (0.3, AUEdit(offset=aus(AU04=3.0))), (0.45, AUEdit(offset=aus(AU04=2.0)))]
    for seconds, edit in events:
        forward.add(seconds, edit)
    for seconds, edit in reversed(events):
        backward.add(seconds, edit)
    for t in (0.1, 0.25, 0.35, 0.5, 0.6, 1.0):
        assert torch.equal(forward.at(t).offset, backward.at(t).offset)


def test_a_saved_track_replays_exactly():
    track = EditTrack(0.3, initial=asking(AU01=1.0))
    generator = torch.Generator().manual_seed(7)
    for n in range(10):
        track.add(0.11 * n, random_edit(generator), ease_seconds=0.05 * n)
    again = EditTrack.from_json(track.to_json())
    for t in torch.arange(-0.2, 2.0, 0.013).tolist():
        a, b = track.at(t), again.at(t)
        assert all(torch.equal(getattr(a, f), getattr(b, f)) for f in ("active", "intensity", "gain", "offset", "mute"))
        assert (a.strength, a.enhance, a.suppress, a.mode, a.limit) == (b.strength, b.enhance, b.suppress, b.mode, b.limit)


@pytest.mark.parametrize(
    "text", ["", "[]", "null", '{"ease_seconds": "x"}', '{"ease_seconds":1,"initial":{"offset":{"AU99":1}},"events":[]}']
)
def test_a_broken_track_is_an_input_error(text):
    with pytest.raises(InputError):
        EditTrack.from_json(text)


def test_an_edit_survives_json_by_name():
    edit = replace(asking(AU12=3.25), offset=aus(AU45=-1.5), mode="paper", strength=1.25)
    value = edit_to_json(edit)
    assert value["offset"] == {"AU45": -1.5} and set(value) == {"active", "intensity", "offset", "mode", "strength"}
    assert torch.equal(edit_from_json(value).offset, edit.offset)
    with pytest.raises(InputError, match="sparkle"):
        edit_from_json({"sparkle": 1})


def test_what_changes_nothing_is_not_stored():
    track = EditTrack()
    for n in range(100):
        track.add(n / 30, asking(AU12=3.0))
    assert len(track.events) == 1


def test_readers_see_whole_events_while_one_thread_adds():
    track, stop, seen = EditTrack(0.05), threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            edit = track.at(1e9)
            seen.append(float(edit.offset[au_index("AU04")] - edit.offset[au_index("AU12")]))

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(1, 300):
        track.add(float(n), AUEdit(offset=aus(AU04=n / 100, AU12=n / 100)))
    stop.set()
    reader.join()
    assert seen and not any(seen)
