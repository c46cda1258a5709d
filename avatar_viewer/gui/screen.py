"""Is there a screen to open a window on? Asked before the toolkit is, because without one it ends the process."""

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
