"""The commands: parse, check, hand over. Holds no logic of its own, and loads a room only when its command runs.

Exit codes: 0 done; 2 wrong use or bad input, one line on stderr; 1 failure.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from . import __version__
from .destinations import check_file_destination, check_folder_destination
from .errors import InputError

PROJECT_ROOT = Path(__file__).resolve().parents[1]
DEMO_AVATAR = PROJECT_ROOT / "checkpoints" / "demo"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        """One line on stderr, as for every other bad input."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = build_parser()
    options = parser.parse_args(arguments)
    try:
        return options.run(options) or 0
    except InputError as error:
        print(f"{parser.prog} {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{parser.prog} {options.command}: interrupted", file=sys.stderr)
        return 1
    except Exception as error:  # the end of the process: users get one line, `--debug` gets the traceback
        if options.debug:
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"{parser.prog} {options.command}: failed: {message} (--debug shows where)", file=sys.stderr)
        return 1


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="avatar-viewer", description="Speech-driven, text-editable 3D Gaussian heads in real time.")
    parser.add_argument("--version", action="version", version=f"avatar-viewer {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a failure")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    render = commands.add_parser("render", help="a sound file to a talking head as mp4 or frames")
    source = render.add_mutually_exclusive_group(required=True)
    source.add_argument("--audio", type=Path, metavar="FILE", help="speech in any common sound format")
    source.add_argument("--take", type=Path, metavar="FILE", help="a .take recorded in the window, or a take.npz made by `motion`")
    render.add_argument("--out", required=True, metavar="clip.mp4|FOLDER", help="an mp4, or a folder for numbered PNGs")
    render.add_argument("--size", type=parse_size, metavar="WxH", help="pixels (default 512x512, or the recorded take's)")
    render.add_argument("--fps", type=_number(1, 120), help="frames a second of the clip (default 25, or the recorded take's)")
    render.add_argument("--backend", choices=("auto", "cpu", "gsplat", "reference"), default="auto", help="the rasteriser")
    _add_avatar(render)
    _add_edits(render)
    _add_camera(render)
    render.set_defaults(run=_render)

    motion = commands.add_parser("motion", help="a sound file to face motion as take.npz")
    motion.add_argument("--audio", type=Path, required=True, metavar="FILE")
    motion.add_argument("--out", type=Path, required=True, metavar="take.npz")
    motion.add_argument("--stream", type=_number(1, 60_000), metavar="MS", help="feed the sound in chunks of MS milliseconds")
    motion.add_argument("--low-delay", action="store_true", help="the stream context of the fastest live setting (80 ms hops)")
    motion.add_argument("--no-offsets", action="store_true", help="leave the vertices out; needed past ten minutes")
    motion.add_argument("--json", action="store_true", help="print a summary as JSON")
    _add_avatar(motion)
    _add_edits(motion)
    motion.set_defaults(run=_motion)

    text = commands.add_parser("text", help="what a prompt asks of the action units")
    text.add_argument("prompts", nargs="*", metavar="PROMPT")
    text.add_argument("--json", action="store_true", help="one JSON line a prompt")
    text.add_argument(
        "--sheet", type=Path, metavar="FILE", help="a PNG of each prompt slight, plain and very (no prompt: ten emotions)"
    )
    _add_avatar(text)
    text.set_defaults(run=_text)

    studio = commands.add_parser("studio", help="a blendshape rig to a training capture")
    studio.add_argument("--rig", default="builtin", metavar="builtin|head.glb|FOLDER", help="the rig (default builtin)")
    studio.add_argument("--out", type=Path, required=True, metavar="CAPTURE")
    studio.add_argument("--scale", choices=("demo", "dev"), default="demo")
    studio.add_argument("--sentences", type=Path, metavar="FILE", help="what the voices say, one sentence a line")
    studio.add_argument("--contact-sheet", type=Path, metavar="FILE", help="a PNG of every AU and emotion")
    studio.set_defaults(run=_studio)

    train = commands.add_parser("train", help="train an avatar, whole or stage by stage")
    train.add_argument("stage", choices=("demo", "all", "rig", "speech", "motion", "appearance", "text"))
    train.add_argument("--data", type=Path, metavar="CAPTURE", help="the capture; `demo` makes its own (default captures/demo)")
    train.add_argument("--out", type=Path, metavar="FOLDER", help="the avatar's folder (`demo`: default runs/demo)")
    train.add_argument("--scale", choices=("demo", "dev"), default="demo", help="dev runs the same path in minutes")
    train.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    train.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    train.add_argument(
        "--ablation", metavar="NAME", help="motion: no-aus or gru (in place of diffusion); appearance: no-aus; into another --out"
    )
    train.add_argument(
        "--speech-backbone", metavar="NAME",
        help='speech: a public HuBERT ("facebook/hubert-base-ls960") or a folder with one, such as another avatar\'s speech_backbone',
    )  # fmt: skip
    train.add_argument(
        "--text-backbone", metavar="NAME", help='text: a public tower ("ViT-B-32/openai") or a folder with one, not the compact one'
    )
    train.add_argument("--seed", type=_whole(0, 2**31 - 1), help="speech, motion: another draw of the same training (default 0)")
    train.set_defaults(run=_train)

    evaluate = commands.add_parser("evaluate", help="an avatar against a capture's truth")
    evaluate.add_argument("--data", type=Path, required=True, metavar="CAPTURE")
    evaluate.add_argument("--out", type=Path, required=True, metavar="REPORT/")
    evaluate.add_argument("--contact-sheet", type=Path, metavar="FILE", help="a PNG of every AU and emotion, rig beside avatar")
    evaluate.add_argument("--json", action="store_true", help="print the report as JSON")
    _add_avatar(evaluate)
    evaluate.set_defaults(run=_evaluate)

    bench = commands.add_parser("bench", help="measure speed on this machine")
    bench.add_argument("what", nargs="*", default=["render"], metavar="WHAT", help="render, speech, motion, live (default render)")
    bench.add_argument("--json", action="store_true")
    _add_avatar(bench)
    bench.set_defaults(run=_bench)

    doctor = commands.add_parser("doctor", help="what works on this machine, and what to do about the rest")
    doctor.add_argument("--json", action="store_true")
    _add_avatar(doctor)
    doctor.set_defaults(run=_doctor)
    return parser


def parse_size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (text.isascii() and width.isdigit() and height.isdigit()) or not all(1 <= int(n) <= 8192 for n in (width, height)):
        raise argparse.ArgumentTypeError(f"a size is WIDTHxHEIGHT in pixels from 1x1 to 8192x8192, got {text!r}")
    return int(width), int(height)


def _number(low: float, high: float):
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"a number from {low:g} to {high:g} is needed, got {text!r}")
        return value

    return parse


def _add_avatar(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--avatar", type=Path, default=DEMO_AVATAR, metavar="FOLDER", help="default checkpoints/demo")


def _add_edits(parser: argparse.ArgumentParser) -> None:
    edits = parser.add_argument_group("edits")
    prompts = edits.add_mutually_exclusive_group()
    prompts.add_argument("--prompt", metavar="TEXT", help='the expression in words: "a shy half-smile"')
    prompts.add_argument("--prompts", type=Path, metavar="FILE", help="prompts with times and cross-fades")
    edits.add_argument("--strength", type=_number(0, 2), default=1.0, help="how much of the prompt (default 1)")
    edits.add_argument("--mode", choices=("blend", "paper"), default="blend", help="how the prompt bends the codes")
    edits.add_argument("--enhance", type=_number(0, 10), metavar="X", help="the paper's alpha (default 1.0)")
    edits.add_argument("--suppress", type=_number(0, 1), metavar="X", help="the paper's beta (default 0.3)")
    edits.add_argument("--au", action="extend", nargs="+", default=[], metavar="AU12=3.5", help="add to action units; may be repeated")
    edits.add_argument("--over-range", action="store_true", help="allow intensities up to 7")
    edits.add_argument("--steps", type=_whole(1, 100), metavar="N", help="sampler steps (default: the avatar's own)")
    edits.add_argument("--guidance", type=_number(0, 10), metavar="X", help="how strictly the face obeys the codes (default 1)")
    edits.add_argument("--no-blinks", action="store_true", help="no generated blinks")
    edits.add_argument("--seed", type=_whole(0, 2**31 - 1), default=0, help="of noise and blinks (default 0)")


def _whole(low: int, high: int):
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit()) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"a whole number from {low} to {high} is needed, got {text!r}")
        return int(text)

    return parse


def _add_camera(parser: argparse.ArgumentParser) -> None:
    camera = parser.add_argument_group("camera")
    camera.add_argument("--yaw", type=_number(-360, 360), metavar="DEG", help="positive: from the head's left (+x)")
    camera.add_argument("--pitch", type=_number(-90, 90), metavar="DEG", help="positive: from above")
    camera.add_argument("--distance", type=_number(0.05, 100), metavar="M", help="metres from the head's centre")
    camera.add_argument("--fov", type=_number(1, 170), metavar="DEG", help="vertical field of view")
    camera.add_argument("--camera", type=Path, metavar="FILE", help="one entry of a capture's cameras.json instead")


def _load(options: argparse.Namespace):
    from .avatar.bundle import load_avatar

    return load_avatar(options.avatar)


def _render(options: argparse.Namespace) -> None:
    from .live.export import export_clip, export_motion, export_take

    source, out = options.audio or options.take, Path(options.out)
    if out.exists() and source.exists() and out.samefile(source):
        raise InputError(f"--out {options.out} is the file to be read; choose another name")
    settings = {"camera": _camera(options), "size": options.size or (512, 512), "fps": options.fps, "backend": options.backend}
    if options.take is not None:
        _refuse_edits(options)
    if options.take is not None and options.take.suffix.lower() == ".take":
        settings |= {"camera": _camera(options) if _names_camera(options) else None, "size": options.size}
        done = export_take(_load(options), options.take, options.out, **settings)
    elif options.take is not None:
        from .avatar.take import load_take

        take = load_take(options.take)
        avatar = _load(options)
        _check_fit(take, avatar, options)
        done = export_motion(avatar, take.window(), options.out, **settings)
    else:
        avatar = _load(options)
        edits = _edit_track(options, avatar)
        settings["fps"] = options.fps or 25.0
        done = export_clip(
            avatar, options.audio, options.out, edits=edits, seed=options.seed, steps=options.steps,
            guidance=options.guidance, blinks=not options.no_blinks, **settings,
        )  # fmt: skip
    for note in done.notes:
        print(note, file=sys.stderr)
    print(f"{done.path}: {done.frames} frames at {done.fps:g} fps")


def _refuse_edits(options: argparse.Namespace) -> None:
    """A take says itself what was asked of the face, and how it was made."""
    given = [name for name, default in _EDIT_DEFAULTS.items() if getattr(options, name) != default]
    if given:
        names = ", ".join("--" + name.replace("_", "-") for name in given)
        raise InputError(f"--take says itself what was asked of the face; leave out {names}, or give them to `motion`, or render --audio")


_EDIT_DEFAULTS = {
    "prompt": None, "prompts": None, "strength": 1.0, "mode": "blend", "enhance": None, "suppress": None, "au": [], "over_range": False,
    "steps": None, "guidance": None, "no_blinks": False, "seed": 0,
}  # fmt: skip
_PROMPT_ONLY = ("strength", "mode", "enhance", "suppress")


def _check_fit(take, avatar, options: argparse.Namespace) -> None:
    if take.neutral.shape != tuple(avatar.face.neutral.shape):
        raise InputError(
            f"{options.take} has {len(take.neutral)} face vertices and avatar {avatar.name} has {len(avatar.face.neutral)}; "
            "render a take with the avatar that made it (--avatar)"
        )


def _motion(options: argparse.Namespace) -> None:
    import torch

    from .avatar.speech_motion import SpeechMotion, join_windows
    from .avatar.take import measure_lip_gap, save_take
    from .config import LOW_DELAY_STREAM, SAMPLE_RATE
    from .live.decoding import Sound
    from .types import AudioChunk

    check_file_destination(options.out, ".npz")
    avatar = _load(options)
    edits = _edit_track(options, avatar)
    with Sound(options.audio) as sound:
        samples = torch.from_numpy(sound.read_speech())
    for note in sound.notes:
        print(note, file=sys.stderr)
    minutes = len(samples) / SAMPLE_RATE / 60
    if minutes > 10 and not options.no_offsets:
        raise InputError(f"{options.audio} lasts {minutes:.1f} minutes; past ten minutes add --no-offsets")
    motion = SpeechMotion(
        avatar, edits, seed=options.seed, blinks=not options.no_blinks, steps=options.steps, guidance=options.guidance,
        stream=LOW_DELAY_STREAM if options.low_delay else None,
    )  # fmt: skip
    chunk = max(1, round((options.stream or 1000) * SAMPLE_RATE / 1000))
    windows, gaps = [], []
    face = avatar.face
    for window in _with_progress(_chunks(motion, samples, chunk, AudioChunk), len(samples) / SAMPLE_RATE):
        gaps.append(measure_lip_gap(face.neutral + window.offsets, face.lip_upper, face.lip_lower))
        windows.append(_without_offsets(window) if options.no_offsets else window)
    take, gap = join_windows(windows), torch.cat(gaps)
    save_take(options.out, take, face, seed=options.seed, lip_gap_mm=gap, with_offsets=not options.no_offsets)
    summary = {"out": str(options.out), "frames": len(gap), "fps": take.fps, "seconds": len(samples) / SAMPLE_RATE, "faults": motion.faults}
    print(json.dumps(summary) if options.json else f"{options.out}: {len(gap)} frames at {take.fps:g} fps")


def _chunks(motion, samples, size: int, chunk_type):
    for start in range(0, len(samples), size):
        yield from motion.feed(chunk_type(samples[start : start + size], start / 16_000))
    yield from motion.finish()


def _with_progress(windows, seconds: float):
    from tqdm import tqdm

    with tqdm(total=round(seconds, 2), unit="s", desc="motion", disable=seconds < 10) as bar:
        for window in windows:
            yield window
            bar.update(round(len(window.au_codes) / window.fps, 2))


def _without_offsets(window):
    """What of a window is kept where hours are asked for."""
    from dataclasses import replace

    return replace(window, offsets=window.offsets[:, :0])


def _edit_track(options: argparse.Namespace, avatar):
    """The edits of the command line as a track: sliders from --au, and a prompt or a file of prompts on top."""
    from .avatar.edit_track import EditTrack
    from .avatar.prompt_edit import prompt_edit
    from .avatar.prompts import read_prompts_file

    base = _sliders(options)
    idle = [f"--{name}" for name in _PROMPT_ONLY if getattr(options, name) != _EDIT_DEFAULTS[name]]
    if idle and options.prompt is None and options.prompts is None:
        print(f"{', '.join(idle)}: without --prompt or --prompts there is nothing to bend", file=sys.stderr)
    words = {"strength": options.strength, "mode": options.mode, "base": base}
    words |= {key: value for key in ("enhance", "suppress") if (value := getattr(options, key)) is not None}
    if options.prompts is not None:
        return read_prompts_file(options.prompts, _text_of(avatar).read, **words)
    if options.prompt is None:
        return EditTrack.constant(base)
    reading = _text_of(avatar).read(options.prompt)
    _report(reading, options.prompt)
    return EditTrack.constant(prompt_edit(reading, **words))


def _text_of(avatar):
    if avatar.text is None:
        raise InputError("; ".join(avatar.missing) or f"avatar {avatar.name} has no text controller; train text makes one")
    return avatar.text


def _report(reading, prompt: str) -> None:
    """What the prompt did not achieve is said, not swallowed."""
    if not bool((reading.active > 0).any()):
        print(f"prompt {prompt[:60]!r} names no expression; the face follows the voice alone", file=sys.stderr)
    elif reading.ignored:
        print(f"not understood in the prompt: {', '.join(reading.ignored[:12])}", file=sys.stderr)
    if reading.truncated:
        print(f"the prompt is too long; cut off: {reading.truncated[:120]!r}", file=sys.stderr)


def _sliders(options: argparse.Namespace):
    import torch

    from .action_units import MAX_INTENSITY, MAX_OVER_RANGE, NUM_AUS, au_index
    from .types import AUEdit

    limit = MAX_OVER_RANGE if options.over_range else MAX_INTENSITY
    offset = torch.zeros(NUM_AUS)
    for item in options.au:
        name, equals, number = item.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = float("nan")
        if not equals or not 0 <= value <= limit:
            hint = "" if options.over_range else f" (up to {MAX_OVER_RANGE:g} with --over-range)"
            raise InputError(f"--au {item!r}: write NAME=VALUE with a value from 0 to {limit:g}{hint}")
        offset[au_index(name)] = value
    return AUEdit(offset=offset, limit=limit)


def _camera(options: argparse.Namespace):
    from .rendering.orbit import OrbitCamera

    given = {name: value for name in ("yaw", "pitch", "distance", "fov") if (value := getattr(options, name)) is not None}
    if options.camera is None:
        return OrbitCamera(**{_ORBIT_FIELDS[name]: value for name, value in given.items()})
    if given:
        raise InputError(f"--camera {options.camera} already says where the camera is; leave out --{' --'.join(given)}")
    from .training.datasets.camera_file import read_camera

    return read_camera(options.camera)


def _names_camera(options: argparse.Namespace) -> bool:
    return any(getattr(options, name) is not None for name in ("camera", *_ORBIT_FIELDS))


_ORBIT_FIELDS = {"yaw": "yaw_degrees", "pitch": "pitch_degrees", "distance": "distance", "fov": "fov_degrees"}


def _text(options: argparse.Namespace) -> None:
    from .networks.prompt_reading import format_readings

    if not options.prompts and options.sheet is None:
        raise InputError("no prompt; give one, or --sheet FILE for the ten emotions")
    if options.sheet is not None:
        check_file_destination(options.sheet, ".png", makes_folders=True)
    avatar = _load(options)
    text = _text_of(avatar)
    if options.sheet is not None:
        from .metrics.prompt_sheet import TEN_EMOTIONS, draw_prompt_sheet

        draw_prompt_sheet(avatar, options.prompts or TEN_EMOTIONS, options.sheet)
    if options.prompts:
        print(format_readings(options.prompts, text.read, as_json=options.json))


def _studio(options: argparse.Namespace) -> None:
    from .studio.capture import run_studio

    check_folder_destination(options.out)
    if options.contact_sheet is not None:
        check_file_destination(options.contact_sheet, ".png", makes_folders=True)
    run_studio(options.rig, options.out, options.scale, options.sentences, options.contact_sheet)


def _train(options: argparse.Namespace) -> None:
    # Read when torch is loaded, so before. Threads that spin while they wait for each other burn the cores that they wait for
    # wherever other programs run too: a step of the rig cost 1.9 s of processor time on two busy cores, waiting quietly 0.1 s.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from .training.stages import run_stage

    if options.out is not None:
        check_folder_destination(options.out)
    names = ("scale", "resume", "device", "ablation", "speech_backbone", "text_backbone", "seed")
    given = {name: getattr(options, name) for name in names}
    run_stage(options.stage, options.data, options.out, **given)


def _evaluate(options: argparse.Namespace) -> None:
    from .metrics.report import evaluate

    check_folder_destination(options.out)
    if options.contact_sheet is not None:
        check_file_destination(options.contact_sheet, ".png", makes_folders=True)
        from .metrics.avatar_sheet import draw_avatar_sheet

        draw_avatar_sheet(options.avatar, options.data, options.contact_sheet, lambda line: print(line, file=sys.stderr))
    report = evaluate(options.avatar, options.data, options.out)
    if options.json:
        print(json.dumps(report))


def _bench(options: argparse.Namespace) -> int:
    from . import bench

    return bench.run(options.what, options.json, options.avatar)


def _doctor(options: argparse.Namespace) -> int:
    from . import doctor

    return doctor.run(options.avatar, as_json=options.json)
