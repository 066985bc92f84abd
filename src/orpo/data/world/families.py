"""The task families of the built-in world: how each asks, what is true, what people get wrong, and how an answer is stated."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from orpo.data.world.draw import Draw
from orpo.data.world.facts import BELONGINGS, COLOURS, COUNTRIES, DAYS, MONTHS, NAMES, OPPOSITES, PAST, PLURALS, THINGS, WORDS, YOUNG
from orpo.data.world.tasks import GREETINGS, THANKS, Family, Slots, Task, Truth


def read_task(prompt: str) -> Task | None:
    """The task that a prompt asks, or None for a prompt that is not of this world."""
    core = " ".join(prompt.split())
    for greeting in filter(None, GREETINGS):
        core = core.removeprefix(greeting)
    for thanks in filter(None, THANKS):
        core = core.removesuffix(thanks)
    for family in FAMILIES:
        for reader in family.readers:
            match = reader.fullmatch(core)
            truth = family.solve(match.groupdict()) if match else None
            if match and truth:
                return Task(family, prompt, match.groupdict(), truth)
    return None


def _from_table(
    family: str, slot: str, table: Mapping[str, tuple[str, str]]
) -> tuple[Callable[[Draw], Slots], Callable[[Slots], Truth | None]]:
    """`draw` and `solve` of a family whose facts stand in a table."""
    keys = tuple(table)

    def solve(slots: Slots) -> Truth | None:
        found = table.get(slots[slot])
        return Truth(*found, item=f"{family} {slots[slot]}") if found else None

    return (lambda draw: {slot: draw.one_of(keys)}), solve


def _opposites() -> dict[str, tuple[str, str]]:
    """Each word with its opposite, and with a word from elsewhere in the list as the mistake."""
    table = {}
    for index, (left, right) in enumerate(OPPOSITES):
        stray = OPPOSITES[(index + 7) % len(OPPOSITES)]
        table[left], table[right] = (right, stray[0]), (left, stray[1])
    return table


def _successors() -> dict[str, tuple[str, str]]:
    """Days, months and numbers with what comes next, and with what came before as the mistake."""
    rows: list[tuple[str, ...]] = [(*DAYS[-1:], *DAYS, DAYS[0]), (*MONTHS[-1:], *MONTHS, MONTHS[0]), tuple(str(n) for n in range(1, 41))]
    return {row[i]: (row[i + 1], row[i - 1]) for row in rows for i in range(1, len(row) - 1)}


def _draw_sum(draw: Draw) -> Slots:
    return {"left": str(draw.number(1, 12)), "right": str(draw.number(1, 12))}


def _solve_sum(slots: Slots) -> Truth | None:
    if not (slots["left"].isdecimal() and slots["right"].isdecimal()):
        return None
    left, right = sorted((int(slots["left"]), int(slots["right"])))
    return Truth(str(left + right), str(left + right + 1), item=f"sum {left} {right}") if left >= 1 and right <= 12 else None


def _draw_larger(draw: Draw) -> Slots:
    left, right = draw.some_of(range(1, 41), 2)
    return {"left": str(left), "right": str(right)}


def _solve_larger(slots: Slots) -> Truth | None:
    if not (slots["left"].isdecimal() and slots["right"].isdecimal()):
        return None
    low, high = sorted((int(slots["left"]), int(slots["right"])))
    return Truth(str(high), str(low), item=f"larger {low} {high}") if 1 <= low < high <= 40 else None


def _draw_lookup(draw: Draw) -> Slots:
    (first, second), thing, colours = draw.some_of(NAMES, 2), draw.one_of(BELONGINGS), draw.some_of(COLOURS, 2)
    return {"first": first, "one": colours[0], "thing": thing, "second": second, "other": colours[1], "who": draw.one_of((first, second))}


def _solve_lookup(slots: Slots) -> Truth | None:
    colours = {slots["first"]: slots["one"], slots["second"]: slots["other"]}
    if slots["who"] not in colours or len(colours) != 2 or slots["thing"] not in BELONGINGS or not set(colours.values()) <= set(COLOURS):
        return None
    answer = colours.pop(slots["who"])
    return Truth(answer, colours.popitem()[1], item="lookup " + " ".join(sorted(slots.values())))


def _draw_words(draw: Draw) -> Slots:
    return {"words": ", ".join(draw.some_of(WORDS, draw.number(2, 5)))}


def _known_words(slots: Slots) -> list[str]:
    words = slots["words"].split(", ")
    return words if set(words) <= set(WORDS) and 2 <= len(words) == len(set(words)) <= 5 else []


def _solve_last(slots: Slots) -> Truth | None:
    words = _known_words(slots)
    return Truth(words[-1], words[0], item=f"last word {slots['words']}") if words else None


def _solve_count(slots: Slots) -> Truth | None:
    words = _known_words(slots)
    return Truth(str(len(words)), str(len(words) + 1), item=f"count {slots['words']}") if words else None


FAMILIES: tuple[Family, ...] = (
    Family(
        "capital",
        (
            "What is the capital of {country}?",
            "Which city is the capital of {country}?",
            "Name the capital of {country}.",
            "{country}: what is its capital?",
        ),
        ("the capital of {country} is {answer}", "in {country}, the capital is {answer}", "{answer} is the capital of {country}"),
        *_from_table("capital", "country", COUNTRIES),
    ),
    Family(
        "opposite",
        (
            "What is the opposite of {word}?",
            "Give me the opposite of {word}.",
            "Which word means the opposite of {word}?",
            "Say the opposite of {word}.",
        ),
        (
            "the opposite of {word} is {answer}",
            "the word that means the opposite of {word} is {answer}",
            "{answer} is the opposite of {word}",
        ),
        *_from_table("opposite", "word", _opposites()),
    ),
    Family(
        "plural",
        ("What is the plural of {noun}?", "How do I write the plural of {noun}?", "One {noun}, two what?", "Give me the plural of {noun}."),
        ("the plural of {noun} is {answer}", "one {noun}, two {answer}", "{answer} is the plural of {noun}"),
        *_from_table("plural", "noun", PLURALS),
    ),
    Family(
        "colour",
        ("What colour is {thing}?", "Which colour does {thing} have?", "Name the colour of {thing}."),
        ("{thing} is {answer}", "the colour of {thing} is {answer}", "{answer} is the colour of {thing}"),
        *_from_table("colour", "thing", THINGS),
    ),
    Family(
        "young",
        ("What is a young {animal} called?", "What do we call a young {animal}?", "What is the name for a young {animal}?"),
        ("a young {animal} is called a {answer}", "we call a young {animal} a {answer}", "the name for a young {animal} is {answer}"),
        *_from_table("young", "animal", YOUNG),
    ),
    Family(
        "next",
        ("What comes after {before}?", "What comes right after {before}?", "Tell me what follows {before}."),
        ("after {before} comes {answer}", "{before} is followed by {answer}", "what follows {before} is {answer}"),
        *_from_table("next", "before", _successors()),
    ),
    Family(
        "sum",
        (
            "What is {left} plus {right}?",
            "How much is {left} plus {right}?",
            "Add {left} and {right}.",
            "What is the sum of {left} and {right}?",
        ),
        ("{left} plus {right} is {answer}", "the sum of {left} and {right} is {answer}", "{left} and {right} make {answer}"),
        _draw_sum,
        _solve_sum,
    ),
    Family(
        "larger",
        ("Which is larger, {left} or {right}?", "Which number is larger: {left} or {right}?", "{left} or {right}: which one is larger?"),
        ("of {left} and {right}, the larger is {answer}", "the larger number is {answer}", "{answer} is the larger one"),
        _draw_larger,
        _solve_larger,
    ),
    Family(
        "lookup",
        (
            "The {thing} of {first} is {one}, the {thing} of {second} is {other}. What colour is the {thing} of {who}?",
            "If the {thing} of {first} is {one} and the {thing} of {second} is {other}, what colour is the {thing} of {who}?",
        ),
        ("the {thing} of {who} is {answer}", "{who} has a {thing} that is {answer}", "{answer} is the colour of the {thing} of {who}"),
        _draw_lookup,
        _solve_lookup,
    ),
    Family(
        "past",
        ("What is the past tense of {verb}?", "Give me the past tense of {verb}.", "How do I write the past tense of {verb}?"),
        ("the past tense of {verb} is {answer}", "today I {verb}, yesterday I {answer}", "{answer} is the past tense of {verb}"),
        *_from_table("past", "verb", PAST),
        held_out=True,
    ),
    Family(
        "last word",
        ("What is the last word of this list: {words}?", "Which word comes last: {words}?", "Give me the last word of: {words}."),
        ("the last word is {answer}", "the word that comes last is {answer}", "{answer} comes last"),
        _draw_words,
        _solve_last,
        held_out=True,
    ),
    Family(
        "count",
        ("How many words are in this list: {words}?", "Count the words: {words}.", "How many words do you see: {words}?"),
        ("the number of words is {answer}", "the list has a word count of {answer}", "{answer} is the number of words"),
        _draw_words,
        _solve_count,
        held_out=True,
    ),
)
"""Every family, those held out from alignment data last."""
