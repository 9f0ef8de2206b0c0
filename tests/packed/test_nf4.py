"""NF4 layers against the published levels, and what reads a model that has them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from alphatune.errors import UserError
from alphatune.packed import nf4
from alphatune.packed.walk import linear_layers, weight_of

needs_nf4 = pytest.mark.skipif(not nf4.installed(), reason="needs bitsandbytes: pip install 'alphatune[qlora]'")

# Dettmers et al. 2023, appendix E: the quantiles of a normal distribution, at most 1, exact at 0.
LEVELS = torch.tensor(
    [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
     -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
     0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]
)  # fmt: skip


def gpt2() -> nn.Module:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=40, n_positions=16, n_embd=32, n_layer=2, n_head=2)).eval()


def llama() -> nn.Module:
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=16,
    )  # fmt: skip
    return LlamaForCausalLM(shape).eval()


@needs_nf4
@pytest.mark.parametrize("make", [gpt2, llama])
def test_a_weight_becomes_the_nearest_level_of_its_block(make):
    model = make()
    before = {name: weight_of(layer).clone() for name, layer in linear_layers(model).items()}
    nf4.install(model)
    assert list(nf4.layers(model)) == list(before)
    for name, layer in nf4.layers(model).items():
        blocks = before[name].reshape(-1, 64)
        largest = blocks.abs().amax(1, keepdim=True)
        nearest = (blocks / largest)[..., None].sub(LEVELS).abs().argmin(-1)
        wanted = (LEVELS[nearest] * largest).reshape(before[name].shape)
        # the magnitudes themselves are stored in 8 bits, so blocks may be off by a little of their largest weight
        assert (nf4.dense(layer) - wanted).abs().max() < 0.05 * largest.max()
        assert (nf4.dense(layer) - before[name]).norm() / before[name].norm() < 0.12


@needs_nf4
@pytest.mark.parametrize("make", [gpt2, llama])
def test_the_model_computes_with_the_weights_that_its_codes_stand_for(make):
    coded, plain = make(), make()
    nf4.install(coded)
    with torch.no_grad():
        for name, layer in linear_layers(plain).items():
            weight_of(layer).copy_(nf4.dense(nf4.layers(coded)[name]))
        ids = torch.arange(12)[None]
        torch.testing.assert_close(coded(ids).logits, plain(ids).logits, rtol=1e-4, atol=1e-5)


@needs_nf4
def test_a_model_without_blocks_is_refused():
    with pytest.raises(UserError, match="no linear layers inside repeated blocks"):
        nf4.install(nn.Sequential(nn.Linear(4, 4)))


def test_without_the_package_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(nf4, "installed", lambda: False)
    with pytest.raises(UserError, match=r"alphatune\[qlora\]"):
        nf4.install(gpt2())
