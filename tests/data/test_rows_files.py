"""Paths: types by name held against content, folders, splits, compression, fingerprints, and what cannot be opened."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from orpo.data.row import Problem, Row
from orpo.data.rows import open_data
from orpo.errors import DataError

LINES = '{"prompt": "a"}\n{"prompt": "b"}\n'


def values(source: Path | str) -> list[object]:
    """Values of rows, kinds of problems."""
    return [item.value if isinstance(item, Row) else item.kind for item in open_data(str(source))]


def zstd(data: bytes, path: Path) -> None:
    with pa.CompressedOutputStream(str(path), "zstd") as stream:
        stream.write(data)


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json", "a.JSONL", "a.jsonl.gz", "a.json.zst"])
def test_object_per_line_is_read_under_each_accepted_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith(".zst"):
        zstd(LINES.encode(), path)
    else:
        path.write_bytes(gzip.compress(LINES.encode(), mtime=0) if name.endswith(".gz") else LINES.encode())
    reader = open_data(str(path))
    pairs = list(reader.iter_with_handles())
    assert [item.value for _, item in pairs if isinstance(item, Row)] == [{"prompt": "a"}, {"prompt": "b"}]
    assert [reader.read(handle) for handle, _ in pairs if handle] == [item for _, item in pairs]


def test_the_description_names_kind_and_compression(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(LINES.encode(), mtime=0))
    (tmp_path / "b.json").write_text(json.dumps([{"a": 1}]))
    assert open_data(str(tmp_path / "a.jsonl.gz")).description == "jsonl, gzip"
    assert open_data(str(tmp_path / "b.json")).description == "json array"


def test_a_truncated_zst_gives_the_rows_before_the_cut(tmp_path: Path) -> None:
    zstd(b"".join(b'{"a": "%s"}\n' % os.urandom(30).hex().encode() for _ in range(20_000)), tmp_path / "whole.zst")
    whole = (tmp_path / "whole.zst").read_bytes()
    (tmp_path / "a.jsonl.zst").write_bytes(whole[: len(whole) // 2])
    *rows, problem = open_data(str(tmp_path / "a.jsonl.zst"))
    assert len(rows) > 5000
    assert isinstance(problem, Problem)
    assert problem.kind == "damaged-file"
    assert problem.source is not None
    assert problem.source.number == len(rows) + 1


@pytest.mark.parametrize("name", ["a.json.gz", "a.csv.gz"])
def test_a_truncated_array_or_csv_gives_the_rows_before_the_cut_and_the_line_reached(tmp_path: Path, name: str) -> None:
    words = [os.urandom(20).hex() for _ in range(5000)]
    text = "text\n" + "\n".join(words) if name == "a.csv.gz" else "[\n" + ",\n".join(json.dumps({"text": word}) for word in words) + "\n]"
    whole = gzip.compress(text.encode(), mtime=0)
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    *rows, problem = open_data(str(tmp_path / name))
    assert len(rows) > 2000
    assert [row.value["text"] for row in rows if isinstance(row, Row)] == words[: len(rows)]
    assert isinstance(problem, Problem)
    assert problem.kind == "damaged-file"
    assert problem.source is not None
    assert problem.source.number == len(rows) + 2  # the line after the last whole row, which the cut lies in


@pytest.mark.parametrize(
    ("name", "content", "kind", "words"),
    [
        ("a.jsonl", b"", "empty-file", "the file is empty"),
        ("a.jsonl.gz", gzip.compress(b"", mtime=0), "empty-file", "empty once decompressed"),
        ("a.parquet", b"", "empty-file", "the file is empty"),
        ("a.jsonl", LINES.encode("utf-16"), "utf-16", "looks like UTF-16"),
        ("a.jsonl", LINES.encode("utf-16-le"), "utf-16", "looks like UTF-16"),
        ("a.csv", "a,b\n1,2\n".encode("utf-16-be"), "utf-16", "looks like UTF-16"),
        ("a.json", LINES.encode("utf-32"), "utf-16", "looks like UTF-32"),
        ("a.jsonl", bytes(500), "zero-bytes", "zero bytes"),
        ("a.jsonl", b"prompt,chosen,rejected\na,b,c\n", "wrong-file-type", "looks like a csv header"),
        ("a.json", b'"prompt","chosen"\n"a","b"\n', "wrong-file-type", "looks like a csv header"),
        ("a.csv", LINES.encode(), "wrong-file-type", "looks like JSON"),
        ("a.json", b"PAR1....", "wrong-file-type", "is parquet"),
        ("a.parquet", LINES.encode(), "wrong-file-type", "named as parquet"),
        ("a.arrow", b"PAR1....", "wrong-file-type", "is parquet"),
        ("a.jsonl", gzip.compress(LINES.encode(), mtime=0), "wrong-file-type", "is gzip"),
        ("a.jsonl.gz", LINES.encode(), "wrong-file-type", "named as gzip"),
        ("a.csv", b"PK\x03\x04....", "wrong-file-type", "spreadsheet"),
        ("a.jsonl", b"<!DOCTYPE html><html></html>", "wrong-file-type", "web page"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\n", "wrong-file-type", "git-lfs"),
        ("a.jsonl", LINES.replace("\n", "\r").encode(), "line-ends", "carriage return alone"),
    ],
)
def test_content_that_contradicts_the_name_is_one_error_at_line_1(tmp_path: Path, name: str, content: bytes, kind: str, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    (problem,) = open_data(str(path))
    assert isinstance(problem, Problem)
    assert (problem.kind, problem.severity, str(problem.source)) == (kind, "error", f"{path}:1")
    assert words in problem.message
    assert problem.fix


def test_a_path_that_is_missing_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(LINES)
    with pytest.raises(DataError) as error:
        open_data(str(tmp_path / "trian.jsonl"))
    assert str(error.value).startswith(f"{tmp_path / 'trian.jsonl'}: there is no such file or folder")
    assert error.value.fix == f"nearest names in {tmp_path}: train.jsonl"


def test_a_mistyped_path_of_two_parts_is_not_taken_for_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text(LINES)
    monkeypatch.chdir(tmp_path)
    for wrong in ("data/trian", "other/train.jsonl"):
        with pytest.raises(DataError, match="no such file"):
            open_data(wrong)


def test_an_unknown_ending_lists_what_is_accepted(tmp_path: Path) -> None:
    for name, words in (("a.xlsx", "rename or convert"), ("a.parquet.gz", "compressed inside"), ("notes", "rename or convert")):
        (tmp_path / name).write_text("x")
        with pytest.raises(DataError) as error:
            open_data(str(tmp_path / name))
        assert ".jsonl" in error.value.expected
        assert words in error.value.fix


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match="not a regular file"):
        open_data(str(tmp_path / "a.jsonl"))


def test_a_file_without_permission_is_a_data_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(LINES)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(DataError, match="Permission denied"):
        open_data(str(path))


def test_a_refused_open_is_a_data_error_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(LINES)

    def refuse(self: Path, *arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match="Permission denied") as error:
        open_data(str(path))
    assert "chmod" in error.value.fix


def test_a_folder_is_read_in_the_order_of_names_and_handles_tell_files_apart(tmp_path: Path) -> None:
    for index, name in enumerate(["b.jsonl", "a.json", "c.jsonl.gz", "README.md", ".hidden.jsonl"]):
        text = json.dumps({"from": name}).encode() + b"\n"
        (tmp_path / name).write_bytes(gzip.compress(text, mtime=0) if name.endswith(".gz") else text)
        assert index < 5
    reader = open_data(str(tmp_path))
    pairs = list(reader.iter_with_handles())
    assert [item.value["from"] for _, item in pairs if isinstance(item, Row)] == ["a.json", "b.jsonl", "c.jsonl.gz"]
    assert [reader.read(handle) for handle, _ in pairs if handle] == [item for _, item in pairs]
    assert reader.description == "3 files: jsonl and jsonl, gzip"


def test_a_folder_of_train_and_test_files_is_never_mixed(tmp_path: Path) -> None:
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"from": name}) + "\n")
    warning, *rows = open_data(str(tmp_path))
    assert isinstance(warning, Problem)
    assert (warning.kind, warning.severity, warning.message) == (
        "split-chosen",
        "warning",
        f"{tmp_path}: read the split train; not read: test",
    )
    assert [row.value["from"] for row in rows if isinstance(row, Row)] == ["train-00000-of-00002", "train-00001-of-00002"]
    assert values(f"{tmp_path}:test") == [{"from": "test-00000-of-00001"}]
    assert [row.value for row in open_data(str(tmp_path), split="test") if isinstance(row, Row)] == [{"from": "test-00000-of-00001"}]
    with pytest.raises(DataError, match="no split 'dev'") as error:
        open_data(str(tmp_path), split="dev")
    assert error.value.expected == "one of: test, train"


def test_a_folder_of_two_held_out_sets_asks_which(tmp_path: Path) -> None:
    for name in ("test_prefs", "test_sft"):
        (tmp_path / f"{name}.jsonl").write_text(LINES)
    with pytest.raises(DataError, match="several splits") as error:
        open_data(str(tmp_path))
    assert error.value.expected == "one of: test_prefs, test_sft"


def test_a_folder_of_mixed_types_or_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data files; it is empty"):
        open_data(str(tmp_path))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jsonl").write_text(LINES)
    with pytest.raises(DataError) as error:
        open_data(str(tmp_path))
    assert error.value.fix == f"name a folder inside it, such as {tmp_path / 'data'}"
    (tmp_path / "a.jsonl").write_text(LINES)
    (tmp_path / "b.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"mixes types \(csv, json\): a.jsonl, b.csv"):
        open_data(str(tmp_path))


def test_files_of_a_folder_that_are_no_data_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(LINES)
    (tmp_path / "notes.txt").write_text("x")
    warning = next(iter(open_data(str(tmp_path))))
    assert isinstance(warning, Problem)
    assert (warning.kind, warning.severity) == ("files-skipped", "warning")
    assert "notes.txt" in warning.message


def test_a_split_of_a_single_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(LINES)
    with pytest.raises(DataError, match="no split 'train'"):
        open_data(str(tmp_path / "a.jsonl"), split="train")


def test_the_fingerprint_is_hash_and_size_of_the_bytes_on_disk(tmp_path: Path) -> None:
    content = gzip.compress(LINES.encode(), mtime=0)
    (tmp_path / "a.jsonl.gz").write_bytes(content)
    (tmp_path / "b.jsonl").write_text("")
    reader = open_data(str(tmp_path))
    assert [tuple(file) for file in reader.files] == [
        (str(tmp_path / "a.jsonl.gz"), hashlib.sha256(content).hexdigest(), len(content)),
        (str(tmp_path / "b.jsonl"), hashlib.sha256(b"").hexdigest(), 0),
    ]


def test_the_module_is_imported_without_torch_datasets_or_pyarrow() -> None:
    code = "import sys, orpo.data.rows; print(sorted({'torch', 'datasets', 'pyarrow', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
