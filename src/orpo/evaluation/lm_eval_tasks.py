"""Benchmarks of the lm-eval library: names of tasks and a model enter, their figures with standard errors leave."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from orpo.errors import ConfigError, OrpoError

BATCH_SIZE = 8
BOOTSTRAP_ITERATIONS = 1000
"""For the standard errors of metrics that are no plain mean: those of 1000 resamples lie within 5 % of those of many, and take seconds."""

Figures = dict[str, float | None]
"""`task/metric`, and `task/metric_stderr` where the library gives one (else None), and `task/num_documents`."""


@dataclass(frozen=True, slots=True)
class Tasks:
    """Tasks with their data sets, before any model is loaded."""

    loaded: Mapping[str, Any]

    @property
    def names(self) -> tuple[str, ...]:
        """The names under which figures come: tasks, and groups of them."""
        return (*self.loaded["tasks"], *self.loaded["groups"])

    @property
    def longest_reply(self) -> int:
        """The most tokens that a task asks a reply to have; 0 where none asks for replies."""
        asked = [task.config.generation_kwargs or {} for task in self.generating]
        return max((int(kwargs.get("max_gen_toks", 256)) for kwargs in asked), default=0)

    @property
    def generating(self) -> list[Any]:
        """The tasks that ask for replies, and not for log-probs alone."""
        return [task for task in self.loaded["tasks"].values() if task.get_config("output_type") == "generate_until"]


def require_installed() -> None:
    """Nothing; raises ConfigError where the library is missing."""
    if find_spec("lm_eval") is None:
        raise ConfigError("--tasks needs the lm-eval library, which is not installed", fix="pip install 'orpo[lm-eval]'")


def load_tasks(names: Sequence[str], copies: Mapping[str, str]) -> Tasks:
    """The tasks of the installed library with their data sets: from the hub or its cache, or from the folders of `copies` by task.

    Raises ConfigError for a task that the library does not know; OrpoError where a data set cannot be had.
    """
    with _quiet():
        from lm_eval.tasks import TaskManager

        manager = TaskManager()
        known = set(manager.all_tasks)
        for name in names:
            if name not in known:
                near = get_close_matches(name, known, n=3)
                raise ConfigError(
                    f"the lm-eval library has no task {name!r}",
                    doing="choosing benchmarks",
                    fix=f"did you mean {', '.join(near)}?" if near else "list them with: lm-eval ls tasks",
                )
        with TemporaryDirectory() as folder:
            wanted = [_on_copy(manager, name, copies[name], Path(folder)) if name in copies else name for name in names]
            return Tasks(_loaded(manager, wanted, names))


def _on_copy(manager: Any, name: str, copy: str, folder: Path) -> str:
    """The path of a task file that is the library's own, with its data set read from the folder `copy`."""
    own = manager.task_index[name].yaml_path
    if own is None or name not in manager.all_subtasks:
        raise ConfigError(f"--task-data: {name} is a group of tasks, which have data sets of their own", fix="name one of its tasks")
    path = folder / f"{name}.yaml"
    path.write_text(f"include: {own}\ntask: {name}\ndataset_path: {Path(copy).resolve()}\n", encoding="utf-8")
    return str(path)


def _loaded(manager: Any, wanted: Sequence[str], names: Sequence[str]) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = manager.load(list(wanted))
    except (OSError, ValueError) as error:  # what datasets and the hub raise where there is neither network nor cache
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise OrpoError(
            f"the data set of {', '.join(names)} is not on this machine, and could not be fetched: {first_line}",
            doing="loading benchmarks",
            fix=f"run it once with a network, or {how_to_copy(names[0])}",
        ) from error
    return found


def how_to_copy(name: str) -> str:
    """What to do for the data set of a task on a machine without a network."""
    return f"give a copy: hf download ORG/NAME --repo-type dataset --local-dir FOLDER, then --task-data {name}=FOLDER"


def task_figures(
    body: Any, tokenizer: Any, tasks: Tasks, *, is_chat: bool, max_new_tokens: int | None, num_documents: int | None
) -> Figures:
    """The figures of `body` on `tasks`; with `is_chat`, prompts go through the chat template of the tokenizer.

    `max_new_tokens` takes the place of what the tasks say of replies; of each task, `num_documents` are taken, None: all.
    """
    # Its resamples are few: forking a process that holds a model for them would take longer, and cannot be done under CUDA.
    os.environ.setdefault("DISABLE_MULTIPROC", "1")
    with _quiet():
        from lm_eval import evaluate
        from lm_eval.models.huggingface import HFLM

        _settle(tasks, max_new_tokens)
        try:
            outcome = evaluate(
                HFLM(pretrained=body, tokenizer=tokenizer, batch_size=BATCH_SIZE),
                tasks.loaded,
                limit=num_documents,
                apply_chat_template=is_chat,
                fewshot_as_multiturn=True,
                bootstrap_iters=BOOTSTRAP_ITERATIONS,
                log_samples=False,
            )
        except LookupError as error:
            if "nltk" not in str(error):
                raise
            raise OrpoError(
                "a task needs a table of the nltk library that is not on this machine",
                doing="counting words and sentences of replies",
                fix="fetch it once with a network: python -m nltk.downloader punkt_tab",
            ) from error
    return _figures(outcome)


def _settle(tasks: Tasks, max_new_tokens: int | None) -> None:
    """Nothing; the settings that tasks leave open are those that the library's own command gives them."""
    from lm_eval.defaults import DEFAULT_OTHER_SEED

    for task in tasks.loaded["tasks"].values():
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)
    for task in tasks.generating if max_new_tokens else ():
        task.set_config(key="generation_kwargs", value={"max_gen_toks": max_new_tokens}, update=True)


def _figures(outcome: Mapping[str, Any]) -> Figures:
    """The library's results under our names. A metric's filter is named where it is not the one that does nothing."""
    figures: Figures = {}
    for task, results in outcome["results"].items():
        for key, value in results.items():
            metric, _, kept = key.partition(",")
            if not kept:  # the task's own name and such
                continue
            name = f"{task}/{metric}" + ("" if kept == "none" else f",{kept}")
            figures[name] = float(value) if isinstance(value, int | float) else None
        if task in outcome["n-samples"]:
            figures[f"{task}/num_documents"] = float(outcome["n-samples"][task]["effective"])
    return figures


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, advice of the libraries is neither logged nor printed; progress bars are shown on a terminal alone."""
    loggers = [logging.getLogger(name) for name in ("lm_eval", "huggingface_hub", "datasets")]
    levels = [logger.level for logger in loggers]
    unread = StringIO()
    bars = unread if not sys.stderr.isatty() else sys.stderr
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with redirect_stdout(unread), redirect_stderr(bars):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
