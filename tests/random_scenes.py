"""Random Gaussians and cameras, the same for the same seed."""

import torch

from avatar_viewer import Camera, GaussianFrame
from avatar_viewer.geometry import orbit_camera

NAMES = ("means", "quats", "scales", "opacities", "colors")


def random_frame(seed: int, count: int | None = None) -> GaussianFrame:
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*shape, generator=generator)

    count = count or int(torch.randint(1, 300, (1,), generator=generator))
    size = 0.003 * 20 ** uniform(1).item()
    spread = torch.exp(0.7 * torch.randn(count, 3, generator=generator))
    means, quats = 0.08 * torch.randn(count, 3, generator=generator), torch.randn(count, 4, generator=generator)
    return GaussianFrame(means, quats, spread * size, uniform(count) ** 0.7, uniform(count, 3))


def random_camera(seed: int) -> Camera:
    u = torch.rand(6, generator=torch.Generator().manual_seed(10_000 + seed)).tolist()
    return orbit_camera(
        u[0] * 360 - 180, u[1] * 160 - 80, 0.05 + 0.9 * u[2], 15 + 100 * u[3], int(17 + 50 * u[4]), int(17 + 50 * u[5])
    )
