"""The window's frame loop: panels write edits, the session tells the face of this moment, the picture is drawn.

Nothing here waits: loading, reading prompts, speech, sound, decoding and encoding happen elsewhere (`live.session`).
Nothing is redrawn while nothing changes.
"""

from __future__ import annotations

import signal
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..avatar.animation import edited_codes, pose_gaussians
from ..avatar.bundle import Avatar, load_avatar
from ..errors import InputError
from ..live.children import end_children
from ..live.decoding import SOUND_SUFFIXES
from ..live.export import BACKGROUND
from ..live.handoff import MotionTimeline
from ..live.messages import describe
from ..live.pacing import Pacing
from ..live.session import Session
from ..live.trace import StageTimes, Trace
from ..rendering import gsplat_backend
from ..rendering.orbit import OrbitCamera
from ..rendering.rasterize import choose_backend, rasterize
from ..types import AUEdit, GaussianFrame, Render
from . import gate
from .au_panel import AUPanel
from .avatar_panel import AvatarPanel
from .dialogs import ErrorDialog, ShortcutSheet
from .edit_state import EditState
from .file_list import FileList
from .prompt import PromptPanel
from .record import RecordPanel
from .rescue import RescueDialog
from .rest import Need, Rest
from .screen import InputSense
from .shortcuts import find_action
from .sound_panel import SoundPanel
from .status import HEIGHT as STATUS_HEIGHT
from .status import FrameRate, StatusPanel
from .theme import apply_look
from .transport import HEIGHT as TRANSPORT_HEIGHT
from .transport import TransportPanel
from .viewport import ViewportPanel

PANEL_WIDTH = 430
_EASE_SECONDS = 0.4  # after an edit the face still moves for so long
_CPU_FPS, _GPU_FPS = 40.0, 60.0  # two cores also have speech to hear and a window to draw
_SHARP_SECONDS = 0.5  # a face that stands still so long is drawn at full size, whatever is being shed
_KEY_REPEAT_SECONDS = 0.2
_ERROR_SECONDS = 10.0  # that an error stays in sight whatever else there is to say
_LONG_MESSAGE = 180  # characters: these get a dialog


@dataclass(frozen=True)
class ViewerOptions:
    avatar: Path
    audio: Path | None = None
    microphone: str | None = None  # "": the system's choice; None: no microphone
    prompt: str = ""
    size: tuple[int, int] = (512, 512)
    backend: str = "auto"
    takes: Path = Path("takes")
    trace: Path | None = None
    window_size: tuple[int, int] = (1180, 780)


class App:
    """The open window."""

    def __init__(self, options: ViewerOptions) -> None:
        self._options = options
        self._is_stopping = False
        self._handlers = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}  # before any process is started
        self._trace = Trace(options.trace) if options.trace else None
        self.session = Session()
        self.edits = EditState()
        self.camera = OrbitCamera()
        self._backend = "cpu" if options.backend == "cpu" else ""  # known once the avatar is loaded
        self._avatar_shown: Avatar | None = None
        self._render: Render | None = None
        self._must_draw = True
        self._moving_until = 0.0
        self._last_motion = time.monotonic()
        self._last_mouse: tuple = ()
        self._last_key: tuple[str, float] = ("", 0.0)
        self._last_trace = 0.0
        self._rate = FrameRate()
        self._pacing = Pacing()
        self._sense = InputSense()
        self._rest = Rest(self._sense)
        self._stages = StageTimes(self.session.trace)
        self._pictures = 0
        self._failed_pictures = 0  # in a row
        self._message = ""
        self._error_until = 0.0  # time.monotonic() before which a notice does not replace the error on show
        self._edit_given: AUEdit | None = None
        gate.open_window("Avatar viewer", options.window_size)
        self._build()

    def _build(self) -> None:
        look, session, edits = apply_look(), self.session, self.edits
        inner = PANEL_WIDTH - 40
        with gate.window(no_scrollbar=True) as root:
            with gate.row():
                with gate.column():
                    self._viewport = ViewportPanel(look, self.camera, self._options.size)
                    self._transport = TransportPanel(look, session, self._ask_sound, self._toggle_microphone)
                with gate.child(width=PANEL_WIDTH, border=False, always_use_window_padding=True) as self._panel:
                    self._avatar_panel = AvatarPanel(look, self._options.size, self._ask_avatar, self._set_quality, self._reset_camera, inner)
                    gate.separator()
                    self._prompt = PromptPanel(look, session, edits, inner)
                    gate.separator()
                    self._record = RecordPanel(look, session, self._options.takes, lambda: self._quality, self._ask_takes, self._say, inner)
                    gate.separator()
                    self._sound = SoundPanel(session, inner)
                    gate.separator()
                    self._aus = AUPanel(look, edits, inner)
            self._status = StatusPanel(look)
        self._quality = self._options.size
        self._files = FileList(self._say)
        self._sheet, self._error = ShortcutSheet(look), ErrorDialog()
        self._rescue = RescueDialog(look, session.rescue)
        gate.listen(self._on_key, self._on_wheel)
        gate.show_window(root)

    # ---- the loop --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until the window is closed, or SIGTERM or Ctrl-C arrives."""
        try:
            self._begin()
            while gate.is_open() and not self._is_stopping:
                self._frame()
        finally:
            try:
                self.session.close()
            finally:
                gate.close_window()
                self._sense.close()
                end_children()
                if self._trace:
                    self._trace.close()
                for number, handler in self._handlers.items():
                    signal.signal(number, handler)

    def _begin(self) -> None:
        options = self._options
        self.session.rescue.search(options.takes)
        self.open_avatar(options.avatar)
        try:
            if options.microphone is not None:
                self.session.use_microphone(options.microphone or None)
            elif options.audio is not None:
                self.session.open_sound(options.audio, plays=True)
        except InputError as error:
            self._say(str(error), True)
        if options.prompt:
            self._prompt.type_prompt(options.prompt)

    def _frame(self) -> None:
        began = time.monotonic()
        self._stages.start()
        self._place()
        self._update_panels()
        self.session.update()
        for message in self.session.take_messages():
            self._say(message.text, message.is_error)
        edit = self.edits.edit
        if edit is not self._edit_given:
            self._edit_given = edit
            self.session.set_edit(edit)
            self._moving_until = time.monotonic() + _EASE_SECONDS
            self._rest.hurry()
        self._stages.lap("panels")
        has_picture = self._draw_picture()
        self._stages.start()
        if gate.draw_frame():
            self._rest.hurry()
        self._stages.lap("window")
        if has_picture and not (self.session.is_loading or self.session.is_opening):
            self._pace(time.monotonic() - began)
        self.session.display_seconds = self._display_seconds()
        self._rate.tick(time.monotonic())
        self._write_trace()
        self._rest.wait(began, self._need(), gate.window_rectangle())

    def _draw_picture(self) -> bool:
        """Draw the face of this moment, if it differs from what is on show; True where it was drawn."""
        session = self.session
        if session.avatar is None or session.animator is None:
            return False
        if session.avatar is not self._avatar_shown:
            self._avatar_shown = session.avatar
            self._must_draw = True
            self._avatar_panel.show_avatar(session.avatar)
            session.set_steps_share(self._pacing.quality.steps_share)
        now = time.monotonic()
        is_moving = session.clock.is_playing or now < self._moving_until
        if is_moving or self._viewport.is_moving:
            self._last_motion = now
        is_still = now - self._last_motion > _SHARP_SECONDS
        self._viewport.set_size(self._record.size or (self._quality if is_still else self._pacing.size(self._quality)))
        must_draw = self._must_draw or self._render is None or self._render.color.shape[:2] != self._viewport.size[::-1]
        if is_drawn := must_draw or (is_moving and self._pacing.is_picture_due()):
            self._must_draw = False
            motion = session.motion()
            edit = session.edit_now()
            frame = session.animator.pose(motion, edit)
            self._stages.lap("pose")
            render = self._rasterize(frame)
            self._stages.lap("raster")
            if render is not None:
                self._render = render
                self._viewport.show(render)
            self._aus.update(motion.au_codes.tolist(), edited_codes(motion, edit).tolist())
            self._pictures += 1
            self._stages.lap("show")
        if self._render is not None:
            session.offer(self._render, self.camera)
        return is_drawn

    def _pace(self, work_seconds: float) -> None:
        """A frame with a new picture took so long."""
        before = self._pacing.quality
        self._pacing.note(work_seconds, self.session.timeline.late_frames, has_fixed_size=self._record.size is not None)
        if self._pacing.quality is not before:
            self.session.set_steps_share(self._pacing.quality.steps_share)
            self._must_draw = True

    def _display_seconds(self) -> float:
        """From asking for the face to having it on the screen; on Linux the toolkit shows a picture one frame late."""
        stages, frame = self._stages.ms, self._rate.frame_seconds
        drawn = sum(stages.get(name, 0.0) for name in ("pose", "raster", "show", "window")) / 1000
        return drawn + (statistics.median(frame) if frame and sys.platform.startswith("linux") else 0.0)

    @torch.inference_mode()
    def _rasterize(self, frame: GaussianFrame) -> Render | None:
        """The picture; None where it cannot be drawn, and the one before stays on show."""
        camera = self.camera.camera(*self._viewport.size)
        for backend in dict.fromkeys((self._backend or "auto", "cpu")):
            try:
                render = rasterize(frame, camera, BACKGROUND, backend)
            except (RuntimeError, MemoryError) as error:  # what the GPU's libraries raise; a memory that is full
                if self._failed_pictures == 0:
                    then = "going on with the CPU" if backend != "cpu" else "the last one stays until one can be drawn"
                    self._say(f"A picture could not be drawn ({describe(error)}); {then}", True)
                self._backend = "cpu"
            else:
                self._failed_pictures = 0
                return render
        self._failed_pictures += 1
        return None

    def _need(self) -> Need:
        session = self.session
        is_running = session.clock.is_playing or session.recorder is not None
        is_moving = is_running or self._viewport.is_moving or time.monotonic() < self._moving_until
        return Need(
            moving_fps=(_CPU_FPS if self._backend == "cpu" else _GPU_FPS) if is_moving else None,
            is_held=any(gate.is_button_down(name) for name in gate.BUTTONS) or gate.is_typing(),
            is_loading=session.is_loading or session.is_opening,
            # What was shed while sound ran is for its sake: where it does not run, a touch has the machine to itself.
            most_fps=self._pacing.limit_fps(1e9) if is_running else 1e9,
        )

    # ---- panels ----------------------------------------------------------------------------------------------------

    def _place(self) -> None:
        width, height = gate.window_size()
        stage_width = max(160, width - PANEL_WIDTH - 28)
        upper = max(200, height - STATUS_HEIGHT - 26)
        self._viewport.place(stage_width, max(120, upper - TRANSPORT_HEIGHT - 6))
        self._transport.place(stage_width)
        gate.set_size(self._panel, PANEL_WIDTH, upper)
        self._status.place(width - 20)

    def _update_panels(self) -> None:
        mouse = (gate.mouse_position(), *(gate.is_button_down(name) for name in gate.BUTTONS))
        if mouse != self._last_mouse:
            self._last_mouse = mouse
            self._rest.note_touch()
            if any(mouse[1:]):
                self._rest.hurry()
        if self._viewport.update():
            self._must_draw = True
        self._transport.update()
        self._prompt.update()
        self._record.update()
        self._sound.update()
        self._rescue.update()
        session = self.session
        waits = "Loading the voice..." if session.is_look else "Loading the avatar..."
        self._viewport.show_busy(session.is_loading, waits if session.is_loading else "")
        self._status.update(*self._status_texts())

    def _status_texts(self) -> tuple[str, str, str, str, bool]:
        session = self.session
        speed = f"{self._rate.fps:.0f} fps   {self._rate.p95_ms:.0f} ms p95"
        delays = session.delay_parts
        if delays is not None:
            delay = f"voice to picture {delays.total:.0f} ms"
        else:
            delay = "silent: no sound output" if session.silent_because else "sound in step"
        if not self._backend:
            backend = ""
        elif self._backend == "cpu":
            backend = f"CPU ({gsplat_backend.why_unavailable() if self._options.backend != 'cpu' else 'chosen'})"
        else:
            backend = "GPU (gsplat)"
        late = session.timeline.late_frames
        dropped = session.recorder.frames_dropped if session.recorder else 0
        parts = (self._pacing.badge, f"late {late}", f"dropped {dropped}" if dropped else "")
        return speed, delay, backend, "   ".join(part for part in parts if part), bool(dropped or self._pacing.badge)

    def _say(self, text: str, is_error: bool = False) -> None:
        if is_error:
            self._error_until = time.monotonic() + _ERROR_SECONDS
        elif time.monotonic() < self._error_until:
            text, is_error = f"{text}. Before that: {self._message}", True
        self._message = text
        if is_error and len(text) > _LONG_MESSAGE:
            self._error.show(text)
            text = text[:_LONG_MESSAGE] + "..."
        self._status.say(text, is_error)

    # ---- actions ---------------------------------------------------------------------------------------------------

    def open_avatar(self, folder: Path) -> None:
        """Load and warm up off the frame loop; the head on show stays until the new one is ready."""
        size, wanted = self._options.size, self._options.backend

        def load(show: Callable[[Avatar], None]) -> Avatar:
            def show_look(look: Avatar) -> None:
                self._backend = self._choose_backend(wanted)
                warm_up(look, size, self._backend)
                show(look)

            avatar = load_avatar(folder, on_look=show_look)
            avatar.prepare()
            return avatar

        self.session.load_avatar(load)

    def _choose_backend(self, wanted: str) -> str:
        if wanted == "gsplat" and (reason := gsplat_backend.why_unavailable()):
            raise InputError(f"--device cuda cannot be used: {reason}; use --device cpu")
        return choose_backend() if wanted == "auto" else wanted

    def _set_quality(self, size: tuple[int, int]) -> None:
        self._quality = size
        self._must_draw = True

    def _reset_camera(self) -> None:
        self.camera.reset()
        self._must_draw = True

    def _ask_sound(self) -> None:
        start = self.session.sound.path.parent if self.session.sound else Path.cwd()
        self._files.open("Open a sound file", start, lambda path: path.suffix.lower() in SOUND_SUFFIXES, self._open_sound)

    def _open_sound(self, path: Path) -> None:
        try:
            self.session.open_sound(path)
        except InputError as error:
            self._say(str(error), True)

    def _ask_takes(self) -> None:
        self._files.open("Where recordings go", self._record.folder.absolute(), lambda path: False, self._use_takes, picks_folder=True)

    def _use_takes(self, folder: Path) -> None:
        self._record.folder = folder
        self.session.rescue.search(folder)

    def _ask_avatar(self) -> None:
        start = self.session.avatar.folder.parent if self.session.avatar else Path.cwd()
        self._files.open("Open an avatar folder", start, lambda path: (path / "avatar.json").is_file(), self.open_avatar)

    def _toggle_microphone(self) -> None:
        if self.session.microphone is None:
            self.session.use_microphone()
        else:
            self.session.stop_microphone()
            self._must_draw = True

    def _on_wheel(self, turns: float) -> None:
        self._rest.note_touch()
        if self._viewport.wheel(turns):
            self._must_draw = True

    def _on_key(self, key: str) -> None:
        now = time.monotonic()
        self._rest.note_touch()
        if gate.is_typing() and key != "escape" and not (key == "slash" and gate.is_key_down("ctrl")):
            return
        if self._last_key[0] == key and now - self._last_key[1] < _KEY_REPEAT_SECONDS:
            self._last_key = (key, now)
            return
        self._last_key = (key, now)
        action = find_action(key, ctrl=gate.is_key_down("ctrl"), shift=gate.is_key_down("shift"))
        if action is not None:
            self._do(action)

    def _do(self, action: str) -> None:
        session = self.session
        if action == "play":
            session.toggle()
        elif action in ("back", "forward", "start"):
            session.seek(0.0 if action == "start" else session.now() + (1.0 if action == "forward" else -1.0))
            self._moving_until = time.monotonic() + 1.0
        elif action == "loop":
            self._transport.set_loop(not session.is_looping)
        elif action == "microphone":
            self._toggle_microphone()
        elif action == "record":
            self._record.toggle()
        elif action in ("frame", "reset_camera"):
            self.camera.frame() if action == "frame" else self.camera.reset()
            self._must_draw = True
        elif action == "open_sound":
            self._ask_sound()
        elif action == "open_avatar":
            self._ask_avatar()
        elif action == "prompt":
            self._prompt.focus()
        elif action == "trace":
            session.begin_trace(self._record.folder)
        elif action == "help":
            self._sheet.toggle()
        elif action == "leave":
            self._prompt.keep_text()
            for dialog in (self._files, self._sheet, self._error, self._rescue):
                dialog.close()

    def _stop(self, *_: object) -> None:
        self._is_stopping = True

    def _places(self) -> dict[str, tuple[float, float]]:
        """Where things are in the window, for tests with a mouse: the middle of each."""
        panels = (self._viewport, self._prompt, self._transport, self._record, self._sound, self._rescue, self._aus)
        tags = {name: tag for panel in panels for name, tag in panel.tags.items()}
        return {name: (left + width / 2, top + height / 2) for name, tag in tags.items() for left, top, width, height in [gate.item_rectangle(tag)]}

    def _write_trace(self) -> None:
        now = time.monotonic()
        if self._trace is None or now - self._last_trace < 0.25:
            return
        self._last_trace = now
        session, recorder = self.session, self.session.recorder
        self._trace.write(
            cpu_seconds=round(time.process_time(), 2), fps=round(self._rate.fps, 1), p95_ms=round(self._rate.p95_ms, 1),
            frames_ms=[round(1000 * span, 1) for span in self._rate.take_spans()], pictures=self._pictures, shed=self._pacing.badge,
            stages_ms={name: round(ms, 1) for name, ms in self._stages.ms.items()}, hop_ms=round(1000 * session.hop_seconds_spent),
            hops_a_second=round(1000 / session.stream.hop_ms, 2), underflows=session.playback.output.underflows,
            avatar=session.avatar.name if session.avatar and not session.is_look else None, loading=session.is_loading, backend=self._backend,
            camera=[round(v, 4) for v in self.camera.camera(64, 64).viewmat.flatten().tolist()], now=round(session.now(), 3),
            playing=session.is_playing, length=round(session.seconds, 3), sound=session.sound.name if session.sound else None,
            microphone=session.microphone is not None, prompt=self.edits.prompt, typing=gate.is_typing(),
            offsets=self.edits.offsets, late=session.timeline.late_frames, silent=session.silent_because, message=self._message,
            recording=session.is_recording, recorded=recorder.frames_written if recorder else 0,
            dropped=recorder.frames_dropped if recorder else 0, last_take=session.last_take,
            interrupted=len(session.rescue.found), places=self._places(),
        )  # fmt: skip


def warm_up(avatar: Avatar, size: tuple[int, int], backend: str) -> None:
    """Draw once, so that kernels are compiled before the frame loop needs them."""
    motion = MotionTimeline(len(avatar.face.neutral)).at(0.0)
    with torch.inference_mode():
        rasterize(pose_gaussians(avatar, motion, AUEdit()), OrbitCamera().camera(*size), BACKGROUND, backend)
