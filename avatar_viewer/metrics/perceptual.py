"""LPIPS (Zhang et al. 2018), through its authors' library and torchvision's AlexNet, where both have their weights.

Only home of lpips. The convolutional network's weights are no part of this project: without them nothing is reported.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

NETWORK = "alex"
WEIGHTS_FILE = "alexnet-owt-7be5be79.pth"


def why_no_lpips() -> str:
    """Empty where LPIPS can be measured; else what is missing and what to do."""
    if find_spec("lpips") is None:
        return "LPIPS is not reported: the library lpips is not installed; run: pip install lpips"
    weights = Path(torch.hub.get_dir(), "checkpoints", WEIGHTS_FILE)
    if not weights.is_file():
        return f"LPIPS is not reported: torchvision's AlexNet weights are not there; put {WEIGHTS_FILE} into {weights.parent}"
    return ""


def lpips(image: Tensor, truth: Tensor, model: torch.nn.Module | None = None) -> float:  # two [H, W, 3] in 0..1
    """Perceptual distance, 0 for equal pictures."""
    model = model or _model()
    pair = [2.0 * picture.float().permute(2, 0, 1)[None] - 1.0 for picture in (image, truth)]
    with torch.inference_mode():
        return float(model(*pair))


@lru_cache(maxsize=1)
def _model() -> torch.nn.Module:
    from lpips import LPIPS

    return LPIPS(net=NETWORK, verbose=False).eval()
