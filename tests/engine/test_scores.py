"""A reward model on packs: scores and gradients are those of single rows through transformers' own model, and of its padded batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from orpo.core.records import Source
from orpo.core.tokens import TokenizedExample
from orpo.engine.paths import Path
from orpo.engine.scores import ScoresModel, choose_score_path
from orpo.errors import ConfigError

VOCABULARY, PAD = 37, 0
CONFIG: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_labels": 1}
CONFIG |= {
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "pad_token_id": PAD,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def pair(*rows: list[int]) -> TokenizedExample:
    prompt, *answers = (np.array(row, dtype=np.int32) for row in rows)
    return TokenizedExample(prompt, tuple(answers), Source("pairs.jsonl", 1))


# The second pair agrees past its prompt; answers of the third end in padding, or are nothing else.
PAIRS = [pair([5, 6, 7], [8, 9], [10, 11, 12, 13]), pair([3, 4], [5, 6, 7], [5, 6, 8, 9]), pair([9, 8], [7, PAD, PAD], [PAD, PAD])]


def tiny(family: str = "Llama", **changes: Any) -> Any:
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**CONFIG | changes)
    return getattr(transformers, f"{family}ForSequenceClassification")(config).train()


def stepped(path: Path) -> tuple[Tensor, dict[str, Tensor]]:
    body = tiny()
    model = ScoresModel(body, path=path)
    scores = model(PAIRS)
    torch.nn.functional.softplus(scores.rejected - scores.chosen).sum().backward()
    model.release()
    return torch.cat([scores.chosen, scores.rejected]).detach(), {name: p.grad for name, p in body.named_parameters()}


@pytest.mark.parametrize("path", [Path.SHARED, Path.PACKED, Path.PADDED])
def test_scores_and_gradients_are_those_of_single_rows(path: Path) -> None:
    expected_scores, expected = stepped(Path.PLAIN)
    scores, found = stepped(path)
    torch.testing.assert_close(scores, expected_scores, rtol=0, atol=1e-5)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_a_padded_batch_of_transformers_gives_the_same_scores() -> None:
    body = tiny().eval()
    rows = [[*e.prompt_ids.tolist(), *ids.tolist()] for e in PAIRS for ids in e.completions]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    with torch.no_grad():
        theirs = body(input_ids=ids, attention_mask=mask).logits[:, 0].double().view(-1, 2)
        ours = ScoresModel(body, path=Path.SHARED)(PAIRS)
    torch.testing.assert_close(ours.chosen, theirs[:, 0], rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.rejected, theirs[:, 1], rtol=0, atol=1e-5)


def test_a_rank_without_work_still_touches_every_parameter() -> None:
    body = tiny()
    ScoresModel(body, path=Path.SHARED)([]).chosen.sum().backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in body.parameters())


def test_the_fastest_path_that_is_right_is_taken() -> None:
    body = tiny()
    assert choose_score_path(body, longest=30).path is Path.SHARED
    assert body.training
    assert body.config._attn_implementation == "sdpa"
    assert choose_score_path(tiny("Mistral", sliding_window=4), longest=30).path is Path.SHARED


def test_attention_that_drops_weights_in_training_is_taken_in_no_pack() -> None:
    choice = choose_score_path(tiny(attention_dropout=0.1), longest=30)
    assert choice.path is Path.PADDED
    assert dict(choice.refused)[Path.SHARED].startswith("dropout 0.1 in")
    assert "dropout" in dict(choice.refused)[Path.PACKED]


def test_a_model_whose_attention_is_not_called_is_found_out() -> None:
    choice = choose_score_path(tiny("Bloom", n_layer=2, n_head=4), longest=30)
    assert choice.path is Path.PADDED
    assert all("0 of 2 layers attend" in reason for _, reason in choice.refused)


def test_a_model_without_such_a_layer_is_refused() -> None:
    body = tiny()
    body.classifier = body.score
    del body.score
    with pytest.raises(ConfigError, match="no linear layer `score`"):
        choose_score_path(body, longest=30)
