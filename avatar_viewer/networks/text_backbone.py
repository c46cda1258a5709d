"""Open_clip's text towers: the compact one that an avatar carries (`local-dir:` folder) and `ViT-B-32/openai` alike.

The only home of open_clip, which is imported when a tower is loaded or built, not before. Knows features, not faces.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import InputError

CONTEXT_TOKENS = 77  # CLIP's; two of them are its start and end
BACKBONE_CONFIG, BACKBONE_WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"

# Open_clip's architecture of the compact tower; its vision half is the least that open_clip builds, and is dropped on loading.
COMPACT_MODEL = {
    "embed_dim": 512,
    "custom_text": True,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 16, "patch_size": 32},
    "text_cfg": {"context_length": CONTEXT_TOKENS, "vocab_size": 49408, "width": 96, "heads": 4, "layers": 2},
}


class TextBackbone:
    """open_clip's text tower and tokenizer: texts to features. Frozen; holds no vision tower."""

    def __init__(self, model: nn.Module, tokenizer, name: str) -> None:
        model.visual = None
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        self.feature_dim = int(self.encode(["a face"]).shape[1])

    def fit(self, words: Sequence[str]) -> tuple[int, list[list[int]]]:
        """How many of the words fit into the tower's context, and the tokens of each of them."""
        tokens: list[list[int]] = []
        room = CONTEXT_TOKENS - 2
        for word in words:
            encoded = self.tokenizer.encode(word)
            if len(encoded) > room:
                break
            room -= len(encoded)
            tokens.append(encoded)
        return len(tokens), tokens

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Token ids [B, 77]."""
        return self.tokenizer(list(texts))

    @torch.no_grad()
    def encode(self, texts: Sequence[str], batch: int = 256) -> Tensor:
        """Features [B, feature_dim], with a root mean square of 1 whatever the tower's own scale is."""
        device = next(self.model.parameters()).device
        order = sorted(range(len(texts)), key=lambda n: len(texts[n]))
        rows: list[Tensor] = []
        for start in range(0, len(order), batch):
            ids = self.tokenize([texts[n] for n in order[start : start + batch]]).to(device)
            rows.append(scale_features(encode_tokens(self.model, ids)))
        result = torch.cat(rows)
        return result[torch.argsort(torch.tensor(order, device=device))]


def encode_tokens(model: nn.Module, ids: Tensor) -> Tensor:  # [B, L] -> [B, feature_dim]
    """What `model.encode_text` gives, without computing the padding: a short prompt has a tenth of CLIP's 77 tokens.

    Attention is causal and the end token is read out, so what follows it has no part in the result.
    """
    tower = getattr(model, "text", model)
    pooling = getattr(tower, "pool_type", getattr(tower, "text_pool_type", None))
    if pooling != "argmax" or tower.attn_mask is None or getattr(tower, "cls_emb", None) is not None:
        return model.encode_text(ids)
    length = int(ids.argmax(dim=1).max()) + 1
    ids = ids[:, :length]
    hidden = tower.token_embedding(ids) + tower.positional_embedding[:length]
    hidden = tower.ln_final(tower.transformer(hidden, attn_mask=tower.attn_mask[:length, :length]))
    ends = hidden[torch.arange(len(ids), device=ids.device), ids.argmax(dim=1)]
    projection = tower.text_projection
    return projection(ends) if isinstance(projection, nn.Linear) else ends @ projection


def scale_features(features: Tensor) -> Tensor:  # [B, D] -> [B, D]
    """Directions only, at a root mean square of 1: the head's learning rate then suits every tower."""
    return F.normalize(features, dim=-1) * features.shape[-1] ** 0.5


def load_text_backbone(folder_or_public_name: str | Path) -> TextBackbone:
    """The text tower in a folder, or a public one by name ("ViT-B-32/openai") from its place on this machine.

    Never fetches anything: `InputError` says what is missing, where it goes and with which command it is had.
    """
    name = str(folder_or_public_name)
    folder = Path(name)
    if not folder.is_dir():
        if not _looks_public(name):
            raise InputError(f"text backbone {name}: no such folder, and not a public name such as ViT-B-32/openai")
        folder = public_backbone_folder(name)
        if not folder.is_dir():
            raise InputError(_how_to_fetch(name, folder))
    for file in (BACKBONE_CONFIG, BACKBONE_WEIGHTS):
        if not (folder / file).is_file():
            raise InputError(f"text backbone {name}: {folder} has no {file}; {_how_to_fetch(name, folder)}")
    import open_clip

    identifier = f"local-dir:{folder}"
    try:
        with _quiet_library():
            model = open_clip.create_model(identifier, precision="fp32")
            tokenizer = open_clip.get_tokenizer(identifier)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(f"text backbone {name}: {str(error).splitlines()[0][:300]}") from error
    broken = [key for key, value in model.state_dict().items() if not torch.isfinite(value).all()]
    if broken:
        raise InputError(f"text backbone {name}: {broken[0]} has values that are not finite")
    return TextBackbone(model, tokenizer, name)


def public_backbone_folder(name: str) -> Path:
    """Where this machine keeps a public backbone: `~/.cache/avatar_viewer/backbones/ViT-B-32--openai`."""
    return Path.home() / ".cache" / "avatar_viewer" / "backbones" / name.replace("/", "--")


def _looks_public(name: str) -> bool:
    return name.count("/") == 1 and not name.startswith((".", "/", "~"))


_PUBLIC_REPOSITORIES = {"ViT-B-32/openai": ("timm/vit_base_patch32_clip_224.openai", 605)}


def _how_to_fetch(name: str, folder: Path) -> str:
    if name in _PUBLIC_REPOSITORIES:
        repository, megabytes = _PUBLIC_REPOSITORIES[name]
        command = f"hf download {repository} {BACKBONE_CONFIG} {BACKBONE_WEIGHTS} --local-dir {folder}"
        return f"text backbone {name} ({megabytes} MB) is not on this machine; fetch it with `{command}`"
    return f"put {BACKBONE_CONFIG} and {BACKBONE_WEIGHTS} of text backbone {name} into {folder}"


@contextmanager
def _quiet_library() -> Iterator[None]:
    """open_clip reports its steps to the root logger; only its errors concern a user."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def build_compact_model() -> nn.Module:
    """The compact tower with random weights, for training."""
    import open_clip

    config = json.loads(json.dumps(COMPACT_MODEL))
    config.pop("custom_text")
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP

    assert open_clip.__version__
    return CustomTextCLIP(
        embed_dim=config["embed_dim"],
        vision_cfg=CLIPVisionCfg(**config["vision_cfg"]),
        text_cfg=CLIPTextCfg(**config["text_cfg"]),
    )


def save_compact_backbone(model: nn.Module, folder: Path) -> None:
    """The folder that `local-dir:` reads: half precision on disk, single in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / BACKBONE_CONFIG).write_text(json.dumps({"model_cfg": COMPACT_MODEL}, indent=1) + "\n", encoding="utf-8")
    weights = {key: value.detach().to("cpu", torch.float16).contiguous() for key, value in model.state_dict().items()}
    save_file(weights, folder / BACKBONE_WEIGHTS)


@functools.lru_cache(maxsize=1)
def clip_tokenizer():
    """CLIP's byte-pair tokenizer, the one of all of its towers."""
    import open_clip

    return open_clip.SimpleTokenizer(context_length=CONTEXT_TOKENS)
