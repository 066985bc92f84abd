"""Whatever a model, a data file or a machine wrote, the page has the same elements and attributes as with harmless text."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from orpo.report.card import render_card
from orpo.report.escape import escape, escape_markdown, visible
from orpo.report.markup import Html, element, join
from orpo.report.page import render_report

PAYLOADS = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<ScRiPt src=//evil.example/x.js></ScRiPt>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<svg><animate onbegin=alert(1) attributeName=x dur=1s>",
    "<math><mtext><table><mglyph><style><!--</style><img src=x onerror=alert(1)>",
    "</title><script>alert(1)</script>",
    "</style><script>alert(1)</script>",
    "</textarea><script>alert(1)</script>",
    "</pre></code></div></section></main><h1>owned</h1>",
    "</svg></figure><iframe src=javascript:alert(1)></iframe>",
    "</text><foreignObject><body onload=alert(1)>",
    "</desc></title><use href='data:image/svg+xml,x'/>",
    '" onmouseover="alert(1)',
    "' onmouseover='alert(1)",
    "` onmouseover=`alert(1)",
    '"><script>alert(1)</script>',
    '" style="position:fixed;inset:0" x="',
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "<a href='javascript:alert(1)'>x</a>",
    "<a href=https://evil.example>click</a>",
    "<meta http-equiv=refresh content='0;url=https://evil.example'>",
    "<base href=https://evil.example/>",
    "<link rel=stylesheet href=https://evil.example/x.css>",
    "<style>body{display:none}</style>",
    "<form action=https://evil.example><input name=x></form>",
    "<object data=x></object><embed src=x>",
    "<!-- comment --><!--",
    "<![CDATA[<script>alert(1)</script>]]>",
    "<?xml version='1.0'?><?php echo 1 ?>",
    "<!DOCTYPE html><html><body onload=alert(1)>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;script&#62;alert(1)&#x3c;/script>",
    "&amp;amp;&nosuch;&#0;&#xD800;",
    "${alert(1)} #{7*7} {{7*7}} {% raw %} <%= 7*7 %>",
    "`backticks` and ```fences```",
    "\u202eright to left override\u202c \u2066isolate\u2069",
    "zero\u200bwidth \ufeffbom soft\u00adhyphen \u2028 line \u2029 paragraph",
    "nul \x00 escape \x1b[31m bell \x07 delete \x7f csi \x9b31m",
    "lone \ud800 and \udfff surrogates",
    "tags \U000e0001\U000e0041 noncharacters \ufffe\uffff\ufdd0",
    "\uff1cscript\uff1e alert(1) \uff1c/script\uff1e",
    "e\u0301" + "\u0301" * 400,
    "w" * 5000,
    "\r\nSet-Cookie: x=1\r\n\r\n<script>alert(1)</script>",
    "$\\href{javascript:alert(1)}{x}$ \\input{/etc/passwd}",
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "family \U0001f468\u200d\U0001f469\u200d\U0001f467 and \u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
)
ALLOWED_ELEMENTS = """
    html head meta title style body header nav main section footer article figure figcaption h1 h2 h3 h4 p ol li dl dt dd div span
    small strong code pre table thead tbody tr th td details summary data a svg desc g path line circle text tspan
"""
ALLOWED_ATTRIBUTES = """
    lang charset http-equiv name content class id dir href role scope value tabindex aria-label aria-labelledby aria-hidden
    viewbox d x y x1 y1 x2 y2 cx cy r dy text-anchor
"""
ELEMENTS, ATTRIBUTES = set(ALLOWED_ELEMENTS.split()), set(ALLOWED_ATTRIBUTES.split())


class Skeleton(HTMLParser):
    """Elements and attribute names in order; texts apart. Comments, declarations and instructions count as elements of their own."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.nodes: list[tuple[str, tuple[str, ...]]] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.nodes.append((tag, tuple(name for name, _ in attrs)))
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        self.nodes.append((f"/{tag}", ()))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        self.nodes.append(("comment", ()))

    def handle_pi(self, data: str) -> None:
        self.nodes.append(("instruction", ()))

    def handle_decl(self, decl: str) -> None:
        self.nodes.append((f"declaration {decl}", ()))

    def unknown_decl(self, data: str) -> None:
        self.nodes.append(("unknown declaration", ()))

    @property
    def text(self) -> str:
        """All text of the page."""
        return "".join(self.texts)


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
    assert page.text.count("harmless") == 60


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
