"""The screen without the toolkit: whether there is one (asked first, because without one the toolkit ends the process), and
whether anybody touches mouse or keys (the toolkit tells only whoever draws a frame).
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import sys


def why_no_screen() -> str:
    """One line that says why no window can be opened; empty where one can."""
    if sys.platform in ("win32", "darwin"):
        return ""
    name = os.environ.get("DISPLAY", "")
    if not name:
        return "DISPLAY is not set"
    library = ctypes.util.find_library("X11") or "libX11.so.6"
    try:
        x11 = ctypes.CDLL(library)
    except OSError:
        return "libX11 is not installed"
    x11.XOpenDisplay.restype = ctypes.c_void_p
    x11.XOpenDisplay.argtypes = [ctypes.c_char_p]
    display = x11.XOpenDisplay(os.fsencode(name))
    if not display:
        return f"the screen {name} cannot be opened"
    x11.XQueryExtension.argtypes = [ctypes.c_void_p, ctypes.c_char_p] + [ctypes.POINTER(ctypes.c_int)] * 3
    numbers = [ctypes.byref(ctypes.c_int()) for _ in range(3)]
    has_opengl = x11.XQueryExtension(display, b"GLX", *numbers)
    x11.XCloseDisplay.argtypes = [ctypes.c_void_p]
    x11.XCloseDisplay(display)
    return "" if has_opengl else f"the screen {name} has no OpenGL (GLX)"


class InputSense:
    """Whether mouse or keys changed since the last look; costs some microseconds.

    Where it cannot know (`is_able` is False) it says that they might have.
    """

    def __init__(self) -> None:
        self._last: tuple | None = None
        self._x11 = self._display = None
        if sys.platform == "win32":
            self._look = self._look_windows
        elif sys.platform != "darwin" and self._open_x11():
            self._look = self._look_x11
        else:
            self._look = None

    @property
    def is_able(self) -> bool:
        return self._look is not None

    def has_changed(self, left: int, top: int, width: int, height: int) -> bool:
        """Keys anywhere, the mouse within this part of the screen."""
        if self._look is None:
            return True
        mouse, keys = self._look()
        is_inside = mouse is not None and left <= mouse[0] < left + width and top <= mouse[1] < top + height
        state = (mouse if is_inside else None, keys)
        has_changed, self._last = state != self._last, state
        return has_changed

    def _open_x11(self) -> bool:
        try:
            x11 = ctypes.CDLL(ctypes.util.find_library("X11") or "libX11.so.6")
        except OSError:
            return False
        x11.XOpenDisplay.restype = ctypes.c_void_p
        x11.XOpenDisplay.argtypes = [ctypes.c_char_p]
        x11.XDefaultRootWindow.restype = ctypes.c_ulong
        x11.XDefaultRootWindow.argtypes = [ctypes.c_void_p]
        x11.XQueryPointer.argtypes = [ctypes.c_void_p, ctypes.c_ulong] + [ctypes.c_void_p] * 7
        x11.XQueryKeymap.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        x11.XCloseDisplay.argtypes = [ctypes.c_void_p]
        display = x11.XOpenDisplay(None)
        if not display:
            return False
        self._x11, self._display, self._root = x11, display, x11.XDefaultRootWindow(display)
        self._windows = [ctypes.c_ulong() for _ in range(2)]
        self._numbers = [ctypes.c_int() for _ in range(4)]
        self._mask = ctypes.c_uint()
        self._keys = ctypes.create_string_buffer(32)
        return True

    def _look_x11(self) -> tuple[tuple[int, int, int] | None, bytes]:
        results = [ctypes.byref(value) for value in (*self._windows, *self._numbers, self._mask)]
        is_here = self._x11.XQueryPointer(self._display, self._root, *results)
        self._x11.XQueryKeymap(self._display, self._keys)
        mouse = (self._numbers[0].value, self._numbers[1].value, self._mask.value) if is_here else None
        return mouse, self._keys.raw

    def _look_windows(self) -> tuple[None, int]:
        class LastInput(ctypes.Structure):
            _fields_ = [("size", ctypes.c_uint), ("ticks", ctypes.c_uint)]

        last = LastInput(ctypes.sizeof(LastInput), 0)
        ctypes.windll.user32.GetLastInputInfo(ctypes.byref(last))
        return None, last.ticks

    def close(self) -> None:
        if self._display:
            self._x11.XCloseDisplay(self._display)
        self._display, self._look = None, None
