"""A bundled text tower that is loaded when the first prompt is read: open_clip alone takes two seconds to import.

Its files have been checked by then (structure, finiteness, size, sha256), so that what can still go wrong is a tower that
was sealed wrong.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from ..networks.text_backbone import BACKBONE_CONFIG, TextBackbone, load_text_backbone


class LateTextBackbone:
    """Answers as the `TextBackbone` in `folder`; `prepare` loads it ahead of the first prompt, from any thread."""

    def __init__(self, folder: Path, feature_dim: int) -> None:
        self.name = str(folder)
        self.feature_dim = feature_dim
        self._folder = folder
        self._loaded: TextBackbone | None = None

    def prepare(self) -> TextBackbone:
        """The tower itself; `InputError` where open_clip cannot use what was sealed."""
        if self._loaded is None:
            self._loaded = load_text_backbone(self._folder)
        return self._loaded

    def fit(self, words: Sequence[str]) -> tuple[int, list[list[int]]]:
        return self.prepare().fit(words)

    def encode(self, texts: Sequence[str], batch: int = 256) -> Tensor:
        return self.prepare().encode(texts, batch)


def read_feature_dim(folder: Path, faults: list[str]) -> int | None:
    """How many features the tower in `folder` gives, from its config; None with the reason in `faults`."""
    try:
        size = json.loads((folder / BACKBONE_CONFIG).read_text(encoding="utf-8"))["model_cfg"]["embed_dim"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        faults.append(
            f"{folder.name}/{BACKBONE_CONFIG}: no open_clip config ({type(error).__name__}: {' '.join(str(error).split())[:100]})"
        )
        return None
    if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= 100_000:
        faults.append(f"{folder.name}/{BACKBONE_CONFIG}: embed_dim is {str(size)[:20]!r}")
        return None
    return size
