"""How the window looks: neutral dark greys, so that skin is judged fairly, and one accent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from . import gate

FONTS = Path(__file__).resolve().parents[2] / "assets" / "fonts"

TEXT = (222, 223, 226)
DIM = (146, 149, 155)
FAINT = (74, 77, 82)
ACCENT = (92, 166, 219)
ACCENT_DIM = (58, 98, 128)
RECORD = (226, 76, 70)
WARNING = (230, 180, 92)
GOOD = (122, 190, 128)
PANEL = (38, 39, 42)
STAGE = (60, 61, 64)  # behind the head: `live.export.BACKGROUND` in bytes
FIELD = (52, 54, 58)

_COLORS: dict[str, gate.Color] = {
    "Text": TEXT, "TextDisabled": DIM, "WindowBg": (30, 31, 33), "ChildBg": PANEL, "PopupBg": (44, 45, 49),
    "Border": (58, 60, 64), "FrameBg": FIELD, "FrameBgHovered": (62, 64, 69), "FrameBgActive": (68, 71, 76),
    "TitleBg": PANEL, "TitleBgActive": (46, 48, 52), "TitleBgCollapsed": PANEL,
    "ScrollbarBg": (34, 35, 38), "ScrollbarGrab": (70, 72, 77), "ScrollbarGrabHovered": (86, 89, 95), "ScrollbarGrabActive": (100, 103, 110),
    "CheckMark": ACCENT, "SliderGrab": (*ACCENT, 170), "SliderGrabActive": (130, 192, 235, 220),
    "Button": (60, 62, 67), "ButtonHovered": (74, 77, 83), "ButtonActive": ACCENT_DIM,
    "Header": (48, 50, 54), "HeaderHovered": (58, 61, 66), "HeaderActive": (64, 68, 74),
    "Separator": (56, 58, 62), "PlotHistogram": ACCENT, "TextSelectedBg": ACCENT_DIM,
    "ModalWindowDimBg": (10, 10, 12, 140), "NavHighlight": ACCENT,
}  # fmt: skip
_STYLES: dict[str, tuple[float, ...]] = {
    "WindowPadding": (10, 8), "FramePadding": (8, 4), "ItemSpacing": (8, 6), "ItemInnerSpacing": (6, 4), "CellPadding": (4, 2),
    "FrameRounding": (4,), "ChildRounding": (4,), "WindowRounding": (6,), "PopupRounding": (6,), "GrabRounding": (4,),
    "ScrollbarRounding": (6,), "ScrollbarSize": (12,), "GrabMinSize": (10,), "WindowBorderSize": (0,), "ChildBorderSize": (0,),
    "FrameBorderSize": (0,), "PopupBorderSize": (1,), "IndentSpacing": (14,),
}  # fmt: skip


@dataclass(frozen=True)
class Look:
    """Fonts and themes of one open window."""

    strong: gate.Tag | None
    small: gate.Tag | None
    stage: gate.Tag
    record: gate.Tag
    primary: gate.Tag
    flat: gate.Tag


def apply_look() -> Look:
    """Give the open window its fonts and colours."""
    gate.bind_font(gate.load_font(FONTS / "Inter-Regular.otf", 15))
    gate.bind_theme(gate.make_theme(_COLORS, _STYLES))
    return Look(
        strong=gate.load_font(FONTS / "Inter-SemiBold.otf", 15),
        small=gate.load_font(FONTS / "Inter-Regular.otf", 13),
        stage=gate.make_theme({"ChildBg": STAGE}, {"WindowPadding": (0, 0), "ChildRounding": (0,)}),
        record=gate.make_theme({"Button": (150, 48, 44), "ButtonHovered": (178, 58, 53), "ButtonActive": RECORD}, {}),
        primary=gate.make_theme({"Button": ACCENT_DIM, "ButtonHovered": (70, 120, 156), "ButtonActive": ACCENT}, {}),
        flat=gate.make_theme({"Button": (0, 0, 0, 0), "ButtonHovered": (66, 68, 73), "ButtonActive": ACCENT_DIM}, {"FramePadding": (2, 4), "ButtonTextAlign": (0, 0.5)}),
    )
