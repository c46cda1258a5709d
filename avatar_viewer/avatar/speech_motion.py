"""From sound to face motion, hop by hop: `feed` / `finish` / `reset`, and `speak`, which is a loop over `feed`.

A hop is computed once its look-ahead has been heard; every tensor of it has a fixed shape, so any way of cutting the sound
into chunks gives the same bits. Knows an avatar and edits; knows no thread, no clock and no device.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..action_units import AU_NAMES, NUM_AUS, SPEECH_AUS
from ..config import SAMPLE_RATE, StreamContext
from ..errors import InputError
from ..networks.denoiser import Conditions, MotionHistory, frame_pooling
from ..types import AudioChunk, AUEdit, MotionWindow, ensure_shape
from .blinks import blink_codes, gaze_angles
from .edit_track import EditTrack
from .modulation import modulate

if TYPE_CHECKING:
    from .bundle import Avatar

SETTLING_HOPS = 16  # until silence gives the same frames every hop
HOLD_FRAMES, EASE_FRAMES = 2, 10  # of the last good pose after a network fault, and then to neutral
# Below the first value of `voice` a frame is not speech: the lips rest, whatever the backbone makes of the noise.
NOT_SPEECH, SPEECH = 0.08, 0.35

_SPEECH_COLUMNS = [AU_NAMES.index(name) for name in SPEECH_AUS]
_BLINK_COLUMN = AU_NAMES.index("AU45")


class SpeechMotion:
    """The face motion of one voice, in constant memory.

    `faults` counts hops in which a network gave NaN or infinity (the last good pose is held and eased to neutral), and
    `bad_samples` samples that were not finite (heard as silence). `edit_log` holds (hop, edit) wherever the edit changed.
    """

    def __init__(
        self,
        avatar: Avatar,
        edits: EditTrack | None = None,
        *,
        seed: int = 0,
        blinks: bool = True,
        steps: int | None = None,  # network rows a hop; None: the avatar's own
        guidance: float | None = None,  # adherence to the AU codes; None or 1: plain
        stream: StreamContext | None = None,  # None: the avatar's own
    ) -> None:
        if avatar.speech is None:
            raise InputError("; ".join(avatar.missing) or f"avatar {avatar.name} has no speech backbone")
        self.avatar, self.edits = avatar, edits or EditTrack()
        self.seed, self.blinks = seed, blinks
        self.steps, self.guidance = _check_steps(steps, avatar.denoiser.config.diffusion_steps), _check_guidance(guidance)
        self.stream = stream or avatar.stream
        self.fps = avatar.fps
        config = avatar.denoiser.config
        try:
            self.hop_frames = self.stream.hop_frames(self.fps)
        except ValueError as error:
            raise InputError(str(error)) from error
        self._window_frames = self.hop_frames + config.lookahead_frames
        if self._window_frames > config.window_frames:
            raise InputError(
                f"a hop of {self.stream.hop_ms} ms is {self.hop_frames} frames at {self.fps} fps; this avatar's denoiser makes "
                f"at most {config.window_frames - config.lookahead_frames} frames a hop"
            )
        self._device = avatar.denoiser.scale.device
        self._pooling = frame_pooling(self.stream, self.fps, self._window_frames).to(self._device)
        self._template = avatar.denoiser.describe_template(avatar.face.neutral)
        self._speech_stream = avatar.speech.stream(self.stream)
        self._code_stream = avatar.au_encoder.stream(self.stream, self.fps)
        self.reset()
        self._rest = self._settle()

    def reset(self, start_seconds: float = 0.0) -> None:
        """Back to silence before the first sample; the next sample is at `start_seconds`."""
        self.start_seconds = start_seconds
        self.faults = 0
        self.bad_samples = 0
        self.edit_log: list[tuple[int, AUEdit]] = []
        self._pending = torch.zeros(0)
        self._heard = 0  # samples
        self._hop = 0
        self._is_finished = False
        self._frames_since_good = 0
        self._last_good = _Pose.rest(self.avatar.denoiser.config.basis_size)
        shape = (1, self._window_frames, self.avatar.denoiser.config.basis_size)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(self.seed))
        self._noise = noise.to(self._device)  # the same in every hop, so that hops agree
        self._reset_window()

    def _reset_window(self) -> None:
        self._speech_stream.reset()
        self._code_stream.reset()
        self._history = self.avatar.denoiser.start_history()
        self._value_before: Tensor | None = None  # [1, D], the last speech value before the hop

    # --------------------------------------------------------------------------------------------------- sound in

    def feed(self, chunk: AudioChunk) -> list[MotionWindow]:
        """Hear the next piece of sound, of any length; gives the hops that it completes."""
        ensure_shape("samples", chunk.samples, (None,))
        if self._is_finished:
            raise RuntimeError("this take is finished; reset() begins another")
        self._heard += len(chunk.samples)
        samples = chunk.samples.detach().to(torch.float32)
        bad = ~torch.isfinite(samples)
        if bool(bad.any()):
            self.bad_samples += int(bad.sum())
            samples = samples.masked_fill(bad, 0.0)
        self._pending = torch.cat((self._pending, samples.clamp(-1.0, 1.0)))
        return self._drain()

    def finish(self) -> list[MotionWindow]:
        """The rest of the take, heard as followed by silence: ceil(S * fps / 16000) frames in all."""
        self._is_finished = True
        total = math.ceil(self._heard * self.fps / SAMPLE_RATE - 1e-9)
        missing = total - self._hop * self.hop_frames
        if missing <= 0:
            return []
        hops = -(-missing // self.hop_frames)
        needed = hops * self.stream.hop_samples + self.stream.lookahead_samples
        self._pending = torch.cat((self._pending, torch.zeros(max(0, needed - len(self._pending)))))
        windows = [self._next_window() for _ in range(hops)]
        windows[-1] = _first_frames(windows[-1], missing - (hops - 1) * self.hop_frames)
        return windows

    def _drain(self) -> list[MotionWindow]:
        windows = []
        while len(self._pending) >= self.stream.hop_samples + self.stream.lookahead_samples:
            windows.append(self._next_window())
        self._pending = self._pending.clone()  # a slice would keep all that was ever fed
        return windows

    # ------------------------------------------------------------------------------------------------------ one hop

    def _next_window(self) -> MotionWindow:
        hop_samples = self.stream.hop_samples
        samples = self._pending[: hop_samples + self.stream.lookahead_samples]
        self._pending = self._pending[hop_samples:]
        start = self.start_seconds + self._hop * self.hop_frames / self.fps
        edit = self.edits.at(start)
        if not self.edit_log or self.edit_log[-1][1] is not edit:
            self.edit_log.append((self._hop, edit))
        with torch.inference_mode():
            motion = self._move(samples, start, edit)
        # Copied outside of inference mode, so that they are ordinary tensors; on the avatar's device.
        window = MotionWindow(start, self.fps, *(tensor.to(self._device, copy=True) for tensor in motion))
        self._hop += 1
        return window

    def _move(self, samples: Tensor, start: float, edit: AUEdit) -> tuple[Tensor, ...]:
        denoiser, frames = self.avatar.denoiser, self.hop_frames
        seconds = start + np.arange(self._window_frames) / self.fps
        gaze = gaze_angles(self.seed, seconds[:frames]) if self.blinks else torch.zeros(frames, 2)

        features = self._speech_stream.push(samples.to(self._device))
        codes, voice = self._code_stream.push(features)
        speech = self._resample(features)
        speech, codes = lip_gate(speech, codes, voice, denoiser.silence)
        codes, voice = codes.cpu(), voice.cpu()  # edits live there
        if self.blinks:
            codes[:, _BLINK_COLUMN] = torch.maximum(codes[:, _BLINK_COLUMN], blink_codes(self.seed, seconds))
        applied = modulate(codes, voice, edit)
        conditions = Conditions(applied[None].to(self._device), speech[None], self._template)
        latents = self._denoise(self._history, conditions)
        # `modulate` turns NaN into numbers, so the codes are looked at before it.
        if not all(bool(torch.isfinite(part).all()) for part in (features, codes, voice, latents)):
            return self._recover() + (gaze,)

        codes, applied, voice = codes[:frames], applied[:frames], voice[:frames]
        self._history = self._history.advance(latents[None], conditions.codes[:, :frames], speech[None, :frames])
        self._value_before = features[self.stream.hop_features - 1 :][:1]
        shown = latents - (1 - speaking_gate(voice)[:, None].to(self._device)) * self._rest
        self._last_good, self._frames_since_good = _Pose(shown[-1].cpu(), codes[-1], applied[-1]), 0
        return codes, applied, voice.clamp(0, 1), denoiser.decode_offsets(shown), gaze

    def _resample(self, features: Tensor) -> Tensor:  # [M + R, D] -> [F + A, D]
        """The hop's speech values at the motion frames."""
        before = features[:1] if self._value_before is None else self._value_before
        return self._pooling @ torch.cat((before, features))

    @torch.inference_mode()
    def _settle(self) -> Tensor:  # [F, K]
        """What the denoiser makes of lasting silence: a trace of its noise and a little bias, by definition the neutral face."""
        denoiser, window = self.avatar.denoiser, self._window_frames
        history = denoiser.start_history()
        codes = torch.zeros(1, window, NUM_AUS, device=self._device)
        conditions = Conditions(codes, denoiser.silence.expand(1, window, -1), self._template)
        for _ in range(SETTLING_HOPS):
            latents = self._denoise(history, conditions)
            history = history.advance(latents[None], codes[:, : self.hop_frames], conditions.speech[:, : self.hop_frames])
        return latents

    def _denoise(self, history: MotionHistory, conditions: Conditions) -> Tensor:  # [F, K]
        """The hop's own frames."""
        generator = torch.Generator().manual_seed(self.seed)
        options = {"rows": self.steps, "guidance": self.guidance, "generator": generator}
        return self.avatar.denoiser.generate(self._noise, history, conditions, **options)[0, : self.hop_frames]

    def _recover(self) -> tuple[Tensor, ...]:
        """A hop without networks: the last good pose, eased to neutral; the window starts anew after it."""
        self.faults += 1
        denoiser, frames = self.avatar.denoiser, self.hop_frames
        count = self._frames_since_good + torch.arange(1, frames + 1)
        self._frames_since_good += frames
        left = 1 - _smoothstep((count - HOLD_FRAMES) / EASE_FRAMES)[:, None]
        latents = (left * self._last_good.latents).to(self._device)
        codes, applied = left * self._last_good.codes, left * self._last_good.applied
        self._reset_window()
        silence = denoiser.silence.expand(1, frames, -1)
        self._history = self._history.advance(latents[None], applied[None].to(self._device), silence)
        return codes, applied, torch.zeros(frames), denoiser.decode_offsets(latents)


class _Pose:
    """One frame's latents and codes."""

    def __init__(self, latents: Tensor, codes: Tensor, applied: Tensor) -> None:
        self.latents, self.codes, self.applied = latents, codes, applied

    @classmethod
    def rest(cls, size: int) -> _Pose:
        return cls(torch.zeros(size), torch.zeros(NUM_AUS), torch.zeros(NUM_AUS))


def speaking_gate(voice: Tensor) -> Tensor:  # [...] 0..1 -> [...] 0..1
    """0 where nobody speaks, 1 where somebody surely does."""
    return _smoothstep((voice - NOT_SPEECH) / (SPEECH - NOT_SPEECH))


def lip_gate(
    speech: Tensor,  # [..., D] one value a motion frame
    codes: Tensor,  # [..., 17]
    voice: Tensor,  # [...] 0..1
    silence: Tensor,  # [D]
) -> tuple[Tensor, Tensor]:
    """Speech values and codes with the lips at rest where nobody speaks: noise, music and laughter move no mouth."""
    gate = speaking_gate(voice)[..., None]
    codes = codes.clone()
    codes[..., _SPEECH_COLUMNS] *= gate
    return silence + gate * (speech - silence), codes


def speak(
    avatar: Avatar,
    samples: Tensor,  # [S] float32 mono 16 kHz
    edits: EditTrack | None = None,
    *,
    seed: int = 0,
    blinks: bool = True,
    steps: int | None = None,
    guidance: float | None = None,
    stream: StreamContext | None = None,
) -> MotionWindow:
    """The motion of a whole sound: ceil(S * fps / 16000) frames."""
    if len(samples) == 0:
        raise InputError("the sound has no samples; give at least one")
    motion = SpeechMotion(avatar, edits, seed=seed, blinks=blinks, steps=steps, guidance=guidance, stream=stream)
    return join_windows(motion.feed(AudioChunk(samples, 0.0)) + motion.finish())


def join_windows(windows: list[MotionWindow]) -> MotionWindow:
    """Consecutive windows as one; `ValueError` where there is none."""
    if not windows:
        raise ValueError("no motion windows to join")
    parts = ("au_codes", "au_applied", "voice", "offsets", "gaze")
    joined = (torch.cat([getattr(window, part) for window in windows]) for part in parts)
    return MotionWindow(windows[0].start_seconds, windows[0].fps, *joined)


def _first_frames(window: MotionWindow, count: int) -> MotionWindow:
    parts = (window.au_codes, window.au_applied, window.voice, window.offsets, window.gaze)
    return MotionWindow(window.start_seconds, window.fps, *(part[:count].clone() for part in parts))


def _smoothstep(u: Tensor) -> Tensor:
    u = u.clamp(0, 1)
    return u * u * (3 - 2 * u)


def _check_steps(steps: int | None, most: int) -> int | None:
    if steps is not None and not 1 <= steps <= most:
        raise InputError(f"steps is {steps}; use 1 to {most}")
    return steps


def _check_guidance(guidance: float | None) -> float:
    if guidance is None:
        return 1.0
    if not (math.isfinite(guidance) and 0 <= guidance <= 10):
        raise InputError(f"guidance is {guidance}; use a number from 0 to 10")
    return float(guidance)
