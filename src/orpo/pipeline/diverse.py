"""How alike the replies of a run are: prompts enter, several samples of each are drawn, their likeness leaves."""

from __future__ import annotations

from orpo.errors import ConfigError
from orpo.evaluation.diversity import EMBEDDING, diversity_of
from orpo.pipeline.replies import Replying, Say, Tick, prompt_ids, replies_of, reply_room
from orpo.pipeline.speakers import generation_dtype, speaker_of, voice_of
from orpo.runs.evaluations import Evaluation


def diversity(run: str, asked: Replying, *, num_samples: int, say: Say, tick: Tick) -> Evaluation:
    """The likeness of `num_samples` replies to each prompt, and of the first replies to all. ConfigError for fewer than two prompts."""
    prompts = asked.prompts(say)
    if len(prompts) < 2:
        raise ConfigError(
            f"there is {len(prompts)} prompt, and replies to one prompt have no likeness across prompts",
            doing="measuring diversity",
            expected="two or more different prompts",
            fix="give more prompts, or a larger --num-prompts",
        )
    voice = voice_of(run)
    ids = prompt_ids(voice, prompts)
    reply_room(voice, ids, asked.sampling)
    say(f"diversity    {voice.name}, {len(prompts):,} prompts, {num_samples} replies to each, {asked.sampling}")
    replies = replies_of(speaker_of(voice, generation_dtype("auto")), ids, asked.sampling, num=num_samples, tick=tick)
    found = diversity_of([[reply.text for reply in said] for said in replies])
    return Evaluation("diversity", {**asked.settings(), "num_samples": num_samples, "embedding": EMBEDDING}, found.figures())
