"""Further ways to say what the corpus says, made while training: degrees, denials, mixtures, frames, noise.

The corpus is written by hand; this only composes its texts, so that "not", "slightly", "but" and unknown words act on
everything alike. Every draw comes from the generator given, so a run repeats exactly.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..action_units import MAX_INTENSITY, NUM_AUS, au_index
from .datasets.prompts import CONTRADICTIONS, PromptEntry

# (words before, words after, factor on every intensity)
_DEGREES = (
    ("a trace of ", "", 0.35),
    ("barely ", "", 0.3),
    ("hardly noticeable, ", "", 0.3),
    ("faintly ", "", 0.4),
    ("", ", just a trace", 0.35),
    ("slightly ", "", 0.5),
    ("a little ", "", 0.5),
    ("a bit ", "", 0.5),
    ("a tiny bit ", "", 0.4),
    ("mildly ", "", 0.5),
    ("", ", but only slightly", 0.5),
    ("", " a little", 0.5),
    ("", ", just a bit", 0.5),
    ("subtly ", "", 0.45),
    ("kind of ", "", 0.7),
    ("somewhat ", "", 0.7),
    ("moderately ", "", 0.75),
    ("half ", "", 0.55),
    ("", " at half strength", 0.5),
    ("fairly ", "", 0.85),
    ("rather ", "", 0.85),
    ("quite ", "", 1.05),
    ("really ", "", 1.25),
    ("very ", "", 1.35),
    ("so ", "", 1.3),
    ("strongly ", "", 1.35),
    ("deeply ", "", 1.35),
    ("terribly ", "", 1.45),
    ("incredibly ", "", 1.5),
    ("extremely ", "", 1.55),
    ("absolutely ", "", 1.5),
    ("totally ", "", 1.45),
    ("intensely ", "", 1.45),
    ("", " as strongly as possible", 1.6),
    ("", ", very strongly", 1.4),
    ("utterly ", "", 1.5),
    ("", " to the extreme", 1.6),
    ("exaggerated: ", "", 1.6),
    ("very, very ", "", 1.5),
    ("subtle: ", "", 0.45),
)
_DENIALS = (
    "not {}",
    "no {}",
    "without {}",
    "don't be {}",
    "she isn't {}",
    "not at all {}",
    "never {}",
    "stop: {}",
    "he is not {}",
    "less {}, none at all",
    "not {} any more",
    "no longer {}",
    "nothing like {}",
    "without any {}",
    "don't look {}",
    "isn't {}",
    "by no means {}",
    "not {} in the least",
    "stop {}",
    "you are not {}",
    "do not {}",
    "anything but {}",
    "never look {}",
)
_JOINS = (
    "{} and {}",
    "{} but {}",
    "{}, {}",
    "{} while {}",
    "both {} and {}",
    "{} yet {}",
    "{} with {}",
    "{} and also {}",
    "{}; {}",
    "{}, and a bit {}",
    "{} plus {}",
    "a mix of {} and {}",
)
_CORRECTIONS = (
    "not {no} but {yes}",
    "{yes}, not {no}",
    "{yes} without {no}",
    "{yes}, but not {no}",
    "{yes}, but without {no}",
    "{yes}, no {no}",
    "{yes} rather than {no}",
    "no {no}, {yes}",
    "{yes} instead of {no}",
)
_FRAMES = (
    "{}",
    "{}",
    "{}.",
    "{}!",
    "look {}",
    "please look {}",
    "make her {}",
    "make him look {}",
    "be {}",
    "I want {}",
    "a face that is {}",
    "{} face",
    "an expression: {}",
    "the man is {}",
    "she seems {}",
    "act {}",
    "now {}",
    "show me {}",
    "a woman, {}",
    "a portrait of someone {}",
    "{}, please",
    "the avatar should be {}",
    "he appears {}",
    "give me {}",
    "try to look {}",
    "a person who is {}",
    "you are {}",
    "the girl looks {}",
    "make the face {}",
    "my character is {}",
    "{} expression",
    "a {} look",
    "(reads the letter, {})",
    "{} while talking",
    "say it {}",
    "get {}",
    "portray {}",
    "the actor is {}",
    "feeling {}",
    "with {}",
)
_DEGREE_WORDS = re.compile(
    r"\b(slight|slightly|little|bit|touch|trace|faint|faintly|hint|very|extreme|extremely|big|huge|half|mild|mildly|"
    r"somewhat|barely|subtle|"
    r"utterly|deep|deeply|strong|strongly|quite|rather|light|lightly|tad|terribly|completely|absolutely|"
    r"wide|widest|small|tiny|hard|as)\b"
)
_DENIAL_WORDS = re.compile(r"\b(not|no|without|never|neither|nor|don't|isn't|nothing|can't|n't|none|stop|un\w+|drop|back)\b")


@dataclass(frozen=True)
class Example:
    """A text with its labels."""

    text: str
    intensity: Tensor  # [17] 0..5; active is intensity > 0
    relevant: bool  # about a face


def stack_labels(examples: Sequence[Example], device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Whether each AU is active [n, 17], how strong it is [n, 17] 0..5, and whether the text is about a face [n]."""
    values = torch.stack([e.intensity for e in examples]).to(device)
    return (values > 0).float(), values, torch.tensor([float(e.relevant) for e in examples], device=device)


_OPPOSED = [(au_index(a), au_index(b)) for a, b in CONTRADICTIONS]


class VariantMaker:
    """Draws training examples from entries and from off-topic sentences."""

    def __init__(
        self,
        entries: Sequence[PromptEntry],
        off_topic: Sequence[str],
        seed: int = 0,
        near_words: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._near_words = near_words or {}
        self._random = random.Random(seed)
        self._faces = [(text, entry.intensity()) for entry in entries if entry.is_about_a_face for text in entry.texts]
        self._active = [(text, values) for text, values in self._faces if values.any()]
        self._off_topic = [text for entry in entries if not entry.is_about_a_face for text in entry.texts]
        self._sentences = list(off_topic)

    def reseed(self, seed: int) -> None:
        """Draw from here on as a new maker with this seed would."""
        self._random = random.Random(seed)

    def draw(self) -> Example:
        """One example: a third are the corpus's own texts, plain or framed; in a third a word gives way to a near one."""
        example = self._draw()
        if not example.relevant or not self._near_words or self._random.random() > 0.35:
            return example
        words = example.text.split()
        places = [n for n, word in enumerate(words) if word.lower() in self._near_words]
        if places:
            place = self._random.choice(places)
            words[place] = self._random.choice(self._near_words[words[place].lower()])
        return Example(" ".join(words), example.intensity, True)

    def _draw(self) -> Example:
        kind = self._random.random()
        if kind < 0.36:
            return self._framed()
        if kind < 0.50:
            return self._graded()
        if kind < 0.64:
            return self._denied()
        if kind < 0.72:
            return self._corrected()
        if kind < 0.81:
            return self._mixed()
        if kind < 0.87:
            return self._noisy()
        return Example(self._off_topic_text(), torch.zeros(NUM_AUS), False)

    def _framed(self) -> Example:
        text, values = self._random.choice(self._faces)
        return Example(self.frame(text), values, True)

    def frame(self, text: str) -> str:
        """The text as people would put it into a request, or as it is."""
        frame = self._random.choice(_FRAMES) if self._random.random() < 0.5 else "{}"
        return self._mistype(frame.format(text))

    def _mistype(self, text: str) -> str:
        """One letter in twenty texts is doubled, lost or swapped."""
        if self._random.random() > 0.05 or len(text) < 6:
            return text
        n = self._random.randrange(1, len(text) - 2)
        return self._random.choice(
            (text[:n] + text[n] + text[n:], text[:n] + text[n + 1 :], text[:n] + text[n + 1] + text[n] + text[n + 2 :])
        )

    def _plain_active(self) -> tuple[str, Tensor]:
        """A text that asks for something, without a degree or a denial of its own; short ones first."""
        for _ in range(50):
            text, values = self._random.choice(self._active)
            if len(text.split()) <= 6 and not _DEGREE_WORDS.search(text.lower()) and not _DENIAL_WORDS.search(text.lower()):
                return text, values
        return text, values

    def _graded(self) -> Example:
        text, values = self._plain_active()
        before, after, factor = self._random.choice(_DEGREES)
        graded = (values * factor).clamp(0, MAX_INTENSITY)
        bare = re.sub(r"^(an?|the|he is|she is|look|feeling) ", "", text)
        if before and self._random.random() < 0.3:  # "an angry person" -> "a very angry person"
            article = text[: len(text) - len(bare)]
            return Example(f"{article}{before}{bare}", graded, True)
        frame = self._random.choice(_FRAMES) if self._random.random() < 0.4 else "{}"
        return Example(frame.format(f"{before}{bare}{after}"), graded, True)

    def _denied(self) -> Example:
        text, _ = self._plain_active()
        bare = re.sub(r"^(an?|he is|she is|look|feeling|she|he) ", "", text)
        frame = self._random.choice(_FRAMES) if self._random.random() < 0.2 else "{}"
        return Example(frame.format(self._random.choice(_DENIALS).format(bare)), torch.zeros(NUM_AUS), True)

    def _corrected(self) -> Example:
        (yes, values), (no, others) = self._plain_active(), self._plain_active()
        for _ in range(10):
            if not ((values > 0) & (others > 0)).any():
                break
            no, others = self._plain_active()
        return Example(self._random.choice(_CORRECTIONS).format(yes=yes, no=no), values, True)

    def _mixed(self) -> Example:
        first, a = self._plain_active()
        second, b = self._plain_active()
        both = torch.maximum(a, b)
        if any(both[m] > 0 and both[n] > 0 for m, n in _OPPOSED):
            return self._framed()
        return Example(self._mistype(self._random.choice(_JOINS).format(first, second)), both, True)

    def _noisy(self) -> Example:
        """A word or two that mean nothing change nothing."""
        text, values = self._random.choice(self._faces)
        words = text.split()
        for _ in range(self._random.randint(1, 2)):
            words.insert(self._random.choice((0, len(words))), self._nonsense_word())
        return Example(" ".join(words), values, True)

    def _nonsense_word(self) -> str:
        if self._random.random() < 0.5:
            return "".join(self._random.choices(string.ascii_lowercase, k=self._random.randint(3, 9)))
        syllables = self._random.randint(1, 3)
        return "".join(
            self._random.choice(("b", "bl", "d", "dr", "f", "g", "gl", "k", "m", "n", "p", "qu", "sn", "sk", "t", "v", "w", "z"))
            + self._random.choice("aeiou")
            + self._random.choice(("", "b", "ck", "mp", "nt", "x", "zz", "rg", "l"))
            for _ in range(syllables)
        )

    def _off_topic_text(self) -> str:
        kind = self._random.random()
        if kind < 0.35 and self._off_topic:
            text = self._random.choice(self._off_topic)
        elif kind < 0.75 and self._sentences:
            text = self._random.choice(self._sentences)
        elif kind < 0.95:
            return " ".join(self._nonsense_word() for _ in range(self._random.randint(1, 5)))
        else:
            return " ".join(
                str(self._random.randrange(10 ** self._random.randint(1, 5))) for _ in range(self._random.randint(1, 4))
            )
        return self.frame(text) if self._random.random() < 0.3 else text
