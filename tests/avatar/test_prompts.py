"""The prompts file: times, fades, weights, and what is said about wrong lines."""

import pytest
import torch

from avatar_viewer.action_units import NUM_AUS, au_index
from avatar_viewer.avatar.prompts import parse_prompts, parse_time, read_prompts_file
from avatar_viewer.errors import InputError
from avatar_viewer.networks.prompt_reading import PromptReading

FACES = {"smile": ("AU12", 3.0), "sad": ("AU15", 2.0)}


def read(prompt: str) -> PromptReading:
    intensity = torch.zeros(NUM_AUS)
    if prompt in FACES:
        name, value = FACES[prompt]
        intensity[au_index(name)] = value
    return PromptReading(intensity > 0, (intensity > 0).float(), intensity, (), "")


def test_prompts_follow_each_other_at_their_times():
    track = parse_prompts("# a comment\n0 smile\n\n2 fade 1 sad\n1:00 -\n", read)
    assert track.at(1.0).intensity[au_index("AU12")] == 3.0
    assert track.at(2.5).active[au_index("AU15")] == pytest.approx(0.5)
    assert track.at(3.0).active[au_index("AU12")] == 0
    assert not track.at(61.0).active.any()


def test_weighted_prompts_are_mixed():
    edit = parse_prompts("0 0.75: smile | 0.25: sad", read).at(5.0)
    assert edit.intensity[au_index("AU12")] == pytest.approx(2.25) and edit.intensity[au_index("AU15")] == pytest.approx(0.5)


def test_all_wrong_lines_are_named_at_once():
    with pytest.raises(InputError) as error:
        parse_prompts("zero smile\n1 smile\n0.5 sad\n2 fade x sad\n3\n4 0.5: sad | smile", read, source="p.txt")
    message = str(error.value)
    assert message.startswith("p.txt: ") and "\n" not in message
    assert all(f"line {n}" in message for n in (1, 3, 4, 5, 6)) and "line 2" not in message


def test_a_file_that_is_no_prompts_file_is_refused_in_a_few_words():
    with pytest.raises(InputError, match="992 more lines like these") as error:
        parse_prompts("noise\n" * 1000, read)
    assert len(str(error.value)) < 1000


def test_a_prompts_file_with_a_byte_order_mark_and_odd_bytes_is_read(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes(b"\xef\xbb\xbf0 smile\n1 \xff\xfe\n")
    assert read_prompts_file(path, read).at(0.9).intensity[au_index("AU12")] == 3.0
    with pytest.raises(InputError, match="no prompts file"):
        read_prompts_file(tmp_path / "none.txt", read)


@pytest.mark.parametrize("text, seconds", [("2.5", 2.5), ("1:05", 65.0), ("0:01:05.5", 65.5)])
def test_times_are_seconds_or_minutes(text, seconds):
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "nan", "-1", "1:2:3:4", "inf", "soon"])
def test_odd_times_are_input_errors(text):
    with pytest.raises(InputError):
        parse_time(text)
