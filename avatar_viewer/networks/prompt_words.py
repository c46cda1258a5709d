"""A prompt as words: what can be read of it, which words carry meaning, and what was left out. Knows no network."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

MAX_CHARACTERS = 4096  # of a prompt that are looked at: 75 tokens are far fewer
_MAX_WORD = 40  # characters: the tokenizer's merging is quadratic in a word's length
_SHOWN_TRUNCATED = 2000  # characters of what was cut off

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


def split_prompt(prompt: str) -> tuple[list[str], str]:
    """The prompt's words, without what no font shows, and the text past the first 4096 characters."""
    head, rest = prompt[:MAX_CHARACTERS], prompt[MAX_CHARACTERS:]
    text = unicodedata.normalize("NFKC", head.encode("utf-8", errors="replace").decode("utf-8"))
    # CLIP's own marks are written with angle brackets; emoji, controls, format codes and private characters say nothing.
    text = "".join(" " if c in "<>|" or unicodedata.category(c) in _UNREAD else c for c in text)
    return text.split(), rest


_UNREAD = {"Cc", "Cf", "Cs", "Co", "Cn", "So", "Sk"}


def is_content_word(word: str) -> bool:
    """Whether a word can be "not understood": it is no grammar, degree or denial, and has a letter or digit."""
    bare = _bare(word)
    return bare not in _GRAMMAR and not is_denial(word) and any(c.isalnum() for c in bare)


def _bare(word: str) -> str:
    return word.strip(".,;:!?()[]\"'“”‘’…-").lower()


def shorten_word(word: str) -> str:
    return word[:_MAX_WORD]


def show_truncated(words: Sequence[str], rest: str) -> str:
    if not words and not rest.strip():
        return ""
    beyond = " ".join([*words, *split_prompt(rest[:_SHOWN_TRUNCATED])[0]])
    return beyond if len(beyond) + len(rest) < _SHOWN_TRUNCATED else beyond[:_SHOWN_TRUNCATED] + " ..."


def why_nothing(prompt: str) -> str:
    if not prompt:
        return "the prompt is empty, so the face stays as it is"
    if not prompt.strip():
        return "the prompt is blank, so the face stays as it is"
    return "the prompt has no words, so the face stays as it is"


def is_denial(word: str) -> bool:
    """Whether a word denies what follows it."""
    return bool(_DENIALS.match(_bare(word)))
