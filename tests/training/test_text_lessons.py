"""How the compact tower is taught: the judge learns and rules, texts are rewritten, labels are put together, a course goes on."""

import pytest
import torch
from torch import Tensor, nn

from avatar_viewer.action_units import NUM_AUS, au_index
from avatar_viewer.training.course import run_course
from avatar_viewer.training.prompt_variants import Example
from avatar_viewer.training.sentence_judge import SentenceJudge, train_judge
from avatar_viewer.training.text_distillation import far_texts, find_near_words
from avatar_viewer.training.text_lessons import content_words, load_lessons, make_lessons, rewrite, whole_words

SMILE, SMILING, ROAD = au_index("AU12"), "she is smiling", "the road to the north"


class Letters(nn.Module):
    """An encoder that hears letters: texts to unit vectors of 384, by one layer that learns."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.randn(128, 384, generator=torch.Generator().manual_seed(0))
        self.layers = nn.ModuleList([nn.Linear(384, 384)])
        self.requires_grad_(False)

    def forward(self, texts: list[str]) -> Tensor:
        heard = torch.stack([self.table[[ord(c) % 128 for c in text]].mean(0) for text in texts])
        return nn.functional.normalize(self.layers[0](heard), dim=-1)


class Repeats:
    """Draws the same examples for ever."""

    def reseed(self, seed: int) -> None:
        pass

    def draw(self) -> Example:
        return labelled(ROAD)


def labelled(text: str) -> Example:
    intensity = torch.zeros(NUM_AUS)
    intensity[SMILE] = 3.0 if text == SMILING else 0.0
    return Example(text, intensity, text == SMILING)


@pytest.fixture(scope="module")
def judge() -> SentenceJudge:
    torch.manual_seed(0)
    judge = SentenceJudge(Letters())
    train_judge(judge, [labelled(SMILING)], Repeats(), 40, "cpu", None, lambda line: None)
    return judge


def test_the_judge_learns_what_it_is_told_and_leaves_the_teacher_as_it_was(judge):
    verdicts = judge.rule([SMILING, ROAD])
    assert verdicts.active[0, SMILE] > 0.8 and verdicts.active[1].max() < 0.2
    assert verdicts.intensity[0, SMILE] == pytest.approx(3.0, abs=0.7)
    assert verdicts.relevant[0] > 0.8 and verdicts.relevant[1] < 0.2
    teacher = Letters()
    judge = SentenceJudge(teacher)
    assert judge.encoder is not teacher and not any(p.requires_grad for p in teacher.parameters())


def test_verdicts_come_in_the_order_of_the_texts(judge):
    texts = ["a long text about nothing much", "x", SMILING, "short one"]
    together, alone = judge.rule(texts, batch=2), [judge.rule([text]) for text in texts]
    for row, single in enumerate(alone):
        assert torch.allclose(together.active[row], single.active[0], atol=0.02)
        assert torch.allclose(together.vectors[row], single.vectors[0], atol=0.02)


def test_labels_of_the_corpus_are_its_own_and_the_judges_half_and_half(judge, tmp_path):
    lessons = make_lessons([[labelled(SMILING)], [labelled(ROAD)]], [["smiling", "a road"]], judge, lambda line: None)
    verdicts = judge.rule([SMILING, ROAD, "smiling", "a road"])
    assert lessons.kinds.tolist() == [0, 1, 2, 2] and lessons.ids.shape == (4, 32)
    assert lessons.active[0, SMILE] == pytest.approx(0.5 + 0.5 * float(verdicts.active[0, SMILE]), abs=0.02)
    assert lessons.intensity[0, SMILE] == 3.0
    assert torch.allclose(lessons.active[2:], verdicts.active[2:], atol=0.02)
    lessons.save(tmp_path / "new" / "lessons.safetensors")
    again = load_lessons(tmp_path / "new" / "lessons.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(vars(lessons).values(), vars(again).values()))


def test_without_a_judge_the_corpus_speaks_alone():
    lessons = make_lessons([[labelled(SMILING)], [labelled(ROAD)]], [["unheard"]], None, lambda line: None)
    assert len(lessons.ids) == 2 and not len(lessons.vectors)
    assert lessons.active[0, SMILE] == 1 and lessons.relevant.tolist() == [1, 0]


def test_texts_are_rewritten_by_near_words_only_and_repeat_from_their_seed():
    texts, near = ["a Happy man, very happy!", "nothing here"], {"happy": ["glad", "merry"]}
    rewritten = rewrite(texts, near, seed=1)
    assert rewritten and rewritten == rewrite(texts, near, seed=1)
    for text in rewritten:
        assert text not in texts
        assert [w for w in text.split() if w not in ("glad", "merry")] == [
            w for w, new in zip(texts[0].split(), text.split()) if new not in ("glad", "merry")
        ]


def test_words_that_carry_meaning_are_told_from_grammar_and_from_beginnings_of_words():
    assert content_words(["She is very Happy, not sad."]) == ["happy", "sad"]
    assert whole_words([]) == []


def test_near_words_are_of_nearly_the_same_meaning_and_name_no_place_and_no_opposite():
    words = ["happy", "glad", "unhappy", "upper", "table"]
    vectors = nn.functional.normalize(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.95, 0.05], [1.0, 0.01], [0.0, 1.0]]), dim=-1)
    assert find_near_words(["happy", "upper", "unknown"], words, vectors) == {"happy": ["glad"]}
    assert find_near_words(["happy"], words, vectors, least=-1.0, most=4) == {"happy": ["glad", "table"]}


def test_far_texts_are_those_that_nothing_is_near():
    vectors = torch.eye(4)
    assert far_texts(["a", "b", "c", "d"], vectors, vectors[[0, 2, 3]], share=0.25) == ["b"]
    assert far_texts([], torch.zeros(0, 4), vectors) == []


def test_a_finished_course_is_not_run_again(tmp_path):
    part, path, steps = nn.Linear(1, 1), tmp_path / "progress.safetensors", []

    def loss_at(step: int) -> Tensor:
        steps.append(step)
        return part(torch.ones(1)).square().sum()

    run_course("part", [(part, 0.1)], 5, loss_at, path, lambda line: None)
    ended = part.weight.clone()
    run_course("part", [(part, 0.1)], 5, loss_at, path, lambda line: None)
    assert steps == [0, 1, 2, 3, 4] and torch.equal(part.weight, ended)
