"""A model that cannot be loaded: what its library raised enters, the error that says why and what to do leaves."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from pathlib import Path

from orpo.data.hub_reach import hub_in_reach
from orpo.errors import ConfigError

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_OFF = ("", "0", "false", "no", "off")
A_FOLDER = "give a folder that AutoModelForCausalLM.from_pretrained reads (config.json, tokenizer.json, model.safetensors)"


def missing_folder(model: str, what: str) -> ConfigError:
    """The error for a path that leads nowhere."""
    fix = _nearest(model) or f"check the path, or give a Hub id (organisation/name), or builtin to try things out; {A_FOLDER}"
    return ConfigError(f"the folder {model} does not exist", doing=f"loading the {what} of {model}", fix=fix)


def unloadable(model: str, what: str, error: Exception) -> ConfigError:
    """The error for the model `model`, whose `what` (config, tokenizer, weights) made transformers raise `error`."""
    path, doing = Path(model).expanduser(), f"loading the {what} of {model}"
    if path.is_dir():
        problem = f"the folder {model} holds no {what} that transformers can read: {_first_line(error)}"
        return ConfigError(problem, doing=doing, fix=A_FOLDER)
    if path.exists():
        problem = f"--model {model} is a file; a folder with config.json, tokenizer and safetensors is expected"
        return ConfigError(problem, doing=doing, fix="give the folder; a file of pairs goes to --data")
    # `runs` is where runs are written: nobody on the Hub is meant by it.
    if model.startswith((".", "/", "~", "runs/")) or model.count("/") != 1:
        return missing_folder(model, what)
    problem, fix = _of_the_hub(model, error)
    return ConfigError(problem, doing=doing, fix=_nearest(model) or fix)


def _of_the_hub(model: str, error: Exception) -> tuple[str, str]:
    """(what happened to the Hub id `model`, what to do)."""
    kinds = {type(one).__name__ for one in _chain(error)}
    forbidding = [f"{name}={os.environ[name]}" for name in OFFLINE if os.environ.get(name, "").lower() not in _OFF]
    if "GatedRepoError" in kinds:
        problem = f"{model} is gated: its owners decide who may fetch it, and they do not know you (yet)"
        return (
            problem,
            f"ask for access on the page of {model} on the Hub, then log in here: `hf auth login`, or set HF_TOKEN",
        )
    if "RepositoryNotFoundError" in kinds:
        return f"there is no model {model} on the Hub, or it is private", "check its name; for a private model log in: `hf auth login`"
    nowhere = f"{model} is no folder here, and it could not be fetched from the Hub"
    if forbidding:
        fix = f"unset {forbidding[0].split('=')[0]} to allow the network, or give a local folder; builtin needs neither"
        return f"{nowhere}: {forbidding[0]} forbids it, and no earlier download is in the cache", fix
    if not hub_in_reach():
        fix = "connect this machine, or fetch it elsewhere (`hf download`) and give the folder; builtin needs neither"
        return f"{nowhere}: there is no network, and no earlier download is in the cache", fix
    fix = "check the name and the network, or give a local folder; builtin needs neither"
    return f"{nowhere}: {_first_line(error)}", fix


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """`error`, what it was raised from or while handling, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _nearest(model: str) -> str:
    """The folders whose names are near that of `model`, as a question; '' where there is none."""
    path = Path(model).expanduser()
    siblings = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, siblings, n=3)
    return "did you mean " + " or ".join(str(path.parent / name) for name in near) + "?" if near and not path.exists() else ""
