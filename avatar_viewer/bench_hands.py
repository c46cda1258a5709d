"""Eyes and hands on an X screen for `bench live`: presses keys, moves the mouse, and looks at pixels, as a person does.

Through libX11 and libXtst; nothing of the window's own code is involved, so what is measured is what a person gets.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import time
from ctypes import POINTER, byref, c_char_p, c_int, c_uint, c_ulong, c_void_p

from .errors import InputError

_ALL_PLANES, _Z_PIXMAP = c_ulong(-1 & 0xFFFFFFFFFFFFFFFF), 2
_CONTROL, _RETURN, _ESCAPE = 0xFFE3, 0xFF0D, 0xFF1B  # X key symbols


class _Image(ctypes.Structure):
    """The beginning of XImage."""

    _fields_ = [
        ("width", c_int), ("height", c_int), ("xoffset", c_int), ("format", c_int), ("data", c_void_p), ("byte_order", c_int),
        ("unit", c_int), ("bit_order", c_int), ("pad", c_int), ("depth", c_int), ("bytes_per_line", c_int),
    ]  # fmt: skip


class Hands:
    """Works on the window of this title, once it is there."""

    def __init__(self, title: str) -> None:
        try:
            self._x11 = x11 = ctypes.CDLL(ctypes.util.find_library("X11") or "libX11.so.6")
            self._test = ctypes.CDLL(ctypes.util.find_library("Xtst") or "libXtst.so.6")
        except OSError as error:
            raise InputError(f"bench live needs X11 and its test extension ({error}); Debian: libxtst6") from None
        x11.XOpenDisplay.restype = c_void_p
        x11.XDefaultRootWindow.restype = c_ulong
        x11.XGetImage.restype = POINTER(_Image)
        x11.XKeysymToKeycode.restype = ctypes.c_ubyte
        display = x11.XOpenDisplay(None)
        if not display:
            raise InputError("bench live needs an X screen; run it under xvfb-run")
        self._display = c_void_p(display)
        self._root = c_ulong(x11.XDefaultRootWindow(self._display))
        window = self._find(self._root, title)
        if window is None:
            raise InputError(f"no window is called {title!r}")
        left, top, child = c_int(), c_int(), c_ulong()
        x11.XTranslateCoordinates(self._display, c_ulong(window), self._root, 0, 0, byref(left), byref(top), byref(child))
        self._corner = left.value, top.value
        x11.XSetInputFocus(self._display, c_ulong(window), 2, c_ulong(0))
        self._flush()

    def _find(self, parent: c_ulong, title: str) -> int | None:
        x11, display = self._x11, self._display
        name = c_char_p()
        if x11.XFetchName(display, parent, byref(name)) and name.value is not None and name.value.decode("utf-8", "replace") == title:
            return parent.value
        root, above, children, count = c_ulong(), c_ulong(), POINTER(c_ulong)(), c_uint()
        if not x11.XQueryTree(display, parent, byref(root), byref(above), byref(children), byref(count)):
            return None
        found = (self._find(c_ulong(children[index]), title) for index in range(count.value))
        return next((window for window in found if window is not None), None)

    def _flush(self) -> None:
        self._x11.XSync(self._display, 0)

    def move(self, place: tuple[float, float]) -> None:
        """The mouse to this pixel of the window."""
        self._test.XTestFakeMotionEvent(self._display, -1, self._corner[0] + int(place[0]), self._corner[1] + int(place[1]), c_ulong(0))
        self._flush()

    def press(self, is_down: bool) -> None:
        """The left button."""
        self._test.XTestFakeButtonEvent(self._display, 1, int(is_down), c_ulong(0))
        self._flush()

    def click(self, place: tuple[float, float]) -> None:
        self.move(place)
        time.sleep(0.15)
        self.press(True)
        time.sleep(0.15)
        self.press(False)
        time.sleep(0.15)

    def key(self, symbol: int) -> None:
        """Press a key and let it go."""
        self._set_key(symbol, True)
        self._set_key(symbol, False)

    def _set_key(self, symbol: int, is_down: bool) -> None:
        code = c_uint(self._x11.XKeysymToKeycode(self._display, c_ulong(symbol)))
        self._test.XTestFakeKeyEvent(self._display, code, int(is_down), c_ulong(0))
        self._flush()

    def select_all(self) -> None:
        """In a text box."""
        self._set_key(_CONTROL, True)
        time.sleep(0.1)
        self.key(ord("a"))
        time.sleep(0.1)
        self._set_key(_CONTROL, False)
        time.sleep(0.1)

    def enter(self) -> None:
        self.key(_RETURN)

    def leave(self) -> None:
        self.key(_ESCAPE)

    def type(self, text: str) -> None:
        """Small letters and spaces."""
        for letter in text:
            self.key(ord(letter))
            time.sleep(0.08)

    def look(self, middle: tuple[float, float], side: int) -> bytes:
        """The pixels of a square of the window."""
        x11 = self._x11
        left, top = (int(corner + value - side / 2) for corner, value in zip(self._corner, middle))
        image = x11.XGetImage(self._display, self._root, left, top, side, side, _ALL_PLANES, _Z_PIXMAP)
        if not image:
            raise InputError("the window is not wholly on the screen")
        pixels = ctypes.string_at(image.contents.data, image.contents.bytes_per_line * image.contents.height)
        x11.XFree(c_void_p(image.contents.data))
        x11.XFree(image)
        return pixels

    def wait_for_change(self, before: bytes, middle: tuple[float, float], side: int, seconds: float) -> float | None:
        """`time.monotonic()` when the square first looks different; None if it does not within this time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.look(middle, side) != before:
                return time.monotonic()
            time.sleep(0.002)
        return None

    def close(self) -> None:
        self._x11.XCloseDisplay(self._display)
