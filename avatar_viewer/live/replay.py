"""A take performed again, off-line: what the artist did, when, on the take's own time; every picture at its exact moment.

Live, a picture shows the moment at which it happened to be drawn, and motion that came late was bridged. Here every
picture has its own moment and all its motion. Knows a take file and an avatar; draws nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch

from ..avatar.edit_track import EditTrack
from ..avatar.speech_motion import SpeechMotion
from ..config import SAMPLE_RATE, StreamContext
from ..errors import InputError
from ..rendering.orbit import OrbitCamera
from ..types import AudioChunk, AUEdit, Camera, MotionFrame, MotionWindow
from .decoding import PLAYBACK_RATE
from .handoff import MotionTimeline
from .spool import SpoolReader
from .take_file import Entry, TakeFile

if TYPE_CHECKING:
    from ..avatar.bundle import Avatar

_CAMERA_FIELDS = tuple(item.name for item in fields(OrbitCamera))


@dataclass(frozen=True)
class Scene:
    """What a picture is drawn from."""

    motion: MotionFrame
    edit: AUEdit
    camera: OrbitCamera | Camera


def replay(avatar: Avatar, take: TakeFile, fps: float, total: int) -> Iterator[Scene]:
    """The scenes of `total` pictures, in order; `InputError` where the log asks for what this avatar cannot do."""
    performance = _Performance(avatar, take)
    try:
        for index in range(total):
            yield performance.at(round(index * PLAYBACK_RATE / fps))
    finally:
        performance.close()


class _Performance:
    """The state of everything at a moment of the take, which only goes forward."""

    def __init__(self, avatar: Avatar, take: TakeFile) -> None:
        self._avatar, self._take = avatar, take
        self._entries = take.log.entries
        self._next = 0  # entry
        self._place = (0, 0, False)  # sample frame of the take, of the source, the sound runs
        self._edits = EditTrack()
        self._camera = OrbitCamera()
        self._reader = SpoolReader(take.speech)
        self._timeline = self._new_timeline()
        self._windows: Iterator[MotionWindow] = iter(())

    def at(self, take_frame: int) -> Scene:
        while self._next < len(self._entries) and self._entries[self._next].at <= take_frame:
            entry = self._entries[self._next]
            self._next += 1
            getattr(self, f"_do_{entry.does}")(entry)
        since, source_frame, runs = self._place
        now = (source_frame + (take_frame - since if runs else 0)) / PLAYBACK_RATE
        fill(self._timeline, self._windows, now)
        scene = Scene(self._timeline.at(now), self._edits.at(now), self._camera)
        self._timeline.prune(now - 1.0)
        return scene

    def close(self) -> None:
        self._reader.close()

    # ---- the log's verbs -------------------------------------------------------------------------------------------

    def _do_play(self, entry: Entry) -> None:
        self._place = (entry.at, entry.values["from"], True)

    def _do_pause(self, entry: Entry) -> None:
        self._place = (entry.at, entry.values["from"], False)

    def _do_speak(self, entry: Entry) -> None:
        place = self._next - 1
        following = next((later for later in self._entries[place + 1 :] if later.does == "speak"), None)
        end = following.values["first"] if following else self._reader.count
        self._timeline = self._new_timeline()
        self._windows = _speak(self._new_motion(entry.values, place), self._reader, entry.values["first"], end)

    def _do_rest(self, entry: Entry) -> None:
        self._timeline, self._windows = self._new_timeline(), iter(())

    def _do_hop(self, entry: Entry) -> None:
        pass  # known from its `speak` on

    def _do_edit(self, entry: Entry) -> None:
        values = entry.values
        self._edits.add(values["seconds"], values["edit"], ease_seconds=values["ease_seconds"])

    def _do_forget(self, entry: Entry) -> None:
        self._edits.clear()

    def _do_look(self, entry: Entry) -> None:
        self._camera = OrbitCamera(**{name: entry.values[name] for name in _CAMERA_FIELDS})

    def _do_prompt(self, entry: Entry) -> None:
        pass  # its words; what they came to is in the edits

    def _do_avatar(self, entry: Entry) -> None:
        raise InputError(
            f"take {self._take.path}: its head changes at {entry.at / PLAYBACK_RATE:.1f} s, to {entry.values['name']!r}; "
            "only takes of one head can be rendered again"
        )

    def _new_timeline(self) -> MotionTimeline:
        return MotionTimeline(len(self._avatar.face.neutral), device=self._avatar.rig.means.device)

    def _new_motion(self, values: dict[str, Any], place: int) -> SpeechMotion:
        """The speech path as it was, asked hop by hop for what it was asked for then."""
        hops = EditTrack(0.0)
        for later in self._entries[place + 1 :]:
            if later.does == "speak":
                break
            if later.does == "hop":
                hops.add(later.values["seconds"], later.values["edit"])
        motion = SpeechMotion(
            self._avatar, hops, seed=values["seed"], blinks=values["blinks"], guidance=values["guidance"],
            stream=StreamContext(values["hop_ms"], values["lookahead_ms"]),
        )  # fmt: skip
        motion.reset(values["seconds"])
        return motion


def _speak(motion: SpeechMotion, reader: SpoolReader, first: int, end: int) -> Iterator[MotionWindow]:
    hop = motion.stream.hop_samples
    for start in range(first, end, hop):
        count = min(hop, end - start)
        samples = torch.from_numpy(reader.read(start, count)[:, 0])
        yield from motion.feed(AudioChunk(samples, motion.start_seconds + (start - first) / SAMPLE_RATE))
    yield from motion.finish()


def fill(timeline: MotionTimeline, windows: Iterator[MotionWindow], now: float) -> None:
    """Have motion for one frame beyond `now`, or all there is."""
    while timeline.end_seconds is None or timeline.end_seconds <= now + 0.1:
        window = next(windows, None)
        if window is None:
            timeline.finish()
            return
        timeline.extend(window)
