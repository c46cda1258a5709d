"""What a kill leaves of a take is found, looked at, and made whole; nothing goes unasked."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from interrupted_take import interrupt_take

from avatar_viewer.errors import InputError
from avatar_viewer.live.decoding import PLAYBACK_RATE
from avatar_viewer.live.recorder import Recorder, is_playable
from avatar_viewer.live.recovery import discard, find_remains, recover, video_seconds
from avatar_viewer.live.take_file import TakeFile
from avatar_viewer.live.take_folder import PICTURE, TakeFolder, find_abandoned

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}

# A program that records in real time, with a journal, and says what it has handed over: "encoder's pid" and then sound frames.
PROGRAM = """
import sys, time, numpy as np, torch
from pathlib import Path
from avatar_viewer.avatar.edit_track import EditTrack
from avatar_viewer.live.recorder import Recorder
from avatar_viewer.live.take_journal import AvatarIdentity, Moment, TakeJournal
if __name__ == "__main__":
    torch.set_num_threads(1)
    recorder = Recorder(Path(sys.argv[1]), (96, 64), 25)
    journal = TakeJournal(recorder.folder, AvatarIdentity("none", "0"), (96, 64), 25, "")
    moment = Moment(AvatarIdentity("none", "0"), EditTrack(), "", None, None)
    sound = (9000 * np.sin(np.arange(1920) / 20)).astype(np.int16)[:, None].repeat(2, 1)
    began, index = None, 0
    while True:
        if began is None and recorder.frames_written > max(10, index - 10):  # it has started, and caught up
            print(recorder._process.pid, flush=True)
            began = time.monotonic()
        recorder.hear(sound)
        journal.note_sound(index * 1920, 1920, index * 1920, runs=True)
        journal.note(index * 1920, moment)
        recorder.offer(torch.rand(64, 96, 3), index)
        index += 1
        if began is not None:
            print(index, flush=True)
        time.sleep(0.04)
"""


def kill_while_recording(folder, wait_seconds, victims):
    """Let the program record, kill it and its encoder at once (or one of them); -> pictures handed over."""
    script = folder / "take.py"
    script.write_text(PROGRAM)
    process = subprocess.Popen([sys.executable, str(script), str(folder / "a.mp4")], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    encoder = int(process.stdout.readline())
    deadline, handed_over = time.monotonic() + wait_seconds, 0
    for line in process.stdout:
        handed_over = int(line)
        if time.monotonic() > deadline:
            break
    for victim in victims:
        os.kill(process.pid if victim == "program" else encoder, signal.SIGKILL)
    process.kill()
    process.wait(10)
    process.stdout.close()
    return handed_over


def wait_until_abandoned(folder):
    deadline = time.monotonic() + 20
    while not find_abandoned(folder):
        assert time.monotonic() < deadline, "the encoder did not end"
        time.sleep(0.05)


@pytest.mark.parametrize("victims", [("program", "encoder"), ("encoder", "program"), ("program",)], ids=" then ".join)
def test_a_kill_at_a_random_moment_costs_at_most_a_second_of_picture_and_no_sound(tmp_path, victims):
    handed_over = kill_while_recording(tmp_path, random.uniform(1.0, 3.0), victims)
    wait_until_abandoned(tmp_path)
    (remains,) = find_remains(tmp_path)
    assert remains.video_seconds >= handed_over / 25 - 1.0
    assert remains.heard_seconds >= handed_over / 25
    recovered = recover(remains)
    assert is_playable(recovered.video) and recovered.video == tmp_path / "a.mp4"
    assert video_seconds(recovered.video) == pytest.approx(remains.video_seconds)
    with TakeFile(recovered.take) as take:
        assert take.seconds == pytest.approx(remains.heard_seconds)
    assert find_remains(tmp_path) == [] and not TakeFolder(tmp_path / "a.mp4").path.exists()


def test_a_recovered_take_is_an_ordinary_mp4_in_sync(tmp_path):
    interrupt_take(tmp_path)
    video = recover(*find_remains(tmp_path)).video
    with av.open(str(video)) as container:
        flashes = [float(f.time) for f in container.decode(video=0) if f.to_ndarray(format="gray").mean() > 150]
    with av.open(str(video)) as container:
        assert container.streams.video[0].frames == 40
        frames = list(container.decode(audio=0))
    samples = np.concatenate([f.to_ndarray()[0] for f in frames])
    loud = np.flatnonzero(np.abs(samples) > 0.1)
    beeps = [frames[0].time + start / PLAYBACK_RATE for start in loud[np.insert(np.diff(loud) > 4000, 0, True)]]
    assert flashes == pytest.approx([0.0, 1.0]) and beeps == pytest.approx([0.0, 1.0], abs=0.002)


def test_a_take_that_is_running_is_not_taken_for_an_interrupted_one(tmp_path):
    recorder = Recorder(tmp_path / "a.mp4", (96, 64), 25)
    assert find_remains(tmp_path) == []
    with pytest.raises(InputError, match="another program"):
        Recorder(tmp_path / "a.mp4", (96, 64), 25)
    recorder.discard()


def test_without_a_picture_the_take_file_remains(tmp_path):
    folder = interrupt_take(tmp_path)
    (folder / PICTURE).write_bytes(b"\0" * 5000)
    (remains,) = find_remains(tmp_path)
    assert remains.video_seconds == 0 and remains.heard_seconds == pytest.approx(1.6)
    recovered = recover(remains)
    assert recovered.video is None
    with TakeFile(recovered.take) as take:
        assert take.seconds == pytest.approx(1.6)


def test_a_damaged_picture_never_gets_lost_in_recovery(tmp_path):
    """Bytes changed anywhere: what could be decoded before can be decoded after."""
    whole = (interrupt_take(tmp_path) / PICTURE).read_bytes()
    generator = np.random.default_rng(0)
    for number in range(12):
        folder = TakeFolder(tmp_path / f"b{number}.mp4")
        TakeFolder.create(folder.video).release()
        data = bytearray(whole[: generator.integers(len(whole) // 2, len(whole))])
        for place in generator.integers(len(data), size=4):
            data[place] ^= 0xFF
        (folder / PICTURE).write_bytes(data)
        remains = next(found for found in find_remains(tmp_path) if found.name == f"b{number}.mp4")
        recovered = recover(remains)
        if remains.video_seconds:
            assert video_seconds(recovered.video) >= remains.video_seconds - 1e-3
        else:
            assert recovered.video is None and (folder / PICTURE).exists(), "nothing goes unasked"


def test_names_taken_meanwhile_are_left_alone_and_only_discard_deletes(tmp_path):
    interrupt_take(tmp_path)
    (tmp_path / "a.mp4").write_text("precious")
    recovered = recover(*find_remains(tmp_path))
    assert (tmp_path / "a.mp4").read_text() == "precious" and is_playable(recovered.video)
    interrupt_take(tmp_path, "b.mp4", pictures=5)
    (remains,) = find_remains(tmp_path)
    discard(remains)
    assert find_remains(tmp_path) == [] and not remains.folder.path.exists()


def test_a_folder_that_cannot_be_read_has_no_takes(tmp_path):
    assert find_remains(tmp_path / "nowhere") == []
    (tmp_path / "file").touch()
    assert find_remains(tmp_path / "file") == []
    (tmp_path / "foreign.mp4.partial").mkdir()
    assert find_remains(tmp_path) == []
    TakeFolder.create(tmp_path / "b.mp4").release()
    (remains,) = find_remains(tmp_path)
    assert remains.is_empty
