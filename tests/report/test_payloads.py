"""Whatever a model, a data file or a machine wrote, the page has the same elements and attributes as with harmless text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from payloads import ATTRIBUTES, ELEMENTS, PAYLOADS, Skeleton

from orpo.report.card import render_card
from orpo.report.escape import escape, escape_markdown, visible
from orpo.report.markup import Html, element, join
from orpo.report.page import render_report


def infected(files: dict[str, Any], text: str) -> dict[str, Any]:
    """`files` with `text` in every place where text that is not ours can stand, names and keys included."""
    message = [{"role": text, "content": text}]
    sample = {
        "step": 1,
        "prompt": text,
        "chosen": text,
        "rejected": text,
        "before": text,
        "after": text,
        "before_tokens": 3,
        "source": text,
    }
    error = {"name": text, "rule": text, "found": text}
    sections = {
        **files["summary.json"]["sections"],
        "model": {"model": text, "objective": text, "dtype": text, "beta": 0.5},
        "alarms": [text, error],
    }
    summary = {"command": [text, "--x", text], "status": "failed", "error": text, "started": text, "finished": text, "sections": sections}
    report = {
        "shape": text,
        "rows": text,
        "pairs": 3,
        "errors": text,
        "template": text,
        "dropped": {text: 1, "other": text},
        "warnings": {text: 2},
    }
    report |= {
        "findings": [{"kind": text, "severity": "dropped", "effect": text, "fix": text}, text],
        "lengths": {"unit": text, "longer_share": text, "mean_chosen": text, "mean_rejected": 1.5},
        "repeats": {"duplicates": text, "near_duplicates": 1, "method": text},
        "max_lengths": {"limits": [{"max_length": text, "rows_over": 1}, text], "suggested": 64, "rows_whole_share": 0.5, "rule": text},
        "tokens": {text: {text: 1, "max": text}, "cut": text},
        "files": [{"path": text, "size": text, "sha256": text}, text, {text: text}],
    }
    report["eval_data"] = {**report}
    return {
        **files,
        "summary.json": files["summary.json"] | summary,
        "samples.jsonl": [sample, sample | {"prompt": message, "before": {"odd": text}, "after": [text]}],
        "data_report.json": report,
        "env.json": {"python": text, "libraries": {"orpo": text, text: text}, "machine": {text: [text]}, "gpus": [text]},
    }


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_a_payload_in_every_field_changes_no_element_and_no_attribute(payload: str, make_run: Any, orpo_files: dict[str, Any]) -> None:
    page = render_report(make_run(infected(orpo_files, payload)))
    found = Skeleton(page)
    assert found.nodes == Skeleton(render_report(make_run(infected(orpo_files, "harmless")))).nodes
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
    text = render_card(make_run(infected(orpo_files, payload)))
    header, body = text.removeprefix("---\n").split("\n---\n", 1)
    assert "<" not in "".join(body.split("\n```")[::2])
    assert re.findall(r"(?<!\\)\]\((.*?)\)", body) == ["report_plot.png"]
    assert header.count("\n") < 12
    assert text.encode("utf-8")


def test_the_payloads_reach_all_their_places(make_run: Any, orpo_files: dict[str, Any]) -> None:
    page = Skeleton(render_report(make_run(infected(orpo_files, "harmless"))))
    assert page.text.count("harmless") == 78


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
