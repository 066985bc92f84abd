"""What every page is: header and sections enter, one self-contained HTML document leaves. No script, no request."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from importlib.resources import files

from orpo.report.escape import clipped
from orpo.report.markup import Html, document, element, style_sheet
from orpo.report.verdict import Sentence

Section = tuple[str, str, Html | None]
"""(id, title, content); a section without content is left out."""


def whole_page(header: Html, sections: Iterable[Section], *, title: str, source: str, css: tuple[str, ...] = ("page.css",)) -> str:
    """The document: `header`, links to the sections, the sections, and a footer that says that it was made from `source`."""
    shown = [(name, heading, content) for name, heading, content in sections if content is not None]
    links = [element("a", heading, href=f"#{name}") for name, heading, _ in shown]
    footer = f"Made by orpo from {source}. This page runs no script and asks for nothing from anywhere."
    body = [
        header,
        element("nav", *links, aria_label="Parts of this report"),
        element("main", *(_section(name, heading, content) for name, heading, content in shown)),
        element("footer", element("p", footer)),
    ]
    styles = "".join(files("orpo.report").joinpath(name).read_text(encoding="utf-8") for name in css)
    return document(element("html", _head(title, styles), element("body", *body), lang="en"))


def _head(title: str, css: str) -> Html:
    # Stricter than 'unsafe-inline': the one style sheet is named by its hash, so no other style can apply.
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = f"default-src 'none'; script-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    metas = [
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
    ]
    return element("head", *metas, element("title", f"{clipped(title, 120)} \u2013 orpo report"), style_sheet(css))


def _section(name: str, title: str, content: Html) -> Html:
    return element("section", element("h2", title, id=f"{name}-heading"), content, id=name, aria_labelledby=f"{name}-heading")


def name_of(name: str) -> Html:
    """The name of a run or a pipeline, at most 60 letters of it, set apart from the words around it whatever its script."""
    return element("span", clipped(name, 60), class_="name", dir="auto")


def note(text: str) -> Html:
    """A sentence in the small grey type: how to read what follows, or what is not there."""
    return element("p", text, class_="note")


def sentences_list(sentences: Iterable[Sentence]) -> Html:
    """The sentences of a verdict, each with the rule it follows."""
    items = [
        element("li", element("p", sentence.content), element("small", "Rule: ", sentence.rule), class_=sentence.tone)
        for sentence in sentences
    ]
    return element("ol", *items, class_="verdict")
