"""`orpo chat`: lines of a person, or of a pipe, enter; replies and answers to commands leave."""

from __future__ import annotations

import difflib
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.text import Text

from orpo.errors import DataError, UserError

if TYPE_CHECKING:
    from orpo.evaluation.generation import Reply
    from orpo.pipeline.chat import Chat

PROMPT = "> "


def run_chat(
    run: str, *, versus: str | None, max_new_tokens: int, temperature: float, top_p: float, seed: int, system: str, dtype: str
) -> None:
    """Talks until the input ends. On a terminal errors are shown and the chat goes on; in a pipe the first one ends it."""
    from orpo.evaluation.sampling import Sampling
    from orpo.pipeline.chat import open_chat

    sampling = Sampling(max_new_tokens, temperature, top_p, seed)
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    told = Console() if is_terminal else Console(stderr=True, soft_wrap=True)
    try:
        chat = open_chat(run, versus, sampling, dtype=dtype)
        session = Session(chat, Console(soft_wrap=not is_terminal), told)
        if system:
            session.take(f"/system {system}")
        session.welcome(is_terminal=is_terminal)
        if is_terminal:
            _talk(session)
        else:
            _read(session)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _talk(session: Session) -> None:
    """Asks a person until Ctrl-D."""
    with suppress(ImportError):  # a Python built without it: lines can be typed, but not called back with the arrow keys
        import readline  # noqa: F401
    while True:
        try:
            line = input(PROMPT)
        except EOFError:
            session.told.out("")
            return
        except KeyboardInterrupt:
            session.told.out("")
            session.say("Ctrl-D ends the chat")
            continue
        except UnicodeDecodeError:
            session.say("that line was no UTF-8 text")
            continue
        try:
            if not session.take(line):
                return
        except UserError as error:
            session.say(str(error))
        except KeyboardInterrupt:
            session.say("stopped, and the question is taken back")


def _read(session: Session) -> None:
    """Takes the lines of a pipe or a file, each a question or a command. DataError for bytes that are no text."""
    for number, raw in enumerate(sys.stdin.buffer, start=1):
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            fix = "convert the input: iconv -t UTF-8"
            raise DataError(f"byte {error.start + 1} is no UTF-8", where=f"stdin:{number}", doing="reading questions", fix=fix) from None
        if not session.take(line):
            return


@dataclass(slots=True)
class Session:
    """A chat, where its replies appear, and where everything else is said."""

    chat: Chat
    screen: Console
    told: Console

    def say(self, text: str) -> None:
        """A line that is no reply; what stands in it cannot steer the terminal."""
        from orpo.data.preview import visible

        self.told.print(Text(visible(text), style="dim"))

    def welcome(self, *, is_terminal: bool) -> None:
        """Says who replies and how what is typed becomes a prompt."""
        for speaker in self.chat.speakers:
            self.say(f"{speaker.name:<12} {speaker.about}")
        self.say(f"{'sampling':<12} {self.chat.sampling}, at most {self.chat.sampling.max_new_tokens:,} tokens")
        if is_terminal:
            self.say("/help lists the commands, Ctrl-C stops a reply, Ctrl-D ends")

    def take(self, line: str) -> bool:
        """Whether to go on after this line: a command, or a question, which is answered. UserError for what cannot be done."""
        text = line.strip()
        if text.startswith("//"):
            text = text[1:]
        elif text.startswith("/"):
            name, _, rest = text.partition(" ")
            command = COMMANDS.get(name)
            if command is None:
                near = difflib.get_close_matches(name, COMMANDS, n=1)
                fix = f"did you mean {near[0]}?" if near else "/help lists them; // asks what begins with /"
                raise UserError(f"{name} is no command", fix=fix)
            return command.run(self, rest.strip())
        if text:
            self._ask(text)
        return True

    def _ask(self, question: str) -> None:
        from orpo.cli.chat_screens import screen_for

        prompts = self.chat.prompts(question)
        replies: list[str] = []
        names = [speaker.name for speaker in self.chat.speakers]
        with closing(screen_for(self.screen, num_models=len(names)).panes(names)) as panes:
            for index, pane in enumerate(panes):
                with stop_asked() as stopped:
                    reply = self.chat.reply(index, prompts[index], show=pane.show, should_stop=stopped)
                pane.end(_note(reply, is_stopped=stopped()))
                replies.append(reply.text)
        self.chat.add(question, replies)


def _note(reply: Reply, *, is_stopped: bool) -> str:
    if is_stopped and not reply.has_ended:
        return "stopped"
    if not reply.has_ended:
        return f"cut after {reply.num_tokens:,} tokens"
    return "" if reply.text else "an empty reply"


@contextmanager
def stop_asked() -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C makes the yielded function true, and the second is a KeyboardInterrupt."""
    asked: list[int] = []
    before = signal.getsignal(signal.SIGINT)

    def receive(number: int, _: FrameType | None) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, receive)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)


@dataclass(frozen=True, slots=True)
class Command:
    """How a command is typed, what it does in words, and what does it: (session, the text after its name) -> whether to go on."""

    usage: str
    meaning: str
    run: Callable[[Session, str], bool]


def _help(session: Session, _: str) -> bool:
    for command in COMMANDS.values():
        session.say(f"{command.usage:<15}{command.meaning}")
    session.say(f"{'//TEXT':<15}asks what begins with a slash")
    return True


def _reset(session: Session, _: str) -> bool:
    session.chat.rounds.clear()
    session.say("the conversation begins anew")
    return True


def _undo(session: Session, _: str) -> bool:
    if not session.chat.rounds:
        raise UserError("there is nothing to undo")
    session.say(f"taken back: {session.chat.rounds.pop().question}")
    return True


def _system(session: Session, text: str) -> bool:
    without = [speaker.name for speaker in session.chat.speakers if speaker.voice.manner == "text"]
    if text and without:
        raise UserError(f"{', '.join(without)} has no chat template, so there is no place for a system text")
    session.chat.system = text
    session.say(f"system text: {text}" if text else "no system text")
    return True


def _save(session: Session, name: str) -> bool:
    if not name:
        raise UserError("/save needs the name of a file", fix="for example /save chat.jsonl")
    path = Path(name).expanduser()
    session.chat.save(path)
    session.say(f"saved {len(session.chat.rounds)} rounds to {path}")
    return True


COMMANDS: Mapping[str, Command] = {
    "/reset": Command("/reset", "forget the conversation", _reset),
    "/undo": Command("/undo", "take back the last question and its replies", _undo),
    "/system": Command("/system TEXT", "what the model is told first; without text, nothing", _system),
    "/save": Command("/save FILE", "write the conversation, a line of JSON for each model", _save),
    "/help": Command("/help", "this list", _help),
    "/exit": Command("/exit", "end (as Ctrl-D does)", lambda *_: False),
}
