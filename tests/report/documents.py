"""A page read as a document: whether it is well formed, and what it holds."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = {"meta"}


class Document(HTMLParser):
    """Checks nesting while it reads; keeps ids, references, attributes, headings and texts."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.headings: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        assert len(values) == len(attrs), f"an attribute of <{tag}> stands twice"
        self.attributes += [(tag, name, value) for name, value in values.items()]
        self.ids += [values["id"]] if "id" in values else []
        self.references += values.get("aria-labelledby", "").split() + [values["href"][1:] for _ in "x" if "href" in values]
        self.headings += [tag] if re.fullmatch("h[1-6]", tag) else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.texts.append(data)

    @property
    def text(self) -> str:
        """All text of the page, thin spaces as spaces."""
        return "".join(self.texts).replace("\u202f", " ")


class Exact(HTMLParser):
    """The exact values that stand beside the spelled ones, by section of the page."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.section = ""
        self.values: dict[str, list[float]] = {}
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "section":
            self.section = values["id"] or ""
        if tag == "data":
            self.values.setdefault(self.section, []).append(float(values["value"] or "nan"))
