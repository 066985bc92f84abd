"""Cuts a JSON document of any size into its elements without parsing it, in bounded memory: bytes, offset and line of each."""

from __future__ import annotations

import re
from io import BufferedReader
from typing import NamedTuple

from orpo.data.byte_streams import BOM, CHUNK, DamagedStream

_BLANK = re.compile(rb"[ \t\r\n]*")
_SCALAR = re.compile(rb"[^\s,\[\]{}\"]+")
_STRING = rb'"[^"\\\n]*+(?:\\[^\n][^"\\\n]*+)*+'
# A string, or a bracket. JSON strings hold no raw line break, so a missing quote swallows one line, not the file.
# \Z: the string is not over where the buffer ends.
_TOKEN = re.compile(_STRING + rb'(?:"|\\?\n|\\?\Z)|[{}\[\]]')
# Everything up to the next bracket outside of whole strings, in one match: most of the work, without a step of Python per string.
_TO_BRACKET = re.compile(rb'[^"{}\[\]]*+(?:' + _STRING + rb'"[^"{}\[\]]*+)*+[{}\[\]]')
_DEPTH = {ord("{"): 1, ord("["): 1, ord("}"): -1, ord("]"): -1}


class Element(NamedTuple):
    """One value of the document. `data` is None if it was longer than the limit; `closed` is False if the file ended inside it."""

    offset: int
    line: int
    column: int  # bytes before it on its line
    data: bytes | None
    closed: bool = True


class Scanner:
    """A cursor over the values of a JSON document. Holds one element and a chunk at most."""

    def __init__(self, stream: BufferedReader, limit: int, *, offset: int = 0, line: int = 1) -> None:
        self._stream, self._limit = stream, limit
        self._buffer, self._at = b"", 0
        self._base, self._line, self._line_start = offset, line, offset  # of the buffer's first byte
        self._ended = False
        self._damage: DamagedStream | None = None
        if offset == 0 and self._more() and self._buffer.startswith(BOM):
            self._at = len(BOM)

    @property
    def line(self) -> int:
        """The line of the cursor."""
        return self._line + self._buffer.count(b"\n", 0, self._at)

    def peek(self) -> bytes:
        """The next byte that is not white space, b"" at the end of the file."""
        while True:
            blank = _BLANK.match(self._buffer, self._at)
            assert blank
            self._at = blank.end()
            if self._at < len(self._buffer):
                return self._buffer[self._at : self._at + 1]
            if not self._more():
                return b""

    def skip(self) -> None:
        """Moves past the byte that `peek` gave."""
        self._at += 1

    def take(self) -> Element:
        """The value that begins at the cursor (`peek` was called and gave no comma, colon or closing bracket)."""
        self._forget_before_cursor()
        offset, line, column = self._base, self._line, self._base - self._line_start
        closed = self._pass_scalar() if self._buffer[:1] not in (b'"', b"{", b"[") else self._pass_nested()
        giant = self._base != offset or self._at > self._limit
        return Element(offset, line, column, None if giant else self._buffer[: self._at], closed)

    def pass_junk(self) -> None:
        """Moves past text that begins no value, as far as the next comma or bracket, but at least one byte."""
        self._at += 1
        while self.peek() not in (b",", b"{", b"[", b"]", b"}", b'"', b""):
            self._at += 1

    def _pass_scalar(self) -> bool:
        while True:
            scalar = _SCALAR.match(self._buffer)
            end = scalar.end() if scalar else 1
            if end < len(self._buffer) or not self._more():
                self._at = min(end, len(self._buffer))
                return True
            self._drop_giant(max(end - 1, 0))

    def _pass_nested(self) -> bool:
        depth = start = 0
        to_bracket = _TO_BRACKET.match
        while True:
            token = to_bracket(self._buffer, start) if depth else None
            if token is None:  # at the first byte, near the end of the buffer, or at a string without its closing quote
                token = _TOKEN.search(self._buffer, start)
                to_bracket = _TOKEN.search if depth else to_bracket  # else a failing match would be tried again at every string
            if token is None or (token.end() == len(self._buffer) and _unfinished(token.group())):
                start = self._drop_giant(token.start() if token else len(self._buffer))
                if not self._more():
                    self._at = len(self._buffer)
                    return False
                to_bracket = _TO_BRACKET.match
                continue
            start = token.end()
            depth += _DEPTH.get(self._buffer[start - 1], 0)
            if depth == 0:
                self._at = start
                return True

    def _drop_giant(self, keep: int) -> int:
        """Drops the buffer before `keep` once it is longer than the limit; gives where `keep` lies now.

        Of a string that alone is longer, its opening quote and what may be half an escape are kept: enough to find its end.
        """
        if len(self._buffer) <= self._limit:
            return keep
        self._at = keep
        self._forget_before_cursor()
        if len(self._buffer) > self._limit:
            tail = b"\\" if _odd_backslashes(self._buffer) else b""
            self._base += len(self._buffer) - 1 - len(tail)
            self._buffer = b'"' + tail
        return 0

    def _forget_before_cursor(self) -> None:
        if breaks := self._buffer.count(b"\n", 0, self._at):
            self._line += breaks
            self._line_start = self._base + self._buffer.rfind(b"\n", 0, self._at) + 1
        self._base += self._at
        self._buffer, self._at = self._buffer[self._at :], 0

    def _more(self) -> bool:
        """Whether there were more bytes; they are in the buffer now."""
        if self._at and self._at == len(self._buffer):
            self._forget_before_cursor()
        wanted = max(CHUNK, min(len(self._buffer), 2**20))  # growing steps keep the copying of long elements small
        before = len(self._buffer)
        parts = [self._buffer]
        while not self._ended and wanted > 0:
            chunk = self._read()
            parts.append(chunk)
            wanted -= len(chunk)
        self._buffer = b"".join(parts)
        if self._damage and len(self._buffer) == before:
            self._damage.line = self._line + self._buffer.count(b"\n")
            raise self._damage
        return len(self._buffer) > before

    def _read(self) -> bytes:
        try:
            chunk = self._stream.read1(CHUNK)
        except DamagedStream as damage:  # told once everything before it was handed out
            self._damage, chunk = damage, b""
        self._ended = not chunk
        return chunk


def _unfinished(token: bytes) -> bool:
    return token.startswith(b'"') and (
        len(token) == 1 or token[-1:] not in (b'"', b"\n") or (token.endswith(b'"') and _odd_backslashes(token[:-1]))
    )


def _odd_backslashes(text: bytes) -> bool:
    return (len(text) - len(text.rstrip(b"\\"))) % 2 == 1
