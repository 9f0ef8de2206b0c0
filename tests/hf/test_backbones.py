"""Other architectures by structure alone: what is packed, saved and loaded to the bit, tuned, and decoded."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PhiConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    RobertaConfig,
    T5Config,
)

import alphatune
from alphatune.packed.linear import packed_layers

SIZE: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
                        "num_attention_heads": 2, "max_position_embeddings": 32}  # fmt: skip
ENDS: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
GROUPED: dict[str, Any] = {**SIZE, **ENDS, "num_key_value_heads": 1}

LLAMA = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
         "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}  # fmt: skip
BACKBONES: dict[str, tuple[PreTrainedConfig, type, set[str]]] = {
    "llama": (LlamaConfig(**GROUPED), AutoModelForCausalLM, LLAMA),
    "llama-tied": (LlamaConfig(**GROUPED, tie_word_embeddings=True), AutoModelForCausalLM, LLAMA),
    "mistral": (MistralConfig(**GROUPED), AutoModelForCausalLM, LLAMA),
    "qwen2": (Qwen2Config(**GROUPED), AutoModelForCausalLM, LLAMA),
    "qwen3": (Qwen3Config(**GROUPED, head_dim=16), AutoModelForCausalLM, LLAMA),
    "gemma2": (Gemma2Config(**GROUPED, head_dim=16), AutoModelForCausalLM, LLAMA),
    "gemma3": (Gemma3TextConfig(**GROUPED, head_dim=16), AutoModelForCausalLM, LLAMA),
    "phi": (
        PhiConfig(**SIZE, **ENDS),
        AutoModelForCausalLM,
        {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.dense", "mlp.fc1", "mlp.fc2"},
    ),
    "phi3": (
        Phi3Config(**GROUPED),
        AutoModelForCausalLM,
        {"self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj"},
    ),
    "roberta": (
        RobertaConfig(**{**SIZE, "max_position_embeddings": 40}, pad_token_id=1, num_labels=3),
        AutoModelForSequenceClassification,
        {"attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
         "intermediate.dense", "output.dense"},
    ),
    "t5": (
        T5Config(vocab_size=64, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, dropout_rate=0.0,
                 decoder_start_token_id=1, pad_token_id=1, eos_token_id=0),
        AutoModelForSeq2SeqLM,
        {f"layer.0.SelfAttention.{x}" for x in "qkvo"} | {f"layer.1.EncDecAttention.{x}" for x in "qkvo"}
        | {f"layer.{i}.DenseReluDense.{x}" for i in (1, 2) for x in ("wi", "wo")},
    ),
}  # fmt: skip
TASKS = {AutoModelForCausalLM: "CAUSAL_LM", AutoModelForSeq2SeqLM: "SEQ_2_SEQ_LM",
         AutoModelForSequenceClassification: "SEQ_CLS"}  # fmt: skip
IDS = torch.arange(2, 14).view(2, 6)
each_backbone = pytest.mark.parametrize(("config", "auto", "linear"), BACKBONES.values(), ids=BACKBONES)


def _inputs(auto: type) -> dict[str, torch.Tensor]:
    inputs = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
    return {**inputs, "decoder_input_ids": IDS[:, :4]} if auto is AutoModelForSeq2SeqLM else inputs


def _logits(model: nn.Module, auto: type) -> torch.Tensor:
    with torch.no_grad():
        return model(**_inputs(auto)).logits


@each_backbone
def test_packed_saved_loaded_tuned_and_decoded(
    config: PreTrainedConfig, auto: Any, linear: set[str], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = auto.from_config(copy.deepcopy(config)).eval()
    dense = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    alphatune.quantize_model(model, alphatune.BCQConfig(bits=2, solver="alternating"), progress=False)
    layers = packed_layers(model)
    assert {n for n in dense if n not in layers} == {n for n in dense if ".layer" not in n and ".block" not in n}
    assert {re.sub(r"^.*?\.(layers|layer|block)\.\d+\.", "", name) for name in layers} == linear
    with torch.no_grad():  # the same model with the packed layers' dense weights put into its linear layers
        twin = auto.from_config(copy.deepcopy(config)).eval()
        twin.load_state_dict(
            {k: v for k, v in model.state_dict().items() if not k.endswith(("qweight", "alpha"))}, False
        )
        for name, layer in layers.items():
            twin.get_submodule(name).weight.copy_(layer.weight_t().T)
    before = _logits(model, auto)
    assert torch.allclose(before, _logits(twin, auto), atol=1e-5)

    model.save_pretrained(tmp_path / "base")
    loaded = auto.from_pretrained(tmp_path / "base")
    assert torch.equal(_logits(loaded, auto), before)
    assert packed_layers(loaded).keys() == layers.keys()
    assert not any(p.requires_grad for p in loaded.parameters())

    tuned = get_peft_model(loaded, alphatune.AlphaTuningConfig(task_type=TASKS[auto]))
    assert torch.equal(_logits(tuned, auto), before)
    optimizer = torch.optim.SGD([p for p in tuned.parameters() if p.requires_grad], lr=1.0)
    labels = torch.tensor([0, 2]) if auto is AutoModelForSequenceClassification else IDS
    inputs = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS), "labels": labels}
    loss = tuned(**inputs).loss
    loss.backward()
    assert all(p.grad is not None for n, p in tuned.named_parameters() if "alphatuning_scale" in n)
    optimizer.step()
    assert tuned(**inputs).loss < loss
    after = _logits(tuned, auto)
    assert not torch.equal(after, before)

    tuned.save_pretrained(tmp_path / "adapter")
    again = PeftModel.from_pretrained(auto.from_pretrained(tmp_path / "base"), tmp_path / "adapter").eval()
    assert torch.equal(_logits(again, auto), after)
    if auto is not AutoModelForSequenceClassification:
        generated = again.generate(input_ids=IDS, max_new_tokens=3, num_beams=2, do_sample=False)
        assert generated.shape[0] == 2
