"""Reward models: the name of a run or a folder enters; what is known of it, then its weights, then a judge leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orpo.core.records import Message
from orpo.core.tokens import TokenizedExample
from orpo.data.example import Example
from orpo.data.prompts import Prompt
from orpo.data.row import Problem
from orpo.data.tokenize import ExampleTokenizer
from orpo.errors import ConfigError
from orpo.evaluation.judging import Contest
from orpo.evaluation.reward_judge import RewardJudge
from orpo.pipeline.evaluate import base_of, is_reward_model, load_trained
from orpo.pipeline.speakers import Voice, described
from orpo.training import models

PROBES = ("a", "b")
"""Replies that stand for those to come, when prompts are tried on a judge before anything is generated."""


@dataclass(frozen=True, slots=True)
class Scorer:
    """A reward model before its weights are loaded. `voice` knows how it is written to; `positions` how long a row may be, None: any."""

    voice: Voice
    positions: int | None

    @property
    def name(self) -> str:
        """What it is called."""
        return self.voice.name

    def read(self, contests: Sequence[Contest]) -> list[TokenizedExample | Problem]:
        """Each contest as a pair: the first reply as chosen. A Problem where it cannot be read."""
        examples = [self._example(contest) for contest in contests]
        tokenizer = ExampleTokenizer(self.voice.tokenizer, self.voice.template)
        tokenized = iter(tokenizer.batch([example for example in examples if isinstance(example, Example)]))
        results = [example if isinstance(example, Problem) else next(tokenized).result for example in examples]
        return [self._fitting(result) for result in results]

    def require_readable(self, prompts: Sequence[Prompt], *, reply_tokens: Sequence[int]) -> None:
        """Nothing; raises ConfigError for the first prompt that cannot be read, or leaves no room for a reply of that many tokens."""
        contests = [Contest(prompt, *PROBES) for prompt in prompts]
        for contest, result, num in zip(contests, self.read(contests), reply_tokens, strict=True):
            if isinstance(result, Problem):
                raise self._refusal(contest, result.message, result.fix)
            if self.positions is not None and len(result.prompt_ids) + num > self.positions:
                length = f"it has {len(result.prompt_ids):,} tokens, and with a reply of {num:,} more than {self.positions:,} positions"
                raise self._refusal(contest, length, "lower --max-new-tokens, or take a judge that reads longer texts")

    def judge(self) -> RewardJudge:
        """The judge, with its weights."""
        voice = self.voice
        body = load_trained(voice.folder, voice.config, voice.tokenizer, load=models.load_scorer)
        return RewardJudge(self.name, body, self.read)

    def _example(self, contest: Contest) -> Example | Problem:
        """The contest as the judge's template takes it."""
        prompt, replies = contest.prompt, (contest.first, contest.second)
        if not isinstance(prompt.prompt, str) and self.voice.manner != "text":
            return replace(prompt.example, completions=tuple((Message("assistant", text),) for text in replies))
        return self.voice.written(replace(prompt.example, completions=replies))

    def _fitting(self, result: TokenizedExample | Problem) -> TokenizedExample | Problem:
        if isinstance(result, Problem) or self.positions is None:
            return result
        longest = len(result.prompt_ids) + max(map(len, result.completions))
        if longest <= self.positions:
            return result
        message = f"prompt and reply have {longest:,} tokens, the model only {self.positions:,} positions"
        return Problem("too-long", message, result.source, fix="lower --max-new-tokens")

    def _refusal(self, contest: Contest, why: str, fix: str) -> ConfigError:
        return ConfigError(
            f"the judge {self.name} cannot read this prompt: {why}", where=str(contest.source), doing="choosing a judge", fix=fix
        )


def scorer_of(run: str) -> Scorer:
    """The reward model of `run`: a run of the objective reward, a folder with such a model or adapter, or a Hub id.

    Raises ConfigError for a model without a score, or with several.
    """
    voice = described(run)
    if not is_reward_model(voice.folder, voice.config):
        raise ConfigError(
            f"{run} is no reward model: {_kind(voice.folder)}",
            doing="choosing a judge",
            expected="a run of `orpo train --objective reward`, or a sequence classification model with one score",
            fix="train one on pairs: orpo train --objective reward",
        )
    base = base_of(voice.folder, voice.config)
    config = models.load_architecture(base)
    # An adapter brings its head along; a folder with all weights says how many scores its head gives.
    if base == voice.folder and config.num_labels != 1:
        raise ConfigError(f"{run} gives {config.num_labels} scores for a text, a reward model one", doing="choosing a judge")
    return Scorer(voice, models.shape_of(config, base).max_positions)


def _kind(folder: str) -> str:
    """What is in `folder`, in words."""
    if (Path(folder) / "adapter_config.json").is_file():
        return "its adapter was trained as a language model"
    return f"it is a {', '.join(models.load_architecture(folder).architectures or ['model without a name'])}"
