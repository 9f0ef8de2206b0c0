"""Packed models through `save_pretrained` and `from_pretrained`: same bits, same logits, and no quiet mistakes."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    GPT2Config,
    MixtralConfig,
    MixtralForCausalLM,
    OPTConfig,
)

import alphatune
from alphatune import settings
from alphatune.compose.compose import config_of
from alphatune.errors import UserError
from alphatune.packed import checksum
from alphatune.packed.linear import PackedLinear, packed_layers
from alphatune.packed.walk import linear_layers
from alphatune.run.sizes import sizes

MINI_GPT2 = ROOT.parent / "shared" / "models" / "mini-gpt2"
IDS = torch.arange(2, 14).view(2, 6)
BACKBONES: dict[str, tuple[Any, Any]] = {
    "gpt2": (
        GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=2, n_positions=32, bos_token_id=0, eos_token_id=0),
        AutoModelForCausalLM,
    ),
    "opt": (  # with project_in and project_out, as OPT-350m
        OPTConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, ffn_dim=64, num_attention_heads=2,
                  max_position_embeddings=32, word_embed_proj_dim=16, bos_token_id=0, eos_token_id=0),
        AutoModelForCausalLM,
    ),
    "bert": (
        BertConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, intermediate_size=64, num_attention_heads=2,
                   max_position_embeddings=32, num_labels=3),
        AutoModelForSequenceClassification,
    ),
}  # fmt: skip
FORMATS = {
    "bcq": alphatune.BCQConfig(bits=3),
    "grouped": alphatune.BCQConfig(2, "0.5h", "alternating", 3),
    "spanning": alphatune.BCQConfig(1, "4h"),
    "offset": alphatune.BCQConfig(2, 16, "alternating", 3, offset=True),
    "uniform": alphatune.UniformConfig(4, 24),
}
each_backbone = pytest.mark.parametrize("backbone", BACKBONES)
each_format = pytest.mark.parametrize("quantization", FORMATS.values(), ids=FORMATS)


def dense(backbone: str) -> Any:
    config, auto = BACKBONES[backbone]
    torch.manual_seed(0)
    return auto.from_config(copy.deepcopy(config)).eval()


def packed(backbone: str = "gpt2", quantization: Any = FORMATS["bcq"]) -> Any:
    return alphatune.quantize_model(dense(backbone), quantization, progress=False)


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(input_ids=IDS).logits


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    found = {}
    for file in folder.glob("*.safetensors"):
        found.update(load_file(file))
    return found


# --- round trips


@each_backbone
@each_format
def test_loading_gives_the_same_bits_and_the_same_logits(backbone: str, quantization: Any, tmp_path: Path) -> None:
    if backbone == "opt" and quantization is FORMATS["spanning"]:
        quantization = alphatune.BCQConfig(1, 128)  # four rows of 32, two of 64
    model = packed(backbone, quantization)
    model.save_pretrained(tmp_path)
    loaded = BACKBONES[backbone][1].from_pretrained(tmp_path)
    assert type(loaded) is type(model)
    assert torch.equal(logits(loaded), logits(model))
    state = loaded.state_dict()
    assert state.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(state[name], tensor) and state[name].dtype == tensor.dtype, name
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())


@each_backbone
def test_what_is_packed_is_said_by_the_config_not_guessed(backbone: str, tmp_path: Path) -> None:
    expected = set(linear_layers(dense(backbone)))
    model = packed(backbone)
    model.save_pretrained(tmp_path)
    loaded = BACKBONES[backbone][1].from_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    assert stored["modules"].keys() == set(packed_layers(loaded)) == expected
    outside = [n for n, m in loaded.named_modules() if type(m) is nn.Linear]
    assert outside == [n for n, m in dense(backbone).named_modules() if type(m) is nn.Linear and n not in expected]


def test_a_model_without_its_head_loads_and_saves_on(tmp_path: Path) -> None:
    model = packed("gpt2")
    model.save_pretrained(tmp_path / "whole")
    body = AutoModel.from_pretrained(tmp_path / "whole")
    with torch.no_grad():
        hidden = model.transformer(input_ids=IDS).last_hidden_state
        assert torch.equal(body(input_ids=IDS).last_hidden_state, hidden)
    body.save_pretrained(tmp_path / "body")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "body")  # the head is tied to the embedding
    assert torch.equal(logits(again), logits(model))
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path / "whole", pad_token_id=0)
    assert torch.equal(classifier.transformer.h[0].attn.c_attn.qweight, model.transformer.h[0].attn.c_attn.qweight)


def test_tied_heads_are_stored_once_and_dense_weights_not_at_all(tmp_path: Path) -> None:
    model = packed("gpt2")
    model.save_pretrained(tmp_path)
    stored = tensors(tmp_path)
    assert "lm_head.weight" not in stored and "transformer.wte.weight" in stored
    assert {n.rsplit(".", 1)[1] for n in stored if ".c_attn." in n} == {"qweight", "alpha", "bias", "weight"}
    stop = ["transformer.h.0.attn.c_attn.weight"]
    assert [n for n, t in stored.items() if t.dtype == torch.uint8] == stop
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.lm_head.weight is loaded.transformer.wte.weight


@pytest.mark.parametrize(("q", "quantization"), [(1, alphatune.BCQConfig(1)), (3, alphatune.BCQConfig(3, 64)),
                                                 (4, alphatune.UniformConfig(4))])  # fmt: skip
def test_files_have_the_size_that_arithmetic_says(q: int, quantization: Any, tmp_path: Path) -> None:
    width = 512 if q < 4 else 256
    config = GPT2Config(vocab_size=1000, n_embd=width, n_layer=2, n_head=8, n_positions=128)
    model = AutoModelForCausalLM.from_config(config)
    run = config_of([
        "method=ptq", f"quant.q={q}", f"quant.group_size={quantization.group_size or 'null'}",
        f"quant.format={'uniform' if isinstance(quantization, alphatune.UniformConfig) else 'bcq'}",
    ])  # fmt: skip
    expected = sizes(model, run).total_bytes
    alphatune.quantize_model(model, quantization, progress=False).save_pretrained(tmp_path)
    written = (tmp_path / "model.safetensors").stat().st_size
    assert written == pytest.approx(expected, rel=0.01)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    held = {t.data_ptr(): t.numel() * t.element_size() for t in [*loaded.parameters(), *loaded.buffers()]}
    assert sum(held.values()) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@each_backbone
def test_scales_stay_float32_in_a_half_precision_model(backbone: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = packed(backbone, FORMATS["uniform"])
    model.save_pretrained(tmp_path)
    loaded = BACKBONES[backbone][1].from_pretrained(tmp_path, dtype=dtype)
    assert loaded.dtype == dtype
    for name, layer in packed_layers(loaded).items():
        original = model.get_submodule(name)
        assert torch.equal(layer.alpha, original.alpha) and torch.equal(layer.offset, original.offset)
        assert layer.alpha.dtype == layer.offset.dtype == torch.float32
        assert layer.bias is not None and layer.bias.dtype == dtype
    out = logits(loaded)
    assert out.dtype == dtype and torch.allclose(out.float(), logits(model), atol=0.05)
    later = packed(backbone, FORMATS["uniform"]).to(dtype)  # casting a loaded model is the same
    assert all(layer.alpha.dtype == torch.float32 for layer in packed_layers(later).values())


def test_large_checkpoints_are_sharded(tmp_path: Path) -> None:
    model = packed("opt")
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), logits(model))


def test_saving_a_loaded_model_writes_the_same_file(tmp_path: Path) -> None:
    packed("opt").save_pretrained(tmp_path / "a")
    AutoModelForCausalLM.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    one, other = (tmp_path / x / "model.safetensors" for x in "ab")
    assert one.read_bytes() == other.read_bytes()
    configs = [json.loads((tmp_path / x / "config.json").read_text())["quantization_config"] for x in "ab"]
    assert configs[0] == configs[1]


def test_generation_after_loading(tmp_path: Path) -> None:
    model = packed("gpt2")
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    settings = {"max_new_tokens": 4, "num_beams": 3, "do_sample": False, "pad_token_id": 0}
    mask = torch.ones_like(IDS)
    assert torch.equal(loaded.generate(IDS, attention_mask=mask, **settings),
                       model.generate(IDS, attention_mask=mask, **settings))  # fmt: skip


@pytest.mark.skipif(not MINI_GPT2.is_dir(), reason=f"no pre-trained model at {MINI_GPT2.name}")
def test_a_pretrained_model_round_trip(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(MINI_GPT2)
    alphatune.quantize_model(model, alphatune.BCQConfig(3), progress=False).save_pretrained(tmp_path)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), logits(model))


# --- quantising


def test_quantising_is_in_place_and_reports() -> None:
    model = dense("bert")
    before = logits(model)
    given = alphatune.BCQConfig(4, solver="alternating")
    assert alphatune.quantize_model(model, given, progress=False) is model
    assert given.modules is None  # the caller's config is left alone
    assert [r.name for r in model.hf_quantizer.reports] == list(packed_layers(model))
    assert 0 < (logits(model) - before).abs().max() < 0.1
    assert not any(p.requires_grad for p in model.parameters())


@each_format
def test_quantising_while_loading_is_quantising_afterwards(quantization: Any, tmp_path: Path) -> None:
    model = dense("gpt2")
    model.save_pretrained(tmp_path / "dense")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "dense", quantization_config=quantization)
    assert torch.equal(logits(loaded), logits(packed("gpt2", quantization)))
    loaded.save_pretrained(tmp_path / "packed")
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "packed")), logits(loaded))


def test_calibrated_solvers_take_their_inputs(tmp_path: Path) -> None:
    config = alphatune.BCQConfig(2, solver="gptq", offset=True)
    with pytest.raises(UserError, match="needs calibration inputs"):
        packed("gpt2", config)
    model = alphatune.quantize_model(dense("gpt2"), config, False, [{"input_ids": IDS}])
    assert all(r.output_error is not None for r in model.hf_quantizer.reports)
    some = alphatune.BCQConfig(2, solver="gptq", offset=True, modules=["c_attn"])
    part = alphatune.quantize_model(dense("gpt2"), some, False, [{"input_ids": IDS}])
    assert len(packed_layers(part)) == 2
    for name, layer in packed_layers(part).items():  # calibrated on the dense model, as if it were packed whole
        assert torch.equal(layer.qweight, model.get_submodule(name).qweight)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), logits(model))


def test_modules_choose_what_is_packed(tmp_path: Path) -> None:
    model = packed("gpt2", alphatune.BCQConfig(2, modules=["c_attn", "transformer.h.1.mlp.c_fc"]))
    chosen = ["transformer.h.0.attn.c_attn", "transformer.h.1.attn.c_attn", "transformer.h.1.mlp.c_fc"]
    assert sorted(packed_layers(model)) == chosen
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert sorted(packed_layers(loaded)) == chosen and torch.equal(logits(loaded), logits(model))


def test_the_weight_of_a_packed_layer_is_the_dense_one() -> None:
    layer = packed("gpt2").transformer.h[0].mlp.c_fc
    assert isinstance(layer, PackedLinear) and torch.equal(layer.weight, layer.weight_t().T)
    assert "weight" not in dict(layer.named_parameters()) and "weight" not in dict(layer.named_buffers())


def test_a_module_that_is_no_transformers_model_is_packed_too() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)]))
    assert alphatune.quantize_model(model, alphatune.UniformConfig(2), progress=False) is model
    assert len(packed_layers(model)) == 2


def test_configs_go_through_json() -> None:
    for config in (alphatune.BCQConfig(2, "h", "alternating", 3, ["a"]), alphatune.UniformConfig(8, 64, {"a": 64})):
        values = json.loads(json.dumps(config.to_dict()))
        again = type(config).from_dict(values)
        assert again.to_dict() == config.to_dict() and again == config
    assert alphatune.BCQConfig is settings.BCQConfig


# --- mistakes


def wrong(match: str, call: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UserError, match=match):
            call()


def test_mistakes_of_quantising_are_told_in_one_line() -> None:
    wrong("bits=9: must be a whole number from 1 to 8", lambda: alphatune.BCQConfig(9))
    wrong("BCQConfig: no such setting: bit", lambda: alphatune.BCQConfig(bit=3))
    wrong("solver=x: must be one of: greedy, alternating, optimal, weighted, hessian, gptq",
          lambda: alphatune.BCQConfig(solver="x"))  # fmt: skip
    wrong("solver=optimal: exact only for bits=1 and 2", lambda: alphatune.BCQConfig(3, solver="optimal"))
    wrong("iterations=0: must be a whole number from 1 to 1000", lambda: alphatune.BCQConfig(iterations=0))
    wrong("damping=much: must be a number from", lambda: alphatune.BCQConfig(damping="much"))
    for size in ("zz", "h2", "-1h", "0h", " 2h", "1e2h", "1e400h", "infh", "64", 2.5, 0, True, 10**10):
        for config in (alphatune.BCQConfig, alphatune.UniformConfig):
            wrong(f"group_size={size}: must be null", lambda c=config, s=size: c(group_size=s))
    wrong(
        r'modules="c_attn": must be a list of names, such as \["c_attn"\]',
        lambda: alphatune.BCQConfig(modules="c_attn"),
    )
    wrong("modules=.*: names no layer", lambda: alphatune.UniformConfig(modules=[]))
    wrong("quantised already", lambda: alphatune.quantize_model(packed(), FORMATS["bcq"], progress=False))
    wrong("no linear layer inside the blocks is called lm_head; there are: c_attn, c_fc, c_proj",
          lambda: packed("gpt2", alphatune.BCQConfig(modules=["lm_head"])))  # fmt: skip
    wrong("group_size=33: a group larger", lambda: packed("gpt2", alphatune.BCQConfig(2, 33)))
    wrong("takes alphatune.BCQConfig", lambda: alphatune.quantize_model(dense("gpt2"), {"bits": 3}))


def test_broken_checkpoints_are_told_in_one_line(tmp_path: Path) -> None:
    def load(folder: Path) -> Any:
        return lambda: AutoModelForCausalLM.from_pretrained(folder)

    def saved(name: str, **options: Any) -> Path:
        packed("gpt2").save_pretrained(tmp_path / name, **options)
        return tmp_path / name

    folder = saved("cut")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    wrong("model.safetensors: not a whole safetensors file", load(folder))

    folder = saved("part", max_shard_size="20KB")
    next(folder.glob("model-00002-*")).unlink()
    wrong("model-00002-of-.*: this part of the checkpoint is missing", load(folder))

    folder = saved("foreign")
    save_file({k: v.clone() for k, v in dense("gpt2").state_dict().items() if k != "lm_head.weight"},
              folder / "model.safetensors", {"format": "pt"})  # fmt: skip
    wrong("holds no packed layer; config.json belongs to another checkpoint", load(folder))

    folder = saved("hole")
    stored = load_file(folder / "model.safetensors")
    del stored["transformer.h.1.mlp.c_fc.alpha"]
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    wrong("the checkpoint lacks transformer.h.1.mlp.c_fc.alpha", load(folder))

    def changed(name: str, tensor: str, change: Any) -> Path:
        folder = saved(name)
        stored = load_file(folder / "model.safetensors")
        stored[tensor] = change(stored[tensor])
        save_file(stored, folder / "model.safetensors", {"format": "pt"})
        return folder

    codes, scales = "transformer.h.0.attn.c_attn.qweight", "transformer.h.1.mlp.c_fc.alpha"
    for dtype, held in ((torch.float32, "F32"), (torch.int64, "I64")):
        folder = changed(f"codes-{held}", codes, lambda t, dtype=dtype: t.to(dtype))
        wrong(f"{codes}: the file holds {held}, not I32", load(folder))
    wrong(f"{scales}: the file holds F16, not F32", load(changed("half", scales, lambda t: t.half())))
    wrong(f"{scales} holds values that are not finite", load(changed("nan", scales, lambda t: t * float("nan"))))

    folder = saved("shorter")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"n_layer": 1}))
    wrong(r"GPT2LMHeadModel has no layer transformer.h.1.* config.json belongs to another model", load(folder))

    def edited(name: str, **values: Any) -> Path:
        folder = saved(name)
        config = json.loads((folder / "config.json").read_text())
        config["quantization_config"].update(values)
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    wrong(r"attn.c_attn.qweight: the file has shape \[1, 3, 96\]", load(edited("bits", bits=2)))
    wrong(r"attn.c_attn.alpha: the file", load(edited("size", modules={"transformer.h.0.attn.c_attn": 8})))
    wrong("names no layer of GPT2LMHeadModel", load(edited("no", modules={})))
    wrong("GPT2LMHeadModel has no layer decoder.fc1", load(edited("names", modules={"decoder.fc1": 32})))
    wrong("gives no number of weights per scale", load(edited("none", modules={"transformer.h.0.attn.c_attn": None})))
    wrong("no linear layer", load(edited("norm", modules={"transformer.h.0.ln_1": 32})))
    wrong("no such setting: bitz", load(edited("key", bitz=2)))
    modules = json.loads((tmp_path / "cut" / "config.json").read_text())["quantization_config"]["modules"]
    folder = edited("more", modules=modules | {"transformer.h.7.mlp.c_fc": 32})
    wrong("GPT2LMHeadModel has no layer transformer.h.7.mlp.c_fc", load(folder))
    wrong("GPT2Model has no layer transformer.h.7.mlp.c_fc", lambda: AutoModel.from_pretrained(folder))


WITHOUT = """
import sys
from transformers import AutoModel, AutoModelForCausalLM
assert "alphatune" not in sys.modules
for auto in (AutoModel, AutoModelForCausalLM):
    try:
        auto.from_pretrained(sys.argv[1])
    except RuntimeError as error:
        print("stopped:", error)
from peft import PeftConfig
try:
    PeftConfig.from_pretrained(sys.argv[1])
except KeyError as error:
    print("stopped:", error)
"""


def test_without_alphatune_loading_stops(tmp_path: Path) -> None:
    packed("gpt2").save_pretrained(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "ALPHATUNING"}')
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(tmp_path)], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ""}, check=True,
    )  # fmt: skip
    assert done.stdout.count("stopped:") == 3
    assert "Unknown quantization type, got alphatune_bcq" in done.stderr + done.stdout


def test_the_file_says_nothing_of_this_machine(tmp_path: Path) -> None:
    packed("gpt2").save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert AutoConfig.from_pretrained(tmp_path).quantization_config["quant_method"] == "alphatune_bcq"
    assert str(tmp_path) not in (tmp_path / "config.json").read_text()


@pytest.mark.parametrize("config", [alphatune.BCQConfig(2, 33), alphatune.BCQConfig(2, solver="gptq")])
def test_a_model_that_was_refused_saves_as_what_it_is(config: Any, tmp_path: Path) -> None:
    model = dense("gpt2")
    with pytest.raises(UserError):
        alphatune.quantize_model(model, config, progress=False)
    model.save_pretrained(tmp_path)
    assert "quantization_config" not in (tmp_path / "config.json").read_text()
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), logits(model))


def test_a_packed_model_that_was_refused_stays_loadable(tmp_path: Path) -> None:
    model = packed()
    with pytest.raises(UserError, match="quantised already"):
        alphatune.quantize_model(model, alphatune.BCQConfig(2), progress=False)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), logits(model))


def test_checksums_are_of_the_tensors_as_they_are_in_the_files(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = MixtralForCausalLM(MixtralConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=4, max_position_embeddings=32,
    )).eval()  # fmt: skip
    with pytest.warns(UserWarning, match="stay dense"):
        alphatune.quantize_model(model, alphatune.BCQConfig(2), progress=False)
    model.save_pretrained(tmp_path)
    assert any("experts.0." in name for name in tensors(tmp_path))  # files have one tensor per expert, memory has not
    assert checksum.verify(sorted(tmp_path.glob("*.safetensors")))
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), logits(model))
