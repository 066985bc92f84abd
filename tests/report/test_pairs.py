"""The held-out pairs one by one: margins first against last, accuracy by file and length, and the SFT run beside a run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from documents import Document
from payloads import PAYLOADS, Skeleton

from orpo.core.intervals import wilson_interval
from orpo.report.beside import RULE, sft_beside
from orpo.report.escape import visible
from orpo.report.numbers import percent
from orpo.report.page import render_report
from orpo.report.pairs import by_length, by_longer_answer, held_out_pairs
from orpo.runs.summary import read_run

Files = dict[str, Any]


def pair(i: int, start: float, end: float | None, *, chosen: int = 10, rejected: int = 10, file: str = "a.jsonl") -> Files:
    """A row of held_out.jsonl with these margins."""
    values = [None if margin is None else {"chosen": -1.0, "rejected": -1.0 - margin} for margin in (start, end)]
    lengths = {"prompt_tokens": 5, "chosen_tokens": chosen, "rejected_tokens": rejected}
    return {"step": 9, "pair": i, "source": f"{file}:{i + 1}", **lengths, "before": values[0], "after": values[1]}


def told_apart(page: str) -> dict[str, list[str]]:
    """The rows of the table 'Whom it tells apart'."""
    section = page.split('id="pairs"')[1].split("</section>")[0]
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", section)]
    return {re.sub("<[^>]*>", "", name): [re.sub("<[^>]*>", "", cell) for cell in rest] for name, *rest in cells[1:]}


def test_accuracy_is_counted_by_file_length_and_longer_answer_with_wilson_intervals(make_run: Any, orpo_files: Files) -> None:
    rows = [pair(i, -1.0, 1.0, chosen=5 + i, rejected=4) for i in range(6)]
    rows += [pair(6 + i, 1.0, -1.0, chosen=4, rejected=30 + i, file="b.jsonl") for i in range(3)]
    found = told_apart(render_report(make_run({**orpo_files, "held_out.jsonl": rows})))
    low, high = (percent(share) for share in wilson_interval(6, 9))
    assert found["all held-out pairs"] == ["9", "33\u202f% (12\u202f% to 65\u202f%)", f"67\u202f% ({low} to {high})"]
    assert [found[name][0] for name in ("from a.jsonl", "from b.jsonl")] == ["6", "3"]
    assert found["from b.jsonl"][2].startswith("0\u202f%")
    assert found["the chosen answer is longer"][2].startswith("100\u202f%")
    assert found["the rejected answer is longer"][2].startswith("0\u202f%")
    assert [int(found[name][0]) for name in found if name.startswith("answers of ")] == [4, 3, 2]


def test_a_tie_is_not_told_apart_and_a_value_that_is_not_finite_is_left_out(make_run: Any, orpo_files: Files) -> None:
    rows = [pair(0, 1.0, 0.0), pair(1, 1.0, None), {**pair(2, 1.0, 1.0), "after": {"chosen": "nan", "rejected": -1.0}}]
    found = told_apart(render_report(make_run({**orpo_files, "held_out.jsonl": rows})))
    assert found["all held-out pairs"][1].startswith("100\u202f% ")
    assert found["all held-out pairs"][2] == "0\u202f% (0\u202f% to 79\u202f%)"


def test_without_single_pairs_the_page_says_not_measured(make_run: Any) -> None:
    page = render_report(make_run())
    assert "Not measured: it takes held-out pairs" in page
    assert 'id="margins"' not in page


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_the_name_of_a_file_stays_text(payload: str, make_run: Any, orpo_files: Files) -> None:
    pages = []
    for name in (payload, "harmless"):
        rows = [pair(i, -1.0, 1.0, file=name if i else "other") for i in range(3)]
        pages.append(Skeleton(render_report(make_run({**orpo_files, "held_out.jsonl": rows}))))
    assert pages[0].nodes == pages[1].nodes
    assert f"from {visible(payload)[:60]}".replace("\r", "") in pages[0].text


def test_groups_hold_every_pair_once(make_run: Any, orpo_files: Files) -> None:
    rows = [pair(i, 0.1, 0.2, chosen=i % 7, rejected=(3 * i) % 11) for i in range(50)]
    pairs = held_out_pairs(read_run(make_run({**orpo_files, "held_out.jsonl": rows})))
    for groups in (by_length(pairs), by_longer_answer(pairs)):
        assert sum(len(members) for _, members in groups) == 50
    assert by_length([]) == []
    assert len(by_length(pairs[:1])) == 1


def test_the_histogram_shows_both_moments_and_counts_what_lies_beyond_it(make_run: Any, orpo_files: Files) -> None:
    rows = [pair(i, (i - 100) / 100, (i - 50) / 100) for i in range(200)] + [pair(200, -90.0, 90.0)]
    page = render_report(make_run({**orpo_files, "held_out.jsonl": rows}))
    figure = page.split('id="margins"')[1].split("</figure>")[0]
    assert figure.count('class="steps"') == 2
    assert figure.count('class="filled"') == 1
    text = Document(f"<figure{figure}</figure>").text
    assert "At the start: 49 % of 201 pairs above 0, median −0.010." in text
    assert "At the end: 75 % of 201 pairs above 0, median 0.50." in text
    assert "2 margins lie beyond the drawing" in text
    bars = [float(y) for y in re.findall(r"V([\d.]+)H", figure)]
    assert min(bars) == 66.0, "the highest bar reaches the top"


def test_an_sft_run_of_the_same_model_and_data_is_overlaid_and_named(make_run: Any) -> None:
    run = make_run("orpo", name="orpo-1")
    assert "SFT chosen" not in render_report(run)
    make_run("sft", name="sft-1")
    page = render_report(run)
    assert "SFT chosen" in page
    assert f"the held-out pairs in sft-1, {RULE}" in page
    assert "SFT chosen" not in render_report(run.parent / "sft-1")


@pytest.mark.parametrize("differs", ["model", "bytes", "status", "damaged"])
def test_an_sft_run_of_another_model_or_other_bytes_is_not(differs: str, make_run: Any, orpo_files: Files, sft_files: Files) -> None:
    run, other = make_run(orpo_files, name="orpo-1"), sft_files
    if differs == "model":
        other["summary.json"]["sections"]["model"]["model"] = "another"
    if differs == "bytes":
        other["data_report.json"]["files"][0]["sha256"] = "00" * 32
    if differs == "status":
        other["summary.json"]["status"] = "failed"
    if differs == "damaged":
        other["data_report.json"] = "{"
    make_run(other, name="sft-1")
    assert sft_beside(read_run(run)) is None


def test_of_several_sft_runs_the_one_that_finished_last_is_taken(make_run: Any, orpo_files: Files, sft_files: Files) -> None:
    run = make_run(orpo_files, name="orpo-1")
    for name, finished in (("sft-1", "2026-01-05T12:00:00+00:00"), ("sft-2", "2026-01-05T11:00:00+00:00")):
        sft_files["summary.json"]["finished"] = finished
        make_run(sft_files, name=name)
    found = sft_beside(read_run(run))
    assert found is not None
    assert found.path.name == "sft-1"


@pytest.mark.parametrize(("ended", "state"), [(5, "clear"), (4, "clear"), (3, "alarm"), (0, "alarm")])
def test_replies_that_stop_ending_raise_an_alarm(ended: int, state: str, make_run: Any, orpo_files: Files) -> None:
    rows = [{**orpo_files["samples.jsonl"][0], "before_ended": True, "after_ended": i < ended} for i in range(5)]
    text = Document(render_report(make_run({**orpo_files, "samples.jsonl": rows}))).text
    assert f"Answers that stop ending{state}5 of 5 ended before, {ended} after" in text


def test_too_few_replies_say_nothing_about_endings(make_run: Any) -> None:
    text = Document(render_report(make_run())).text
    assert "Answers that stop endingnot measuredit takes 4 prompts with a reply before and after, there are 3" in text


def test_win_rate_and_benchmarks_have_their_place(make_run: Any) -> None:
    page = render_report(make_run())
    for name in ("win-rate", "benchmarks"):
        assert "Not measured" in page.split(f'id="{name}"')[1].split("</section>")[0]


def test_the_cost_names_its_stages_and_what_is_no_padding(make_run: Any, orpo_files: Files) -> None:
    orpo_files["metrics.jsonl"][-1] |= {"evaluation_seconds": 12.5}
    orpo_files["metrics.jsonl"].sort(key=lambda row: (row["split"] == "train", row["step"]))
    orpo_files["summary.json"]["sections"]["cost"] |= {"reference_seconds": 3.0, "policy_forwards": 150}
    text = Document(render_report(make_run(orpo_files))).text
    for said in ("time of the training steps1 min 2 s", "time to make the reference3 s", "paddingnone: rows are packed"):
        assert said in text


def test_pages_of_folders_without_neighbours_do_not_look_for_them(make_run: Any, tmp_path: Path) -> None:
    run = read_run(make_run("orpo", name="alone/orpo-1"))
    assert sft_beside(run) is None
