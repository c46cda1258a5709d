"""What the compact text tower learns language from: a sentence encoder's view of WordNet and of the tower's own tokens.

All of it is derived from what is installed, so the command that trains the tower reproduces it; without WordNet or
without the teacher's package the tower learns from the corpus alone, and the training says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from .sentence_teacher import WORDNET_FOLDER, SentenceTeacher, read_wordnet

# Sentences that put a bare word where prompts have it; chosen by the word's number, so that a run repeats exactly.
_FRAMES = {
    "adj": ("a {} person", "she looks {}", "{}", "he is {} today", "make him a bit {}", "you seem {}", "very {}", "that {} face"),
    "verb": ("to {}", "they {}", "he begins to {}", "please {}", "{}", "do not {}"),
    "noun": ("{}", "a {}", "full of {}", "the {} in her face"),
    "adv": ("{}", "she speaks {}", "he looked up {}"),
}
_SHARD = 2048  # texts a file of the cache

# Every n-th synset of a lexicographer file; what is not named: every 4th adjective, every 100th noun (plants, places, chemicals).
_ALL_OF = {12, 29, 37, 39}  # feelings; verbs of the body, emotion and perception
_EVERY = {7: 6, 26: 8, 4: 16, 10: 16, 8: 12, 18: 24, 32: 6}  # attributes, states, acts, talk, body parts, persons, verbs of talk
_OTHERS = {"adj": 4, "adv": 5, "verb": 16, "noun": 100}


def distillation_texts(folder: Path = WORDNET_FOLDER) -> list[str]:
    """Words in short frames, and of what tells about people glosses and examples too; without repeats, in a fixed order."""
    texts: dict[str, None] = {}
    for n, synset in enumerate(read_wordnet(folder)):
        step = 1 if synset.lexicographer in _ALL_OF else _EVERY.get(synset.lexicographer, _OTHERS[synset.part])
        if n % step:
            continue
        frames = _FRAMES[synset.part]
        texts[frames[n % len(frames)].format(synset.words[-1])] = None
        telling = synset.lexicographer in _ALL_OF
        if telling and len(synset.gloss) < 70:
            texts[synset.gloss] = None
        if (telling or n % 2) and synset.examples and len(synset.examples[0]) < 60:
            texts[synset.examples[0]] = None
    return list(texts)


def encode_cached(
    teacher: SentenceTeacher,
    texts: Sequence[str],
    cache: Path,
    report: Callable[[int, int], None] | None = None,
) -> Tensor:
    """The teacher's unit vectors [len(texts), 384] as float16; shards in `cache`, by the digest of their texts, let an
    interrupted run go on where it was. `report` hears (done, of)."""
    cache.mkdir(parents=True, exist_ok=True)
    shards = []
    for start in range(0, len(texts), _SHARD):
        chosen = list(texts[start : start + _SHARD])
        digest = hashlib.sha256("\0".join(chosen).encode("utf-8", errors="replace")).hexdigest()[:16]
        path = cache / f"teacher_{digest}.safetensors"
        if not path.is_file():
            partial = path.with_suffix(".partial")
            save_file({"vectors": teacher.encode(chosen).to(torch.float16)}, partial)
            partial.rename(path)
        shards.append(load_file(path)["vectors"])
        if report is not None:
            report(start + len(chosen), len(texts))
    return torch.cat(shards)


def reduce_meanings(vectors: Tensor, width: int) -> Tensor:
    """The teacher's vectors [N, 384] without their mean, on their first `width` principal axes, at unit variance overall."""
    centred = vectors.float() - vectors.float().mean(0)
    _, _, axes = torch.linalg.svd(centred.T @ centred)
    reduced = centred @ axes[:width].T
    return reduced / reduced.std()


def find_near_words(
    words: Sequence[str],
    vocabulary: Sequence[str],
    vectors: Tensor,  # [len(vocabulary), 384] unit vectors
    least: float = 0.75,
    most: int = 6,
) -> dict[str, list[str]]:
    """For each of `words` that the vocabulary has: its words of a cosine of at least `least`, the nearest first.

    Words for places and directions are left out: encoders take "upper" and "lower" for the same.
    """
    rows = {text: n for n, text in reversed(list(enumerate(vocabulary))) if text.isalpha() and len(text) > 2}
    names = list(rows)
    table = vectors[torch.tensor([rows[name] for name in names], dtype=torch.long)].float()
    result: dict[str, list[str]] = {}
    asked = [word for word in words if word in rows and word not in _DIRECTIONS]
    for start in range(0, len(asked), 256):
        some = asked[start : start + 256]
        cosines = vectors[torch.tensor([rows[word] for word in some])].float() @ table.T
        for word, values, order in zip(some, *(part.tolist() for part in cosines.topk(min(most + 1, len(names))))):
            near = [names[n] for cosine, n in zip(values, order) if cosine >= least]
            near = [other for other in near if other != word and not _opposed(word, other) and other not in _DIRECTIONS]
            if near:
                result[word] = near
    return result


_DIRECTIONS = frozenset(
    "up down open opened opens opening closed close closes closing shut shuts raised raise raises raising "
    "lowered lower lowers inner outer upper wide narrow left right high low top bottom together apart inside outside side "
    "corner corners eyes eye brow brows mouth lips lip nose chin jaw cheek cheeks eyebrow eyebrows lid lids teeth".split()
)


def _opposed(word: str, other: str) -> bool:
    denies = [text.startswith(("un", "dis")) or text.endswith("less") for text in (word, other)]
    return denies[0] != denies[1]


def far_texts(texts: Sequence[str], vectors: Tensor, anchors: Tensor, share: float = 0.25) -> list[str]:
    """The `share` of the texts whose unit vectors are farthest from every anchor: they are about something else."""
    if not len(texts):
        return []
    nearest = torch.cat([(part.float() @ anchors.T).amax(1) for part in vectors.split(4096)])
    return [texts[n] for n in nearest.argsort()[: round(share * len(texts))].sort().values.tolist()]
