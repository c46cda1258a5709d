"""A long session in short: sound, seeks, sliders, takes; nothing is left behind.

AVATAR_VIEWER_SOAK_SECONDS=600 makes it ten minutes of session time; run with `-s` to see the figures.
"""

import gc
import os
import threading
import time
from pathlib import Path

import numpy as np
import soundfile
import torch

from avatar_viewer.action_units import au_index
from avatar_viewer.live.clock import SteppedClock
from avatar_viewer.live.session import Session
from avatar_viewer.types import AUEdit, Render

SOAK_SECONDS = float(os.environ.get("AVATAR_VIEWER_SOAK_SECONDS", "12"))
ROUND_SECONDS = 4.0
MOST_GROWTH_BYTES = 30 << 20


def memory_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_handles():
    return len(os.listdir("/proc/self/fd"))


def until(session, condition, what):
    deadline = time.monotonic() + 60
    while not condition():
        session.update()
        assert time.monotonic() < deadline, f"{what}: did not happen; messages: {session.messages}"
        time.sleep(0.002)


def live_through(session, sound, folder, turn):
    """A few seconds as an artist spends them: play, scrub, pull a slider, record, open the file again."""
    session.open_sound(sound)
    until(session, lambda: session.clock.is_playing, "playing")
    picture = Render(torch.full((48, 64, 3), 0.5), torch.ones(48, 64))
    if turn % 2:
        session.start_recording(folder, (64, 48), 25)
    for frame in range(int(ROUND_SECONDS * 25)):
        if frame == 40:
            session.seek(0.5)
            until(session, lambda: session.clock.is_playing, "playing after a seek")
        if frame % 10 == 0:
            offset = torch.zeros(17)
            offset[au_index("AU12")] = frame % 5
            session.set_edit(AUEdit(offset=offset))
        until(session, lambda: session.timeline.is_over or (session.timeline.end_seconds or 0) > session.now() + 0.08, "motion")
        session.animator.pose(session.motion(), session.edit_now())
        session.offer(picture)
        session.clock.advance(0.04)
        session.update()
    if session.is_recording:
        session.stop_recording()
        until(session, lambda: session.recorder is None, "the take")
    session.take_messages()


def test_nothing_grows_and_nothing_is_left_behind(tiny_avatar, tmp_path):
    samples = 0.3 * np.sin(2 * np.pi * 150 * np.arange(6 * 16_000) / 16_000)
    soundfile.write(tmp_path / "voice.wav", samples.astype(np.float32), 16_000)
    session = Session(clock=SteppedClock(), has_sound_output=False)
    try:
        session.use_avatar(tiny_avatar)
        session.set_prompt("happy")
        until(session, lambda: session.reading is not None, "the prompt being read")
        for turn in range(2):  # what is loaded at the first use is no growth
            live_through(session, tmp_path / "voice.wav", tmp_path, turn)
        gc.collect()
        memory, handles, threads = memory_bytes(), open_handles(), threading.active_count()
        for turn in range(max(1, round(SOAK_SECONDS / ROUND_SECONDS))):
            live_through(session, tmp_path / "voice.wav", tmp_path, turn)
        gc.collect()
        until(session, lambda: open_handles() <= handles, f"handles going back from {open_handles()} to {handles}")
        growth = memory_bytes() - memory
        print(f"\n{SOAK_SECONDS:.0f} s of session: memory {growth / 2**20:+.1f} MiB, threads {threading.active_count() - threads:+d}, handles {open_handles() - handles:+d}")
        assert growth < MOST_GROWTH_BYTES
        assert threading.active_count() <= threads
    finally:
        session.close()
