"""An avatar against a capture's truth: every figure in `report.json`, the curves in `report.html`.

Puts the formulas of this room to work on held-out cameras, sentences and voices; holds no formula itself.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from ..avatar.animation import Animator
from ..avatar.bundle import Avatar, load_avatar
from ..avatar.speech_motion import speak
from ..errors import InputError
from ..rendering.rasterize import rasterize
from ..studio.performance import speech_activity
from ..studio.rig_source import open_rig
from ..studio.voices import Phone
from ..training.datasets.capture import Capture, Shot, TalkingSequence, open_capture
from ..types import AUEdit, MotionFrame, MotionWindow
from . import actions, image, lips, motion

BILABIALS = ("p", "b", "m")
LPIPS_NOTE = "LPIPS is not reported: its network's weights are not part of this project and were not found"


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
    sequences = [measure_sequence(avatar, capture, sequence) for sequence in _with_progress(_spoken_tests(capture))]
    report = {
        "avatar": avatar.name,
        "capture": capture.name,
        "canonical": measure_canonical(avatar, capture),
        "mean": _means([sequence["figures"] for sequence in sequences]),
        "sequences": {sequence["name"]: sequence["figures"] for sequence in sequences},
        "notes": [LPIPS_NOTE],
    }
    (out / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    (out / "report.html").write_text(_page(report, sequences), encoding="utf-8")
    return report


def measure_canonical(avatar: Avatar, capture: Capture) -> dict:
    """PSNR, SSIM and sharpness ratio of the resting head from cameras that training never saw, inside the head's mask."""
    at_rest = MotionFrame(0.0, torch.zeros(17), torch.zeros(17), 0.0, torch.zeros_like(avatar.face.neutral), torch.zeros(2))
    frame = Animator(avatar).pose(at_rest, AUEdit())
    held_out = [shot for shot in capture.canonical.shots if shot.camera in capture.held_out_cameras]
    if not held_out:
        return {}
    return _means([_compare(rasterize(frame, shot.view).color, shot) for shot in held_out])


def _compare(color: torch.Tensor, shot: Shot) -> dict:
    truth, mask = (tensor.float() / 255 for tensor in shot.load())
    return {
        "psnr": image.psnr(color, truth, mask),
        "ssim": image.ssim(color, truth, mask),
        "sharpness_ratio": image.sharpness(color, mask) / max(image.sharpness(truth, mask), 1e-9),
    }


def measure_sequence(avatar: Avatar, capture: Capture, sequence: TalkingSequence) -> dict:
    """A held-out take spoken by the avatar from its sound alone, beside the truth."""
    window = speak(avatar, torch.from_numpy(sequence.samples), blinks=False)
    truth = _true_vertices(capture, sequence).numpy() - capture.neutral.numpy()
    frames = min(len(truth), len(window.offsets))
    offsets, truth = window.offsets[:frames].numpy(), truth[:frames]
    neutral, pairs = capture.neutral.numpy(), (avatar.face.lip_upper.numpy(), avatar.face.lip_lower.numpy())
    gap, true_gap = (lips.lip_gap_mm(neutral + moved, *pairs) for moved in (offsets, truth))
    phones = tuple(Phone(*phone) for phone in sequence.phones)
    speaking = speech_activity(phones, frames, sequence.fps) > 0
    middles = np.array([(p.start + p.end) / 2 for p in phones if p.symbol in BILABIALS])
    regions = {name: ids.numpy() for name, ids in capture.regions.items()}
    codes = sequence.au_codes.values[:frames].numpy()
    figures = {
        "lip_gap_correlation": lips.correlation(gap[speaking], true_gap[speaking]),
        "loudness_baseline": lips.loudness_baseline(sequence.samples, true_gap, sequence.fps, speaking),
        "closure_rate": lips.closure_rate(gap, sequence.fps, middles),
        "rest_rate": lips.rest_rate(gap, ~speaking),
        "vertex_rmse_mm": motion.vertex_rmse_mm(offsets, truth),
        "lve_mm": motion.lip_vertex_error_mm(offsets, truth, regions["lips"]),
        "lip_excursion_mm": motion.lip_vertex_error_mm(np.zeros_like(truth), truth, regions["lips"]),
        "fdd_1e-5_m": motion.upper_face_dynamics_deviation(offsets, truth, regions["upper_face"]) * 1e5,
        "mod_mm": motion.mouth_opening_difference_mm(gap, true_gap),
        "seam_ratio": motion.seam_ratio(offsets, avatar.stream.hop_frames(avatar.fps)),
        "jitter_mm": motion.jitter_mm(offsets),
        "au_mae": float(np.abs(window.au_codes[:frames].numpy() - codes).mean()),
        "au_f1_spoken": actions.agreement(window.au_codes[:frames].numpy(), codes)["macro_f1"],
    }
    figures |= _measure_pictures(avatar, capture, sequence, window)
    return {"name": sequence.name, "figures": figures, "gap": gap, "true_gap": true_gap, "fps": sequence.fps, "text": sequence.text}


def _measure_pictures(avatar: Avatar, capture: Capture, sequence: TalkingSequence, window: MotionWindow) -> dict:
    """The talking frames that have pictures, seen by held-out cameras (by all, where none is held out)."""
    animator, found = Animator(avatar), []
    for index in sequence.pictured:
        if index >= len(window.offsets):
            continue
        parts = (window.au_codes[index], window.au_applied[index], float(window.voice[index]), window.offsets[index], window.gaze[index])
        frame = animator.pose(MotionFrame(index / sequence.fps, *parts), AUEdit())
        shots = capture.shots(sequence, index)
        unseen = [shot for shot in shots if shot.camera in capture.held_out_cameras]
        found += [_compare(rasterize(frame, shot.view).color, shot) for shot in unseen or shots]
    return {f"talking_{name}": value for name, value in _means(found).items()} if found else {}


def _true_vertices(capture: Capture, sequence: TalkingSequence) -> torch.Tensor:  # [T, V, 3]
    if sequence.has_meshes:
        return sequence.meshes()
    performance = sequence.performance
    if performance is None or not capture.rig_source:
        raise InputError(f"sequence {sequence.name} has neither meshes.npz nor performance.npz with a known rig; nothing to compare with")
    return capture.neutral + torch.from_numpy(open_rig(capture.rig_source).offsets(performance[0]))


def _spoken_tests(capture: Capture) -> list[TalkingSequence]:
    found = [sequence for sequence in capture.split("test") if sequence.kind == "performed"]
    if not found:
        raise InputError(f"capture {capture.folder} holds out no performed sequence; there is nothing to evaluate on")
    return found


def _means(rows: Iterable[dict]) -> dict:
    """The mean of every figure over the rows that have it."""
    rows = list(rows)
    names = {name: None for row in rows for name in row}  # ordered, each once
    values = {name: [row[name] for row in rows if row.get(name) is not None and np.isfinite(row[name])] for name in names}
    return {name: float(np.mean(found)) for name, found in values.items() if found}


def _with_progress(items: list) -> Iterable:
    from tqdm import tqdm

    return tqdm(items, desc="evaluate", unit="take", disable=len(items) < 3)


def _page(report: dict, sequences: list[dict]) -> str:
    figures = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{value:.3f}</td></tr>" for name, value in (report["canonical"] | report["mean"]).items()
    )
    curves = "".join(
        f"<h3>{html.escape(s['name'])}: {html.escape(s['text'])}</h3>{_curve(s['true_gap'], s['gap'], s['fps'])}" for s in sequences
    )
    return (
        "<!doctype html><meta charset='utf-8'><title>Avatar report</title>"
        "<style>body{font:15px sans-serif;margin:2em;max-width:60em}td{text-align:right}th{text-align:left;font-weight:normal}"
        "svg{background:#f6f6f4}</style>"
        f"<h1>{html.escape(report['avatar'])} on {html.escape(report['capture'])}</h1><table>{figures}</table>"
        f"<p>{html.escape(' '.join(report['notes']))}</p><h2>Lip gap in mm: truth grey, avatar red</h2>{curves}"
    )


def _curve(truth: np.ndarray, found: np.ndarray, fps: float, height: int = 120) -> str:
    width, top = max(200, int(len(truth) / fps * 160)), max(float(truth.max()), float(found.max()), 1.0)

    def line(values: np.ndarray, color: str) -> str:
        points = " ".join(f"{i * width / len(values):.1f},{height - v / top * (height - 8):.1f}" for i, v in enumerate(values))
        return f"<polyline points='{points}' fill='none' stroke='{color}' stroke-width='1.5'/>"

    return f"<svg width='{width}' height='{height}'>{line(truth, '#888')}{line(found, '#c22')}</svg>"
