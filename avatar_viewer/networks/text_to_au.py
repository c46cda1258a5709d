"""A prompt becomes action units: CLIP text tower, adapter, classifier and intensity head (only home of open_clip).

The tower is open_clip's: the compact one that an avatar carries (`local-dir:` folder) and `ViT-B-32/openai` go through the
same calls. The head is the paper's adapter and classifier, with two outputs more: an intensity per AU, and whether the
text is about a face at all, so that gibberish moves nothing. Importing this module does not import open_clip.
"""

from __future__ import annotations

import functools
import json
import logging
import re
import unicodedata
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..action_units import AU_NAMES, MAX_INTENSITY, NUM_AUS
from ..errors import InputError

CONTEXT_TOKENS = 77  # CLIP's; two of them are its start and end
BACKBONE_CONFIG, BACKBONE_WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
HEAD_WEIGHTS = "text_to_au.safetensors"
CACHED_READINGS = 256
_MAX_CHARACTERS = 4096  # of a prompt that are looked at: 75 tokens are far fewer
_MAX_WORD = 40  # characters: the tokenizer's merging is quadratic in a word's length
_MAX_PROBED_WORDS = 40
_SHOWN_TRUNCATED = 2000  # characters of what was cut off

# Open_clip's architecture of the compact tower; its vision half is the least that open_clip builds, and is dropped on loading.
COMPACT_MODEL = {
    "embed_dim": 512,
    "custom_text": True,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 16, "patch_size": 32},
    "text_cfg": {"context_length": CONTEXT_TOKENS, "vocab_size": 49408, "width": 96, "heads": 4, "layers": 2},
}

# Words that carry grammar, degree or denial: never reported as not understood.
_GRAMMAR = frozenset(
    """a about again all almost also am an and any anybody anyone are as at back bad barely be been before being bit both but by
    can could deeply did do does doing down each enough even ever every expression extreme extremely face faces faintly fairly
    feature features feeling feels few fully for from full get gets give gives go good half hard hardly has have having he her
    hers herself highly him himself his how i if in incredibly intensely into is it its itself just kind less let like little
    look looked looking looks lot lots make makes man many me mildly moderately more most much my near nearly neither never no
    nobody none nor not nothing now of off on one only or other our out over people person please pretty quite rather really
    she should show shows slight slightly so some somebody someone something somewhat sort still strong strongly subtle such
    than that the their them then there these they thing this those through to too touch totally try turn under up us use utterly
    very want was we weak weakly were what when which while who whole whose will with without woman would you your
    yourself""".split()
)
_DENIALS = re.compile(r"^(not|no|never|without|neither|nor|none|stop|cannot|\w+n['’]t)$", re.IGNORECASE)


@dataclass(frozen=True)
class PromptReading:
    """What was found in a prompt, and what was not understood."""

    active: Tensor  # [17] bool: y of the paper
    probability: Tensor  # [17] 0..1
    intensity: Tensor  # [17] 0..5, 0 where not active
    ignored: tuple[str, ...]  # words that had no part in the answer
    truncated: str  # the text past the tower's 77 tokens, or ""
    note: str = ""  # one line to show beside it, or ""
    denied: Tensor = field(default_factory=lambda: torch.zeros(NUM_AUS, dtype=torch.bool))  # [17]: "not smiling" denies AU12


def neutral_reading(
    note: str,
    *,
    ignored: Sequence[str] = (),
    truncated: str = "",
    probability: Tensor | None = None,
    denied: Tensor | None = None,
) -> PromptReading:
    """A reading that asks for nothing, and says why."""
    return PromptReading(
        denied=torch.zeros(NUM_AUS, dtype=torch.bool) if denied is None else denied,
        active=torch.zeros(NUM_AUS, dtype=torch.bool),
        probability=torch.zeros(NUM_AUS) if probability is None else probability,
        intensity=torch.zeros(NUM_AUS),
        ignored=tuple(ignored),
        truncated=truncated,
        note=note,
    )


# ----------------------------------------------------------------------------------------------------------- backbone


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


# --------------------------------------------------------------------------------------------------------------- head


@dataclass(frozen=True)
class TextToAUConfig:
    """Sizes of the head; JSON-able."""

    feature_dim: int = 512
    hidden: int = 128
    residual: float = 0.2  # the adapter's share of the mix, as CLIP-Adapter has it


class HeadOutput(NamedTuple):
    logits: Tensor  # [B, 17]
    intensity: Tensor  # [B, 17] 0..5
    relevance: Tensor  # [B] logit: is this about a face
    embedding: Tensor  # [B, feature_dim]: z of the contrastive loss


class TextToAU(nn.Module):
    """Adapter 512 -> 128 -> 512 with a residual mix, classifier and intensity head on top of a text backbone.

    `attach` gives it the backbone, which is no part of its state; `read` needs one.
    """

    def __init__(self, config: TextToAUConfig) -> None:
        super().__init__()
        self.config = config
        size = config.feature_dim
        self.adapter = nn.Sequential(nn.Linear(size, config.hidden), nn.ReLU(), nn.Linear(config.hidden, size), nn.ReLU())
        self.classifier = nn.Linear(size, NUM_AUS)
        self.intensity = nn.Linear(size, NUM_AUS)
        self.relevance = nn.Linear(size, 1)
        self.register_buffer("threshold", torch.tensor(0.5))  # of the probability, chosen on the validation split
        self._backbone: list[TextBackbone] = []  # in a list: a backbone's weights are not this module's
        self._readings: OrderedDict[str, PromptReading] = OrderedDict()

    def forward(self, features: Tensor) -> HeadOutput:  # [B, feature_dim]
        share = self.config.residual
        mixed = share * self.adapter(features) + (1 - share) * features
        return HeadOutput(
            logits=self.classifier(mixed),
            intensity=MAX_INTENSITY * torch.sigmoid(self.intensity(mixed)),
            relevance=self.relevance(mixed)[:, 0],
            embedding=mixed,
        )

    def attach(self, backbone: TextBackbone) -> TextToAU:
        """Use `backbone` for `read`; `InputError` where its features have another size."""
        if backbone.feature_dim != self.config.feature_dim:
            raise InputError(
                f"text backbone {backbone.name} gives {backbone.feature_dim} features, this avatar's head expects "
                f"{self.config.feature_dim}; run `avatar-viewer train text` for this backbone"
            )
        self._backbone = [backbone]
        self._readings.clear()
        return self

    @property
    def backbone(self) -> TextBackbone | None:
        return self._backbone[0] if self._backbone else None

    def read(self, prompt: str) -> PromptReading:
        """What the prompt asks of the face; kept for the next time. Any text gives a reading, none raises."""
        if prompt in self._readings:
            self._readings.move_to_end(prompt)
            return self._readings[prompt]
        reading = self._read_anew(prompt)
        if len(prompt) <= _MAX_CHARACTERS:
            self._readings[prompt] = reading
            while len(self._readings) > CACHED_READINGS:
                self._readings.popitem(last=False)
        return reading

    @torch.no_grad()
    def _read_anew(self, prompt: str) -> PromptReading:
        assert self._backbone, "attach a text backbone before reading prompts"
        backbone = self._backbone[0]
        words, rest = split_prompt(prompt)
        if not any(character.isalnum() for word in words for character in word):
            return neutral_reading(_why_nothing(prompt))
        kept, _ = backbone.fit([_shorten(word) for word in words])
        truncated = _shown(words[kept:], rest)
        words = words[:kept]
        if not words:
            return neutral_reading("the first word is too long to be read", truncated=truncated)
        # Every row but the first lacks one word: what changes nothing was not understood.
        probed = [n for n, word in enumerate(words) if is_content_word(word)][:_MAX_PROBED_WORDS]
        texts = [" ".join(map(_shorten, words))]
        texts += [" ".join(_shorten(word) for m, word in enumerate(words) if m != n) or "." for n in probed]
        affirmed = " ".join(_shorten(word) for word in words if not _DENIALS.match(_bare(word)))
        texts += [affirmed or "."] if affirmed != texts[0] else []
        output = self(backbone.encode(texts).to(self.threshold.device))
        probability = torch.sigmoid(output.logits)
        note = "cut off at 77 tokens" if truncated else ""
        if output.relevance[0] < 0:
            ignored = [words[n] for n in probed] or words
            note = "; ".join(filter(None, ("nothing about a face was understood, so the face stays as it is", note)))
            return neutral_reading(note, ignored=dict.fromkeys(ignored), truncated=truncated, probability=probability[0] * 0)
        active = probability[0] > self.threshold
        denied = torch.zeros_like(active)
        if affirmed != texts[0] and output.relevance[-1] > 0:
            denied = (probability[-1] > self.threshold) & ~active
        if not bool(active.any()):
            note = "; ".join(filter(None, (_neutral_note(denied), note)))
            return neutral_reading(note, truncated=truncated, probability=probability[0], denied=denied)
        changes = (probability - probability[0]).abs().amax(1) > 0.08
        changes |= ((output.intensity - output.intensity[0]).abs() * active).amax(1) > 0.25
        ignored = [words[n] for row, n in enumerate(probed, start=1) if len(texts) > 2 and not changes[row]]
        return PromptReading(
            active=active,
            probability=probability[0],
            intensity=output.intensity[0].clamp(0.3, MAX_INTENSITY) * active,
            ignored=tuple(dict.fromkeys(ignored)),
            truncated=truncated,
            note=note,
            denied=denied,
        )


def _neutral_note(denied: Tensor) -> str:
    if not bool(denied.any()):
        return "a neutral face: no action unit is asked for"
    names = ", ".join(name for name, is_denied in zip(AU_NAMES, denied.tolist()) if is_denied)
    return f"no action unit is asked for; held back in the voice: {names}"


def load_text_to_au(folder: str | Path, backbone: TextBackbone | None = None) -> TextToAU:
    """The head in `folder`, attached to `backbone` or else to `folder/text_backbone`."""
    folder = Path(folder)
    path = folder / HEAD_WEIGHTS
    if not path.is_file():
        raise InputError(f"no {HEAD_WEIGHTS} in {folder}; train one with `avatar-viewer train text --out {folder}`")
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path} is not a safetensors file: {error}") from error
    if "adapter.0.weight" not in weights or weights["adapter.0.weight"].ndim != 2:
        raise InputError(f"{path} holds no text-to-AU head")
    hidden, feature_dim = weights["adapter.0.weight"].shape
    head = TextToAU(TextToAUConfig(feature_dim=feature_dim, hidden=hidden))
    try:
        head.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"{path} does not fit: {str(error).splitlines()[-1].strip()}") from error
    return head.eval().attach(backbone or load_text_backbone(folder / "text_backbone"))


# ------------------------------------------------------------------------------------------------------ prompts as text


def split_prompt(prompt: str) -> tuple[list[str], str]:
    """The prompt's words, without what no font shows, and the text past the first 4096 characters."""
    head, rest = prompt[:_MAX_CHARACTERS], prompt[_MAX_CHARACTERS:]
    text = unicodedata.normalize("NFKC", head.encode("utf-8", errors="replace").decode("utf-8"))
    # CLIP's own marks are written with angle brackets; emoji, controls, format codes and private characters say nothing.
    text = "".join(" " if c in "<>|" or unicodedata.category(c) in _UNREAD else c for c in text)
    return text.split(), rest


_UNREAD = {"Cc", "Cf", "Cs", "Co", "Cn", "So", "Sk"}


def is_content_word(word: str) -> bool:
    """Whether a word can be "not understood": it is no grammar, degree or denial, and has a letter or digit."""
    bare = _bare(word)
    return bare not in _GRAMMAR and not _DENIALS.match(bare) and any(c.isalnum() for c in bare)


def _bare(word: str) -> str:
    return word.strip(".,;:!?()[]\"'“”‘’…-").lower()


def _shorten(word: str) -> str:
    return word[:_MAX_WORD]


def _shown(words: Sequence[str], rest: str) -> str:
    if not words and not rest.strip():
        return ""
    beyond = " ".join([*words, *split_prompt(rest[:_SHOWN_TRUNCATED])[0]])
    return beyond if len(beyond) + len(rest) < _SHOWN_TRUNCATED else beyond[:_SHOWN_TRUNCATED] + " ..."


def _why_nothing(prompt: str) -> str:
    if not prompt:
        return "the prompt is empty, so the face stays as it is"
    if not prompt.strip():
        return "the prompt is blank, so the face stays as it is"
    return "the prompt has no words, so the face stays as it is"


def format_readings(prompts: Sequence[str], text: TextToAU, *, as_json: bool = False) -> str:
    """What `avatar-viewer text` prints: for people, or one JSON object a prompt and line."""
    lines: list[str] = []
    for prompt in prompts:
        reading = text.read(prompt)
        if as_json:
            lines.append(json.dumps(reading_to_json(reading), ensure_ascii=True))
            continue
        shown = prompt if len(prompt) <= 100 else prompt[:100] + "..."
        lines.append("".join(c if c.isprintable() else "�" for c in shown.encode("utf-8", "replace").decode("utf-8")))
        order = sorted(range(NUM_AUS), key=lambda n: -float(reading.intensity[n]))
        for n in order:
            if reading.active[n]:
                bar = "#" * round(4 * float(reading.intensity[n]))
                lines.append(
                    f"  {AU_NAMES[n]}  {float(reading.intensity[n]):.1f}  {bar:20s}  p {float(reading.probability[n]):.2f}"
                )
        if reading.note:
            lines.append(f"  ({reading.note})")
        if reading.ignored:
            lines.append(f"  not understood: {', '.join(reading.ignored)[:500]}".encode("utf-8", "replace").decode("utf-8"))
        if reading.truncated:
            lines.append(f"  cut off: {reading.truncated[:500]}")
    return "\n".join(lines)


def reading_to_json(reading: PromptReading) -> dict:
    """One line of `text --json`: all 17 by name."""
    aus = {
        name: {
            "active": bool(reading.active[n]),
            "probability": round(float(reading.probability[n]), 4),
            "intensity": round(float(reading.intensity[n]), 3),
        }
        for n, name in enumerate(AU_NAMES)
    }
    denied = [name for name, is_denied in zip(AU_NAMES, reading.denied.tolist()) if is_denied]
    return {"aus": aus, "ignored": list(reading.ignored), "truncated": reading.truncated, "note": reading.note, "denied": denied}


def config_to_json(config: TextToAUConfig) -> dict[str, float | int]:
    """The config as a bundle stores it."""
    return asdict(config)
