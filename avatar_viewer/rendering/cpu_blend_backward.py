"""Numba kernels from the gradient of a picture back to sums over each Gaussian's pixels.

They replay the blending of `cpu_blend.py` near to far and know what is still to come from the finished picture, so they take
exactly the forward's decisions and need nothing saved but the picture. Per pair nine sums over the tile's pixels are written,
with g = dL/dalpha * alpha and (s, t) of the record: g, g s, g t, g s^2, g s t, g t^2 and the three colour gradients. They are
added per Gaussian afterwards in a fixed order: no two threads write one place, and their number changes nothing.
"""

from __future__ import annotations

import numba
import numpy as np

from .cpu_blend import AHEAD, BATCH, BLOCK, MASKS, ONE, SCRATCH, STATE, evaluate, load_batch, rows_of_blocks, start_blocks
from .cpu_project import BLUE, GREEN, RECORD, RED, TILE
from .kernel_cache import kernel
from .reference import ALPHA_MAX, TRANSMITTANCE_MIN
from .simd import from_bits, lane_columns, lane_rows, lowest_bit, select, smaller, splat, to_bits
from .simd_ir import LANES
from .simd_memory import fetch_add, load, peek, poke, prefetch, repeat, store
from .simd_rows import load1, load3, totals


@numba.njit
def _read_gradients(scratch, state, left, top, width, height, color, alpha, d_color, d_alpha):
    """Per block: transmittance 1, the gradient-weighted sum of all that is drawn, the background too, and the gradients."""
    for across in range(BLOCK):
        y = top + across * BLOCK
        for row in range(BLOCK):
            valid = min(width - left, TILE) if y + row < height else 0
            offset = (y + row) * width + left if valid > 0 else 0
            red, green, blue = load3(d_color, 3 * offset, valid)
            drawn_red, drawn_green, drawn_blue = load3(color, 3 * offset, valid)
            behind = red * drawn_red + green * drawn_green + blue * drawn_blue
            behind = behind - load1(d_alpha, offset, valid) * (1.0 - load1(alpha, offset, valid))
            place = state + (across * BLOCK + row) * STATE
            store(scratch, place, splat(ONE))
            store(scratch, place + LANES, behind)
            store(scratch, place + 2 * LANES, red)
            store(scratch, place + 3 * LANES, green)
            store(scratch, place + 4 * LANES, blue)
        for part in range(1, 5):
            place = state + across * BLOCK * STATE + part * LANES
            blocks = rows_of_blocks(scratch, place)
            for block in range(BLOCK):
                store(scratch, place + block * STATE, blocks[block])


@numba.njit
def _blend_tile_backward(
    records,
    pairs,
    first,
    last,
    left,
    top,
    width,
    height,
    scratch,
    base,
    masks,
    mask_base,
    color,
    alpha,
    d_color,
    d_alpha,
    pair_sums,
):
    state = base + BATCH * RECORD
    _read_gradients(scratch, state, left, top, width, height, color, alpha, d_color, d_alpha)
    live = start_blocks(left, top, width, height, masks, mask_base)
    while first < last and live != 0:
        count = min(last - first, BATCH)
        load_batch(records, pairs, first, count, last, np.float32(left), np.float32(top), live, scratch, base, masks, mask_base)
        for k in range(count):
            record = base + RECORD * k
            g = gs = gt = gss = gst = gtt = d_red = d_green = d_blue = splat(np.float32(0))
            red, green, blue = repeat(scratch, record + RED), repeat(scratch, record + GREEN), repeat(scratch, record + BLUE)
            blocks = np.int64(peek(masks, mask_base + k)) & live
            while blocks != 0:
                block = lowest_bit(np.uint64(blocks))
                blocks &= blocks - 1
                place = state + block * STATE
                rest, behind = load(scratch, place), load(scratch, place + LANES)
                g_red, g_green, g_blue = (
                    load(scratch, place + 2 * LANES),
                    load(scratch, place + 3 * LANES),
                    load(scratch, place + 4 * LANES),
                )
                alive = from_bits(np.int64(peek(masks, mask_base + BATCH + block)))
                u, v = lane_columns() + np.float32(block % BLOCK * BLOCK), lane_rows() + np.float32(block // BLOCK * BLOCK)
                s, t, power, hit = evaluate(scratch, record, u, v)
                a = select(hit, smaller(power, np.float32(ALPHA_MAX)), 0.0)
                after = rest - a * rest
                alive = alive & (after > np.float32(TRANSMITTANCE_MIN))
                weight = select(alive, a * rest, 0.0)
                seen = g_red * red + g_green * green + g_blue * blue
                behind = behind - weight * seen
                # A clamped alpha has no gradient.
                free = alive & hit & (power <= np.float32(ALPHA_MAX))
                here = select(free, (rest * seen - behind / (1.0 - a)) * a, 0.0)
                here_s, here_t = select(free, here * s, 0.0), select(free, here * t, 0.0)
                g, gs, gt = g + here, gs + here_s, gt + here_t
                gss, gst, gtt = gss + here_s * s, gst + here_s * t, gtt + here_t * t
                d_red, d_green, d_blue = d_red + weight * g_red, d_green + weight * g_green, d_blue + weight * g_blue
                store(scratch, place, select(alive, after, rest))
                store(scratch, place + LANES, behind)
                still = to_bits(alive)
                poke(masks, mask_base + BATCH + block, np.uint16(still))
                if still == 0:
                    live &= ~(1 << block)
            store(pair_sums, RECORD * (first + k), totals((g, gs, gt, gss, gst, gtt, d_red, d_green, d_blue)))
        first += count
    for k in range(first, last):
        store(pair_sums, RECORD * k, splat(np.float32(0)))


@kernel(parallel=True)
def blend_backward(
    records,
    starts,
    pairs,
    first_tile,
    last_tile,
    tiles_x,
    threads,
    counter,
    scratch,
    masks,
    color,
    alpha,
    d_color,
    d_alpha,
    pair_sums,
):
    """`pair_sums [P, 16]` of the tiles first..last from the finished picture and its gradients; every row is written."""
    height, width = alpha.shape
    counter[0] = first_tile
    for thread in numba.prange(threads):
        tile = fetch_add(counter, 1)
        while tile < last_tile:
            if starts[tile] < starts[tile + 1]:
                _blend_tile_backward(
                    records, pairs, np.int64(starts[tile]), np.int64(starts[tile + 1]), tile % tiles_x * TILE, tile // tiles_x * TILE, width, height,
                    scratch, thread * SCRATCH, masks, thread * MASKS, color, alpha, d_color, d_alpha, pair_sums,
                )  # fmt: skip
            tile = fetch_add(counter, 1)


@kernel(parallel=True)
def add_pairs(order, visible, ends, places, threads, adds_up, pair_sums, sums):
    """`sums [N, 16]`: the pairs of each visible Gaussian, in the order of the tiles; added to what is there if `adds_up`."""
    for thread in numba.prange(threads):
        for k in range(visible * thread // threads, visible * (thread + 1) // threads):
            row = RECORD * np.int64(order[k])
            total = load(sums, row) if adds_up else splat(np.float32(0))
            for pair in range(ends[k - 1] if k > 0 else 0, ends[k]):
                prefetch(pair_sums, RECORD * np.int64(places[min(pair + AHEAD, ends[visible - 1] - 1)]))
                total = total + load(pair_sums, RECORD * np.int64(places[pair]))
            store(sums, row, total)
