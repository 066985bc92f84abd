"""The catalogue against the functions it describes, and the page it makes."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest

import orpo.objectives as room
from orpo.errors import ConfigError
from orpo.objectives import (
    OBJECTIVES,
    PRESET_NOTES,
    PRESETS,
    Option,
    bound,
    check_options,
    load,
    needs_baseline,
    needs_reference,
    no_rows,
    objective_options,
    one_line,
    reads,
)
from orpo.objectives.tables import renewed


def test_reading_the_catalogue_imports_no_torch() -> None:
    script = (
        "import sys; from orpo.objectives import *; from orpo.objectives.tables import options_table; "
        "[objective_options(n) for n in OBJECTIVES]; check_options('orpo', {'beta': 1}); options_table(); "
        "sys.exit(any(m.split('.')[0] in ('torch', 'transformers') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_room_offers_these_names_and_no_others() -> None:
    assert room.__all__ == [
        "OBJECTIVES", "PRESETS", "PRESET_NOTES", "Option", "bound", "check_options", "learns_chosen_alone", "load", "needs_baseline",
        "needs_reference", "no_rows", "objective_options", "one_line", "reads",
    ]  # fmt: skip


@pytest.mark.parametrize("name", OBJECTIVES)
def test_options_read_from_the_source_are_those_of_the_function(name: str) -> None:
    function = load(name)
    hints = typing.get_type_hints(function)
    parameters = list(inspect.signature(function).parameters.values())
    data = [parameter for parameter in parameters if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    assert [p.kind for p in parameters[len(data) :]] == [inspect.Parameter.KEYWORD_ONLY] * (len(parameters) - len(data))
    assert all(parameter.default is inspect.Parameter.empty for parameter in data)
    for option, parameter in zip(objective_options(name), parameters[len(data) :], strict=True):
        assert (option.name, option.default) == (parameter.name, parameter.default)
        hint = hints[option.name]
        assert option.choices == (typing.get_args(hint) if option.kind == "choice" else ())
        assert hint is {"float": float, "int": int, "bool": bool, "text": str}.get(option.kind, hint)


def test_what_an_objective_reads_is_that_of_its_signature() -> None:
    found = {name: (reads(name), needs_reference(name), needs_baseline(name)) for name in OBJECTIVES}
    assert found == {
        "orpo": ("pairs", False, False),
        "sft": ("pairs", False, False),
        "odds": ("pairs", False, False),
        "simpo": ("pairs", False, False),
        "dpo": ("pairs", True, False),
        "ipo": ("pairs", True, False),
        "kto": ("labelled", True, True),
        "ulma": ("labelled", True, False),
        "pro": ("rankings", False, False),
        "reward": ("scores", False, False),
    }
    for name in OBJECTIVES:
        parameters = inspect.signature(load(name)).parameters
        data = [p for p in parameters.values() if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
        assert [p.name for p in data] == ["policy", *["reference"] * needs_reference(name), *["baseline"] * needs_baseline(name)]


TOY = '''"""A toy: the chosen answer alone, as likely as can be."""

from __future__ import annotations

from orpo.core.logps import PairLogps
from orpo.core.loss import Loss, Term


def toy(policy: PairLogps, reference: PairLogps, *, strength: float = 2.0) -> Loss:
    """What the toy returns.

    Options:
        strength: How much, in parts.
    """
    moved = policy.chosen.total.double() - reference.chosen.total.double()
    return Loss((Term("toy", -moved.sum(), "pairs", strength),), {})
'''


def test_a_new_objective_is_a_file_and_a_line_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third file is its test. Configuration, command line and the page's tables find it by themselves."""
    import torch

    from orpo.core.logps import CompletionLogps, PairLogps
    from orpo.core.loss import step_loss
    from orpo.objectives.tables import objectives_table, options_table
    from orpo.training.config_fields import option_about
    from orpo.training.config_flags import flag_table

    (tmp_path / "toy.py").write_text(TOY, encoding="utf-8")
    monkeypatch.setattr(room, "__path__", [*room.__path__, str(tmp_path)])
    monkeypatch.setitem(OBJECTIVES, "toy", "toy")  # type: ignore[arg-type]
    monkeypatch.delitem(sys.modules, "orpo.objectives.toy", raising=False)

    assert (reads("toy"), needs_reference("toy"), needs_baseline("toy")) == ("pairs", True, False)
    assert objective_options("toy") == (Option("strength", "float", (), 2.0, "How much, in parts."),)
    one = CompletionLogps(torch.tensor([-1.0, -3.0]), torch.ones(2))
    two = CompletionLogps(torch.tensor([-2.0, -5.0]), torch.ones(2))
    loss = bound("toy", {"strength": 3})(PairLogps(one, one, None), PairLogps(two, two, None))
    assert step_loss(loss, {"pairs": 2}).item() == -3 * (1.0 + 2.0) / 2
    assert "| `toy` | A toy: the chosen answer alone, as likely as can be. |" in objectives_table()
    assert "| toy | `strength` | float | `2.0` | How much, in parts. |" in options_table()
    assert option_about("toy")["strength"][1] == 2.0
    assert [flag.help for flag in flag_table() if flag.name == "strength"] == ["How much, in parts. (of toy)"]


def test_an_option_carries_its_docstring_line_joined_over_line_breaks() -> None:
    assert objective_options("sft") == (
        Option(
            "nll_over",
            "choice",
            ("completion", "prompt+completion"),
            "completion",
            "What the likelihood covers, the chosen completion alone or its prompt as well.",
        ),
        Option(
            "nll_average",
            "choice",
            ("sequence", "token"),
            "token",
            "Whether it averages over answers (each answer weighs the same) or over all tokens of the step (each token does).",
        ),
    )


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_and_option_has_a_line_that_fits_a_help_text(name: str) -> None:
    assert 20 < len(one_line(name)) <= 140
    assert all(option.doc.endswith(".") and option.doc[0].isupper() for option in objective_options(name))


def test_an_unknown_objective_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        load("orop")
    assert (
        str(caught.value) == f"there is no objective 'orop'\n  expected: one of {', '.join(OBJECTIVES)}\n  to fix:   did you mean 'orpo'?"
    )


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("orpo", {"betta": 0.1}, "objective 'orpo' has no option 'betta'"),
        ("sft", {"beta": 0.1}, "objective 'sft' has no option 'beta'\n  expected: one of nll_over, nll_average"),
        ("orpo", {"beta": "0.1"}, "beta is '0.1'\n  expected: a float\n  to fix:   the default is 0.1"),
        ("orpo", {"beta": True}, "beta is True"),
        ("orpo", {"nll_over": "prompt"}, "nll_over is 'prompt'\n  expected: 'completion' or 'prompt+completion'"),
        ("orpo", {"nll_over": None}, "nll_over is None"),
    ],
)
def test_an_option_that_cannot_be_is_refused_without_torch(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_options(name, options)
    assert str(caught.value).startswith(message)


def test_a_whole_number_will_do_for_a_float() -> None:
    check_options("orpo", {"beta": 1})


def test_a_bound_objective_has_its_options_set() -> None:
    import torch

    from orpo.core.logps import CompletionLogps, PairLogps

    one = CompletionLogps(torch.tensor([-1.0]), torch.ones(1))
    loss = bound("orpo", {"beta": 0.7})(PairLogps(chosen=one, rejected=one, prompt=one))
    assert [(term.name, term.weight) for term in loss.terms] == [("nll", 1.0), ("odds_ratio", 0.7)]


def test_binding_finds_a_value_out_of_range_before_there_is_a_model() -> None:
    with pytest.raises(ConfigError, match="beta is -1"):
        bound("orpo", {"beta": -1})


def test_every_preset_binds_and_has_a_note() -> None:
    assert set(PRESETS) == set(PRESET_NOTES) == {"paper", "official", "trl", "llama-factory"}
    for settings in PRESETS.values():
        bound("orpo", {name: value for name, value in settings.items() if name != "learning_rate"})


def test_preset_paper_is_the_default() -> None:
    defaults = {option.name: option.default for option in objective_options("orpo")}
    assert {**defaults, **PRESETS["paper"]} == {**defaults, "learning_rate": 8e-6}


def test_the_tables_of_the_page_are_those_of_the_catalogue(root: Path) -> None:
    page = (root / "docs" / "objectives.md").read_text(encoding="utf-8")
    assert renewed(page) == page, "run: python -m orpo.objectives.tables docs/objectives.md"


def test_every_metric_an_objective_shows_is_explained_on_the_page(root: Path) -> None:
    page = (root / "docs" / "objectives.md").read_text(encoding="utf-8")
    for name in OBJECTIVES:
        section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert section, f"the page has no section on {name}"
        assert [metric for metric in bound(name, {})(*no_rows(name)).metrics if f"`{metric}`" not in section] == [], name


def test_the_example_of_the_page_runs_and_gives_gradients(root: Path) -> None:
    page = (root / "docs" / "objectives.md").read_text(encoding="utf-8")
    example = re.search(r"## Use one alone\n\n((?:    .*\n|\n)+)", page)
    assert example
    names: dict[str, Any] = {}
    exec(compile("\n".join(line[4:] for line in example[1].splitlines()), "docs/objectives.md", "exec"), names)
    assert names["chosen"].total.grad.lt(0).all()
    assert names["rejected"].total.grad.gt(0).all()
