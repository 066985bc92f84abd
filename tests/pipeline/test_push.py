"""Only the model, its tokenizer and its card are sent, privately, in one commit, to where the user said."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub.errors import LocalTokenNotFoundError, OfflineModeIsEnabled

from orpo.errors import ConfigError, OrpoError
from orpo.pipeline.push import planned_push, push


class FakeHub:
    """What is used of HfApi, and what was asked of it."""

    def __init__(self, *, is_private: bool = True, error: Exception | None = None) -> None:
        self.is_private, self.error = is_private, error
        self.made: list[tuple[str, dict[str, Any]]] = []
        self.sent: dict[str, Path] = {}

    def whoami(self) -> dict[str, str]:
        if self.error:
            raise self.error
        return {"name": "me"}

    def create_repo(self, name: str, **options: Any) -> str:
        self.made.append((name, options))
        return f"https://hub.example/{name}"

    def repo_info(self, name: str) -> Any:
        return SimpleNamespace(private=self.is_private)

    def create_commit(self, name: str, operations: list[Any], *, commit_message: str) -> None:
        assert commit_message
        self.sent = {operation.path_in_repo: Path(operation.path_or_fileobj) for operation in operations}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished LoRA run, as far as its files go, with more in it than may leave."""
    (tmp_path / "config.resolved.yaml").write_text("model: org/base\ndata: [pairs.jsonl]\nuse_peft: true\n")
    for name in ("samples.jsonl", "metrics.jsonl", "report.html", "README.md", "report_plot.png", "data_report.json", "env.json"):
        (tmp_path / name).write_text(name)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    for name in ("adapter_model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "README.md", "notes.txt"):
        (tmp_path / "adapter" / name).write_text(name)
    (tmp_path / "adapter" / "checkpoint-3").mkdir()
    return tmp_path


MODEL = {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}


def test_the_model_its_tokenizer_and_the_card_of_the_run_are_sent_and_nothing_else(run: Path) -> None:
    planned, hub = planned_push(str(run), "me/model", with_report=False), FakeHub()
    assert push(planned, public=False, api=hub) == "https://hub.example/me/model"
    assert hub.made == [("me/model", {"private": True, "exist_ok": True})]
    assert set(hub.sent) == MODEL | {"README.md", "report_plot.png"}
    assert hub.sent["README.md"] == run / "README.md", "not the empty one that PEFT leaves beside an adapter"
    assert planned.left_out == ("adapter/README.md", "adapter/checkpoint-3", "adapter/notes.txt")
    assert planned.num_bytes == sum(path.stat().st_size for path in hub.sent.values())
    assert planned.notes == ()


def test_the_report_is_sent_only_when_asked_for_and_that_it_shows_data_is_said(run: Path) -> None:
    planned = planned_push(str(run), "me/model", with_report=True)
    assert {upload.name for upload in planned.uploads} == MODEL | {"README.md", "report_plot.png", "report.html"}
    assert planned.notes == ("the report shows prompts of the data and replies to them",)


def test_public_is_public(run: Path) -> None:
    hub = FakeHub(is_private=False)
    push(planned_push(str(run), "me/model", with_report=False), public=True, api=hub)
    assert hub.made[0][1]["private"] is False
    assert hub.sent


def test_a_private_push_into_a_public_repository_is_refused(run: Path) -> None:
    hub = FakeHub(is_private=False)
    with pytest.raises(ConfigError, match="me/model exists and is public"):
        push(planned_push(str(run), "me/model", with_report=False), public=False, api=hub)
    assert hub.sent == {}


def test_an_adapter_that_names_a_path_of_this_machine_is_noted(run: Path) -> None:
    (run / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "/home/me/base"}')
    (note,) = planned_push(str(run), "me/model", with_report=False).notes
    assert "names its base by a path of this machine (/home/me/base)" in note


@pytest.mark.parametrize("name", ["model", "me/", "/model", "a/b/c", "me/mo del"])
def test_what_names_no_repository_is_refused(run: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="names no"):
        planned_push(str(run), name, with_report=False)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no weights"):
        planned_push(str(tmp_path), "me/model", with_report=False)


def test_without_a_token_it_is_said_how_to_get_one(run: Path) -> None:
    with pytest.raises(ConfigError, match="no token for the hub was found") as caught:
        push(planned_push(str(run), "me/model", with_report=False), public=False, api=FakeHub(error=LocalTokenNotFoundError("no")))
    assert "hf auth login" in caught.value.fix


def test_without_network_it_is_said_that_nothing_was_published(run: Path) -> None:
    with pytest.raises(OrpoError, match="the hub cannot be reached") as caught:
        push(planned_push(str(run), "me/model", with_report=False), public=False, api=FakeHub(error=OfflineModeIsEnabled("offline")))
    assert "nothing was published" in caught.value.doing
    assert caught.value.exit_code == 1


def test_what_the_hub_refuses_is_told_with_its_status(run: Path) -> None:
    error = OSError("403 Forbidden: you may not write here")
    error.response = SimpleNamespace(status_code=403)  # type: ignore[attr-defined]
    with pytest.raises(OrpoError, match=r"the hub refused \(403\)") as caught:
        push(planned_push(str(run), "me/model", with_report=False), public=False, api=FakeHub(error=error))
    assert "hf auth whoami" in caught.value.fix
