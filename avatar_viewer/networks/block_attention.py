"""Block-wise streaming for sequence networks: a hop's tokens see what came before, themselves, and a few tokens ahead.

A block is [main | right] tokens: the hop's own and the look-ahead, which the next hop computes again as its own. So no
layer sees more future than the look-ahead, however deep the stack. A layer written once against `preceding` runs all
hops of a sequence in parallel (`WholeSequence`, training) or one hop at a time with caches (`Streaming`, use), with
equal results. Knows tokens; knows no sound, no model and no clock.

Letters in the shapes: B sequences, H hops, M main tokens a hop, R right tokens, P = M + R, L tokens of left context.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class BlockShape:
    main: int  # M
    right: int  # R

    @property
    def tokens(self) -> int:
        return self.main + self.right

    def num_hops(self, length: int) -> int:
        """Whole hops, each with its look-ahead, in `length` tokens."""
        return max(0, (length - self.right) // self.main)

    def expand(
        self,
        tokens: Tensor,  # [B, T, ...]
    ) -> Tensor:
        """[B, H, P, ...]: every hop's main and right tokens."""
        return tokens.unfold(1, self.tokens, self.main).movedim(-1, 2)


class Past(Protocol):
    """Where a layer finds the tokens before its block; `slot` names the layer's own memory."""

    def preceding(self, slot: str, block: Tensor, length: int) -> Tensor:
        """The `length` main tokens before each block, zeros before the beginning: [B, H, P, C] -> [B, H, length, C]."""
        ...

    def attend(self, slot: str, query: Tensor, key: Tensor, value: Tensor, window: Window) -> Tensor:
        """Scaled dot-product attention of each block's tokens over their left context and their block: all [B, H, P, C]."""
        ...

    def recur(self, slot: str, block: Tensor, cell: nn.GRU) -> Tensor:
        """A one-layer GRU over all tokens from the beginning; look-ahead tokens go on from their own hop's last main one,
        and are forgotten: [B, H, P, C] -> [B, H, P, C']."""
        ...


@dataclass(frozen=True)
class Window:
    """What one attention layer sees."""

    heads: int
    left: int  # L, main tokens before the block
    reach: int | None = None  # a token sees at most this many tokens to either side; None: all of its context
    dropout: float = 0.0


class WholeSequence:
    """The past of all hops at once: one attention over the sequence's expanded tokens, masked."""

    def __init__(self, shape: BlockShape, hops: int) -> None:
        self.shape, self.hops = shape, hops
        self._masks: dict[tuple, Tensor] = {}

    def preceding(self, slot: str, block: Tensor, length: int) -> Tensor:
        main = block[:, :, : self.shape.main]
        before = -(-length // self.shape.main)
        padded = F.pad(main, (0, 0, 0, 0, before, 0))
        pieces = [padded[:, i : i + self.hops] for i in range(before)]
        past = torch.cat(pieces, dim=2) if pieces else block[:, :, :0]
        return past[:, :, past.shape[2] - length :]

    def attend(self, slot: str, query: Tensor, key: Tensor, value: Tensor, window: Window) -> Tensor:
        mixed = _attention(query.flatten(1, 2), key.flatten(1, 2), value.flatten(1, 2), self._mask(window, query.device), window)
        return mixed.unflatten(1, (self.hops, self.shape.tokens))

    def recur(self, slot: str, block: Tensor, cell: nn.GRU) -> Tensor:
        main = cell(block[:, :, : self.shape.main].flatten(1, 2))[0].unflatten(1, (self.hops, self.shape.main))
        if self.shape.right == 0:
            return main
        ends = main[:, :, -1].flatten(0, 1)[None].contiguous()
        ahead = cell(block[:, :, self.shape.main :].flatten(0, 1), ends)[0]
        return torch.cat([main, ahead.unflatten(0, (-1, self.hops))], dim=2)

    def _mask(self, window: Window, device: torch.device) -> Tensor:  # bool [H P, H P]
        wanted = (window.left, window.reach, device)
        if wanted not in self._masks:
            hop = torch.arange(self.hops, device=device).repeat_interleave(self.shape.tokens)
            place = torch.arange(self.shape.tokens, device=device).repeat(self.hops)
            time = hop * self.shape.main + place
            same = hop[:, None] == hop[None]
            age = hop[:, None] * self.shape.main - time[None]  # how long before the query's block the key lies
            past = (place < self.shape.main)[None] & (age > 0) & (age <= window.left)
            visible = same | past
            if window.reach is not None:
                visible = visible & ((time[:, None] - time[None]).abs() <= window.reach)
            self._masks[wanted] = visible
        return self._masks[wanted]


class Streaming:
    """The past of one hop, cached in constant memory: run each layer once a hop, then `advance`."""

    def __init__(self, shape: BlockShape) -> None:
        self.shape = shape
        self.reset()

    def reset(self) -> None:
        self._cache: dict[str, Tensor] = {}
        self._heard = 0

    def advance(self) -> None:
        self._heard += self.shape.main

    def preceding(self, slot: str, block: Tensor, length: int) -> Tensor:
        past = self._cache.get(slot)
        if past is None:
            past = block.new_zeros(block.shape[0], 1, length, block.shape[-1])
        joined = torch.cat([past, block[:, :, : self.shape.main]], dim=2)
        self._cache[slot] = joined[:, :, joined.shape[2] - length :]
        return past

    def attend(self, slot: str, query: Tensor, key: Tensor, value: Tensor, window: Window) -> Tensor:
        keys = torch.cat([self.preceding(f"{slot}.key", key, window.left), key], dim=2)
        values = torch.cat([self.preceding(f"{slot}.value", value, window.left), value], dim=2)
        mixed = _attention(query[:, 0], keys[:, 0], values[:, 0], self._mask(window, query.device), window)
        return mixed[:, None]

    def recur(self, slot: str, block: Tensor, cell: nn.GRU) -> Tensor:
        main, state = cell(block[:, 0, : self.shape.main], self._cache.get(slot))
        self._cache[slot] = state
        if self.shape.right == 0:
            return main[:, None]
        ahead, _ = cell(block[:, 0, self.shape.main :], state)
        return torch.cat([main, ahead], dim=1)[:, None]

    def _mask(self, window: Window, device: torch.device) -> Tensor:  # bool [P, L + P]
        place = torch.arange(-window.left, self.shape.tokens, device=device)
        visible = (place >= -self._heard)[None].expand(self.shape.tokens, -1)
        if window.reach is not None:
            visible = visible & ((place[window.left :, None] - place[None]).abs() <= window.reach)
        return visible


def _attention(
    query: Tensor,  # [B, T, C]
    key: Tensor,  # [B, T', C]
    value: Tensor,  # [B, T', C]
    visible: Tensor,  # bool [T, T']
    window: Window,
) -> Tensor:  # [B, T, C]
    def split(x: Tensor) -> Tensor:
        return x.unflatten(-1, (window.heads, -1)).transpose(1, 2)

    query, key, value = split(query), split(key), split(value)
    if query.device.type == "cpu" and torch.is_grad_enabled():
        # The fused kernel's backward pass takes three times as long as these products in bfloat16 on a CPU, as long in float32.
        bias = torch.zeros(visible.shape, dtype=query.dtype, device=query.device).masked_fill_(~visible, -torch.inf)
        share = (query * query.shape[-1] ** -0.5 @ key.transpose(-1, -2) + bias).softmax(dim=-1)
        mixed = F.dropout(share, window.dropout).to(value.dtype) @ value
    else:
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=visible, dropout_p=window.dropout)
    return mixed.transpose(1, 2).flatten(-2)
