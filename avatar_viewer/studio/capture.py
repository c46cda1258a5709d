"""Writes captures: a blendshape rig in front of the studio's cameras, in the neutral layout that training reads.

Everything follows from the rig, the scale and the seed. A finished file is never written again, so an interrupted run
goes on where it was; every file appears whole or not at all. Knows files and the order of work; the picture is
`renderer`'s, the pose the rig's.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image
from tqdm import tqdm

from ..action_units import AU_NAMES
from ..config import SAMPLE_RATE
from ..errors import InputError
from .atomic_files import write_bytes
from .blendshapes import GAZE_CHANNELS, RIG_CHANNELS, BlendshapeRig, PosedHead, group_of
from .cameras import StudioCamera, studio_cameras
from .contact_sheet import draw_contact_sheet
from .performance import au_codes
from .poses import HIDDEN_SURFACE_POSES, coefficients
from .renderer import Picture, StudioRenderer
from .rig_source import name_rig, open_rig
from .scaffold import choose_points, mark_seen, scatter_points
from .takes import SCALES, TEST_MARK, CaptureScale, Take, choose_sentences, plan_takes
from .voices import TEST_VOICES

FORMAT_VERSION = 1
JPEG_QUALITY = 95
_STAMP = "made_with.json"


def run_studio(
    rig_source: str,
    out: Path,
    scale: str = "demo",
    sentences: Path | None = None,
    contact_sheet: Path | None = None,
    seed: int = 0,
) -> None:
    """Record a capture of the rig that `rig_source` names: "builtin", a GLB file or a folder of OBJ files."""
    if scale not in SCALES:
        raise InputError(f"unknown scale {scale!r}; use {' or '.join(SCALES)}")
    spoken = choose_sentences(SCALES[scale], sentences)
    rig_source = name_rig(rig_source)
    made_with = _describe_making(rig_source, SCALES[scale], seed)
    if sentences is not None:
        made_with["sentences"] = hashlib.sha256("\n".join((*spoken[0], TEST_MARK, *spoken[1])).encode()).hexdigest()[:12]
    _check_folder(out, made_with)  # before the minutes of all that follows
    rig = open_rig(rig_source, print)
    if contact_sheet is not None:
        draw_contact_sheet(rig, contact_sheet)
    takes = plan_takes(rig, SCALES[scale], spoken, seed)
    held_out = [voice.label for voice in TEST_VOICES]
    _write_capture(rig, out, takes, SCALES[scale], seed, made_with, held_out)


def write_capture(
    rig: BlendshapeRig,
    out: Path,
    takes: Iterable[Take],
    *,
    scale: CaptureScale,
    seed: int = 0,
    rig_source: str = "",
    held_out_voices: Sequence[str] = (),
) -> None:
    """Record `takes` and everything else that training needs; `InputError` where `out` holds a different capture."""
    _write_capture(rig, out, takes, scale, seed, _describe_making(rig_source or rig.name, scale, seed), held_out_voices)


def _describe_making(rig: str, scale: CaptureScale, seed: int) -> dict[str, object]:
    """What decides a capture: files made with another one are not mixed in."""
    return {"rig": rig, "scale": scale.name, "size": scale.size, "seed": seed}


def _write_capture(
    rig: BlendshapeRig,
    out: Path,
    takes: Iterable[Take],
    scale: CaptureScale,
    seed: int,
    made_with: dict[str, object],
    held_out_voices: Sequence[str],
) -> None:
    _claim_folder(out, made_with)
    cameras = studio_cameras(scale.name, scale.size)
    _write_geometry(rig, out)
    _write_cameras(cameras, out)
    sequences, pictured = {}, []
    for take in takes:
        _write_take(rig, out, take)
        sequences[take.name] = _describe(take)
        if take.pictured:
            pictured.append(take)
    poses = dict(list(HIDDEN_SURFACE_POSES.items())[: scale.poses])
    index = _index(rig, made_with, cameras, sequences, tuple(poses), held_out_voices)
    _write_json(out / "capture.json", {**index, "complete": False})
    neutral = rig.pose(coefficients({}))
    renderer = StudioRenderer(rig, neutral, scale.supersampling, scale.light_samples, seed)
    total = len(cameras) + len(poses) * sum("pose" in c.roles for c in cameras)
    total += sum(len(take.pictured) * scale.cameras_a_frame for take in pictured)
    with tqdm(total=total, unit="picture", desc="studio", smoothing=0.1) as bar:
        _shoot_canonical(rig, out, cameras, renderer, bar)
        _shoot_poses(rig, out, cameras, poses, renderer, bar)
        _write_scaffold(rig, out, cameras, poses, scale, seed, renderer)
        for take in pictured:
            _shoot_take(rig, out, cameras, take, scale, renderer, bar)
    _write_json(out / "capture.json", {**index, "complete": True})


def _check_folder(out: Path, made_with: dict[str, object]) -> None:
    """`InputError` where `out` holds anything but the beginning of this very capture."""
    if not (out / _STAMP).exists():
        if out.is_dir() and any(out.iterdir()):
            raise InputError(f"{out} is not empty and holds no capture; choose another folder")
        return
    try:
        found = json.loads((out / _STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = "what its made_with.json does not say"
    if found != made_with:
        raise InputError(f"{out} holds a capture made with {found}, not {made_with}; choose another folder or delete it")


def _claim_folder(out: Path, made_with: dict[str, object]) -> None:
    _check_folder(out, made_with)
    out.mkdir(parents=True, exist_ok=True)
    _write_json(out / _STAMP, made_with)


def _write_geometry(rig: BlendshapeRig, out: Path) -> None:
    if not (out / "template.obj").exists():
        lines = [f"# {rig.name}, metres, y up, facing +z"]
        lines += [f"v {x:.7f} {y:.7f} {z:.7f}" for x, y, z in rig.face.vertices]
        lines += [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in rig.face.faces]
        write_bytes(out / "template.obj", ("\n".join(lines) + "\n").encode())
    if not (out / "regions.json").exists():
        _write_json(out / "regions.json", {name: [int(i) for i in ids] for name, ids in rig.regions.items()})


def _write_cameras(cameras: Sequence[StudioCamera], out: Path) -> None:
    entries = {}
    for stand in cameras:
        camera = stand.camera
        pose = np.linalg.inv(camera.viewmat.double().numpy())
        entries[stand.name] = {
            "K": camera.K.tolist(),
            "D": [0.0] * 5,
            "camera_to_world": pose.tolist(),
            "width": camera.width,
            "height": camera.height,
        }
    _write_json(out / "cameras.json", entries)


def _index(
    rig: BlendshapeRig,
    made_with: dict[str, object],
    cameras: Sequence[StudioCamera],
    sequences: Mapping[str, dict[str, object]],
    poses: tuple[str, ...],
    held_out_voices: Sequence[str],
) -> dict[str, object]:
    return {
        "format": FORMAT_VERSION,
        "name": rig.name,
        "units": "metres",
        "fps": 25.0,
        "rig": made_with["rig"],
        "au_names": list(AU_NAMES),
        "cameras": [stand.name for stand in cameras],
        "poses": list(poses),
        "sequences": dict(sequences),
        "viseme_aus": {viseme: dict(aus) for viseme, aus in rig.viseme_aus.items()},
        "split": {
            "train_sequences": [name for name, entry in sequences.items() if entry["split"] == "train"],
            "test_sequences": [name for name, entry in sequences.items() if entry["split"] == "test"],
            "held_out_cameras": [stand.name for stand in cameras if "held_out" in stand.roles],
            "held_out_voices": list(held_out_voices),
        },
        "made_with": made_with,
    }


def _describe(take: Take) -> dict[str, object]:
    performance = take.performance
    return {
        "kind": performance.kind, "split": take.split, "voice": performance.voice, "emotion": performance.emotion,
        "fps": performance.fps, "frames": len(performance.values), "pictured": list(take.pictured),
    }  # fmt: skip


def _write_take(rig: BlendshapeRig, out: Path, take: Take) -> None:
    """Sound, phones, codes and coefficients; meshes too where there are pictures. The `kind` file comes last: all is there."""
    folder = out / "sequences" / take.name
    if (folder / "kind").exists():
        return
    performance = take.performance
    wav = io.BytesIO()
    soundfile.write(wav, performance.samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    write_bytes(folder / "audio.wav", wav.getvalue())
    write_bytes(folder / "text.txt", (performance.text + "\n").encode())
    phones = [(f"{p.start:.4f}", f"{p.end:.4f}", p.symbol) for p in performance.phones]
    write_bytes(folder / "phones.csv", _csv(("start", "end", "phone"), phones))
    write_bytes(folder / "au.csv", _au_csv(au_codes(performance.values, rig.viseme_aus), performance.fps))
    arrays = {"values": performance.values, "channels": np.array(performance.channels), "fps": np.float32(performance.fps)}
    _write_npz(folder / "performance.npz", arrays)
    if take.pictured:
        heads = [rig.pose(values) for values in performance.values]
        _write_npz(folder / "meshes.npz", {"vertices": np.stack([head.face for head in heads]).astype(np.float32)})
        _write_groups(folder / "groups.npz", rig, heads, performance.values)
    write_bytes(folder / "kind", (performance.kind + "\n").encode())


def _au_csv(codes: np.ndarray, fps: float) -> bytes:  # [T, 17]
    header = ("frame", "timestamp", "confidence", "success", *(f"{name}_r" for name in AU_NAMES))
    rows = [(i + 1, f"{i / fps:.3f}", "1.0", 1, *(f"{value:.3f}" for value in row)) for i, row in enumerate(codes)]
    return _csv(header, rows)


def _write_groups(path: Path, rig: BlendshapeRig, heads: Sequence[PosedHead], values: np.ndarray) -> None:
    moving = [part for part in rig.parts if part.attachment in ("jaw", "tongue", "eye")]
    transforms = np.array([[head.transforms[group_of(part)] for part in moving] for head in heads], dtype=np.float32)
    gaze = values[:, [RIG_CHANNELS.index(name) for name in GAZE_CHANNELS]]
    arrays = {
        "names": np.array([part.name for part in moving], dtype=np.str_),
        "parents": np.array(["head" if part.attachment == "eye" else "jaw" for part in moving], dtype=np.str_),
        "pivots": np.array([part.pivot for part in moving], dtype=np.float32).reshape(-1, 3),
        "follows_gaze": np.array([part.attachment == "eye" for part in moving], dtype=bool),
        "transforms": transforms.reshape(len(heads), len(moving), 4, 4),
        "gaze": gaze.astype(np.float32),
    }
    _write_npz(path, arrays)


def _shoot_canonical(rig: BlendshapeRig, out: Path, cameras: Sequence[StudioCamera], renderer: StudioRenderer, bar: tqdm) -> None:
    head = rig.pose(coefficients({}))  # the renderer stands on it already, finely lit
    _write_once(out / "canonical" / "groups.npz", lambda path: _write_groups(path, rig, [head], coefficients({})[None]))
    _shoot(None, cameras, renderer, bar, lambda name: (out / "canonical" / f"{name}.png", out / "masks" / f"{name}.png"))


def _shoot_poses(
    rig: BlendshapeRig,
    out: Path,
    cameras: Sequence[StudioCamera],
    poses: Mapping[str, Mapping[str, float]],
    renderer: StudioRenderer,
    bar: tqdm,
) -> None:
    chosen = [stand for stand in cameras if "pose" in stand.roles]
    for name, named in poses.items():
        folder = out / "poses" / name
        values = coefficients(named)
        head = rig.pose(values)
        _write_once(
            folder / "mesh.npz", lambda path, head=head: _write_npz(path, {"vertices": head.face[None].astype(np.float32)})
        )
        _write_once(folder / "groups.npz", lambda path, head=head, values=values: _write_groups(path, rig, [head], values[None]))
        _shoot(
            head, chosen, renderer, bar,
            lambda camera, folder=folder: (folder / "images" / f"{camera}.png", folder / "masks" / f"{camera}.png"),
        )  # fmt: skip


def _shoot_take(
    rig: BlendshapeRig,
    out: Path,
    cameras: Sequence[StudioCamera],
    take: Take,
    scale: CaptureScale,
    renderer: StudioRenderer,
    bar: tqdm,
) -> None:
    folder = out / "sequences" / take.name
    dynamic = [stand for stand in cameras if "dynamic" in stand.roles and "held_out" not in stand.roles]
    dynamic.sort(key=lambda stand: "every_frame" not in stand.roles)
    held_out = [stand for stand in cameras if "dynamic" in stand.roles and "held_out" in stand.roles]
    turn = zlib.crc32(take.name.encode())
    for position, frame in enumerate(take.pictured):
        start = turn + position * (scale.cameras_a_frame - 1)
        chosen = [dynamic[0]] + [dynamic[1 + (start + i) % (len(dynamic) - 1)] for i in range(scale.cameras_a_frame - 1)]
        if take.split == "test":
            chosen[-1:] = held_out[:1]
        paths = {
            c.name: (folder / "images" / c.name / f"{frame:05d}.jpg", folder / "masks" / c.name / f"{frame:05d}.png")
            for c in chosen
        }
        _shoot(rig.pose(take.performance.values[frame]), chosen, renderer, bar, paths.__getitem__)


def _shoot(
    head: PosedHead | None,  # None: as the renderer stands
    cameras: Sequence[StudioCamera],
    renderer: StudioRenderer,
    bar: tqdm,
    paths: Callable[[str], tuple[Path, Path]],
) -> None:
    """Pictures and masks of one pose from `cameras`; `paths(camera name)` gives (picture, mask)."""
    missing = [stand for stand in cameras if not all(path.exists() for path in paths(stand.name))]
    bar.update(len(cameras) - len(missing))
    if missing and head is not None:
        renderer.set_head(head)
    for stand in missing:
        picture = renderer.take_picture(stand.camera)
        _write_picture(picture, *paths(stand.name))
        bar.update(1)


def _write_picture(picture: Picture, path: Path, mask_path: Path) -> None:
    for pixels, target in ((picture.mask, mask_path), (picture.color, path)):
        data = io.BytesIO()
        if target.suffix == ".jpg":
            Image.fromarray(pixels).save(data, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        else:
            Image.fromarray(pixels).save(data, "PNG", compress_level=4)
        write_bytes(target, data.getvalue())


def _write_scaffold(
    rig: BlendshapeRig,
    out: Path,
    cameras: Sequence[StudioCamera],
    poses: Mapping[str, Mapping[str, float]],
    scale: CaptureScale,
    seed: int,
    renderer: StudioRenderer,
) -> None:
    path = out / "scaffold.npz"
    if path.exists() or not rig.parts:
        return
    candidates = scatter_points(rig.parts, scale.scaffold_points, seed)
    seen = [np.zeros(len(points.corners), dtype=bool) for points in candidates]
    for name, named in {"": {}, **poses}.items():
        head = rig.pose(coefficients(named))
        renderer.set_head(head)
        placed = [points.on(head.parts[part.name]) for part, points in zip(rig.parts, candidates)]
        for stand in cameras:
            if name and "pose" not in stand.roles:
                continue
            depth = renderer.measure_depth(stand.camera)
            for points, mask in zip(placed, seen):
                mark_seen(points, stand.camera, depth, mask)
    scaffold = choose_points(rig.parts, candidates, seen, scale.scaffold_points, seed)
    arrays = {
        "points": scaffold.points, "normals": scaffold.normals, "colors": scaffold.colors, "parts": scaffold.parts,
        "part_names": np.array(scaffold.part_names, dtype=np.str_), "attachments": np.array(scaffold.attachments, dtype=np.str_),
    }  # fmt: skip
    _write_npz(path, arrays)


def _csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def _write_once(path: Path, write: Callable[[Path], None]) -> None:
    if not path.exists():
        write(path)


def _write_json(path: Path, value: object) -> None:
    write_bytes(path, (json.dumps(value, indent=1) + "\n").encode())


def _write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    data = io.BytesIO()
    np.savez_compressed(data, **arrays)
    write_bytes(path, data.getvalue())
