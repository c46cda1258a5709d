"""CPBD: the share of a picture's edges on which nobody would notice blur (Narvekar and Karam 2011). No truth is needed."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import sobel

BLOCK = 64  # pixels a side
EDGE_SHARE = 0.002  # of a block's pixels, above which it counts
HARD_CONTRAST, WIDE_JNB, NARROW_JNB = 50.0, 5.0, 3.0  # grey levels of 255; just noticeable widths in pixels
BETA = 3.6
NOTICED = 0.64  # the first 64 of 100 bins: 0.632 is the probability of seeing blur at the just noticeable width


def cpbd(image: np.ndarray) -> float:  # [H, W, 3] or [H, W] in 0..1
    """1 where no edge looks blurred, 0 where all do; NaN for a picture without edges."""
    grey = np.asarray(image, dtype=np.float64) * 255.0
    grey = np.round(grey @ (0.299, 0.587, 0.114) if grey.ndim == 3 else grey)  # as a picture file has it: tails end
    edges, widths = _upright_edges(grey), None
    seen, unnoticed = 0, 0
    for top in range(0, grey.shape[0] - BLOCK + 1, BLOCK):
        for left in range(0, grey.shape[1] - BLOCK + 1, BLOCK):
            block = (slice(top, top + BLOCK), slice(left, left + BLOCK))
            if edges[block].sum() <= EDGE_SHARE * BLOCK * BLOCK:
                continue
            widths = _edge_widths(grey, edges) if widths is None else widths
            contrast = grey[block].max() - grey[block].min()
            noticeable = WIDE_JNB if contrast <= HARD_CONTRAST else NARROW_JNB
            found = widths[block][edges[block]]
            probability = 1.0 - np.exp(-((found / noticeable) ** BETA))
            seen += len(found)
            unnoticed += int((probability < NOTICED).sum())
    return unnoticed / seen if seen else float("nan")


def _upright_edges(grey: np.ndarray) -> np.ndarray:  # [H, W] bool
    """Sobel's edges across a row, thinned to the steepest pixel."""
    across, down = sobel(grey, axis=1) / 8.0, sobel(grey, axis=0) / 8.0
    power = across**2 + down**2
    steep = (power > 4.0 * power.mean()) & (np.abs(across) >= np.abs(down))
    size = np.abs(across)
    before, after = np.roll(size, 1, axis=1), np.roll(size, -1, axis=1)
    thin = steep & (size > before) & (size >= after)
    thin[:, [0, -1]] = False
    return thin


def _edge_widths(grey: np.ndarray, edges: np.ndarray) -> np.ndarray:  # [H, W] pixels, 0 where there is no edge
    """Marziliano's: from the edge to where the grey stops rising (or falling), on both sides along the row."""
    slope = np.sign(np.diff(grey, axis=1))  # [H, W - 1]: from pixel x to x + 1
    columns = np.arange(slope.shape[1])
    changes = slope[:, 1:] != slope[:, :-1]
    starts = np.maximum.accumulate(np.pad(np.where(changes, columns[1:], 0), ((0, 0), (1, 0))), axis=1)  # of the run at x
    ends = np.pad(np.where(changes, columns[:-1], columns[-1]), ((0, 0), (0, 1)), constant_values=columns[-1])
    ends = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
    rows, places = np.nonzero(edges)
    direction = np.sign(grey[rows, places + 1] - grey[rows, places - 1])
    right = np.where(slope[rows, places] == direction, ends[rows, places] + 1 - places, 0)
    left = np.where(slope[rows, places - 1] == direction, places - starts[rows, places - 1], 0)
    widths = np.zeros(grey.shape)
    widths[rows, places] = np.where(direction == 0, 0, right + left)
    return widths
