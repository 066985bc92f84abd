"""A run on benchmarks of the lm-eval library: names of tasks enter, an evaluation for each leaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from orpo.errors import ConfigError
from orpo.evaluation.lm_eval_tasks import Figures, how_to_copy, load_tasks, require_installed, task_figures
from orpo.pipeline.eval_config import EvalConfig
from orpo.pipeline.evaluate import base_of
from orpo.pipeline.speakers import generation_dtype, speaker_of, voice_of
from orpo.runs.evaluations import Evaluation
from orpo.training import models


def benchmarks(config: EvalConfig, *, say: Callable[[str], None]) -> list[Evaluation]:
    """The figures of the run on each of its tasks, which are written to as the run was trained: with its chat template, or without.

    Raises OrpoError where a data set cannot be had, before the weights are loaded.
    """
    from importlib.metadata import version

    voice = voice_of(config.run)
    copies = _copies(config)
    require_installed()
    say(f"data sets    of {', '.join(config.tasks)}: {', '.join(copies.values()) or 'from the hub or its cache'}")
    tasks = load_tasks(config.tasks, copies)
    positions = models.load_shape(base_of(voice.folder, voice.config)).max_positions
    longest = _reply_tokens(tasks.longest_reply, config.max_new_tokens, positions)
    is_chat = voice.manner == "chat"
    documents = "all documents" if config.num_documents is None else f"{config.num_documents:,} documents of each"
    template = "with its chat template" if is_chat else "without a chat template"
    say(f"benchmarks   {voice.name} on {', '.join(config.tasks)}, {documents}, {template}")
    if longest:
        say(f"note         replies have at most {longest:,} tokens, not the {tasks.longest_reply:,} of the task")
    speaker = speaker_of(voice, generation_dtype("auto"))
    figures = task_figures(
        speaker.body, voice.tokenizer, tasks, is_chat=is_chat, max_new_tokens=longest, num_documents=config.num_documents
    )
    settings = {
        "library": f"lm-eval {version('lm_eval')}",
        "is_chat": is_chat,
        "max_new_tokens": longest,
        "num_documents": config.num_documents,
    }
    return [Evaluation("benchmark", {"task": task, **settings}, _of(task, figures)) for task in tasks.names]


def _reply_tokens(wanted: int, asked: int | None, positions: int | None) -> int | None:
    """The tokens of a reply where they are not those that the tasks want: asked for, or half of the positions where there are too few."""
    if asked is not None or positions is None or wanted < positions:
        return asked
    return positions // 2


def _copies(config: EvalConfig) -> dict[str, str]:
    """Task -> folder, from --task-data. Raises ConfigError for what is no such thing."""
    copies: dict[str, str] = {}
    for text in config.task_data:
        task, is_there, folder = text.partition("=")
        if not is_there or not folder:
            raise ConfigError(f"--task-data {text!r} names no folder", expected="TASK=FOLDER", fix="such as --task-data ifeval=data/IFEval")
        if task not in config.tasks:
            raise ConfigError(f"--task-data names the task {task!r}, which is not measured", fix=f"add --tasks {task}")
        if not Path(folder).is_dir():
            raise ConfigError(
                f"--task-data: there is no folder {folder}", expected="a copy of the data set of a task", fix=how_to_copy(task)
            )
        copies[task] = folder
    return copies


def _of(task: str, figures: Figures) -> Figures:
    return {name: value for name, value in figures.items() if name.startswith(f"{task}/")}
