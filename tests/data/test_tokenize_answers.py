"""One answer, or many, beside a prompt: the rules of a pair hold for any number."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orpo.core.records import LabelledAnswer, Message, Ranking, Source
from orpo.data.row import Problem
from orpo.data.templates import resolve_template
from orpo.data.tokenize import tokenize_record

THINKING = (  # the generation prompt opens <think>, full rows do not repeat it
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<|im_start|>assistant\n{{ m['content'].split('</think>')[-1] }}"
    "{% else %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}{% endif %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text("ab th\nqu. ", max_size=12), st.lists(st.text("ab th\nqu. ", min_size=1, max_size=12), min_size=1, max_size=4, unique=True))
def test_any_number_of_answers_share_a_prompt_and_have_the_ids_of_the_whole_text(tokenizer, prompt, texts):
    source = Source("x", 1)
    scores = tuple(-float(number) for number in range(len(texts)))
    record = Ranking(prompt, tuple(texts), source, scores) if len(texts) > 1 else LabelledAnswer(prompt, texts[0], True, source)
    result = tokenize_record(record, tokenizer, resolve_template(tokenizer, "raw", is_chat=False, is_transcript=False))
    if isinstance(result, Problem):
        assert not all(text.strip() for text in texts)
        return
    assert (result.scores, result.labels) == ((scores, ()) if len(texts) > 1 else ((), (True,)))
    for ids, text in zip(result.completions, texts, strict=True):
        assert [*result.prompt_ids, *ids] == [*tokenizer(prompt + text)["input_ids"], tokenizer.eos_token_id]
        assert tokenizer.decode(ids[:-1]).strip().endswith(text.strip())
    assert result.prompt_ids.tolist() == tokenizer(prompt)["input_ids"][: len(result.prompt_ids)]


def test_a_generation_prompt_that_a_full_row_does_not_repeat_ends_the_prompt_before_it_also_beside_a_single_answer(byte_tokenizer):
    record = LabelledAnswer((Message("user", "What?"),), (Message("assistant", "<think"),), False, Source("x", 1))
    byte_tokenizer.chat_template = THINKING
    item = tokenize_record(record, byte_tokenizer, resolve_template(byte_tokenizer, "tokenizer", is_chat=True, is_transcript=False))
    assert byte_tokenizer.decode(item.prompt_ids) == "<|im_start|>user\nWhat?<|im_end|><|im_start|>assistant\n"
    assert ([byte_tokenizer.decode(ids) for ids in item.completions], item.labels) == (["<think<|im_end|>"], (False,))
