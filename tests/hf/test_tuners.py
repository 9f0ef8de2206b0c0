"""peft's other methods, and other ways to train, on packed models: what trains, and what says that it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from peft import (
    AdaLoraConfig,
    IA3Config,
    LNTuningConfig,
    LoHaConfig,
    LoraConfig,
    OFTConfig,
    PrefixTuningConfig,
    PromptTuningConfig,
    VeraConfig,
    get_peft_model,
    inject_adapter_in_model,
)
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

import alphatune
from alphatune.packed.linear import packed_layers

IDS = torch.arange(2, 14).view(2, 6)


def packed() -> Any:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(
        vocab_size=64, n_embd=32, n_layer=2, n_head=2, n_positions=32, bos_token_id=0, eos_token_id=0, resid_pdrop=0.0,
        embd_pdrop=0.0, attn_pdrop=0.0,
    ))  # fmt: skip
    return alphatune.quantize_model(model.eval(), alphatune.BCQConfig(2), progress=False)


def scales(model: Any) -> Any:
    return get_peft_model(model, alphatune.AlphaTuningConfig(task_type="CAUSAL_LM"))


def gradients(model: Any) -> list[torch.Tensor]:
    model.zero_grad()
    model(input_ids=IDS, labels=IDS).loss.backward()
    found = [p.grad for p in model.parameters() if p.requires_grad]
    assert found and all(g is not None for g in found)
    return [g.clone() for g in found]


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(input_ids=IDS).logits


TARGETS: dict[str, Any] = {"target_modules": ["c_attn"], "task_type": "CAUSAL_LM"}


@pytest.mark.parametrize("config", [
    PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"),
    PrefixTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"),
    LNTuningConfig(target_modules=["ln_1"], task_type="CAUSAL_LM"),
    LoraConfig(**TARGETS, use_dora=True), LoraConfig(**TARGETS, use_rslora=True),
    LoraConfig(**TARGETS, trainable_token_indices=[1, 2]),
], ids=["prompt", "prefix", "norms", "dora", "rslora", "tokens"])  # fmt: skip
def test_methods_that_leave_the_weights_alone_train_beside_packed_layers(config: Any) -> None:
    model = packed()
    codes = {name: (layer.qweight.clone(), layer.alpha.clone()) for name, layer in packed_layers(model).items()}
    tuned = get_peft_model(model, config).train()
    before = tuned(input_ids=IDS, labels=IDS).loss
    gradients(tuned)
    torch.optim.SGD([p for p in tuned.parameters() if p.requires_grad], lr=0.1).step()
    assert tuned(input_ids=IDS, labels=IDS).loss < before
    for (qweight, alpha), layer in zip(codes.values(), packed_layers(tuned).values(), strict=True):
        assert torch.equal(layer.qweight, qweight) and torch.equal(layer.alpha, alpha)


@pytest.mark.parametrize("config", [
    IA3Config(**TARGETS, feedforward_modules=[]), AdaLoraConfig(**TARGETS, total_step=10), VeraConfig(**TARGETS),
    OFTConfig(**TARGETS, oft_block_size=8), LoHaConfig(**TARGETS),
], ids=["ia3", "adalora", "vera", "oft", "loha"])  # fmt: skip
def test_methods_that_want_dense_layers_say_so(config: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="supported|compatible"):
        get_peft_model(packed(), config)


def test_mixed_kinds_of_adapters_are_refused_by_peft() -> None:
    with pytest.raises(ValueError, match="'ALPHATUNING' is not compatible with the `PeftMixedModel`"):
        get_peft_model(packed(), alphatune.AlphaTuningConfig(task_type="CAUSAL_LM"), mixed=True)


def test_an_injected_adapter_is_the_wrapped_one() -> None:
    model, tuned = packed(), scales(packed())
    inject_adapter_in_model(alphatune.AlphaTuningConfig(task_type="CAUSAL_LM"), model)  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip(gradients(model), gradients(tuned), strict=True))


def test_an_accelerator_trains_it() -> None:
    accelerator, expected = Accelerator(cpu=True), gradients(scales(packed()))
    tuned = scales(packed())
    optimizer = torch.optim.SGD([p for p in tuned.parameters() if p.requires_grad], lr=1.0)
    model, optimizer = accelerator.prepare(tuned, optimizer)
    loss = model(input_ids=IDS, labels=IDS).loss
    accelerator.backward(loss)
    found = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(g is not None and torch.equal(g, e) for g, e in zip(found, expected, strict=True))
    optimizer.step()
    assert model(input_ids=IDS, labels=IDS).loss < loss


@pytest.mark.slow
def test_a_compiled_model_has_the_same_gradients() -> None:
    tuned = scales(packed())
    expected = gradients(tuned)
    tuned.zero_grad()
    torch.compile(tuned, backend="eager")(input_ids=IDS, labels=IDS).loss.backward()
    found = [p.grad for p in tuned.parameters() if p.requires_grad]
    assert all(g is not None and torch.allclose(g, e) for g, e in zip(found, expected, strict=True))


def test_an_automatic_device_map_loads_it(tmp_path: Path) -> None:
    model = packed()
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path, device_map="auto")), logits(model))
