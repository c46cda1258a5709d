"""The last picture of a rasteriser: what it was made of, and whether it still stands for another.

Tensors that have been handed over are not written again; where torch counts writes, that is checked as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..types import Camera, Render


@dataclass(frozen=True)
class LastPicture:
    """Made by `keep`."""

    tensors: tuple[Tensor, ...]  # the frame's five and the background
    camera: Camera  # a copy
    render: Render
    on_cpu: tuple[Tensor, Tensor]  # color [H, W, 3] and alpha [H, W]: those of `render`, or what they were copied from
    ticket: int  # of the rasteriser's scene
    given_writes: list[int] | None  # to `tensors`; None where torch does not count
    made_writes: list[int]  # to the pictures

    @classmethod
    def keep(
        cls, tensors: tuple[Tensor, ...], camera: Camera, render: Render, on_cpu: tuple[Tensor, Tensor], ticket: int
    ) -> LastPicture:
        copied = Camera(camera.viewmat.clone(), camera.K.clone(), camera.width, camera.height)
        made = _writes(render.color, render.alpha, *on_cpu)
        assert made is not None
        return cls(tensors, copied, render, on_cpu, ticket, _writes(*tensors), made)

    def is_of(self, tensors: tuple[Tensor, ...], camera: Camera) -> bool:
        """Whether it is the picture of these very tensors, the background by value."""
        same = all(a is b for a, b in zip(tensors[:-1], self.tensors)) and self.given_writes is not None
        return same and self.given_writes == _writes(*self.tensors) and self.fits(tensors, camera)

    def fits(self, tensors: tuple[Tensor, ...], camera: Camera) -> bool:
        """Whether a picture of these tensors has every pixel from here whose Gaussians are the same."""
        last = self.camera
        same = len(tensors[0]) == len(self.tensors[0]) and (camera.width, camera.height) == (last.width, last.height)
        same = same and _equal(camera.viewmat, last.viewmat) and _equal(camera.K, last.K)
        same = same and _equal(tensors[-1], self.tensors[-1])
        return same and self.made_writes == _writes(self.render.color, self.render.alpha, *self.on_cpu)


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)


def _writes(*tensors: Tensor) -> list[int] | None:
    """How often each was written to in place; None where torch does not count, as inside inference mode."""
    return None if any(t.is_inference() for t in tensors) else [t._version for t in tensors]
