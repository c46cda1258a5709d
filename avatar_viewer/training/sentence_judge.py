"""The judge: the sentence teacher, tuned on the corpus until it says of any text what it asks of a face.

With its 22 million weights it is far too large for an avatar; the compact tower learns from its answers what no entry says.
A head on the teacher's own vectors reached macro F1 0.71 on the validation split, the teacher tuned with it 0.83.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..action_units import MAX_INTENSITY, NUM_AUS
from ..networks.text_to_au import HeadOutput
from .course import run_course
from .prompt_variants import Example, VariantMaker, stack_labels
from .sentence_teacher import TEACHER_DIM, SentenceTeacher, half_precision

_BATCH = 128  # half of it the corpus itself, half its variants


class Verdicts(NamedTuple):
    """What the judge says of n texts."""

    active: Tensor  # [n, 17] probability
    intensity: Tensor  # [n, 17] 0..5
    relevant: Tensor  # [n] probability that the text is about a face
    vectors: Tensor  # [n, 384] unit vectors, near each other where texts ask for the same


class SentenceJudge(nn.Module):
    """Texts to action units through a copy of the teacher whose layers learn; its word vectors stay as they are."""

    def __init__(self, teacher: SentenceTeacher) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(teacher)
        self.encoder.layers.requires_grad_(True)
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(TEACHER_DIM, 2 * NUM_AUS + 1)

    def forward(self, texts: Sequence[str]) -> HeadOutput:
        vectors = self.encoder(texts).float()
        logits, intensity, relevance = self.head(self.drop(vectors * TEACHER_DIM**0.5)).split((NUM_AUS, NUM_AUS, 1), dim=1)
        return HeadOutput(logits, MAX_INTENSITY * torch.sigmoid(intensity), relevance[:, 0], vectors)

    @torch.no_grad()
    def rule(self, texts: Sequence[str], batch: int = 256, report: Callable[[int], None] | None = None) -> Verdicts:
        """The verdicts in the order of the texts, on the CPU."""
        self.eval()
        order = sorted(range(len(texts)), key=lambda n: len(texts[n]))  # equal lengths together: little padding
        rows: list[HeadOutput] = []
        for start in range(0, len(order), batch):
            with half_precision(self.head.weight.device):
                output = self([texts[n] for n in order[start : start + batch]])
            rows.append(HeadOutput(*(part.float().cpu() for part in output)))
            if report is not None:
                report(min(start + batch, len(order)))
        back = torch.argsort(torch.tensor(order, dtype=torch.long))
        logits, intensity, relevance, vectors = (torch.cat(parts)[back] for parts in zip(*rows))
        return Verdicts(torch.sigmoid(logits), intensity, torch.sigmoid(relevance), vectors)


def train_judge(
    judge: SentenceJudge,
    examples: Sequence[Example],  # the corpus's own texts
    maker: VariantMaker,
    steps: int,
    device: str,
    path: Path | None,
    report: Callable[[str], None],
) -> None:
    """Tune the judge; goes on from the checkpoint at `path`."""
    judge.to(device).train()

    def loss_at(step: int) -> Tensor:
        torch.manual_seed(step)  # of the dropout
        maker.reseed(step)
        own = torch.randint(len(examples), (_BATCH // 2,), generator=torch.Generator().manual_seed(step)).tolist()
        batch = [examples[n] for n in own] + [maker.draw() for _ in range(_BATCH // 2)]
        with half_precision(device):
            output = judge([e.text for e in batch])
        return supervised_loss(HeadOutput(*(part.float() for part in output)), *stack_labels(batch, device))

    run_course("judge", [(judge.encoder.layers, 2e-4), (judge.head, 2e-3)], steps, loss_at, path, report)
    judge.eval()


def supervised_loss(output: HeadOutput, active: Tensor, values: Tensor, relevant: Tensor) -> Tensor:
    """Plain cross-entropies while judge and tower learn, hard labels or soft; the published loss is the head's."""
    loss = F.binary_cross_entropy_with_logits(output.logits, active) * 2
    error = ((output.intensity - values).abs() * active).sum() / active.sum().clamp(min=1)
    return loss + 0.2 * error + 0.3 * F.binary_cross_entropy_with_logits(output.relevance, relevant)
