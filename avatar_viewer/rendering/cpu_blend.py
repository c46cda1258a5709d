"""Numba kernels on tiles: bin the records, blend them into pixels, and the way back.

Per tile the Gaussians are listed from near to far. The backward kernel replays the blending in the same order and knows what is
still to come from the finished picture, so it takes exactly the forward's decisions and needs nothing saved but the picture.

Per pair (tile, Gaussian) it writes nine sums over the tile's pixels of g = dL/dalpha * alpha:
g, g s, g t, g s^2, g s t, g t^2 with (s, t) of the record, and the three colour gradients. Pairs of a Gaussian are added afterwards in a fixed
order, so no two threads write one place and the result does not depend on their number.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from .cpu_project import BLUE, GREEN, L11, L12, L22, LEVEL, LEVEL_MIN, RED, TILE, X, Y
from .reference import ALPHA_MAX, TRANSMITTANCE_MIN

SUMS = 9


@numba.njit(cache=True)
def count_pairs(rects, order, tiles_x, starts):
    """`starts [tiles + 1]`: where each tile's list begins."""
    starts[:] = 0
    for i in order:
        for ty in range(rects[i, 2], rects[i, 3]):
            for tx in range(rects[i, 0], rects[i, 1]):
                starts[ty * tiles_x + tx + 1] += 1
    for tile in range(len(starts) - 1):
        starts[tile + 1] += starts[tile]


@numba.njit(cache=True)
def fill_pairs(rects, order, tiles_x, cursors, pairs):
    """`pairs [P]`: the Gaussians of each tile, near to far; `cursors [tiles]` enters as the starts."""
    for i in order:
        for ty in range(rects[i, 2], rects[i, 3]):
            for tx in range(rects[i, 0], rects[i, 1]):
                tile = ty * tiles_x + tx
                pairs[cursors[tile]] = i
                cursors[tile] += 1


@numba.njit(cache=True, parallel=True)
def blend(records, starts, pairs, background, tiles_x, threads, color, alpha):
    height, width = alpha.shape
    tiles = len(starts) - 1
    for thread in numba.prange(threads):
        for tile in range(thread, tiles, threads):
            y0, x0 = tile // tiles_x * TILE, tile % tiles_x * TILE
            for py in range(y0, min(y0 + TILE, height)):
                for px in range(x0, min(x0 + TILE, width)):
                    rest, red, green, blue = np.float32(1), np.float32(0), np.float32(0), np.float32(0)
                    for k in range(starts[tile], starts[tile + 1]):
                        record = records[pairs[k]]
                        dx, dy = np.float32(px + 0.5) - record[X], np.float32(py + 0.5) - record[Y]
                        s, t = record[L11] * dx + record[L12] * dy, record[L22] * dy
                        level = record[LEVEL] - s * s - t * t
                        if level < LEVEL_MIN:
                            continue
                        a = min(np.float32(ALPHA_MAX), np.float32(2.0**level))
                        after = rest * (np.float32(1) - a)
                        if after <= np.float32(TRANSMITTANCE_MIN):
                            break
                        red += a * rest * record[RED]
                        green += a * rest * record[GREEN]
                        blue += a * rest * record[BLUE]
                        rest = after
                    color[py, px, 0] = red + rest * background[0]
                    color[py, px, 1] = green + rest * background[1]
                    color[py, px, 2] = blue + rest * background[2]
                    alpha[py, px] = 1 - rest


@numba.njit(cache=True, parallel=True)
def blend_backward(records, starts, pairs, tiles_x, threads, color, alpha, d_color, d_alpha, sums):
    """`sums [P, 9]` of every pair from the finished picture and the gradients of it; every row is written."""
    height, width = alpha.shape
    tiles = len(starts) - 1
    for thread in numba.prange(threads):
        for tile in range(thread, tiles, threads):
            sums[starts[tile] : starts[tile + 1]] = 0
            y0, x0 = tile // tiles_x * TILE, tile % tiles_x * TILE
            for py in range(y0, min(y0 + TILE, height)):
                for px in range(x0, min(x0 + TILE, width)):
                    rest = np.float32(1)
                    g0, g1, g2 = d_color[py, px, 0], d_color[py, px, 1], d_color[py, px, 2]
                    # What is still to come, weighted by the gradient; the background counts as the last layer.
                    behind = g0 * color[py, px, 0] + g1 * color[py, px, 1] + g2 * color[py, px, 2]
                    behind -= d_alpha[py, px] * (1 - alpha[py, px])
                    for k in range(starts[tile], starts[tile + 1]):
                        record = records[pairs[k]]
                        dx, dy = np.float32(px + 0.5) - record[X], np.float32(py + 0.5) - record[Y]
                        s, t = record[L11] * dx + record[L12] * dy, record[L22] * dy
                        level = record[LEVEL] - s * s - t * t
                        if level < LEVEL_MIN:
                            continue
                        raw = np.float32(2.0**level)
                        a = min(np.float32(ALPHA_MAX), raw)
                        after = rest * (np.float32(1) - a)
                        if after <= np.float32(TRANSMITTANCE_MIN):
                            break
                        weight = a * rest
                        seen = g0 * record[RED] + g1 * record[GREEN] + g2 * record[BLUE]
                        behind -= weight * seen
                        if raw <= np.float32(ALPHA_MAX):
                            g = (rest * seen - behind / (1 - a)) * a
                            sums[k, 0] += g
                            sums[k, 1] += g * s
                            sums[k, 2] += g * t
                            sums[k, 3] += g * s * s
                            sums[k, 4] += g * s * t
                            sums[k, 5] += g * t * t
                        sums[k, 6] += weight * g0
                        sums[k, 7] += weight * g1
                        sums[k, 8] += weight * g2
                        rest = after


@numba.njit(cache=True)
def add_pairs(pairs, pair_sums, sums):
    """`sums [N, 9]`: the pairs of each Gaussian added, in the order of the tiles."""
    sums[:] = 0
    for k in range(len(pairs)):
        for j in range(SUMS):
            sums[pairs[k], j] += pair_sums[k, j]
