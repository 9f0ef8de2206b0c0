"""LoftQ's start: what is left of the weights after codes and B A is the tail of the singular values."""

from __future__ import annotations

import pytest
import torch
from packed.test_nf4 import gpt2, llama, needs_nf4
from peft import LoraConfig, get_peft_model
from transformers.pytorch_utils import Conv1D

from alphatune.errors import UserError
from alphatune.learn import residual
from alphatune.packed import nf4
from alphatune.packed.walk import linear_layers, quantize_layers, weight_of
from alphatune.settings import BCQConfig

RANK = 3


def wrapped(model):
    names = list(nf4.layers(model)) or [n for n, m in model.named_modules() if type(m).__name__ == "PackedLinear"]
    return get_peft_model(model, LoraConfig(r=RANK, lora_alpha=32, target_modules=names))


@pytest.mark.parametrize("make", [gpt2, llama])
@pytest.mark.parametrize("codes", ["bcq", pytest.param("nf4", marks=needs_nf4)])
def test_what_is_left_is_the_tail_of_the_singular_values(make, codes):
    model, original = make(), make()
    if codes == "nf4":
        nf4.install(model)
    else:
        quantize_layers(model, BCQConfig(bits=2), progress=False)
    adapted = wrapped(model)
    residual.start(adapted, original)
    layers = dict(adapted.get_base_model().named_modules())
    for name, layer in linear_layers(original).items():
        base = layers[name].get_base_layer()
        coded = nf4.dense(base) if codes == "nf4" else base.weight_t().T
        lost = (weight_of(layer) - coded).detach().double()
        tail = torch.linalg.svdvals(lost)[RANK:].square().sum().sqrt()
        left = (lost - layers[name].get_delta_weight("default").detach().double()).norm()
        torch.testing.assert_close(left, tail, rtol=1e-4, atol=1e-5)
    assert not any(isinstance(m, Conv1D) for n, m in layers.items() if n in linear_layers(original))


def test_lora_on_dense_weights_has_no_residual():
    adapted = get_peft_model(llama(), LoraConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(UserError, match="q_proj is not quantised"):
        residual.start(adapted, llama())
