"""A run against another, or against the model it began with: prompts enter, replies of both are judged, the win rate leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from orpo.data.prompts import Prompt
from orpo.errors import ConfigError
from orpo.evaluation.generation import Reply
from orpo.evaluation.judging import Contest, Decision, Judge, decisions
from orpo.evaluation.oracle_judge import ORACLE, OracleJudge, question_of
from orpo.evaluation.win_rate import win_rate
from orpo.pipeline.replies import Replying, Say, Tick, prompt_ids, replies_of, reply_room
from orpo.pipeline.scorers import scorer_of
from orpo.pipeline.speakers import BASE, Speaker, Voice, base_speaker, generation_dtype, speaker_of, voice_of
from orpo.runs.evaluations import Evaluation


def contest(run: str, vs: str, judge: str, asked: Replying, *, say: Say, tick: Tick) -> Evaluation:
    """The win rate of `run` against `vs` (BASE, or another run or model) by `judge` (ORACLE, or a reward model), with every contest.

    Raises ConfigError or DataError before any weights are loaded.
    """
    prompts = asked.prompts(say)
    voice = voice_of(run)
    other = _opponent(voice, vs)
    ids, other_ids = prompt_ids(voice, prompts), prompt_ids(other, prompts)
    rooms = zip(reply_room(voice, ids, asked.sampling), reply_room(other, other_ids, asked.sampling), strict=True)
    open_judge = judge_for(judge, prompts, reply_tokens=[max(room) for room in rooms])
    say(f"contest      {voice.name} against {vs}, {len(prompts):,} prompts, replies {asked.sampling}, judged by {judge}")
    first = speaker_of(voice, generation_dtype("auto"))
    said = _only(replies_of(first, ids, asked.sampling, tick=tick))
    first = first if voice.is_adapter else replace(first, body=None)  # one model at a time in memory
    said_other = _only(replies_of(_second(first, other, vs), other_ids, asked.sampling, tick=tick))
    return _judged(open_judge(), prompts, said, said_other, settings={"vs": vs, "judge": judge, **asked.settings()})


def judge_for(name: str, prompts: Sequence[Prompt], *, reply_tokens: Sequence[int]) -> Callable[[], Judge]:
    """What opens the judge. Raises ConfigError where there is none of that name, or it cannot read a prompt with a reply that long."""
    if name == ORACLE:
        for prompt in prompts:
            question_of(prompt)
        return OracleJudge
    scorer = scorer_of(name)
    scorer.require_readable(prompts, reply_tokens=reply_tokens)
    return scorer.judge


def _opponent(voice: Voice, vs: str) -> Voice:
    """The voice of the other side. The model that a run began with is asked as the run is, with its tokenizer and template."""
    if vs != BASE:
        return voice_of(vs)
    if not voice.base:
        raise ConfigError(f"{voice.name} is no run directory, so the model that it began with is not known", fix="name it: --vs MODEL")
    return voice


def _second(first: Speaker, other: Voice, vs: str) -> Speaker:
    dtype = generation_dtype("auto")
    return base_speaker(first, dtype) if vs == BASE else speaker_of(other, dtype)


def _only(replies: Sequence[Sequence[Reply]]) -> list[Reply]:
    return [reply for (reply,) in replies]


def _judged(
    judge: Judge, prompts: Sequence[Prompt], said: Sequence[Reply], other: Sequence[Reply], *, settings: dict[str, object]
) -> Evaluation:
    contests = [Contest(prompt, first.text, second.text) for prompt, first, second in zip(prompts, said, other, strict=True)]
    decided = decisions(judge, contests)
    lengths = [(len(contest.first), len(contest.second)) for contest in contests]
    figures = win_rate(decided, lengths, has_order=judge.has_order).figures()
    cut = {f"num_cut{side}": sum(not reply.has_ended for reply in replies) for side, replies in (("", said), ("_other", other))}
    told = {**settings, "judge_has_order": judge.has_order, "tie_within": judge.tie_within, **cut}
    return Evaluation("win_rate", told, figures, rows=tuple(map(_row, contests, decided)))


def _row(contest: Contest, decision: Decision) -> dict[str, object]:
    """A contest for the file of contests."""
    prompt = contest.prompt.prompt
    asked = prompt if isinstance(prompt, str) else [turn.as_dict() for turn in prompt]
    told = {"source": str(contest.source), "prompt": asked, "reply": contest.first, "other": contest.second}
    return {**told, "outcome": decision.outcome, "has_flipped": decision.has_flipped}
