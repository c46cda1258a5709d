"""`avatar-viewer bench speech motion`: what a hop costs by part, how late it is by count, and the whole path in real time.

Measured on one torch thread, as the live session runs it, with a sound that nobody needs to have: swelling noise.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from .config import DEFAULT_STREAM, LOW_DELAY_STREAM, SAMPLE_RATE, StreamContext

SETTINGS: dict[str, StreamContext] = {"default": DEFAULT_STREAM, "low delay": LOW_DELAY_STREAM}
HOPS = 40  # measured, after as many again that warm up
SECONDS = 10.0  # of sound for the whole path
BASE_TOKENS_A_SECOND = 41_250  # frame-token evaluations of the base method: 500 steps, 3 branches, windows of 4 s


def bench_speech(avatar_folder: str | Path | None, quiet: bool = False) -> dict:
    """Milliseconds a hop by part (median, p95), at both settings, beside the hop's own length."""
    avatar, say = _open(avatar_folder), _say(quiet)
    rows = {name: _measure_parts(avatar, context) for name, context in SETTINGS.items()}
    for name, row in rows.items():
        say(f"{name}: hop {row['hop_ms']} ms, look-ahead {row['lookahead_ms']} ms, algorithmic delay {row['delay_ms']} ms (counted)")
        for part, (median, p95) in row["parts_ms"].items():
            say(f"  {part:22s} {median:7.2f} ms (p95 {p95:.2f})")
        say(f"  {'a whole hop':22s} {row['whole_ms'][0]:7.2f} ms (p95 {row['whole_ms'][1]:.2f}), {row['share_of_hop']:.1%} of the hop")
        say(
            f"  denoiser: {row['rows']} rows a hop, {row['tokens_a_second']:.0f} frame tokens a second of sound, "
            f"{row['fewer_tokens']:.0f} times fewer than the base method"
        )
        say(f"  backbone: {row['arithmetic']:.2f} times the arithmetic of one pass")
    return {"threads": 1, "settings": rows}


def bench_motion(avatar_folder: str | Path | None, quiet: bool = False) -> dict:
    """Seconds of sound a second, from samples to offsets, and what a motion frame costs to become Gaussians."""
    from .avatar.animation import Animator
    from .avatar.speech_motion import speak
    from .types import AUEdit, MotionFrame

    avatar, say = _open(avatar_folder), _say(quiet)
    sound = _sound(SECONDS)
    found = {}
    with _one_thread():
        for name, context in SETTINGS.items():
            speak(avatar, sound[: 2 * SAMPLE_RATE], stream=context)
            seconds = _milliseconds(lambda: speak(avatar, sound, stream=context)) / 1000
            found[name] = {"real_time_factor": seconds / SECONDS, "times_real_time": SECONDS / seconds}
            say(f"{name}: {SECONDS:.0f} s of sound in {seconds:.2f} s, {SECONDS / seconds:.1f} times real time")
        window, animator = speak(avatar, sound[: 2 * SAMPLE_RATE]), Animator(avatar)
        times = []
        for i in range(len(window.offsets)):
            parts = (window.au_codes[i], window.au_applied[i], float(window.voice[i]), window.offsets[i], window.gaze[i])
            frame = MotionFrame(i / window.fps, *parts)
            times.append(_milliseconds(lambda: animator.pose(frame, AUEdit())))
    pose = _median_p95(times[5:])
    say(f"a motion frame posed as Gaussians, appearance included: {pose[0]:.2f} ms (p95 {pose[1]:.2f})")
    return {"threads": 1, "seconds": SECONDS, "settings": found, "pose_ms": pose}


def _measure_parts(avatar, context: StreamContext) -> dict:
    from .avatar.modulation import modulate
    from .avatar.speech_motion import SpeechMotion
    from .networks.denoiser import Conditions
    from .types import AudioChunk, AUEdit

    denoiser, sound = avatar.denoiser, _sound(2 * HOPS * context.hop_ms / 1000 + 1)
    frames = context.hop_frames(avatar.fps)
    window = frames + denoiser.config.lookahead_frames
    hop, heard = context.hop_samples, context.hop_samples + context.lookahead_samples
    with _one_thread(), torch.inference_mode():
        motion = SpeechMotion(avatar, stream=context)
        motion.feed(AudioChunk(sound[: context.lookahead_samples], 0.0))
        chunks = [sound[context.lookahead_samples + i * hop :][:hop] for i in range(2 * HOPS)]
        whole = [_milliseconds(lambda: motion.feed(AudioChunk(chunk, 0.0))) for chunk in chunks][HOPS:]
        speech, codes = avatar.speech.stream(context), avatar.au_encoder.stream(context, avatar.fps)
        history, template = denoiser.start_history(), denoiser.describe_template(avatar.face.neutral)
        noise = torch.randn(1, window, denoiser.config.basis_size)
        spoken = denoiser.silence.expand(1, window, -1)
        parts: dict[str, list[float]] = {}
        for i in range(2 * HOPS):
            clock = _Laps(parts)
            features = speech.push(sound[i * hop :][:heard])
            clock.lap("HuBERT")
            found, voice = codes.push(features)
            clock.lap("AU encoder")
            applied = modulate(found, voice, AUEdit())
            clock.lap("modulation")
            latents = denoiser.generate(noise, history, Conditions(applied[None], spoken, template))
            clock.lap("denoiser")
            denoiser.decode_offsets(latents[0, :frames])
            clock.lap("vertices")
    hops_a_second = 1000 / context.hop_ms
    tokens = denoiser.config.rows * (window + denoiser.config.previous_frames) * hops_a_second
    streamed, single = avatar.speech.count_products(context)
    whole_ms = _median_p95(whole)
    return {
        "hop_ms": context.hop_ms,
        "lookahead_ms": context.lookahead_ms,
        "delay_ms": context.hop_ms + context.lookahead_ms,
        "parts_ms": {name: _median_p95(times[HOPS:]) for name, times in parts.items()},
        "whole_ms": whole_ms,
        "share_of_hop": whole_ms[0] / context.hop_ms,
        "rows": denoiser.config.rows,
        "tokens_a_second": tokens,
        "fewer_tokens": BASE_TOKENS_A_SECOND / tokens,
        "arithmetic": streamed / single,
    }


class _Laps:
    """A stopwatch that files each lap under a name."""

    def __init__(self, parts: dict[str, list[float]]) -> None:
        self._parts, self._last = parts, time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._parts.setdefault(name, []).append(1000 * (now - self._last))
        self._last = time.perf_counter()


class _one_thread:
    """The session's setting (design: live on two cores, torch has one thread), given back afterwards."""

    def __enter__(self) -> None:
        self._threads = torch.get_num_threads()
        torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self._threads)


def _open(avatar_folder: str | Path | None):
    from .avatar.bundle import load_avatar
    from .errors import InputError

    if avatar_folder is None:
        raise InputError("bench speech and motion need an avatar; name one with --avatar FOLDER")
    return load_avatar(avatar_folder)


def _sound(seconds: float) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    count = round(seconds * SAMPLE_RATE)
    swell = 0.5 + 0.5 * torch.sin(torch.arange(count) / SAMPLE_RATE * 12.0)
    return 0.1 * swell * torch.randn(count, generator=generator)


def _say(quiet: bool) -> Callable[[str], None]:
    return (lambda text: None) if quiet else (lambda text: print(text, flush=True))


def _median_p95(times: list[float]) -> tuple[float, float]:
    return statistics.median(times), sorted(times)[int(0.95 * (len(times) - 1))]


def _milliseconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return 1000 * (time.perf_counter() - started)
