"""What was done during a take, written as it happens: enough to perform it again, off-line and at any quality.

Lines of JSON beside the sound. Each says `at` which sample frame of the take's sound (48 kHz) it holds from, and what it
`does`; the first line says whose take it is. Every line is whole once written, and the file is synced with the picture.

    play, pause     the sound runs, or stands, at sample frame `from` of its source
    speak           the face follows the speech samples from `first` on, which begin at `seconds` of the source; with the
                    avatar's own number of sampler steps, even where a busy machine took fewer
    rest            nothing is spoken any more
    hop             what the speech path was asked for from `seconds` on
    edit, forget    what the artist asked for at `seconds`; all that was asked for is void
    look            the camera
    prompt, avatar  the words typed; another head

Knows values, not threads; belongs to the frame loop.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..avatar.edit_track import EditEvent, EditTrack, edit_to_json
from ..config import SAMPLE_RATE
from .decoding import PLAYBACK_RATE
from .spool import SpoolFormat, SpoolReader, SpoolWriter, write_whole
from .take_file import FORMAT, FORMAT_VERSION
from .take_folder import LOG, SPEECH, TakeFolder

if TYPE_CHECKING:
    from ..rendering.orbit import OrbitCamera
    from .speech_driver import SpeechRun

# Of speech before a take, so that the networks know what was being said. The demo head's face then moves within 0.00001 mm
# of one that has heard everything; with 5 s it is 0.008 mm, with 2 s 0.26 mm.
LEAD_IN_SECONDS = 10.0
_AHEAD_SECONDS = 0.4  # beyond a picture's hop and look-ahead


@dataclass(frozen=True)
class AvatarIdentity:
    """Which head, and in which state of training."""

    name: str
    sha256: str  # of all its files' fingerprints


@dataclass(frozen=True)
class Moment:
    """What a picture was drawn from, its sound apart."""

    avatar: AvatarIdentity
    edits: EditTrack
    prompt: str
    camera: OrbitCamera | None
    run: SpeechRun | None  # None: nothing is spoken, or the speech path is about to begin
    is_beginning: bool = False


class TakeJournal:
    """Writes the log and the speech of one take. `OSError` where the disk is full."""

    def __init__(self, folder: TakeFolder, avatar: AvatarIdentity, size: tuple[int, int], fps: float, started: str) -> None:
        self._file = open(folder / LOG, "xb", buffering=0)
        self._spool = SpoolFormat(str(folder / SPEECH), SAMPLE_RATE, 1, "float32")
        self._speech = SpoolWriter(self._spool)
        self._avatar = avatar
        self._expected: tuple[bool, int] | None = None  # the sound runs, from this sample frame of its source
        self._source_frame = 0
        self._events: tuple[EditEvent, ...] = ()
        self._camera: dict[str, Any] | None = None
        self._prompt = ""
        self._run: SpeechRun | None = None
        self._reader: SpoolReader | None = None
        self._copied = 0  # samples of the run's source
        self._begun_at: int | None = None  # when the run was asked for that has not come yet
        self._hops = 0  # entries of the run's log that are written
        self._write(
            {"format": FORMAT, "version": FORMAT_VERSION, "avatar": asdict(avatar), "size": list(size), "fps": fps, "started": started}
        )

    def note_sound(self, at: int, count: int, source_frame: int, *, runs: bool) -> None:
        """`count` sample frames were appended at `at`; they began at `source_frame` of the source, or time stood there."""
        if self._expected != (runs, source_frame):
            if not runs and count:
                at += 1  # a picture of just this moment still shows where time ran before
            self._add(at, "play" if runs else "pause", **{"from": source_frame})
        self._source_frame = source_frame + count if runs else source_frame
        self._expected = (runs, self._source_frame)

    def note(self, at: int, moment: Moment) -> None:
        """What holds from `at` on."""
        if moment.avatar != self._avatar:
            self._avatar = moment.avatar
            self._add(at, "avatar", **asdict(moment.avatar))
        if moment.prompt != self._prompt:
            self._prompt = moment.prompt
            self._add(at, "prompt", text=moment.prompt)
        camera = asdict(moment.camera) if moment.camera is not None else None
        if camera is not None and camera != self._camera:
            self._camera = camera
            self._add(at, "look", **camera)
        self._note_edits(at, moment.edits.events)
        self._note_run(at, moment)

    def close(self) -> None:
        for part in (self._file, self._speech, self._reader):
            if part is not None:
                part.close()

    def _note_edits(self, at: int, events: tuple[EditEvent, ...]) -> None:
        known = self._events
        if events is known:
            return
        self._events = events
        if known and (len(events) < len(known) or events[len(known) - 1] is not known[-1]):
            self._add(at, "forget")
            known = ()
        for event in events[len(known) :]:
            self._add(at, "edit", seconds=event.seconds, ease_seconds=event.ease_seconds, edit=edit_to_json(event.edit))

    def _note_run(self, at: int, moment: Moment) -> None:
        if moment.run is not self._run:
            self._run = moment.run
            if self._reader is not None:
                self._reader.close()
                self._reader = None
            if moment.run is not None:
                self._begin_run(at if self._begun_at is None else self._begun_at, moment.run)
            elif not moment.is_beginning:
                self._add(at, "rest")
            self._begun_at = at if moment.is_beginning and moment.run is None else None
        elif moment.run is None and moment.is_beginning and self._begun_at is None:
            self._begun_at = at
        if self._run is not None:
            self._note_hops(at, self._run)
            self._copy_speech(self._run)

    def _begin_run(self, at: int, run: SpeechRun) -> None:
        motion = run.motion
        self._reader = SpoolReader(run.spool)
        hop, now = motion.stream.hop_samples, self._source_frame * SAMPLE_RATE // PLAYBACK_RATE
        hops_left_out = max(0, now - run.start_samples - round(LEAD_IN_SECONDS * SAMPLE_RATE)) // hop
        if run.spool.ring_frames:
            hops_left_out = max(hops_left_out, -(-(self._reader.oldest - run.start_samples) // hop))
        self._copied = run.start_samples + hops_left_out * hop
        self._hops = 0
        self._add(
            at, "speak", first=self._speech.count, seconds=self._copied / SAMPLE_RATE, is_whole=hops_left_out == 0, seed=motion.seed,
            blinks=motion.blinks, guidance=motion.guidance, hop_ms=motion.stream.hop_ms,
            lookahead_ms=motion.stream.lookahead_ms,
        )  # fmt: skip

    def _note_hops(self, at: int, run: SpeechRun) -> None:
        known, self._hops = self._hops, len(run.edit_log)
        for hop, edit in run.edit_log[known : self._hops]:
            seconds = (run.start_samples + hop * run.motion.stream.hop_samples) / SAMPLE_RATE
            self._add(at, "hop", seconds=seconds, edit=edit_to_json(edit))

    def _copy_speech(self, run: SpeechRun) -> None:
        stream = run.motion.stream
        ahead = _AHEAD_SECONDS + (stream.hop_ms + stream.lookahead_ms) / 1000
        end = min(self._reader.count, self._source_frame * SAMPLE_RATE // PLAYBACK_RATE + round(ahead * SAMPLE_RATE))
        if end > self._copied:
            self._speech.append(self._reader.read(self._copied, end - self._copied))
            self._copied = end

    def _add(self, at: int, does: str, **values: Any) -> None:
        self._write({"at": at, "does": does, **values})

    def _write(self, line: dict[str, Any]) -> None:
        write_whole(self._file, json.dumps(line).encode("ascii") + b"\n")
