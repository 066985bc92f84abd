"""The file of `orpo compare`: what it comes to, and what is refused with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from orpo.comparison.config import CompareConfig, read_config
from orpo.errors import ConfigError

GOOD = """\
pipelines: [orpo, sft > dpo]
budget: 300 steps
seeds: 3
tune:
  orpo: {learning_rate: [1e-4, 3e-4], beta: .5}
  sft: {learning_rate: [1e-4, 3e-4]}
  dpo: [{learning_rate: 1e-5, beta: .1}, {learning_rate: 3e-5, beta: .3}]
settings: {pairs_per_step: 8, dtype: float32}
"""


def read(tmp_path: Path, text: str) -> CompareConfig:
    path = tmp_path / "compare.yaml"
    path.write_text(text)
    return read_config(str(path))


def test_a_comparison_is_read_with_its_defaults(tmp_path: Path) -> None:
    config = read(tmp_path, GOOD)
    assert [pipeline.name for pipeline in config.pipelines] == ["orpo", "sft > dpo"]
    assert (config.model, config.is_world, config.seeds, config.tuning_seed) == ("builtin", True, (1, 2, 3), 0)
    assert (config.tune_by, config.trials_per_stage, config.jobs) == ("oracle/score", 2, None)
    orpo, (sft, dpo) = config.pipelines[0].stages[0], config.pipelines[1].stages
    assert [[(s.name, s.value) for s in c] for c in orpo.candidates] == [
        [("learning_rate", 1e-4), ("beta", 0.5)],
        [("learning_rate", 3e-4), ("beta", 0.5)],
    ]
    assert len(sft.candidates) == 2
    assert dpo.candidates[1][1].place.endswith("compare.yaml:7")


def test_a_stage_has_settings_of_its_own_in_place_of_the_grids(tmp_path: Path) -> None:
    text = GOOD.replace("[orpo, sft > dpo]", "[orpo, {name: mine, stages: [sft, {objective: dpo, beta: .9}]}]")
    config = read(tmp_path, text)
    assert config.pipelines[1].name == "mine"
    values = [{s.name: s.value for s in candidate} for candidate in config.pipelines[1].stages[1].candidates]
    assert values == [{"learning_rate": 1e-5, "beta": 0.9}, {"learning_rate": 3e-5, "beta": 0.9}]


def test_seeds_may_be_a_list_and_the_tuning_seed_is_none_of_them(tmp_path: Path) -> None:
    config = read(tmp_path, GOOD.replace("seeds: 3", "seeds: [0, 1, 7]"))
    assert (config.seeds, config.tuning_seed) == ((0, 1, 7), 2)


ALIASES = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 6))

REFUSED = [
    ("budgt: 3\n" + GOOD, 1, "no setting 'budgt'", "did you mean budget"),
    (GOOD + "learning_rate: 1e-4\n", 9, "no setting 'learning_rate'", "below settings"),
    (GOOD + "beta: 1\n", 9, "no setting 'beta'", "below tune: OBJECTIVE:"),
    (GOOD.replace("orpo, sft > dpo", "orpo, sft > dpoo"), 1, "no objective 'dpoo'", "did you mean dpo?"),
    (GOOD.replace("orpo, sft > dpo", "orpo, reward"), 1, "a reward model replies nothing", "expected"),
    (GOOD.replace("300 steps", "300"), 2, "budget is 300", "an amount and its unit"),
    (GOOD.replace("300 steps", "1 step"), 2, "sft > dpo has 2 stages", "a step for each stage"),
    (GOOD.replace("seeds: 3", "seeds: [1, 1]"), 3, "seeds is [1, 1]", "different seeds"),
    (GOOD.replace("seeds: 3", "seeds: three"), 3, "seeds is 'three'", "a whole number"),
    (GOOD.replace("sft: {learning_rate: [1e-4, 3e-4]}", "sft: {learning_rate: [1e-4]}"), 1, "orpo has 2 trials", "sft has 1"),
    (GOOD.replace("[1e-4, 3e-4], beta: .5", "[1e-4, 1e-4], beta: .5"), 5, "the same settings twice", "tune of orpo"),
    (GOOD.replace("settings: {", "settings: {beta: 1, "), 8, "beta is no setting of every stage", "below tune"),
    (GOOD.replace("settings: {", "settings: {seed: 1, "), 8, "seed is no setting of every stage", "remove it"),
    (GOOD.replace("{learning_rate: [1e-4, 3e-4]}", "{seed: [1, 3]}"), 6, "seed is not tuned", "for every stage alike"),
    (GOOD + "holdout: .1\n", 9, "holdout is not read with data: world", "data: FILE"),
    (GOOD + "data: a.jsonl\n", None, "nothing says which pairs are held out", "add holdout: 0.1"),
    (GOOD + "data: a.jsonl\nholdout: .1\ntrain_pairs: 5\n", 11, "train_pairs belongs to data: world", "holdout and validation"),
    (GOOD + "data: a.jsonl\nholdout: .1\ntune_by: oracle/score\n", 11, "tune_by is 'oracle/score'", "accuracy"),
    (GOOD + "tune_by: accuracies\n", 9, "tune_by is 'accuracies'", "did you mean accuracy?"),
    (GOOD.replace("orpo, sft > dpo", "orpo, orpo"), 1, "two pipelines are called 'orpo'", "another name"),
    (GOOD.replace("[orpo, sft > dpo]", "[orpo, sft]"), 7, "tune has dpo, which is in no pipeline", "remove it"),
    (GOOD.replace("[orpo, sft > dpo]", "[orpo, {stages: [sft, {beta: 1}]}]"), 1, "no objective", "objective: dpo"),
    (GOOD.replace("[orpo, sft > dpo]", "[orpo, {name: x}]"), 1, "no stages", "add stages"),
    (GOOD.replace("[orpo, sft > dpo]", "[orpo, {stage: sft}]"), 1, "a pipeline has no 'stage'", "did you mean stages?"),
    (GOOD + "jobs: 0\n", 9, "jobs is 0", "at least 1"),
    (GOOD + "pipelines: [orpo]\n", 9, "pipelines is given twice", "remove one"),
    ("pipelines: [orpo\n", 2, "not valid YAML", ""),
    ("- orpo\n", 1, "no comparison", "budget: 300 steps"),
    ("budget: 3 steps\n", None, "pipelines is not given", "orpo, sft > dpo"),
    (ALIASES, 1, "more than 10,000 values", ""),
]


@pytest.mark.parametrize(("text", "line", "problem", "more"), REFUSED, ids=[case[2] for case in REFUSED])
def test_what_cannot_be_compared_is_refused_with_its_line(tmp_path: Path, text: str, line: int | None, problem: str, more: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    message = str(caught.value)
    assert problem in message
    assert more in message
    assert message.startswith(f"{tmp_path}/compare.yaml:{line}:" if line else f"{tmp_path}/compare.yaml: ")


def test_a_pipeline_with_fewer_trials_is_named_beside_the_other(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"orpo has 2 trials .*compare.yaml:1.*, sft has 1"):
        read(tmp_path, GOOD.replace("  sft: {learning_rate: [1e-4, 3e-4]}\n", ""))


def test_without_tune_every_stage_has_one_set_of_settings(tmp_path: Path) -> None:
    config = read(tmp_path, "pipelines: orpo\nbudget: 2M tokens\n")
    assert (config.is_tuned, config.trials_per_stage, config.seeds) == (False, 0, (1, 2, 3))
    assert (config.budget.kind, config.budget.amount) == ("tokens", 2e6)
