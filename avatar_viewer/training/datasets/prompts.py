"""The prompt corpus (`assets/au_prompts.jsonl`): texts and the action units they mean, written by hand, one a line.

An entry: {"id", "description", "kind", "split", "aus": {"AU12": 3.0, ...}, "positives": [texts], "negatives": [ids or texts]}.
Which words get which action units is decided by the rules in `assets/au_prompts.md`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...action_units import AU_NAMES, MAX_INTENSITY, NUM_AUS, au_index
from ...errors import InputError

DEFAULT_CORPUS = Path(__file__).resolve().parents[3] / "assets" / "au_prompts.jsonl"
KINDS = ("simple", "complex", "emotion")
SPLITS = ("train", "val", "test")
_FIELDS = {"id", "description", "kind", "split", "aus", "positives", "negatives"}

# What one face cannot do at once. The paper's own table has the first (its "incredulous" entry).
CONTRADICTIONS = (("AU24", "AU25"), ("AU24", "AU26"), ("AU05", "AU45"), ("AU12", "AU23"))


@dataclass(frozen=True)
class PromptEntry:
    """One meaning, and ways to say it."""

    id: str
    description: str
    kind: str
    split: str
    aus: Mapping[str, float]  # by name, 0..5; none for neutral faces and for what is no face at all
    positives: tuple[str, ...]
    negatives: tuple[str, ...]  # ids of other entries, or texts

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.description, *self.positives)

    @property
    def is_about_a_face(self) -> bool:
        """Off-topic entries are those whose id starts with "off": they ask for nothing because they are understood as nothing."""
        return not self.id.startswith("off")

    def intensity(self) -> Tensor:
        """[17] 0..5."""
        values = torch.zeros(NUM_AUS)
        for name, value in self.aus.items():
            values[au_index(name)] = value
        return values


def read_prompt_corpus(path: Path = DEFAULT_CORPUS) -> list[PromptEntry]:
    """All entries; one `InputError` lists everything that is wrong."""
    if not path.is_file():
        raise InputError(f"no prompt corpus at {path}")
    entries: list[PromptEntry] = []
    wrong: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entries.append(_read_entry(json.loads(line)))
        except (ValueError, TypeError, AttributeError) as error:
            wrong.append(f"line {number}: {error}")
    wrong += _check_corpus(entries)
    if wrong:
        raise InputError(f"{path}: " + "; ".join(wrong[:40]))
    return entries


def _read_entry(value: dict) -> PromptEntry:
    if set(value) != _FIELDS:
        raise InputError(f"fields {sorted(value)} instead of {sorted(_FIELDS)}")
    entry = PromptEntry(
        **{**value, "aus": dict(value["aus"]), "positives": tuple(value["positives"]), "negatives": tuple(value["negatives"])}
    )
    name = entry.id
    if entry.kind not in KINDS or entry.split not in SPLITS:
        raise InputError(f"{name}: kind {entry.kind!r} or split {entry.split!r} is unknown")
    for code, intensity in entry.aus.items():
        if code not in AU_NAMES or not 0 < intensity <= MAX_INTENSITY:
            raise InputError(f"{name}: {code} at {intensity}")
    for first, second in CONTRADICTIONS:
        if first in entry.aus and second in entry.aus:
            raise InputError(f"{name}: {first} and {second} exclude each other")
    if "AU26" in entry.aus and "AU25" not in entry.aus:
        raise InputError(f"{name}: AU26 drops the jaw, so AU25 parts the lips")
    if len(entry.positives) != 3 or len(entry.negatives) != 3:
        raise InputError(f"{name}: three positives and three negatives are needed")
    if not all(isinstance(text, str) and text.strip() for text in (*entry.texts, *entry.negatives)):
        raise InputError(f"{name}: an empty text")
    return entry


def normal_text(text: str) -> str:
    """The words alone: two texts with the same are one paraphrase."""
    return " ".join(re.findall(r"[a-z0-9']+", text.lower()))


_LITTLE_WORDS = frozenset(
    "a an and are as at be by for from he her him his i in is it its my of on or person please she that the their them they this "
    "to was were with you your look looks looking face expression".split()
)


def paraphrase_key(text: str) -> frozenset[str]:
    """The stems that carry a text's meaning; degrees and denials are kept. Texts of one key may not stand in two splits."""
    words = [word for word in normal_text(text).split() if word not in _LITTLE_WORDS]
    return frozenset(re.sub(r"(ing|ed|es|s|ly|e)$", "", word) if len(word) > 4 else word for word in words)


def _check_corpus(entries: list[PromptEntry]) -> list[str]:
    wrong: list[str] = []
    by_id = {entry.id: entry for entry in entries}
    if len(by_id) != len(entries):
        wrong.append("an id is used twice")
    seen: dict[str, str] = {}
    splits: dict[frozenset[str], PromptEntry] = {}
    for entry in entries:
        for text in entry.texts:
            other = seen.setdefault(normal_text(text), entry.id)
            if other != entry.id or [normal_text(t) for t in entry.texts].count(normal_text(text)) > 1:
                wrong.append(f"{text!r} stands in {other} and {entry.id}")
            key = paraphrase_key(text)
            if key and splits.setdefault(key, entry).split != entry.split:
                wrong.append(f"{text!r} of {entry.id} is a paraphrase of a text of {splits[key].id}, in another split")
        for negative in entry.negatives:
            if negative in by_id and set(by_id[negative].aus) == set(entry.aus) and entry.is_about_a_face:
                wrong.append(f"{entry.id}: its negative {negative} has the same action units")
    return wrong
