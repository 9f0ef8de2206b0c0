"""What transformers, peft and accelerate do with models: on packed ones it works as they document it, or is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model, prepare_model_for_kbit_training
from torch import nn
from transformers import AutoModelForCausalLM, BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

import alphatune
from alphatune.errors import UserError
from alphatune.hf.lora import PackedLoraLinear
from alphatune.packed.linear import dense_weights, packed_layers

IDS = torch.arange(2, 14).view(2, 6)
pytestmark = pytest.mark.filterwarnings("ignore:Already found a `peft_config`", "ignore:Adapter .* was active",
                                        "ignore:.*TracerWarning", "ignore::torch.jit.TracerWarning",
                                        "ignore:.*torch.jit.*deprecated:DeprecationWarning")  # fmt: skip


def dense() -> Any:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=2, n_positions=32,
                                      bos_token_id=0, eos_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0,
                                      attn_pdrop=0.0)).eval()  # fmt: skip


def packed() -> Any:
    return alphatune.quantize_model(dense(), alphatune.BCQConfig(2), progress=False)


def with_scales(model: Any, factor: float = 1.0, name: str = "default") -> Any:
    tuned = get_peft_model(model, alphatune.AlphaTuningConfig(task_type="CAUSAL_LM"), name)  # type: ignore[arg-type]
    return scaled(tuned, factor, name)


@torch.no_grad()
def scaled(tuned: Any, factor: float, name: str = "default") -> Any:
    for label, parameter in tuned.named_parameters():
        if label.endswith(f"alphatuning_scale.{name}"):
            parameter.mul_(factor)
    return tuned.eval()


def lora(model: Any, **settings: Any) -> Any:
    return get_peft_model(model, LoraConfig(**{"r": 4, "target_modules": ["c_attn"], "task_type": "CAUSAL_LM",
                                               "fan_in_fan_out": not packed_layers(model), **settings}))  # fmt: skip


@torch.no_grad()
def logits(model: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    return model(input_ids=ids).logits


# --- models that carry an adapter


def test_a_model_that_carries_an_adapter_is_not_quantised_and_stays_as_it_is() -> None:
    tuned = lora(dense())
    before = logits(tuned)
    for model in (tuned, tuned.base_model.model):  # wrapped, and as transformers' load_adapter leaves it
        with pytest.raises(
            UserError, match=r"carries an adapter, default \(LORA\): merge it first, model = model.merge"
        ):
            alphatune.quantize_model(model, alphatune.BCQConfig(2), progress=False)
    assert torch.equal(logits(tuned), before) and not packed_layers(tuned)
    prompt = get_peft_model(dense(), PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"))
    with pytest.raises(UserError, match=r"default \(PROMPT_TUNING\): quantise model.get_base_model\(\) instead"):
        alphatune.quantize_model(prompt, alphatune.BCQConfig(2), progress=False)
    merged = alphatune.quantize_model(tuned.merge_and_unload(), alphatune.BCQConfig(2), progress=False)
    assert len(packed_layers(merged)) == 8


def test_an_adapters_folder_loads_with_its_base_quantised(tmp_path: Path) -> None:
    dense().save_pretrained(tmp_path / "base")
    tuned = lora(AutoModelForCausalLM.from_pretrained(tmp_path / "base"))
    with torch.no_grad():
        for name, p in tuned.named_parameters():
            if "lora_B" in name:
                p.add_(0.1)
    tuned.save_pretrained(tmp_path / "lora")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "lora", quantization_config=alphatune.BCQConfig(2))
    layers = [m for m in loaded.modules() if isinstance(m, PackedLoraLinear)]
    assert len(layers) == 2 and len(packed_layers(loaded)) == 8
    expected = PeftModel.from_pretrained(packed(), tmp_path / "lora").eval()
    assert torch.allclose(logits(loaded), logits(expected), atol=1e-6)


# --- counts


def test_packed_weights_count_as_the_weights_they_stand_for(capsys: Any) -> None:
    plain, model = dense(), packed()
    for settings in ({}, {"exclude_embeddings": True}):
        assert model.num_parameters(**settings) == plain.num_parameters(**settings)
    assert model.transformer.num_parameters() == plain.transformer.num_parameters()
    assert model.num_parameters(only_trainable=True) == 0
    tuned = with_scales(model)
    scales = 2 * 9 * 32
    assert tuned.get_nb_trainable_parameters() == (scales, plain.num_parameters() + scales)
    tuned.print_trainable_parameters()
    told = capsys.readouterr().out
    assert f"trainable params: {scales:,d} || all params: {plain.num_parameters() + scales:,d}" in told
    one, other = lora(packed()), lora(dense())
    assert one.get_nb_trainable_parameters() == other.get_nb_trainable_parameters()
    assert other.num_parameters() == one.num_parameters()
    alphatune.register()
    assert packed().num_parameters() == plain.num_parameters()  # registering again counts nothing twice
    held = {t.data_ptr(): t.numel() * t.element_size() for t in [*one.parameters(), *one.buffers()]}
    assert one.get_memory_footprint() == sum(held.values())  # memory is what is held, not what it stands for


# --- dequantising


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_dequantising_gives_an_ordinary_model(dtype: Any, tmp_path: Path) -> None:
    model, expected = packed(), packed()
    plain = model.dequantize(dtype) if dtype else model.dequantize()
    assert plain is model and not packed_layers(plain)
    assert isinstance(plain.transformer.h[0].attn.c_attn, Conv1D) and plain.dtype == (dtype or torch.float32)
    assert torch.allclose(logits(plain).float(), logits(expected), atol=1e-5 if dtype is None else 0.05)
    for name, layer in packed_layers(expected).items():
        assert torch.equal(plain.get_submodule(name).weight, layer.weight_t().to(plain.dtype))
    plain.save_pretrained(tmp_path)
    assert "quantization" not in (tmp_path / "config.json").read_text()
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(logits(again), logits(plain)) and not packed_layers(again)
    assert alphatune.quantize_model(again.float(), alphatune.BCQConfig(2), progress=False) is again


def test_dequantising_beside_an_adapter_is_refused() -> None:
    tuned = with_scales(packed())
    with pytest.raises(UserError, match=r"default \(ALPHATUNING\): merge it first, .* or dequantise the base alone"):
        tuned.dequantize()
    assert len(packed_layers(tuned)) == 8


# --- training


def test_preparing_for_kbit_training_checkpoints_gradients() -> None:
    model = prepare_model_for_kbit_training(packed())
    assert model.is_gradient_checkpointing and not any(p.requires_grad for p in model.parameters())
    gradients = []
    for base in (model, packed()):
        tuned = with_scales(base).train()
        tuned(input_ids=IDS, labels=IDS).loss.backward()
        gradients.append([p.grad for p in tuned.parameters() if p.requires_grad])
    assert len(gradients[0]) == 8
    assert all(torch.allclose(a, b, atol=1e-7) and a.abs().max() > 0 for a, b in zip(*gradients, strict=True))
    without = prepare_model_for_kbit_training(packed(), use_gradient_checkpointing=False)
    assert not without.is_gradient_checkpointing


@pytest.mark.parametrize("which", ["first", "all", "gain"])
def test_second_derivatives_are_refused(which: str) -> None:
    config = alphatune.BCQConfig(2, 8)  # a gain for each row would be a factor of the output, which may be derived
    base = nn.Sequential(nn.ModuleList([nn.Linear(16, 6), nn.Linear(16, 6)]))
    alphatune.quantize_model(base, config, progress=False)
    model = get_peft_model(base, alphatune.AlphaTuningConfig(trainable=which))  # type: ignore[arg-type]
    layer = model.base_model.model[0][0]
    trained = [layer.alphatuning_scale["default"]]
    first = torch.autograd.grad(layer(torch.randn(3, 16)).square().sum(), trained, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice .*@once_differentiable"):
        sum(g.square().sum() for g in first).backward()  # type: ignore[union-attr]
    (slope,) = torch.autograd.grad(layer.weight.square().sum(), trained, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice .*@once_differentiable"):
        slope.square().sum().backward()


# --- several adapters


def test_weighted_sums_of_scales_are_refused_and_those_of_lora_work() -> None:
    tuned = with_scales(packed())
    with pytest.raises(UserError, match="add_weighted_adapter: scales are values, not differences"):
        tuned.add_weighted_adapter(["default"], [0.5], "half")
    settings = {"r": 4, "target_modules": ["c_attn"], "task_type": "CAUSAL_LM"}
    model = lora(packed())
    model.add_adapter("other", LoraConfig(**settings))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(len(name))))
    model.add_weighted_adapter(["default", "other"], [0.25, 2.0], "sum", combination_type="linear")
    layer = next(m for m in model.modules() if isinstance(m, PackedLoraLinear))
    x, base = torch.randn(3, 32), layer.base_layer
    outputs = {}
    for name in ("default", "other", "sum"):
        model.set_adapter(name)
        outputs[name] = layer(x) - base(x)
    # peft's "linear" adds A and B with the roots of the weights
    a, b = ([m[n].weight for n in ("default", "other")] for m in (layer.lora_A, layer.lora_B))
    mixed = [sum(w**0.5 * t for w, t in zip((0.25, 2.0), pair, strict=True)) for pair in (a, b)]
    assert torch.allclose(outputs["sum"], x @ mixed[0].T @ mixed[1].T * layer.scaling["default"], atol=1e-4)


def test_kept_dense_weights_are_those_of_the_adapter_in_use() -> None:
    tuned = with_scales(packed(), 1.3, "one")
    tuned.add_adapter("two", alphatune.AlphaTuningConfig(trainable="all", task_type="CAUSAL_LM"))
    scaled(tuned, 0.6, "two")
    expected = {}
    for name in ("one", "two"):
        tuned.set_adapter(name)
        expected[name] = logits(tuned)
    with tuned.disable_adapter():
        expected["base"] = logits(tuned)
    assert not torch.allclose(expected["one"], expected["two"], atol=1e-3)
    with dense_weights(tuned):
        for name in ("two", "one", "two"):
            tuned.set_adapter(name)
            assert torch.allclose(logits(tuned), expected[name], atol=1e-5)
            with tuned.disable_adapter():
                assert torch.allclose(logits(tuned), expected["base"], atol=1e-5)
        tuned.merge_adapter(["one"])
        assert torch.allclose(logits(tuned), expected["one"], atol=1e-5)
        tuned.unmerge_adapter()
        assert torch.allclose(logits(tuned), expected["two"], atol=1e-5)
        scaled(tuned, 1.3 / 0.6, "two")
        changed = logits(tuned)
        with torch.inference_mode():
            assert torch.equal(tuned(input_ids=IDS).logits, changed)
        tuned(input_ids=IDS, labels=IDS).loss.backward()  # a layer that trains does not use what is kept
    assert torch.allclose(changed, logits(tuned), atol=1e-5)
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in tuned.parameters() if p.requires_grad)
    assert all(layer._dense is None for layer in packed_layers(tuned).values())


# --- tracing


class Logits(nn.Module):
    """A model with a tensor for an answer, as a trace needs it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """The logits."""
        found: torch.Tensor = self.model(input_ids=ids, use_cache=False).logits
        return found


@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize("config", [alphatune.BCQConfig(2, 8), alphatune.UniformConfig(3)], ids=["bcq", "uniform"])
def test_a_trace_computes_what_the_model_does(config: Any, adapter: bool, tmp_path: Path) -> None:
    model = alphatune.quantize_model(dense(), config, progress=False)
    if adapter:
        model = with_scales(model, 1.2)
    with torch.no_grad():
        torch.jit.trace(Logits(model), (IDS,)).save(str(tmp_path / "trace.pt"))
        loaded = torch.jit.load(str(tmp_path / "trace.pt"))
        assert torch.allclose(loaded(IDS + 9), logits(model, IDS + 9), atol=1e-6)


# --- offloading


@pytest.fixture
def split() -> dict[str, str]:
    """A device map with the second block on disk."""
    here = ("transformer.wte", "transformer.wpe", "transformer.h.0", "transformer.ln_f", "lm_head")
    return {**dict.fromkeys(here, "cpu"), "transformer.h.1": "disk"}


@pytest.mark.parametrize("buffers", [False, True])
def test_a_packed_model_on_disk_computes_the_same(buffers: bool, split: dict[str, str], tmp_path: Path) -> None:
    packed().save_pretrained(tmp_path / "packed")
    loaded = AutoModelForCausalLM.from_pretrained(
        tmp_path / "packed", device_map=split, offload_folder=tmp_path / "disk", offload_buffers=buffers
    )
    assert loaded.transformer.h[1].mlp.c_fc.qweight.is_meta == buffers  # codes are buffers
    assert torch.equal(logits(loaded), logits(packed()))
    loaded.save_pretrained(tmp_path / "again")
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "again")), logits(packed()))
    with_scales(packed()).save_pretrained(tmp_path / "adapter")
    for change in (
        lambda: loaded.dequantize(), lambda: with_scales(loaded), lambda: lora(loaded),
        lambda: loaded.load_adapter(tmp_path / "adapter"),
    ):  # fmt: skip
        with pytest.raises(UserError, match="this model is offloaded: load it whole to"):
            change()


@pytest.mark.parametrize("buffers", [False, True])
@pytest.mark.parametrize("adapter", ["scales", "lora", None])
def test_offloading_a_whole_model_keeps_its_adapter(adapter: Any, buffers: bool, tmp_path: Path) -> None:
    model = {"scales": lambda: with_scales(packed(), 1.2), "lora": lambda: lora(packed()), None: packed}[adapter]()
    if adapter == "lora":
        with torch.no_grad():
            for name, p in model.named_parameters():
                if "lora_B" in name:
                    p.add_(0.1)
    expected, twin = logits(model), copy.deepcopy(model)
    cpu_offload(model, execution_device="cpu", offload_buffers=buffers)
    assert torch.equal(logits(model), expected)
    disk_offload(twin, str(tmp_path / "disk"), execution_device="cpu", offload_buffers=buffers)
    assert torch.equal(logits(twin), expected)
    with dense_weights(twin):
        assert torch.allclose(logits(twin), expected, atol=1e-5)
    if adapter == "scales":
        with pytest.raises(UserError, match="this model is offloaded: load it whole to merge an adapter"):
            twin.merge_adapter()


def test_a_dense_model_that_is_offloaded_is_not_quantised(tmp_path: Path) -> None:
    model = disk_offload(dense(), str(tmp_path), execution_device="cpu")
    with pytest.raises(UserError, match="nothing to quantise; .* its calls are redirected, as for offloading"):
        alphatune.quantize_model(model, alphatune.BCQConfig(2), progress=False)


def test_a_head_of_its_own_counts_and_trains_beside_packed_layers() -> None:
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=1, intermediate_size=64, num_labels=3, num_attention_heads=2,
    )).eval()  # fmt: skip
    whole = model.num_parameters()
    tuned = get_peft_model(
        alphatune.quantize_model(model, alphatune.BCQConfig(2), progress=False),  # type: ignore[arg-type]
        alphatune.AlphaTuningConfig(task_type="SEQ_CLS"),
    )
    head, scales = 3 * 32 + 3, 4 * 32 + 64 + 32
    assert tuned.get_nb_trainable_parameters() == (head + scales, whole + head + scales)  # peft copies a head
