"""The rasteriser that needs no GPU: tiles, threads and SIMD in numba, forward and backward.

It follows `reference.py` to rounding. The stages are project (`cpu_project.py`), sort and list (`cpu_binning.py`) and blend
(`cpu_blend.py`). Kernels keep the interpreter's lock while they run: a frame is never stretched by waiting for it between two
of them, and numba's threads serve one caller at a time.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from collections.abc import Iterator

import numba
import numpy as np
import torch
from torch import Tensor

from ..types import Camera, GaussianFrame, Render
from .cpu_binning import DIGIT, choose_bands, count_most_pairs, emit_pairs, list_pairs, sort_by_depth
from .cpu_blend import MASKS, SCRATCH, blend, count_lanes
from .cpu_blend_backward import add_pairs, blend_backward
from .cpu_project import RECORD, TILE, project
from .cpu_project_backward import project_backward
from .last_picture import LastPicture
from .simd_ir import LANES

MOST_PAIRS = 4_000_000  # listed at once: past it the picture is drawn in bands of tiles, which bounds the memory
MOST_PAIRS_BACKWARD = 2_000_000  # 64 bytes each


def render_cpu(frame: GaussianFrame, camera: Camera, background: Tensor) -> Render:
    """The picture by this process's rasteriser, on the frame's device; what has not changed since the last one is reused."""
    tensors = (frame.means, frame.quats, frame.scales, frame.opacities, frame.colors, background)
    with cpu_rasterizers().borrow() as rasterizer:
        if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
            color, alpha, dropped = _Rasterization.apply(*(t.cpu().contiguous() for t in tensors), camera, rasterizer)
            home = frame.means.device
            return Render(color.to(home), alpha.to(home), dropped)
        return rasterizer.render(tensors, camera)


@functools.cache
def cpu_rasterizers() -> CpuRasterizers:
    """Those of this process. Set `threads` to leave cores to others."""
    return CpuRasterizers()


class CpuRasterizers:
    """As many rasterisers as threads draw at once, mostly one; their buffers are kept from frame to frame."""

    def __init__(self) -> None:
        self.threads = numba.config.NUMBA_NUM_THREADS
        self._idle: list[CpuRasterizer] = []

    @contextlib.contextmanager
    def borrow(self) -> Iterator[CpuRasterizer]:
        """The one used last, for this thread alone until it is given back."""
        try:
            rasterizer = self._idle.pop()
        except IndexError:
            rasterizer = CpuRasterizer()
        rasterizer.threads = self.threads
        try:
            yield rasterizer
        finally:
            self._idle.append(rasterizer)


class CpuRasterizer:
    """Scratch buffers, grown when needed and kept, and the stages that fill them."""

    def __init__(self, threads: int | None = None):  # None: all that numba has
        self.threads = threads or numba.config.NUMBA_NUM_THREADS
        self._buffers: dict[str, np.ndarray] = {}
        self.phase_seconds: dict[str, float] = {}  # of the last picture
        self._last: LastPicture | None = None
        self._ticket = 0  # counts the scenes prepared, so that a backward knows whether its own is still here
        self._is_partial = False  # sorted for some tiles only
        self._is_listed_whole = False
        self._found = 0  # pairs listed now

    def render(self, tensors: tuple[Tensor, ...], camera: Camera) -> Render:
        """The picture of a frame's five tensors over the background, which is the last of `tensors`; without gradients.

        The last picture itself, if nothing has changed; its tiles, by a still camera, where no Gaussian has.
        """
        last = self._last
        if last is not None and last.is_of(tensors, camera):
            return last.render
        reuses = last is not None and last.ticket == self._ticket and last.fits(tensors, camera)
        with torch.inference_mode(False):  # else writes to the picture could not be noticed
            color, alpha = torch.empty(camera.height, camera.width, 3), torch.empty(camera.height, camera.width)
        arrays = [t.detach().cpu().contiguous().numpy() for t in tensors[:-1]]
        last_picture = tuple(t.numpy() for t in last.on_cpu) if reuses else None
        picture = (color.numpy(), alpha.numpy())
        dropped, ticket = self.draw(arrays, camera, tuple(tensors[-1].tolist()), *picture, last_picture)
        home = tensors[0].device
        with torch.inference_mode(False):
            render = Render(color.to(home), alpha.to(home), dropped)
        self._last = LastPicture.keep(tensors, camera, render, (color, alpha), ticket)
        return render

    def _buffer(self, name: str, dtype: type, *shape: int) -> np.ndarray:
        """At least this shape; the contents are whatever was there."""
        found = self._buffers.get(name)
        if found is None or any(have < want for have, want in zip(found.shape, shape)):
            if found is not None:
                shape = tuple(max(have, want + want // 4) for have, want in zip(found.shape, shape))
            # torch aligns to 64 bytes, so that no vector straddles two cache lines.
            found = (
                torch.empty(int(np.prod(shape)) * np.dtype(dtype).itemsize, dtype=torch.uint8).numpy().view(dtype).reshape(shape)
            )
            self._buffers[name] = found
        return found

    def _prepare(self, inputs: list[np.ndarray], camera: Camera, tracks: bool = False) -> int:
        """Project and sort; the number of malformed Gaussians.

        With `tracks`, the tiles that differ from the last scene's are noted, and Gaussians are sorted for those alone.
        """
        self._ticket += 1
        self._is_partial = tracks
        self._is_listed_whole = False
        threads = max(1, min(self.threads, numba.config.NUMBA_NUM_THREADS))
        torch_threads = torch.get_num_threads()
        numba.set_num_threads(threads)
        if torch.get_num_threads() != torch_threads:  # starting its threads, numba sets the OpenMP default that torch reads
            torch.set_num_threads(torch_threads)
        self._count, self._threads = len(inputs[0]), threads
        self._width, self._height = camera.width, camera.height
        self._tiles_x = -(-camera.width // TILE)
        self._tiles = self._tiles_x * -(-camera.height // TILE)
        self._view = np.ascontiguousarray(camera.viewmat.detach().cpu().numpy(), dtype=np.float64)
        K = camera.K.detach().cpu().tolist()
        self._intrinsics = (K[0][0], K[1][1], K[0][2], K[1][2])
        rows = -(-self._count // LANES) * LANES
        self._records = self._buffer("records", np.float32, rows, RECORD)
        self._rects = self._buffer("rects", np.int16, rows, 4)
        depths = self._buffer("depths", np.float32, rows)
        malformed = self._buffer("malformed", np.int64, threads)
        self._dirty = self._buffer("dirty", np.uint8, self._tiles)
        if tracks:
            self._dirty[: self._tiles] = 0
        started = time.perf_counter()
        project(
            *inputs,
            self._view,
            self._intrinsics,
            self._width,
            self._height,
            threads,
            self._records,
            self._rects,
            depths,
            malformed,
            tracks,
            self._dirty,
        )
        started = self._note("project", started)
        self._order = self._buffer("order", np.int32, rows)
        histogram, keys = self._buffer("histogram", np.int32, 1 << DIGIT), self._buffer("keys", np.int32, rows)
        spare = (self._buffer("spare_keys", np.int32, rows), self._buffer("spare_order", np.int32, rows))
        # Positive floats sort like the integers of their bits.
        wanted = (tracks, self._tiles_x, self._dirty)
        self._visible = sort_by_depth(
            self._count, self._rects, depths.view(np.int32), *wanted, histogram, keys, self._order, *spare
        )
        self._note("sort", started)
        return int(malformed[:threads].sum())

    def _bands(self, most_pairs: int) -> Iterator[tuple[int, int]]:
        """Ranges of tiles whose lists are ready in `_starts` and `_pairs` until the next one is asked for."""
        if self._is_listed_whole and self._found <= most_pairs:
            yield 0, self._tiles
            return
        scene = (self._records, self._rects, self._order, self._visible, self._tiles_x)
        bounds = [0, self._tiles]
        most = count_most_pairs(self._rects, self._order, self._visible)
        if most > most_pairs:
            edges = self._buffer("bounds", np.int64, self._tiles + 1)
            counts = self._buffer("counts", np.int64, self._tiles)
            bands = choose_bands(*scene, self._tiles, most_pairs, counts, edges)
            bounds = edges[: bands + 1].tolist()
            # No tile lists a Gaussian twice, so a tile of its own needs no more than that.
            most = max(most_pairs, self._visible)
        room = most + 4
        emitted = (self._buffer("pair_tiles", np.int32, room), self._buffer("pair_owners", np.int32, room))
        self._ends = self._buffer("ends", np.int32, len(self._records))
        self._starts = self._buffer("starts", np.int32, self._tiles + 1)
        self._pairs, self._places = self._buffer("pairs", np.int32, room), self._buffer("places", np.int32, room)
        cursors = self._buffer("cursors", np.int32, self._tiles)
        for first, last in itertools.pairwise(bounds):
            is_whole = (first, last) == (0, self._tiles)
            self._found = emit_pairs(*scene, first, last, is_whole, room, self._ends, *emitted)
            assert self._found >= 0, "more pairs than were counted"
            list_pairs(self._found, first, last, *emitted, cursors, self._starts, self._pairs, self._places)
            self._is_listed_whole = is_whole
            yield first, last

    def _blend_scratch(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        scratch = self._buffer("scratch", np.float32, self._threads, SCRATCH)
        return self._buffer("counter", np.int64, 1), scratch, self._buffer("masks", np.uint16, self._threads, MASKS)

    def draw(
        self,
        inputs: list[np.ndarray],  # means, quats, scales, opacities, colors: float32, contiguous
        camera: Camera,
        background: tuple[float, float, float],
        color: np.ndarray,  # [H, W, 3] written
        alpha: np.ndarray,  # [H, W] written
        last_picture: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> tuple[int, int]:
        """The number of malformed Gaussians, and a ticket for `draw_backward`.

        `last_picture` is what the last call drew, of as many Gaussians by the same camera over the same background: tiles are
        copied from there where no Gaussian has changed. The picture is the same to the last bit.
        """
        self.phase_seconds = dict.fromkeys(("project", "sort", "list", "blend"), 0.0)
        reuses = last_picture is not None
        malformed = self._prepare(inputs, camera, reuses)
        last_color, last_alpha = last_picture or (color, alpha)
        started = time.perf_counter()
        for first, last in self._bands(MOST_PAIRS):
            started = self._note("list", started)
            blend(
                self._records, self._starts, self._pairs, first, last, self._tiles_x, background, self._threads,
                *self._blend_scratch(), reuses, self._dirty, last_color, last_alpha, color, alpha,
            )  # fmt: skip
            started = self._note("blend", started)
        return malformed, self._ticket

    def _note(self, phase: str, started: float) -> float:
        now = time.perf_counter()
        self.phase_seconds[phase] = self.phase_seconds.get(phase, 0.0) + now - started
        return now

    def measure_work(self) -> dict[str, int]:
        """What the last picture took: pairs listed, lanes evaluated, and those of them that changed a pixel. Slow."""
        found = np.zeros(3, np.int64)
        for first, last in self._bands(MOST_PAIRS):
            _, scratch, masks = self._blend_scratch()
            count_lanes(
                self._records,
                self._starts,
                self._pairs,
                first,
                last,
                self._tiles_x,
                self._width,
                self._height,
                scratch,
                masks,
                found,
            )
        return dict(zip(("pairs", "lanes", "useful_lanes"), found.tolist()))

    def draw_backward(
        self,
        inputs: list[np.ndarray],  # as given to `draw`
        camera: Camera,
        ticket: int,  # from `draw`; 0 where this rasteriser did not draw it
        pictures: list[np.ndarray],  # color, alpha, and the gradients of the two
        gradients: list[np.ndarray],  # of the inputs: written
    ) -> None:
        if ticket != self._ticket or self._is_partial:
            self._prepare(inputs, camera)
        sums = self._buffer("sums", np.float32, len(self._records), RECORD)
        for first, last in self._bands(MOST_PAIRS_BACKWARD):
            pair_sums = self._buffer("pair_sums", np.float32, self._found, RECORD)
            blend_backward(
                self._records, self._starts, self._pairs, first, last, self._tiles_x, self._threads,
                *self._blend_scratch(), *pictures, pair_sums,
            )  # fmt: skip
            add_pairs(self._order, self._visible, self._ends, self._places, self._threads, first > 0, pair_sums, sums)
        project_backward(
            *inputs[:4], self._view, self._intrinsics, self._width, self._height, self._threads, self._records, self._rects,
            sums, *gradients,
        )  # fmt: skip


class _Rasterization(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, quats, scales, opacities, colors, background, camera, rasterizer):
        inputs = (means, quats, scales, opacities, colors)
        color, alpha = torch.empty(camera.height, camera.width, 3), torch.empty(camera.height, camera.width)
        arrays = [t.detach().numpy() for t in inputs]
        malformed, ticket = rasterizer.draw(arrays, camera, tuple(background.tolist()), color.numpy(), alpha.numpy())
        ctx.save_for_backward(*inputs, color, alpha)
        ctx.camera, ctx.rasterizer, ctx.ticket = camera, rasterizer, ticket
        return color, alpha, malformed

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, d_color, d_alpha, _):
        *inputs, color, alpha = ctx.saved_tensors
        pictures = [t.numpy() for t in (color, alpha, d_color.contiguous(), d_alpha.contiguous())]
        gradients = [torch.empty_like(t) for t in inputs]
        arrays = [t.detach().numpy() for t in inputs]
        with cpu_rasterizers().borrow() as rasterizer:
            ticket = ctx.ticket if rasterizer is ctx.rasterizer else 0
            rasterizer.draw_backward(arrays, ctx.camera, ticket, pictures, [g.numpy() for g in gradients])
        d_background = torch.einsum("hw,hwc->c", 1 - alpha, d_color) if ctx.needs_input_grad[5] else None
        return *gradients, d_background, None, None
