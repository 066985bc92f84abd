"""Rows of JSON files that are one document: an array of objects, or an object whose key "data" holds it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from orpo.core.records import Source
from orpo.data.byte_streams import ByteFile, DamagedStream
from orpo.data.json_rows import CUT_FIX, damaged_file, giant, row_or_raise
from orpo.data.json_scanner import Element, Scanner
from orpo.data.json_values import BadValue, json_object
from orpo.data.row import Problem, Row
from orpo.data.row_file import MAX_ROW_BYTES, FileDigest
from orpo.errors import DataError


@dataclass(frozen=True, slots=True)
class JsonArray:
    """A file that is one JSON document; a position is the byte offset of an element."""

    file: ByteFile
    layout: Literal["array", "data"] = "array"
    max_row_bytes: int = MAX_ROW_BYTES

    @property
    def description(self) -> str:
        """The kind of file in words."""
        words = {"array": "json array", "data": 'json {"data": [...]}'}[self.layout]
        return ", ".join(filter(None, (words, self.file.compression)))

    def items(self) -> Iterator[tuple[int, Row | Problem]]:
        """(byte offset, row or problem), element by element."""
        with self.file.open() as stream:
            scanner = Scanner(stream, self.max_row_bytes)
            try:
                if self.layout == "data":
                    problem = self._enter_data(scanner)
                    if problem:
                        yield 0, problem
                        return
                scanner.peek()
                scanner.skip()
                yield from self._elements(scanner)
                yield from self._after(scanner)
            except DamagedStream as damage:
                yield 0, damaged_file(self.file.name, damage)

    def read(self, position: int, number: int) -> Row:
        """The row of the element at byte `position`."""
        with self.file.open(position) as stream:
            scanner = Scanner(stream, self.max_row_bytes, offset=position, line=number)
            if not scanner.peek():
                raise DataError("the row is no longer there", where=f"{self.file.name}:{number}")
            item = self._item(scanner.take())
        return row_or_raise(item, self.file.name)

    def digests(self) -> list[FileDigest]:
        """Hash and size of the file."""
        return [self.file.digest()]

    def _elements(self, scanner: Scanner) -> Iterator[tuple[int, Row | Problem]]:
        """The elements up to the closing bracket, which is passed. A comma missing or too many is a problem, not the end."""
        before, num_elements, line = "[", 0, scanner.line
        while byte := scanner.peek():
            if byte in b"],":
                if before == "," or (before == "[" and byte == b","):
                    yield 0, self._malformed(scanner, "a comma too many between rows")
                scanner.skip()
                if byte == b"]":
                    if not num_elements:
                        yield 0, self._problem("empty-file", scanner.line, "the array holds no rows", "check how the file was written")
                    return
                before = ","
            elif byte in b"}:":
                yield 0, self._malformed(scanner, f"{byte.decode()!r} between rows")
                scanner.pass_junk()
            else:
                if before == "value":
                    yield 0, self._malformed(scanner, "no comma before this row")
                element, before = scanner.take(), "value"
                num_elements, line = num_elements + 1, scanner.line
                yield element.offset, self._item(element)
        yield 0, self._problem("cut-file", line, "the file ends before the closing ] of its array", CUT_FIX)

    def _item(self, element: Element) -> Row | Problem:
        source = Source(self.file.name, element.line)
        if element.data is None:
            problem = giant(source, "a row", self.max_row_bytes)
            lost = "the file ends inside this row, which is too long to be one: a quote or brace is missing"
            return problem if element.closed else Problem("cut-row", lost, source, fix=CUT_FIX)
        try:
            return Row(json_object(element.data), source)
        except BadValue as bad:
            if element.closed:
                return bad.problem(self.file.name, element.line, element.column)
            return Problem(
                "cut-row",
                f"the row that begins here is cut: the file ends inside its object ({bad.text(element.column)})",
                source,
                fix=CUT_FIX,
            )

    def _enter_data(self, scanner: Scanner) -> Problem | None:
        """None with the cursor at the array of "data"; a problem if the object has none."""
        scanner.peek()
        scanner.skip()
        line, lists = scanner.line, []
        while scanner.peek() == b'"':
            key = (scanner.take().data or b"").decode("utf-8", "replace").strip('"')
            if scanner.peek() != b":":
                return self._malformed(scanner, f"no colon after the key {key!a}")
            scanner.skip()
            is_list = scanner.peek() == b"["
            if key == "data" and is_list:
                return None
            lists += [key] if is_list else []
            if scanner.peek() and not scanner.take().closed:
                return self._problem("cut-file", scanner.line, f"the file ends inside the value of {key!a}, which began earlier", CUT_FIX)
            if scanner.peek() == b",":
                scanner.skip()
        fix = f'rename the key {" or ".join(map(ascii, lists))} to "data"' if lists else "write one object per line, or an array of objects"
        return self._problem("not-rows", line, 'the file is one object over several lines, without a key "data" that holds rows', fix)

    def _after(self, scanner: Scanner) -> Iterator[tuple[int, Problem]]:
        """What stands after the array: the other keys of the object, then nothing."""
        if self.layout == "data":
            while (byte := scanner.peek()) and byte != b"}":
                if byte in b",:]":
                    scanner.skip()
                elif scanner.take().data == b'"data"' and scanner.peek() == b":":
                    yield (
                        0,
                        self._problem("duplicate-key", scanner.line, 'the key "data" stands twice in one object', "keep one of the two"),
                    )
                    return
            if not byte:
                yield 0, self._problem("cut-file", scanner.line, "the file ends before the closing } of its object", CUT_FIX)
                return
            scanner.skip()
        if scanner.peek():
            message = "something follows the end of the JSON document; rows after here were not read"
            yield 0, self._problem("malformed-json", scanner.line, message, "write one array, or one object per line")

    def _malformed(self, scanner: Scanner, what: str) -> Problem:
        return self._problem("malformed-json", scanner.line, f"not JSON: {what}", "write the file with json.dump")

    def _problem(self, kind: str, line: int, message: str, fix: str) -> Problem:
        return Problem(kind, message, Source(self.file.name, line), fix=fix)
