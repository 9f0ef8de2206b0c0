"""The same results on a GPU: `make test-gpu`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from alphatune.compose.compose import config_of
from alphatune.hf.scales import AlphaTuningLayer
from alphatune.packed.walk import quantize_layer
from alphatune.run.execute import execute
from alphatune.run.record import read
from alphatune.settings import BCQConfig, UniformConfig

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")]


@pytest.mark.parametrize("config", [BCQConfig(3), BCQConfig(3, 32, "alternating"), UniformConfig(4)], ids=str)
def test_layer_and_gradients_agree_with_the_cpu(config: BCQConfig | UniformConfig) -> None:
    torch.manual_seed(0)
    dense = nn.Linear(96, 64)
    x = torch.randn(5, 96)
    results = []
    for device in ("cpu", "cuda"):
        layer = AlphaTuningLayer(quantize_layer(dense, config)[0])
        layer.add("task", "first")
        layer.set_adapter("task")
        layer.to(device)
        moved = x.to(device).requires_grad_()
        layer(moved).square().sum().backward()
        trained = layer.alphatuning_scale["task"]
        results.append((layer(moved).detach().cpu(), trained.grad.cpu(), moved.grad.cpu()))
    for cpu, gpu in zip(*results, strict=True):
        assert torch.allclose(cpu, gpu, rtol=1e-4, atol=1e-4)


def test_a_run_on_the_gpu(quick: list[str]) -> None:
    overrides = [o for o in quick if not o.startswith("runtime.device")]
    made = read(execute(config_of([*overrides, "runtime.device=cuda"])))
    assert made["environment"]["gpu"] and made["peak_memory_bytes"]["gpu"] > 0
