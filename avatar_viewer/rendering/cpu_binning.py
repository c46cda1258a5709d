"""Numba kernels that list, for every tile of the picture, the Gaussians that reach it, near to far.

They know records, rects and depths of `cpu_project.py`, and nothing of pixels or colours.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from .cpu_project import L11, L12, L22, LEVEL, LEVEL_MIN, RECORD, SLOPE_X, TILE, X, Y
from .kernel_cache import kernel
from .simd_memory import peek, poke

DIGIT = 11  # bits a pass of the radix sort
REACH_SLACK = np.float32(0.02)  # in the exponent of base 2: pixels decide exactly, lists may only be too long


@numba.njit
def _sort_digit(visible, lowest, shift, keys, order, histogram, sorted_keys, sorted_order):
    """One stable pass of the radix sort."""
    mask = (1 << DIGIT) - 1
    for digit in range(1 << DIGIT):
        poke(histogram, digit, np.int32(0))
    for k in range(visible):
        digit = (np.int64(peek(keys, k) - lowest) >> shift) & mask
        poke(histogram, digit, np.int32(peek(histogram, digit) + 1))
    total = np.int32(0)
    for digit in range(1 << DIGIT):
        here = peek(histogram, digit)
        poke(histogram, digit, total)
        total += here
    for k in range(visible):
        key = peek(keys, k)
        digit = (np.int64(key - lowest) >> shift) & mask
        place = np.int64(peek(histogram, digit))
        poke(histogram, digit, np.int32(place + 1))
        poke(sorted_keys, place, key)
        poke(sorted_order, place, peek(order, k))


@numba.njit
def _touches(rects, i, tiles_x, dirty):
    """Whether any tile of the rect is marked."""
    first, last = np.int64(peek(rects, 4 * i)), np.int64(peek(rects, 4 * i + 1))
    for row in range(np.int64(peek(rects, 4 * i + 2)), np.int64(peek(rects, 4 * i + 3))):
        for tile in range(row * tiles_x + first, row * tiles_x + last):
            if peek(dirty, tile) != 0:
                return True
    return False


@kernel()
def sort_by_depth(count, rects, depths, tracks, tiles_x, dirty, histogram, keys, order, spare_keys, spare_order):
    """The number of visible Gaussians; their indices fill `order`, near to far, equal depths by index.

    If `tracks`, only those on tiles that `dirty` marks are wanted. The bits of positive floats sort like the floats; of a head only some 22 of them differ, so two passes are enough.
    """
    lowest, highest = np.int32(0x7FFFFFFF), np.int32(0)
    visible = np.int64(0)
    for i in range(count):
        if peek(rects, 4 * i) != peek(rects, 4 * i + 1) and (not tracks or _touches(rects, i, tiles_x, dirty)):
            key = peek(depths, i)
            poke(keys, visible, key)
            poke(order, visible, np.int32(i))
            lowest, highest = min(lowest, key), max(highest, key)
            visible += 1
    shift = np.int64(0)
    while visible > 0 and np.int64(highest - lowest) >> shift > 0:
        _sort_digit(visible, lowest, shift, keys, order, histogram, spare_keys, spare_order)
        shift += DIGIT
        _sort_digit(visible, lowest, shift, spare_keys, spare_order, histogram, keys, order)
        shift += DIGIT
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


@kernel()
def count_most_pairs(rects, order, visible):
    """No more pairs than this can be listed."""
    total = 0
    for k in range(visible):
        base = 4 * np.int64(order[k])
        width, height = peek(rects, base + 1) - peek(rects, base), peek(rects, base + 3) - peek(rects, base + 2)
        total += np.int64(width) * np.int64(height)
    return total


@kernel()
def choose_bands(records, rects, order, visible, tiles_x, tiles, most_pairs, counts, bounds):
    """Cut the tiles into ranges of at most `most_pairs` pairs, or one tile: `bounds [tiles + 1]`; the number of ranges."""
    counts[:tiles] = 0
    for k in range(visible):
        i = np.int64(order[k])
        for row in range(peek(rects, 4 * i + 2), peek(rects, 4 * i + 3)):
            first, last = _span(records, rects, i, row)
            for tile in range(row * tiles_x + first, row * tiles_x + last):
                counts[tile] += 1
    bands, total = 0, 0
    bounds[0] = 0
    for tile in range(tiles):
        if total + counts[tile] > most_pairs and tile > bounds[bands]:
            bands += 1
            bounds[bands] = tile
            total = 0
        total += counts[tile]
    bounds[bands + 1] = tiles
    return bands + 1


@kernel()
def emit_pairs(records, rects, order, visible, tiles_x, first_tile, last_tile, is_whole, room, ends, pair_tiles, pair_owners):
    """Pairs from near to far: `pair_tiles` and `pair_owners`; rank k's end at `ends[k]`. Their number, or -1 where `room` ends.

    `room` has 4 places to spare; `is_whole` says that the range is the picture. Most Gaussians lie on one to four tiles,
    which are written without a branch.
    """
    place = 0
    for k in range(visible):
        i = np.int64(order[k])
        left, right, top, bottom = peek(rects, 4 * i), peek(rects, 4 * i + 1), peek(rects, 4 * i + 2), peek(rects, 4 * i + 3)
        wide, high = np.int64(right) - np.int64(left), np.int64(bottom) - np.int64(top)
        if place + 4 > room:
            return -1
        if is_whole and wide <= 2 and high <= 2:
            tile = np.int32(np.int64(top) * tiles_x + np.int64(left))
            more_x, more_y = wide - 1, high - 1
            for corner in range(4):
                poke(pair_owners, place + corner, np.int32(i))
            poke(pair_tiles, place, tile)
            poke(pair_tiles, place + 1, np.int32(tile + 1))
            place += 1 + more_x
            poke(pair_tiles, place, np.int32(tile + tiles_x))
            poke(pair_tiles, place + more_y, np.int32(tile + tiles_x + 1))
            place += more_y + (more_x & more_y)
        else:
            row_first, row_last = max(np.int64(top), first_tile // tiles_x), min(np.int64(bottom), (last_tile - 1) // tiles_x + 1)
            for row in range(row_first, row_last):
                first, last = _span(records, rects, i, row)
                first, last = max(row * tiles_x + first, first_tile), min(row * tiles_x + last, last_tile)
                if place + max(last - first, 0) + 4 > room:
                    return -1
                for tile in range(first, last):
                    poke(pair_tiles, place, np.int32(tile))
                    poke(pair_owners, place, np.int32(i))
                    place += 1
        ends[k] = place
    return place


@kernel()
def list_pairs(count, first_tile, last_tile, pair_tiles, pair_owners, cursors, starts, pairs, places):
    """Each tile's list, near to far: `pairs` from `starts[tile]` to `starts[tile + 1]`; `places`: where each pair went."""
    for tile in range(first_tile, last_tile):
        cursors[tile] = 0
    for k in range(count):
        tile = np.int64(peek(pair_tiles, k))
        poke(cursors, tile, np.int32(peek(cursors, tile) + 1))
    total = 0
    for tile in range(first_tile, last_tile):
        starts[tile] = total
        total += cursors[tile]
        cursors[tile] = starts[tile]
    starts[last_tile] = total
    for k in range(count):
        tile = np.int64(peek(pair_tiles, k))
        place = peek(cursors, tile)
        poke(cursors, tile, np.int32(place + 1))
        poke(pairs, np.int64(place), peek(pair_owners, k))
        poke(places, k, place)
