"""The loss and the gradient of every parameter against TRL's own trainer, the paper's formula and LLaMA-Factory's, on the same tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from orpo.core.logps import CompletionLogps, PairLogps
from orpo.core.loss import Loss, step_loss
from orpo.core.records import Source
from orpo.core.tokens import TokenizedExample, unit_counts
from orpo.objectives import PRESETS, bound

pytestmark = [
    pytest.mark.filterwarnings("ignore:You are importing from 'trl.experimental'"),
    # TRL 1.16 knows only the older of the two names that transformers has for this setting.
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning"),
]

WORDS = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"]
ROWS = [
    {"prompt": "a b c", "chosen": " d e f g", "rejected": " h i"},
    {"prompt": "b", "chosen": " c", "rejected": " k l a b c d e f g"},
    {"prompt": "l k j i h g f e", "chosen": " a a b", "rejected": " a a c"},
    {"prompt": "c d", "chosen": " f g h i j k l", "rejected": " f"},
    {"prompt": "e e e e", "chosen": " h g f e d", "rejected": " h g f e d c b"},
    {"prompt": "i b d", "chosen": " j", "rejected": " l"},
    {"prompt": "g h i j k", "chosen": " k j i h g", "rejected": " a b c d e"},
    {"prompt": "d", "chosen": " a l", "rejected": " l a l a l a"},
]


def tokenizer() -> Any:
    """A tokenizer with one id per word, made here."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {word: index for index, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *WORDS])}
    words = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def tiny_model() -> nn.Module:
    """A random Llama in fp32, with weights large enough that its answers differ."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=16,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    model: nn.Module = LlamaForCausalLM(config)
    return model.eval()


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """TRL's ORPOTrainer on ROWS, at its own defaults for the loss."""
    from datasets import Dataset
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    folder = tmp_path_factory.mktemp("trl")
    args = ORPOConfig(output_dir=str(folder), use_cpu=True, bf16=False, report_to=[], gradient_checkpointing=False)
    return ORPOTrainer(model=tiny_model(), args=args, train_dataset=Dataset.from_list(ROWS), processing_class=tokenizer())


@pytest.fixture(scope="module")
def examples(trainer: Any) -> list[TokenizedExample]:
    """The very tokens TRL made of ROWS, as our pairs."""
    examples = []
    for number, row in enumerate(trainer.train_dataset, 1):
        prompt = row["prompt_input_ids"]
        assert row["chosen_input_ids"][: len(prompt)] == row["rejected_input_ids"][: len(prompt)] == prompt
        completions = [np.array(row[f"{side}_input_ids"][len(prompt) :], np.int32) for side in ("chosen", "rejected")]
        examples.append(TokenizedExample(np.array(prompt, np.int32), tuple(completions), Source("rows", number)))
    return examples


def test_the_tokens_compared_are_bos_prompt_completion_eos(examples: list[TokenizedExample]) -> None:
    assert examples[0].prompt_ids.tolist() == [1, 4, 5, 6]
    assert [ids.tolist() for ids in examples[0].completions] == [[7, 8, 9, 10, 2], [11, 12, 2]]


def row_logps(model: nn.Module, prompt: Any, completion: Any) -> Tensor:
    """Log-probs of all tokens of one unpadded row but the first, fp32."""
    row = torch.from_numpy(np.concatenate([prompt, completion]).astype(np.int64))
    logps = torch.log_softmax(model(input_ids=row[None]).logits[0, :-1].float(), dim=-1)
    return logps.gather(-1, row[1:, None]).squeeze(-1)


def plain_logps(model: nn.Module, examples: list[TokenizedExample]) -> PairLogps:
    """PairLogps by plain forwards, row by row."""
    sums: list[list[Tensor]] = [[], [], []]
    counts: list[list[int]] = [[], [], []]
    for example in examples:
        predicted = len(example.prompt_ids) - 1
        chosen, rejected = (row_logps(model, example.prompt_ids, ids).double() for ids in example.completions)
        for column, part in enumerate((chosen[predicted:], rejected[predicted:], chosen[:predicted])):
            sums[column].append(part.sum())
            counts[column].append(len(part))
    parts = [CompletionLogps(torch.stack(total), torch.tensor(num).double()) for total, num in zip(sums, counts, strict=True)]
    return PairLogps(chosen=parts[0], rejected=parts[1], prompt=parts[2])


def preset(name: str) -> Callable[[PairLogps], Loss]:
    """`orpo` with the loss options of a preset."""
    return bound("orpo", {key: value for key, value in PRESETS[name].items() if key != "learning_rate"})


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """The gradient of `loss` for every parameter of `model`, by name; none may be missing or all zero."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))
    assert all(gradient.abs().max() > 0 for gradient in found.values())
    return found


def our_loss_and_gradients(model: nn.Module, examples: list[TokenizedExample], name: str) -> tuple[Tensor, dict[str, Tensor], Loss]:
    loss = preset(name)(plain_logps(model, examples))
    share = step_loss(loss, unit_counts(examples))
    return share, gradients(model, share), loss


def assert_same(ours: tuple[Tensor, Mapping[str, Tensor]], theirs: tuple[Tensor, Mapping[str, Tensor]], tolerance: float) -> None:
    assert ours[0].item() == pytest.approx(theirs[0].item(), abs=tolerance)
    for name, gradient in theirs[1].items():
        torch.testing.assert_close(ours[1][name], gradient, rtol=0, atol=tolerance, msg=f"the gradient of {name} differs")


def trl_batch(trainer: Any, members: list[int]) -> dict[str, Any]:
    batch: dict[str, Any] = trainer.data_collator([trainer.train_dataset[i] for i in members])
    return batch


def test_preset_trl_is_trl_in_loss_and_in_the_gradient_of_every_parameter(trainer: Any, examples: list[TokenizedExample]) -> None:
    model = trainer.model
    loss, metrics = trainer.get_batch_loss_metrics(model, trl_batch(trainer, list(range(8))))
    share, ours, our_loss = our_loss_and_gradients(model, examples, "trl")
    assert_same((share, ours), (loss, gradients(model, loss)), 1e-5)
    counts = unit_counts(examples)
    shown = {name: metric.total.item() / counts.get(metric.unit, 1) for name, metric in our_loss.metrics.items()}
    names = set(shown) - {"odds_clamped"}
    assert names == set(metrics) - {"logits/chosen", "logits/rejected"}
    assert {name: shown[name] for name in names} == pytest.approx({name: metrics[name] for name in names}, abs=1e-5)


def test_cut_into_micro_batches_trl_drifts_and_we_do_not(trainer: Any, examples: list[TokenizedExample]) -> None:
    """What the note on preset trl says: its token average is the micro-batch's, so the cut changes its step; ours it does not."""
    model, objective, counts = trainer.model, preset("trl"), unit_counts(examples)
    with torch.no_grad():
        whole = trainer.get_batch_loss_metrics(model, trl_batch(trainer, list(range(8))))[0].item()
        trl_cut = sum(trainer.get_batch_loss_metrics(model, trl_batch(trainer, [i, i + 1]))[0].item() for i in (0, 2, 4, 6)) / 4
        our_cut = sum(step_loss(objective(plain_logps(model, examples[i : i + 2])), counts).item() for i in (0, 2, 4, 6))
    assert our_cut == pytest.approx(whole, abs=1e-5)
    assert abs(trl_cut - whole) > 1e-2


def per_pair_means(model: nn.Module, examples: list[TokenizedExample]) -> list[tuple[Tensor, Tensor]]:
    """Mean log-probs of both completions of each pair, straight from the rows."""
    means = []
    for example in examples:
        predicted = len(example.prompt_ids) - 1
        chosen, rejected = (row_logps(model, example.prompt_ids, ids)[predicted:].double().mean() for ids in example.completions)
        means.append((chosen, rejected))
    return means


def test_preset_paper_is_the_papers_formula_on_a_model(examples: list[TokenizedExample]) -> None:
    model = tiny_model()
    share, ours, _ = our_loss_and_gradients(model, examples, "paper")
    losses = []
    for log_p_w, log_p_l in per_pair_means(model, examples):
        p_w, p_l = log_p_w.exp(), log_p_l.exp()
        ratio = (p_w / (1 - p_w)) / (p_l / (1 - p_l))
        losses.append(-log_p_w - 0.1 * torch.log(1 / (1 + torch.exp(-torch.log(ratio)))))
    loss = torch.stack(losses).mean()
    assert_same((share, ours), (loss, gradients(model, loss)), 1e-6)


def test_preset_llama_factory_is_its_formula_on_a_model(examples: list[TokenizedExample]) -> None:
    model = tiny_model()
    share, ours, _ = our_loss_and_gradients(model, examples, "llama-factory")
    a_w, a_l = (torch.stack(column) for column in zip(*per_pair_means(model, examples), strict=True))
    log_odds_ratio = (a_w - a_l) - (torch.log1p(-torch.exp(a_w)) - torch.log1p(-torch.exp(a_l)))
    loss = (-a_w + 0.1 * -nn.functional.logsigmoid(log_odds_ratio)).mean()
    assert_same((share, ours), (loss, gradients(model, loss)), 1e-6)


def test_where_the_model_is_certain_trl_gives_no_number_and_we_do(trainer: Any) -> None:
    """At a log-prob of 0 TRL 1.16 ends in NaN gradients: what the tangent in stable.log_odds is for."""
    certain, other = (torch.tensor([value], requires_grad=True) for value in (0.0, -1.0))
    trainer.odds_ratio_loss(certain, other)[0].sum().backward()
    assert certain.grad is not None
    assert not certain.grad.isfinite().all()
    leaf = torch.tensor([0.0], requires_grad=True)
    one = torch.ones(1)
    policy = PairLogps(*(CompletionLogps(total, one) for total in (leaf, other.detach(), torch.zeros(1))))
    preset("trl")(policy).terms[1].total.backward()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()
