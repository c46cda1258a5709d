"""Record what is seen and heard to mp4."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from ..errors import InputError
from ..live.recording import free_bytes
from ..live.session import Session
from . import gate, theme
from .transport import clock_text

SIZES = ("as shown", "512 x 512", "720 x 720", "1024 x 1024", "1280 x 720", "1920 x 1080")
_LOOK_SECONDS = 2.0
RATES = ("25", "30", "50", "60")


class RecordPanel:
    def __init__(
        self, look: theme.Look, session: Session, folder: Path, shown_size: Callable[[], tuple[int, int]],
        ask_folder: Callable[[], None], say: Callable[[str, bool], None], width: int,
    ) -> None:  # fmt: skip
        self._session, self.folder, self._shown_size, self._say = session, folder, shown_size, say
        self._free_bytes, self._looked_at = 0, -1e9
        self._size, self._fps = SIZES[0], 25.0
        self.size: tuple[int, int] | None = None  # of the take that is running
        gate.bind_font(look.strong, gate.text("Recording"))
        with gate.row():
            self._button = gate.button("Record", self.toggle, width=96)
            gate.bind_theme(look.record, self._button)
            gate.explain(self._button, "Record picture and sound to an mp4, and what you do to a take file beside it (R)")
            sizes = gate.choice(SIZES, SIZES[0], self._set_size, width=110)
            gate.explain(sizes, "Size of the video; fixed while it runs")
            rates = gate.choice(RATES, RATES[0], self._set_rate, width=56)
            gate.explain(rates, "Pictures a second of the video")
            gate.text("fps")
            gate.explain(gate.button("Folder...", ask_folder), "Where recordings go")
        self._state = gate.text("", wrap=width)

    @property
    def tags(self) -> dict[str, gate.Tag]:
        """Items that a test points at."""
        return {"record": self._button}

    def toggle(self) -> None:
        if self._session.is_recording:
            self.stop()
        elif self._session.recorder is None:
            self.start()

    def start(self) -> None:
        size = self._shown_size() if self._size == SIZES[0] else tuple(int(part) for part in self._size.split(" x "))
        width, height = (v + v % 2 for v in size)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._session.start_recording(self.folder, (width, height), self._fps)
        except (InputError, OSError) as error:
            self._say(f"Recording did not start: {error}", True)
            return
        self.size = (width, height)

    def stop(self) -> None:
        self._session.stop_recording()
        self.size = None

    def update(self) -> None:
        session, recorder = self._session, self._session.recorder
        if not session.is_recording:
            self.size = None
        gate.set_label(self._button, "Stop" if session.is_recording else "Record")
        if recorder is not None and session.is_recording:
            left = session.recording.disk_seconds_left
            parts = [clock_text(recorder.sound_seconds), f"{recorder.bytes_written / 1e6:.1f} MB", f"{recorder.size[0]} x {recorder.size[1]}"]
            parts += [f"{left / 60:.0f} min of disk left"] * (left < 24 * 3600) + [f"{recorder.frames_dropped} dropped"] * bool(recorder.frames_dropped)
            gate.set_color(self._state, theme.RECORD)
            gate.set_text(self._state, "●  " + "   ".join(parts))
        elif recorder is not None:
            gate.set_text(self._state, "saving...")
        else:
            saved = f"saved {session.last_take.name}   " if session.last_take else ""
            gate.set_color(self._state, theme.DIM)
            gate.set_text(self._state, f"{saved}{self._room()}")

    def _room(self) -> str:
        """What the folder's disk has left."""
        now = time.monotonic()
        if now - self._looked_at > _LOOK_SECONDS:
            self._looked_at = now
            self._free_bytes = free_bytes(self.folder)
        return f"{self._free_bytes / 1e9:.1f} GB left in {self.folder.name or self.folder}"

    def _set_size(self, size: str) -> None:
        self._size = size

    def _set_rate(self, rate: str) -> None:
        self._fps = float(rate)
