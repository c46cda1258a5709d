"""The only door to Dear PyGui. Every string, number and buffer that passes is made harmless first.

Dear PyGui ends the process without a Python exception on ordinary bad values: a file name that is not UTF-8, a buffer of
the wrong size or type, a viewport of width 0, no display. So nothing else imports it, and only the main thread comes here.
Callbacks are queued and run by `draw_frame`, between frames, in the same thread.
"""

from __future__ import annotations

import math
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dearpygui.dearpygui as dpg
import numpy as np
import torch
from torch import Tensor

Tag = int
Color = tuple[int, int, int] | tuple[int, int, int, int]

MAX_TEXT = 20_000
MIN_VIEWPORT, MAX_VIEWPORT = (640, 480), (8192, 8192)
MAX_TEXTURE = 4096

KEYS = {
    "space": dpg.mvKey_Spacebar, "f": dpg.mvKey_F, "r": dpg.mvKey_R, "f1": dpg.mvKey_F1, "escape": dpg.mvKey_Escape,
    "slash": dpg.mvKey_Slash, "o": dpg.mvKey_O, "home": dpg.mvKey_Home, "left": dpg.mvKey_Left, "right": dpg.mvKey_Right,
    "h": dpg.mvKey_H, "m": dpg.mvKey_M, "l": dpg.mvKey_L, "t": dpg.mvKey_T,
}  # fmt: skip
MODIFIERS = {"ctrl": (dpg.mvKey_LControl, dpg.mvKey_RControl), "shift": (dpg.mvKey_LShift, dpg.mvKey_RShift)}
BUTTONS = {"left": dpg.mvMouseButton_Left, "right": dpg.mvMouseButton_Right, "middle": dpg.mvMouseButton_Middle}

_typing_items: list[Tag] = []  # of the one context that a process has; emptied by `open_window`
_held_before: set[str] = set()  # modifiers that were down when the last frame began; likewise


def clean_text(text: str, limit: int = MAX_TEXT) -> str:
    """Text that the toolkit survives: valid Unicode, no control characters, bounded; shown as close as possible."""
    text = str(text)[: limit + 1]
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    text = unicodedata.normalize("NFC", text)
    text = "".join(c if c in "\n\t" or unicodedata.category(c)[0] != "C" or c == "\u200d" else "\ufffd" for c in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def finite(value: float, low: float = -1e9, high: float = 1e9) -> float:
    """`value` as a number within bounds; 0 (or the nearest bound) where it is none."""
    value = float(value)
    return min(max(value if math.isfinite(value) else 0.0, low), high)


def _safe(options: dict[str, Any]) -> dict[str, Any]:
    """Options of an item with every text, number and list made harmless; callables and tags pass."""
    result: dict[str, Any] = {}
    for name, value in options.items():
        if value is None:
            continue
        if isinstance(value, str):
            result[name] = clean_text(value)
        elif isinstance(value, (bool, int)) or callable(value):
            result[name] = value
        elif isinstance(value, (float, np.floating)):
            result[name] = finite(value)
        elif isinstance(value, (list, tuple)):
            result[name] = [clean_text(v) if isinstance(v, str) else finite(v) if isinstance(v, float) else v for v in value]
        else:
            raise TypeError(f"{name}={value!r} is not something to show")
    return result


# ---- window --------------------------------------------------------------------------------------------------------


def open_window(title: str, size: tuple[int, int]) -> None:
    """Create the context and the window; to be followed by building items and `show_window`."""
    _typing_items.clear()
    _held_before.clear()
    # Triton's library and Mesa's software or Radeon drivers each bring an LLVM, and loading Triton second ends the process
    # (seen with triton 3 and Mesa 22.3: segmentation fault in its import). Nothing here compiles with it, so it stays out.
    sys.modules.setdefault("triton", None)
    dpg.create_context()
    dpg.configure_app(manual_callback_management=True, keyboard_navigation=False)
    width, height = (min(max(v, low), high) for v, low, high in zip(size, MIN_VIEWPORT, MAX_VIEWPORT))
    dpg.create_viewport(
        title=clean_text(title, 200), width=width, height=height, min_width=MIN_VIEWPORT[0], min_height=MIN_VIEWPORT[1],
        x_pos=40, y_pos=40, vsync=True,
    )  # fmt: skip


def show_window(root: Tag) -> None:
    dpg.setup_dearpygui()
    dpg.show_viewport()
    dpg.set_primary_window(root, True)


def close_window() -> None:
    dpg.destroy_context()


def stop() -> None:
    dpg.stop_dearpygui()


def is_open() -> bool:
    return dpg.is_dearpygui_running()


def draw_frame() -> bool:
    """Draw one frame, then run the callbacks it brought about; True where there were some."""
    _held_before.clear()
    _held_before.update(name for name in MODIFIERS if _is_held(name))
    dpg.render_dearpygui_frame()
    jobs = dpg.get_callback_queue()
    if jobs:
        dpg.run_callbacks(jobs)
    return bool(jobs)


def window_size() -> tuple[int, int]:
    return max(1, dpg.get_viewport_client_width()), max(1, dpg.get_viewport_client_height())


def window_rectangle() -> tuple[int, int, int, int]:
    """Left, top, width, height on the screen, the frame included."""
    left, top = dpg.get_viewport_pos()
    return int(finite(left)), int(finite(top)), dpg.get_viewport_width(), dpg.get_viewport_height()


def set_title(title: str) -> None:
    dpg.set_viewport_title(clean_text(title, 200))


def load_font(path: Path, size: int) -> Tag | None:
    """A font, or None where the file is not there."""
    if not path.is_file():
        return None
    with dpg.font_registry():
        return dpg.add_font(clean_text(str(path)), min(max(int(size), 6), 96))


def bind_font(font: Tag | None, item: Tag | None = None) -> None:
    if font is None:
        return
    if item is None:
        dpg.bind_font(font)
    else:
        dpg.bind_item_font(item, font)


def make_theme(colors: dict[str, Color], styles: dict[str, tuple[float, ...]]) -> Tag:
    """A theme from Dear ImGui's colour and style names ("WindowBg", "FrameRounding")."""
    with dpg.theme() as theme, dpg.theme_component(dpg.mvAll):
        for name, color in colors.items():
            dpg.add_theme_color(getattr(dpg, f"mvThemeCol_{name}"), tuple(int(c) for c in color))
        for name, values in styles.items():
            dpg.add_theme_style(getattr(dpg, f"mvStyleVar_{name}"), *(finite(v, 0, 100) for v in values))
    return theme


def bind_theme(theme: Tag, item: Tag | None = None) -> None:
    if item is None:
        dpg.bind_theme(theme)
    else:
        dpg.bind_item_theme(item, theme)


# ---- items ---------------------------------------------------------------------------------------------------------


@contextmanager
def _within(opened: Any) -> Iterator[Tag]:
    with opened as tag:
        yield tag


def window(label: str = "", **options: Any):
    """Context: a window; `modal`, `no_title_bar`, `width` and so on as Dear PyGui names them."""
    return _within(dpg.window(**_safe({"label": label, **options})))


def child(**options: Any):
    return _within(dpg.child_window(**_safe(options)))


def row(**options: Any):
    """Context: items side by side."""
    return _within(dpg.group(horizontal=True, **_safe(options)))


def column(**options: Any):
    return _within(dpg.group(**_safe(options)))


def section(label: str, *, is_open: bool = True):
    """Context: a part that can be folded."""
    return _within(dpg.collapsing_header(label=clean_text(label), default_open=is_open))


def tooltip(parent: Tag):
    return _within(dpg.tooltip(parent, delay=0.4))


def explain(parent: Tag, text: str) -> None:
    """A tooltip of plain text."""
    with dpg.tooltip(parent, delay=0.4):
        dpg.add_text(clean_text(text), wrap=360)


def text(value: str = "", **options: Any) -> Tag:
    return dpg.add_text(clean_text(value), **_safe(options))


def button(label: str, on_press: Callable[[], None], **options: Any) -> Tag:
    return dpg.add_button(label=clean_text(label), callback=lambda: on_press(), **_safe(options))


def text_box(hint: str, on_enter: Callable[[str], None], **options: Any) -> Tag:
    """One line to type in; it owns the keyboard while the cursor is in it."""
    tag = dpg.add_input_text(
        hint=clean_text(hint, 500), on_enter=True, callback=lambda _, value: on_enter(clean_text(value or "")), **_safe(options)
    )
    _typing_items.append(tag)
    return tag


def slider(label: str, low: float, high: float, value: float, on_change: Callable[[float], None], **options: Any) -> Tag:
    """A number by dragging; Ctrl-click types it."""
    tag = dpg.add_slider_float(
        label=clean_text(label), min_value=finite(low), max_value=finite(high), default_value=finite(value, low, high), clamped=True,
        callback=lambda _, number: on_change(finite(number, low, high)), **_safe({"format": "%.2f", **options}),
    )  # fmt: skip
    _typing_items.append(tag)
    return tag


def checkbox(label: str, value: bool, on_change: Callable[[bool], None], **options: Any) -> Tag:
    return dpg.add_checkbox(label=clean_text(label), default_value=value, callback=lambda _, v: on_change(bool(v)), **_safe(options))


def choice(items: Sequence[str], value: str, on_change: Callable[[str], None], **options: Any) -> Tag:
    return dpg.add_combo(
        [clean_text(item) for item in items], default_value=clean_text(value), callback=lambda _, v: on_change(v), **_safe(options)
    )


def list_entry(label: str, on_press: Callable[[], None], **options: Any) -> Tag:
    return dpg.add_selectable(label=clean_text(label, 300), callback=lambda: on_press(), **_safe(options))


def progress(value: float = 0.0, **options: Any) -> Tag:
    return dpg.add_progress_bar(default_value=finite(value, 0, 1), **_safe(options))


def busy_sign(**options: Any) -> Tag:
    return dpg.add_loading_indicator(**_safe(options))


def spacer(width: int = 0, height: int = 0) -> Tag:
    return dpg.add_spacer(width=max(0, width), height=max(0, height))


def separator() -> Tag:
    return dpg.add_separator()


# ---- values and shape of items -------------------------------------------------------------------------------------


def set_text(tag: Tag, value: str, limit: int = MAX_TEXT) -> None:
    dpg.set_value(tag, clean_text(value, limit))


def get_text(tag: Tag) -> str:
    return clean_text(dpg.get_value(tag) or "")


def set_number(tag: Tag, value: float) -> None:
    dpg.set_value(tag, finite(value))


def set_flag(tag: Tag, value: bool) -> None:
    dpg.set_value(tag, bool(value))


def set_label(tag: Tag, label: str) -> None:
    dpg.configure_item(tag, label=clean_text(label))


def set_choices(tag: Tag, items: Sequence[str], value: str | None = None) -> None:
    """Other items to choose from, and which of them is chosen (None: as it was)."""
    dpg.configure_item(tag, items=[clean_text(item) for item in items])
    if value is not None:
        dpg.set_value(tag, clean_text(value))


def set_color(tag: Tag, color: Color) -> None:
    dpg.configure_item(tag, color=tuple(int(c) for c in color))


def fill(tag: Tag, color: Color) -> None:
    """Colour of a drawn rectangle, inside and edge."""
    dpg.configure_item(tag, fill=tuple(int(c) for c in color), color=tuple(int(c) for c in color))


def set_shown(tag: Tag, is_shown: bool) -> None:
    dpg.configure_item(tag, show=bool(is_shown))


def set_enabled(tag: Tag, is_enabled: bool) -> None:
    dpg.configure_item(tag, enabled=bool(is_enabled))


def set_size(tag: Tag, width: int, height: int) -> None:
    dpg.configure_item(tag, width=max(1, int(width)), height=max(1, int(height)))


def set_width(tag: Tag, width: int) -> None:
    dpg.configure_item(tag, width=max(1, int(width)))


def set_wrap(tag: Tag, width: int) -> None:
    dpg.configure_item(tag, wrap=max(1, int(width)))


def set_position(tag: Tag, x: float, y: float) -> None:
    dpg.configure_item(tag, pos=[int(finite(x)), int(finite(y))])


def remove(tag: Tag) -> None:
    if dpg.does_item_exist(tag):
        dpg.delete_item(tag)


def clear(tag: Tag) -> None:
    """Remove what is inside."""
    dpg.delete_item(tag, children_only=True)


@contextmanager
def inside(tag: Tag) -> Iterator[None]:
    """Context: new items go into this one."""
    dpg.push_container_stack(tag)
    try:
        yield
    finally:
        dpg.pop_container_stack()


# ---- drawing -------------------------------------------------------------------------------------------------------


def canvas(width: int, height: int) -> Tag:
    return dpg.add_drawlist(max(1, width), max(1, height))


def draw_rectangle(parent: Tag, corner: tuple[float, float], opposite: tuple[float, float], fill: Color, rounding: float = 0.0) -> Tag:
    return dpg.draw_rectangle(
        [finite(v) for v in corner], [finite(v) for v in opposite], parent=parent, fill=fill, color=fill, rounding=finite(rounding, 0, 50)
    )


def move_rectangle(tag: Tag, corner: tuple[float, float], opposite: tuple[float, float]) -> None:
    dpg.configure_item(tag, pmin=[finite(v) for v in corner], pmax=[finite(v) for v in opposite])


def draw_line(parent: Tag, start: tuple[float, float], end: tuple[float, float], color: Color, thickness: float = 1.0) -> Tag:
    return dpg.draw_line([finite(v) for v in start], [finite(v) for v in end], parent=parent, color=color, thickness=finite(thickness, 0, 50))


def move_line(tag: Tag, start: tuple[float, float], end: tuple[float, float]) -> None:
    dpg.configure_item(tag, p1=[finite(v) for v in start], p2=[finite(v) for v in end])


# ---- pictures ------------------------------------------------------------------------------------------------------


class Texture:
    """One long-lived float RGBA buffer of fixed size that the toolkit reads at every frame."""

    def __init__(self, width: int, height: int) -> None:
        if not (1 <= width <= MAX_TEXTURE and 1 <= height <= MAX_TEXTURE):
            raise ValueError(f"a picture of {width}x{height} cannot be shown; use 1 to {MAX_TEXTURE} pixels a side")
        self.width, self.height = width, height
        self.pixels = np.zeros((height, width, 4), dtype=np.float32)
        self.pixels[..., 3] = 1.0
        self._rgb = torch.from_numpy(self.pixels)[..., :3]
        with dpg.texture_registry():
            self.tag = dpg.add_raw_texture(width, height, self.pixels, format=dpg.mvFormat_Float_rgba)

    def show(self, color: Tensor) -> None:  # [H, W, 3] 0..1
        """Copy a picture in; its size must be the texture's."""
        assert color.shape == (self.height, self.width, 3), f"picture of {tuple(color.shape)} for a {self.width}x{self.height} texture"
        self._rgb.copy_(color)

    def fill(self, color: tuple[float, float, float]) -> None:
        self.pixels[..., :3] = color


def image(texture: Texture, width: int, height: int) -> Tag:
    return dpg.add_image(texture.tag, width=max(1, width), height=max(1, height))


def set_image(tag: Tag, texture: Texture) -> None:
    dpg.configure_item(tag, texture_tag=texture.tag)


# ---- mouse and keys ------------------------------------------------------------------------------------------------


def listen(on_key: Callable[[str], None], on_wheel: Callable[[float], None]) -> None:
    """Report keys by the names of `KEYS`, and turns of the wheel."""
    with dpg.handler_registry():
        # One each: a handler of all keys is also told of the mouse's buttons, again and again while one is held.
        for name, code in KEYS.items():
            dpg.add_key_press_handler(code, callback=_teller(on_key, name))
        dpg.add_mouse_wheel_handler(callback=lambda _, turns: on_wheel(finite(turns, -20, 20)))


def _teller(on_key: Callable[[str], None], name: str) -> Callable[[], None]:
    return lambda: on_key(name)  # without parameters: the toolkit fills as many as there are, also those with a default


def is_typing() -> bool:
    """A text box has the cursor, or a slider is held or typed into: all keys are its own."""
    return any(dpg.does_item_exist(tag) and dpg.is_item_active(tag) for tag in _typing_items)


def is_key_down(name: str) -> bool:
    """A modifier: "ctrl" or "shift". Also one that was let go within this frame: the toolkit may tell of a key a frame late."""
    return _is_held(name) or name in _held_before


def _is_held(name: str) -> bool:
    return any(dpg.is_key_down(code) for code in MODIFIERS[name])


def is_button_down(name: str) -> bool:
    return dpg.is_mouse_button_down(BUTTONS[name])


def mouse_position() -> tuple[float, float]:
    """Pixels from the window's upper left corner."""
    x, y = dpg.get_mouse_pos(local=False)
    return finite(x), finite(y)


def is_hovered(tag: Tag) -> bool:
    return dpg.is_item_hovered(tag)


def is_active(tag: Tag) -> bool:
    return dpg.is_item_active(tag)


def item_rectangle(tag: Tag) -> tuple[float, float, float, float]:
    """Left, top, width, height in the window."""
    left, top = dpg.get_item_rect_min(tag)
    width, height = dpg.get_item_rect_size(tag)
    return finite(left), finite(top), finite(width), finite(height)


def focus(tag: Tag) -> None:
    dpg.focus_item(tag)
