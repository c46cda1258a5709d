"""One live session: an avatar, a source of sound, a clock, edits, and perhaps a take being recorded.

The frame loop calls `update`, asks for `motion` and `edit_now`, and hands the picture to `offer`. Nothing here waits: what
takes long happens in threads built here and in the processes of `audio_io`, `decoding` and `recorder`. What goes wrong
becomes a `Message`; the session keeps what it had. Sound and time are `playback.py`'s, takes `recording.py`'s.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..avatar.animation import Animator
from ..avatar.edit_track import EditTrack
from ..avatar.manifest import identify
from ..avatar.speech_motion import SpeechMotion
from ..config import DEFAULT_STREAM, StreamContext
from ..errors import InputError
from ..types import AUEdit, MotionFrame
from .clock import Clock
from .decoding import Sound
from .delay import DEFAULT_DELAY, DelayParts, DelaySetting
from .errands import Errands
from .handoff import Failure, FirstFailure, Latest, MotionTimeline
from .listening import Listening
from .messages import Message, describe
from .playback import Playback
from .recorder import Recorder
from .recording import Recording
from .recovery import TakeRescue
from .speech_driver import SpeechDriver, SpeechJob
from .stage_trace import TRACE_SECONDS, StageTrace, write_trace
from .take_journal import AvatarIdentity, Moment

if TYPE_CHECKING:
    from ..avatar.bundle import Avatar
    from ..networks.prompt_reading import PromptReading
    from ..rendering.orbit import OrbitCamera
    from ..types import Render

_FIRST_PICTURE_SECONDS = 0.5  # that the head's voice waits for its look


_CLOSE_SECONDS = 2.0  # for threads to end; a take has its own patience


@dataclass(frozen=True)
class _Prepared:
    """An avatar with what takes time to make for it."""

    avatar: Avatar
    animator: Animator
    motion: SpeechMotion | None


@dataclass(frozen=True)
class _Look:
    """A head that can be drawn and not yet moved by a voice."""

    avatar: Avatar
    animator: Animator


class Session:
    """Everything that is alive while a window is open, owned by the main thread."""

    def __init__(
        self,
        *,
        has_sound_output: bool = True,
        output_device: str | None = None,
        seed: int = 0,
        blinks: bool = True,
        clock: Clock | None = None,  # tests give a stepped one
        make_motion: Callable[[Avatar, EditTrack], SpeechMotion] | None = None,
    ) -> None:
        self.avatar: Avatar | None = None
        self.animator: Animator | None = None
        self._avatar_identity = AvatarIdentity("", "")
        self.edits = EditTrack()
        self.timeline = MotionTimeline(1)
        self.messages: list[Message] = []
        self.reading: PromptReading | None = None  # of the newest prompt that has been read
        self.prompt = ""
        self.is_loading = False
        self.is_look = False  # the head on show waits for its voice
        self.microphone_device: str | None = None  # part of a name; None: the system's choice
        self.delay = DEFAULT_DELAY
        self.display_seconds = 0.0  # from asking for the face of a moment to showing it; told by the window
        self._seed, self._blinks = seed, blinks
        self._make_motion = make_motion or self._new_motion
        self._motion: SpeechMotion | None = None
        self._faults_told = 0
        self._edit = AUEdit()
        self._failure = FirstFailure()
        self.trace = StageTrace()
        self._trace_folder = Path()
        self._driver: SpeechDriver | None = None
        self._driver_thread: threading.Thread | None = None
        self._has_shown = threading.Event()  # the first picture
        self._loaded: Latest[_Prepared | Failure] = Latest()
        self._motion_made: Latest[SpeechMotion | Failure] = Latest()
        self._read: Latest[PromptReading | Failure] = Latest()
        self._prompts: Latest[str] = Latest()
        self._errands = Errands(self._failure, self.trace)
        self._errand_thread = threading.Thread(target=self._errands.run, name="errands", daemon=True)
        self._errand_thread.start()
        self.recording = Recording(self._say, self._errands.put)
        self.rescue = TakeRescue(self._say, self._errands.put, look=self._errands.put_droppable)
        self.playback = Playback(
            say=self._say, defer=self._errands.put, begin_speech=self._begin_speech,
            has_sound_output=has_sound_output, output_device=output_device, clock=clock,
        )  # fmt: skip

    # ---- avatar ----------------------------------------------------------------------------------------------------

    def load_avatar(self, load: Callable[[Callable[[Avatar], None]], Avatar]) -> None:
        """Run `load` (which may take seconds) off the frame loop; the old avatar stays until the new one is there.

        `load` is given what to call with the head alone, once that can be drawn: the first of a session is shown at once.
        """
        self.is_loading = True

        def errand() -> None:
            try:
                self._loaded.put(self._prepare(load(self._offer_look)))
            except Exception as error:  # the end of this errand: shown as a message
                self._loaded.put(Failure("avatar", error))

        self._errands.put_droppable(errand)

    def _offer_look(self, avatar: Avatar) -> None:
        """In the worker: the head before its voice, and time to draw it, since imports would hold the frame loop up."""
        self._loaded.put(_Look(avatar, Animator(avatar)))
        self._has_shown.wait(_FIRST_PICTURE_SECONDS)

    def use_avatar(self, avatar: Avatar) -> None:
        """Show this avatar, at once; the source and what is typed stay."""
        self._use(self._prepare(avatar))

    def _prepare(self, avatar: Avatar) -> _Prepared:
        """What an avatar needs to move; takes a third of a second, so it runs in a worker where a window is open."""
        return _Prepared(avatar, Animator(avatar), self._make_motion(avatar, self.edits) if avatar.speech is not None else None)

    def _show_look(self, look: _Look) -> None:
        self.avatar, self.animator, self.is_look = look.avatar, look.animator, True
        self._avatar_identity = AvatarIdentity(look.avatar.name, identify(look.avatar.manifest))
        self.timeline = MotionTimeline(len(look.avatar.face.neutral), device=look.avatar.rig.means.device)

    def _use(self, prepared: _Prepared) -> None:
        avatar = self.avatar = prepared.avatar
        self.animator = prepared.animator
        self._avatar_identity = AvatarIdentity(avatar.name, identify(avatar.manifest))
        self.reading = None
        for line in avatar.missing:
            self._say(line, is_error=True)
        self._stop_driver()
        self.timeline = MotionTimeline(len(avatar.face.neutral), device=avatar.rig.means.device)
        self._motion = prepared.motion
        if self._motion is not None:
            self._start_driver()
            self._begin_speech()
        self.playback.prepare()
        if self.prompt:
            self.set_prompt(self.prompt)
        elif avatar.text is not None:
            self._errands.put_droppable(lambda: avatar.text.read("neutral"))  # the text tower is slow to load; not at the first prompt

    def _new_motion(self, avatar: Avatar, edits: EditTrack) -> SpeechMotion:
        stream = self.delay.stream if self._uses_low_delay else None
        return SpeechMotion(avatar, edits, seed=self._seed, blinks=self._blinks, stream=stream)

    # ---- source and time -------------------------------------------------------------------------------------------

    def open_sound(self, path: str | Path, *, plays: bool = True) -> None:
        """Begin to decode a file; it becomes the source once it proves to be sound. `InputError` where there is no file."""
        self.playback.open_sound(path, plays=plays)

    def use_microphone(self, device: str | None = None) -> None:
        """Listen, to the device that was chosen if none is named; the picture follows the voice by a constant delay."""
        if device is not None:
            self.microphone_device = device
        self.playback.use_microphone(self.microphone_device, self._delay_seconds)
        self._fit_motion()

    def choose_microphone(self, device: str | None) -> None:
        """The device to listen to, from now on and later; None is the system's choice."""
        self.microphone_device = device
        if self.microphone is not None:
            self.use_microphone()

    def set_delay(self, delay: DelaySetting) -> None:
        """How far the picture may be behind a live voice."""
        self.delay = delay
        if self.microphone is not None:
            self.microphone.set_delay(self._delay_seconds)
            self._fit_motion()

    @property
    def _uses_low_delay(self) -> bool:
        return self.microphone is not None and self.delay.stream is not None

    @property
    def _delay_seconds(self) -> float:
        stream = self.delay.stream or (self.avatar.stream if self.avatar else DEFAULT_STREAM)
        return (stream.hop_ms + stream.lookahead_ms) / 1000 + self.delay.compute_seconds

    def _fit_motion(self) -> None:
        """Have the speech path see as far as the delay allows; a worker makes another one where it has to change."""
        avatar, motion = self.avatar, self._motion
        if avatar is None or motion is None:
            return
        if motion.stream == (self.delay.stream if self._uses_low_delay else avatar.stream):
            return

        def errand() -> None:
            try:
                self._motion_made.put(self._make_motion(avatar, self.edits))
            except Exception as error:  # the end of this errand: shown as a message
                self._motion_made.put(Failure("delay", error))

        self._errands.put_droppable(errand)

    def stop_microphone(self) -> None:
        if self.microphone is not None:
            self.playback.stop_microphone()
            self._begin_speech()
            self._fit_motion()

    @property
    def sound(self) -> Sound | None:
        return self.playback.sound

    @property
    def microphone(self) -> Listening | None:
        return self.playback.microphone

    @property
    def is_opening(self) -> bool:
        """A file is being tried."""
        return self.playback.is_opening

    @property
    def silent_because(self) -> str:
        return self.playback.output.silent_because

    @property
    def seconds(self) -> float:
        """The sound's length."""
        return self.playback.seconds

    @property
    def clock(self) -> Clock:
        return self.playback.clock

    def now(self) -> float:
        return self.playback.now()

    @property
    def is_looping(self) -> bool:
        return self.playback.is_looping

    @is_looping.setter
    def is_looping(self, is_looping: bool) -> None:
        self.playback.is_looping = is_looping

    @property
    def is_playing(self) -> bool:
        return self.playback.is_playing

    def play(self) -> None:
        playback = self.playback
        if playback.sound is None or playback.wants_to_play:
            return
        if playback.is_at_end:
            playback.seek(0.0)
        elif self.timeline.end_seconds is None:
            self._begin_speech()
        playback.play()

    def pause(self) -> None:
        self.playback.pause()

    def toggle(self) -> None:
        self.pause() if self.playback.wants_to_play else self.play()

    def seek(self, seconds: float) -> None:
        """Go there; while playing, sound resumes as soon as the face has motion for it."""
        self.playback.seek(seconds)

    # ---- edits -----------------------------------------------------------------------------------------------------

    def set_edit(self, edit: AUEdit) -> None:
        """What the artist asks for from now on. While time stands still it holds at once, without easing."""
        self._edit = edit
        self.edits.add(self.now(), edit, ease_seconds=None if self.playback.is_moving else 0.0)

    def set_prompt(self, text: str) -> bool:
        """Have the prompt read by a worker; `reading` changes when that is done. Newest wins. False: nothing can read it."""
        self.prompt = text
        if self.avatar is None or self.is_look:
            return True  # as soon as there is one that can
        if self.avatar.text is None:
            self._say("; ".join(self.avatar.missing) or "this avatar has no text encoder: prompts have no effect", is_error=True)
            return False
        text_to_au = self.avatar.text
        self._prompts.put(text)

        def errand() -> None:
            newest = self._prompts.take()
            if newest is None:
                return
            try:
                self._read.put(text_to_au.read(newest))
            except Exception as error:  # the end of this errand: shown as a message
                self._read.put(Failure("prompt", error))

        self._errands.put_droppable(errand)
        return True

    def forget_prompt(self) -> None:
        """There is no prompt any more; one that is being read will not come."""
        self.prompt, self.reading = "", None
        self._prompts.take()

    def edit_now(self) -> AUEdit:
        return self.edits.at(self.now())

    def motion(self) -> MotionFrame:
        """The face at this moment."""
        return self.timeline.at(self.now())

    # ---- once a frame ----------------------------------------------------------------------------------------------

    def update(self) -> None:
        """Take in what threads and processes have done since the last frame."""
        self._update_loaded()
        self.playback.update()
        if self.recorder is not None:
            self.recording.update(self._moment())
        self._update_trace()
        failure = self._failure.take()
        if failure is not None:
            if failure.where == "speech":
                self.pause()
                self.timeline.clear()
            self._say(f"{failure.where}: {describe(failure.error)}", is_error=True)
        self._tell_faults()
        if self._driver is not None:
            self._driver.now_seconds = self.now()
        if self._motion is not None or not self.is_loading:  # sound without a face would be over before the head is there
            self.playback.start_clock(self._has_motion)

    def begin_trace(self, folder: Path) -> None:
        """Record what every thread does and how full the queues are, ten seconds long, into a new file in `folder`."""
        if not self.trace.is_running:
            self._trace_folder = folder
            self.trace.begin()
            self._say(f"Recording a trace of {TRACE_SECONDS:.0f} seconds")

    def _update_trace(self) -> None:
        if not self.trace.is_running:
            return
        end, recorder = self.timeline.end_seconds, self.recorder
        self.trace.count(
            motion_ahead_ms=1000 * (end - self.now()) if end is not None else 0.0,
            late_frames=self.timeline.late_frames,
            errands_waiting=self._errands.num_waiting,
            sound_underflows=self.playback.output.underflows,
            pictures_to_encode=recorder.num_waiting if recorder is not None else 0,
            pictures_dropped=recorder.frames_dropped if recorder is not None else 0,
        )
        events, folder = self.trace.take_finished(), self._trace_folder
        if events is not None:
            self._errands.put(lambda: self._keep_trace(events, folder))

    def _keep_trace(self, events: list[dict[str, object]], folder: Path) -> None:
        try:
            self._say(f"Trace: {write_trace(events, folder)} (https://ui.perfetto.dev shows it)")
        except InputError as error:
            self._say(str(error), is_error=True)

    def _tell_faults(self) -> None:
        faults = self._motion.faults if self._motion is not None else 0
        if faults > self._faults_told:
            self._say("The networks gave numbers that are none; the face eases to rest until they recover", is_error=True)
        self._faults_told = faults

    def take_messages(self) -> list[Message]:
        messages, self.messages = self.messages, []
        return messages

    @property
    def delay_parts(self) -> DelayParts | None:
        """How far the picture is behind the voice; None for a file, whose sound waits for the picture."""
        microphone = self.microphone
        if microphone is None:
            return None
        stream = self.delay.stream or (self.avatar.stream if self.avatar else DEFAULT_STREAM)
        compute = microphone.delay_seconds - (stream.hop_ms + stream.lookahead_ms) / 1000
        return DelayParts(
            1000 * microphone.capture_seconds, stream.hop_ms, stream.lookahead_ms, 1000 * compute, 1000 * self.display_seconds
        )

    def set_steps_share(self, share: float) -> None:
        """How many of the avatar's sampler steps a hop gets, 0..1; fewer are faster and a little coarser."""
        if self._motion is not None:
            rows = self._motion.avatar.denoiser.config.rows
            self._motion.steps = None if share >= 1.0 else max(1, round(share * rows))

    @property
    def stream(self) -> StreamContext:
        """How far the speech path sees at present."""
        return self._motion.stream if self._motion else DEFAULT_STREAM

    @property
    def hop_seconds_spent(self) -> float:
        return self._driver.hop_seconds_spent if self._driver else 0.0

    def _has_motion(self) -> bool:
        """The face knows how to move for the next hop."""
        if self._motion is None:
            return True
        end = self.timeline.end_seconds
        hop = self._motion.stream.hop_ms / 1000
        return end is not None and (end >= self.now() + hop or self.timeline.is_over)

    def _update_loaded(self) -> None:
        loaded = self._loaded.take()
        if isinstance(loaded, _Look):
            if self.avatar is None:
                self._show_look(loaded)
        elif loaded is not None:
            was_look, self.is_look, self.is_loading = self.is_look, False, False
            if isinstance(loaded, Failure):
                self._say(describe(loaded.error), is_error=True)
                if was_look:  # a head that will never speak is no avatar
                    self.avatar = self.animator = None
            else:
                self._use(loaded)
        made = self._motion_made.take()
        if isinstance(made, Failure):
            self._say(f"The delay stays as it was: {describe(made.error)}", is_error=True)
            self.set_delay(DEFAULT_DELAY)
        elif made is not None and made.avatar is self.avatar:
            self._motion = made
            self._begin_speech()
            self._fit_motion()  # to what was chosen meanwhile
        read = self._read.take()
        if isinstance(read, Failure):
            self._say(f"prompt: {describe(read.error)}", is_error=True)
        elif read is not None and self.prompt:
            self.reading = read

    # ---- recording -------------------------------------------------------------------------------------------------

    @property
    def recorder(self) -> Recorder | None:
        return self.recording.recorder

    @property
    def last_take(self) -> Path | None:
        return self.recording.last_take

    @property
    def is_recording(self) -> bool:
        """A take is running; false already while its end is being written."""
        return self.recording.is_running

    def start_recording(self, folder: Path, size: tuple[int, int], fps: float) -> Path:
        """Begin a take under a free name; `InputError` where it cannot be written."""
        if self.avatar is None:
            raise InputError("there is no head to record yet; open an avatar")
        if self.is_look:
            raise InputError("the head has no voice yet; record when it is loaded")
        return self.recording.start(folder, size, fps, self._moment())

    def offer(self, render: Render, camera: OrbitCamera | None = None) -> None:
        """Give the picture of this moment, and all the sound since the last one, to the take if there is one."""
        self._has_shown.set()
        if self.is_recording:
            self.recording.offer(render, self.now(), self.playback.heard, self._moment(camera))

    def stop_recording(self) -> None:
        """End the take; a message follows once its file is whole."""
        self.recording.stop()

    def _moment(self, camera: OrbitCamera | None = None) -> Moment:
        """What the face does now, for the take's journal."""
        assert self.avatar is not None
        is_speaking = self._driver is not None and self.playback.source is not None
        run = self._driver.speech_run if self._driver is not None and is_speaking else None
        return Moment(self._avatar_identity, self.edits, self.prompt, camera, run, is_beginning=is_speaking)

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _begin_speech(self) -> None:
        """Let the speech thread work from the present moment of the present source, with the present edit throughout."""
        self.recording.jump()
        self.edits.clear()
        self.edits.add(-1e6, self._edit, ease_seconds=0.0)
        source, sound = self.playback.source, self.sound
        if source is None and self._driver is not None:
            self._driver.leave()
        if source is None and self.microphone is not None:  # it is gone for a while: the face comes to rest, as after a sound
            self.timeline.finish()
            return
        if source is None or self._motion is None or self._driver is None:
            self.timeline.clear()
            return
        is_complete = (lambda: False) if sound is None else (lambda: sound.is_complete)
        self._driver.begin(SpeechJob(self._motion, source.speech, is_complete, self.now()))

    def _start_driver(self) -> None:
        self._driver = SpeechDriver(self.timeline, self._failure, self.trace)
        self._driver_thread = threading.Thread(target=self._driver.run, name="speech", daemon=True)
        self._driver_thread.start()

    def _stop_driver(self) -> None:
        if self._driver is not None and self._driver_thread is not None:
            self._driver.stop()
            self._driver_thread.join(timeout=5.0)
        self._driver = self._driver_thread = None

    def _say(self, text: str, *, is_error: bool = False) -> None:
        self.messages.append(Message(text, is_error))

    def close(self) -> None:
        """Stop from any state, in a moment; a take is finished, not lost.

        All are told first and waited for afterwards, together. A thread that is loading an avatar is left to end by itself, or
        with the program.
        """
        until = time.monotonic() + _CLOSE_SECONDS
        self.pause()
        self.recording.stop()
        self.playback.quit()
        if self._driver is not None:
            self._driver.stop()
        self.recording.close()
        self._errands.close()
        self.playback.close()
        for thread, is_waited_for in ((self._driver_thread, True), (self._errand_thread, self._errands.is_needed)):
            if thread is not None and is_waited_for:
                thread.join(timeout=max(0.0, until - time.monotonic()))
        self._driver = self._driver_thread = None
