"""Which objectives there are, their options read from their source, and the published presets. No torch: help texts and YAML read it."""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from orpo.errors import ConfigError

if TYPE_CHECKING:
    from orpo.core.logps import PairLogps
    from orpo.core.loss import Loss

OBJECTIVES: Mapping[str, str] = {
    "orpo": "orpo",
    "sft": "sft",
}
"""Name -> file of this room, without its ending. The file holds a function of the objective's name."""

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


def one_line(name: str) -> str:
    """What objective `name` is, in one line: the first of its file."""
    return (ast.get_docstring(_module(name)) or "").partition("\n")[0]


def load(name: str) -> Callable[..., Loss]:
    """The function of objective `name`; imports torch."""
    function: Callable[..., Loss] = getattr(importlib.import_module(f"orpo.objectives.{_file(name)}"), name)
    return function


def bound(name: str, options: Mapping[str, object]) -> Callable[[PairLogps], Loss]:
    """Objective `name` with `options` set: a function of PairLogps alone. Raises ConfigError for any option that cannot be; imports torch.

    It is tried on zero pairs, so that a value out of range is found now and not in the first step.
    """
    check_options(name, options)
    import torch

    from orpo.core.logps import CompletionLogps, PairLogps

    objective = functools.partial(load(name), **options)
    nothing = CompletionLogps(torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64))
    objective(PairLogps(chosen=nothing, rejected=nothing, prompt=nothing))
    return objective


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
    return ast.parse((Path(__file__).parent / f"{_file(name)}.py").read_text(encoding="utf-8"))


def _function(name: str) -> ast.FunctionDef:
    return next(node for node in _module(name).body if isinstance(node, ast.FunctionDef) and node.name == name)


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
