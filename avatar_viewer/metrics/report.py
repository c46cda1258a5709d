"""An avatar against a capture's truth: every figure in `report.json`, curves and pictures in `report.html`.

Puts the formulas of this room to work on held-out cameras, sentences and voices; holds no formula itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..avatar.bundle import Avatar, load_avatar
from ..errors import InputError
from ..studio.rig_source import open_rig
from ..training.datasets.capture import Capture, TalkingSequence, open_capture
from .perceptual import why_no_lpips
from .picture_report import measure_canonical, measure_talking
from .report_page import write_page
from .speech_report import SpokenTake, measure_aus, measure_edits, measure_robustness, measure_settings, measure_take


def evaluate(avatar_folder: Path, data: Path, out: Path) -> dict:
    """Measure the avatar in `avatar_folder` on the capture in `data`; writes and returns the report."""
    avatar, capture = load_avatar(avatar_folder), open_capture(data)
    if tuple(capture.neutral.shape) != tuple(avatar.face.neutral.shape):
        raise InputError(
            f"{data} has {len(capture.neutral)} face vertices and avatar {avatar.name} has {len(avatar.face.neutral)}; "
            "evaluate an avatar on a capture of its own subject"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write the report to {out}: {error.strerror}") from error
    report, takes, pairs = measure(avatar, capture)
    (out / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    write_page(out / "report.html", report, takes, pairs)
    return report


def measure(avatar: Avatar, capture: Capture) -> tuple[dict, list[SpokenTake], list]:
    """The report, the spoken takes and the pairs of pictures behind it."""
    sequences = _spoken_tests(capture)
    shapes = dict(open_rig(capture.rig_source).shapes) if capture.rig_source else {}
    with tqdm(total=len(sequences) + 4, desc="evaluate", bar_format="{l_bar}{bar}| {elapsed}<{remaining}") as bar:
        takes, talking, pairs = [], [], []
        for sequence in sequences:
            take = measure_take(avatar, sequence, _truth(capture, sequence))
            rows, seen = measure_talking(avatar, capture, sequence, take.window)
            takes.append(take), talking.extend(rows), pairs.extend(seen)
            bar.update()
        canonical, seen = measure_canonical(avatar, capture)
        bar.update()
        report = {
            "avatar": avatar.name,
            "capture": capture.name,
            "canonical": _means(canonical),
            "talking": _means(talking),
            "mean": _means([take.figures for take in takes]),
            "worst_lip_gap_correlation": min(take.figures["lip_gap_correlation"] for take in takes),
            "aus": measure_aus(takes),
            "robustness": measure_robustness(avatar, takes),
        }
        bar.update()
        report["settings"] = measure_settings(avatar, takes)
        bar.update()
        report["edits"] = measure_edits(avatar, takes, shapes) if shapes else {}
        bar.update()
    report["sequences"] = {take.sequence.name: _plain(take.figures) | {"voice": take.sequence.voice} for take in takes}
    notes = [why_no_lpips()] + ["" if shapes else "edits are not measured: the capture has no rig to read action units with"]
    report["notes"] = [note for note in notes if note]
    return report, takes, seen + pairs


def _truth(capture: Capture, sequence: TalkingSequence) -> np.ndarray:  # [T, V, 3] metres from neutral
    if sequence.has_meshes:
        return (sequence.meshes() - capture.neutral).numpy()
    performance = sequence.performance
    if performance is None or not capture.rig_source:
        raise InputError(f"sequence {sequence.name} has neither meshes.npz nor performance.npz with a known rig; nothing to compare with")
    return open_rig(capture.rig_source).offsets(performance[0])


def _spoken_tests(capture: Capture) -> list[TalkingSequence]:
    found = [sequence for sequence in capture.split("test") if sequence.kind == "performed"]
    if not found:
        raise InputError(f"capture {capture.folder} holds out no performed sequence; there is nothing to evaluate on")
    return found


def _means(rows: Iterable[dict]) -> dict[str, float]:
    """The mean of every figure over the rows in which it is defined."""
    rows = [_plain(row) for row in rows]
    names = {name: None for row in rows for name in row}  # ordered, each once
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}


def _plain(row: dict) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if value is not None and np.isfinite(value)}
