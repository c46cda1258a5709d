"""The denoiser: clean face-vertex offsets from noisy ones, the template, AU codes, speech and the step (supplement eq. 18).

Offsets live in an orthonormal low-rank basis that travels with the weights (A14), whitened: offsets = (z * scale) @ basis.
A window is [frames generated before | new frames | look-ahead frames]; each frame carries its own AU codes and speech
value (an alignment mask of width 1, A13), and self-attention joins the frames. Knows tensors; no files, sound or threads.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..action_units import MAX_INTENSITY, MAX_OVER_RANGE, NUM_AUS
from ..config import FEATURE_FIELD, FEATURE_HOP, SAMPLE_RATE, StreamContext
from .diffusion import SAMPLERS, cosine_schedule

# Intensities at which the steady response to each AU is measured; in between and beyond it is linear.
RESPONSE_LEVELS = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, MAX_OVER_RANGE)
CORES = ("diffusion", "gru")
TEMPLATE_SCALE = 10.0  # per metre: a head's coordinates become about -1..1


@dataclass(frozen=True)
class DenoiserConfig:
    num_vertices: int  # V
    speech_dim: int  # D, of the backbone that it was trained for
    basis_size: int = 64  # K
    dim: int = 192
    layers: int = 4
    heads: int = 6
    feedforward: int = 768
    previous_frames: int = 10  # of generated motion that a window sees
    window_frames: int = 7  # new frames and look-ahead frames at most
    lookahead_frames: int = 2
    template_points: int = 64  # of the template, spread evenly over its vertices
    diffusion_steps: int = 500
    sampler: str = "ddim"
    rows: int = 2  # network rows a hop
    # The paper's ablations: a network without the AU codes, and a GRU that answers at once in place of diffusion.
    hears_codes: bool = field(default=True, metadata={"later": True})
    core: str = field(default="diffusion", metadata={"later": True})

    def __post_init__(self) -> None:
        if self.core not in CORES:
            raise ValueError(f"core is {self.core!r}, expected {' or '.join(CORES)}")


@dataclass(frozen=True)
class MotionHistory:
    """The frames before a window and what they were made from; unknown frames stand for the start of a take."""

    latents: Tensor  # [B, P, K]
    codes: Tensor  # [B, P, 17]
    speech: Tensor  # [B, P, D]
    known: Tensor  # [B, P] bool

    def advance(self, latents: Tensor, codes: Tensor, speech: Tensor) -> MotionHistory:  # [B, n, ...], n new frames
        """The history after `n` more frames."""
        length = self.latents.shape[1]
        known = torch.ones(latents.shape[:2], dtype=torch.bool, device=latents.device)
        pairs = ((self.latents, latents), (self.codes, codes), (self.speech, speech), (self.known, known))
        return MotionHistory(*(torch.cat(pair, dim=1)[:, -length:] for pair in pairs))


@dataclass(frozen=True)
class Conditions:
    """What a window's frames are made from: new and look-ahead frames only, the history carries its own."""

    codes: Tensor  # [B, N, 17] 0..7, after edits
    speech: Tensor  # [B, N, D], one value a motion frame
    template: Tensor  # [B or 1, 3 * template_points], of `Denoiser.describe_template`
    keep_codes: Tensor | None = None  # [B] bool: False drops the AU codes (guidance); None keeps
    keep_speech: Tensor | None = None  # [B] bool
    valid: Tensor | None = None  # [B, N] bool: False beyond a truncated end; None: all


def frame_pooling(context: StreamContext, fps: float, num_frames: int) -> Tensor:  # -> [num_frames, 1 + M + R]
    """Weights that resample a hop's speech values to motion frames, linearly.

    Columns: the value before the hop, its M own values, the R values of the right context. Frame j of the hop is at
    j / fps, speech value k is centred at 12.5 ms + 20 ms * k.
    """
    values = 1 + context.hop_features + context.lookahead_features
    times = torch.arange(num_frames, dtype=torch.float64) / fps
    positions = 1 + (times - FEATURE_FIELD / 2 / SAMPLE_RATE) * SAMPLE_RATE / FEATURE_HOP
    if positions[-1] > values - 1:
        raise ValueError(f"{num_frames} frames at {fps} fps reach beyond the {values - 1} speech values that a hop can see")
    columns = torch.arange(values, dtype=torch.float64)
    return (1 - (positions[:, None] - columns).abs()).clamp(min=0).float()


def _small(*shape: int) -> nn.Parameter:
    # Not 0.02 * randn: an avatar's networks are checked on torch's meta device, where arithmetic imports its compiler, a second.
    return nn.Parameter(torch.normal(0.0, 0.02, shape))


class Denoiser(nn.Module):
    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.config = config
        dim, size = config.dim, config.basis_size
        self.schedule = cosine_schedule(config.diffusion_steps)
        self.register_buffer("basis", torch.zeros(size, config.num_vertices * 3))  # orthonormal rows
        self.register_buffer("scale", torch.ones(size))  # metres per unit of latent
        self.register_buffer("silence", torch.zeros(config.speech_dim))  # the backbone's answer to silence
        self.register_buffer("response_latents", torch.zeros(NUM_AUS, len(RESPONSE_LEVELS), size))
        self.register_buffer("response_levels", torch.tensor(RESPONSE_LEVELS), persistent=False)
        vertices = torch.linspace(0, config.num_vertices - 1, config.template_points, device="cpu").round().long()
        self.register_buffer("template_vertices", vertices, persistent=False)

        self.embed_motion = nn.Linear(size, dim)
        self.embed_codes = nn.Sequential(nn.Linear(NUM_AUS, dim), nn.GELU(), nn.Linear(dim, dim))
        self.norm_speech = nn.LayerNorm(config.speech_dim)
        self.embed_speech = nn.Linear(config.speech_dim, dim)
        self.embed_template = nn.Linear(3 * config.template_points, dim)
        self.embed_step = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.places = _small(config.previous_frames + config.window_frames, dim)
        self.kinds = _small(2, dim)  # the indicator: generated before, to be denoised
        self.start = _small(dim)  # in place of a frame before the take
        self.no_codes = nn.Parameter(torch.zeros(dim))
        self.no_speech = nn.Parameter(torch.zeros(dim))
        if config.core == "gru":
            self.recurrent = nn.GRU(dim, dim, config.layers, batch_first=True)
        else:
            self.blocks = nn.ModuleList(Block(dim, config.heads, config.feedforward) for _ in range(config.layers))
        self.finish = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, size)
        # The straight road from a frame's own conditions to its offsets: the network proper learns what a line cannot say, so
        # the codes rule from the start. Training begins it as a least-squares fit.
        self.codes_to_latents = nn.Linear(NUM_AUS, size, bias=False)
        self.speech_to_latents = nn.Linear(config.speech_dim, size)
        for road in (self.codes_to_latents.weight, self.speech_to_latents.weight, self.speech_to_latents.bias):
            nn.init.zeros_(road)
        self.head.weight = _small(size, dim)
        nn.init.zeros_(self.head.bias)

    # ------------------------------------------------------------------------------------------------- the network

    def predict_clean(
        self,
        noisy: Tensor,  # [B, N, K]
        step: Tensor,  # [B] int64, 1..diffusion_steps
        history: MotionHistory,  # [B, P, ...]
        conditions: Conditions,  # [B, N, ...]
    ) -> Tensor:  # [B, N, K]
        """The network's answer for the new and the look-ahead frames; a GRU's has no use for noise and step."""
        batch, new_frames = noisy.shape[:2]
        if self.config.core == "gru":
            noisy, step = torch.zeros_like(noisy), torch.zeros_like(step)
        previous = history.latents.shape[1]
        codes = torch.cat((history.codes, conditions.codes), dim=1) / MAX_INTENSITY * self.config.hears_codes
        speech = self.norm_speech(torch.cat((history.speech, conditions.speech), dim=1))
        from_codes, from_speech = self.embed_codes(codes), self.embed_speech(speech)
        by_codes, by_speech = self.codes_to_latents(codes[:, previous:]), self.speech_to_latents(speech[:, previous:])
        if conditions.keep_codes is not None:
            keep = conditions.keep_codes.view(batch, 1, 1)
            from_codes, by_codes = torch.where(keep, from_codes, self.no_codes), by_codes * keep
        if conditions.keep_speech is not None:
            keep = conditions.keep_speech.view(batch, 1, 1)
            from_speech, by_speech = torch.where(keep, from_speech, self.no_speech), by_speech * keep

        at_step = self.embed_step(step_encoding(step, self.config.dim))
        frames = self.embed_motion(torch.cat((history.latents, noisy), dim=1)) + from_codes + from_speech
        old = torch.where(history.known[..., None], frames[:, :previous] + self.kinds[0], self.start)
        new = frames[:, previous:] + self.kinds[1] + at_step[:, None]
        person = (self.embed_template(conditions.template) + at_step)[:, None]
        places = self.places[self.config.previous_frames - previous :][: previous + new_frames]
        hidden = torch.cat((person, torch.cat((old, new), dim=1) + places), dim=1)

        hidden = self._join_frames(hidden, 1 + previous, conditions.valid)
        return self.head(self.finish(hidden[:, -new_frames:])) + by_codes + by_speech

    def _join_frames(self, hidden: Tensor, before: int, valid: Tensor | None) -> Tensor:  # [B, L, dim]
        """What the frames learn from each other; those before the window are all valid."""
        if self.config.core == "gru":
            return hidden + self.recurrent(hidden)[0]  # hears no future beyond its own frame
        mask = None
        if valid is not None:
            seen = torch.ones(len(hidden), before, dtype=torch.bool, device=hidden.device)
            mask = torch.cat((seen, valid), dim=1)[:, None, None, :]
        for block in self.blocks:
            hidden = block(hidden, mask)
        return hidden

    def generate(
        self,
        noise: Tensor,  # [B, N, K]
        history: MotionHistory,
        conditions: Conditions,
        *,
        rows: int | None = None,
        guidance: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:  # [B, N, K]
        """Clean latents by the avatar's sampler in `rows` predictions.

        `guidance` is the adherence to the AU codes: 1 is the plain conditional answer, above 1 exaggerates what the codes
        change against no codes and doubles the rows, 0 ignores the codes.
        """

        def predict(noisy: Tensor, step: int) -> Tensor:
            steps = torch.full((len(noisy),), step, dtype=torch.int64, device=noisy.device)
            if guidance == 1.0:
                return self.predict_clean(noisy, steps, history, conditions)
            both = self.predict_clean(torch.cat((noisy, noisy)), steps.repeat(2), *_with_and_without(history, conditions))
            kept, dropped = both.chunk(2)
            return dropped + guidance * (kept - dropped)

        if self.config.core == "gru":
            return predict(noise, 0)
        return SAMPLERS[self.config.sampler](predict, noise, self.schedule, rows or self.config.rows, generator)

    # ---------------------------------------------------------------------------------------- latents and vertices

    def encode_offsets(self, offsets: Tensor) -> Tensor:  # [..., V, 3] metres -> [..., K]
        return offsets.flatten(-2) @ self.basis.T / self.scale

    def decode_offsets(self, latents: Tensor) -> Tensor:  # [..., K] -> [..., V, 3] metres
        return ((latents * self.scale) @ self.basis).unflatten(-1, (self.config.num_vertices, 3))

    def describe_template(self, neutral: Tensor) -> Tensor:  # [V, 3] metres -> [1, 3 * template_points]
        """The template P as the network sees it."""
        return (neutral[self.template_vertices] * TEMPLATE_SCALE).reshape(1, -1)

    def start_history(self, batch: int = 1) -> MotionHistory:
        """The history before a take begins: nothing known, silence."""
        config, device = self.config, self.scale.device
        shape = (batch, config.previous_frames)
        return MotionHistory(
            torch.zeros(*shape, config.basis_size, device=device),
            torch.zeros(*shape, NUM_AUS, device=device),
            self.silence.expand(*shape, config.speech_dim).clone(),
            torch.zeros(shape, dtype=torch.bool, device=device),
        )

    def response(self, codes: Tensor) -> Tensor:  # [17] 0..7 -> [V, 3] metres
        """The steady offsets that these codes bring in silence, against codes of zero: measured after training, instant.

        The display adds response(codes now) - response(codes applied) until the next window carries the change.
        """
        codes = codes.clamp(0, MAX_OVER_RANGE)
        levels = self.response_levels
        upper = torch.searchsorted(levels, codes.contiguous()).clamp(1, len(levels) - 1)
        share = (codes - levels[upper - 1]) / (levels[upper] - levels[upper - 1])
        rows = torch.arange(NUM_AUS, device=codes.device)
        below, above = self.response_latents[rows, upper - 1], self.response_latents[rows, upper]
        return self.decode_offsets((below + share[:, None] * (above - below)).sum(dim=0))


class Block(nn.Module):
    """A pre-norm transformer layer with full self-attention."""

    def __init__(self, dim: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(dim)
        self.queries_keys_values = nn.Linear(dim, 3 * dim)
        self.join = nn.Linear(dim, dim)
        self.feedforward = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, feedforward), nn.GELU(), nn.Linear(feedforward, dim))

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:  # [B, L, dim], [B, 1, 1, L] bool -> [B, L, dim]
        packed = self.queries_keys_values(self.before_attention(hidden)).unflatten(-1, (3, self.heads, -1))
        queries, keys, values = packed.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        hidden = hidden + self.join(attended.transpose(1, 2).flatten(2))
        return hidden + self.feedforward(hidden)


def step_encoding(step: Tensor, dim: int) -> Tensor:  # [B] -> [B, dim]
    """Sines and cosines of the diffusion step."""
    rates = torch.exp(torch.arange(dim // 2, device=step.device) * (-9.21 / (dim // 2)))  # wavelengths to 10,000
    angles = step[:, None].float() * rates
    return torch.cat((angles.sin(), angles.cos()), dim=1)


def _with_and_without(history: MotionHistory, conditions: Conditions) -> tuple[MotionHistory, Conditions]:
    """A batch twice: with its AU codes, then without."""
    batch, device = len(conditions.codes), conditions.codes.device
    keep = torch.cat((torch.ones(batch, dtype=torch.bool), torch.zeros(batch, dtype=torch.bool))).to(device)
    twice = MotionHistory(*(part.repeat(2, *(1,) * (part.dim() - 1)) for part in vars(history).values()))
    template = conditions.template.expand(batch, -1)
    return twice, replace(
        conditions,
        codes=conditions.codes.repeat(2, 1, 1),
        speech=conditions.speech.repeat(2, 1, 1),
        template=template.repeat(2, 1),
        keep_codes=keep,
        keep_speech=None if conditions.keep_speech is None else conditions.keep_speech.repeat(2),
        valid=None if conditions.valid is None else conditions.valid.repeat(2, 1),
    )
