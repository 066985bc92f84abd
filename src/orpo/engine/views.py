"""Sums of log-probs enter, what an objective reads leaves: pairs, labelled answers, or rankings.

The one place that knows how sums are numbered: of each example its completions in order, then its prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from orpo.core.logps import ChosenLogps, CompletionLogps, LabelledLogps, PairLogps, PairScores, RankedLogps
from orpo.core.records import Reads
from orpo.core.tokens import TokenizedExample

Logps = PairLogps | ChosenLogps | LabelledLogps | RankedLogps | PairScores
"""What a model gives to an objective. Scores are those of engine/scores.py; all else here is about log-probs."""

Share = Callable[[Logps, slice], Tensor]
"""Log-probs of some of a batch's examples, and which -> their share of a step's loss, a scalar. A sum over examples, or the head makes its
gradients later."""


def logps_of(
    sums: Tensor, examples: Sequence[TokenizedExample], *, reads: Reads, with_prompt: bool = False, chosen_alone: bool = False
) -> Logps:
    """The log-probs of `examples` as `reads` has them, from all their `sums`; a pair's prompt is None unless `with_prompt`."""
    totals, prompts = split(sums, examples)
    return viewed(totals, examples, reads=reads, prompts=prompts if with_prompt else None, chosen_alone=chosen_alone)


def split(sums: Tensor, examples: Sequence[TokenizedExample]) -> tuple[Tensor, Tensor]:
    """(sums of all completions [N], sums of the prompts [P]) of the `sums` [N + P] of `examples`."""
    if not examples:
        return sums, sums
    nums = [len(example.completions) for example in examples]
    if len(set(nums)) == 1:  # no index has to reach the device
        table = sums.view(len(nums), nums[0] + 1)
        return table[:, :-1].reshape(-1), table[:, -1]
    prompts = [end - 1 for end in accumulate(num + 1 for num in nums)]
    is_completion = torch.ones(len(sums), dtype=torch.bool)
    is_completion[prompts] = False
    places = is_completion.nonzero().squeeze(1).to(sums.device)
    return sums.index_select(0, places), sums.index_select(0, torch.tensor(prompts, dtype=torch.long, device=sums.device))


def viewed(
    totals: Tensor,
    examples: Sequence[TokenizedExample],
    *,
    reads: Reads,
    prompts: Tensor | None = None,
    chosen_alone: bool = False,
) -> Logps:
    """The same from the sums of completions alone, `totals` [N], and of prompts [P] where a pair's are read.

    With `chosen_alone` the examples are pairs without their rejected answers, also where there are none of them.
    """
    counts = _like(totals, [len(completion) for example in examples for completion in example.completions])
    if reads == "labelled":
        return LabelledLogps(CompletionLogps(totals, counts), is_desirable(examples).to(totals.device))
    if reads == "rankings":
        return RankedLogps(CompletionLogps(_table(totals, examples), _table(counts, examples)), _scores(totals, examples))
    prompt = None if prompts is None else CompletionLogps(prompts, _like(prompts, [len(e.prompt_ids) - 1 for e in examples]))
    if chosen_alone:
        assert all(len(example.completions) == 1 for example in examples), "the rejected answers were left out"
        return ChosenLogps(CompletionLogps(totals, counts), prompt)
    assert all(len(example.completions) == 2 for example in examples), "a pair has two completions"
    (chosen, rejected), (num_chosen, num_rejected) = (part.view(len(examples), 2).unbind(1) for part in (totals, counts))
    return PairLogps(
        chosen=CompletionLogps(chosen, num_chosen),
        rejected=CompletionLogps(rejected, num_rejected),
        prompt=prompt,
    )


def totals_by_example(logps: Logps, examples: Sequence[TokenizedExample]) -> list[dict[str, float]]:
    """For each of `examples` its summed log-probs by name: chosen, rejected and prompt of a pair, else by the number of the completion.

    Scores of pairs have the names of pairs.
    """
    if isinstance(logps, PairScores):
        columns = zip(logps.chosen.tolist(), logps.rejected.tolist(), strict=True)
        return [{"chosen": chosen, "rejected": rejected} for chosen, rejected in columns]
    if isinstance(logps, PairLogps | ChosenLogps):
        rejected = logps.rejected if isinstance(logps, PairLogps) else None
        parts = {"chosen": logps.chosen, "rejected": rejected, "prompt": logps.prompt}
        totals = {name: part.total.tolist() for name, part in parts.items() if part is not None}
        return [{name: values[i] for name, values in totals.items()} for i in range(len(examples))]
    if isinstance(logps, RankedLogps):
        rows = [row[: len(e.completions)] for row, e in zip(logps.completions.total.tolist(), examples, strict=True)]
    else:
        flat, starts = logps.completion.total.tolist(), completion_starts(examples)
        rows = [flat[start:end] for start, end in pairwise(starts)]
    return [{f"completion {number}": total for number, total in enumerate(row, 1)} for row in rows]


def detached(logps: Logps) -> Logps:
    """The same without what made it: to be kept beyond a backward pass."""
    if isinstance(logps, PairScores):
        return PairScores(logps.chosen.detach(), logps.rejected.detach())
    if isinstance(logps, PairLogps | ChosenLogps):
        prompt = None if logps.prompt is None else _detached(logps.prompt)
        if isinstance(logps, ChosenLogps):
            return ChosenLogps(_detached(logps.chosen), prompt)
        return PairLogps(_detached(logps.chosen), _detached(logps.rejected), prompt)
    if isinstance(logps, RankedLogps):
        return RankedLogps(_detached(logps.completions), logps.scores)
    return LabelledLogps(_detached(logps.completion), logps.is_desirable)


def _detached(logps: CompletionLogps) -> CompletionLogps:
    return CompletionLogps(logps.total.detach(), logps.num_tokens)


def is_desirable(examples: Sequence[TokenizedExample]) -> Tensor:
    """The label of every completion, [N] of bool."""
    assert all(len(example.labels) == len(example.completions) for example in examples), "labelled answers have labels"
    return torch.tensor([label for example in examples for label in example.labels], dtype=torch.bool)


def completion_starts(examples: Sequence[TokenizedExample]) -> list[int]:
    """The number of each example's first completion among those of all `examples`, and their number: one entry more than examples."""
    return list(accumulate((len(example.completions) for example in examples), initial=0))


def _table(numbers: Tensor, examples: Sequence[TokenizedExample]) -> Tensor:
    """`numbers` [N], one for each completion, as a row for each example [P, K]; zeros where it has fewer than K."""
    nums = [len(example.completions) for example in examples]
    most = max(nums, default=2)
    if min(nums, default=2) == most:
        return numbers.view(len(nums), most)
    # Places past the end of a row take the zero that stands behind all numbers.
    places = torch.full((len(nums), most), len(numbers))
    for row, (start, num) in enumerate(zip(completion_starts(examples), nums, strict=False)):
        places[row, :num] = torch.arange(start, start + num)
    return torch.cat([numbers, numbers.new_zeros(1)])[places.to(numbers.device)]


def _scores(like: Tensor, examples: Sequence[TokenizedExample]) -> Tensor | None:
    """What the completions were ranked by, [P, K]; None where the data gives an order alone. Nothing at all has scores, too."""
    if not all(example.scores for example in examples):
        return None
    return _table(_like(like, [score for example in examples for score in example.scores]), examples)


def _like(like: Tensor, numbers: Sequence[float]) -> Tensor:
    return torch.tensor(numbers, dtype=like.dtype, device=like.device)
