from __future__ import annotations

import pytest

from orpo.core.records import LabelledAnswer, Ranking, Source
from orpo.core.tokens import TokenizedExample
from orpo.data.preview import preview, visible
from orpo.data.templates import resolve_template
from orpo.data.tokenize import tokenize_record


def shown(record, tokenizer, **options):
    template = resolve_template(tokenizer, "auto", is_chat=not isinstance(record.prompt, str), is_transcript=False)
    example = tokenize_record(record, tokenizer, template)
    assert isinstance(example, TokenizedExample)
    return preview(example, tokenizer, **options)


def styled(text, style: str) -> list[str]:
    return [text.plain[span.start : span.end] for span in text.spans if span.style == style]


def test_prompt_chosen_and_rejected_have_their_colours_and_say_what_is_learned(chat_tokenizer, chat_pair):
    text = shown(chat_pair("What?", "Paris", "the sea", line=5), chat_tokenizer)
    assert "".join(styled(text, "grey50")) == "user\nWhat?\nassistant\n"
    assert (styled(text, "green"), styled(text, "red")) == (["Paris"], ["the sea"])
    assert text.plain.startswith("data.jsonl:5\n")
    assert "carries no loss" in text.plain
    learned = shown(chat_pair("What?", "Paris", "the sea"), chat_tokenizer, learned={"prompt": "carries the NLL"})
    assert "tokens, carries the NLL" in learned.plain


def test_control_tokens_stand_out_and_the_same_text_typed_in_data_does_not(chat_tokenizer, chat_pair):
    text = shown(chat_pair("What?", "say <|im_end|>", "the sea"), chat_tokenizer)
    assert styled(text, "green") == ["say <|im_end|>"]
    assert styled(text, "green reverse") == ["<|im_end|>"]
    assert styled(text, "grey50 reverse") == ["<|im_start|>", "<|im_end|>", "<|im_start|>"]


@pytest.mark.parametrize(
    ("raw", "readable"),
    [
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\u202eb\u2066c", "a\\u202eb\\u2066c"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("line\u2028end\r\n\t.", "line\\u2028end\\x0d\n\t."),
        ("\U000e0041", "\\U000e0041"),
        ("Grüße 日本 🙂", "Grüße 日本 🙂"),
    ],
)
def test_characters_that_could_deceive_are_shown_as_escapes(raw, readable):
    assert visible(raw) == readable


def test_an_escape_sequence_in_the_data_never_reaches_the_terminal(byte_tokenizer, text_pair):
    assert "\x1b" not in shown(text_pair("What?", " \x1b[31mred", " [red]x[/red]"), byte_tokenizer).plain
    assert "[red]x[/red]" in shown(text_pair("What?", " \x1b[31mred", " [red]x[/red]"), byte_tokenizer).plain


@pytest.mark.parametrize(("is_desirable", "name", "colour"), [(True, "desirable", "green"), (False, "undesirable", "red")])
def test_a_labelled_answer_says_its_label_in_the_colour_of_it(byte_tokenizer, is_desirable, name, colour):
    text = shown(LabelledAnswer("What?", " Paris", is_desirable, Source("data.jsonl", 1)), byte_tokenizer)
    assert styled(text, colour) == [" Paris"]
    assert [line.split(",")[0] for line in text.plain.splitlines() if "tokens" in line] == ["prompt", name]


def test_a_ranking_is_shown_best_first_with_its_scores(byte_tokenizer):
    text = shown(Ranking("What?", (" Paris", " the sea", " no"), Source("data.jsonl", 1), (2.5, 1.0, -1.0)), byte_tokenizer)
    assert (styled(text, "green"), styled(text, "red"), styled(text, "default")) == ([" Paris"], [" no"], [" the sea"])
    named = [line.partition(" tokens")[0].rpartition(",")[0] for line in text.plain.splitlines() if "tokens" in line]
    assert named == ["prompt", "answer 1 of 3, score 2.5", "answer 2 of 3, score 1", "answer 3 of 3, score -1"]
