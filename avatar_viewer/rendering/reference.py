"""The dense torch twin of the rasterisers: slow, any float dtype, differentiable by autograd; the oracle of the tests.

It states the conventions of gsplat 1.5.3 in the plainest form: every pixel looks at every Gaussian.
It knows no tiles, no threads and no tricks; memory is bounded by walking over the pixels in pieces.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..geometry import quat_to_rotmat
from ..types import Camera, GaussianFrame

NEAR_PLANE = 0.01  # metres
FAR_PLANE = 1e10
BLUR = 0.3  # square pixels, added to the diagonal of the 2D covariance
ALPHA_MIN = 1.0 / 255.0  # contributions below this are skipped
ALPHA_MAX = 0.999
TRANSMITTANCE_MIN = 1e-4  # the Gaussian that would take a pixel to this or below is not drawn and ends the pixel
JACOBIAN_MARGIN = 0.3  # x/z of the Jacobian is limited to the field of view plus this share of its tangent


def project_gaussians(
    means: Tensor,  # [N, 3]
    quats: Tensor,  # [N, 4] wxyz
    scales: Tensor,  # [N, 3]
    camera: Camera,
) -> tuple[Tensor, Tensor, Tensor]:  # [N, 2] pixels, [N, 2, 2] square pixels, [N] metres
    """Centres, blurred 2D covariances and depths on the picture; meaningless for depths below the near plane."""
    viewmat, K = camera.viewmat.to(means), camera.K.to(means)
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    rotation = viewmat[:3, :3]
    x, y, z = (means @ rotation.T + viewmat[:3, 3]).unbind(-1)
    z_safe = torch.where(z < NEAR_PLANE, torch.ones_like(z), z)
    margin_x = JACOBIAN_MARGIN * 0.5 * camera.width / fx
    margin_y = JACOBIAN_MARGIN * 0.5 * camera.height / fy
    tan_x = torch.clamp(x / z_safe, -(cx / fx + margin_x), (camera.width - cx) / fx + margin_x)
    tan_y = torch.clamp(y / z_safe, -(cy / fy + margin_y), (camera.height - cy) / fy + margin_y)
    zero = torch.zeros_like(z)
    jacobian = torch.stack((fx / z_safe, zero, -fx * tan_x / z_safe, zero, fy / z_safe, -fy * tan_y / z_safe), dim=-1).reshape(
        -1, 2, 3
    )
    half = jacobian @ rotation @ quat_to_rotmat(quats) * scales[:, None, :]  # [N, 2, 3]
    covariances = half @ half.transpose(-1, -2) + BLUR * torch.eye(2).to(means)
    centres = torch.stack((fx * x / z_safe + cx, fy * y / z_safe + cy), dim=-1)
    return centres, covariances, z


def render_reference(
    frame: GaussianFrame,  # every row finite and well formed
    camera: Camera,
    background: Tensor,  # [3]
    pixels_at_once: int = 4096,
) -> tuple[Tensor, Tensor]:  # [H, W, 3], [H, W]
    """Colour over the background, and coverage."""
    means = frame.means
    centres, covariances, depths = project_gaussians(means, frame.quats, frame.scales, camera)
    # gsplat sorts 32-bit depths; equal depths keep the order of their index.
    order = torch.argsort(depths.detach().float(), stable=True)
    visible = (depths >= NEAR_PLANE) & (depths <= FAR_PLANE) & (frame.opacities >= ALPHA_MIN)
    order = order[visible[order]]
    centres, covariances = centres[order], covariances[order]
    opacities, colors = frame.opacities[order], frame.colors[order]
    a, b, c = covariances[:, 0, 0], covariances[:, 0, 1], covariances[:, 1, 1]
    det = a * c - b * b

    ys, xs = torch.meshgrid(torch.arange(camera.height), torch.arange(camera.width), indexing="ij")
    pixels = torch.stack((xs, ys), dim=-1).reshape(-1, 2).to(means) + 0.5
    color_pieces, alpha_pieces = [], []
    for piece in pixels.split(pixels_at_once):
        dx, dy = (piece[:, None, :] - centres[None]).unbind(-1)  # [P, N]
        sigma = 0.5 * (c * dx * dx - 2 * b * dx * dy + a * dy * dy) / det
        alpha = torch.clamp(opacities * torch.exp(-sigma), max=ALPHA_MAX)
        alpha = torch.where(alpha < ALPHA_MIN, torch.zeros_like(alpha), alpha)
        after = torch.cumprod(1 - alpha, dim=1)
        drawn = after > TRANSMITTANCE_MIN
        before = torch.cat((torch.ones_like(after[:, :1]), after[:, :-1]), dim=1)
        weights = torch.where(drawn, alpha * before, torch.zeros_like(alpha))
        rest = torch.where(drawn, 1 - alpha, torch.ones_like(alpha)).prod(dim=1)  # [P]
        color_pieces.append(weights @ colors + rest[:, None] * background.to(means))
        alpha_pieces.append(1 - rest)
    shape = (camera.height, camera.width)
    return torch.cat(color_pieces).reshape(*shape, 3), torch.cat(alpha_pieces).reshape(shape)
