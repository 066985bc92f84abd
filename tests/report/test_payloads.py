"""Whatever a model, a data file or a machine wrote, the page has the same elements and attributes as with harmless text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from infection import infected, marked, rich, text_places
from payloads import ATTRIBUTES, ELEMENTS, PAYLOADS, Skeleton

from orpo.report.card import render_card
from orpo.report.escape import escape, escape_markdown, visible
from orpo.report.markup import Html, element, join
from orpo.report.page import render_report

PROBLEM = ("file", "kind", "message", "fix")
OF_THE_MODEL = (("family",), ("engine",), ("engine_refused", "varlen"), ("options", "nll_over"))
NOT_SHOWN = {("summary.json", "sections", "asked"), ("env.json", "command", "[]"), ("data_report.json", "reads")}
NOT_SHOWN |= {("held_out.jsonl", "[]", "source")}  # its file is, where there are several: test_pairs.py
NOT_SHOWN |= {("summary.json", "sections", "model", *name) for name in OF_THE_MODEL}
NOT_SHOWN |= {("data_report.json", "findings", "[]", *name) for name in (("message",), ("places", "[]"))}
NOT_SHOWN |= {("data_report.json", "lengths", "rule")}
NOT_SHOWN |= {("data_report.json", part, "[]", name) for part in ("first_dropped", "first_warnings", "errors") for name in PROBLEM}
"""Texts of a run directory that no page shows: they are in the settings, or for resuming, or said before training begins."""


@pytest.mark.parametrize("numbers", [False, True], ids=["texts", "numbers"])
@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_a_payload_in_every_field_changes_no_element_and_no_attribute(
    payload: str, numbers: bool, make_run: Any, orpo_files: dict[str, Any]
) -> None:
    files = rich(orpo_files)
    page = render_report(make_run(infected(files, payload, numbers=numbers)))
    found = Skeleton(page)
    assert found.nodes == Skeleton(render_report(make_run(infected(files, "harmless", numbers=numbers)))).nodes
    assert {tag.removeprefix("/") for tag, _ in found.nodes} - {"declaration DOCTYPE html"} <= ELEMENTS
    assert {name for _, names in found.nodes for name in names} <= ATTRIBUTES
    assert all(value.startswith("#") for _, name, value in found.attributes if name == "href")
    assert page.encode("utf-8")
    assert visible(payload)[:60].replace("\r", "") in found.text


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_a_payload_in_the_config_stays_text(payload: str, make_run: Any, orpo_files: dict[str, Any]) -> None:
    config = f"model: {json.dumps(payload)}  # {payload}\n".encode("utf-8", "replace").decode()
    found = Skeleton(render_report(make_run({**orpo_files, "config.resolved.yaml": config})))
    assert {tag.removeprefix("/") for tag, _ in found.nodes} - {"declaration DOCTYPE html"} <= ELEMENTS
    assert {name for _, names in found.nodes for name in names} <= ATTRIBUTES


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_a_payload_makes_no_html_and_no_link_in_the_model_card(payload: str, make_run: Any, orpo_files: dict[str, Any]) -> None:
    text = render_card(make_run(infected(rich(orpo_files), payload)))
    header, body = text.removeprefix("---\n").split("\n---\n", 1)
    assert "<" not in "".join(body.split("\n```")[::2])
    assert re.findall(r"(?<!\\)\]\((.*?)\)", body) == ["report_plot.png"]
    assert header.count("\n") < 12
    assert text.encode("utf-8")


def test_the_payloads_reach_the_page_from_every_text_that_it_shows(make_run: Any, orpo_files: dict[str, Any]) -> None:
    files, marks = marked(rich(orpo_files))
    shown = Skeleton(render_report(make_run(files))).text.lower()
    assert {place for mark, place in marks.items() if mark not in shown} == NOT_SHOWN
    assert len(set(marks.values()) - NOT_SHOWN) > 30


@pytest.mark.parametrize("objective", ["orpo", "kto"])
def test_a_payload_stands_in_every_text_that_a_real_run_writes(
    objective: str, tiny_llama: Path, tmp_path: Path, orpo_files: dict[str, Any]
) -> None:
    import orpo

    rows = [{"prompt": f"what is {i}?", "chosen": f" it is {i}.", "rejected": " no" if i else ""} for i in range(9)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"max_steps": 1, "pairs_per_step": 4, "dtype": "float32", "holdout": 2, "num_samples": 1, "max_new_tokens": 2}
    run = orpo.train(
        model=str(tiny_llama), data=str(tmp_path / "pairs.jsonl"), output_dir=str(tmp_path / "run"), objective=objective, **settings
    )
    written = {path.name: _read(path) for path in run.run_dir.glob("*.json*")}
    known = {general(place) for place in text_places(rich(orpo_files))}
    assert {general(place) for place in text_places(written)} - known == set()


def _read(path: Path) -> Any:
    text = path.read_text()
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)


def general(place: tuple[str, ...]) -> tuple[str, ...]:
    """`place`, with one name for all those of a table whose names are data: libraries, kinds of problems, refused paths, options."""
    tables = ("libraries", "dropped", "warnings", "unlisted", "engine_refused", "options")
    cut = next((i for i, name in enumerate(place) if name in tables), len(place))
    return (*place[: cut + 1], *("*" for _ in place[cut + 1 :]))


def test_a_run_directory_may_be_named_like_markup(tmp_path: Path, make_run: Any) -> None:
    page = render_report(make_run("orpo", name="<svg onload=alert(1)>"))
    assert Skeleton(page).nodes == Skeleton(render_report(make_run("orpo", name="plain"))).nodes


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_escaped_text_parses_back_to_the_visible_text_in_both_contexts(payload: str) -> None:
    found = Skeleton(f'<p title="{escape(payload)}">{escape(payload)}</p>')
    assert [tag for tag, _ in found.nodes] == ["p", "/p"]
    assert found.attributes == [("p", "title", visible(payload))]
    assert found.text == visible(payload)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nb\tc", "a\nb\tc"),
        ("\x00\r\x1b\x9b", "\\x00\\x0d\\x1b\\x9b"),
        ("\u202e\u2066\ufeff\u200b\u00ad", "\\u202e\\u2066\\ufeff\\u200b\\xad"),
        ("\ud800\udfff", "\\ud800\\udfff"),
        ("\U000e0041\ufffe\U0001ffff", "\\U000e0041\\ufffe\\U0001ffff"),
        ("\u2028\u2029", "\\u2028\\u2029"),
        ("\u200c\u200d \u05e9 e\u0301 \U0001f600", "\u200c\u200d \u05e9 e\u0301 \U0001f600"),
    ],
)
def test_what_cannot_be_seen_is_spelled_out_and_what_scripts_need_stays(text: str, expected: str) -> None:
    assert visible(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b*c`d", "a\\_b\\*c\\`d"),
        ("[x](y) ![i](j)", "\\[x\\](y) !\\[i\\](j)"),
        ("https://x.example www.y.example", "https\\://x.example www\\.y.example"),
        ("<b> & |\nnext", "&lt;b&gt; &amp; \\| next"),
        ("$x$ ~~y~~ # z", "\\$x\\$ \\~\\~y\\~\\~ \\# z"),
    ],
)
def test_markdown_shows_itself(text: str, expected: str) -> None:
    assert escape_markdown(text) == expected


def test_a_str_is_always_text_and_only_html_is_markup() -> None:
    assert element("p", "<b>", element("code", "x"), None, id="a<b").markup == '<p id="a&lt;b">&lt;b&gt;<code>x</code></p>'
    assert join(["<", Html("<p></p>")]).markup == "&lt;<p></p>"


@pytest.mark.parametrize(
    ("name", "attributes"), [("script", {}), ("img", {}), ("p", {"onclick": "x"}), ("p", {"style": "x"}), ("a", {"href": "javascript:x"})]
)
def test_elements_attributes_and_links_off_the_list_are_refused(name: str, attributes: dict[str, str]) -> None:
    with pytest.raises(AssertionError):
        element(name, **attributes)


def test_a_sample_of_100000_characters_is_cut_with_the_count_stated(make_run: Any, orpo_files: dict[str, Any]) -> None:
    row = {"step": 1, "prompt": "p", "before": "b" * 100_000, "after": "a"}
    page = render_report(make_run({**orpo_files, "samples.jsonl": [row]}))
    assert "b" * 2000 + "\u2026 [cut here: 98\u202f000 of 100\u202f000 characters are not shown]" in page
    assert "b" * 2001 not in page
