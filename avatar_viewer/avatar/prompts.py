"""A sequence of prompts with times and cross-fades, from a small text file (`--prompts FILE`).

    # time   fade      what the face should say
    0                  a warm smile
    2.5      fade 0.5  worried, brows drawn together
    1:05     fade 1    0.7: sad | 0.3: smiling
    1:10               -

One line an event: the time in seconds or m:ss, optionally "fade" and its seconds (0.25 without), then the prompt. Several
prompts at once stand between "|", each with its weight before a colon where they are not equal. "-" gives the face back to
the voice. Empty lines and lines that start with "#" are skipped.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

from ..errors import InputError
from ..networks.prompt_reading import PromptReading
from ..types import AUEdit
from .edit_track import EditTrack
from .prompt_edit import blend_readings, prompt_edit

MAX_FILE_BYTES = 1_000_000
_MAX_FAULTS = 8  # in one message

_LINE = re.compile(r"^(?P<time>\S+)\s+(?:fade\s+(?P<fade>\S+)\s+)?(?P<prompt>\S.*)$")
_WEIGHTED = re.compile(r"^\s*(?P<weight>\d+(?:\.\d+)?)\s*:\s*(?P<text>.+)$")


def read_prompts_file(
    path: str | Path,
    read: Callable[[str], PromptReading],
    *,
    strength: float = 1.0,
    enhance: float = 1.0,
    suppress: float = 0.3,
    mode: str = "blend",
    base: AUEdit | None = None,
) -> EditTrack:
    """The track of a prompts file; `read` is `TextToAU.read`. One `InputError` lists the lines that are wrong."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no prompts file at {path}; give a text file with one 'time prompt' a line")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise InputError(f"{path} has {path.stat().st_size} bytes; a prompts file has at most {MAX_FILE_BYTES}")
    text = path.read_bytes().decode("utf-8-sig", errors="replace")
    return parse_prompts(
        text, read, strength=strength, enhance=enhance, suppress=suppress, mode=mode, base=base, source=str(path)
    )


def parse_prompts(
    text: str,
    read: Callable[[str], PromptReading],
    *,
    strength: float = 1.0,
    enhance: float = 1.0,
    suppress: float = 0.3,
    mode: str = "blend",
    base: AUEdit | None = None,
    source: str = "prompts",
) -> EditTrack:
    """As `read_prompts_file`, of the text itself. Before the first line the face follows the voice and `base`."""
    track = EditTrack(initial=base)
    wrong: list[str] = []
    last = -math.inf
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        try:
            seconds, fade, readings, weights = _parse_line(line, read)
            if seconds <= last:
                raise InputError(f"time {seconds:g} s does not come after {last:g} s; put the lines in order of time")
        except InputError as error:
            wrong.append(f"line {number}: {error}")
            continue
        last = seconds
        if readings:
            edit = prompt_edit(
                blend_readings(readings, weights), strength=strength, enhance=enhance, suppress=suppress, mode=mode, base=base
            )
        else:
            edit = base or AUEdit()
        track.add(seconds, edit, ease_seconds=fade)
    if wrong:
        more = [f"{len(wrong) - _MAX_FAULTS} more lines like these"] if len(wrong) > _MAX_FAULTS else []
        raise InputError(f"{source}: " + "; ".join(wrong[:_MAX_FAULTS] + more))
    return track


def _parse_line(
    line: str, read: Callable[[str], PromptReading]
) -> tuple[float, float | None, list[PromptReading], list[float] | None]:
    match = _LINE.match(line)
    if match is None:
        raise InputError(f"{line[:60]!r} is not 'time [fade seconds] prompt'")
    seconds = parse_time(match["time"])
    fade = None
    if match["fade"] is not None:
        fade = parse_time(match["fade"])
        if fade > 60:
            raise InputError(f"fade {match['fade']} is longer than 60 s")
    if match["prompt"] == "-":
        return seconds, fade, [], None
    parts = match["prompt"].split("|")
    weighted = [_WEIGHTED.match(part) for part in parts]
    if len(parts) == 1 and weighted[0] is None:
        return seconds, fade, [read(parts[0].strip())], None
    if any(weighted) and not all(weighted):
        raise InputError("give every prompt between '|' a weight ('0.7: sad'), or none")
    if not all(weighted):
        return seconds, fade, [read(part.strip()) for part in parts], None
    weights = [float(found["weight"]) for found in weighted if found]
    return seconds, fade, [read(found["text"].strip()) for found in weighted if found], weights


def parse_time(text: str) -> float:
    """Seconds of "12.5", "1:05" or "0:01:05"; `InputError` for anything else, negative or not finite."""
    parts = text.split(":")
    try:
        numbers = [float(part) for part in parts]
    except ValueError as error:
        raise InputError(f"time {text[:40]!r} is neither seconds nor m:ss") from error
    if len(numbers) > 3 or not all(math.isfinite(n) and n >= 0 for n in numbers):
        raise InputError(f"time {text[:40]!r} is neither seconds nor m:ss")
    seconds = 0.0
    for number in numbers:
        seconds = seconds * 60 + number
    return seconds
