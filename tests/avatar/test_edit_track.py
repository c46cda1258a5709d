"""The laws of the edit track, and how it is saved."""

import threading
from dataclasses import replace

import pytest
import torch
from avatar.edits import asking, aus, random_edit

from avatar_viewer.action_units import au_index
from avatar_viewer.avatar.edit_track import EditTrack, edit_from_json, edit_to_json
from avatar_viewer.avatar.modulation import modulate
from avatar_viewer.errors import InputError
from avatar_viewer.types import AUEdit


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
