"""What is the row's own text, what the template's, and where a limit falls."""

from __future__ import annotations

import pytest

from orpo.core.records import LabelledAnswer, Ranking, Source
from orpo.data.example import as_example
from orpo.data.row_view import RowViewer, text_view
from orpo.data.templates import resolve_template

TRIMMED = (
    "{% for m in messages %}[{{ m['role'] }}]\n{{ m['content'] | trim }}\n[end]\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]\n{% endif %}"
)


def viewed(record, tokenizer, *, template="auto", max_length=None, overlong="drop"):
    found = resolve_template(tokenizer, template, is_chat=not isinstance(record.prompt, str), is_transcript=False)
    return RowViewer(tokenizer, found, max_length=max_length, overlong=overlong).view(as_example(record))


def of(part, *origins: str) -> str:
    return "".join(stretch.text for stretch in part.stretches if stretch.origin in origins)


def test_plain_text_is_all_the_rows_own_but_for_the_tokens_that_begin_and_end_it(tokenizer, text_pair):
    view = viewed(text_pair("What is the capital?", " Paris, a city", " the lazy dog"), tokenizer)
    prompt, chosen, rejected = view.parts
    # Sentencepiece begins a text with a space of its own, and may join the last character of the prompt with the answer.
    assert (of(prompt, "own") + of(chosen, "own")).removeprefix(" ") == "What is the capital? Paris, a city"
    assert (of(prompt, "own") + of(rejected, "own")).removeprefix(" ") == "What is the capital? the lazy dog"
    assert [of(part, "template") for part in view.parts] == [""] * 3
    assert [of(part, "control") for part in view.parts] == ["<s>", "</s>", "</s>"]
    assert [part.num_tokens - part.num_own for part in (prompt, chosen, rejected)] == [1, 1, 1]
    assert not view.fate


@pytest.mark.parametrize("question", ["user", "assistant\nuser", "  a b  ", "<|im_end|> hello"])
def test_of_a_chat_the_turns_are_found_even_where_they_say_what_the_template_says(chat_tokenizer, chat_pair, question):
    view = viewed(chat_pair(question, "user", "assistant"), chat_tokenizer)
    assert [of(part, "own") for part in view.parts] == [question, "user", "assistant"]
    assert of(view.parts[0], "template") == "user\n\nassistant\n"
    assert of(view.parts[0], "control") == "<|im_start|><|im_end|><|im_start|>"
    assert [of(part, "control") for part in view.parts[1:]] == ["<|im_end|>", "<|im_end|>"]
    whole = "".join(stretch.text for part in view.parts[:2] for stretch in part.stretches)
    assert whole == f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\nuser<|im_end|>"


def test_a_template_that_trims_turns_still_has_its_own_text(byte_tokenizer, chat_pair):
    byte_tokenizer.chat_template = TRIMMED
    turns = [("system", "be kind "), ("user", "  end "), ("assistant", "[end]"), ("user", "so?")]
    view = viewed(chat_pair(turns, "yes\n", "no"), byte_tokenizer)
    assert of(view.parts[0], "own") == "be kindend[end]so?"
    assert of(view.parts[0], "template") == "".join(f"[{role}]\n\n[end]\n" for role, _ in turns) + "[assistant]\n"
    assert of(view.parts[1], "own") == "yes"


def test_a_template_that_rewrites_turns_is_said_to_and_its_control_tokens_are_still_told(chat_tokenizer, chat_pair):
    chat_tokenizer.chat_template = chat_tokenizer.chat_template.replace("m['content']", "m['content'] | upper")
    view = viewed(chat_pair("what?", "one", "two"), chat_tokenizer)
    assert "not told from theirs" in view.notes[0]
    assert [of(part, "own") for part in view.parts] == ["user\nWHAT?\nassistant\n", "ONE", "TWO"]


def test_typed_control_tokens_are_own_text_and_said_to_be(chat_tokenizer, chat_pair):
    view = viewed(chat_pair("what?", "a<|im_end|>b", "two"), chat_tokenizer)
    assert (of(view.parts[1], "own"), of(view.parts[1], "control")) == ("a<|im_end|>b", "<|im_end|>")
    assert "controls nothing" in view.notes[0]


def test_a_transcript_tells_its_speakers_from_what_they_say(byte_tokenizer, chat_pair):
    view = viewed(chat_pair([("user", "Human:"), ("assistant", "yes"), ("user", "why?")], "because", "no"), byte_tokenizer, template="raw")
    # A space before a word is part of its token, and so of what is said.
    assert of(view.parts[0], "own").replace(" ", "") == "Human:yeswhy?"
    assert of(view.parts[0], "template").replace(" ", "") == "\n\nHuman:\n\nAssistant:\n\nHuman:\n\nAssistant:"


def test_a_limit_falls_where_the_row_is_cut(byte_tokenizer, text_pair):
    record = text_pair("What?", " the quick brown fox", " no")
    whole = viewed(record, byte_tokenizer)
    num = whole.parts[0].num_tokens
    view = viewed(record, byte_tokenizer, max_length=num + 2, overlong="cut-completion")
    chosen = view.parts[1]
    assert chosen.num_cut == chosen.num_tokens - 2 == whole.parts[1].num_tokens - 2
    kept = "".join(stretch.text for stretch in chosen.stretches if not stretch.is_cut)
    cut = "".join(stretch.text for stretch in chosen.stretches if stretch.is_cut)
    assert kept + cut == " the quick brown fox</s>"
    assert kept
    assert (view.parts[0].num_cut, view.fate) == (0, "")
    dropped = viewed(record, byte_tokenizer, max_length=num + 2)
    assert dropped.fate.startswith("too-long: prompt and answer have")
    assert viewed(record, byte_tokenizer, max_length=num - 1).parts[0].num_cut == 1


def test_a_row_that_cannot_be_tokenized_is_text_with_the_reason(chat_tokenizer, chat_pair):
    chat_tokenizer.chat_template = "{{ raise_exception('no ' + messages[0]['content']) }}"
    view = viewed(chat_pair("what?", "one", "two"), chat_tokenizer)
    assert view.fate.startswith("template-error: ")
    assert (view.parts[0].num_tokens, of(view.parts[1], "own"), of(view.parts[1], "template")) == (None, "one", "assistant: ")


def test_equal_answers_and_rankings_keep_all_their_parts(byte_tokenizer, text_pair):
    view = viewed(text_pair("What?", " a", " a"), byte_tokenizer)
    assert view.fate == "identical-tokens: chosen and rejected are the same once the template is applied"
    assert [part.name for part in view.parts] == ["prompt", "chosen", "rejected"]
    ranking = viewed(Ranking("What?", (" a", " b", " c"), Source("a", 1), (2.5, 1.0, -1.0)), byte_tokenizer)
    assert [part.part for part in ranking.parts] == ["prompt", "best", "between", "last"]
    assert [part.name for part in ranking.parts][1:] == ["answer 1 of 3, score 2.5", "answer 2 of 3, score 1", "answer 3 of 3, score -1"]
    answer = text_view(as_example(LabelledAnswer("What?", " a", False, Source("a", 1))))
    assert [part.part for part in answer.parts] == ["prompt", "undesirable"]
