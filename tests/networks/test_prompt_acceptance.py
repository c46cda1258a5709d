"""Prompts that nobody wrote into the corpus, read by the demo's controller: the shares that the product promises."""

import json
from pathlib import Path

import pytest
import torch

from avatar_viewer.action_units import AU_NAMES, au_index
from avatar_viewer.networks.prompt_reading import PromptReading
from avatar_viewer.networks.text_to_au import HEAD_WEIGHTS, TextToAU, load_text_to_au
from avatar_viewer.training.datasets.prompts import paraphrase_key, read_prompt_corpus

DEMO = Path(__file__).parents[2] / "checkpoints" / "demo"
pytestmark = pytest.mark.skipif(not (DEMO / HEAD_WEIGHTS).is_file(), reason="no trained text part in checkpoints/demo")

HAPPY, SAD, ANGRY, AFRAID = "06 12", "01 04 15 17", "04 05 07 23 24", "01 02 04 05 25"
SURPRISED, DISGUSTED = "01 02 05 25 26", "09 10 17"
# prompt: AUs any of which may lead
EVERYDAY = {
    "he just heard the best joke of his life": "06 12 25",
    "grandma opening her birthday present": HAPPY + " 01 02 05 25",
    "your best friend walks in and you are delighted": HAPPY,
    "she is having a wonderful time": HAPPY,
    "merrily": HAPPY,
    "wear a huge happy grin": "06 12 25",
    "feeling fantastic": HAPPY,
    "a satisfied little smile": HAPPY,
    "her puppy ran away": SAD,
    "like someone whose heart is broken": SAD,
    "sorrowfully": SAD,
    "he feels so lonely tonight": SAD,
    "miserable and blue": SAD,
    "as if at a funeral": SAD,
    "deep unhappiness": SAD,
    "tearfully saying goodbye": SAD + " 06",
    "you stole my wallet and I am mad at you": ANGRY,
    "an enraged customer": ANGRY,
    "absolutely livid boss": ANGRY,
    "crossly": ANGRY,
    "very irritated by the neighbours": ANGRY,
    "a hateful glare": ANGRY,
    "ready to punch someone": ANGRY,
    "there is a burglar in the house, she is terrified": AFRAID + " 26",
    "frightened little girl": AFRAID,
    "he is scared of spiders": AFRAID,
    "quaking in her boots, frightened": AFRAID,
    "totally panicked": AFRAID + " 26",
    "a startled rabbit": SURPRISED + " 04",
    "what a shock": SURPRISED,
    "astonished tourist": SURPRISED,
    "she can't believe she won": SURPRISED + " 06 12",
    "completely amazed": SURPRISED,
    "revolted by the smell of garbage": DISGUSTED,
    "that is disgusting, take it away": DISGUSTED,
    "eating something vile": DISGUSTED,
    "grossed-out teenager": DISGUSTED,
    "scornful and superior": "10 14",
    "a smug politician": "12 14",
    "looking down on the peasants": "14",
    "a puzzled detective": "04 07",
    "the student is confused by the question": "04 07",
    "worried mother": "01 04",
    "concerned about her friend": "01 04",
    "nervous bride": "01 02 04 05",
    "anxious before surgery": "01 02 04 05",
    "disappointed with the result": "01 15 17",
    "a let-down fan": "01 15 17",
    "bashful schoolboy": "12 24",
    "shyly looking up": "12 24",
    "blushing, she wishes she had said nothing": "12 24",
    "exhausted nurse": "15 45",
    "very sleepy": "45",
    "bored pupil": "15 45",
    "in terrible pain": "04 06 07 09 10",
    "eyebrows way up": "01 02",
    "bring your brows closer together": "04",
    "squinty eyes": "07",
    "shut your eyelids": "45",
    "a wrinkly nose": "09",
    "drop the corners of your mouth": "15",
    "clamp the lips on each other": "24",
    "let your jaw hang open": "25 26",
    "lips a bit apart": "25",
    "smile with cheeks raised": HAPPY,
    "a frowny face": "04 15",
    "two friends giggling at a secret": "06 12 25",
    "he lets out a chuckle": "06 12 25",
    "tough and determined": "04 24",
    "suspicious policeman": "02 04 07",
    "a big smile but keep the mouth shut": HAPPY,
}
# Sixty more, written down before any controller read one of them.
BLIND = json.loads((Path(__file__).parent / "blind_prompts.json").read_text(encoding="utf-8"))["prompts"]
DEGREES = (
    ("slightly sad", "sad", "extremely sad", "AU15"),
    ("a bit angry", "angry", "very angry", "AU04"),
    ("a slight smile", "a smile", "a very big smile", "AU12"),
    ("a little surprised", "surprised", "utterly surprised", "AU01"),
    ("mildly disgusted", "disgusted", "extremely disgusted", "AU09"),
    ("slightly scared", "scared", "terribly scared", "AU05"),
    ("a bit worried", "worried", "very worried", "AU01"),
    ("slightly raised eyebrows", "raised eyebrows", "extremely raised eyebrows", "AU02"),
    ("frown a little", "frown", "frown very hard", "AU04"),
    ("faintly amused", "amused", "extremely amused", "AU12"),
    ("slightly disappointed", "disappointed", "deeply disappointed", "AU15"),
    ("mouth slightly open", "mouth open", "mouth extremely wide open", "AU26"),
    ("somewhat cheerful", "cheerful", "incredibly cheerful", "AU12"),
    ("a little confused", "confused", "very confused", "AU04"),
    ("slightly in pain", "in pain", "in extreme pain", "AU04"),
    ("eyes slightly narrowed", "eyes narrowed", "eyes very narrowed", "AU07"),
)
DENIALS = {
    "she never seems to smile": "AU12",
    "nobody is laughing here": "AU12",
    "without any frown": "AU04",
    "please do not get angry": "AU04",
    "no surprise at all": "AU01",
    "he isn't scared": "AU05",
    "not sad any longer": "AU15",
    "without raising his eyebrows": "AU02",
    "never disgusted": "AU09",
    "do not cry": "AU15",
    "not worried in the least": "AU01",
    "stop grinning": "AU12",
    "she does not close her eyes": "AU45",
    "he is not at all disappointed": "AU15",
    "the nose is not wrinkled one bit": "AU09",
    "angry, but without pressing the lips": "AU24",
    "there is nothing puzzling here, she is not confused": "AU07",
    "sad, not crying, mouth closed": "AU25",
    "no opening of the jaw": "AU26",
    "not exhausted": "AU45",
}
MEANINGLESS = (
    "vlim tosk braggle",
    "kjh sdf oiu",
    "qqq www eee",
    "the price of copper",
    "configure the firewall",
    "a recipe for pancakes",
    "trains to Glasgow",
    "777 888 999",
    "polynomial division",
    "the eighth of August",
    "sdlfkjsdf",
    "tax return form",
    "blorf",
    "how do I boil rice",
    "seven wooden boxes",
    "concrete mixer",
    "the river Thames is long",
    "zimbleflux quandrip",
    "print the document",
    "x y z",
)


@pytest.fixture(scope="module")
def text() -> TextToAU:
    return load_text_to_au(DEMO)


def leads(reading: PromptReading, intended: str) -> bool:
    """The strongest action unit read is an intended one, and no more than half of all that are read were not intended."""
    names = {f"AU{digits}" for digits in intended.split()}
    read = {AU_NAMES[n] for n in torch.nonzero(reading.active)[:, 0].tolist()}
    return bool(read) and AU_NAMES[int(reading.intensity.argmax())] in names and len(read - names) <= len(read & names)


def test_neither_the_lists_nor_paraphrases_of_them_are_in_the_corpus():
    known = {paraphrase_key(t) for entry in read_prompt_corpus() for t in entry.texts}
    assert not [p for p in (*EVERYDAY, *BLIND, *DENIALS, *MEANINGLESS) if paraphrase_key(p) in known]


def test_the_intended_action_units_lead_in_85_percent(text):
    missed = [prompt for prompt, intended in EVERYDAY.items() if not leads(text.read(prompt), intended)]
    assert len(missed) <= 0.15 * len(EVERYDAY), missed


def test_degree_words_order_the_intensity_in_90_percent(text):
    missed = []
    for weak, plain, strong, name in DEGREES:
        values = [float(text.read(prompt).intensity[au_index(name)]) for prompt in (weak, plain, strong)]
        if not values[0] < values[1] < values[2]:
            missed.append((plain, values))
    assert len(missed) <= 0.1 * len(DEGREES), missed


def test_a_denial_removes_the_action_unit_in_80_percent(text):
    missed = [prompt for prompt, name in DENIALS.items() if text.read(prompt).active[au_index(name)]]
    assert len(missed) <= 0.2 * len(DENIALS), missed


def test_what_means_nothing_moves_nothing_in_90_percent(text):
    missed = [p for p in MEANINGLESS if text.read(p).active.any() or not text.read(p).ignored]
    assert len(missed) <= 0.1 * len(MEANINGLESS), missed
