"""Adapters of scales in peft: the same numbers as training the layers directly, and the whole life of an adapter."""

from __future__ import annotations

import copy
import json
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainingArguments,
)

import alphatune
from alphatune.compose.compose import config_of
from alphatune.data.load import load
from alphatune.errors import UserError
from alphatune.hf.scales import AlphaTuningLayer, fingerprint
from alphatune.learn import methods
from alphatune.learn.models import load as load_model
from alphatune.packed import disk, walk
from alphatune.packed.linear import PackedLinear, dense_weights, packed_layers
from alphatune.run.pipeline import Run
from alphatune.run.sizes import sizes

IDS = torch.arange(2, 14).view(2, 6)
TRAINABLE = ("first", "all", "gain")
each_kind = pytest.mark.parametrize("which", TRAINABLE)
pytestmark = pytest.mark.filterwarnings("ignore:Already found a `peft_config`", "ignore:Adapter .* was active")


def dense(layers: int = 2) -> Any:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=layers, n_head=2, n_positions=32,
                                      bos_token_id=0, eos_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0,
                                      attn_pdrop=0.0)).eval()  # fmt: skip


def base(which: str = "first", layers: int = 2, **settings: Any) -> Any:
    config: Any = alphatune.UniformConfig(3, 8) if which == "gain" else alphatune.BCQConfig(2, **settings)
    return alphatune.quantize_model(dense(layers), config, progress=False)


def adapted(model: Any, which: str = "first", **settings: Any) -> Any:
    return get_peft_model(model, alphatune.AlphaTuningConfig(trainable=which, task_type="CAUSAL_LM", **settings))


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(input_ids=IDS).logits


def scales(model: nn.Module, adapter: str = "default") -> dict[str, nn.Parameter]:
    end = f".alphatuning_scale.{adapter}"
    return {n.removeprefix("base_model.model.").removesuffix(end): p for n, p in model.named_parameters()
            if n.endswith(end)}  # fmt: skip


def train(model: Any, seed: int, steps: int = 3) -> list[float]:
    """Losses of a few AdamW steps on random tokens."""
    generator, losses = torch.Generator().manual_seed(seed), []
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-2, weight_decay=0.01)
    for _ in range(steps):
        ids = torch.randint(1, 64, (3, 8), generator=generator)
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


# --- numbers


@each_kind
@pytest.mark.parametrize("group_size", [None, 8, 64], ids=["row-wise", "grouped", "spanning"])
def test_the_gradient_is_that_of_the_dense_formula(which: str, group_size: int | None) -> None:
    torch.manual_seed(0)
    layer, _ = walk.quantize_layer(nn.Linear(32, 6), alphatune.UniformConfig(3, group_size))
    tuned = AlphaTuningLayer(layer)
    tuned.add("one", which)
    tuned.set_adapter("one")
    with torch.no_grad():
        tuned.alphatuning_scale["one"].mul_(1.3)
    x, dy = torch.randn(5, 32), torch.randn(5, 6)
    tuned(x).backward(dy)

    g, scale = layer.grouping, tuned.alphatuning_scale["one"].detach().double().requires_grad_()
    alpha, offset = layer.alpha.double(), layer.offset.double()
    if which == "first":
        alpha = torch.cat([scale[:, None], alpha[:, 1:]], dim=1)
    elif which == "all":
        alpha = scale
    else:
        alpha, offset = alpha * (scale / (2 * alpha[:, 0]))[:, None], offset * scale / (2 * alpha[:, 0])
    weight_t = g.spread(offset).expand(32, 6).clone()
    for plane in range(3):
        shifts = torch.arange(32)[:, None]
        signs = ((layer.qweight[:, plane].repeat_interleave(32, 0) >> shifts) & 1).double() * 2 - 1
        weight_t = weight_t + g.spread(alpha[:, plane]) * signs
    (x.double() @ weight_t + layer.bias.double()).backward(dy.double())
    divisor = 1 if which == "gain" else (group_size or 32)  # Eq. 4
    expected = scale.grad / divisor
    assert torch.allclose(tuned.alphatuning_scale["one"].grad.double(), expected, rtol=1e-4, atol=1e-5)


@each_kind
def test_the_initial_adapter_changes_nothing(which: str) -> None:
    model = base(which)
    before = logits(model)
    tuned = adapted(model, which)
    assert torch.equal(logits(tuned), before)
    trainable = {n for n, p in tuned.named_parameters() if p.requires_grad}
    assert len(trainable) == 8 and all("alphatuning_scale" in n for n in trainable)


def test_the_trainer_takes_it(tmp_path: Path) -> None:
    tuned = adapted(base())
    data = [{"input_ids": IDS[i], "labels": IDS[i]} for i in range(2)] * 2
    arguments = TrainingArguments(str(tmp_path), max_steps=2, per_device_train_batch_size=2, learning_rate=1e-2,
                                  use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True)  # fmt: skip
    before = logits(tuned)
    Trainer(model=tuned, args=arguments, train_dataset=data).train()
    tuned.eval()
    assert not torch.equal(logits(tuned), before)


# --- the life of an adapter


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A packed base and adapters of the first and of all alphas, with what they compute."""
    folder = tmp_path_factory.mktemp("adapters")
    base().save_pretrained(folder / "base")
    made: dict[str, Any] = {"base": folder / "base", "plain": logits(base())}
    for name, which in (("a", "first"), ("b", "all")):
        tuned = adapted(AutoModelForCausalLM.from_pretrained(folder / "base"), which)
        train(tuned, seed=ord(name))
        tuned.save_pretrained(folder / name)
        made[name], made[f"{name}_logits"] = folder / name, logits(tuned)
    return made


def test_the_file_holds_the_scales_and_nothing_else(folders: dict[str, Any]) -> None:
    stored = load_file(folders["a"] / "adapter_model.safetensors")
    names = packed_layers(base())
    assert stored.keys() == {f"base_model.model.{name}.alphatuning_scale" for name in names}
    assert all(t.dtype == torch.float32 for t in stored.values())
    assert sum(t.numel() for t in stored.values()) == 2 * 9 * 32  # alpha_1: 9 h per block
    config = json.loads((folders["a"] / "adapter_config.json").read_text())
    assert config["peft_type"] == "ALPHATUNING" and config["trainable"] == "first"
    assert config["base_fingerprint"] == fingerprint(AutoModelForCausalLM.from_pretrained(folders["base"]))
    assert config["target_modules"] == sorted(config["target_modules"])


def test_an_adapter_of_gpt2_medium_has_the_papers_size() -> None:
    config = AutoConfig.for_model("gpt2", n_embd=1024, n_layer=24, n_head=16)
    run = config_of(["method=alphatuning"])
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        analytic = sizes(model, run)
        for name, layer in walk.linear_layers(model).items():
            grouping = walk.Grouping.of(*walk.weight_of(layer).shape, None)
            walk.replace(model, name, PackedLinear.empty(grouping, 3, False, layer.bias))
    tuned = adapted(model)
    numbers = sum(p.numel() for p in tuned.parameters() if p.requires_grad)
    assert numbers == analytic.trainable_parameters == 24 * 9 * 1024  # 0.22M
    assert numbers * 4 == pytest.approx(0.9e6, rel=0.02)
    assert len(tuned.peft_config["default"].target_modules) < 96  # peft shortens long lists of names


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_an_adapter_loads_onto_its_base(folders: dict[str, Any], low_cpu_mem_usage: bool) -> None:
    model = AutoModelForCausalLM.from_pretrained(folders["base"])
    for name in "ab":
        tuned = PeftModel.from_pretrained(copy.deepcopy(model), folders[name], low_cpu_mem_usage=low_cpu_mem_usage)
        assert torch.equal(logits(tuned), folders[f"{name}_logits"])
        assert not any(p.requires_grad for p in tuned.parameters())


def test_base_and_adapter_load_in_one_call(folders: dict[str, Any]) -> None:
    for auto in (AutoModelForCausalLM, AutoPeftModelForCausalLM):
        assert torch.equal(logits(auto.from_pretrained(folders["a"])), folders["a_logits"])


def test_transformers_own_adapter_calls_work(folders: dict[str, Any], tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folders["base"])
    model.load_adapter(folders["a"], adapter_name="a")
    model.load_adapter(folders["b"], adapter_name="b")
    for name in "abab":
        model.set_adapter(name)
        assert torch.equal(logits(model), folders[f"{name}_logits"])
    model.disable_adapters()
    assert torch.equal(logits(model), folders["plain"])
    model.enable_adapters()
    assert torch.equal(logits(model), folders["b_logits"])
    model.save_pretrained(tmp_path)
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folders["base"]), tmp_path)
    assert torch.equal(logits(tuned), folders["b_logits"])
    model.delete_adapter("a")
    assert torch.equal(logits(model), folders["b_logits"])


def test_adapters_share_one_base_and_switch_in_place(folders: dict[str, Any]) -> None:
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folders["base"]), folders["a"], "a")
    codes = {n: m.qweight.data_ptr() for n, m in packed_layers(tuned).items()}
    one = sum(t.numel() for t in [*tuned.parameters(), *tuned.buffers()])
    tuned.load_adapter(folders["b"], "b")
    tuned.add_adapter("new", alphatune.AlphaTuningConfig(trainable="first", task_type="CAUSAL_LM"))
    with_more = sum(t.numel() for t in [*tuned.parameters(), *tuned.buffers()])
    assert with_more - one == (2 + 1) * 2 * 9 * 32  # two planes of scales, then one: no second copy of anything
    for name in ("a", "b", "new", "b", "a"):
        started = time.perf_counter()
        tuned.set_adapter(name)
        assert time.perf_counter() - started < 0.5  # milliseconds; the bound allows for a busy machine
        assert torch.equal(logits(tuned), folders["plain"] if name == "new" else folders[f"{name}_logits"])
        assert {n for n, p in tuned.named_parameters() if p.requires_grad} == {
            f"base_model.model.{n}.alphatuning_scale.{name}" for n in scales(tuned, name)
        }
        with tuned.disable_adapter():
            assert torch.equal(logits(tuned), folders["plain"])
    assert codes == {n: m.qweight.data_ptr() for n, m in packed_layers(tuned).items()}
    tuned.delete_adapter("a")
    assert not scales(tuned, "a") and "a" not in tuned.peft_config
    tuned.set_adapter("b")
    assert torch.equal(logits(tuned), folders["b_logits"])


@each_kind
def test_merging_stays_packed_and_can_be_undone(which: str, tmp_path: Path) -> None:
    model = base(which)
    plain = logits(model)
    tuned = adapted(model, which)
    train(tuned, seed=4)
    tuned.eval()
    expected = logits(tuned)
    original = {n: (m.alpha.clone(), m.alpha.data_ptr()) for n, m in packed_layers(tuned).items()}
    tuned.merge_adapter()
    assert torch.allclose(logits(tuned), expected, atol=1e-5)
    with tuned.disable_adapter():
        assert torch.equal(logits(tuned), plain)
    tuned.unmerge_adapter()
    assert torch.equal(logits(tuned), expected)
    for name, layer in packed_layers(tuned).items():
        assert torch.equal(layer.alpha, original[name][0]) and layer.alpha.data_ptr() == original[name][1]
    merged = tuned.merge_and_unload()
    assert type(merged) is GPT2LMHeadModel and len(packed_layers(merged)) == 8
    assert not any(isinstance(m, AlphaTuningLayer) for m in merged.modules())
    assert torch.allclose(logits(merged), expected, atol=1e-5)
    merged.save_pretrained(tmp_path)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), logits(merged))


def test_unloading_gives_the_base_back(folders: dict[str, Any]) -> None:
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folders["base"]), folders["a"])
    assert torch.equal(logits(tuned.unload()), folders["plain"])


def test_generation_and_dense_weights_use_the_active_adapter(folders: dict[str, Any]) -> None:
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folders["base"]), folders["a"])
    merged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folders["base"]), folders["a"])
    settings = {"max_new_tokens": 5, "num_beams": 3, "pad_token_id": 0, "attention_mask": torch.ones_like(IDS)}
    expected = merged.merge_and_unload().generate(IDS, **settings)
    assert torch.equal(tuned.generate(input_ids=IDS, **settings), expected)
    with dense_weights(tuned):
        assert torch.allclose(logits(tuned), folders["a_logits"], atol=1e-5)
    layer = next(m for m in tuned.modules() if isinstance(m, AlphaTuningLayer))
    assert torch.equal(layer.weight, layer.weight_t().T) and layer.weight.shape == (96, 32)


@each_kind
@pytest.mark.parametrize("cast", ["bfloat16", "half", "to"])
def test_casting_a_model_leaves_the_scales_of_its_adapters_alone(which: str, cast: str) -> None:
    tuned = adapted(base(which), which)
    train(tuned, 1)
    before = {name: scale.detach().clone() for name, scale in scales(tuned).items()}
    tuned = tuned.to(torch.bfloat16) if cast == "to" else getattr(tuned, cast)()
    assert tuned.base_model.model.transformer.wte.weight.dtype != torch.float32
    for name, scale in scales(tuned).items():
        assert scale.dtype == torch.float32 and torch.equal(scale, before[name])


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_scales_stay_float32_beside_a_half_precision_model(folders: dict[str, Any], low_cpu_mem_usage: bool) -> None:
    model = AutoModelForCausalLM.from_pretrained(folders["base"], dtype=torch.bfloat16)
    tuned = PeftModel.from_pretrained(model, folders["a"], low_cpu_mem_usage=low_cpu_mem_usage)
    assert {p.dtype for p in scales(tuned).values()} == {torch.float32}
    saved = load_file(folders["a"] / "adapter_model.safetensors").values()
    assert sorted(float(p.sum()) for p in saved) == sorted(float(p.sum()) for p in scales(tuned).values())
    assert torch.allclose(logits(tuned).float(), folders["a_logits"], atol=0.05)


@pytest.mark.parametrize("targets", [["c_attn"], ["transformer.h.0.mlp.c_fc"], r".*\.mlp\..*", "all-linear"])
def test_targets_choose_layers(targets: Any, tmp_path: Path) -> None:
    tuned = adapted(base(), target_modules=targets)
    assert len(scales(tuned)) == {"['c_attn']": 2, "all-linear": 8, r".*\.mlp\..*": 4}.get(str(targets), 1)
    train(tuned, seed=3)
    tuned.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(base(), tmp_path)
    assert torch.equal(logits(again), logits(tuned.eval()))


def test_layers_can_be_left_out() -> None:
    tuned = adapted(base(), exclude_modules=["c_proj"])
    assert {n.rsplit(".", 1)[1] for n in scales(tuned)} == {"c_attn", "c_fc"}


# --- classification


def test_a_classifiers_head_is_trained_and_saved(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = BertConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, intermediate_size=64, num_labels=3,
                        num_attention_heads=2, max_position_embeddings=32)  # fmt: skip
    model = AutoModelForSequenceClassification.from_config(config).eval()
    alphatune.quantize_model(model, alphatune.BCQConfig(2), progress=False).save_pretrained(tmp_path / "base")
    tuned = get_peft_model(model, alphatune.AlphaTuningConfig(task_type="SEQ_CLS"))
    trainable = [n for n, p in tuned.named_parameters() if p.requires_grad]
    assert {n for n in trainable if "alphatuning" not in n} == {
        f"base_model.model.classifier.modules_to_save.default.{x}" for x in ("weight", "bias")
    }
    tuned(input_ids=IDS, labels=torch.tensor([0, 2])).loss.backward()
    torch.optim.SGD([p for p in tuned.parameters() if p.requires_grad], lr=0.5).step()
    tuned.save_pretrained(tmp_path / "adapter")
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert sorted(n for n in stored if "alphatuning" not in n) == [
        "base_model.model.classifier.bias", "base_model.model.classifier.weight"
    ]  # fmt: skip
    fresh = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    assert torch.equal(logits(PeftModel.from_pretrained(fresh, tmp_path / "adapter")), logits(tuned))
    merged = PeftModel.from_pretrained(fresh, tmp_path / "adapter").merge_and_unload()
    assert torch.allclose(logits(merged), logits(tuned), atol=1e-6)


# --- the runner


def _run(quick: list[str], *overrides: str) -> Run:
    config = config_of([*quick, "hparams.learning_rate=0.05", *overrides])
    return Run(config, load(config.task, config.data))


@pytest.mark.parametrize("method", ["alphatuning", "peqa"])
def test_a_run_leaves_an_adapter_that_peft_loads(method: str, quick: list[str], tmp_path: Path) -> None:
    run = _run(quick, f"method={method}", "quant.q=2")
    folder = run.adapted().path / "adapter"
    assert sorted(f.name for f in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny" and config["inference_mode"] is True
    assert str(tmp_path) not in json.dumps(config) and str(run.store.root) not in json.dumps(config)

    model, _ = load_model(run.config, run.store)
    disk.install(model, run.codes().path, run.config.quant)
    model.requires_grad_(False)
    tuned = PeftModel.from_pretrained(model, folder)  # the base that the run had: the fingerprint says so
    ids = torch.arange(1, 13).view(2, 6)
    with torch.no_grad():
        expected = run.final[0](input_ids=ids).logits
        assert torch.allclose(tuned(input_ids=ids).logits, expected, atol=1e-5)


def test_a_run_of_a_classifier_keeps_its_head_in_the_adapter(quick: list[str], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(BertConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=1, intermediate_size=64, num_labels=3, num_attention_heads=2,
    )).eval()  # fmt: skip
    walk.quantize_layers(model, alphatune.BCQConfig(2), progress=False)
    config = config_of([*quick, "method=alphatuning", "task=mnli"])
    twins = [methods.prepare(copy.deepcopy(model), config) for _ in range(2)]
    before = {n: p.numel() for n, p in twins[0].named_parameters() if p.requires_grad}
    assert sum(before.values()) == (4 * 32 + 64 + 32) + (3 * 32 + 3)  # alpha_1 of six matrices, and the head
    assert {n.split(".")[2] for n in before} == {"bert", "classifier"}
    with torch.no_grad():
        for p in twins[0].parameters():
            if p.requires_grad:
                p += 0.1
    folder = tmp_path / "adapter"
    assert methods.save_adapter(twins[0], folder)
    assert methods.load_adapter(twins[1], folder)
    assert torch.equal(logits(twins[1]), logits(twins[0]))
    merged = methods.merge(twins[1])
    assert torch.allclose(logits(merged), logits(twins[0]), atol=1e-5)
    assert not any(isinstance(m, AlphaTuningLayer) for m in merged.modules())


def test_other_methods_have_no_adapter_folder(tmp_path: Path) -> None:
    for method in ("full_ft", "lora"):
        model = methods.prepare(dense(), config_of([f"method={method}"]))
        assert not methods.save_adapter(model, tmp_path / method) and not (tmp_path / method).exists()
        assert not methods.load_adapter(model, tmp_path / method)


# --- mistakes


def wrong(match: str, call: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UserError, match=match):
            call()


def test_another_base_is_refused(folders: dict[str, Any]) -> None:
    others = [base(solver="alternating"), base(group_size=8), base("gain")]
    others.append(adapted(base(), "first"))
    train(others[-1], 9)
    others[-1] = others[-1].merge_and_unload()  # the same codes, other scales
    for other in others:
        wrong("belongs to another packed base", lambda o=other: PeftModel.from_pretrained(o, folders["a"]))
    model = AutoModelForCausalLM.from_pretrained(folders["base"])
    assert fingerprint(model) == fingerprint(model.transformer)
    tuned = PeftModel.from_pretrained(model, folders["a"])
    tuned.merge_adapter()
    assert fingerprint(tuned) == PeftConfig.from_pretrained(folders["a"]).base_fingerprint  # a merge is not a new base


def test_one_config_serves_several_bases() -> None:
    config = alphatune.AlphaTuningConfig()
    first = get_peft_model(base(), config).peft_config["default"].base_fingerprint
    second = get_peft_model(base(group_size=8), config).peft_config["default"].base_fingerprint
    assert first != second


def test_mistakes_are_told_in_one_line(folders: dict[str, Any], tmp_path: Path) -> None:
    wrong("trainable=none: must be one of: first, all, gain", lambda: alphatune.AlphaTuningConfig(trainable="none"))
    wrong("no packed layer: quantise it", lambda: adapted(dense()))
    wrong("transformer.h.0.ln_1 is a LayerNorm, not a packed layer",
          lambda: adapted(base(), target_modules=["transformer.h.0.ln_1"]))  # fmt: skip
    wrong("target_modules=head.*: matches no packed layer", lambda: adapted(base(), target_modules="head.*"))
    wrong("no packed layer", lambda: PeftModel.from_pretrained(dense(), folders["a"]))

    for name, edit in (("lacks", lambda t: t.pop(next(iter(t)))), ("shape", _cut)):
        stored = load_file(folders["a"] / "adapter_model.safetensors")
        edit(stored)
        folder = tmp_path / name
        folder.mkdir()
        (folder / "adapter_config.json").write_text((folders["a"] / "adapter_config.json").read_text())
        save_file(stored, folder / "adapter_model.safetensors")
    read = AutoModelForCausalLM.from_pretrained
    wrong("lacks the scales of", lambda: PeftModel.from_pretrained(read(folders["base"]), tmp_path / "lacks"))
    wrong(r"has scales \[1, 5\]", lambda: PeftModel.from_pretrained(read(folders["base"]), tmp_path / "shape"))

    tuned = PeftModel.from_pretrained(read(folders["base"]), folders["a"], "a")
    tuned.load_adapter(folders["b"], "b")
    tuned.base_model.set_adapter(["a", "b"])
    wrong("adapters a, b are active at once", lambda: logits(tuned))
    wrong("merge one adapter, not a, b", tuned.merge_adapter)
    tuned.set_adapter("a")
    tuned.merge_adapter()
    wrong("an adapter is merged: unmerge it", lambda: tuned.load_adapter(folders["b"], "c"))


def _cut(stored: dict[str, torch.Tensor]) -> None:
    name = next(iter(stored))
    stored[name] = stored[name][:, :5].clone()
