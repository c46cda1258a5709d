"""What the compact text tower is taught: many texts, each with soft labels and the vector of whoever judged it.

The corpus and its variants carry their own labels, softened by the judge's; sentences of WordNet, single words and corpus texts
with words put in place of near ones carry the judge's. Without the teacher's package only the first two are there.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..networks.prompt_words import is_content_word
from ..networks.text_backbone import clip_tokenizer
from .prompt_variants import Example, stack_labels
from .sentence_judge import SentenceJudge, Verdicts

TRAINED_TOKENS = 32  # longer texts end there while training
_OWN_SHARE = 0.5  # of a label that the corpus gives; the rest is the judge's
_NEAR_SHARE = 0.45  # of the words that have near ones give way to them
_REWRITTEN = 3  # times each corpus text


@dataclass(frozen=True)
class Lessons:
    """n texts as tokens, with their labels."""

    ids: Tensor  # [n, 32]
    active: Tensor  # [n, 17] 0..1
    intensity: Tensor  # [n, 17] 0..5
    relevant: Tensor  # [n] 0..1
    vectors: Tensor  # [n, 384] float16, or [0, 384] where nobody judged
    kinds: Tensor  # [n]: the place of a text's kind among those given to `make_lessons`

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        save_file({name: value.contiguous() for name, value in vars(self).items()}, partial)
        partial.rename(path)


def load_lessons(path: Path) -> Lessons:
    return Lessons(**load_file(path))


def make_lessons(
    labelled: Sequence[Sequence[Example]],  # the corpus's own texts, their variants
    others: Sequence[Sequence[str]],  # what only the judge can label
    judge: SentenceJudge | None,
    report: Callable[[str], None],
) -> Lessons:
    """Kinds are numbered in the order given: the labelled ones first."""
    known = [example for kind in labelled for example in kind]
    active, values, relevant = stack_labels(known, "cpu")
    texts = [example.text for example in known]
    kinds = [n for n, kind in enumerate(labelled) for _ in kind]
    if judge is None:
        vectors = torch.zeros(0, 0, dtype=torch.float16)
        return Lessons(tokenize(texts), active, values, relevant, vectors, torch.tensor(kinds))
    texts += [text for kind in others for text in kind]
    kinds += [n for n, kind in enumerate(others, start=len(labelled)) for _ in kind]
    verdicts = _rule(judge, texts, report)
    soft, told, about = verdicts.active.clone(), verdicts.intensity.clone(), verdicts.relevant.clone()
    count = len(known)
    soft[:count] = _OWN_SHARE * active + (1 - _OWN_SHARE) * soft[:count]
    told[:count] = torch.where(active > 0, values, told[:count])
    about[:count] = _OWN_SHARE * relevant + (1 - _OWN_SHARE) * about[:count]
    return Lessons(tokenize(texts), soft, told, about, verdicts.vectors.to(torch.float16), torch.tensor(kinds))


def _rule(judge: SentenceJudge, texts: Sequence[str], report: Callable[[str], None]) -> Verdicts:
    told = 0

    def progress(done: int) -> None:
        nonlocal told
        if done - told >= 20_000 or done == len(texts):
            told = done
            report(f"judge: {done} of {len(texts)} texts")

    return judge.rule(texts, report=progress)


def tokenize(texts: Sequence[str]) -> Tensor:
    """CLIP's tokens [n, 32]."""
    return clip_tokenizer()(list(texts), context_length=TRAINED_TOKENS)


def rewrite(texts: Sequence[str], near_words: Mapping[str, Sequence[str]], seed: int) -> list[str]:
    """The texts with some words put in place of near ones, a few times over; those without such words are left out.

    What a text then means is for the judge to say: a near word may well be another feeling.
    """
    draw = random.Random(seed)
    result: dict[str, None] = {}
    for text in texts:
        words = text.split()
        places = [(n, near_words[bare]) for n, word in enumerate(words) if (bare := word.strip(".,!?;:'").lower()) in near_words]
        for _ in range(_REWRITTEN if places else 0):
            rewritten = list(words)
            for place, near in places:
                if draw.random() < _NEAR_SHARE:
                    rewritten[place] = draw.choice(near)
            result[" ".join(rewritten)] = None
    known = set(texts)
    return [text for text in result if text not in known]


def content_words(texts: Sequence[str]) -> list[str]:
    """The words of the texts that carry meaning, bare and sorted."""
    return sorted({word.strip(".,!?;:'").lower() for text in texts for word in text.split() if is_content_word(word)})


def whole_words(token_texts: Sequence[str]) -> list[str]:
    """The words of the tower's vocabulary that carry meaning: tokens that end a word; the others are beginnings."""
    decode = clip_tokenizer().decode
    return [
        text
        for n, text in enumerate(token_texts)
        if text.isalpha() and len(text) > 2 and is_content_word(text) and decode([n]).endswith(" ")
    ]
