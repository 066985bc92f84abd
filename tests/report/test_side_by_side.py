"""Several runs on one page: what differs comes first, figures are those of the files, and what cannot be compared is said."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from documents import Document, Exact

from orpo.errors import StorageError, UserError
from orpo.report.rewriting import write_page
from orpo.report.side_by_side import render_side_by_side
from orpo.report.side_by_side.runs import unique_names


def changed(files: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """`files` with another line in the config."""
    assert old in files["config.resolved.yaml"]
    return {**files, "config.resolved.yaml": files["config.resolved.yaml"].replace(old, new)}


def cells(page: str, section: str) -> list[list[str]]:
    """The rows of the first table of a section, as texts."""
    table = page.split(f'<section id="{section}"')[1].split("<tbody>")[1].split("</tbody>")[0]
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in table.split("</tr>")]
    return [[re.sub(r"<[^>]*>", "", cell).replace("\u202f", " ") for cell in row] for row in rows if row]


def test_the_page_is_well_formed_small_and_asks_for_nothing(make_run: Any) -> None:
    runs = [make_run(kind, name=f"{kind}-1") for kind in ("orpo", "sft", "no-eval", "failed")]
    text = render_side_by_side(runs)
    page = Document(text)
    assert page.headings.count("h1") == 1
    assert len(page.ids) == len(set(page.ids))
    assert set(page.references) <= set(page.ids)
    assert "://" not in text
    assert len(text.encode()) < 100_000


def test_only_what_differs_is_listed_and_it_comes_first(make_run: Any, orpo_files: dict[str, Any]) -> None:
    other = changed(changed(orpo_files, "beta: 0.5", "beta: 0.1"), "output_dir: runs/demo-1", "output_dir: runs/demo-2")
    page = render_side_by_side([make_run(orpo_files, name="a"), make_run(other, name="b")])
    assert cells(page, "differences") == [["beta", "0.5", "0.1"]]
    assert page.index('id="differences"') < page.index('id="curves"') < page.index('id="figures"') < page.index('id="replies"')


def test_a_setting_of_one_run_alone_differs_and_equal_runs_say_so(make_run: Any, orpo_files: dict[str, Any]) -> None:
    other = changed(orpo_files, "seed: 7", "seed: 7\nwarmup_steps: 10")
    page = render_side_by_side([make_run(orpo_files, name="a"), make_run(other, name="b")])
    assert cells(page, "differences") == [["warmup_steps", "–", "10"]]
    assert "Nothing that was recorded differs." in render_side_by_side([make_run(name="c"), make_run(name="d")])


def test_other_bytes_and_other_versions_differ_too(make_run: Any, orpo_files: dict[str, Any]) -> None:
    report = {**orpo_files["data_report.json"], "files": [{"path": "pairs.jsonl", "sha256": "7a" * 32}]}
    environment = {**orpo_files["env.json"], "libraries": {"orpo": "0.1.0", "torch": "2.14.0"}}
    other = {**orpo_files, "data_report.json": report, "env.json": environment}
    page = render_side_by_side([make_run(orpo_files, name="a"), make_run(other, name="b")])
    assert cells(page, "differences") == [
        ["sha256 of the training files", "9f9f9f9f9f9f", "7a7a7a7a7a7a"],
        ["version of torch", "2.13.0", "2.14.0"],
    ]


@pytest.mark.parametrize(("digest", "is_other"), [("3c" * 32, False), ("4d" * 32, True)])
def test_other_held_out_pairs_are_warned_about(digest: str, is_other: bool, make_run: Any, orpo_files: dict[str, Any]) -> None:
    held_out = {**orpo_files["data_report.json"]["eval_data"], "files": [{"path": "held-out.jsonl", "sha256": digest}]}
    other = {**orpo_files, "data_report.json": {**orpo_files["data_report.json"], "eval_data": held_out}}
    page = render_side_by_side([make_run(orpo_files, name="a"), make_run(other, name="b")])
    assert ("not measured on the same held-out pairs" in page) == is_other


def test_the_figures_are_those_of_the_files(make_run: Any, orpo_files: dict[str, Any]) -> None:
    page = render_side_by_side([make_run("orpo", name="a"), make_run("sft", name="b"), make_run("failed", name="c")])
    exact = Exact(page).values["figures"]
    found = orpo_files["summary.json"]["sections"]
    for key in ("accuracy_low", "accuracy_high", "nll_loss", "logps/chosen", "logps/rejected"):
        assert exact.count(found["evaluation"]["after"][key]) == 2
    assert exact.count(found["oracle"]["after"]["score"]) == 2
    assert exact.count(3123.4) == 2
    rows = {row[0]: row[1:] for row in cells(page, "figures")}
    assert rows["status"] == ["done", "done", "failed"]
    assert rows["steps"] == ["150", "150", "96"]
    assert "Not done: c." in page


def test_each_run_has_a_line_of_its_own_in_each_chart(make_run: Any) -> None:
    page = render_side_by_side([make_run("orpo", name="a"), make_run("sft", name="b"), make_run("no-eval", name="c")])
    for name in ("logps-chosen", "logps-rejected", "rewards-accuracies", "nll-loss"):
        drawing = page.split(f'<figure id="{name}">')[1].split("</svg>")[0]
        assert re.findall(r'<g class="(r\d+)">', drawing) == ["r0", "r1"]
        assert re.findall(r'class="label (r\d+)"[^>]*>(\w+) <tspan', drawing) == [("r0", "a"), ("r1", "b")]
    assert "Without held-out points: c." in page


def test_replies_to_the_same_prompt_stand_side_by_side(make_run: Any, orpo_files: dict[str, Any]) -> None:
    mine, theirs = (
        [{"step": 0, "prompt": prompt, "after": f"{name} to {prompt}"} for prompt in prompts]
        for name, prompts in (("a", "pq"), ("b", "qr"))
    )
    runs = [make_run({**orpo_files, "samples.jsonl": rows}, name=name) for name, rows in (("a", mine), ("b", theirs))]
    page = Document(render_side_by_side(runs)).text
    assert "1 of 1 prompts that at least two runs answered" in page
    assert "a to q" in page
    assert "b to q" in page
    assert "a to p" not in page


def test_runs_of_one_name_are_told_apart_by_their_folders() -> None:
    folders = [Path("/x/runs/demo-1"), Path("/y/runs/demo-1"), Path("/x/runs/demo-2")]
    assert unique_names(folders) == ["x/runs/demo-1", "y/runs/demo-1", "demo-2"]


def test_what_is_no_run_stands_twice_or_is_too_much_is_refused(make_run: Any, tmp_path: Path, orpo_files: dict[str, Any]) -> None:
    run = make_run(name="a")
    with pytest.raises(UserError, match="holds no run"):
        render_side_by_side([run, tmp_path])
    with pytest.raises(UserError, match="no such folder"):
        render_side_by_side([run, tmp_path / "nowhere"])
    with pytest.raises(UserError, match="stands twice"):
        render_side_by_side([run, run.parent / "." / "a"])
    with pytest.raises(UserError, match="13 runs do not fit on one page"):
        render_side_by_side([tmp_path / str(i) for i in range(13)])
    with pytest.raises(StorageError, match="data_report"):
        render_side_by_side([run, make_run({**orpo_files, "data_report.json": "{"}, name="b")])


def test_the_page_lies_in_the_folder_that_holds_all_runs(make_run: Any, tmp_path: Path) -> None:
    runs = [make_run(name="x/a"), make_run("sft", name="y/b")]
    path = write_page(runs)
    assert path == tmp_path / "side-by-side.html"
    assert path.read_text(encoding="utf-8") == render_side_by_side(runs)
