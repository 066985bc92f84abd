"""The --columns flag."""

from __future__ import annotations

import pytest

from orpo.data.columns import by_role, parse_columns
from orpo.errors import ConfigError


def test_roles_and_columns_are_read_with_spaces_around_them() -> None:
    assert parse_columns("prompt=question, chosen = good answer") == {"prompt": "question", "chosen": "good answer"}
    assert parse_columns("chosen=a=b") == {"chosen": "a=b"}


@pytest.mark.parametrize("text", ["", "prompt", "prompt=", "=question", "prompt=a,", "prompt:a"])
def test_bad_syntax_is_an_error_that_shows_the_syntax(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_columns(text)
    assert "--columns prompt=question,chosen=good" in str(caught.value)


def test_an_unknown_role_gets_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="'promt' is not a role; did you mean 'prompt'"):
        parse_columns("promt=question")


def test_a_mapping_the_wrong_way_round_is_turned() -> None:
    with pytest.raises(ConfigError, match="the role stands left: chosen=gut"):
        parse_columns("gut=chosen")


@pytest.mark.parametrize("text", ["prompt=a,prompt=b", "prompt=a,chosen=a"])
def test_a_role_or_a_column_given_twice_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match=r"twice|two roles"):
        parse_columns(text)


def test_swapped_columns_are_seen_by_role_alone() -> None:
    assert by_role({"chosen": 1, "rejected": 2, "id": 3}, {"chosen": "rejected", "rejected": "chosen"}) == {
        "chosen": 2,
        "rejected": 1,
        "id": 3,
    }
    assert by_role({"prompt": 2}, {"prompt": "question"}) == {}
    assert by_role({"question": 1, "prompt": 2}, {"prompt": "question"}) == {"prompt": 1}
