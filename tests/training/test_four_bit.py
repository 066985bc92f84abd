"""A model whose frozen weights are held in 4 bits: the engine gives what its own forward gives, before and after an evaluation."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from orpo.core.logps import PairLogps
from orpo.core.loss import step_loss
from orpo.core.tokens import unit_counts
from orpo.engine.memory import optimizer_bytes
from orpo.engine.memory_trace import model_sizes, traced_step
from orpo.engine.model import LogpsModel
from orpo.engine.paths import Path as EnginePath
from orpo.engine.startup_check import choose_path
from orpo.errors import ConfigError
from orpo.objectives import bound
from orpo.training import models
from orpo.training.config import resolve_config
from orpo.training.config_check import require_bitsandbytes
from orpo.training.four_bit import dequantised, four_bit_layers, num_weights, steadied
from orpo.training.references import live_totals
from orpo.training.weightless import model_builder

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


@pytest.fixture(scope="module")
def folder(make_tiny_llama: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with 128 numbers a row: layers large enough that their scales are quantised as well."""
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed (pip install 'orpo[qlora]')")
    return make_tiny_llama(tmp_path_factory.mktemp("models") / "base", hidden=128, vocabulary=300)


def with_adapters(folder: Path, *, dtype: torch.dtype = torch.float32, new_ids: tuple[int, ...] = (), **settings: Any) -> Any:
    """A 4-bit model with LoRA whose effect is not nothing."""
    flags = {"model": str(folder), "data": ["pairs.jsonl"], "use_peft": True, "load_in_4bit": True, "lora_r": 4, **settings}
    body = models.load_model(str(folder), dtype=dtype, load_in_4bit=True)
    models.add_token_rows(body, max((300, *(i + 1 for i in new_ids))), new_ids, seed=0)
    body = models.with_lora(body, resolve_config(flags=flags).config, new_ids=new_ids)
    torch.manual_seed(1)
    for name, parameter in body.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return body


def loss_and_gradients(body: Any, path: EnginePath, examples: Any) -> tuple[float, dict[str, torch.Tensor]]:
    body.train()
    body.zero_grad()
    model = LogpsModel(body, path=path)
    logps = model(examples)
    assert isinstance(logps, PairLogps)
    loss = step_loss(bound("orpo", {"beta": 0.5})(logps), unit_counts(examples))
    loss.backward()
    model.release()
    return float(loss.detach()), {name: p.grad.clone() for name, p in body.named_parameters() if p.grad is not None}


def largest_relative(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    assert left.keys() == right.keys()
    return max(float((left[name] - right[name]).norm() / left[name].norm()) for name in left)


def test_layers_are_in_4_bits_and_embedding_and_head_are_not(folder: Path) -> None:
    body = models.load_model(str(folder), dtype=torch.float32, load_in_4bit=True)
    full = models.load_model(str(folder), dtype=torch.float32)
    assert len(four_bit_layers(body)) == 2 * 7
    assert body.get_input_embeddings().weight.dtype == torch.float32
    assert type(body.get_output_embeddings()) is torch.nn.Linear
    assert {layer.weight.quant_state.quant_type for layer in four_bit_layers(body)} == {"nf4"}
    assert all(layer.weight.quant_state.nested for layer in four_bit_layers(body))
    assert sum(map(num_weights, body.parameters())) == sum(map(num_weights, full.parameters()))


@pytest.mark.parametrize("path", [EnginePath.SHARED, EnginePath.PACKED, EnginePath.PADDED])
def test_every_path_gives_log_probs_and_gradients_of_the_plain_one(folder: Path, drawn: Callable[..., Any], path: EnginePath) -> None:
    body, examples = with_adapters(folder), drawn(5)
    plain, by_plain = loss_and_gradients(body, EnginePath.PLAIN, examples)
    fast, by_fast = loss_and_gradients(body, path, examples)
    assert fast == pytest.approx(plain, abs=1e-5)
    assert largest_relative(by_plain, by_fast) < 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_startup_check_takes_the_fastest_path(folder: Path, dtype: torch.dtype) -> None:
    assert choose_path(with_adapters(folder, dtype=dtype), longest=40, dtype=dtype).path is EnginePath.SHARED


def test_gradients_after_an_evaluation_are_what_they_were(folder: Path, drawn: Callable[..., Any]) -> None:
    body, examples = with_adapters(folder), drawn(5)
    before, by_before = loss_and_gradients(body, EnginePath.SHARED, examples)
    body.eval()
    with torch.no_grad():
        body(input_ids=torch.arange(20)[None])
    after, by_after = loss_and_gradients(body, EnginePath.SHARED, examples)
    assert after == before
    assert largest_relative(by_before, by_after) == 0


def test_under_autocast_gradients_are_those_in_fp32_up_to_rounding(folder: Path, drawn: Callable[..., Any]) -> None:
    examples = drawn(5)
    exact, by_exact = loss_and_gradients(with_adapters(folder), EnginePath.SHARED, examples)
    body = with_adapters(folder, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, by_rounded = loss_and_gradients(body, EnginePath.SHARED, examples)
    assert rounded == pytest.approx(exact, rel=5e-3)
    assert largest_relative(by_exact, by_rounded) < 0.1


def test_a_head_in_4_bits_is_left_to_the_models_own_forward_and_that_is_said(folder: Path) -> None:
    pytest.importorskip("bitsandbytes")
    settings = transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", llm_int8_skip_modules=["nothing"])
    config = transformers.AutoConfig.from_pretrained(folder)
    config.tie_word_embeddings = False
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder.parent / "untied")
    body = transformers.AutoModelForCausalLM.from_pretrained(folder.parent / "untied", quantization_config=settings)
    body = steadied(body, torch.float32)
    choice = choose_path(body, longest=40)
    assert choice.path is EnginePath.PLAIN
    assert "Linear4bit" in str(choice)


def test_with_adapters_off_it_is_the_4_bit_base(folder: Path, drawn: Callable[..., Any]) -> None:
    examples = drawn(4)
    base = models.load_model(str(folder), dtype=torch.float32, load_in_4bit=True)
    expected = live_totals(base, path=EnginePath.PLAIN, dtype=torch.float32)(examples, range(4))
    body = with_adapters(folder)
    found = live_totals(body, path=EnginePath.SHARED, dtype=torch.float32, adapters=False)(examples, range(4))
    tuned = live_totals(body, path=EnginePath.SHARED, dtype=torch.float32)(examples, range(4))
    assert torch.allclose(found, expected, atol=1e-4)
    assert (tuned - expected).abs().max() > 1e-2


def test_rows_of_new_tokens_are_trained(folder: Path, drawn: Callable[..., Any]) -> None:
    body = with_adapters(folder, new_ids=(300, 301))
    _, gradients = loss_and_gradients(body, EnginePath.SHARED, drawn(4))
    rows = [gradient for name, gradient in gradients.items() if "trainable_tokens" in name]
    assert [row.shape for row in rows] == [(2, 128)]
    assert rows[0].norm() > 0


def test_written_out_it_computes_what_it_computed(folder: Path) -> None:
    ids = torch.arange(20)[None]
    body = models.load_model(str(folder), dtype=torch.float32, load_in_4bit=True).eval()
    full = models.load_model(str(folder), dtype=torch.float32).eval()
    with torch.no_grad():
        before, in_full = body(input_ids=ids).logits, full(input_ids=ids).logits
        out = dequantised(body, torch.float32)
        after = out(input_ids=ids).logits
    assert not four_bit_layers(out)
    assert getattr(out.config, "quantization_config", None) is None
    assert torch.allclose(before, after, atol=1e-5)
    assert (before - in_full).abs().max() > 1e-3


def held(body: Any) -> int:
    """Bytes of the weights of a 4-bit model as they lie in memory."""
    total = sum(tensor.nbytes for tensor in [*body.parameters(), *body.buffers()])
    for layer in four_bit_layers(body):
        state = layer.weight.quant_state
        parts = (state.absmax, state.code, state.state2.absmax, state.state2.code, state.offset)
        total += sum(part.nbytes for part in parts)
    return total


def test_the_bytes_that_are_planned_are_those_that_are_held(folder: Path) -> None:
    flags = {"model": str(folder), "data": ["pairs.jsonl"], "use_peft": True, "load_in_4bit": True, "lora_r": 64}
    config = resolve_config(flags=flags).config
    sizes = model_sizes(lambda: model_builder(config, 300, (), torch.float32)(False))
    body = models.with_lora(models.load_model(str(folder), dtype=torch.float32, load_in_4bit=True), config, new_ids=())
    assert sizes.weight_bytes == held(body)
    assert sizes.num_parameters == sum(map(num_weights, body.parameters()))
    trained = [parameter for parameter in body.parameters() if parameter.requires_grad]
    bitsandbytes = pytest.importorskip("bitsandbytes")
    for parameter in trained:
        parameter.grad = torch.ones_like(parameter)
    optimizer = bitsandbytes.optim.AdamW8bit(trained, lr=1e-3)
    optimizer.step()
    moments = [value for state in optimizer.state.values() for name, value in state.items() if name != "step" and "qmap" not in name]
    assert optimizer_bytes(sizes, "paged_adamw_8bit") == sum(moment.nbytes for moment in moments)


def test_the_step_that_is_counted_writes_out_one_weight_at_a_time(folder: Path) -> None:
    def counted(*, four_bit: bool) -> Any:
        flags = {"model": str(folder), "data": ["pairs.jsonl"], "use_peft": True, "load_in_4bit": four_bit, "lora_r": 4}
        build = model_builder(resolve_config(flags=flags).config, 300, (), torch.float32)
        return traced_step(lambda: build(False), rows=1, row_length=32, dtype=torch.float32, device="cpu")

    four, full = counted(four_bit=True), counted(four_bit=False)
    largest = 4 * 128 * 256
    assert four.kept == full.kept
    assert 0 < four.backward - full.backward <= largest


CODE = """
import sys
sys.path.insert(0, sys.argv[1])
import orpo.training.trainer, bitsandbytes
import kernels
print("FETCHED" if kernels.asked else "NOTHING FETCHED")
"""


def test_importing_it_fetches_no_code_even_where_the_package_for_that_is_there(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "kernels.py").write_text("asked = []\ndef get_kernel(*names, **more):\n    asked.append(names)\n    raise OSError\n")
    done = subprocess.run([sys.executable, "-c", CODE, str(tmp_path)], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "NOTHING FETCHED"
    assert "kernels" not in done.stderr


def test_a_4_bit_model_without_adapters_is_refused_naming_both_settings() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_config(flags={"model": "m", "data": ["d"], "load_in_4bit": True})
    assert "load_in_4bit (flag --load-in-4bit) and use_peft contradict" in str(caught.value)
    assert "use_peft: true (QLoRA)" in caught.value.fix


@pytest.mark.parametrize(
    ("settings", "name"),
    [({"use_peft": True, "load_in_4bit": True}, "load_in_4bit true"), ({"optim": "paged_adamw_8bit"}, "optim paged_adamw_8bit")],
)
def test_without_bitsandbytes_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], name: str) -> None:
    resolved = resolve_config(flags={"model": "m", "data": ["d"], **settings})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=f"{name} needs bitsandbytes, which is not installed") as caught:
        require_bitsandbytes(resolved.config, resolved.origins)
    assert caught.value.fix.startswith("pip install 'orpo[qlora]', or remove ")
    assert caught.value.where.startswith("--")


@pytest.mark.parametrize(
    ("settings", "load_in_4bit", "said"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, False, "are in 4 bits, which cannot be trained themselves"),
        ({"quant_method": "gptq", "bits": 4}, True, "are quantised by gptq"),
    ],
)
def test_weights_that_are_quantised_already_are_refused_in_words(
    make_tiny_llama: Callable[..., Path], tmp_path: Path, settings: dict[str, Any], load_in_4bit: bool, said: str
) -> None:
    model = make_tiny_llama(tmp_path / "m")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "quantization_config": settings}))
    shape = models.load_shape(str(model))
    with pytest.raises(ConfigError, match=said):
        models.check_weights(shape, str(model), load_in_4bit=load_in_4bit)


def test_weights_that_are_in_4_bits_already_are_trained_on_as_they_are(folder: Path, tmp_path: Path) -> None:
    first = models.load_model(str(folder), dtype=torch.float32, load_in_4bit=True)
    first.save_pretrained(tmp_path)
    models.check_weights(models.load_shape(str(tmp_path)), str(tmp_path), load_in_4bit=True)
    again = models.load_model(str(tmp_path), dtype=torch.float32, load_in_4bit=True)
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(first(input_ids=ids).logits, again(input_ids=ids).logits)
