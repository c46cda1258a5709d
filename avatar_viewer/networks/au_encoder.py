"""From speech features to action units: the paper's speech-to-AU encoder (supplement section 2), block-wise.

Lower layers see a few tokens either side (quick articulation), upper layers the whole stream context (prosody); a
residual projection head and a linear layer give 17 intensities and `voice`, how much the person is speaking. Frame
pooling resamples the hidden states to motion frames. Beside the Transformer listens a branch for what lasts: a feeling is
in the melody of whole phrases, and a network that must place every closure learns to leave it out.
Knows features; knows no sound, face or clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..action_units import AU_NAMES, MAX_INTENSITY, NUM_AUS
from ..config import DEFAULT_STREAM, StreamContext
from .block_attention import BlockShape, Past, Streaming, WholeSequence, Window
from .denoiser import frame_pooling

POSITION_KERNEL = 7  # tokens: attention alone does not know what comes first
LONGEST_MEMORY = 400  # tokens, of a new expression branch
EDGE_TOKENS = 8  # how near to the end of what has been heard a token may feel


@dataclass(frozen=True)
class AUEncoderConfig:
    speech_dim: int  # D, of the backbone that it was trained for
    dim: int = 128
    layers: int = 4
    heads: int = 4
    feedforward: int = 320
    head_hidden: int = 256
    reach: int = 3  # tokens that the lower half of the layers sees to either side (A9)
    left_features: int = 160  # of the past that the upper half sees: 3.2 s, as long as a feeling takes to be heard
    lookahead_frames: int = 2  # motion frames beyond the hop that are coded too
    # The expression branch: its width, 0 for none, and the units that it has the last word on.
    expression_dim: int = field(default=0, metadata={"later": True})
    expression_aus: tuple[str, ...] = field(default=(), metadata={"later": True})

    def __post_init__(self) -> None:
        unknown = sorted(set(self.expression_aus) - set(AU_NAMES))
        if unknown:
            raise ValueError(f"expression_aus names {', '.join(unknown)[:60]}, expected some of {' '.join(AU_NAMES)}")
        if bool(self.expression_aus) != bool(self.expression_dim):
            raise ValueError("an expression branch needs both expression_dim and expression_aus")


class AUEncoder(nn.Module):
    def __init__(self, config: AUEncoderConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.embed = nn.Sequential(nn.LayerNorm(config.speech_dim), nn.Linear(config.speech_dim, dim))
        self.position = nn.Conv1d(dim, dim, POSITION_KERNEL, groups=dim)
        self.edge = nn.Parameter(torch.zeros(EDGE_TOKENS, dim))
        lower = config.layers // 2
        windows = [
            Window(config.heads, config.reach if i < lower else config.left_features, config.reach if i < lower else None)
            for i in range(config.layers)
        ]
        self.layers = nn.ModuleList(_Layer(dim, config.feedforward, window, f"layer{i}") for i, window in enumerate(windows))
        self.finish = nn.LayerNorm(dim)
        # A10: h + MLP(LN(h)), then the fully connected layer.
        self.project = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, config.head_hidden), nn.GELU(), nn.Linear(config.head_hidden, dim)
        )
        self.codes = nn.Linear(dim, NUM_AUS)
        self.voice = nn.Linear(dim, 1)
        nn.init.constant_(self.codes.bias, -2.0)  # softplus of it is 0.13: a face at rest
        self.expression = ExpressionBranch(config) if config.expression_dim else None

    def stream(self, context: StreamContext = DEFAULT_STREAM, fps: float = 25.0) -> AUStream:
        return AUStream(self, context, fps)

    def forward_blocks(
        self,
        features: Tensor,  # [B, H, M + R, D], of `SpeechBackbone.forward_blocks`
        context: StreamContext = DEFAULT_STREAM,
        fps: float = 25.0,
    ) -> tuple[Tensor, Tensor]:  # [B, H, F + A, 17] 0..5, [B, H, F + A] logits of voice
        """What the stream gives (with `voice` before its sigmoid), all hops in parallel; differentiable."""
        pooling = self._pooling(context, fps).to(features)
        return self._read(features, WholeSequence(_shape(context), features.shape[1]), pooling)

    def feel_blocks(
        self,
        features: Tensor,  # [B, H, M + R, D]
        codes: Tensor,  # [B, H, F + A, 17], the articulation's
        context: StreamContext = DEFAULT_STREAM,
        fps: float = 25.0,
    ) -> tuple[Tensor, Tensor]:  # each [B, H, F + A, units]
        """The expression branch alone, all hops in parallel, for its training."""
        past = WholeSequence(_shape(context), features.shape[1])
        return self.expression(features, codes, past, self._pooling(context, fps).to(features))

    def _pooling(self, context: StreamContext, fps: float) -> Tensor:  # [F + A, 1 + M + R]
        return frame_pooling(context, fps, context.hop_frames(fps) + self.config.lookahead_frames)

    def _read(self, features: Tensor, past: Past, pooling: Tensor) -> tuple[Tensor, Tensor]:
        x = self.embed(features)
        x = x + self._place(x, past) + self._edges(x.shape[2])
        for layer in self.layers:
            x = layer(x, past)
        x = self.finish(x)
        frames = pooling @ torch.cat([past.preceding("pooling", x, 1), x], dim=2)  # A11: linear resample of hidden states
        hidden = frames + self.project(frames)
        codes, voice = F.softplus(self.codes(hidden)).clamp(max=MAX_INTENSITY), self.voice(hidden).squeeze(-1)
        if self.expression is not None:
            codes = self.expression.complete(codes, *self.expression(features, codes, past, pooling))
        return codes, voice

    def _place(self, x: Tensor, past: Past) -> Tensor:
        """A depth-wise convolution over neighbours, zero beyond the block's right edge."""
        side = POSITION_KERNEL // 2
        joined = torch.cat([past.preceding("position", x, side), x], dim=2).flatten(0, 1).transpose(1, 2)
        return F.gelu(self.position(F.pad(joined, (0, side)))).transpose(1, 2).unflatten(0, x.shape[:2])

    def _edges(self, tokens: int) -> Tensor:  # [P, dim]
        return self.edge[torch.arange(tokens - 1, -1, -1, device=self.edge.device).clamp(max=EDGE_TOKENS - 1)]


class _Layer(nn.Module):
    """A pre-norm Transformer layer over blocks."""

    def __init__(self, dim: int, feedforward: int, window: Window, slot: str) -> None:
        super().__init__()
        self.window, self.slot = window, slot
        self.norm = nn.LayerNorm(dim)
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.feed = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, feedforward), nn.GELU(), nn.Linear(feedforward, dim))

    def forward(self, x: Tensor, past: Past) -> Tensor:  # [B, H, P, dim]
        query, key, value = self.query_key_value(self.norm(x)).chunk(3, dim=-1)
        x = x + self.out(past.attend(self.slot, query, key, value, self.window))
        return x + self.feed(x)


class ExpressionBranch(nn.Module):
    """The units of feelings: whether each is active, and how strongly if so, from all that was heard of the voice.

    Two answers, since a unit that is seldom active has intensity 0 for its median: asked for the intensity alone, it dies.
    """

    def __init__(self, config: AUEncoderConfig) -> None:
        super().__init__()
        dim, units = config.expression_dim, len(config.expression_aus)
        self.columns = [AU_NAMES.index(name) for name in config.expression_aus]
        self.embed = nn.Sequential(nn.LayerNorm(config.speech_dim), nn.Linear(config.speech_dim, dim), nn.GELU())
        self.memory = nn.GRU(dim, dim, batch_first=True)
        with torch.no_grad():  # the update gates at first keep 40 ms to 8 s (Tallec and Ollivier 2018)
            for bias in (self.memory.bias_ih_l0, self.memory.bias_hh_l0):
                bias[dim : 2 * dim] = torch.linspace(0.0, math.log(LONGEST_MEMORY) / 2, dim, device="cpu")
        self.read = nn.Sequential(nn.Linear(dim + NUM_AUS, dim), nn.GELU(), nn.Linear(dim, 2 * units))

    def forward(
        self,
        features: Tensor,  # [B, H, M + R, D]
        codes: Tensor,  # [B, H, F + A, 17], what the articulation makes of them
        past: Past,
        pooling: Tensor,  # [F + A, 1 + M + R]
    ) -> tuple[Tensor, Tensor]:  # each [B, H, F + A, units]: logits of activity; intensity where active
        remembered = past.recur("expression", self.embed(features), self.memory)
        frames = pooling @ torch.cat([past.preceding("expression.pooling", remembered, 1), remembered], dim=2)
        activity, intensity = self.read(torch.cat([frames, codes], dim=-1)).chunk(2, dim=-1)
        return activity, F.softplus(intensity)

    def complete(self, codes: Tensor, activity: Tensor, intensity: Tensor) -> Tensor:  # [B, H, F + A, 17] 0..5
        """`codes` with this branch's units in the place of their own: the intensity to be expected."""
        codes = codes.clone()
        codes[..., self.columns] = (activity.sigmoid() * intensity).clamp(max=MAX_INTENSITY)
        return codes


class AUStream:
    """Codes hop after hop; constant memory, fixed tensor shapes."""

    def __init__(self, encoder: AUEncoder, context: StreamContext, fps: float) -> None:
        self.encoder = encoder
        self._shape = _shape(context)
        self._pooling = encoder._pooling(context, fps)
        self._past = Streaming(self._shape)

    def reset(self) -> None:
        self._past.reset()

    @torch.no_grad()
    def push(
        self,
        features: Tensor,  # [M + R, D], of `SpeechStream.push`
    ) -> tuple[Tensor, Tensor]:  # [F + A, 17] 0..5, [F + A] 0..1
        """The hop's motion frames and the look-ahead ones: intensities, and how much the voice is speaking."""
        if features.shape != (self._shape.tokens, self.encoder.config.speech_dim):
            expected = [self._shape.tokens, self.encoder.config.speech_dim]
            raise ValueError(f"a hop's features must have shape {expected}, got {list(features.shape)}")
        codes, voice = self.encoder._read(features[None, None], self._past, self._pooling.to(features))
        self._past.advance()
        return codes[0, 0], voice[0, 0].sigmoid()


def _shape(context: StreamContext) -> BlockShape:
    return BlockShape(main=context.hop_features, right=context.lookahead_features)
