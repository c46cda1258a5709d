"""The whole session without devices: a real tiny avatar, real files and processes, a clock that the test moves."""

import multiprocessing
import threading
import time
from dataclasses import replace

import av
import numpy as np
import pytest
import soundfile
import torch

from avatar_viewer.action_units import au_index
from avatar_viewer.avatar.edit_track import EditTrack
from avatar_viewer.avatar.speech_motion import SpeechMotion, speak
from avatar_viewer.errors import InputError
from avatar_viewer.live.clock import SteppedClock
from avatar_viewer.live.session import Session
from avatar_viewer.types import AUEdit, Render

SECONDS = 2.2


def voice():
    time_ = np.arange(int(SECONDS * 16_000)) / 16_000
    return (0.3 * np.sin(2 * np.pi * 150 * time_) * (0.5 + 0.5 * np.sin(2 * np.pi * 2.3 * time_))).astype(np.float32)


def smile(amount):
    offset = torch.zeros(17)
    offset[au_index("AU12")] = amount
    return AUEdit(offset=offset)


@pytest.fixture
def sound(tmp_path):
    soundfile.write(tmp_path / "voice.wav", voice(), 16_000, subtype="FLOAT")
    return tmp_path / "voice.wav"


@pytest.fixture
def session(tiny_avatar):
    session = Session(clock=SteppedClock(), has_sound_output=False)
    session.use_avatar(tiny_avatar)
    yield session
    session.close()


def until(session, condition, what, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        session.update()
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: did not happen; messages: {session.messages}")
        time.sleep(0.005)


def open_and_play(session, sound):
    session.open_sound(sound)
    until(session, lambda: session.clock.is_playing, "playing")


def play_through(session, until_seconds, step=0.04):
    """Advance as a display would, giving the speech thread the time it needs; yields (seconds, motion)."""
    while session.now() < until_seconds - 1e-6:
        until(session, lambda: session.timeline.is_over or (session.timeline.end_seconds or 0) > session.now() + 0.08, "motion")
        yield session.now(), session.motion()
        session.clock.advance(step)
        session.update()


def test_the_face_follows_the_sound_as_one_shot_speech_does(session, sound, tiny_avatar):
    open_and_play(session, sound)
    expected = speak(tiny_avatar, torch.from_numpy(voice()))
    for seconds, motion in play_through(session, 1.2):
        index = round(seconds * 25)
        assert torch.allclose(motion.offsets, expected.offsets[index], atol=1e-6), f"at {seconds:.2f} s"
    assert session.timeline.late_frames == 0 and session.messages == []


def test_the_speech_thread_stays_at_most_two_hops_ahead(session, sound):
    open_and_play(session, sound)
    time.sleep(0.5)
    session.update()
    assert session.timeline.end_seconds <= 0.6 + 1e-6


def test_a_slider_shows_at_once_and_in_the_motion_soon_after(session, sound):
    open_and_play(session, sound)
    list(play_through(session, 0.4))
    session.set_edit(smile(4.0))
    for _ in range(10):
        session.clock.advance(0.04)
        session.update()
    assert session.edit_now().offset[au_index("AU12")] == pytest.approx(4.0)
    seen = [motion.au_applied[au_index("AU12")].item() for _, motion in play_through(session, 1.4)]
    assert seen[-1] >= 4.0


def test_an_edit_while_paused_holds_at_once(session, sound):
    open_and_play(session, sound)
    list(play_through(session, 0.4))
    session.pause()
    session.set_edit(smile(3.0))
    assert session.edit_now().offset[au_index("AU12")] == 3.0


def test_a_seek_takes_the_standing_edit_along_and_gives_motion_for_the_new_place(session, sound):
    open_and_play(session, sound)
    list(play_through(session, 1.2))
    session.set_edit(smile(4.0))
    session.seek(0.5)
    assert session.now() == pytest.approx(0.5)
    assert session.edit_now().offset[au_index("AU12")] == 4.0
    until(session, lambda: session.clock.is_playing and session.timeline.end_seconds is not None, "playing after the seek")
    motion = session.motion()
    assert motion.au_applied[au_index("AU12")] >= 4.0


def test_it_stops_at_the_end_or_loops(session, sound):
    open_and_play(session, sound)
    list(play_through(session, SECONDS))
    until(session, lambda: not session.is_playing, "stopping at the end")
    assert session.now() == pytest.approx(SECONDS)
    session.is_looping = True
    session.play()
    until(session, lambda: session.clock.is_playing, "playing again from the start")
    assert session.now() < 0.1
    session.clock.advance(SECONDS)
    until(session, lambda: session.clock.is_playing and session.now() < 0.1, "looping")


def test_a_bad_file_is_a_message_and_the_old_sound_stays(session, sound, tmp_path):
    open_and_play(session, sound)
    (tmp_path / "bad.wav").write_text("no sound at all " * 20)
    session.open_sound(tmp_path / "bad.wav")
    until(session, lambda: session.messages, "a message")
    assert "bad.wav" in session.messages[0].text and session.messages[0].is_error
    assert session.sound.name == "voice.wav" and session.is_playing
    with pytest.raises(InputError, match="no such sound file"):
        session.open_sound(tmp_path / "none.wav")


class BrokenMotion(SpeechMotion):
    broken = True

    def feed(self, chunk):
        if self.broken and chunk.start_seconds >= 0.8:
            raise RuntimeError("the networks are on fire")
        return super().feed(chunk)


def test_a_failing_speech_thread_is_shown_and_the_session_goes_on(tiny_avatar, sound):
    session = Session(clock=SteppedClock(), has_sound_output=False, make_motion=lambda avatar, edits: BrokenMotion(avatar, edits))
    try:
        session.use_avatar(tiny_avatar)
        open_and_play(session, sound)

        def advance_until_told():
            session.clock.advance(0.02)
            return session.messages

        until(session, advance_until_told, "the failure")
        assert "on fire" in session.messages[0].text and not session.is_playing
        assert not session.motion().offsets.any()
        BrokenMotion.broken = False
        session.take_messages()
        session.seek(0.0)
        session.play()
        until(session, lambda: session.clock.is_playing and session.timeline.end_seconds is not None, "playing again")
    finally:
        BrokenMotion.broken = True
        session.close()


class FakeText:
    def __init__(self):
        self.prompts = []

    def read(self, prompt):
        self.prompts.append(prompt)
        if prompt == "explode":
            raise RuntimeError("no such word")
        return f"reading of {prompt}"


def test_prompts_are_read_by_a_worker_and_the_newest_wins(session, tiny_avatar):
    import dataclasses

    text = FakeText()
    session.use_avatar(dataclasses.replace(tiny_avatar, text=text))
    for number in range(200):
        session.set_prompt(f"prompt {number}")
    until(session, lambda: session.reading == "reading of prompt 199", "the newest prompt")
    assert len(text.prompts) <= 200
    session.set_prompt("explode")
    until(session, lambda: session.messages, "the message")
    assert "no such word" in session.messages[0].text
    assert session.reading == "reading of prompt 199"


def test_an_avatar_that_cannot_be_loaded_leaves_the_old_one(session, tiny_avatar):
    def load(show):
        raise InputError("checkpoints/bad: sha256 differs")

    session.load_avatar(load)
    assert session.is_loading
    until(session, lambda: session.messages, "the message")
    assert session.avatar is tiny_avatar and not session.is_loading and "sha256" in session.messages[0].text


def test_the_first_head_is_shown_before_its_voice_is_there(tiny_avatar, tmp_path):
    silent, go_on = replace(tiny_avatar, speech=None, text=None), threading.Event()
    session = Session(clock=SteppedClock(), has_sound_output=False)
    try:
        def load(show):
            show(silent)
            go_on.wait(10)
            return tiny_avatar

        session.load_avatar(load)
        until(session, lambda: session.avatar is not None, "the look")
        assert session.avatar is silent and session.is_look and session.is_loading
        assert session.set_prompt("happy") and not session.messages  # it waits for what can read it
        with pytest.raises(InputError, match="no voice yet"):
            session.start_recording(tmp_path, (64, 48), 25)
        go_on.set()
        until(session, lambda: not session.is_loading, "the voice")
        assert session.avatar is tiny_avatar and not session.is_look
    finally:
        session.close()


def test_a_prompt_that_was_there_before_the_voice_is_read_once_it_comes(tiny_avatar):
    session = Session(clock=SteppedClock(), has_sound_output=False)
    try:
        def load(show):
            show(replace(tiny_avatar, speech=None, text=None))
            return replace(tiny_avatar, text=FakeText())

        assert session.set_prompt("happy")
        session.load_avatar(load)
        until(session, lambda: session.reading == "reading of happy", "the reading")
    finally:
        session.close()


def test_a_head_whose_voice_is_damaged_is_not_kept(tiny_avatar):
    session = Session(clock=SteppedClock(), has_sound_output=False)
    try:
        def load(show):
            show(replace(tiny_avatar, speech=None, text=None))
            raise InputError("speech_backbone: truncated")

        session.load_avatar(load)
        until(session, lambda: session.messages, "the message")
        assert session.avatar is None and not session.is_loading and "truncated" in session.messages[0].text
    finally:
        session.close()


def test_a_take_has_what_was_seen_and_heard(session, sound, tmp_path):
    open_and_play(session, sound)
    list(play_through(session, 0.4))
    path = session.start_recording(tmp_path, (64, 48), 25)
    for seconds, _ in play_through(session, 1.4):
        session.offer(Render(torch.full((48, 64, 3), 0.5), torch.ones(48, 64)))
        time.sleep(0.01)
    session.stop_recording()
    until(session, lambda: session.last_take is not None, "the take")
    assert session.last_take == path and any("Saved" in message.text for message in session.messages)
    with av.open(str(path)) as container:
        assert abs(container.streams.video[0].frames - 25) <= 1
        samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    heard = samples[: 48_000 * 9 // 10 : 3]
    begin = int(0.4 * 16_000)
    truth = voice()[begin : begin + len(heard)]
    assert np.corrcoef(heard, truth)[0, 1] > 0.95


def test_closing_leaves_no_thread_no_process_and_a_whole_take(tiny_avatar, sound, tmp_path):
    threads = set(threading.enumerate())
    session = Session(clock=SteppedClock(), has_sound_output=False)
    session.use_avatar(tiny_avatar)
    open_and_play(session, sound)
    path = session.start_recording(tmp_path, (64, 48), 25)
    for _ in play_through(session, 0.5):
        session.offer(Render(torch.full((48, 64, 3), 0.5), torch.ones(48, 64)))
    session.close()
    assert path.exists()
    deadline = time.monotonic() + 10  # a prompt that is being read is not waited for
    while (multiprocessing.active_children() or not set(threading.enumerate()) <= threads) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert set(threading.enumerate()) <= threads
    assert multiprocessing.active_children() == []


def test_edits_of_a_track_are_kept_out_of_older_places(session):
    assert isinstance(session.edits, EditTrack)
    session.set_edit(smile(2.0))
    assert session.edits.at(100.0).offset[au_index("AU12")] == 2.0
