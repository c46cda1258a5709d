"""A take as a killed program leaves it: a flash and a beep at every whole second, picture, sound and log in its folder."""

import numpy as np
import torch

from avatar_viewer.avatar.edit_track import EditTrack
from avatar_viewer.live.decoding import PLAYBACK_RATE
from avatar_viewer.live.recorder import Recorder
from avatar_viewer.live.take_journal import AvatarIdentity, Moment, TakeJournal

PER_FRAME = PLAYBACK_RATE // 25


def interrupt_take(folder, name="a.mp4", pictures=40):
    """-> its folder, which nobody holds any more."""
    recorder = Recorder(folder / name, (96, 64), 25, waits=True)
    journal = TakeJournal(recorder.folder, AvatarIdentity("none", "0"), (96, 64), 25, "")
    for index in range(pictures):
        flash = index % 25 == 0
        sound = np.zeros((PER_FRAME, 2), np.int16)
        sound[:480] = (12_000 * np.sin(np.arange(480) * 2 * np.pi * 1000 / PLAYBACK_RATE))[:, None] if flash else 0
        recorder.hear(sound)
        journal.note_sound(index * PER_FRAME, PER_FRAME, 0, runs=False)
        journal.note(index * PER_FRAME, Moment(AvatarIdentity("none", "0"), EditTrack(), "", None, None))
        recorder.offer(torch.full((64, 96, 3), 0.9 if flash else 0.2), index)
    journal.close()
    recorder._connection.close()
    recorder._process.join(20)
    recorder.folder.release()
    return recorder.folder
