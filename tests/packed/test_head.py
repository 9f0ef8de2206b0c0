"""An 8-bit head computes what its bytes and scales say, shares them with a tied embedding, and is not saved."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import alphatune
from alphatune.errors import UserError
from alphatune.packed import head

native_only = pytest.mark.skipif(importlib.util.find_spec("llvmlite") is None, reason="llvmlite is not installed")


def _llama(tied: bool) -> nn.Module:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=101, num_key_value_heads=2, tie_word_embeddings=tied, eos_token_id=100, **shape)
    return LlamaForCausalLM(config).eval()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 70), st.integers(0, 9))
def test_rounding_loses_at_most_half_a_step(rows: int, columns: int, seed: int) -> None:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 10.0 ** (seed - 4)
    weight[0] = 0
    codes, scale = head.rounded(weight)
    assert codes.dtype == torch.int8 and scale[0] == 1
    assert ((codes.double() * scale.double()[:, None] - weight.double()).abs() <= 0.5001 * scale[:, None]).all()
    assert torch.allclose(scale[1:] * 127, weight[1:].abs().amax(1))


@native_only
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 20), st.integers(1, 45), st.integers(1, 45), st.booleans(), st.integers(0, 9))
def test_every_path_is_the_product_of_the_definition(rows: int, out: int, n_in: int, bias: bool, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    weight, x = torch.randn(out, n_in, generator=random), torch.randn(rows, 1, n_in, generator=random)
    added = nn.Parameter(torch.randn(out, generator=random)) if bias else None
    layer = head.EightBitHead(*head.rounded(weight), added)
    exact = x.double() @ (layer.codes.double() * layer.scale.double()[:, None]).T
    size = x.double().abs() @ weight.double().abs().T + 1
    if added is not None:
        exact = exact + added.double()
    with torch.no_grad():
        assert layer(x).shape == (rows, 1, out)
        if rows:
            assert ((layer(x).double() - exact).abs() / size).max() < 2e-6
    through = x.clone().requires_grad_()  # by blocks of dense weights
    y = layer(through)
    if rows:
        assert ((y.double() - exact).abs() / size).max() < 2e-6
        y.sum().backward()
        assert torch.allclose(through.grad, (layer.codes * layer.scale[:, None]).sum(0).expand_as(x), atol=1e-4)


@native_only
@pytest.mark.parametrize("tied", [True, False])
def test_a_model_writes_on_with_its_head_in_8_bits(tied: bool, tmp_path: Path) -> None:
    model = _llama(tied)
    ids = torch.arange(20)[None] % 7
    with torch.no_grad():
        before = model(ids).logits
        held = sum(t.numel() * t.element_size() for t in {id(t): t for t in model.state_dict().values()}.values())
        assert alphatune.eight_bit_head(model) is model
        after = model(ids).logits
    assert not torch.equal(after, before) and (after - before).norm() < 0.03 * before.norm()
    text = model.generate(ids, max_new_tokens=5, do_sample=False, pad_token_id=0)
    assert text.shape[1] > 20
    embedding = model.get_input_embeddings()
    if tied:
        assert embedding.codes is model.get_output_embeddings().codes
        assert sum(p.numel() * 4 for p in model.parameters()) <= held - 101 * 32 * 4
    else:
        assert type(embedding) is nn.Embedding
    with pytest.raises(UserError, match="cannot be saved: save the model before"):
        model.save_pretrained(tmp_path)


@native_only
def test_packed_blocks_and_an_8_bit_head_go_together() -> None:
    model = _llama(tied=True)
    alphatune.quantize_model(model, alphatune.BCQConfig(bits=3), progress=False)
    ids = torch.arange(9)[None]
    with torch.no_grad():
        before = model(ids).logits
        after = alphatune.eight_bit_head(model)(ids).logits
    assert (after - before).norm() < 0.03 * before.norm()


@native_only
def test_a_trace_of_a_head_serves_other_inputs() -> None:
    model = alphatune.eight_bit_head(_llama(tied=False))
    last, x = model.get_output_embeddings(), torch.randn(2, 3, 32)
    with torch.no_grad():
        traced = torch.jit.trace(last, torch.randn(2, 3, 32))
        assert torch.allclose(traced(x), last(x), atol=1e-5)


@native_only
def test_an_embedding_that_does_more_than_look_up_is_not_replaced() -> None:
    model = _llama(tied=True)
    scaled = type("Scaled", (nn.Embedding,), {"forward": lambda self, ids: 5 * nn.Embedding.forward(self, ids)})
    model.get_input_embeddings().__class__ = scaled
    with pytest.raises(UserError, match="tied to an input embedding of the kind Scaled"):
        alphatune.eight_bit_head(model)


def test_what_cannot_be_done_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="float32 weights on a CPU"):
        alphatune.eight_bit_head(_llama(True).bfloat16())
    small = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=11, n_positions=8))
    small.lm_head = nn.Sequential(small.lm_head)
    with pytest.raises(UserError, match="one linear layer"):
        alphatune.eight_bit_head(small)
    monkeypatch.setattr(head, "fast", lambda: False)
    with pytest.raises(UserError, match=r"pip install 'alphatune\[fast\]'"):
        alphatune.eight_bit_head(_llama(True))
