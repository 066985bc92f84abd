"""The curves of a run: a run enters, its charts leave, only of what was logged, and the table of the numbers behind them."""

from __future__ import annotations

from collections.abc import Iterator

from orpo.core.intervals import wilson_interval
from orpo.report import facts, numbers
from orpo.report.axes import RIGHT
from orpo.report.beside import RULE
from orpo.report.chart import SHARES, Chart, Line
from orpo.report.escape import clipped
from orpo.report.markup import Html, element
from orpo.report.numbers import as_number
from orpo.report.series import Curve, Row, curve, evenly, thin
from orpo.runs.summary import RunData

PER_TOKEN = "nats per token"
MAX_TABLE_ROWS = 60
WITH_SFT = 146
"""Room at the right for labels that begin with SFT."""

COLUMNS = (
    ("loss", "loss"),
    ("nll_loss", "NLL"),
    ("logps/chosen", "log p chosen"),
    ("logps/rejected", "log p rejected"),
    ("log_odds_chosen", "log odds ratio"),
    ("log_odds_ratio", "log σ of it"),
    ("rewards/accuracies", "told apart"),
    ("rewards/margins", "reward margin"),
    ("odds_clamped", "clamped"),
    ("grad_norm", "gradient norm"),
    ("learning_rate", "learning rate"),
    ("num_pairs", "pairs"),
    ("num_tokens", "tokens"),
    ("seconds", "seconds"),
)
"""Metric key and its name for people, in the order of the table."""


def charts(run: RunData, *, sft: RunData | None = None) -> tuple[Chart, ...]:
    """Every chart for which there is at least one value; with the held-out log-probs of the run `sft`, where there is one."""
    made = (_logps(run, sft), _loss(run), _accuracy(run), _log_odds(run), _single(run, "grad_norm"), _single(run, "learning_rate"))
    return tuple(chart for chart in made if chart is not None)


def _line(run: RunData, key: str, name: str, style: str, *, scale: float = 1.0) -> Line:
    return Line(name, style, curve(facts.rows(run, "train"), key, scale=scale), curve(facts.rows(run, "eval"), key, scale=scale))


def _held_out_line(run: RunData, key: str, name: str) -> Line:
    """The held-out points alone, as the line of another run."""
    points = curve(facts.rows(run, "eval"), key)
    return Line(name, f"other {key.partition('/')[2]}", held_out=Curve(points.raw, points.raw, 1, points.num_not_finite))


def _drawable(lines: list[Line]) -> tuple[Line, ...]:
    return tuple(line for line in lines if line.emphasised)


def _logps(run: RunData, sft: RunData | None) -> Chart | None:
    keys = ("logps/chosen", "logps/rejected")
    lines = _drawable([_line(run, key, key.partition("/")[2], key.partition("/")[2]) for key in keys])
    note = "Up is likelier. Likelihood training alone lifts both; the odds part holds the rejected answer back."
    if lines and sft is not None:
        # Drawn first, so that they lie below.
        lines = _drawable([_held_out_line(sft, key, f"SFT {key.partition('/')[2]}") for key in keys]) + lines
        note += f" Grey: the held-out pairs in {clipped(sft.name, 60)}, {RULE}."
    margin = RIGHT if sft is None else WITH_SFT
    return Chart("logps", "Mean log p of an answer's tokens", keys, PER_TOKEN, lines, note, margin=margin) if lines else None


def _loss(run: RunData) -> Chart | None:
    weight, trained = facts.beta(run), any("log_odds_ratio" in row for row in run.metrics or ())
    lines = [_line(run, "loss", "loss", "total"), _line(run, "nll_loss", "NLL", "nll")]
    keys, note, between = ["loss", "nll_loss"], "", None
    drawn = _drawable(lines)
    if weight and trained and len(drawn) == 2:
        lowest = _line(run, "log_odds_ratio", "odds part", "odds", scale=-weight)
        keys.append("log_odds_ratio")
        between = (0, 1)
        part = f"{numbers.nats(lowest.emphasised[-1][1])} at the end" if lowest.emphasised else "not finite"
        note = f"The tinted gap is the odds part, β × −log σ(log odds ratio) with β = {numbers.short(weight)}: {part}."
    elif trained and weight is None:
        note = "The odds part is not drawn: β stands neither in summary.json nor in the config."
    elif drawn and not trained and facts.text(run, "objective") == "sft":
        drawn, note = drawn[1:] or drawn, "SFT: the loss is the NLL, there is no other part."
    return Chart("loss", "Loss and its parts", tuple(keys), PER_TOKEN, drawn, note, between=between) if drawn else None


def _accuracy(run: RunData) -> Chart | None:
    key = "rewards/accuracies"
    line = _line(run, key, "told apart", "accuracy")
    band = tuple((x, *wilson_interval(y * num, int(num))) for x, y, num in _counted(facts.rows(run, "eval"), key))
    note = "Share of pairs whose chosen answer has the higher mean log p per token; 50\u202f% is a coin toss."
    if band:
        note += " Tinted: 95\u202f% Wilson interval."
    drawn = _drawable([Line(line.name, line.style, line.train, line.held_out, band)])
    return Chart("accuracy", "Pairs told apart", (key,), "", drawn, note, numbers.percent, SHARES, (0.5,)) if drawn else None


def _counted(rows: tuple[Row, ...], key: str) -> Iterator[tuple[float, float, float]]:
    """(step, value, num_pairs) of the held-out rows that are drawn and say how many pairs they cover."""
    drawn = set(thin(curve(rows, key).raw))
    for row in rows:
        step, value, num = (as_number(row.get(name)) for name in ("step", key, "num_pairs"))
        if step is not None and value is not None and num is not None and num >= 1 and 0 <= value <= 1 and (step, value) in drawn:
            yield step, value, num


def _log_odds(run: RunData) -> Chart | None:
    key, title, note = (
        "log_odds_chosen",
        "Log odds ratio",
        "Log odds of chosen minus those of rejected; above 0 the chosen is ahead.",
    )
    lines = _drawable([_line(run, key, "ratio", "ratio")])
    if not lines:
        key, title, note = (
            "rewards/margins",
            "Reward margin",
            "Reward of chosen minus reward of rejected; above 0 the chosen answer is ahead.",
        )
        lines = _drawable([_line(run, key, "margin", "ratio")])
    return Chart("odds", title, (key,), "nats", lines, note, marks=(0.0,)) if lines else None


def _single(run: RunData, key: str) -> Chart | None:
    name = dict(COLUMNS)[key]
    lines = _drawable([_line(run, key, "", "plain")])
    return Chart(key.replace("_", "-"), name.capitalize(), (key,), "", lines, spelled=numbers.short, marks=(0.0,)) if lines else None


def numbers_table(run: RunData) -> Html | None:
    """The rows behind the curves, held out first, then training, MAX_TABLE_ROWS of each by even steps; None without rows."""
    held, trained = (evenly(facts.rows(run, split), MAX_TABLE_ROWS) for split in ("eval", "train"))
    columns = [(key, name) for key, name in COLUMNS if any(key in row for row in (*held, *trained))]
    if not columns:
        return None
    heads = [element("th", "step", scope="col"), element("th", "pairs of", scope="col")]
    heads += [element("th", name, " ", element("code", key), scope="col") for key, name in columns]
    body = [_table_row(row, kind, columns) for kind, part in (("held out", held), ("training", trained)) for row in part]
    table = element("table", element("thead", element("tr", *heads)), element("tbody", *body))
    total = len(run.metrics or ())
    shown = f"{len(body)} of {total} rows, evenly spaced" if len(body) < total else f"all {total} rows"
    scroll = element("div", table, class_="scroll", tabindex=0, role="region", aria_label="The numbers behind the curves")
    return element("details", element("summary", f"The numbers behind the curves ({shown})"), scroll, class_="numbers")


def _table_row(row: Row, kind: str, columns: list[tuple[str, str]]) -> Html:
    step = as_number(row.get("step"))
    cells = [element("th", numbers.datum(step, numbers.count(step or 0)), scope="row"), element("td", kind)]
    for key, _ in columns:
        value = as_number(row.get(key))
        lost = "not finite" if key in row and value is None else None
        cells.append(element("td", lost or numbers.datum(value, _plain(key, value))))
    return element("tr", *cells)


def _plain(key: str, value: float | None) -> str:
    if value is None:
        return ""
    if key in ("num_pairs", "num_tokens", "odds_clamped"):
        return numbers.count(value)
    return numbers.short(value) if key in ("learning_rate", "seconds", "grad_norm") else f"{value:.4f}".replace("-", numbers.MINUS)
