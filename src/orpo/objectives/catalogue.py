"""Which objectives there are, their options read from their source, and the published presets. No torch: help texts and YAML read it."""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import importlib.util
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from orpo.errors import ConfigError

if TYPE_CHECKING:
    from orpo.core.loss import Loss

OBJECTIVES: Mapping[str, str] = {
    "orpo": "orpo",
    "sft": "sft",
    "odds": "odds",
    "simpo": "simpo",
    "dpo": "dpo",
    "ipo": "ipo",
    "kto": "kto",
    "ulma": "ulma",
    "pro": "pro",
    "reward": "reward",
}
"""Name -> file of this room, without its ending. The file holds a function of the objective's name."""

Reads = Literal["pairs", "labelled", "rankings", "scores"]

_CHOSEN_ALONE = "DemonstrationLogps"

_READS: Mapping[str, Reads] = {
    "PairLogps": "pairs",
    _CHOSEN_ALONE: "pairs",
    "LabelledLogps": "labelled",
    "RankedLogps": "rankings",
    "PairScores": "scores",
}
"""What the first argument of an objective is annotated with -> what it reads."""

Kind = Literal["float", "int", "choice", "bool", "text"]

_KINDS: Mapping[str, Kind] = {"float": "float", "int": "int", "bool": "bool", "str": "text"}


@dataclass(frozen=True, slots=True)
class Option:
    """A keyword-only argument of an objective; `choices` is empty unless `kind` is 'choice'."""

    name: str
    kind: Kind
    choices: tuple[str, ...]
    default: object
    doc: str


PRESETS: Mapping[str, Mapping[str, object]] = {
    "paper": {"beta": 0.1, "nll_over": "completion", "nll_average": "sequence", "learning_rate": 8e-6},
    "official": {"beta": 0.1, "nll_over": "prompt+completion", "nll_average": "token", "learning_rate": 5e-6},
    "trl": {"beta": 0.1, "nll_over": "prompt+completion", "nll_average": "token", "learning_rate": 1e-6},
    "llama-factory": {"beta": 0.1, "nll_over": "completion", "nll_average": "sequence"},
}
"""How published code sets `orpo`: name -> settings. `learning_rate` belongs to the trainer, all others are options of `orpo`."""

PRESET_NOTES: Mapping[str, str] = {
    "paper": "Equations 3 to 7 as printed, the end-of-text token trained. The paper takes beta 0.1 to 0.25 for models of 2.7B to 7B.",
    "official": (
        "Not matched exactly. The authors' code averages log-probs over m + 1 predictions (it counts the one after the end of the "
        "answer), leaves the end-of-text token out of the likelihood (pad is set to eos, and pads are masked), divides by the tokens of "
        "the micro-batch and casts the loss to bf16. Here: m tokens, the end trained, the tokens of the whole step, fp64."
    ),
    "trl": (
        "Equal to TRL 1.16 in loss and gradients when a step is one micro-batch. TRL divides by the tokens of each micro-batch; here by "
        "those of the whole step, so the cut does not matter."
    ),
    "llama-factory": "Equal in loss and gradients wherever its own odds are finite. It has no learning rate of its own for ORPO.",
}
"""For each of PRESETS, where it is the same as the code it is named after and where it is not."""


def objective_options(name: str) -> tuple[Option, ...]:
    """The options of objective `name`: its signature, and the "Options:" lines of its docstring, read without importing it."""
    function = _function(name)
    docs = _option_docs(ast.get_docstring(function) or "")
    arguments = zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    return tuple(_option(name, argument, default, docs) for argument, default in arguments)


def reads(name: str) -> Reads:
    """What objective `name` is computed from: 'pairs', 'labelled' answers or 'rankings' (log-probs of each), or 'scores' of pairs."""
    _, annotation = _data_arguments(name)[0]
    return _READS[annotation]


def learns_chosen_alone(name: str) -> bool:
    """Whether objective `name` learns from the chosen answers of pairs alone, so that a training step need not compute the rejected."""
    _, annotation = _data_arguments(name)[0]
    return annotation == _CHOSEN_ALONE


def needs_reference(name: str) -> bool:
    """Whether objective `name` reads, as its second argument, the log-probs of a reference model as well."""
    return "reference" in dict(_data_arguments(name))


def needs_baseline(name: str) -> bool:
    """Whether objective `name` reads, as its last positional argument, a scalar that is made once for the whole optimizer step."""
    return "baseline" in dict(_data_arguments(name))


def one_line(name: str) -> str:
    """What objective `name` is, in one line: the first of its file."""
    return (ast.get_docstring(_module(name)) or "").partition("\n")[0]


def load(name: str) -> Callable[..., Loss]:
    """The function of objective `name`; imports torch."""
    function: Callable[..., Loss] = getattr(importlib.import_module(f"orpo.objectives.{_file(name)}"), name)
    return function


def bound(name: str, options: Mapping[str, object]) -> Callable[..., Loss]:
    """Objective `name` with `options` set: a function of its data alone. Raises ConfigError for any option that cannot be; imports torch.

    Its data are what `reads` says, then reference and baseline where it needs them. It is tried on no rows at all, so that a value
    out of range is found now and not in the first step.
    """
    check_options(name, options)
    objective = functools.partial(load(name), **options)
    objective(*no_rows(name))
    return objective


def no_rows(name: str) -> tuple[object, ...]:
    """The data of objective `name` without a single row: its positional arguments, in fp64; imports torch."""
    import torch

    from orpo.core.logps import CompletionLogps, LabelledLogps, PairLogps, PairScores, RankedLogps

    row, table = torch.zeros(0, dtype=torch.float64), torch.zeros(0, 2, dtype=torch.float64)
    nothing = CompletionLogps(row, row)
    pairs = PairLogps(chosen=nothing, rejected=nothing, prompt=nothing)
    data = {
        "PairLogps": pairs,
        _CHOSEN_ALONE: pairs,
        "LabelledLogps": LabelledLogps(nothing, row.bool()),
        "RankedLogps": RankedLogps(CompletionLogps(table, table), scores=table),
        "PairScores": PairScores(row, row),
        "Tensor": torch.zeros((), dtype=torch.float64),
    }
    return tuple(data[annotation] for _, annotation in _data_arguments(name))


def check_options(name: str, options: Mapping[str, object]) -> None:
    """Nothing; raises ConfigError when `options` holds a name, a type or a choice that objective `name` does not have."""
    known = {option.name: option for option in objective_options(name)}
    for key, value in options.items():
        if key not in known:
            raise _unknown(f"objective {name!r} has no option {key!r}", key, known)
        option = known[key]
        if not _fits(option, value):
            expected = " or ".join(repr(choice) for choice in option.choices) or f"a {option.kind}"
            raise ConfigError(f"{key} is {value!r}", expected=expected, fix=f"the default is {option.default!r}")


def _fits(option: Option, value: object) -> bool:
    """True when `value` is of the option's kind. True and False are no numbers; a whole number is a float."""
    if option.kind == "choice":
        return value in option.choices
    if option.kind in ("float", "int"):
        return isinstance(value, (int, float) if option.kind == "float" else int) and not isinstance(value, bool)
    return isinstance(value, bool if option.kind == "bool" else str)


def _unknown(problem: str, name: str, known: Iterable[str]) -> ConfigError:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return ConfigError(problem, expected=f"one of {', '.join(names)}", fix=f"did you mean {near[0]!r}?" if near else "")


def _file(name: str) -> str:
    if name not in OBJECTIVES:
        raise _unknown(f"there is no objective {name!r}", name, OBJECTIVES)
    return OBJECTIVES[name]


@functools.cache
def _module(name: str) -> ast.Module:
    """The source of the file of objective `name`, found as an import would find it, and not imported."""
    spec = importlib.util.find_spec(f"orpo.objectives.{_file(name)}")
    assert spec is not None, f"there is no file {_file(name)}.py for objective {name}"
    assert spec.origin is not None, f"{_file(name)} is no file"
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))


def _function(name: str) -> ast.FunctionDef:
    return next(node for node in _module(name).body if isinstance(node, ast.FunctionDef) and node.name == name)


def _data_arguments(name: str) -> list[tuple[str, str]]:
    """(name, annotation) of the positional arguments of objective `name`."""
    arguments = _function(name).args.args
    assert all(isinstance(argument.annotation, ast.Name) for argument in arguments), f"data of {name} are annotated with a type's name"
    return [(argument.arg, ast.unparse(argument.annotation)) for argument in arguments if argument.annotation is not None]


def _option(objective: str, argument: ast.arg, default: ast.expr | None, docs: Mapping[str, str]) -> Option:
    assert default is not None, f"option {argument.arg} of {objective} has no default"
    assert argument.arg in docs, f"option {argument.arg} of {objective} has no line under 'Options:' in the docstring"
    kind, choices = _kind(argument.annotation)
    return Option(argument.arg, kind, choices, ast.literal_eval(default), docs[argument.arg])


def _kind(annotation: ast.expr | None) -> tuple[Kind, tuple[str, ...]]:
    """The kind an annotation stands for, and the choices of a Literal."""
    if isinstance(annotation, ast.Name):
        return _KINDS[annotation.id], ()
    assert isinstance(annotation, ast.Subscript), "an option is annotated with a Literal or a plain type"
    return "choice", tuple(ast.literal_eval(annotation.slice))


def _option_docs(docstring: str) -> dict[str, str]:
    """Option -> text, from the lines under "Options:"; a line indented deeper than its option's goes on with it."""
    docs: dict[str, str] = {}
    name = ""
    for line in textwrap.dedent(docstring.partition("\nOptions:\n")[2]).splitlines():
        if line.startswith(" "):
            docs[name] += f" {line.strip()}"
        else:
            name, _, text = line.partition(":")
            docs[name] = text.strip()
    return docs
