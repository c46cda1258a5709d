"""Takes a lens's distortion out of pictures: OpenCV's model, k1 k2 p1 p2 k3."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import map_coordinates


@dataclass
class Undistortion:
    """For pictures of one camera; the undistorted picture keeps K and the size."""

    K: np.ndarray  # [3, 3]
    D: np.ndarray  # [4] or [5]
    width: int
    height: int
    _source: np.ndarray | None = field(default=None, repr=False)  # [2, H, W] rows and columns, worked out once

    def apply(self, pixels: np.ndarray, outside: int) -> np.ndarray:  # [H, W] or [H, W, C] uint8 -> same
        if self._source is None:
            self._source = self._where_from()
        if pixels.ndim == 2:
            return map_coordinates(pixels, self._source, order=1, mode="constant", cval=outside)
        return np.stack(
            [
                map_coordinates(pixels[..., c], self._source, order=1, mode="constant", cval=outside)
                for c in range(pixels.shape[2])
            ],
            -1,
        )

    def _where_from(self) -> np.ndarray:
        k1, k2, p1, p2, k3 = np.pad(self.D, (0, 5 - min(5, len(self.D))))[:5]
        v, u = np.mgrid[0 : self.height, 0 : self.width] + 0.5
        x, y = (u - self.K[0, 2]) / self.K[0, 0], (v - self.K[1, 2]) / self.K[1, 1]
        square = x * x + y * y
        radial = 1 + square * (k1 + square * (k2 + square * k3))
        distorted_x = x * radial + 2 * p1 * x * y + p2 * (square + 2 * x * x)
        distorted_y = y * radial + p1 * (square + 2 * y * y) + 2 * p2 * x * y
        return np.stack((distorted_y * self.K[1, 1] + self.K[1, 2] - 0.5, distorted_x * self.K[0, 0] + self.K[0, 2] - 0.5))
