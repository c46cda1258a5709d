"""Takes are whole, in sync, exactly as long as they say, and survive what kills the program."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from avatar_viewer.errors import InputError
from avatar_viewer.live.decoding import PLAYBACK_RATE
from avatar_viewer.live.recorder import Recorder, RecorderError, is_playable
from avatar_viewer.live.take_folder import PICTURE, TakeFolder, free_take_path

PER_FRAME = PLAYBACK_RATE // 25
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def picture(level, size=(96, 64)):
    return torch.full((size[1], size[0], 3), float(level))


def beep(count):
    sound = np.zeros((PER_FRAME, 2), dtype=np.int16)
    sound[:count] = (12_000 * np.sin(np.arange(count) * 2 * np.pi * 1000 / PLAYBACK_RATE))[:, None]
    return sound


def record_flashes(path, frames=75):
    """A flash and a beep at every whole second."""
    recorder = Recorder(path, (96, 64), 25, waits=True)
    for index in range(frames):
        recorder.hear(beep(480 if index % 25 == 0 else 0))
        recorder.offer(picture(0.9 if index % 25 == 0 else 0.2), index)
    return recorder.finish(frames)


def flashes_and_beeps(path):
    with av.open(str(path)) as container:
        flashes = [float(f.time) for f in container.decode(video=0) if f.to_ndarray(format="gray").mean() > 150]
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    samples = np.concatenate([f.to_ndarray()[0] for f in frames])
    loud = np.flatnonzero(np.abs(samples) > 0.1)
    starts = loud[np.insert(np.diff(loud) > 4000, 0, True)]
    return flashes, [frames[0].time + start / PLAYBACK_RATE for start in starts]


def test_sound_and_picture_are_in_sync_and_of_the_stated_length(tmp_path):
    path = record_flashes(tmp_path / "a.mp4")
    flashes, beeps = flashes_and_beeps(path)
    assert flashes == pytest.approx([0.0, 1.0, 2.0], abs=1e-6)
    assert beeps == pytest.approx([0.0, 1.0, 2.0], abs=0.002)
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
        assert video.frames == 75 and float(video.duration * video.time_base) == pytest.approx(3.0)
        assert float(audio.duration * audio.time_base) == pytest.approx(3.0, abs=0.001)


def test_colours_survive_the_video(tmp_path):
    colors = torch.tensor([0.8, 0.3, 0.2]).expand(64, 96, 3)
    recorder = Recorder(tmp_path / "a.mp4", (96, 64), 25, with_sound=False, waits=True)
    for index in range(5):
        recorder.offer(colors, index)
    with av.open(str(recorder.finish(5))) as container:
        shown = next(container.decode(video=0)).to_ndarray(format="rgb24")[32, 48] / 255
    assert shown == pytest.approx([0.8, 0.3, 0.2], abs=0.02)


def test_missing_pictures_are_repeated_so_that_the_rate_holds(tmp_path):
    recorder = Recorder(tmp_path / "a.mp4", (96, 64), 25, with_sound=False, waits=True)
    for index, level in ((0, 0.2), (1, 0.2), (5, 0.9)):
        recorder.offer(picture(level), index)
    path = recorder.finish(8)
    with av.open(str(path)) as container:
        levels = [f.to_ndarray(format="gray").mean() for f in container.decode(video=0)]
    assert [level > 150 for level in levels] == [False] * 5 + [True] * 3


def test_a_discarded_take_leaves_nothing(tmp_path):
    recorder = Recorder(tmp_path / "a.mp4", (96, 64), 25)
    recorder.offer(picture(0.5), 0)
    recorder.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_name_appears_only_when_the_file_is_whole(tmp_path):
    recorder = Recorder(tmp_path / "a.mp4", (96, 64), 25, waits=True)
    recorder.hear(beep(0))
    recorder.offer(picture(0.5), 0)
    assert not (tmp_path / "a.mp4").exists()
    recorder.finish(1)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [("a.mp4", (97, 64), "even size"), ("a.mp4", (8, 8), "16 to 8192"), ("none/a.mp4", (96, 64), "does not exist"), (".", (96, 64), "is a folder")],
)
def test_what_cannot_be_recorded_is_said_at_the_start(tmp_path, name, size, words):
    with pytest.raises(InputError, match=words):
        Recorder(tmp_path / name, size, 25)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_take_is_never_written_over(tmp_path):
    (tmp_path / "a.mp4").write_text("precious")
    with pytest.raises(InputError, match="exists already"):
        Recorder(tmp_path / "a.mp4", (96, 64), 25)
    assert (tmp_path / "a.mp4").read_text() == "precious"
    now = time.localtime(0)
    first = free_take_path(tmp_path, now)
    first.touch()
    assert free_take_path(tmp_path, now) not in (first,)


def test_a_dead_encoder_is_reported_and_the_take_so_far_kept(tmp_path):
    recorder = Recorder(tmp_path / "a.mp4", (96, 64), 25, waits=True)
    with pytest.raises(RecorderError):
        for index in range(500):
            recorder.hear(beep(480))
            recorder.offer(picture(index % 2), index)
            if index == 120:
                os.kill(recorder._process.pid, signal.SIGKILL)
    kept = recorder.keep_what_plays()
    assert kept == tmp_path / "a.mp4" and is_playable(kept)
    with av.open(str(kept)) as container:
        assert sum(1 for _ in container.decode(video=0)) >= 75


def test_a_full_disk_is_reported(tmp_path):
    """The encoder's file may not grow beyond 40 kB: the system answers as a full disk does."""
    script = f"""
import resource, signal, torch, numpy as np
from avatar_viewer.live.recorder import Recorder, RecorderError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
if __name__ == "__main__":
    recorder = Recorder({str(tmp_path / "a.mp4")!r}, (96, 64), 25, with_sound=False, waits=True)
    resource.prlimit(recorder._process.pid, resource.RLIMIT_FSIZE, (40_000, 40_000))
    try:
        for index in range(2000):
            recorder.offer(torch.rand(64, 96, 3), index)
    except RecorderError as error:
        print("reported:", error, recorder.keep_what_plays())
"""
    (tmp_path / "full.py").write_text(script)
    answer = subprocess.run([sys.executable, str(tmp_path / "full.py")], capture_output=True, text=True, timeout=180, env=ENVIRONMENT)
    assert "reported:" in answer.stdout, answer.stderr


def test_a_killed_program_leaves_a_playable_take(tmp_path):
    script = f"""
import time, torch, numpy as np
from avatar_viewer.live.recorder import Recorder
if __name__ == "__main__":
    recorder = Recorder({str(tmp_path / "a.mp4")!r}, (96, 64), 25)
    for index in range(10_000):
        recorder.hear(np.zeros((1920, 2), np.int16))
        recorder.offer(torch.rand(64, 96, 3), index)
        time.sleep(0.01)
        print(recorder.frames_written, flush=True)
"""
    (tmp_path / "take.py").write_text(script)
    process = subprocess.Popen([sys.executable, str(tmp_path / "take.py")], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    last = 0
    for line in process.stdout:
        last = int(line)
        if last >= 150:
            process.kill()
            break
    process.wait(10)
    partial = TakeFolder(tmp_path / "a.mp4") / PICTURE
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and not is_playable(partial):
        time.sleep(0.1)
    assert is_playable(partial)
    with av.open(str(partial)) as container:
        frames = sum(1 for _ in container.decode(video=0))
    assert frames >= last - 25, "more than a second is lost"


def test_a_take_that_cannot_get_its_name_stays_where_it_is(tmp_path, monkeypatch):
    recorder = Recorder(tmp_path / "a.mp4", (96, 64), 25, waits=True)
    recorder.hear(beep(0))
    recorder.offer(picture(0.5), 0)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(RecorderError, match=r"picture.mp4 is whole.*Permission denied"):
        recorder.finish(1)
    assert recorder.keep_what_plays() is None
    assert is_playable(TakeFolder(tmp_path / "a.mp4") / PICTURE)
