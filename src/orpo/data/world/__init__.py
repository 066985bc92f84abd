"""The built-in world: short conversations over a small closed set of facts and tasks, written for this project, with an exact judge.

`world_pairs` makes preference pairs, `score_reply` judges any reply, `builtin_model_path` is the base model that was raised on the mixed
manners of this world. Everything is fixed by a seed and free of torch.
"""

from orpo.data.world.model import builtin_model_path
from orpo.data.world.oracle import OracleScore, score_reply
from orpo.data.world.pairs import Split, world_pairs, write_world_jsonl

__all__ = ["OracleScore", "Split", "builtin_model_path", "score_reply", "world_pairs", "write_world_jsonl"]
