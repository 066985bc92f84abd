"""What a person sees of a row: colours, and marks that say the same without them."""

from __future__ import annotations

import pytest
from rich.text import Text

from orpo.core.records import LabelledAnswer, Ranking, Source
from orpo.data.example import as_example
from orpo.data.preview import Learned, drawn, legend, visible
from orpo.data.row_view import RowViewer
from orpo.data.templates import resolve_template

LEARNED = {
    "chosen": Learned("N+", "raised by the NLL and the odds ratio term"),
    "rejected": Learned(" -", "lowered by the odds ratio term"),
}


def view_of(record, tokenizer, **options):
    template = resolve_template(tokenizer, "auto", is_chat=not isinstance(record.prompt, str), is_transcript=False)
    return RowViewer(tokenizer, template, **{"max_length": None, "overlong": "drop", **options}).view(as_example(record))


def shown(record, tokenizer, *, width=None, **options) -> Text:
    return drawn(view_of(record, tokenizer, **options), LEARNED, width=width)


def styled(text: Text, *words: str) -> str:
    """The text in spans whose style has all of these words."""
    return "".join(text.plain[span.start : span.end] for span in text.spans if set(words) <= set(str(span.style).split()))


def test_every_line_has_its_marks_and_template_text_its_brackets(chat_tokenizer, chat_pair):
    record = chat_pair("What?\nWhy?", "Paris", "the sea", line=5)
    prompt, chosen, rejected = (f"{part.num_tokens} tokens ({part.num_own} its own)" for part in view_of(record, chat_tokenizer).parts)
    assert shown(record, chat_tokenizer).plain.splitlines() == [
        "data.jsonl:5",
        f"prompt, {prompt}, carries no loss",
        "   │ ⟦<|im_start|>user↵⟧",
        "   │ What?↵",
        "   │ Why?⟦<|im_end|>↵⟧",
        "   │ ⟦<|im_start|>assistant↵⟧",
        f"chosen, {chosen}, raised by the NLL and the odds ratio term",
        "N+ │ Paris⟦<|im_end|>⟧",
        f"rejected, {rejected}, lowered by the odds ratio term",
        " - │ the sea⟦<|im_end|>⟧",
    ]


def test_prompt_chosen_and_rejected_have_their_colours_and_control_tokens_are_reversed(chat_tokenizer, chat_pair):
    text = shown(chat_pair("What?", "say <|im_end|>", "the sea"), chat_tokenizer)
    assert (styled(text, "green").count("say <|im_end|>"), styled(text, "red").count("the sea")) == (1, 1)
    assert styled(text, "green", "reverse") == "<|im_end|>"
    assert styled(text, "grey62", "reverse") == "<|im_start|><|im_end|><|im_start|>"
    assert "user" in styled(text, "grey62", "italic")


def test_the_end_of_a_plain_answer_and_spaces_at_its_edges_are_seen(byte_tokenizer, text_pair):
    text = shown(text_pair("What?", " Paris  ", "the\tsea \n x"), byte_tokenizer)
    lines = text.plain.splitlines()
    assert "   │ ⟦<s>⟧What?" in lines
    assert "N+ │ ␣Paris␣␣⟦</s>⟧" in lines
    assert [line for line in lines if line.startswith(" - ")] == [" - │ the→   sea␣↵", " - │  x⟦</s>⟧"]


def test_brackets_typed_in_data_are_escaped_so_that_none_is_taken_for_the_templates(byte_tokenizer, text_pair):
    text = shown(text_pair("What?", " ⟦</s>⟧", " ↵"), byte_tokenizer).plain
    assert "␣\\u27e6</s>\\u27e7⟦</s>⟧" in text
    assert "␣\\u21b5⟦</s>⟧" in text


def test_what_is_cut_lies_behind_a_line_that_names_the_limit(byte_tokenizer, text_pair):
    record = text_pair("What?", " the quick brown fox", " no")
    limit = view_of(record, byte_tokenizer).parts[0].num_tokens + 3
    text = shown(record, byte_tokenizer, max_length=limit, overlong="cut-completion")
    lines = text.plain.splitlines()
    place = next(place for place, line in enumerate(lines) if line.startswith(f"x  ┄┄ max_length {limit} ends here: "))
    assert lines[place - 1].startswith("N+ │ ")
    assert lines[place + 1].startswith("x  ┆ ")
    assert lines[place + 1].endswith("⟦</s>⟧")
    assert "left out  too-long: " in shown(record, byte_tokenizer, max_length=limit).plain


@pytest.mark.parametrize("width", [10, 30, 80])
def test_lines_are_wrapped_beside_their_marks_and_nothing_is_lost(byte_tokenizer, text_pair, width):
    words = "word" * 30 + " 日本語のとても長い文章です" * 4
    record = text_pair("What?", f" {words}", " no")
    text = shown(record, byte_tokenizer, width=width, max_length=60).plain
    assert "left out" in text
    lines = [line for line in shown(record, byte_tokenizer, width=width).plain.splitlines() if line.startswith("N+ │ ")]
    assert len(lines) > 1
    assert max(Text(line).cell_len for line in text.splitlines()) <= max(width, 24)
    assert "".join(line[5:] for line in lines).replace(" ", "") == f"␣{words}⟦</s>⟧".replace(" ", "")


@pytest.mark.parametrize(("is_desirable", "name", "colour"), [(True, "desirable", "green"), (False, "undesirable", "red")])
def test_a_labelled_answer_says_its_label_in_the_colour_of_it(byte_tokenizer, is_desirable, name, colour):
    text = shown(LabelledAnswer("What?", " Paris", is_desirable, Source("data.jsonl", 1)), byte_tokenizer)
    assert "Paris" in styled(text, colour)
    assert [line.split(",")[0] for line in text.plain.splitlines() if "tokens" in line] == ["prompt", name]


def test_of_a_ranking_the_best_is_green_and_the_last_red(byte_tokenizer):
    text = shown(Ranking("What?", (" Paris", " the sea", " no"), Source("data.jsonl", 1), (2.5, 1.0, -1.0)), byte_tokenizer)
    assert "Paris" in styled(text, "green")
    assert "no" in styled(text, "red")
    assert "the sea" in styled(text, "default")


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
    text = shown(text_pair("What?\x9b31m", " \x1b[31mred\r\x07", " [red]x[/red]\u202e"), byte_tokenizer).plain
    assert not set(text) & {"\x1b", "\x9b", "\r", "\x07", "\u202e"}
    assert "[red]x[/red]\\u202e" in text


def test_the_legend_explains_the_marks_that_are_there_and_what_is_unknown_without_a_model(byte_tokenizer, text_pair):
    views = [view_of(text_pair("What?", " a", " b"), byte_tokenizer)]
    said = dict(legend(views, LEARNED, has_tokens=True))
    assert (
        said["margin"]
        == "N the NLL raises these tokens; + the rest of the loss raises them; - the rest of the loss lowers them; blank no loss"
    )
    assert dict(legend(views, {}, has_tokens=True))["margin"] == "blank no loss"
    assert "unknown" not in said
    assert "max_length cuts" in dict(legend(views, LEARNED, has_tokens=False))["unknown"]
