"""What each max_length would cost: examples as they are before any limit enter; rows that are over, cut or made identical leave."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orpo.core.tokens import TokenIds, TokenizedExample

USUAL = (512, 1024, 2048, 4096)
ONE_OF = 100
"""Of so many rows the suggested max_length may leave one too long: it keeps 99 % whole."""
STEP = 64
"""A suggested max_length is a multiple of this."""
Ints = NDArray[np.int64]


class FullLengths:
    """Token counts of examples before a limit, in arrays: about 20 bytes a pair."""

    def __init__(self) -> None:
        self._prompts, self._answers = array("i"), array("i")
        self._first, self._shared = array("q", [0]), array("i")

    def append(self, example: TokenizedExample) -> None:
        """Notes an example."""
        self._prompts.append(len(example.prompt_ids))
        self._answers.extend(map(len, example.completions))
        self._first.append(len(self._answers))
        first, *others = example.completions
        self._shared.append(min((_common(first, other) for other in others), default=0))

    def __len__(self) -> int:
        return len(self._prompts)

    def table(self, *, max_length: int | None, max_positions: int | None) -> dict[str, Any]:
        """What a report has: `limits`, a list of what each max_length does; the `suggested` one, its `rule`, and whether the model's
        positions held it below that of the rows (`is_capped`); the one `in_use`, or None.

        Empty for no examples. A row is a prompt with its longest answer. Of limits that keep every row whole the smallest alone is listed,
        beside the limit in use and the suggested one.
        """
        if not len(self):
            return {}
        suggested = suggested_max_length(self._rows, max_positions)
        wanted = {*USUAL, suggested, *([max_length] if max_length else [])}
        possible = sorted(limit for limit in wanted if max_positions is None or limit <= max_positions)
        longest = int(self._rows.max())
        enough = next((limit for limit in possible if limit >= longest), longest)
        shown = [limit for limit in possible if limit <= enough or limit in (suggested, max_length)]
        return {
            "limits": [self.at(limit) for limit in shown],
            "suggested": suggested,
            "in_use": max_length,
            "is_capped": int(np.sum(self._rows > suggested)) > len(self) // ONE_OF,
            "rows_whole_share": round(float(np.mean(self._rows <= suggested)), 4),
            "rule": _rule(max_positions),
        }

    def at(self, limit: int) -> dict[str, int]:
        """What max_length `limit` does: rows over it, and with `cut-completion` answers cut and rows lost; tokens that are left either way.

        Lost are rows whose prompt leaves no room, and those whose answers become the same. Of a ranking answers that become the same as a
        better one stay in the count unless all do.
        """
        room = limit - _ints(self._prompts)
        is_over = self._rows > limit
        is_identical = is_over & (room > 0) & (room <= _ints(self._shared))
        is_kept = (room > 0) & ~is_identical
        answers, each_room = _ints(self._answers), np.repeat(room, np.diff(_ints(self._first)))
        cut = np.minimum(answers, np.maximum(each_room, 0))
        tokens = _ints(self._prompts) + np.add.reduceat(answers, _ints(self._first)[:-1])
        tokens_cut = _ints(self._prompts) + np.add.reduceat(cut, _ints(self._first)[:-1])
        return {
            "max_length": limit,
            "rows_over": int(is_over.sum()),
            "prompts_over": int((room <= 0).sum()),
            "answers_cut": int(((answers > each_room) & (each_room > 0)).sum()),
            "identical": int(is_identical.sum()),
            "tokens_drop": int(tokens[~is_over].sum()),
            "tokens_cut": int(tokens_cut[is_kept].sum()),
        }

    @property
    def _rows(self) -> Ints:
        """Prompt and longest answer of each example."""
        return _ints(self._prompts) + np.maximum.reduceat(_ints(self._answers), _ints(self._first)[:-1])


def suggested_max_length(rows: Ints, max_positions: int | None) -> int:
    """The smallest multiple of 64 that keeps 99 % of the rows whole, at most the model's positions. At least one row."""
    whole = int(np.sort(rows)[len(rows) - len(rows) // ONE_OF - 1])
    suggested = -(-whole // STEP) * STEP
    return suggested if max_positions is None else min(suggested, max_positions)


def _rule(max_positions: int | None) -> str:
    at_most = "" if max_positions is None else f", at most the model's {max_positions:,} positions"
    return f"the smallest multiple of {STEP} that keeps {100 - 100 // ONE_OF} % of the rows whole{at_most}"


def _common(first: TokenIds, second: TokenIds) -> int:
    """How many ids both begin with."""
    num = min(len(first), len(second))
    differs = first[:num] != second[:num]
    place = int(differs.argmax()) if num else 0
    return place if num and differs[place] else num


def _ints(values: array[int]) -> Ints:
    return np.array(values, dtype=np.int64)
