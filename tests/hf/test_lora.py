"""Stock LoRA beside packed layers: nothing to register, trained, saved, loaded, unloaded, and never merged."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear as LoraLinear
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    GPT2Config,
    GPT2LMHeadModel,
    OPTConfig,
    T5Config,
)

import alphatune
from alphatune.errors import UserError
from alphatune.hf.lora import PackedLoraLinear
from alphatune.packed.linear import packed_layers

IDS = torch.arange(2, 14).view(2, 6)


def dense() -> Any:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=2, n_positions=32,
                                      bos_token_id=0, eos_token_id=0)).eval()  # fmt: skip


def packed() -> Any:
    return alphatune.quantize_model(dense(), alphatune.BCQConfig(2), progress=False)


def lora(model: Any, **settings: Any) -> Any:
    return get_peft_model(model, LoraConfig(**{"r": 4, "fan_in_fan_out": False, "target_modules": ["c_attn", "c_fc"],
                                               "task_type": "CAUSAL_LM", **settings}))  # fmt: skip


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(input_ids=IDS).logits


def step(model: nn.Module) -> float:
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    loss = model(input_ids=IDS, labels=IDS).loss
    loss.backward()
    optimizer.step()
    model.eval()
    return loss.item()


def test_nothing_changes_at_first_and_nothing_is_warned_of() -> None:
    model = packed()
    before = logits(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        tuned = lora(model)
    assert torch.equal(logits(tuned), before)
    wrapped = [m for m in tuned.modules() if isinstance(m, LoraLinear)]
    assert len(wrapped) == 4 and all(isinstance(m, PackedLoraLinear) for m in wrapped)
    assert {p.dtype for n, p in tuned.named_parameters() if "lora_" in n} == {torch.float32}
    assert all("lora_" in n for n, p in tuned.named_parameters() if p.requires_grad)


def test_training_saving_loading(tmp_path: Path) -> None:
    packed().save_pretrained(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    codes = {n: (m.qweight.clone(), m.alpha.clone()) for n, m in packed_layers(model).items()}
    tuned = lora(model)
    first = step(tuned)
    assert step(tuned) < first
    for name, layer in packed_layers(tuned).items():
        original = codes[name.removeprefix("base_model.model.").removesuffix(".base_layer")]
        assert torch.equal(layer.qweight, original[0]) and torch.equal(layer.alpha, original[1])
    tuned.save_pretrained(tmp_path / "lora")
    again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "lora")
    assert torch.equal(logits(again), logits(tuned))
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "lora")), logits(tuned))


def test_the_output_is_the_dense_models_plus_the_low_rank_product() -> None:
    tuned = lora(packed())
    step(tuned)
    layer = next(m for m in tuned.modules() if isinstance(m, PackedLoraLinear))
    x = torch.randn(3, 32)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    weight = layer.base_layer.weight.double() + layer.scaling["default"] * (b.double() @ a.double())
    expected = nn.functional.linear(x.double(), weight, layer.base_layer.bias.double())
    assert torch.allclose(layer(x).double(), expected, atol=1e-5)
    assert torch.allclose(layer.weight.double(), weight, atol=1e-6)


def test_it_is_not_merged_but_can_be_taken_off() -> None:
    model = packed()
    before = logits(model)
    tuned = lora(model)
    step(tuned)
    after = logits(tuned)
    for merge in (tuned.merge_adapter, tuned.merge_and_unload):
        with pytest.raises(UserError, match="LoRA cannot be merged into packed layers"):
            merge()
    assert torch.equal(logits(tuned), after)
    with tuned.disable_adapter():
        assert torch.equal(logits(tuned), before)
    assert torch.equal(logits(tuned.unload()), before)


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora", "OLoRA", "corda", "loftq", "lora_ga"])
def test_initialisations_that_edit_the_base_are_refused(init: str) -> None:
    model = packed()
    before = logits(model)
    with pytest.raises(UserError, match=f"init_lora_weights={init}: edits the base"):
        lora(model, init_lora_weights=init, **({"loftq_config": {"loftq_bits": 4}} if init == "loftq" else {}))
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("init", [True, "gaussian", "orthogonal", "mica"])
def test_initialisations_that_leave_the_base_alone(init: Any) -> None:
    model = packed()
    codes = {name: (layer.qweight.clone(), layer.alpha.clone()) for name, layer in packed_layers(model).items()}
    tuned = lora(model, init_lora_weights=init)
    first = step(tuned)
    assert step(tuned) < first
    for name, layer in packed_layers(tuned).items():
        qweight, alpha = codes[name.removeprefix("base_model.model.").removesuffix(".base_layer")]
        assert torch.equal(layer.qweight, qweight) and torch.equal(layer.alpha, alpha)


def test_all_linear_means_the_packed_layers() -> None:
    tuned = lora(packed(), target_modules="all-linear")
    assert set(tuned.targeted_module_names) == {
        f"transformer.h.{i}.{n}" for i in (0, 1) for n in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    }


def test_dense_models_keep_pefts_own_layers() -> None:
    tuned = lora(dense(), fan_in_fan_out=True)
    assert {type(m) for m in tuned.modules() if isinstance(m, LoraLinear)} == {LoraLinear}
    tuned.merge_and_unload()
    torch.manual_seed(0)
    opt = AutoModelForCausalLM.from_config(OPTConfig(vocab_size=64, hidden_size=32, num_hidden_layers=1, ffn_dim=64,
                                                     num_attention_heads=2, max_position_embeddings=32))  # fmt: skip
    assert len(lora(opt, target_modules="all-linear").targeted_module_names) == 6


def test_packed_and_dense_layers_of_one_model() -> None:
    model = alphatune.quantize_model(dense(), alphatune.BCQConfig(2, modules=["c_attn"]), progress=False)
    tuned = lora(model)
    kinds = [type(m) for m in tuned.modules() if isinstance(m, LoraLinear)]
    assert sorted(k.__name__ for k in kinds) == ["Linear", "Linear", "PackedLoraLinear", "PackedLoraLinear"]
    assert step(tuned) > step(tuned)


def test_t5_which_reads_the_weight_of_a_layer() -> None:
    torch.manual_seed(0)
    model = AutoModelForSeq2SeqLM.from_config(T5Config(
        vocab_size=64, d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2, decoder_start_token_id=1,
        pad_token_id=1, eos_token_id=0,
    ))  # fmt: skip
    alphatune.quantize_model(model.eval(), alphatune.BCQConfig(2), progress=False)
    tuned = lora(model, target_modules=["q", "wo"], task_type="SEQ_2_SEQ_LM")
    assert step(tuned) > 0
