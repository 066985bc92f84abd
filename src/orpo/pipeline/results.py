"""What a run came to: replies before and after, held-out figures, and the pages that show them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orpo.core.intervals import mean_interval, wilson_interval
from orpo.core.records import Source
from orpo.core.tokens import TokenizedExample
from orpo.evaluation.generation import Reply, greedy_replies
from orpo.pipeline.run_data import is_scored
from orpo.report.card import write_card
from orpo.report.page import write_report
from orpo.runs import names
from orpo.runs.atomic import write_text_atomic
from orpo.runs.jsontext import to_text
from orpo.runs.metrics import read_metrics
from orpo.runs.redact import redact

if TYPE_CHECKING:
    from orpo.pipeline.prepare import Prepared

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge says of one reply: each in [0, 1], and their mean as `score`."""

    score: float
    correct: float
    manner: float


Judge = Callable[[Source, str], Verdict]
"""(place of the pair, reply to its prompt) -> Verdict: the oracle of the built-in world."""


def start_samples(run_dir: Path, prepared: Prepared, body: Any, *, judge: Judge | None) -> None:
    """Writes samples.jsonl with the replies of the untrained model. With a judge every held-out prompt is answered, else num_samples."""
    examples = _sampled(prepared, everything=judge is not None)
    if not examples:
        return
    replies = _replies(prepared, body, examples)
    rows = [_row(prepared.tokenizer, example, reply, judge) for example, reply in zip(examples, replies, strict=True)]
    _write(run_dir, rows)


def finish_samples(run_dir: Path, prepared: Prepared, body: Any, *, judge: Judge | None) -> dict[str, Any]:
    """Adds the replies of the trained model to samples.jsonl; returns the section `oracle` when there is a judge."""
    path = run_dir / names.SAMPLES
    examples = _sampled(prepared, everything=judge is not None)
    if not examples or not path.exists():
        return {}
    answered = {row["source"]: row for row in read_metrics(path)}
    # After a resume with other held-out data or another num_samples, only prompts that were answered before can be compared.
    examples = [example for example in examples if str(example.source) in answered]
    rows = [answered[str(example.source)] for example in examples]
    for row, example, reply in zip(rows, examples, _replies(prepared, body, examples), strict=True):
        row |= {"after": reply.text, "after_tokens": reply.num_tokens, "after_ended": reply.has_ended}
        row |= {"after_verdict": asdict(judge(example.source, reply.text))} if judge else {}
    _write(run_dir, rows)
    return {"oracle": {when: _oracle(rows, when) for when in ("before", "after")}} if judge and rows else {}


def evaluation_section(run_dir: Path) -> dict[str, Any]:
    """Held-out figures before the first step and after the last, from the rows that the trainer logged; {} without held-out pairs."""
    path = run_dir / names.METRICS
    rows = [row for row in read_metrics(path) if row["split"] == "eval"] if path.exists() else []
    if not rows:
        return {}
    figures = {"before": _figures(rows[0])} if rows[0]["step"] == 0 else {}
    return {"evaluation": {**figures, **({"after": _figures(rows[-1])} if rows[-1]["step"] else {})}}


def write_pages(run_dir: Path, say: Say) -> None:
    """Writes report.html and the model card."""
    write_card(run_dir)
    say(f"report       {write_report(run_dir)}")


def _sampled(prepared: Prepared, *, everything: bool) -> list[TokenizedExample]:
    """Held-out examples to reply to (training ones where nothing is held out), spread evenly over the file; none for a reward model."""
    if is_scored(prepared.config.objective):
        return []
    pool = prepared.held_out if prepared.held_out is not None else prepared.store
    num = len(pool) if everything else min(prepared.config.num_samples, len(pool))
    return [pool[i * len(pool) // num] for i in range(num)]


def _replies(prepared: Prepared, body: Any, examples: Sequence[TokenizedExample]) -> list[Reply]:
    prompts = [example.prompt_ids for example in examples]
    return greedy_replies(body, prepared.tokenizer, prompts, max_new_tokens=prepared.config.max_new_tokens)


def _row(tokenizer: Any, example: TokenizedExample, reply: Reply, judge: Judge | None) -> dict[str, Any]:
    prompt = tokenizer.decode(example.prompt_ids, skip_special_tokens=False)
    chosen, rejected = answers_shown(tokenizer, example)
    row = {
        "step": 0,
        "source": str(example.source),
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
        "before": reply.text,
        "before_tokens": reply.num_tokens,
        "before_ended": reply.has_ended,
        "after": None,
        "after_tokens": None,
    }
    return row | ({"before_verdict": asdict(judge(example.source, reply.text))} if judge else {})


def answers_shown(tokenizer: Any, example: TokenizedExample) -> tuple[str | None, str | None]:
    """The better and the worse answer of an example: of a ranking the first and the last, of labelled ones the first of each kind."""
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in example.completions]
    if not example.labels:
        return texts[0], texts[-1]
    kinds = dict(zip(reversed(example.labels), reversed(texts), strict=True))
    return kinds.get(True), kinds.get(False)


def _oracle(rows: Sequence[Mapping[str, Any]], when: str) -> dict[str, float]:
    verdicts = [row[f"{when}_verdict"] for row in rows]
    score, low, high = mean_interval([verdict["score"] for verdict in verdicts])
    parts = {name: sum(verdict[name] for verdict in verdicts) / len(verdicts) for name in ("correct", "manner")}
    return {"score": score, "low": low, "high": high, "num": len(verdicts), **parts}


def _figures(row: Mapping[str, Any]) -> dict[str, Any]:
    """One evaluation with the 95 % Wilson interval of its accuracy."""
    num = int(row["num_pairs"])
    figures = {name: value for name, value in row.items() if name not in ("split", "seconds")}
    if row.get("rewards/accuracies") is None:
        return figures
    accuracy = float(row["rewards/accuracies"])
    low, high = wilson_interval(accuracy * num, num)
    return figures | {"accuracy": accuracy, "accuracy_low": low, "accuracy_high": high}


def _write(run_dir: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    write_text_atomic(run_dir / names.SAMPLES, "".join(to_text(redact(row)) + "\n" for row in rows))
