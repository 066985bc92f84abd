"""Tokenizer and model from a folder or the Hub, checked before anything heavy is loaded; new embedding rows; LoRA. Never remote code."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import transformers

from orpo.data.hub_reach import hub_in_reach
from orpo.data.world.model import BUILTIN, builtin_model_path
from orpo.errors import ConfigError
from orpo.training.four_bit import is_installed, nf4, steadied
from orpo.training.unloadable import missing_folder, unloadable

if TYPE_CHECKING:
    from orpo.training.config import TrainConfig

T = TypeVar("T")

FOUR_BIT = "bitsandbytes in 4 bits"


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What of a model's config matters before its weights are loaded. `quantised`: how its weights are held already, '' for in full."""

    family: str
    vocabulary: int
    max_positions: int | None
    quantised: str = ""


def load_tokenizer(model: str) -> Any:
    """The tokenizer of `model`, from a folder or the Hub. Raises ConfigError where there is none."""
    return _from_pretrained(model, "tokenizer", lambda: transformers.AutoTokenizer.from_pretrained(located(model), **_safely(model)))


def load_architecture(model: str) -> Any:
    """The config of `model`, from a folder or the Hub. Raises ConfigError where there is none."""
    return _from_pretrained(model, "config", lambda: transformers.AutoConfig.from_pretrained(located(model), **_safely(model)))


def load_shape(model: str) -> ModelShape:
    """Family, vocabulary and positions of `model` from its config alone. Raises ConfigError for what ORPO cannot train."""
    return shape_of(load_architecture(model), model)


def shape_of(config: Any, model: str) -> ModelShape:
    """The same of a config that is loaded already; `model` is its name in messages."""
    text = config.get_text_config()
    if config.is_encoder_decoder:
        raise ConfigError(
            f"{model} is an encoder-decoder model ({config.model_type}); orpo trains decoder-only language models",
            fix="name a causal language model",
        )
    return ModelShape(config.model_type, int(text.vocab_size), getattr(text, "max_position_embeddings", None), quantised(config))


def quantised(config: Any) -> str:
    """How a model of transformers' `config` holds its weights: '' for in full, FOUR_BIT, or the name of another method."""
    settings = getattr(config, "quantization_config", None)
    if settings is None:
        return ""
    settings = settings if isinstance(settings, dict) else settings.to_dict()
    method = str(settings.get("quant_method", "an unknown method"))
    return FOUR_BIT if method.startswith("bitsandbytes") and settings.get("load_in_4bit") else method


def check_weights(shape: ModelShape, model: str, *, load_in_4bit: bool) -> None:
    """Nothing; raises ConfigError for weights that are quantised already, unless in 4 bits and to be held so."""
    if shape.quantised == FOUR_BIT and not load_in_4bit:
        raise ConfigError(
            f"the weights of {model} are in 4 bits, which cannot be trained themselves",
            expected="use_peft: true and load_in_4bit: true, or a model in full precision",
            fix="add --use-peft --load-in-4bit, or name the model that this one was made from",
        )
    if shape.quantised not in ("", FOUR_BIT):
        raise ConfigError(
            f"the weights of {model} are quantised by {shape.quantised}",
            expected="a model in full precision, or in 4 bits by bitsandbytes",
            fix="name the model that this one was made from; load_in_4bit holds it in 4 bits",
        )


def check_tokenizer(tokenizer: Any, shape: ModelShape, model: str, *, num_new: int) -> list[str]:
    """Notes for the user. Raises ConfigError when the tokenizer cannot serve this model; `num_new` tokens were added by a template."""
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            f"the tokenizer of {model} has no end-of-sequence token, so the model could never learn to stop",
            fix="set eos_token in its tokenizer_config.json",
        )
    if len(tokenizer) - num_new > shape.vocabulary:
        raise ConfigError(
            f"the tokenizer of {model} has {len(tokenizer):,} tokens, its model only {shape.vocabulary:,} embedding rows",
            fix="use the tokenizer that belongs to this model",
        )
    if tokenizer.pad_token_id is None:
        return [f"no padding token: {tokenizer.eos_token!r} stands in for it when replies are generated (training pads nothing)"]
    return []


def effective_max_length(asked: int, shape: ModelShape, *, is_explicit: bool) -> int:
    """`asked`, or what the model has positions for when the default asks for more. Raises ConfigError when the user asked for more."""
    if shape.max_positions is None or asked <= shape.max_positions:
        return asked
    if is_explicit:
        raise ConfigError(
            f"max_length is {asked:,}, but the model has only {shape.max_positions:,} positions",
            fix=f"set max_length to {shape.max_positions} or less",
        )
    return int(shape.max_positions)


def load_model(folder: str, *, dtype: torch.dtype, load_in_4bit: bool = False) -> Any:
    """The causal language model in `folder` (or of a Hub id) with weights in `dtype`, or in 4 bits to multiply in it, from safetensors."""
    return _loaded(transformers.AutoModelForCausalLM, folder, dtype, load_in_4bit)


def load_scorer(folder: str, *, dtype: torch.dtype, load_in_4bit: bool = False) -> Any:
    """The model in `folder` as a reward model: one score behind its last hidden state, by a layer that is new unless the folder has it."""
    return _loaded(transformers.AutoModelForSequenceClassification, folder, dtype, load_in_4bit, num_labels=1)


def _loaded(kind: Any, folder: str, dtype: torch.dtype, load_in_4bit: bool, **more: Any) -> Any:
    def load() -> Any:
        source = located(folder)
        held = quantised(transformers.AutoConfig.from_pretrained(source, **_safely(folder)))
        if (load_in_4bit or held == FOUR_BIT) and not is_installed():
            raise ConfigError(f"weights of {folder} in 4 bits need bitsandbytes, which is not installed", fix="pip install 'orpo[qlora]'")
        if load_in_4bit and not held:
            more["quantization_config"] = nf4(dtype)
        body = kind.from_pretrained(source, dtype=dtype, use_safetensors=True, **_safely(folder), **more)
        return steadied(body, dtype)

    return _from_pretrained(folder, "weights", load)


def pads_with(model: Any, tokenizer: Any) -> None:
    """Nothing; the reward model `model` says what padding is, by a token that ends no answer where there is one.

    transformers reads the score at the last token that is not padding, and takes no batch from a model that knows none. An adapter does not
    save such a setting: its base stays as it is.
    """
    ends, spare = tokenizer.eos_token_id, tokenizer.unk_token_id
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends
    model.config.get_text_config().pad_token_id = spare if padding == ends and spare is not None else padding


def located(model: str) -> str:
    """A folder as an absolute path, so that an adapter finds its base from anywhere; that of `builtin`; a Hub id as it is."""
    path = Path(model).expanduser()
    return str(path.resolve()) if path.is_dir() else str(builtin_model_path()) if model == BUILTIN else model


def _safely(model: str) -> dict[str, bool]:
    """What every `from_pretrained` is told: no code of the repository, and no network where there is none: the cache answers at once."""
    return {"trust_remote_code": False, "local_files_only": not Path(located(model)).is_dir() and not hub_in_reach()}


def _from_pretrained(model: str, what: str, load: Callable[[], T]) -> T:
    path = Path(model).expanduser()
    if not path.exists() and path.parent.is_dir() and path.parent != Path():
        # `runs/dmeo-1` has the form of a Hub id, but the folder before the name says that a local one was meant.
        raise missing_folder(model, what)
    try:
        return load()
    except (OSError, ValueError, KeyError) as error:
        if "requires you to execute the" in str(error) or "trust_remote_code" in str(error):
            raise ConfigError(
                f"{model} needs code of its own from its repository, and orpo never runs such code",
                fix="use a model that transformers itself implements",
            ) from error
        raise unloadable(model, what, error) from error


def check_lora_targets(model: str, targets: str | Sequence[str], *, architecture: Any = None) -> None:
    """Nothing; raises ConfigError when a name in `targets` is no linear layer of `model`. Looks at its shape, loads no weights.

    `architecture` is the config of `model`, where it is loaded already.
    """
    if isinstance(targets, str):
        targets = () if targets == "all-linear" else (targets,)
    if not targets:
        return
    with torch.device("meta"):
        body = transformers.AutoModelForCausalLM.from_config(architecture or load_architecture(model))
    layers = {name for name, module in body.named_modules() if isinstance(module, torch.nn.Linear)}
    short = sorted({name.rsplit(".", 1)[-1] for name in layers})
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in layers):
            near = difflib.get_close_matches(target, short, n=1)
            raise ConfigError(
                f"lora_target_modules names {target!r}, which is no linear layer of {model}",
                expected=f"all-linear, or of {', '.join(short)}",
                fix=f"did you mean {near[0]}?" if near else "use lora_target_modules: all-linear",
            )


def add_token_rows(model: Any, num_tokens: int, new_ids: Sequence[int], *, seed: int) -> None:
    """Give `model` embedding rows for `new_ids`: each the mean of the existing rows plus seeded noise of their scale.

    Rows that a checkpoint left unused (vocabulary padded beyond the tokenizer) are seeded as well: they were never trained.
    """
    if not new_ids:
        return
    embeddings = model.get_input_embeddings()
    if num_tokens > embeddings.weight.shape[0]:
        model.resize_token_embeddings(num_tokens, mean_resizing=False)
    generator = torch.Generator().manual_seed(seed)
    layers = [model.get_input_embeddings()]
    head = model.get_output_embeddings()
    if head is not None and head.weight is not layers[0].weight:
        layers.append(head)
    old = [i for i in range(num_tokens) if i not in set(new_ids)]
    with torch.no_grad():
        for layer in layers:
            rows = layer.weight[old].float()
            noise = torch.randn(len(new_ids), rows.shape[1], generator=generator)
            layer.weight[list(new_ids)] = (rows.mean(0) + 0.1 * rows.std(0) * noise).to(layer.weight.dtype)


def ends_with(model: Any, tokenizer: Any) -> None:
    """Nothing; `model` stops generating at the tokenizer's end of sequence, beside the ends it knew: a template may bring a new one."""
    if not hasattr(model, "generation_config"):  # a reward model writes nothing
        return
    known = model.generation_config.eos_token_id
    ends = [known] if isinstance(known, int) else list(known or [])
    if tokenizer.eos_token_id not in ends:
        model.generation_config.eos_token_id = [tokenizer.eos_token_id, *ends]
        model.config.eos_token_id = tokenizer.eos_token_id


def with_lora(model: Any, config: TrainConfig, *, new_ids: Sequence[int]) -> Any:
    """`model` with LoRA adapters in fp32; embedding rows of `new_ids` are trained and saved with the adapter.

    Where input and output embeddings are not tied, the output rows of new tokens are trained too: a token whose output row stays
    random cannot be learnt as an answer.
    """
    import peft

    targets: Any = config.lora_target_modules
    settings = peft.LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        trainable_token_indices=token_layers(model, new_ids) if new_ids else None,
        task_type="SEQ_CLS" if hasattr(model, "score") else "CAUSAL_LM",
    )
    return peft.get_peft_model(model, settings, autocast_adapter_dtype=True)


def token_layers(model: Any, new_ids: Sequence[int]) -> dict[str, list[int]]:
    """Layer name -> ids whose rows are trained: the input embeddings, and the output embeddings where they are not tied."""
    layers = {id(model.get_input_embeddings()): model.get_input_embeddings()}
    head = model.get_output_embeddings()
    if head is not None and head.weight is not model.get_input_embeddings().weight:
        layers[id(head)] = head
    names = [name for name, module in model.named_modules() if id(module) in layers]
    return {name.rsplit(".", 1)[-1]: list(new_ids) for name in names}


def load_adapter(body: Any, checkpoint: Path) -> None:
    """Nothing; the adapter weights of `body` are those of `checkpoint`, to the last bit."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    outcome = set_peft_model_state_dict(body, load_file(checkpoint / "adapter_model.safetensors"))
    assert not outcome.unexpected_keys, f"{checkpoint} holds weights that this model has not: {outcome.unexpected_keys[:3]}"
