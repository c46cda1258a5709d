"""The prompt corpus: names, ranges, anatomy, no repeats, no paraphrase in two splits, and the repertoire it must cover."""

import json
from collections import Counter

import pytest

from avatar_viewer.action_units import AU_NAMES
from avatar_viewer.errors import InputError
from avatar_viewer.training.datasets.prompts import (
    CONTRADICTIONS,
    DEFAULT_CORPUS,
    PromptEntry,
    normal_text,
    paraphrase_key,
    read_prompt_corpus,
)


@pytest.fixture(scope="module")
def corpus() -> list[PromptEntry]:
    return read_prompt_corpus()


def write(tmp_path, *changes: dict):
    """A corpus file of entries that differ from a sound one by `changes`."""
    sound = {
        "id": "a1", "description": "a smiling man", "kind": "simple", "split": "train", "aus": {"AU12": 3.0},
        "positives": ["one", "two", "three"], "negatives": ["sad one", "angry one", "bored one"],
    }  # fmt: skip
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(json.dumps(sound | change) for change in changes), encoding="utf-8")
    return path


def test_the_corpus_reads_without_a_fault_and_is_as_large_as_promised(corpus):
    assert len(corpus) >= 3000
    assert {entry.kind for entry in corpus} == {"simple", "complex", "emotion"}
    shares = Counter(entry.split for entry in corpus)
    # Held-out entries by number: what is added later is for training, and the test split stays as it was first measured on.
    assert shares["test"] >= 146 and shares["val"] >= 141


def test_every_action_unit_has_entries_in_training_and_in_test(corpus):
    for split, least in (("train", 20), ("test", 3)):
        counts = Counter(name for entry in corpus if entry.split == split for name in entry.aus)
        assert all(counts[name] >= least for name in AU_NAMES), (split, counts)


def test_no_entry_asks_for_what_a_face_cannot_do(corpus):
    for entry in corpus:
        for first, second in CONTRADICTIONS:
            assert not (first in entry.aus and second in entry.aus), entry.id


def test_no_text_and_no_paraphrase_stands_in_two_splits(corpus):
    split_of: dict[object, str] = {}
    for entry in corpus:
        for text in entry.texts:
            for key in (normal_text(text), paraphrase_key(text)):
                if key:
                    assert split_of.setdefault(key, entry.split) == entry.split, text


def test_the_papers_repertoire_and_degrees_denials_and_nonsense_are_there(corpus):
    texts = " | ".join(text for entry in corpus for text in entry.texts).lower()
    for word in (
        "sad", "happy", "angry", "fear", "confus", "worr", "disgust", "disappoint", "anxi", "shy", "smil",
        "mouth corners", "frown",
        "laugh", "furrow", "slight", "half", "extreme", "not ", "without", "sad but smiling",
    ):  # fmt: skip
        assert word in texts, word
    assert sum(not entry.is_about_a_face for entry in corpus) >= 50


def test_degrees_are_ordered(corpus):
    strongest = {text: max(entry.aus.values()) for entry in corpus for text in entry.texts if entry.aus}
    for weak, plain, strong in (
        ("a slight smile", "smile", "a very big smile"),
        ("slightly sad", "a sad person", "extremely sad"),
        ("slightly annoyed", "look angry", "absolutely enraged"),
        ("slightly afraid", "a frightened person", "an extremely frightened man"),
    ):
        assert strongest[weak] < strongest[plain] < strongest[strong]


def aus_by_text(corpus) -> dict[str, set[str]]:
    return {text: set(entry.aus) for entry in corpus for text in entry.texts}


def test_a_degree_changes_how_much_and_never_which(corpus):
    aus = aus_by_text(corpus)
    for same in (
        ("smile", "a slight smile", "half a smile", "a barely visible smile", "smiling enormously"),
        ("make her happy", "slightly happy", "so happy", "insanely happy"),
        ("a person is laughing", "laughing a little", "laughing uncontrollably"),
        ("look sad", "slightly sad", "deeply sad", "as sad as anyone can be", "heartbroken"),
        ("angry", "a bit angry", "very angry", "extremely angry"),
        ("scared", "a little scared", "very scared", "extremely scared", "terrified"),
        ("disappointed", "a bit disappointed", "bitterly disappointed"),
        ("disgusted", "slightly disgusted", "extremely disgusted"),
    ):
        assert len({frozenset(aus[text]) for text in same}) == 1, same


def test_a_mixture_asks_for_all_that_its_parts_ask_for(corpus):
    aus = aus_by_text(corpus)
    for mixture, first, second in (
        ("sad but smiling", "a sad person", "smile"),
        ("angry and disgusted", "angry", "disgusted"),
        ("surprised and afraid", "surprised", "afraid"),
        ("surprised and sad", "surprised", "a sad person"),
        ("smiling nervously", "nervous", "smile"),
        ("happy but worried", "a happy person", "worried"),
        ("disgusted and sad", "disgusted", "a sad person"),
        ("tired and sad", "tired", "a sad person"),
        ("angry contempt", "angry", "contempt"),
    ):
        assert aus[mixture] == aus[first] | aus[second], mixture


@pytest.mark.parametrize(
    "change, word",
    [
        ({"aus": {"AU20": 2.0}}, "AU20"),
        ({"aus": {"AU12": 6.0}}, "AU12"),
        ({"aus": {"AU24": 2.0, "AU25": 2.0}}, "exclude"),
        ({"aus": {"AU26": 2.0}}, "AU25"),
        ({"kind": "odd"}, "odd"),
        ({"positives": ["one", "two"]}, "three"),
        ({"positives": ["one", "two", " "]}, "empty"),
        ({"colour": 1}, "colour"),
    ],
)
def test_a_faulty_entry_is_named(tmp_path, change, word):
    with pytest.raises(InputError, match=word):
        read_prompt_corpus(write(tmp_path, change))


def test_a_paraphrase_in_another_split_is_a_fault(tmp_path):
    other = {"id": "a2", "split": "test", "description": "the man smiles", "positives": ["four", "five", "six"]}
    with pytest.raises(InputError, match="paraphrase"):
        read_prompt_corpus(write(tmp_path, {}, other))


def test_a_negative_with_the_same_action_units_is_a_fault(tmp_path):
    same = {"id": "a2", "description": "glad", "positives": ["four", "five", "six"], "negatives": ["a1", "x", "y"]}
    with pytest.raises(InputError, match="same action units"):
        read_prompt_corpus(write(tmp_path, {}, same))


def test_the_file_holds_one_object_a_line():
    lines = DEFAULT_CORPUS.read_text(encoding="utf-8").splitlines()
    assert all(isinstance(json.loads(line), dict) for line in lines)
