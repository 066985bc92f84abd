"""What may change between two sessions of a run, and what may not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orpo.errors import CheckpointError
from orpo.runs.manifest import BaseModel
from orpo.runs.names import RUN_ID
from orpo.runs.resume import Change, changed_freely, changed_since, compare_identity, identity_error, newest_valid, resume_point
from orpo.runs.run_id import ensure_run_id


def test_equal_settings_have_no_change_also_as_tuples_and_paths(tmp_path):
    assert compare_identity({"a": [1, 2], "p": str(tmp_path), "lr": 1}, {"a": (1, 2), "p": tmp_path, "lr": 1.0}) == []


@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        ({"beta": 0.1}, {"beta": 0.2}, Change("beta", "0.1", "0.2")),
        ({"lora": {"r": 8, "alpha": 1}}, {"lora": {"r": 16, "alpha": 1}}, Change("lora.r", "8", "16")),
        ({}, {"seed": 1}, Change("seed", "(not set)", "1")),
        ({"seed": None}, {}, Change("seed", "null", "(not set)")),
        ({"packing": True}, {"packing": 1}, Change("packing", "true", "1")),
        ({"x": "1"}, {"x": 1}, Change("x", '"1"', "1")),
        ({"a": {}}, {"a": {"b": 1}}, Change("a", "{}", "(not set)")),
        ({"x": "a\x1b[31m"}, {"x": "a"}, Change("x", '"a\\u001b[31m"', "a")),
    ],
)
def test_a_changed_setting_is_named_with_both_values(old, new, change):
    assert change in compare_identity(old, new)


def test_values_too_long_for_a_table_are_shown_where_they_part():
    change = compare_identity({"x": "a" * 100 + "old"}, {"x": "a" * 100 + "new"})[0]
    assert change == Change("x", "..." + "a" * 10 + "old", "..." + "a" * 10 + "new")


def test_data_and_base_model_must_match_and_free_fields_need_not(run_dir, publish, facts):
    publish(run_dir, 10)
    manifest = resume_point(run_dir).manifest
    now = replace(facts(10), free={"save_steps": 50}, libraries={"torch": "9"}, samples_seen=1, epoch=0.0)
    assert changed_since(manifest, now) == []
    assert changed_freely(manifest, now) == [Change("save_steps", "10", "50")]
    other = replace(now, data={"rows": 401, "files": ["c" * 64]}, base_model=BaseModel("tiny", "main", "b" * 64))
    assert [change.field for change in changed_since(manifest, other)] == ["base_model.revision", "data.files", "data.rows"]


def test_the_refusal_is_an_aligned_table_with_the_flag_that_allows_it(run_dir):
    error = identity_error([Change("beta", "0.1", "0.25"), Change("data.rows", "400", "(not set)")], checkpoint=run_dir / "checkpoint-10")
    assert isinstance(error, CheckpointError)
    assert str(error).splitlines() == [
        f"{run_dir / 'checkpoint-10'}: this run was started with other settings or data",
        "  field      in the checkpoint  now",
        "  beta       0.1                0.25",
        "  data.rows  400                (not set)",
        "  while:    resuming",
        "  expected: the settings and data of the checkpoint",
        "  to fix:   restore them, give --resume-anyway to go on with the new ones, or --fresh to start over",
    ]


def test_the_manifest_comes_back_equal(run_dir, publish, facts):
    publish(run_dir, 10)
    manifest = resume_point(run_dir).manifest
    assert manifest.facts == facts(10)
    assert (manifest.step, manifest.run_id) == (10, ensure_run_id(run_dir))
    names = [entry.path for entry in manifest.files]
    assert names == ["model.safetensors", "optimizer.pt", "rng_state.pth", "scheduler.pt", "tokenizer/tokenizer.json", "trainer_state.json"]


def test_the_highest_step_is_the_newest_whatever_the_dates_and_the_spelling(run_dir, publish):
    for step in (100, 9, 20):
        publish(run_dir, step)
    assert newest_valid(run_dir) == (run_dir / "checkpoint-100", [])


def test_a_copy_without_hidden_files_goes_on_as_the_same_run(run_dir, publish):
    publish(run_dir, 10)
    before = ensure_run_id(run_dir)
    (run_dir / RUN_ID).unlink()
    assert newest_valid(run_dir) == (run_dir / "checkpoint-10", [])
    assert ensure_run_id(run_dir) == before


def test_a_damaged_run_id_is_an_error_that_says_how_to_mend_it(run_dir, publish):
    publish(run_dir, 10)
    (run_dir / RUN_ID).write_bytes(bytes(13))
    with pytest.raises(CheckpointError, match="not a run's id") as caught:
        newest_valid(run_dir)
    assert "delete the file" in str(caught.value)
