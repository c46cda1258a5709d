"""Every key and what it does: the one table for handling and for the sheet that F1 shows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shortcut:
    action: str
    keys: str  # as shown
    key: str  # as `gate.KEYS` names it
    ctrl: bool = False
    shift: bool = False
    about: str = ""


SHORTCUTS: tuple[Shortcut, ...] = (
    Shortcut("play", "Space", "space", about="Play or pause"),
    Shortcut("back", "Left", "left", about="One second back"),
    Shortcut("forward", "Right", "right", about="One second forward"),
    Shortcut("start", "Home", "home", about="To the start"),
    Shortcut("loop", "L", "l", about="Loop on or off"),
    Shortcut("microphone", "M", "m", about="Microphone on or off"),
    Shortcut("record", "R", "r", about="Start or stop recording"),
    Shortcut("frame", "F", "f", about="Frame the head"),
    Shortcut("reset_camera", "Shift+F", "f", shift=True, about="Reset the camera"),
    Shortcut("open_sound", "O", "o", about="Open a sound file"),
    Shortcut("open_avatar", "Ctrl+O", "o", ctrl=True, about="Open an avatar"),
    Shortcut("prompt", "Ctrl+/", "slash", ctrl=True, about="Type a prompt"),
    Shortcut("leave", "Esc", "escape", about="Leave the prompt box, close a dialog"),
    Shortcut("trace", "T", "t", about="Trace what takes time, ten seconds"),
    Shortcut("help", "F1", "f1", about="This sheet"),
)
MOUSE = (
    ("Drag left", "Orbit"),
    ("Drag right, or Shift+drag", "Pan"),
    ("Wheel", "Zoom"),
    ("Ctrl+click on a slider", "Type a number"),
)


def find_action(key: str, *, ctrl: bool, shift: bool) -> str | None:
    """The action bound to a key with these modifiers."""
    for shortcut in SHORTCUTS:
        if (shortcut.key, shortcut.ctrl, shortcut.shift) == (key, ctrl, shift):
            return shortcut.action
    return None
