"""A list of files to open, our own: the toolkit's dialog dies on odd names. Names are shown cleaned, opened as they are."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from . import gate, theme

_SHOWN = 500  # entries at most


class FileList:
    """A modal list of one folder; one instance is opened for sounds and for avatars in turn."""

    def __init__(self, say: Callable[[str, bool], None]) -> None:
        self._say = say
        self._on_pick: Callable[[Path], None] = lambda path: None
        self._accepts: Callable[[Path], bool] = lambda path: True
        self._folder = Path.cwd()
        with gate.window("Open", modal=True, show=False, width=640, height=480, no_resize=False, pos=(120, 80)) as self._window:
            self._title = gate.text("")
            self._typed = gate.text_box("type a path and press Enter", self._enter, width=-1)
            with gate.row():
                gate.button("Up", self._up)
                gate.button("Home", lambda: self._go(Path.home()))
                gate.button("Cancel", self.close)
                self._use_folder = gate.button("Use this folder", lambda: self._pick(self._folder), show=False)
                self._where = gate.text("", color=theme.DIM)
            with gate.child(border=False) as self._entries:
                pass

    def open(
        self, title: str, folder: Path, accepts: Callable[[Path], bool], on_pick: Callable[[Path], None], *, picks_folder: bool = False
    ) -> None:
        """Ask for a path; `accepts` says which entries can be picked, folders can always be entered, and picked if wished."""
        gate.set_shown(self._use_folder, picks_folder)
        self._accepts, self._on_pick = accepts, on_pick
        gate.set_text(self._title, title)
        gate.set_text(self._typed, "")
        gate.set_shown(self._window, True)
        self._go(folder)

    def close(self) -> None:
        gate.set_shown(self._window, False)

    def _go(self, folder: Path) -> None:
        try:
            folder = folder.expanduser().resolve()
            entries = list_folder(folder, self._accepts)
        except OSError as error:
            self._say(f"{folder}: cannot be listed ({error.strerror})", True)
            return
        self._folder = folder
        gate.set_text(self._where, str(folder), 90)
        gate.clear(self._entries)
        with gate.inside(self._entries):
            for path, is_pickable in entries[:_SHOWN]:
                label = path.name if is_pickable else f"{path.name}{os.sep}"
                gate.list_entry(label, lambda path=path, pick=is_pickable: self._pick(path) if pick else self._go(path))
            if not entries:
                gate.text("nothing to open here", color=theme.DIM)
            elif len(entries) > _SHOWN:
                gate.text(f"and {len(entries) - _SHOWN} more: type the path", color=theme.DIM)

    def _pick(self, path: Path) -> None:
        self.close()
        self._on_pick(path)

    def _enter(self, text: str) -> None:
        path = Path(text.strip()).expanduser()
        path = path if path.is_absolute() else self._folder / path
        if not text.strip():
            return
        if path.is_dir() and not self._accepts(path):
            self._go(path)
        else:
            self._pick(path)

    def _up(self) -> None:
        self._go(self._folder.parent)


def list_folder(folder: Path, accepts: Callable[[Path], bool]) -> list[tuple[Path, bool]]:
    """What can be picked or entered in a folder, folders first: (path, can be picked)."""
    entries = [(path, accepts(path)) for path in folder.iterdir() if not path.name.startswith(".")]
    shown = [(path, pick) for path, pick in entries if pick or path.is_dir()]
    return sorted(shown, key=lambda entry: (entry[1], os.fsencode(entry[0].name).lower()))
