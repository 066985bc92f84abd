from __future__ import annotations

import time

import pytest

from orpo.core.tokens import TokenizedExample
from orpo.data.control_text import ControlText
from orpo.data.example import as_example
from orpo.data.rendering import Renderer
from orpo.data.templates import resolve_template, tokenizer_fingerprint
from orpo.data.time_budget import OverTimeError, TimeBudget
from orpo.data.tokenize import tokenize_record
from orpo.errors import ConfigError

ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% for k in range(99999) %}{% endfor %}{% endfor %}{% endfor %}"


def resolve(tokenizer, choice="auto", *, is_chat=True, is_transcript=False):
    return resolve_template(tokenizer, choice, is_chat=is_chat, is_transcript=is_transcript)


def test_auto_takes_the_tokenizers_own_template_for_conversations(chat_tokenizer):
    template = resolve(chat_tokenizer)
    assert (template.kind, template.jinja) == ("tokenizer", chat_tokenizer.chat_template)
    assert template.description == "the chat template of some/base"


def test_auto_leaves_plain_text_as_it_is_even_when_there_is_a_template(chat_tokenizer):
    assert resolve(chat_tokenizer, is_chat=False).is_raw


def test_auto_gives_transcripts_their_own_text_form_where_the_tokenizer_has_no_template(byte_tokenizer, chat_tokenizer):
    assert resolve(byte_tokenizer, is_transcript=True).is_raw
    assert resolve(chat_tokenizer, is_transcript=True).kind == "tokenizer"


@pytest.mark.parametrize("choice", ["auto", "tokenizer"])
def test_conversations_on_a_tokenizer_without_template_are_a_usage_error_that_names_model_and_way_out(byte_tokenizer, choice):
    with pytest.raises(ConfigError) as raised:
        resolve(byte_tokenizer, choice)
    assert raised.value.exit_code == 2
    assert "some/base has no chat template" in str(raised.value)
    assert "--template chatml" in raised.value.fix


def test_chatml_adds_the_tokens_a_base_model_lacks_and_names_their_ids(base_tokenizer, chat_pair):
    before = len(base_tokenizer)
    template = resolve(base_tokenizer, "chatml")
    assert template.new_tokens == ("<|im_start|>", "<|im_end|>")
    assert template.new_token_ids == (before, before + 1)
    assert base_tokenizer.eos_token == "<|im_end|>"
    assert "new" in template.description
    item = tokenize_record(chat_pair("What?", "Paris", "sea"), base_tokenizer, template)
    assert isinstance(item, TokenizedExample)
    assert item.completions[0][-1] == before + 1
    assert base_tokenizer.decode(item.prompt_ids) == "<s><|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n"


def test_chatml_on_a_tokenizer_that_knows_its_tokens_adds_none(byte_tokenizer):
    template = resolve(byte_tokenizer, "chatml")
    assert (template.new_tokens, template.new_token_ids) == ((), ())


def test_chatml_makes_a_token_of_a_word_that_was_ordinary_vocabulary(build):
    tokenizer = build["byte-level"](special=["<unk>", "<s>", "</s>"])
    tokenizer.add_tokens(["<|im_start|>"])
    number = tokenizer.convert_tokens_to_ids("<|im_start|>")
    template = resolve(tokenizer, "chatml")
    assert template.new_tokens == ("<|im_end|>",)
    assert tokenizer.added_tokens_decoder[number].special


def test_a_saved_chatml_tokenizer_renders_as_it_was_trained(base_tokenizer, chat_pair, tmp_path):
    from transformers import AutoTokenizer

    item = tokenize_record(chat_pair("What?", "Paris", "sea"), base_tokenizer, resolve(base_tokenizer, "chatml"))
    base_tokenizer.save_pretrained(tmp_path)
    saved = AutoTokenizer.from_pretrained(tmp_path)
    ids = saved.apply_chat_template([{"role": "user", "content": "What?"}], add_generation_prompt=True, return_dict=False)
    assert list(ids) == item.prompt_ids.tolist()
    assert saved.eos_token == "<|im_end|>"


def test_chatml_refuses_tools_rather_than_leave_them_out(base_tokenizer, chat_pair):
    tools = ({"type": "function", "function": {"name": "f"}},)
    problem = tokenize_record(chat_pair("What?", "Paris", "sea", tools=tools), base_tokenizer, resolve(base_tokenizer, "chatml"))
    assert "no place for tools" in problem.message


def test_a_template_file_is_used_and_stays_with_the_tokenizer(byte_tokenizer, tmp_path, chat_pair):
    path = tmp_path / "mine.jinja"
    path.write_text(
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    template = resolve(byte_tokenizer, str(path))
    assert (template.kind, template.description) == ("file", "the template file mine.jinja")
    item = tokenize_record(chat_pair("What?", "Paris", "sea"), byte_tokenizer, template)
    assert byte_tokenizer.decode([*item.prompt_ids, *item.completions[0]]) == "[user]What?</s>[assistant]Paris</s>"
    assert byte_tokenizer.chat_template == path.read_text()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{% for m in messages %}{{ m.content }}", "not valid jinja: line 1"),
        ("{{ 9 ** 9 ** 9 }}", "contains ** in line 1"),
        ("\n{{ 'a' * 10000000000 }}", "contains 10000000000 in line 2"),
    ],
)
def test_a_template_that_cannot_be_used_is_told_before_any_row(byte_tokenizer, tmp_path, source, said):
    path = tmp_path / "bad.jinja"
    path.write_text(source)
    with pytest.raises(ConfigError, match=r"bad\.jinja") as raised:
        resolve(byte_tokenizer, str(path))
    assert said in str(raised.value)


def test_a_template_that_never_ends_is_stopped_before_any_row(byte_tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("orpo.data.templates.SECONDS_PER_ROW", 0.3)
    path = tmp_path / "endless.jinja"
    path.write_text(ENDLESS)
    begin = time.monotonic()
    with pytest.raises(ConfigError, match="does not end"):
        resolve(byte_tokenizer, str(path))
    assert time.monotonic() - begin < 5


def test_a_template_that_never_ends_on_some_rows_makes_problems_of_those_and_gives_up_after_three(byte_tokenizer, chat_pair):
    byte_tokenizer.chat_template = (
        "{% if 'x' in messages[0].content %}" + ENDLESS + "{% endif %}{% for m in messages %}{{ m.content }}</s>{% endfor %}"
    )
    template = resolve(byte_tokenizer)
    renderer = Renderer(byte_tokenizer, template, ControlText(byte_tokenizer), seconds_per_row=0.2)
    with renderer.budget() as budget:
        kinds = [getattr(renderer.rendered(as_example(chat_pair(text, "b", "c")), budget), "kind", "text") for text in ("a", "x", "a", "x")]
        assert kinds == ["text", "template-too-slow", "text", "template-too-slow"]
        with pytest.raises(ConfigError, match=r"^data.jsonl:9: .*3 rows took too long"):
            renderer.rendered(as_example(chat_pair("x", "b", "c", line=9)), budget)


def test_a_template_that_blows_a_row_up_is_an_error_of_the_row(byte_tokenizer, chat_pair):
    byte_tokenizer.chat_template = "{{ 'spam' * 1000000 }}{% for m in messages %}{{ m.content }}</s>{% endfor %}"
    problem = tokenize_record(chat_pair("What?", "Paris", "sea"), byte_tokenizer, resolve(byte_tokenizer))
    assert problem.kind == "template-error"
    assert "it made 4,000,0" in problem.message


def test_a_template_cannot_reach_out_of_its_sandbox(byte_tokenizer, chat_pair):
    byte_tokenizer.chat_template = "{{ messages.__class__.__base__.__subclasses__() }}"
    problem = tokenize_record(chat_pair("What?", "Paris", "sea"), byte_tokenizer, resolve(byte_tokenizer))
    assert problem.kind == "template-error"
    assert "unsafe" in problem.message


def test_stopped_work_leaves_nothing_behind_that_could_strike_later():
    with TimeBudget(0.05) as budget:
        for _ in range(20):
            with pytest.raises(OverTimeError):
                budget.run(_spin)
            assert budget.run(lambda: sum(range(1000))) == 499500


def _spin() -> None:
    while True:
        pass


def test_the_time_budget_works_outside_the_main_thread():
    from concurrent.futures import ThreadPoolExecutor

    def stopped() -> bool:
        with TimeBudget(0.1) as budget, pytest.raises(OverTimeError):
            budget.run(_spin)
        return True

    with ThreadPoolExecutor(2) as threads:
        assert all(threads.map(lambda _: stopped(), range(2)))


@pytest.mark.parametrize("choice", ["qwen", "missing.jinja"])
def test_an_unknown_choice_lists_the_known_ones(byte_tokenizer, choice):
    with pytest.raises(ConfigError, match="auto, tokenizer, chatml, raw"):
        resolve(byte_tokenizer, choice)


def test_a_tokenizer_without_eos_is_refused(byte_tokenizer):
    byte_tokenizer.eos_token = None
    with pytest.raises(ConfigError, match="no end-of-sequence token"):
        resolve(byte_tokenizer, "raw")


def test_a_template_that_writes_the_date_is_told(byte_tokenizer):
    byte_tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}{{ messages[0].content }}"
    assert "today's date" in resolve(byte_tokenizer).notes[0]


def test_named_templates_are_chosen_by_the_tokenizer_and_tools_get_theirs(byte_tokenizer, chat_pair):
    body = "{% for m in messages %}{{ m.content }}</s>{% endfor %}"
    byte_tokenizer.chat_template = {"default": "plain:" + body, "tool_use": "tools:" + body}
    template = resolve(byte_tokenizer)
    tools = ({"type": "function", "function": {"name": "f"}},)
    for parts, name in (({}, "plain"), ({"tools": tools}, "tools")):
        item = tokenize_record(chat_pair("What?", "Paris", "sea", **parts), byte_tokenizer, template)
        assert byte_tokenizer.decode(item.prompt_ids) == f"{name}:What?</s>"


def test_fingerprints_tell_templates_and_tokenizers_apart_and_repeat(build, base_tokenizer):
    same, other = build["byte-level"](special=["<unk>", "<s>", "</s>"]), build["sentencepiece"]()
    assert tokenizer_fingerprint(base_tokenizer) == tokenizer_fingerprint(same) != tokenizer_fingerprint(other)
    same("some text", padding="max_length", truncation=True, max_length=8) if same.pad_token else same(
        "some text", truncation=True, max_length=2
    )
    assert tokenizer_fingerprint(base_tokenizer) == tokenizer_fingerprint(same)
    raw, transcript = resolve(same, "raw", is_chat=False).fingerprint, resolve(same, "raw").fingerprint
    chatml = resolve(same, "chatml").fingerprint
    assert len({raw, transcript, chatml}) == 3
    assert chatml == resolve(base_tokenizer, "chatml").fingerprint
    assert tokenizer_fingerprint(same) != tokenizer_fingerprint(build["byte-level"](special=["<unk>", "<s>", "</s>"]))


def test_what_a_tokenizer_was_used_for_before_changes_nothing(chat_tokenizer, chat_pair):
    pair = chat_pair("What is the capital of this country?", "It is Paris", "the sea")
    template = resolve(chat_tokenizer)
    expected = tokenize_record(pair, chat_tokenizer, template)
    for options in ({"truncation": True, "max_length": 2}, {"split_special_tokens": True}):
        chat_tokenizer("a text </s>", **options)
        found = tokenize_record(pair, chat_tokenizer, template)
        assert found.prompt_ids.tolist() == expected.prompt_ids.tolist()


def test_work_that_swallows_every_ordinary_exception_is_stopped_all_the_same():
    def stubborn() -> None:
        while True:
            try:
                _spin()
            except Exception:
                continue

    with TimeBudget(0.1) as budget, pytest.raises(OverTimeError):
        budget.run(stubborn)
