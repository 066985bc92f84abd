"""What each finding does to training and what to do about it: the kind of a dropped row or a warning enters, two sentences leave.

`python -m orpo.data.advice docs/bad-data.md` renews the table in that page.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orpo.data.row import Severity


@dataclass(frozen=True, slots=True)
class Advice:
    """`effect` is what the finding does to training, `fix` what to do about it."""

    effect: str
    fix: str


_SAME_PAIR = "there is nothing to prefer, so the row is left out"
_LESS_RANKING = "the ranking is trained on without that answer"

DROPPED = {
    "identical": Advice(_SAME_PAIR, "remove the row; many of them mean that the two columns were made from one"),
    "identical-tokens": Advice(
        f"{_SAME_PAIR}: the template takes away what told the answers apart", "use a template that keeps it (--template FILE.jinja)"
    ),
    "identical-after-cut": Advice(f"{_SAME_PAIR}: what is left of the answers is the same", "raise max_length, or use --overlong drop"),
    "tie": Advice("the raters saw no difference, and to train on one would be to make it up", "remove the row, or have it judged again"),
    "empty-answer": Advice("an empty answer has no tokens to learn, so the row is left out", "fill it in, or remove the row"),
    "too-long": Advice(
        "the row is left out, so the model learns from short rows alone",
        "raise max_length (the table of max_length says what that costs), or use --overlong cut-completion",
    ),
    "prompt-too-long": Advice("no room is left for an answer, so the row is left out", "raise max_length, or shorten the prompt"),
    "prompt-without-token": Advice(
        "the first token of an answer would have nothing to follow from", "give the row a prompt, or use a chat template"
    ),
    "unscored": Advice("without two scores there is no order to learn", "score the answers, or remove the row"),
    "unpaired": Advice(
        "the answer has no partner of the other label and is left out", "train on labelled answers as they are: --objective kto"
    ),
    "giant-line": Advice("a row over 16 MiB is left out, never held whole", "shorten the row; check that line breaks were not lost"),
}
"""Kinds of rows that are left out and counted."""

WARNINGS = {
    "duplicates": Advice(
        "a pair that stands twice weighs twice, is learnt by heart sooner, and may be trained on and held out at once", "keep one of each"
    ),
    "near-duplicates": Advice(
        "pairs that differ in a few words weigh as often as they come, and held-out accuracy looks better than it is",
        "keep one of each group; hold out whole groups",
    ),
    "all-rows-identical": Advice("the model sees one pair again and again", "look at how the file was made"),
    "one-row": Advice("one pair teaches one pair", "give more rows"),
    "opposite-order": Advice(
        "the rows pull against each other: the odds part cancels, the likelihood raises both answers",
        "keep the order you believe, or drop all of them",
    ),
    "length-bias": Advice(
        "the model can win by length alone: answers grow (or shrink) without getting better",
        "balance or re-judge the pairs of most unequal length; watch the length of replies",
    ),
    "special-token-text": Advice(
        "the text is learnt as plain text and does not end a turn",
        "take it out where it came from a template that was applied before",
    ),
    "joined-words": Advice("the model learns to go on inside a word", "begin the answers with a space, or end the prompts with one"),
    "control-characters": Advice("the model learns to write characters that nobody sees", "clean the text"),
    "prompt-repeated": Advice("the model learns to say the prompt again before it answers", "cut the prompt off both answers"),
    "ratings-reversed": Advice("the worse answer is learnt, the better one pushed away", "swap the two answers, or the ratings"),
    "prompt-column-differs": Advice("the conversations are trained on, the column is not", "see which of the two is meant"),
    "roles-do-not-alternate": Advice("the template may join the turns in a way that no chat has", "join the turns of one speaker"),
    "trailing-user-turn": Advice("the turn after the last answer is cut off: nothing answers it", "remove it, or add the answer"),
    "empty-turn": Advice("the model sees a speaker who says nothing", "remove the turn"),
    "system-twice": Advice("the message is used, the column is not", "keep one of them"),
    "extra-columns": Advice("nothing: columns that are not read stay as metadata", "nothing, unless one of them was meant to be read"),
    "answer-unscored": Advice(_LESS_RANKING, "score the answer"),
    "answer-tied": Advice(f"{_LESS_RANKING}: of equals the first takes part", "break the tie, or leave it"),
    "answer-repeated": Advice(f"{_LESS_RANKING}: the better place counts", "remove the repeat"),
    "answer-empty": Advice(_LESS_RANKING, "fill it in, or remove it"),
    "identical-tokens": Advice(f"{_LESS_RANKING}: the template takes away what told it apart", "use a template that keeps it"),
    "identical-after-cut": Advice(f"{_LESS_RANKING}: what is left of it is that of a better one", "raise max_length"),
    "one-label": Advice("there is nothing to tell good from bad", "add answers of the other label, or use --objective sft"),
    "lopsided-labels": Advice("the commoner label decides what is learnt", "set the weight that the warning gives"),
    "possible-pairs": Advice("nothing: it is a way to more objectives", "pair them with --pair-labelled for objectives that read pairs"),
    "blank-lines": Advice("nothing: they are skipped", "see that no row was lost there"),
    "split-chosen": Advice("the other splits are not trained on", "name a split after a colon: org/name:split"),
    "files-skipped": Advice("files of another type in the folder are not read", "name the files that are meant"),
}
"""Kinds of findings with which the row is kept."""

ADVICE: Mapping[Severity, Mapping[str, Advice]] = {"dropped": DROPPED, "warning": WARNINGS}


def advice_table() -> str:
    """A markdown table of all kinds: what was found, what it does, what to do."""
    rows = ["| kind | what becomes of the row | what it does to training | what to do |", "|---|---|---|---|"]
    for kinds, fate in ((DROPPED, "dropped, counted"), (WARNINGS, "kept, counted")):
        rows += [f"| `{kind}` | {fate} | {advice.effect} | {advice.fix} |" for kind, advice in kinds.items()]
    return "\n".join(rows)


def renewed(page: str) -> str:
    """`page` with the text between `<!-- kinds:begin -->` and `<!-- kinds:end -->` made anew."""
    begin, end = "<!-- kinds:begin -->", "<!-- kinds:end -->"
    assert begin in page and end in page, "the page has no place for the table"  # noqa: PT018
    return re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n{advice_table()}\n{end}", page, flags=re.DOTALL)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(renewed(path.read_text(encoding="utf-8")), encoding="utf-8")
