"""Reading orpo.yaml: what is a value, and every way a file can be wrong, with file and line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from orpo.errors import ConfigError
from orpo.training.config_file import LARGEST_FILE, read_settings


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that places read `orpo.yaml:3`."""
    monkeypatch.chdir(tmp_path)


def values(text: str) -> dict[str, Any]:
    """The values read from `text`."""
    Path("orpo.yaml").write_bytes(text.encode())
    return {setting.name: setting.value for setting in read_settings("orpo.yaml")}


@pytest.mark.parametrize("text", ["1e-5", "1E-5", "8e-06", "+1e5", "-.5e3", "1.e-2", "2.5e10", "1_0e2", "1e+3"])
def test_a_number_with_an_exponent_is_a_number_with_or_without_a_dot(text: str) -> None:
    found = values(f"learning_rate: {text}\n")["learning_rate"]
    assert isinstance(found, float)
    assert found == float(text.replace("_", ""))


@pytest.mark.parametrize("text", ["'1e-5'", "e5", "1e", "1e-5x", "1-5", "gpt2e5b"])
def test_what_only_resembles_such_a_number_stays_text(text: str) -> None:
    assert values(f"x: {text}\n") == {"x": text.strip("'")}


SCALARS = st.one_of(
    st.sampled_from(["yes", "off", "~", "null", "0x1F", "010", "1:30", "2026-01-02", ".inf", ".5", "1_000", "'quoted'", "true"]),
    st.integers().map(str),
    st.floats(allow_nan=False).map(lambda value: yaml.safe_dump(value).split("\n")[0]),
    st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example("1.5e-3").via("has a dot, so YAML 1.1 reads it as well")
@given(SCALARS)
def test_every_other_value_is_read_as_yaml_safe_load_reads_it(text: str) -> None:
    expected = yaml.safe_load(f"x: {text}\n")["x"]
    found = values(f"x: {text}\n").get("x")
    assert found == expected or (isinstance(expected, str) and isinstance(found, float) and float(text.replace("_", "")) == found)


def test_each_setting_knows_its_line_and_dashes_are_underscores() -> None:
    Path("orpo.yaml").write_text("# a comment\nmodel: m\n\npairs-per-step: 4\ndata:\n  - a.jsonl\n  - b.jsonl\n")
    found = [(setting.name, setting.value, setting.place) for setting in read_settings("orpo.yaml")]
    assert found == [
        ("model", "m", "orpo.yaml:2"),
        ("pairs_per_step", 4, "orpo.yaml:4"),
        ("data", ["a.jsonl", "b.jsonl"], "orpo.yaml:5"),
    ]


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "null\n", "\ufeff", "model:\n", "model: null\n", "model: ~\n"])
def test_nothing_written_and_null_mean_not_set(text: str) -> None:
    assert values(text) == {}


def test_a_byte_order_mark_and_windows_line_ends_are_accepted() -> None:
    assert values("\ufeffmodel: m\r\nseed: 3\r\n") == {"model": "m", "seed": 3}


def test_an_anchor_on_one_value_serves_another() -> None:
    assert values("learning_rate: &rate 1e-5\nbeta: *rate\n") == {"learning_rate": 1e-5, "beta": 1e-5}


WRONG = [
    pytest.param("model: a\nseed: 1\nmodel: b\n", "orpo.yaml:3: model is given twice, here and at orpo.yaml:1", "remove one", id="twice"),
    pytest.param("max-length: 1\nmax_length: 1\n", "orpo.yaml:2: max_length is given twice", "remove one", id="twice with a dash"),
    pytest.param("model: a\n\tseed: 1\n", "orpo.yaml:2:1: not valid YAML", "replace the tab", id="tab"),
    pytest.param("model: a: b\n", "orpo.yaml:1:9: not valid YAML: mapping values are not allowed", "needs quotes", id="colon"),
    pytest.param("model: [a, b\nseed: 1\n", "orpo.yaml:2:5: not valid YAML", "in quotes", id="open bracket"),
    pytest.param("model: 'a\nseed: 1\n", "orpo.yaml:3:1: not valid YAML", "in quotes", id="open quote"),
    pytest.param("model\nseed: 1\n", "orpo.yaml:2:5: not valid YAML", "", id="no colon"),
    pytest.param("model: @x\n", "orpo.yaml:1:8: not valid YAML", "put the value in quotes", id="at sign"),
    pytest.param(
        "model: *x\n", "orpo.yaml:1:8: not valid YAML: found undefined alias", "begins with `*` needs quotes", id="undefined alias"
    ),
    pytest.param("a: 1\n---\nb: 2\n", "orpo.yaml:2:1: not valid YAML", "one file is one run", id="two documents"),
    pytest.param("model: \x01\n", "orpo.yaml:1: a control character", "delete the character", id="control character"),
    pytest.param("- a\n- b\n", "orpo.yaml:1: this is a list", "orpo init", id="a list"),
    pytest.param("just text\n", "orpo.yaml:1: this is a single value", "orpo init", id="a text"),
    pytest.param("lora:\n  r: 16\n", "orpo.yaml:2: lora holds a section", "write `lora_r: 16` at the top level", id="section"),
    pytest.param("data:\n  - path: a\n", "orpo.yaml:2: data holds a section", "list paths alone", id="data sections"),
    pytest.param(
        "datasets:\n  - path: a\n    type: b\n", "orpo.yaml:2: datasets holds a section", "org/name:split", id="datasets sections"
    ),
    pytest.param("data: [[a]]\n", "orpo.yaml:1: data holds a list", "list paths alone", id="list of lists"),
    pytest.param("data: &x [*x]\n", "orpo.yaml:1: data holds a list", "list paths alone", id="a list in itself"),
    pytest.param("objective_options:\n  beta: 1\n", "orpo.yaml:2: objective_options holds a section", "such as `beta: 0.1`", id="options"),
    pytest.param("<<: {a: 1}\n", "orpo.yaml:1: << holds a section", "write the merged settings out", id="merge"),
    pytest.param("? [a]\n: b\n", "orpo.yaml:1: a list stands where a name belongs", "", id="list as name"),
    pytest.param("seed: 2026-13-45\n", "orpo.yaml:1: seed cannot be read", "put it in quotes", id="a date that is none"),
    pytest.param("seed: " + "9" * 5000 + "\n", "orpo.yaml:1: seed cannot be read", "", id="endless number"),
    pytest.param("seed: !!python/object/apply:os.getcwd []\n", "orpo.yaml:1:7: not valid YAML", "only plain values", id="python object"),
    pytest.param("model: !env HOME\n", "orpo.yaml:1:8: not valid YAML", "remove the `!tag`", id="own tag"),
    pytest.param("x: " + "[" * 5000, "orpo.yaml: values are nested too deeply", "flat", id="deep nesting"),
    pytest.param("x: " + "y" * LARGEST_FILE, "orpo.yaml: larger than 256 KiB", "is this a data file?", id="huge"),
]


@pytest.mark.parametrize(("text", "beginning", "fix"), WRONG)
def test_a_file_that_is_wrong_is_refused_with_place_and_remedy(text: str, beginning: str, fix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        values(text)
    assert caught.value.exit_code == 2
    assert str(caught.value).startswith(beginning)
    assert fix in caught.value.fix


def test_an_alias_bomb_is_refused_before_anything_is_built() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]
    with pytest.raises(ConfigError, match=r"^orpo\.yaml:2: a1 holds a list"):
        values("\n".join(lines))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf_16_is_recognised(encoding: str) -> None:
    Path("orpo.yaml").write_bytes("model: m\n".encode(encoding))
    with pytest.raises(ConfigError, match=r"orpo\.yaml: looks like UTF-16"):
        read_settings("orpo.yaml")


def test_a_byte_that_is_not_utf_8_is_named_with_its_line() -> None:
    Path("orpo.yaml").write_bytes(b"model: m\n# caf\xe9\n")
    with pytest.raises(ConfigError, match=r"^orpo\.yaml:2: byte 0xe9 is not UTF-8"):
        read_settings("orpo.yaml")


def test_a_missing_file_names_the_nearest_and_otherwise_orpo_init() -> None:
    with pytest.raises(ConfigError, match=r"^orpo\.yml: there is no such file(.|\n)*orpo init"):
        read_settings("orpo.yml")
    Path("orpo.yaml").write_text("")
    with pytest.raises(ConfigError, match=r"did you mean orpo\.yaml\?"):
        read_settings("orpo.yml")
    with pytest.raises(ConfigError, match="orpo init"):
        read_settings("no-such-folder/orpo.yaml")


def test_a_folder_is_no_configuration() -> None:
    Path("folder").mkdir()
    with pytest.raises(ConfigError, match=r"^folder: the configuration cannot be read: Is a directory"):
        read_settings("folder")
