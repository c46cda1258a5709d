"""A clip without a window: the same loop as the session's, on a stepped clock, so that the frames are the same frames.

Sound in, mp4 or a folder of pictures out; edits and camera as the window has them. Nothing half-written stays behind.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..action_units import MAX_OVER_RANGE
from ..avatar.animation import Animator
from ..avatar.edit_track import EditTrack
from ..avatar.manifest import identify
from ..avatar.speech_motion import SpeechMotion
from ..config import SAMPLE_RATE, StreamContext
from ..errors import InputError
from ..rendering import gsplat_backend
from ..rendering.orbit import OrbitCamera
from ..rendering.rasterize import rasterize
from ..types import AudioChunk, AUEdit, Camera, MotionWindow
from .clip_sink import open_sink, to_bytes
from .clip_sound import ClipSound, FileSound, HeardSound, TakeSound, TensorSound
from .clock import SteppedClock
from .decoding import PLAYBACK_RATE
from .handoff import MotionTimeline
from .replay import Scene, fill, replay
from .take_file import TakeFile
from .take_journal import LEAD_IN_SECONDS

if TYPE_CHECKING:
    from ..avatar.bundle import Avatar

BACKGROUND = (0.235, 0.24, 0.25)  # a neutral grey, on which skin is judged fairly; the window's too
MAX_FPS = 240.0


@dataclass(frozen=True)
class Exported:
    """What an export wrote."""

    path: Path
    frames: int
    fps: float
    notes: tuple[str, ...]  # oddities of the sound


def export_clip(
    avatar: Avatar,
    sound: str | os.PathLike[str] | Tensor,  # a file of any format, or [S] float32 mono 16 kHz
    out: str | os.PathLike[str],  # name.mp4, or a folder for pictures
    *,
    edits: EditTrack | None = None,
    camera: OrbitCamera | Camera | None = None,  # a `Camera` is scaled to `size`
    size: tuple[int, int] = (512, 512),  # width, height
    fps: float | None = None,  # None: the avatar's
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    blinks: bool = True,
    stream: StreamContext | None = None,
    background: tuple[float, float, float] = BACKGROUND,
    backend: str = "auto",
    contact_sheet: str | os.PathLike[str] | None = None,  # a PNG with twelve moments of the clip
    show_progress: bool = True,
) -> Exported:
    """Render a talking clip: H.264 + AAC of the sound's length, or numbered PNG files. `InputError` for what users can mend."""
    rate = _check_fps(avatar.fps if fps is None else fps)
    edits = edits or EditTrack()
    motion = SpeechMotion(avatar, edits, seed=seed, blinks=blinks, steps=steps, guidance=guidance, stream=stream)
    source = TensorSound(sound) if isinstance(sound, Tensor) else FileSound(sound)
    try:
        total = math.ceil(source.num_samples * rate / SAMPLE_RATE - 1e-9)
        scenes = _scenes(avatar, _speak(motion, source), edits, camera or OrbitCamera(), rate, total)
        job = _Job(avatar, size, rate, background, backend, show_progress)
        path = job.run(scenes, total, Path(out), os.fspath(out), source, contact_sheet)
        return Exported(path, total, rate, source.notes)
    finally:
        source.close()


def export_motion(
    avatar: Avatar,
    motion: MotionWindow,
    out: str | os.PathLike[str],
    *,
    sound: str | os.PathLike[str] | Tensor | None = None,
    edits: EditTrack | None = None,  # instead of those that the motion was made with
    camera: OrbitCamera | Camera | None = None,
    size: tuple[int, int] = (512, 512),
    fps: float | None = None,
    background: tuple[float, float, float] = BACKGROUND,
    backend: str = "auto",
    contact_sheet: str | os.PathLike[str] | None = None,
    show_progress: bool = True,
) -> Exported:
    """Render motion that exists already, such as a take's; silent where no sound is given.

    Without `edits` the face is shown as the motion has it.
    """
    rate = _check_fps(motion.fps if fps is None else fps)
    if edits is None:
        motion = replace(motion, au_codes=motion.au_applied)
        edits = EditTrack.constant(AUEdit(limit=MAX_OVER_RANGE))
    total = math.ceil(len(motion.au_codes) * rate / motion.fps - 1e-9)
    if total == 0:
        raise InputError("the motion has no frames; nothing to render")
    source = None
    if sound is not None:
        source = TensorSound(sound) if isinstance(sound, Tensor) else FileSound(sound)
    try:
        scenes = _scenes(avatar, iter((motion,)), edits, camera or OrbitCamera(), rate, total)
        job = _Job(avatar, size, rate, background, backend, show_progress)
        path = job.run(scenes, total, Path(out), os.fspath(out), source, contact_sheet)
        return Exported(path, total, rate, source.notes if source else ())
    finally:
        if source:
            source.close()


def export_take(
    avatar: Avatar,
    take: str | os.PathLike[str],  # a take file, recorded beside its mp4
    out: str | os.PathLike[str],
    *,
    camera: OrbitCamera | Camera | None = None,  # instead of the take's own moves
    size: tuple[int, int] | None = None,  # None: the take's
    fps: float | None = None,  # None: the take's
    background: tuple[float, float, float] = BACKGROUND,
    backend: str = "auto",
    contact_sheet: str | os.PathLike[str] | None = None,
    show_progress: bool = True,
) -> Exported:
    """Perform a live take again: the same voice, edits, seed and camera, every picture at its exact moment."""
    with TakeFile(take) as file:
        rate = _check_fps(file.log.fps if fps is None else fps)
        total = round(file.heard_frames * rate / PLAYBACK_RATE)
        if total == 0:
            raise InputError(f"take {take}: holds no sound; nothing to render")
        scenes = replay(avatar, file, rate, total)
        if camera is not None:
            scenes = (replace(scene, camera=camera) for scene in scenes)
        source = TakeSound(file)
        try:
            job = _Job(avatar, size or file.log.size, rate, background, backend, show_progress)
            path = job.run(scenes, total, Path(out), os.fspath(out), source, contact_sheet)
            return Exported(path, total, rate, _oddities(file, avatar))
        finally:
            source.close()


def _oddities(take: TakeFile, avatar: Avatar) -> tuple[str, ...]:
    """Why the pictures may not be those of the take."""
    notes = []
    if take.log.avatar_sha256 != identify(avatar.manifest):
        notes.append(f"the take was made with another head, or another training of it ({take.log.avatar_name}); the performance is the same")
    if any(entry.does == "speak" and not entry.values["is_whole"] for entry in take.log.entries):
        notes.append(f"the take began amid speech: its motion starts from the {LEAD_IN_SECONDS:.0f} s before it")
    return tuple(notes)


def save_contact_sheet(
    pictures: list[tuple[float, Tensor]],  # seconds, [H, W, 3] 0..1
    path: str | os.PathLike[str],
    columns: int = 4,
) -> None:
    """One PNG with all pictures and their times."""
    from PIL import Image, ImageDraw

    assert pictures
    height, width = pictures[0][1].shape[:2]
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), (24, 24, 26))
    for place, (seconds, color) in enumerate(pictures):
        tile = Image.fromarray(to_bytes(color))
        ImageDraw.Draw(tile).text((8, 6), f"{seconds:.2f} s", fill=(230, 230, 230))
        sheet.paste(tile, ((place % columns) * width, (place // columns) * height))
    try:
        sheet.save(path, format="PNG")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None


def _speak(motion: SpeechMotion, source: ClipSound) -> Iterator[MotionWindow]:
    """Motion as it is needed, a hop of sound at a time."""
    hop = motion.stream.hop_samples
    for start in range(0, source.num_samples, hop):
        yield from motion.feed(AudioChunk(source.speech(start, hop), start / SAMPLE_RATE))
    yield from motion.finish()


# ---- the loop ------------------------------------------------------------------------------------------------------


def _scenes(
    avatar: Avatar, windows: Iterator[MotionWindow], edits: EditTrack, camera: OrbitCamera | Camera, fps: float, total: int
) -> Iterator[Scene]:
    """What is seen in each picture of a clip."""
    timeline = MotionTimeline(len(avatar.face.neutral), device=avatar.rig.means.device)
    clock = SteppedClock()
    for index in range(total):
        clock.seek(index / fps)
        now = clock.now()
        fill(timeline, windows, now)
        yield Scene(timeline.at(now), edits.at(now), camera)
        timeline.prune(now - 1.0)


@dataclass(frozen=True)
class _Job:
    avatar: Avatar
    size: tuple[int, int]
    fps: float
    background: tuple[float, float, float]
    backend: str
    show_progress: bool

    def __post_init__(self) -> None:
        if self.backend == "gsplat" and (reason := gsplat_backend.why_unavailable()):
            raise InputError(f"the gsplat back-end cannot be used: {reason}; choose cpu or auto")

    def run(
        self, scenes: Iterator[Scene], total: int, path: Path, given: str,
        source: HeardSound | None, contact_sheet: str | os.PathLike[str] | None,
    ) -> Path:  # fmt: skip
        sheet_indices = {round((place + 0.5) * (total - 1) / 12) for place in range(12)} if contact_sheet else set()
        sheet: list[tuple[float, Tensor]] = []
        sink = open_sink(path, given, self.size, self.fps, with_sound=source is not None)
        with ExitStack() as undo:  # whatever ends the export, Ctrl-C too: nothing half-written stays
            undo.callback(sink.discard)
            for index, color in enumerate(self._pictures(scenes, total)):
                if source is not None:
                    start = round(index * PLAYBACK_RATE / self.fps)
                    end = round((index + 1) * PLAYBACK_RATE / self.fps)
                    sink.hear(source.heard(start, end - start))
                sink.show(color, index)
                if index in sheet_indices:
                    sheet.append((index / self.fps, color.to("cpu", copy=True)))
            if sheet:
                save_contact_sheet(sheet, contact_sheet)
            finished = sink.finish(total)
            undo.pop_all()
        return finished

    def _pictures(self, scenes: Iterator[Scene], total: int) -> Iterator[Tensor]:
        from tqdm import tqdm

        width, height = self.size
        animator = Animator(self.avatar)
        bar = tqdm(scenes, total=total, desc="Rendering", unit="frame", disable=not self.show_progress, delay=1.0, file=sys.stderr)
        for scene in bar:
            camera = scene.camera
            camera = camera.camera(width, height) if isinstance(camera, OrbitCamera) else _scaled(camera, width, height)
            with torch.inference_mode():
                yield rasterize(animator.pose(scene.motion, scene.edit), camera, self.background, self.backend).color


def _scaled(camera: Camera, width: int, height: int) -> Camera:
    """The same view at another size; where the aspect differs, the height decides and the middle stays."""
    scale = height / camera.height
    K = camera.K.clone()
    K[:2] *= scale
    K[0, 2] += (width - camera.width * scale) / 2
    return Camera(camera.viewmat, K, width, height)


def _check_fps(fps: float) -> float:
    if not (math.isfinite(fps) and 1.0 <= fps <= MAX_FPS):
        raise InputError(f"fps is {fps}; use 1 to {MAX_FPS:.0f}")
    return float(fps)
