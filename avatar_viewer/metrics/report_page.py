"""The readable half of a report: one HTML file that holds its tables, curves and pictures."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from .picture_report import Pair
from .speech_report import SpokenTake

STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:70em;color:#222}h2{margin-top:2em}"
    "table{border-collapse:collapse;margin:1em 2em 1em 0;display:inline-table;vertical-align:top}"
    "td,th{padding:.1em .8em .1em 0;text-align:left;font-weight:normal}td{text-align:right;font-variant-numeric:tabular-nums}"
    "caption{text-align:left;font-weight:600}svg{background:#f6f6f4;max-width:100%}figure{display:inline-block;margin:.4em}"
    "figcaption{font-size:12px;color:#666}img{height:256px}"
)
MOST_PAIRS = 16


def write_page(path: Path, report: dict, takes: list[SpokenTake], pairs: list[Pair]) -> None:
    """`report.html`: figures, then pictures (truth left, avatar right), then the lips of every take."""
    tables = [
        _table("Resting head, unseen cameras", report["canonical"]),
        _table("Talking frames", report["talking"]),
        _table("Speech, mean over takes", report["mean"]),
        _table("Lip gap under disturbance, r with clean", report["robustness"]),
        _table("Settings", report["settings"]),
        _table("Edits while speaking", {name: value for name, value in report["edits"].items() if name != "by_au"}),
        _by_name("Edits by AU", report["edits"].get("by_au", {})),
        _by_name("AUs heard", report["aus"]["voice"]["by_au"]),
        _by_name("Takes", report["sequences"]),
    ]
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in report["notes"])
    figures = "".join(_figure(pair) for pair in _spread(pairs, MOST_PAIRS))
    curves = "".join(
        f"<h3>{html.escape(take.sequence.name)}: {html.escape(take.sequence.text)}</h3>"
        + draw_curves(take.true_gap, take.gap, take.sequence.fps)
        for take in takes
    )
    page = (
        "<!doctype html><html lang='en'><meta charset='utf-8'>"
        f"<title>{html.escape(report['avatar'])}</title><style>{STYLE}</style>"
        f"<h1>{html.escape(report['avatar'])} on {html.escape(report['capture'])}</h1>{notes}{''.join(tables)}"
        f"<h2>Pictures: truth left, avatar right</h2>{figures}"
        f"<h2>Lip gap in mm: truth grey, avatar red</h2>{curves}</html>"
    )
    path.write_text(page, encoding="utf-8")


def draw_curves(truth: np.ndarray, found: np.ndarray, fps: float, height: int = 120) -> str:
    """Two curves [T] over time as one SVG."""
    width, top = max(200, int(len(truth) / fps * 160)), max(float(truth.max()), float(found.max()), 1.0)

    def line(values: np.ndarray, color: str) -> str:
        points = " ".join(f"{i * width / len(values):.1f},{height - v / top * (height - 8):.1f}" for i, v in enumerate(values))
        return f"<polyline points='{points}' fill='none' stroke='{color}' stroke-width='1.5'/>"

    return f"<svg width='{width}' height='{height}'>{line(truth, '#888')}{line(found, '#c22')}</svg>"


def _table(title: str, figures: dict) -> str:
    rows = "".join(f"<tr><th>{html.escape(name)}</th><td>{_number(value)}</td></tr>" for name, value in figures.items())
    return f"<table><caption>{html.escape(title)}</caption>{rows}</table>" if rows else ""


def _by_name(title: str, rows: dict[str, dict]) -> str:
    if not rows:
        return ""
    names = list({name: None for row in rows.values() for name in row})
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "".join(
        f"<tr><th>{html.escape(key)}</th>{''.join(f'<td>{_number(row.get(name))}</td>' for name in names)}</tr>"
        for key, row in rows.items()
    )
    return f"<table><caption>{html.escape(title)}</caption><tr><th></th>{head}</tr>{body}</table>"


def _number(value: object) -> str:
    return html.escape(f"{value:.3f}" if isinstance(value, float) else "" if value is None else str(value))


def _figure(pair: Pair) -> str:
    both = np.concatenate((pair.truth, pair.found), axis=1)
    buffer = io.BytesIO()
    Image.fromarray(both).save(buffer, "JPEG", quality=88)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"<figure><img src='data:image/jpeg;base64,{data}'><figcaption>{html.escape(pair.label)}</figcaption></figure>"


def _spread(pairs: list[Pair], count: int) -> Iterable[Pair]:
    return [pairs[i] for i in np.unique(np.linspace(0, len(pairs) - 1, min(count, len(pairs))).astype(int))] if pairs else []
