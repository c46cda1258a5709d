"""A prompt as words."""

from avatar_viewer.networks.prompt_words import is_content_word, is_denial, show_truncated, split_prompt


def test_words_are_split_without_what_no_font_shows():
    words, rest = split_prompt("a\u00a0shy\u200b \u202ehalf-smile\x00 😀 <end_of_text>")
    assert words == ["a", "shy", "half-smile", "end_of_text"] and rest == ""


def test_grammar_degrees_and_denials_are_no_content():
    assert is_content_word("xqzzt") and is_content_word("smile,")
    assert not any(is_content_word(word) for word in ("slightly,", "don't", "--", "Not", "the"))
    assert is_denial("don’t") and is_denial("Never,") and not is_denial("knot")


def test_what_lies_past_the_first_4096_characters_is_shown_but_not_read():
    words, rest = split_prompt("smile " * 1000)
    assert sum(len(word) + 1 for word in words) <= 4096 + 6 and rest
    assert show_truncated(words[5:8], "") == "smile smile smile" and show_truncated([], "") == ""
    assert len(show_truncated([], "x " * 5000)) <= 2004
