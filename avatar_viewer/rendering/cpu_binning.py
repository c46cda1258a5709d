"""Numba kernels that list, for every tile of the picture, the Gaussians that reach it, near to far.

They know records, rects and depths of `cpu_project.py`, and nothing of pixels or colours.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from .cpu_project import L11, L12, L22, LEVEL, LEVEL_MIN, RECORD, SLOPE_X, TILE, X, Y
from .simd import peek

DIGIT = 11  # bits a pass of the radix sort
REACH_SLACK = np.float32(0.02)  # in the exponent of base 2: pixels decide exactly, lists may only be too long


@numba.njit(cache=True)
def sort_by_depth(count, rects, depths, keys, order, spare_keys, spare_order):
    """The number of visible Gaussians; their indices fill `order`, near to far, equal depths by index.

    The bits of positive floats sort like the floats; of a head only some 22 of them differ, so two passes are enough.
    """
    bits = depths.view(np.uint32)
    lowest, highest = np.uint32(0xFFFFFFFF), np.uint32(0)
    visible = 0
    for i in range(count):
        if peek(rects, 4 * i) != peek(rects, 4 * i + 1):
            key = bits[i]
            keys[visible], order[visible] = key, i
            lowest, highest = min(lowest, key), max(highest, key)
            visible += 1
    histogram = np.empty(1 << DIGIT, np.int64)
    shift = 0
    swapped = False
    while visible > 0 and shift < 32 and (highest - lowest) >> shift > 0:
        source_keys, source, target_keys, target = (spare_keys, spare_order, keys, order) if swapped else (keys, order, spare_keys, spare_order)
        histogram[:] = 0
        for k in range(visible):
            histogram[((source_keys[k] - lowest) >> np.uint32(shift)) & np.uint32((1 << DIGIT) - 1)] += 1
        total = 0
        for digit in range(1 << DIGIT):
            here = histogram[digit]
            histogram[digit] = total
            total += here
        for k in range(visible):
            digit = ((source_keys[k] - lowest) >> np.uint32(shift)) & np.uint32((1 << DIGIT) - 1)
            place = histogram[digit]
            histogram[digit] = place + 1
            target_keys[place], target[place] = source_keys[k], source[k]
        swapped = not swapped
        shift += DIGIT
    if swapped:
        order[:visible] = spare_order[:visible]
    return visible


@numba.njit
def _row_span(records, i, row, first, last):
    """First and one past the last tile of a tile row that the ellipse's pixels can touch, within first..last."""
    base = RECORD * np.int64(i)
    l11, l12, l22 = peek(records, base + L11), peek(records, base + L12), peek(records, base + L22)
    reach = peek(records, base + LEVEL) - np.float32(LEVEL_MIN) + REACH_SLACK
    centre_x, centre_y = peek(records, base + X), peek(records, base + Y)
    low, high = row * np.float32(TILE) + np.float32(0.5) - centre_y, (row + 1) * np.float32(TILE) - np.float32(0.5) - centre_y
    # s^2 + t^2 = reach: the ellipse is widest to the right at t = reach * l12 / ..., and between the rows at the nearest of them.
    length = math.sqrt(l12 * l12 + l22 * l22)
    turn = math.sqrt(reach) * l12 / (l22 * length)  # dy of the leftmost point; of the rightmost it is -turn
    left_y, right_y = min(max(turn, low), high), min(max(-turn, low), high)
    slope = peek(records, base + SLOPE_X)
    left = centre_x + slope * left_y - math.sqrt(max(reach - (l22 * left_y) ** 2, np.float32(0))) / l11
    right = centre_x + slope * right_y + math.sqrt(max(reach - (l22 * right_y) ** 2, np.float32(0))) / l11
    tile_first = math.floor((min(max(left, np.float32(-1)), np.float32(1e6)) - np.float32(0.5)) / TILE)
    tile_last = math.floor((min(max(right, np.float32(-1)), np.float32(1e6)) - np.float32(0.5)) / TILE) + 1
    return max(first, int(tile_first)), min(last, int(tile_last))


@numba.njit
def _span(records, rects, i, row):
    first, last = int(peek(rects, 4 * np.int64(i))), int(peek(rects, 4 * np.int64(i) + 1))
    rows = peek(rects, 4 * np.int64(i) + 3) - peek(rects, 4 * np.int64(i) + 2)
    if rows > 2 and last - first > 2:
        return _row_span(records, i, row, first, last)
    return first, last


@numba.njit(cache=True, parallel=True)
def count_pairs(records, rects, order, visible, tiles_x, tiles, threads, counts):
    """`counts [threads, tiles]`: pairs of each share of the order in each tile."""
    for thread in numba.prange(threads):
        counts[thread, :tiles] = 0
        for k in range(visible * thread // threads, visible * (thread + 1) // threads):
            i = order[k]
            for row in range(peek(rects, 4 * np.int64(i) + 2), peek(rects, 4 * np.int64(i) + 3)):
                first, last = _span(records, rects, i, row)
                for tile in range(row * tiles_x + first, row * tiles_x + last):
                    counts[thread, tile] += 1


@numba.njit(cache=True)
def start_lists(counts, threads, first_tile, tiles, most_pairs, starts):
    """Place the lists of as many tiles from `first_tile` on as `most_pairs` allows, at least one; the tile after the last.

    `starts [tiles + 1]` says where each list begins, `counts` becomes where each thread writes its share.
    """
    total = 0
    tile = first_tile
    while tile < tiles:
        here = 0
        for thread in range(threads):
            here += counts[thread, tile]
        if total + here > most_pairs and tile > first_tile:
            break
        starts[tile] = total
        for thread in range(threads):
            share = counts[thread, tile]
            counts[thread, tile] = total
            total += share
        tile += 1
    starts[tile] = total
    return tile


@numba.njit(cache=True, parallel=True)
def fill_pairs(records, rects, order, visible, tiles_x, first_tile, last_tile, threads, cursors, pairs):
    """`pairs`: the Gaussians of each tile of first..last, near to far; `cursors` is what `start_lists` left in `counts`."""
    for thread in numba.prange(threads):
        for k in range(visible * thread // threads, visible * (thread + 1) // threads):
            i = order[k]
            row_first = max(int(peek(rects, 4 * np.int64(i) + 2)), first_tile // tiles_x)
            row_last = min(int(peek(rects, 4 * np.int64(i) + 3)), (last_tile - 1) // tiles_x + 1)
            for row in range(row_first, row_last):
                first, last = _span(records, rects, i, row)
                for tile in range(max(row * tiles_x + first, first_tile), min(row * tiles_x + last, last_tile)):
                    place = cursors[thread, tile]
                    pairs[place] = i
                    cursors[thread, tile] = place + 1


@numba.njit(cache=True)
def group_pairs(pairs, count, offsets, slots):
    """The way back from Gaussians to pairs: those of Gaussian i are `slots[offsets[i]:offsets[i + 1]]`, in order of tiles."""
    offsets[:] = 0
    for k in range(count):
        offsets[pairs[k] + 1] += 1
    for i in range(len(offsets) - 1):
        offsets[i + 1] += offsets[i]
    for k in range(count):
        i = pairs[k]
        slots[offsets[i]] = k
        offsets[i] += 1
    for i in range(len(offsets) - 1, 0, -1):
        offsets[i] = offsets[i - 1]
    offsets[0] = 0
