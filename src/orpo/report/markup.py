"""HTML that cannot be injected into: names of our own and text of anybody's enter, `Html` leaves.

Only this file makes `Html`. A `str` handed to `element` is text, always, and goes through `escape`; so forgetting to
escape is not possible, and markup in a page can only come from the allow-lists below.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from dataclasses import dataclass

from orpo.report.escape import escape

_ELEMENTS = """
    html head meta title style body header main section footer nav article figure figcaption h1 h2 h3 h4 p ol li dl dt dd div span
    strong small code pre table thead tbody tr th td details summary data
    a svg desc g path line circle text tspan
"""
_ATTRIBUTES = """
    lang charset name content http-equiv class id dir href role scope value tabindex aria-label aria-labelledby aria-hidden
    viewBox d x y x1 y1 x2 y2 cx cy r dy text-anchor
"""
ELEMENTS, ATTRIBUTES = frozenset(_ELEMENTS.split()), frozenset(_ATTRIBUTES.split())
_VOID = frozenset({"meta"})


@dataclass(frozen=True, slots=True)
class Html:
    """Finished markup. Not a `str`, so that joining it with text by accident is an error instead of a hole."""

    markup: str


Child = Html | str | None
Attribute = str | int | float | bool | None


def element(name: str, /, *children: Child, **attributes: Attribute) -> Html:
    """`<name ...>children</name>`; strings are escaped, None is left out. `class_` and `aria_label` stand for `class` and `aria-label`."""
    assert name in ELEMENTS, f"<{name}> is not on the allow-list"
    opening = name + "".join(_attribute(key, value) for key, value in attributes.items() if value is not None and value is not False)
    if name in _VOID:
        assert not children, f"<{name}> has no content"
        return Html(f"<{opening}>")
    return Html(f"<{opening}>{join(children).markup}</{name}>")


def join(children: Iterable[Child]) -> Html:
    """All of `children` one after the other; strings are escaped, None is left out."""
    return Html("".join(child.markup if isinstance(child, Html) else escape(child) for child in children if child is not None))


def style_sheet(css: str) -> Html:
    """`<style>` with our own style sheet as it is; it must not be able to end the element."""
    assert "<" not in css, "a style sheet of ours holds no '<'"
    return Html(f"<style>{css}</style>")


def document(root: Html) -> str:
    """The whole page as text."""
    return f"<!DOCTYPE html>\n{root.markup}\n"


def plain_text(content: Html) -> str:
    """The text of `content` without its markup."""
    return html.unescape(re.sub(r"<[^>]*>", "", content.markup))


def _attribute(key: str, value: Attribute) -> str:
    name = key.removesuffix("_").replace("_", "-")
    assert name in ATTRIBUTES, f"attribute {name!r} is not on the allow-list"
    assert name != "href" or str(value).startswith("#"), "links of a report stay on its page"
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'
