"""`adapter_names=[...]`: one batch, a name for each row; every row must get what its adapter gives alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForSeq2SeqLM,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    OPTConfig,
    OPTForCausalLM,
    T5Config,
)

import alphatune
from alphatune.errors import UserError
from alphatune.packed.linear import dense_weights

IDS = torch.arange(2, 26).view(4, 6)
NAMES = ["one", "__base__", "two", "one"]
SIZE: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
                        "max_position_embeddings": 32}  # fmt: skip
MODELS: dict[str, Any] = {
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=2, n_positions=32,
                                               bos_token_id=0, eos_token_id=63)),
    "opt": lambda: OPTForCausalLM(OPTConfig(**SIZE, ffn_dim=64, word_embed_proj_dim=32, eos_token_id=63)),
    "bert": lambda: BertForSequenceClassification(BertConfig(**SIZE, intermediate_size=64, num_labels=3)),
}  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore:Already found a `peft_config`")


def tuned(kind: str = "gpt2", config: Any = None, other: Any = None) -> Any:
    """A packed model with two adapters whose weights are random."""
    torch.manual_seed(0)
    base = alphatune.quantize_model(MODELS[kind]().eval(), alphatune.BCQConfig(2), progress=False)
    task = "SEQ_CLS" if kind == "bert" else "CAUSAL_LM"
    model = get_peft_model(base, config or alphatune.AlphaTuningConfig(task_type=task), "one")  # type: ignore[arg-type]
    model.add_adapter("two", other or alphatune.AlphaTuningConfig(trainable="all", task_type=task))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith((".one", ".two")) or ".one." in name or ".two." in name:
                p.add_(0.3 * torch.randn_like(p) * p.abs().mean().clamp(min=0.05))
    return model.eval()


@torch.no_grad()
def logits(model: Any, ids: torch.Tensor = IDS, **settings: Any) -> torch.Tensor:
    return model(input_ids=ids, **settings).logits


def row_by_row(model: Any, call: Any) -> list[Any]:
    """What each row gives when its adapter is the only one."""
    found = []
    for i, name in enumerate(NAMES):
        if name == "__base__":
            with model.disable_adapter():
                found.append(call(IDS[i : i + 1])[0])
        else:
            model.set_adapter(name)
            found.append(call(IDS[i : i + 1])[0])
    model.set_adapter("one")
    return found


@pytest.mark.parametrize("kind", MODELS)
def test_every_row_gets_its_adapter(kind: str) -> None:
    model = tuned(kind)
    expected = torch.stack(row_by_row(model, lambda ids: logits(model, ids)))
    found = logits(model, adapter_names=NAMES)
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(found, logits(model), atol=1e-3)
    assert torch.allclose(logits(model, adapter_names=["one"] * 4), logits(model), atol=1e-6)
    with dense_weights(model):
        assert torch.allclose(logits(model, adapter_names=NAMES), expected, atol=1e-5)
    assert not any(m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("kind", ["gpt2", "opt"])
def test_generation_gives_every_row_its_adapter(kind: str, beams: int) -> None:
    model = tuned(kind)
    settings = {"max_new_tokens": 5, "num_beams": beams, "do_sample": False, "pad_token_id": 0}

    def generate(ids: torch.Tensor, **more: Any) -> torch.Tensor:
        return model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings, **more)

    expected = row_by_row(model, generate)
    found = generate(IDS, adapter_names=NAMES)
    assert len(found) == 4
    for row, alone in zip(found, expected, strict=True):
        assert row[: len(alone)].tolist() == alone.tolist() and not row[len(alone) :].any()
    assert len({tuple(row[6:].tolist()) for row in found}) > 1


def test_an_encoder_and_a_decoder_get_them_both() -> None:
    torch.manual_seed(0)
    model = AutoModelForSeq2SeqLM.from_config(T5Config(
        vocab_size=64, d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2, decoder_start_token_id=1,
        pad_token_id=1,
    ))  # fmt: skip
    alphatune.quantize_model(model.eval(), alphatune.BCQConfig(2), progress=False)
    wrapped = get_peft_model(model, alphatune.AlphaTuningConfig(task_type="SEQ_2_SEQ_LM"), "one")
    with torch.no_grad():
        for p in wrapped.parameters():
            if p.requires_grad:
                p.mul_(1.5)
    wrapped.eval()
    decoder = IDS[:, :3]
    with torch.no_grad():
        one = wrapped(input_ids=IDS, decoder_input_ids=decoder).logits
        with wrapped.disable_adapter():
            base = wrapped(input_ids=IDS, decoder_input_ids=decoder).logits
        names = ["one", "__base__", "__base__", "one"]
        found = wrapped(input_ids=IDS, decoder_input_ids=decoder, adapter_names=names).logits
    assert torch.allclose(found, torch.stack([one[0], base[1], base[2], one[3]]), atol=1e-5)
    settings = {"max_new_tokens": 4, "num_beams": 2, "do_sample": False}
    found = wrapped.generate(input_ids=IDS, adapter_names=names, **settings)
    alone = wrapped.generate(input_ids=IDS[:1], **settings)[0]
    assert found[0, : len(alone)].tolist() == alone.tolist()


def test_pefts_lora_beside_packed_layers_takes_names_too() -> None:
    lora = {"r": 2, "target_modules": ["c_attn", "c_fc"], "task_type": "CAUSAL_LM"}
    model = tuned("gpt2", LoraConfig(**lora), LoraConfig(**lora))
    expected = torch.stack(row_by_row(model, lambda ids: logits(model, ids)))
    found = logits(model, adapter_names=NAMES)
    assert torch.allclose(found, expected, atol=1e-5) and not torch.allclose(found, logits(model), atol=1e-3)


@pytest.mark.parametrize("names, match", [
    (["one", "three", "two", "one"], "no adapter is called three; there are: one, two"),
    (["one", "two"], "2 names for a batch of 4 rows"), ("one", "must be a list of names"),
    (["one", None, "two", "one"], "must be a list of names"), ([], "must be a list of names"),
])  # fmt: skip
def test_names_that_do_not_fit_are_refused(names: Any, match: str) -> None:
    model = tuned()
    with pytest.raises(UserError, match=match):
        logits(model, adapter_names=names)
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_names_are_refused_where_they_cannot_be_told_apart() -> None:
    model = tuned()
    with pytest.raises(UserError, match="for inference only; call model.eval"):
        logits(model.train(), adapter_names=NAMES)
    model.eval().merge_adapter(["one"])
    with pytest.raises(UserError, match="an adapter is merged; unmerge it first"):
        logits(model, adapter_names=NAMES)
    model.unmerge_adapter()

    class Picks(torch.nn.Module):
        """As a mixture that sends a layer some of the tokens, in an order of its own."""

        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Only half of the tokens."""
            flat = x.flatten(0, 1)
            return self.inner(flat[: len(flat) // 2]).repeat(2, 1).view(*x.shape[:2], -1)

    block = model.base_model.model.transformer.h[0]
    block.mlp.c_fc = Picks(block.mlp.c_fc)
    with pytest.raises(UserError, match="given 12 rows for 4 texts"):
        logits(model, adapter_names=NAMES)
