"""`orpo chat` as it is used: from a pipe, on a terminal, beside the base, and with what it refuses."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

Command = Callable[..., Any]
Talk = Callable[..., Any]

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


class Pipe(io.TextIOWrapper):
    """Standard input from a pipe."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="utf-8")


@pytest.fixture
def talk(orpo: Command, monkeypatch: pytest.MonkeyPatch) -> Talk:
    """Runs `orpo chat ARGUMENTS` with lines on standard input."""

    def run(*arguments: object, lines: list[str] | bytes) -> Any:
        content = lines if isinstance(lines, bytes) else "".join(f"{line}\n" for line in lines).encode()
        monkeypatch.setattr(sys, "stdin", Pipe(content))
        return orpo("chat", *arguments)

    return run


def replies(body: Any, tokenizer: Any, texts: list[str], num: int) -> list[str]:
    """What the model says after each text."""
    from orpo.evaluation.generation import greedy_replies

    ids = [np.array(tokenizer(text, add_special_tokens=False)["input_ids"], dtype=np.int32) for text in texts]
    return [greedy_replies(body.eval(), tokenizer, [prompt], max_new_tokens=num)[0].text for prompt in ids]


def loaded(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def chatml(*turns: str) -> str:
    """Turns by the user and the assistant in turn, up to the assistant's next one."""
    roles = ("user", "assistant")
    said = "".join(f"<|im_start|>{roles[index % 2]}\n{turn}<|im_end|>\n" for index, turn in enumerate(turns))
    return f"{said}<|im_start|>assistant\n"


def visible(text: str) -> str:
    from orpo.data.preview import visible

    return visible(text)


def test_lines_of_a_pipe_are_turns_of_one_conversation(talk: Talk, lively_llama: Path) -> None:
    body, tokenizer = loaded(lively_llama)
    (first,) = replies(body, tokenizer, [chatml("hello")], 6)
    second, anew = replies(body, tokenizer, [chatml("hello", first, "why?"), chatml("why?")], 6)
    lines = ["hello", "", "why?", "/undo", "why?", "/reset", "why?"]
    outcome = talk(lively_llama, "--max-new-tokens", 6, lines=lines)
    assert outcome.exit_code == 0, outcome.text
    cut = "\n(cut after 6 tokens)\n"
    assert outcome.out == "".join(visible(text) + cut for text in (first, second, second, anew))
    assert len({first, second, anew}) == 3, "what was said before counts"
    assert "the chat template of" in outcome.err
    assert "taken back: why?" in outcome.err


def test_a_system_text_comes_first_and_a_conversation_is_saved(talk: Talk, lively_llama: Path, tmp_path: Path) -> None:
    body, tokenizer = loaded(lively_llama)
    lines = ["hello", "/save a.jsonl", "/system", "/reset", "//hello", "/save a.jsonl"]
    outcome = talk(lively_llama, "--max-new-tokens", 4, "--system", "be kind", lines=lines)
    system = "<|im_start|>system\nbe kind<|im_end|>\n"
    kind, plain = replies(body, tokenizer, [system + chatml("hello"), chatml("/hello")], 4)
    assert kind != plain
    assert outcome.out.startswith(visible(kind))
    assert visible(plain) in outcome.out
    (row,) = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert row["model"] == str(lively_llama)
    assert [(turn["role"], turn["content"]) for turn in row["messages"]] == [("system", "be kind"), ("user", "hello"), ("assistant", kind)]
    assert outcome.exit_code == 2
    assert "a.jsonl exists already; nothing was written" in outcome.err


def test_a_model_without_template_continues_each_line_and_says_so(talk: Talk, tiny_llama: Path) -> None:
    body, tokenizer = loaded(tiny_llama)
    first, second = replies(body, tokenizer, ["the quick brown", "what is the"], 5)
    outcome = talk(tiny_llama, "--max-new-tokens", 5, lines=["the quick brown", "what is the"])
    assert outcome.exit_code == 0, outcome.text
    assert outcome.out == "".join(f"{visible(text)}\n(cut after 5 tokens)\n" for text in (first, second))
    assert "no chat template: each line is continued as text, by itself" in outcome.err
    refused = talk(tiny_llama, lines=["/system be kind"])
    assert (refused.exit_code, "no place for a system text" in refused.err) == (2, True)


def test_an_adapter_is_seen_beside_the_same_model_with_adapters_off(talk: Talk, adapter_run: Path) -> None:
    import peft
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from orpo.training.models import add_token_rows

    tokenizer = AutoTokenizer.from_pretrained(adapter_run / "adapter")
    tuned = peft.AutoPeftModelForCausalLM.from_pretrained(adapter_run / "adapter")
    base = AutoModelForCausalLM.from_pretrained(tuned.peft_config["default"].base_model_name_or_path)
    new = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    add_token_rows(base, len(tokenizer), new, seed=0)
    outcome = talk(adapter_run, "--vs", "base", "--max-new-tokens", 8, lines=["hello there"])
    assert outcome.exit_code == 0, outcome.text
    (left,), (right,) = (replies(body, tokenizer, [chatml("hello there")], 8) for body in (tuned, base))
    assert left != right
    names = re.findall(r"^\[(.+)\]$", outcome.out, re.MULTILINE)
    assert names == [str(adapter_run), "base"]
    assert outcome.out.index(visible(left)) < outcome.out.index("[base]") < outcome.out.index(visible(right))


def test_a_full_run_is_seen_beside_the_model_that_it_began_with(talk: Talk, full_run: Path, tiny_llama: Path) -> None:
    pairs = [(*loaded(folder), ["0: what is the capital?"], 6) for folder in (full_run / "model", tiny_llama)]
    tuned, base = (replies(*pair)[0] for pair in pairs)
    for arguments in ((full_run, "--vs", "base"), (full_run / "model", "--vs", tiny_llama), (full_run / "model", "--vs", "base")):
        outcome = talk(*arguments, "--max-new-tokens", 6, lines=["0: what is the capital?"])
        assert outcome.exit_code == 0, outcome.text
        said = [part for part in outcome.out.splitlines() if not part.startswith(("[", "("))]
        assert said == [visible(tuned), visible(base)]
    alone = talk(tiny_llama, "--vs", "base", lines=["hello"])
    assert (alone.exit_code, "the model that it began with is not known" in alone.err) == (2, True)


@pytest.mark.parametrize(
    ("lines", "code", "words"),
    [
        (["/rset"], 2, "did you mean /reset?"),
        (["/nothing-like-it"], 2, "/help lists them"),
        (["/undo"], 2, "nothing to undo"),
        (["/save"], 2, "/save needs the name of a file"),
        (["x " * 3000], 2, "fills all positions"),
        (b"hello\n\xff\n", 3, "stdin:2: byte 1 is no UTF-8"),
    ],
)
def test_what_cannot_be_done_ends_a_pipe_with_its_reason(
    talk: Talk, tiny_chat_llama: Path, lines: list[str] | bytes, code: int, words: str
) -> None:
    outcome = talk(tiny_chat_llama, "--max-new-tokens", 2, lines=lines)
    assert outcome.exit_code == code
    assert words in outcome.err


def test_what_is_no_model_that_writes_is_refused(talk: Talk, orpo: Command, tiny_llama: Path, pairs_file: Path, tmp_path: Path) -> None:
    (tmp_path / "runs" / "demo-1").mkdir(parents=True)
    missing = talk(tmp_path / "runs" / "dmeo-1", lines=["hello"])
    assert (missing.exit_code, "demo-1?" in missing.err) == (2, True)
    trained = ("--max-steps", 1, "--num-samples", 0, "--dtype", "float32", "--output-dir", "scorer")
    assert orpo("train", "--model", tiny_llama, "--data", pairs_file, "--objective", "reward", *trained).exit_code == 0
    (tmp_path / "p.txt").write_text("hello\n")
    for run in ("scorer", "scorer/model"):
        assert "holds a reward model" in talk(run, lines=["hello"]).err
    (tmp_path / "scorer" / "model").rename(tmp_path / "alone")
    outcome = orpo("generate", "alone", "--prompts", "p.txt", "--out", "r.jsonl")
    assert (outcome.exit_code, "holds a reward model" in outcome.err) == (2, True)


@pytest.mark.parametrize(("width", "are_beside"), [(60, False), (100, True)])
def test_two_replies_stand_beside_each_other_where_there_is_room(width: int, are_beside: bool) -> None:
    from orpo.cli.chat_screens import screen_for

    console = Console(file=io.StringIO(), width=width, height=30, force_terminal=True, color_system=None)
    for pane, text in zip(screen_for(console, num_models=2).panes(["tuned", "base"]), ("left \x1b[2Jside", "right side"), strict=True):
        for end in range(1, len(text) + 1):
            pane.show(text[:end])
        pane.end("cut" if text.startswith("right") else "")
    written = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[2J" not in written
    final = re.sub(r"\x1b\[[0-9?]*[A-Za-z]", "", written)
    beside = re.search(r"^left \\x1b\[2Jside +right side *$", final, re.MULTILINE) is not None
    assert beside == are_beside
    assert "tuned" in final
    assert "(cut)" in final
    if not are_beside:
        assert "[tuned]\nleft \\x1b[2Jside\n[base]\nright side\n(cut)\n" in final


def test_columns_that_are_longer_than_the_terminal_show_their_end_and_then_all() -> None:
    from orpo.cli.chat_screens import Columns, Tail

    console = Console(file=io.StringIO(), width=90, height=8, force_terminal=True, color_system=None)
    lines = "\n".join(f"line {number}" for number in range(30))
    with console.capture() as capture:
        console.print(Tail(["a", "b"], [lines, ""], ["", ""]))
    shown = capture.get()
    assert "line 29" in shown
    assert "line 20" not in shown
    for pane in Columns(console).panes(["a", "b"]):
        pane.show(lines)
        pane.end("")
    rest = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(f"line {number} " in rest for number in range(30))


class Terminal:
    """A person at a terminal of this width: types, and reads what appears."""

    def __init__(self, *arguments: object, width: int, folder: Path) -> None:
        self.main, child = pty.openpty()
        environment = {**os.environ, "COLUMNS": str(width), "LINES": "40", "TERM": "xterm", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        environment.pop("CI", None)
        program = "import sys; from orpo.cli.main import main; sys.argv[0] = 'orpo'; main()"
        command = [sys.executable, "-c", program, *map(str, arguments)]
        self.process = subprocess.Popen(
            command, stdin=child, stdout=child, stderr=child, cwd=folder, env=environment, start_new_session=True
        )
        os.close(child)
        self.text = ""

    def wait_for(self, pattern: str, *, seconds: float = 120) -> str:
        """All that appeared up to `pattern`, which is taken away; control sequences are left out."""
        limit = time.monotonic() + seconds
        while (found := re.search(pattern, self.text)) is None:
            ready, _, _ = select.select([self.main], [], [], max(0.0, limit - time.monotonic()))
            assert ready, f"{pattern!r} did not appear in {self.text!r}"
            try:
                piece = os.read(self.main, 65536).decode("utf-8", errors="replace")
            except OSError:  # what Linux says when the other side is closed
                piece = ""
            assert piece, f"it ended before {pattern!r}: {self.text!r}"
            self.text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", self.text + piece)
        before, self.text = self.text[: found.end()], self.text[found.end() :]
        return before

    def type(self, text: str) -> None:
        os.write(self.main, text.encode())

    def interrupt(self) -> None:
        """Ctrl-C."""
        os.killpg(self.process.pid, signal.SIGINT)

    def interrupt_line(self) -> str:
        """What Ctrl-C at the prompt answers, up to the next prompt. Pressed again where nothing comes: a signal that arrives while Python's
        readline handles a key waits there until something else happens."""
        self.interrupt()
        ready, _, _ = select.select([self.main], [], [], 30)
        if not ready:
            self.interrupt()
        return self.wait_for("\n> ")


@pytest.fixture
def terminal(adapter_run: Path, tmp_path: Path) -> Iterator[Terminal]:
    """An adapter run that does not stop by itself."""
    person = Terminal("chat", adapter_run, "--max-new-tokens", "1900", width=100, folder=tmp_path)
    yield person
    person.process.kill()
    person.process.wait()
    os.close(person.main)


def test_a_person_talks_stops_a_reply_takes_it_back_and_leaves(terminal: Terminal, tmp_path: Path) -> None:
    shown = terminal.wait_for("\n> ")
    assert "Ctrl-C stops a reply, Ctrl-D ends" in shown
    terminal.type("hello there\n")
    terminal.wait_for(r"hello there\s+\S")
    terminal.interrupt()
    terminal.wait_for(r"\(stopped\)")
    terminal.wait_for("\n> ")
    terminal.type("/help\n")
    shown = terminal.wait_for("\n> ")
    assert all(name in shown for name in ("/reset", "/undo", "/system TEXT", "/save FILE", "/help"))
    terminal.type("/svae x\n")
    assert "did you mean /save?" in terminal.wait_for("\n> ")
    terminal.type("/save talk.jsonl\n")
    assert "saved 1 rounds to talk.jsonl" in terminal.wait_for("\n> ")
    rows = [json.loads(line) for line in (tmp_path / "talk.jsonl").read_text().splitlines()]
    assert [len(row["messages"]) for row in rows] == [2]
    terminal.type("/undo\n")
    assert "taken back: hello there" in terminal.wait_for("\n> ")
    terminal.type("half a lin")
    terminal.wait_for("half a lin")
    assert "Ctrl-D ends the chat" in terminal.interrupt_line()
    terminal.type("\x1b[A\n")  # the line before, which readline kept
    assert "nothing to undo" in terminal.wait_for("\n> ")
    terminal.type("\x04")
    assert terminal.process.wait(timeout=30) == 0
