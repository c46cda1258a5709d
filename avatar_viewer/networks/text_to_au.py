"""A prompt becomes action units: a frozen CLIP text tower, adapter, classifier and intensity head.

The head is the paper's adapter and classifier, with two outputs more: an intensity per AU, and whether the text is about
a face at all, so that gibberish moves nothing. Importing this module does not import open_clip.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..action_units import AU_NAMES, MAX_INTENSITY, NUM_AUS
from ..errors import InputError
from .prompt_reading import PromptReading, neutral_reading
from .prompt_words import MAX_CHARACTERS, is_content_word, is_denial, shorten_word, show_truncated, split_prompt, why_nothing
from .text_backbone import TextBackbone, load_text_backbone

HEAD_WEIGHTS = "text_to_au.safetensors"
CACHED_READINGS = 256
_MAX_PROBED_WORDS = 40


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
        if len(prompt) <= MAX_CHARACTERS:
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
            return neutral_reading(why_nothing(prompt))
        kept, _ = backbone.fit([shorten_word(word) for word in words])
        truncated = show_truncated(words[kept:], rest)
        words = words[:kept]
        if not words:
            return neutral_reading("the first word is too long to be read", truncated=truncated)
        # Every row but the first lacks one word: what changes nothing was not understood.
        probed = [n for n, word in enumerate(words) if is_content_word(word)][:_MAX_PROBED_WORDS]
        texts = [" ".join(map(shorten_word, words))]
        texts += [" ".join(shorten_word(word) for m, word in enumerate(words) if m != n) or "." for n in probed]
        affirmed = " ".join(shorten_word(word) for word in words if not is_denial(word))
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


def config_to_json(config: TextToAUConfig) -> dict[str, float | int]:
    """The config as a bundle stores it."""
    return asdict(config)
