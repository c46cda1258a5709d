#!/usr/bin/env python
"""Open the avatar viewer: a talking head to orbit, direct by words and sliders, and record.

With no screen, the demo clip is rendered to an mp4 and a contact sheet instead.
"""

from __future__ import annotations

import argparse
import atexit
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
DEMO_AVATAR = ROOT / "checkpoints" / "demo"
DEMO_SPEECH = ROOT / "assets" / "demo_speech.flac"
BACKENDS = {"auto": "auto", "cpu": "cpu", "cuda": "gsplat"}


def parse_size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (width.isascii() and width.isdigit() and height.isascii() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; use WIDTHxHEIGHT such as 512x512")
    size = int(width), int(height)
    if not all(64 <= side <= 4096 for side in size):
        raise argparse.ArgumentTypeError(f"{text!r} is out of range; use 64 to 4096 pixels a side")
    return size


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        """One line on stderr, as for every other bad input."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = _Parser(description="Real-time talking Gaussian heads: orbit, type an emotion, move a muscle, record.")
    parser.add_argument("--avatar", type=Path, default=DEMO_AVATAR, metavar="FOLDER", help="the head (default: the bundled demo)")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--audio", type=Path, metavar="FILE", help="play this sound file: wav, flac, mp3, ogg, m4a")
    source.add_argument("--mic", nargs="?", const="", metavar="DEVICE", help="listen to a microphone, by part of its name")
    parser.add_argument("--prompt", default="", metavar="TEXT", help='what to express, such as "a shy half-smile"')
    parser.add_argument("--size", type=parse_size, default=(512, 512), metavar="WxH", help="size of the picture (default 512x512)")
    parser.add_argument("--device", choices=BACKENDS, default="auto", help="where to draw (default: the GPU if gsplat works there)")
    parser.add_argument("--takes", type=Path, default=Path("takes"), metavar="FOLDER", help="where recordings go (default: takes)")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="write what happens, four times a second, as JSON lines")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    from avatar_viewer.errors import InputError

    try:
        check_paths(options)
        from avatar_viewer.gui.screen import why_no_screen

        reason = why_no_screen()
        if reason:
            render_demo(options, reason)
        else:
            open_viewer(options)
    except InputError as error:
        print(f"run_viewer.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def check_paths(options: argparse.Namespace) -> None:
    """Say what is missing before anything heavy is loaded."""
    from avatar_viewer.destinations import check_folder_destination
    from avatar_viewer.errors import InputError

    check_folder_destination(options.takes)
    if not (options.avatar / "avatar.json").is_file():
        raise InputError(f"{options.avatar}: no avatar there (avatar.json is missing); give a folder with --avatar, or run `avatar-viewer train demo`")
    if options.audio is not None and not options.audio.is_file():
        raise InputError(f"{options.audio}: no such sound file; check the name")


def limit_threads() -> None:
    """On a small machine the networks leave the cores to the rasteriser, the window and the encoder."""
    import torch

    if (os.cpu_count() or 1) <= 4:
        torch.set_num_threads(1)


def open_viewer(options: argparse.Namespace) -> None:
    from avatar_viewer.gui.app import App, ViewerOptions

    limit_threads()
    App(
        ViewerOptions(
            avatar=options.avatar, audio=options.audio, microphone=options.mic, prompt=options.prompt, size=options.size,
            backend=BACKENDS[options.device], takes=options.takes, trace=options.trace,
        )
    ).run()  # fmt: skip


def render_demo(options: argparse.Namespace, reason: str) -> None:
    """The way out without a screen: the same head, sound and prompt, as files."""
    from avatar_viewer.avatar.bundle import load_avatar
    from avatar_viewer.avatar.edit_track import EditTrack
    from avatar_viewer.avatar.prompt_edit import prompt_edit
    from avatar_viewer.errors import InputError
    from avatar_viewer.live.export import export_clip

    clip, sheet = Path("avatar_viewer_demo.mp4"), Path("avatar_viewer_demo.png")
    print(f"No screen ({reason}): rendering {clip} and {sheet} instead of opening a window.", flush=True)
    if options.mic is not None:
        print(f"Nobody is listened to without a window: it speaks {DEMO_SPEECH.name}; a sound file of yours goes with --audio.", flush=True)
    limit_threads()
    avatar = load_avatar(options.avatar)
    edits = EditTrack()
    if options.prompt:
        if avatar.text is None:
            raise InputError("; ".join(avatar.missing) or "this avatar has no text encoder; leave out --prompt")
        edits = EditTrack.constant(prompt_edit(avatar.text.read(options.prompt)))
    sound = options.audio or DEMO_SPEECH
    size = tuple(side + side % 2 for side in options.size)
    done = export_clip(avatar, sound, clip, edits=edits, size=size, backend=BACKENDS[options.device], contact_sheet=sheet)
    print(f"{done.path}: {done.frames} frames at {done.fps:g} fps; {sheet}: twelve moments of it")


def leave(status: list[int]) -> None:
    """End the process here: taking apart the thousands of modules that are loaded takes seconds, and a thread that is still
    loading an avatar would hold it up."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status[0])


if __name__ == "__main__":
    status = [1]  # of an exception
    atexit.register(leave, status)  # the first to be registered is the last to be run
    try:
        status[0] = main()
    except SystemExit as error:  # of argparse
        status[0] = error.code if isinstance(error.code, int) else 0
        raise
