"""Numba kernels that blend the listed records into pixels.

A tile of 16 x 16 pixels is 16 blocks of 4 x 4: one vector. Pairs (tile, Gaussian) come in batches of 64 with a mask of the
blocks that each can reach; a block walks over the bits of its pairs with colour and transmittance in registers. Threads take
the next tile from a counter, so a slow core or a crowded tile holds nobody up; what a pixel gets depends on neither.
"""

from __future__ import annotations

import numba
import numpy as np

from .cpu_binning import REACH_SLACK
from .cpu_project import BLUE, GREEN, L11, L12, L22, LEVEL, LEVEL_MIN, RECORD, RED, SLOPE_X, SLOPE_Y, TILE, X, Y
from .kernel_cache import kernel
from .reference import ALPHA_MAX, TRANSMITTANCE_MIN
from .simd import count_bits, exp2, from_bits, lane_columns, lane_rows, larger, lowest_bit, select, smaller, splat, to_bits
from .simd_ir import LANES
from .simd_memory import any_of_bits, fetch_add, load, peek, poke, prefetch, repeat, store, words_with_bit
from .simd_rows import store1, store3, swap_blocks_and_rows

BATCH = 64  # pairs
AHEAD = 16  # pairs whose records are on their way: another core may have written them
S_ORIGIN, T_ORIGIN = SLOPE_X, SLOPE_Y  # in a batch, s and t at the tile's first pixel take the slopes' places
BLOCK = 4  # pixels, both ways
BLOCKS = 16  # a tile
STATE = 5 * LANES  # floats a block: forward transmittance and colour; backward transmittance, what is behind, and gradients
SCRATCH = BATCH * RECORD + BLOCKS * STATE + 64  # floats a thread; the last ones keep other threads' cache lines away
MASKS = 192  # uint16 a thread: the blocks of each pair, then the live lanes of each block; padded likewise
HALF = np.float32(0.5)
ONE = np.float32(1.0)


@numba.njit
def _live_bounds(masks, place):
    """Of each block the first and the last column, then row, that has a live lane."""
    left = select(any_of_bits(masks, place, 0x1111), 0.0, select(any_of_bits(masks, place, 0x3333), 1.0, 2.0))
    left = select(any_of_bits(masks, place, 0x7777), left, 3.0)
    right = select(any_of_bits(masks, place, 0x8888), 3.0, select(any_of_bits(masks, place, 0xCCCC), 2.0, 1.0))
    right = select(any_of_bits(masks, place, 0xEEEE), right, 0.0)
    top = select(any_of_bits(masks, place, 0x000F), 0.0, select(any_of_bits(masks, place, 0x00FF), 1.0, 2.0))
    top = select(any_of_bits(masks, place, 0x0FFF), top, 3.0)
    bottom = select(any_of_bits(masks, place, 0xF000), 3.0, select(any_of_bits(masks, place, 0xFF00), 2.0, 1.0))
    bottom = select(any_of_bits(masks, place, 0xFFF0), bottom, 0.0)
    return left, right, top, bottom


@numba.njit
def load_batch(records, pairs, first, count, last, left, top, live, scratch, base, masks, mask_base):
    """Copy the records of some pairs beside each other, and find the blocks that each can reach where they are live."""
    columns, rows = lane_columns() * np.float32(BLOCK), lane_rows() * np.float32(BLOCK)
    from_x, to_x, from_y, to_y = _live_bounds(masks, mask_base + BATCH)
    from_x, to_x, from_y, to_y = columns + from_x, columns + to_x, rows + from_y, rows + to_y
    for k in range(count):
        prefetch(records, RECORD * np.int64(peek(pairs, min(first + k + AHEAD, last - 1))))
        source, target = RECORD * np.int64(peek(pairs, first + k)), base + RECORD * k
        store(scratch, target, load(records, source))
        dx, dy = left + HALF - peek(records, source + X), top + HALF - peek(records, source + Y)
        l11, l12, l22 = peek(records, source + L11), peek(records, source + L12), peek(records, source + L22)
        slope_x, slope_y = peek(records, source + SLOPE_X), peek(records, source + SLOPE_Y)
        poke(scratch, target + S_ORIGIN, l11 * dx + l12 * dy)
        poke(scratch, target + T_ORIGIN, l22 * dy)
        # The least of s^2 + t^2 over a block's live pixels lies on the edge next to the centre, across or along.
        low_x, high_x, low_y, high_y = from_x + dx, to_x + dx, from_y + dy, to_y + dy
        x, y = smaller(larger(low_x, 0.0), high_x), smaller(larger(low_y, 0.0), high_y)
        along_y, along_x = smaller(larger(x * slope_y, low_y), high_y), smaller(larger(y * slope_x, low_x), high_x)
        s, t = l11 * x + l12 * along_y, l22 * along_y
        other_s, other_t = l11 * along_x + l12 * y, l22 * y
        least = smaller(s * s + t * t, other_s * other_s + other_t * other_t)
        reached = to_bits(least <= peek(records, source + LEVEL) - np.float32(LEVEL_MIN) + REACH_SLACK)
        poke(masks, mask_base + k, np.uint16(reached & live))
    for k in range(count, BATCH):
        poke(masks, mask_base + k, np.uint16(0))


@numba.njit
def start_blocks(left, top, width, height, masks, mask_base):
    """Mark the lanes that lie on the picture; the blocks that have any, as bits."""
    live = 0
    for block in range(BLOCKS):
        x, y = np.float32(left + block % BLOCK * BLOCK), np.float32(top + block // BLOCK * BLOCK)
        inside = to_bits((lane_columns() + x < np.float32(width)) & (lane_rows() + y < np.float32(height)))
        poke(masks, mask_base + BATCH + block, np.uint16(inside))
        if inside:
            live |= 1 << block
    return live


@numba.njit
def evaluate(scratch, record, u, v):
    """s, t and 2^level of a record at the pixels (u, v) of the tile, and where that is enough to be drawn."""
    s = repeat(scratch, record + L11) * u + (repeat(scratch, record + L12) * v + repeat(scratch, record + S_ORIGIN))
    t = repeat(scratch, record + L22) * v + repeat(scratch, record + T_ORIGIN)
    level = repeat(scratch, record + LEVEL) - s * s - t * t
    return s, t, exp2(level), level >= np.float32(LEVEL_MIN)


@numba.njit
def _blend_tile(records, pairs, first, last, left, top, width, height, scratch, base, masks, mask_base, background, color, alpha):
    state = base + BATCH * RECORD
    for block in range(BLOCKS):
        store(scratch, state + block * STATE, splat(ONE))
        for part in range(1, 4):
            store(scratch, state + block * STATE + part * LANES, splat(np.float32(0)))
    live = start_blocks(left, top, width, height, masks, mask_base)
    while first < last and live != 0:
        load_batch(
            records,
            pairs,
            first,
            min(last - first, BATCH),
            last,
            np.float32(left),
            np.float32(top),
            live,
            scratch,
            base,
            masks,
            mask_base,
        )
        first += BATCH
        for block in range(BLOCKS):
            word = words_with_bit(masks, mask_base, block)
            if word == 0:
                continue
            place = state + block * STATE
            rest, red, green, blue = (
                load(scratch, place),
                load(scratch, place + LANES),
                load(scratch, place + 2 * LANES),
                load(scratch, place + 3 * LANES),
            )
            alive = from_bits(np.int64(peek(masks, mask_base + BATCH + block)))
            u, v = lane_columns() + np.float32(block % BLOCK * BLOCK), lane_rows() + np.float32(block // BLOCK * BLOCK)
            while word != 0:
                record = base + RECORD * lowest_bit(word)
                word &= word - np.uint64(1)
                _, _, power, hit = evaluate(scratch, record, u, v)
                a = select(hit, smaller(power, np.float32(ALPHA_MAX)), 0.0)
                after = rest - a * rest
                alive = alive & (after > np.float32(TRANSMITTANCE_MIN))
                weight = select(alive, a * rest, 0.0)
                rest = select(alive, after, rest)
                red += weight * repeat(scratch, record + RED)
                green += weight * repeat(scratch, record + GREEN)
                blue += weight * repeat(scratch, record + BLUE)
                if to_bits(alive) == 0:
                    live &= ~(1 << block)
                    break
            poke(masks, mask_base + BATCH + block, np.uint16(to_bits(alive)))
            store(scratch, place, rest)
            store(scratch, place + LANES, red)
            store(scratch, place + 2 * LANES, green)
            store(scratch, place + 3 * LANES, blue)
    _write_tile(scratch, state, left, top, width, height, background, color, alpha)


@numba.njit
def rows_of_blocks(scratch, place):
    """One quantity of four blocks side by side, as four rows of pixels."""
    return swap_blocks_and_rows(
        load(scratch, place), load(scratch, place + STATE), load(scratch, place + 2 * STATE), load(scratch, place + 3 * STATE)
    )


@numba.njit
def _write_tile(scratch, state, left, top, width, height, background, color, alpha):
    valid = min(width - left, TILE)
    for across in range(BLOCK):
        y = top + across * BLOCK
        place = state + across * BLOCK * STATE
        rests, reds = rows_of_blocks(scratch, place), rows_of_blocks(scratch, place + LANES)
        greens, blues = rows_of_blocks(scratch, place + 2 * LANES), rows_of_blocks(scratch, place + 3 * LANES)
        for row in range(min(height - y, BLOCK)):
            offset = (y + row) * width + left
            rest = rests[row]
            red, green, blue = (
                reds[row] + rest * background[0],
                greens[row] + rest * background[1],
                blues[row] + rest * background[2],
            )
            store3(color, 3 * offset, valid, red, green, blue)
            store1(alpha, offset, valid, 1.0 - rest)


@numba.njit
def _copy_tile(left, top, width, height, from_color, from_alpha, color, alpha):
    valid = min(width - left, TILE)
    for y in range(top, min(height, top + TILE)):
        offset = y * width + left
        if valid == TILE:
            for part in range(3):
                place = 3 * offset + part * LANES
                store(color, place, load(from_color, place))
            store(alpha, offset, load(from_alpha, offset))
        else:
            for place in range(3 * offset, 3 * (offset + valid)):
                poke(color, place, peek(from_color, place))
            for place in range(offset, offset + valid):
                poke(alpha, place, peek(from_alpha, place))


@kernel(parallel=True)
def blend(
    records, starts, pairs, first_tile, last_tile, tiles_x, background, threads, counter, scratch, masks,
    reuses, dirty, last_color, last_alpha, color, alpha,
):  # fmt: skip
    """Draw the tiles first..last. `scratch [threads, SCRATCH]` and `masks [threads, MASKS]` are each thread's own.

    If `reuses`, the tiles that `dirty [tiles]` leaves at 0 are as in the last picture, and are copied from there.
    """
    height, width = alpha.shape
    counter[0] = first_tile
    for thread in numba.prange(threads):
        tile = fetch_add(counter, 1)
        while tile < last_tile:
            left, top = tile % tiles_x * TILE, tile // tiles_x * TILE
            if reuses and dirty[tile] == 0:
                _copy_tile(left, top, width, height, last_color, last_alpha, color, alpha)
            else:
                _blend_tile(
                    records, pairs, np.int64(starts[tile]), np.int64(starts[tile + 1]), left, top, width, height,
                    scratch, thread * SCRATCH, masks, thread * MASKS, background, color, alpha,
                )  # fmt: skip
            tile = fetch_add(counter, 1)


@kernel()
def count_lanes(records, starts, pairs, first_tile, last_tile, tiles_x, width, height, scratch, masks, found):
    """Replay the blending for its statistics: adds to `found` the pairs, the lanes evaluated and the lanes that were drawn."""
    state = BATCH * RECORD
    for tile in range(first_tile, last_tile):
        left, top = tile % tiles_x * TILE, tile // tiles_x * TILE
        live = start_blocks(left, top, width, height, masks, 0)
        for block in range(BLOCKS):
            store(scratch, state + block * STATE, splat(ONE))
        found[0] += starts[tile + 1] - starts[tile]
        for first in range(starts[tile], starts[tile + 1], BATCH):
            count = min(starts[tile + 1] - first, BATCH)
            load_batch(
                records, pairs, first, count, starts[tile + 1], np.float32(left), np.float32(top), live, scratch, 0, masks, 0
            )
            for k in range(count):
                for block in range(BLOCKS):
                    if not np.int64(peek(masks, k)) & live & (1 << block):
                        continue
                    place = state + block * STATE
                    rest, alive = load(scratch, place), from_bits(np.int64(peek(masks, BATCH + block)))
                    u, v = lane_columns() + np.float32(block % BLOCK * BLOCK), lane_rows() + np.float32(block // BLOCK * BLOCK)
                    _, _, power, hit = evaluate(scratch, RECORD * k, u, v)
                    after = rest - select(hit, smaller(power, np.float32(ALPHA_MAX)), 0.0) * rest
                    alive = alive & (after > np.float32(TRANSMITTANCE_MIN))
                    found[1] += LANES
                    found[2] += count_bits(to_bits(alive & hit))
                    store(scratch, place, select(alive, after, rest))
                    poke(masks, BATCH + block, np.uint16(to_bits(alive)))
                    if to_bits(alive) == 0:
                        live &= ~(1 << block)
