"""Quantising whole models: which layers, what they compute then, what is reported and stored, how much memory."""

import copy
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    MixtralConfig,
    MixtralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)  # fmt: skip
from transformers.pytorch_utils import Conv1D

from alphatune.compose.compose import config_of
from alphatune.config import Quant
from alphatune.errors import UserError
from alphatune.learn import methods
from alphatune.packed import disk
from alphatune.packed.linear import packed_layers
from alphatune.packed.walk import quantize_layer, quantize_layers
from alphatune.quant import bcq, uniform
from alphatune.quant.grouping import Grouping
from alphatune.quant.solvers import solve_vectors
from alphatune.settings import BCQConfig, UniformConfig

WIDTH = 16
LAYERS = {  # every linear layer of one block; section 4.1: attention qkv, attention output, both of the FFN
    "gpt2": ["transformer.h.{}.attn.c_attn", "transformer.h.{}.attn.c_proj", "transformer.h.{}.mlp.c_fc",
             "transformer.h.{}.mlp.c_proj"],
    "opt": ["model.decoder.layers.{}.self_attn.k_proj", "model.decoder.layers.{}.self_attn.v_proj",
            "model.decoder.layers.{}.self_attn.q_proj", "model.decoder.layers.{}.self_attn.out_proj",
            "model.decoder.layers.{}.fc1", "model.decoder.layers.{}.fc2"],
    "bert": ["bert.encoder.layer.{}.attention.self.query", "bert.encoder.layer.{}.attention.self.key",
             "bert.encoder.layer.{}.attention.self.value", "bert.encoder.layer.{}.attention.output.dense",
             "bert.encoder.layer.{}.intermediate.dense", "bert.encoder.layer.{}.output.dense"],
}  # fmt: skip
UNTOUCHED = {  # some that must stay, whatever else does
    "gpt2": ["transformer.wte.weight", "transformer.wpe.weight", "transformer.ln_f.weight"],
    "opt": ["model.decoder.embed_tokens.weight", "model.decoder.project_in.weight", "model.decoder.project_out.weight"],
    "bert": ["bert.pooler.dense.weight", "classifier.weight", "bert.embeddings.word_embeddings.weight"],
}
each_kind = pytest.mark.parametrize("kind", LAYERS)
configs = {
    "greedy": BCQConfig(3),
    "alternating": BCQConfig(2, "0.5h", "alternating", 3),
    "optimal, ragged": BCQConfig(2, 10, "optimal"),
    "spanning": BCQConfig(3, 128),  # eight rows of 16, two of 64
    "uniform": UniformConfig(4, "h"),
}
each_config = pytest.mark.parametrize("config", configs.values(), ids=configs)


def tiny(kind):
    """A random model of two blocks with biases and norms that are not the initial zeros and ones."""
    torch.manual_seed(0)
    common = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 12}
    model = {
        "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=23, n_embd=WIDTH, n_layer=2, n_head=2, n_positions=12)),
        "opt": lambda: OPTForCausalLM(OPTConfig(vocab_size=23, ffn_dim=64, word_embed_proj_dim=8, **common)),
        "bert": lambda: BertForSequenceClassification(
            BertConfig(vocab_size=23, intermediate_size=64, num_labels=3, **common)
        ),
    }[kind]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


def logits(model):
    ids = torch.tensor([[2, 7, 11, 5, 3], [4, 4, 9, 22, 1]])
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def named(kind):
    return [pattern.format(block) for block in range(2) for pattern in LAYERS[kind]]


def out_in(layer):
    """A dense layer's weight as [out, in]; Conv1D computes x W, so it stores the transpose."""
    return (layer.weight.T if isinstance(layer, Conv1D) else layer.weight).detach()


# --- which layers


@each_kind
def test_exactly_the_linear_layers_of_the_blocks_are_replaced(kind):
    model = tiny(kind)
    reports = quantize_layers(model, BCQConfig(2), progress=False)
    assert list(packed_layers(model)) == named(kind)
    assert [r.name for r in reports] == named(kind)
    blocks = model.get_submodule(named(kind)[0].partition(".0.")[0])
    assert isinstance(blocks, nn.ModuleList) and not any(isinstance(m, nn.Linear | Conv1D) for m in blocks.modules())


@each_kind
@each_config
def test_everything_else_stays_bit_for_bit(kind, config):
    model = tiny(kind)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    quantize_layers(model, config, progress=False)
    after = model.state_dict()
    quantised = {f"{name}.weight" for name in named(kind)}
    assert quantised.isdisjoint(after)
    for name in before.keys() - quantised:  # biases of the quantised layers included
        assert torch.equal(after[name], before[name]), name
    assert before.keys() >= set(UNTOUCHED[kind])
    added = {f"{name}.{part}" for name in named(kind) for part in ("qweight", "alpha", "offset")}
    assert after.keys() - before.keys() <= added


# --- what they compute


@each_kind
@each_config
def test_logits_are_those_of_a_dense_model_with_the_reconstructed_weights(kind, config):
    model, dense = tiny(kind), tiny(kind)
    for name in named(kind):  # reconstruct here with the solvers, group by group
        layer = dense.get_submodule(name)
        weight = out_in(layer)
        size = {"h": WIDTH, "0.5h": WIDTH // 2, None: weight.shape[1]}.get(config.group_size, config.group_size)
        flat = weight.reshape(-1, size) if size > weight.shape[1] else weight
        pieces = []
        for vectors in flat.split(size, dim=1):
            vectors = vectors.contiguous()
            if isinstance(config, UniformConfig):
                step, zero, codes = uniform.search(vectors, config.bits)
                pieces.append(step[:, None] * (codes - zero[:, None]))
            else:
                pieces.append(bcq.reconstruct(*solve_vectors(vectors, config)[:2]))
        with torch.no_grad():
            out_in(layer).copy_(torch.cat(pieces, dim=1).reshape(weight.shape))
    original = logits(model)
    quantize_layers(model, config, progress=False)
    assert torch.allclose(logits(model), logits(dense), atol=1e-4)
    assert not torch.allclose(logits(model), original, atol=1e-3)


def test_a_conv1d_and_a_linear_with_the_same_map_become_the_same_layer():
    conv, linear = Conv1D(6, 40), nn.Linear(40, 6)
    with torch.no_grad():
        linear.weight.copy_(conv.weight.T)
        conv.bias.copy_(linear.bias)
    one, other = (quantize_layer(layer, BCQConfig(2))[0] for layer in (conv, linear))
    assert (one.in_features, one.out_features) == (40, 6)
    assert torch.equal(one.qweight, other.qweight) and torch.equal(one.bias, other.bias)
    assert torch.allclose(one.alpha, other.alpha)  # sums in another order: the memory layout differs
    assert one(torch.randn(3, 40)).shape == (3, 6)


@pytest.mark.parametrize("bits", range(1, 9))
def test_any_number_of_bits_from_one_to_eight(bits):
    model = tiny("gpt2")
    reports = quantize_layers(model, BCQConfig(bits, "h", "alternating", 2), progress=False)
    layers = packed_layers(model).values()
    assert all(layer.bits == bits and layer.alpha.shape[1] == bits for layer in layers)
    assert all(r.bits == bits and 0 < r.relative_error < 0.62 * 0.75 ** (bits - 1) for r in reports)


@pytest.mark.parametrize("group_size, expected", [("h", 16), ("0.5h", 8), (None, None), (4, 4)])
def test_group_sizes_in_units_of_the_model_width(group_size, expected):
    model = tiny("gpt2")
    reports = quantize_layers(model, BCQConfig(1, group_size), progress=False)
    for report, layer in zip(reports, packed_layers(model).values(), strict=True):
        assert report.group_size == (expected or report.columns)
        assert layer.alpha.shape == (report.columns // report.group_size, 1, report.rows)


def test_pieces_solved_apart_join_as_if_solved_at_once():
    layer = nn.Linear(96, 500)  # large enough to be cut into several chunks, with rows left over
    for size in (None, 20, 192, 480):
        packed, _ = quantize_layer(layer, BCQConfig(2, size))
        g = Grouping.of(500, 96, size)
        solved = [bcq.greedy(v, 2) for v in g.vectors(layer.weight.detach())]
        signs, alpha = g.from_vectors([fit.signs for fit in solved], [fit.alpha for fit in solved])
        assert torch.equal(packed.alpha, alpha)
        dense = sum(g.spread(alpha[:, i]) * (signs[:, i].T.float() * 2 - 1) for i in range(2))
        assert torch.allclose(packed.weight_t(), dense, atol=1e-6)


# --- reports and refusals


@each_config
def test_reported_errors_are_those_of_the_layers(config):
    model, dense = tiny("gpt2"), tiny("gpt2")
    for report in quantize_layers(model, config, progress=False):
        weight = out_in(dense.get_submodule(report.name)).double()
        error = weight - model.get_submodule(report.name).weight_t().T.double()
        assert (report.rows, report.columns) == tuple(weight.shape)
        assert report.mse == pytest.approx(float(error.square().mean()), rel=1e-4)
        assert report.relative_error == pytest.approx(float(error.norm() / weight.norm()), rel=1e-4)


def test_a_layer_of_zeros_has_no_error():
    layer = nn.Linear(8, 2)
    nn.init.zeros_(layer.weight)
    for config in (BCQConfig(3, solver="alternating"), UniformConfig(2)):
        packed, report = quantize_layer(layer, config)
        assert report.mse == report.relative_error == 0
        assert torch.equal(packed.weight_t(), torch.zeros(8, 2))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("config", [BCQConfig(2), UniformConfig(2), BCQConfig(2, solver="gptq")], ids=str)
def test_weights_that_are_not_finite_are_refused_by_name(value, config):
    model, ids = tiny("gpt2"), torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.weight[3, 5] = value
    with pytest.raises(UserError, match="transformer.h.1.mlp.c_fc: holds weights that are not finite"):
        quantize_layers(model, config, progress=False, calibration=[{"input_ids": ids}])
    assert not packed_layers(model)
    with pytest.raises(UserError, match="the layer: holds weights that are not finite"):
        quantize_layer(model.transformer.h[1].mlp.c_fc, BCQConfig(2))


@pytest.mark.parametrize("calibration, match", [
    (["text"], "batch 0 is not such a mapping"), ([torch.ones(1, 3).long()], "batch 0 is not such a mapping"),
    ({"input_ids": torch.ones(1, 3).long()}, "not a dict"), ("text", "not a str"), ([{}], "batch 0 is not"),
    ([{"input_ids": [1, 2]}], "batch 0 is not"), ([{"labels": torch.ones(1, 3).long()}], "batch 0 is not"),
    ([{"input_ids": torch.ones(1, 0).long()}], r"shape \[1, 0\], not \[texts, tokens\]"),
    ([{"input_ids": torch.ones(3).long()}], r"shape \[3\], not"), ([], "there are no texts"),
])  # fmt: skip
def test_calibration_inputs_of_another_form_are_refused(calibration, match):
    model = tiny("gpt2")
    with pytest.raises(UserError, match=f"calibration: .*{match}"):
        quantize_layers(model, BCQConfig(2, solver="weighted"), progress=False, calibration=calibration)
    assert not packed_layers(model)


def test_experts_that_stay_dense_are_told_of():
    torch.manual_seed(0)
    model = MixtralForCausalLM(MixtralConfig(
        vocab_size=23, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=4, max_position_embeddings=12,
    ))  # fmt: skip
    with pytest.warns(UserWarning, match=r"8\d% of the weights .* stay dense: model.layers.0.mlp.experts"):
        quantize_layers(model, BCQConfig(2), progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantize_layers(tiny("bert"), BCQConfig(2), progress=False)


@pytest.mark.parametrize("bits", [0, 9])
def test_bits_out_of_range_are_refused_before_anything_changes(bits):
    model = tiny("gpt2")
    with pytest.raises(UserError, match=f"bits={bits}: must be a whole number from 1 to 8"):
        quantize_layers(model, BCQConfig(bits), progress=False)
    assert not packed_layers(model)


def test_a_model_without_blocks_is_refused():
    with pytest.raises(UserError, match="Sequential has no linear layers inside repeated blocks"):
        quantize_layers(nn.Sequential(nn.Linear(4, 4)), BCQConfig(2), progress=False)


def test_a_group_size_that_fits_no_layer_is_refused():
    with pytest.raises(UserError, match="group_size=24: a group larger than a row of 16 weights must span whole rows"):
        quantize_layers(tiny("gpt2"), BCQConfig(2, 24), progress=False)


# --- on disk


@each_kind
@pytest.mark.parametrize("quant", [Quant(q=3), Quant(format="uniform", q=4, group_size="0.5h")], ids=["bcq", "uniform"])
def test_codes_written_to_disk_give_the_same_model_again(kind, quant, tmp_path):
    written, installed, dense = (tiny(kind) for _ in range(3))
    disk.write(tmp_path, written, quant, progress=False)
    expected = logits(written)

    disk.install(installed, tmp_path, quant)
    assert list(packed_layers(installed)) == named(kind)
    assert torch.equal(logits(installed), expected)

    disk.write_dense(dense, tmp_path, quant)
    assert not packed_layers(dense)
    for name in named(kind):
        assert torch.equal(out_in(dense.get_submodule(name)), written.get_submodule(name).weight_t().T)
    assert torch.allclose(logits(dense), expected, atol=1e-5)


def test_the_file_holds_codes_and_scales_and_nothing_else(tmp_path):
    disk.write(tmp_path, tiny("gpt2"), Quant(q=2), progress=False)
    tensors = load_file(tmp_path / disk.TENSORS)
    assert set(tensors) == {f"{name}.{part}" for name in named("gpt2") for part in ("qweight", "alpha")}
    assert {t.dtype for n, t in tensors.items() if n.endswith("alpha")} == {torch.float32}
    assert {t.dtype for n, t in tensors.items() if n.endswith("qweight")} == {torch.int32}


# --- low-rank adapters on packed layers


@pytest.mark.parametrize("targets", ["query_value", "linear"])
@each_kind
def test_lora_trains_on_packed_layers_and_leaves_codes_alone(kind, targets):
    model = tiny(kind)
    quantize_layers(model, BCQConfig(3), progress=False)
    frozen = copy.deepcopy({n: t for n, t in model.state_dict().items() if "classifier" not in n})
    overrides = ["method=bcq_lora", f"method.lora.targets={targets}", *(["task=mnli"] if kind == "bert" else [])]
    start = logits(model)
    adapted = methods.prepare(model, config_of(overrides))
    assert torch.equal(logits(adapted), start)  # an adapter starts as zero
    trained = [n for n, p in adapted.named_parameters() if p.requires_grad]
    assert trained and all("lora_" in n or "classifier" in n for n in trained)

    ids = torch.tensor([[2, 7, 11, 5, 3], [4, 4, 9, 22, 1]])
    labels = torch.tensor([0, 2]) if kind == "bert" else ids
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(6):
        loss = adapted(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert len(packed_layers(adapted)) == len(named(kind))
    after = {n.removeprefix("base_model.model.").replace(".base_layer", ""): t for n, t in adapted.state_dict().items()}
    assert all(torch.equal(after[n], t) for n, t in frozen.items())


# --- memory

MEASURE = """
import torch
from alphatune.settings import BCQConfig
from alphatune.packed.walk import quantize_layer

def status(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))

torch.set_num_threads(1)
quantize_layer(torch.nn.Linear(64, 64), BCQConfig(3, solver="alternating"))  # libraries load what they need
layer = torch.nn.Linear(1024, 4096)
before = status("VmRSS")
for bits in (3, 8):  # one iteration is enough: the others free what they allocate just the same
    quantize_layer(layer, BCQConfig(bits, solver="alternating", iterations=1))
    print((status("VmHWM") - before) / (layer.weight.numel() * 4))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
def test_quantising_a_layer_takes_less_memory_than_twice_its_weights():
    root = ROOT
    run = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, cwd=root)
    assert run.returncode == 0, run.stderr
    assert all(0 < float(ratio) < 2 for ratio in run.stdout.split()), run.stdout


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc to see which files are mapped")
def test_quantising_lets_go_of_the_checkpoint(tmp_path: Path) -> None:
    def mapped() -> bool:
        return str(tmp_path) in Path("/proc/self/maps").read_text()

    torch.manual_seed(0)
    config = GPT2Config(n_embd=WIDTH, n_layer=2, n_head=2, vocab_size=50, n_positions=8)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "dense")
    model = GPT2LMHeadModel.from_pretrained(tmp_path / "dense")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert mapped()  # or there would be nothing to let go of
    disk.write(tmp_path, model, Quant(q=2), progress=False)
    assert not mapped() and model.lm_head.weight is model.transformer.wte.weight
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items() if n in before)
    again = GPT2LMHeadModel.from_pretrained(tmp_path / "dense")
    disk.install(again, tmp_path, Quant(q=2))
    assert str(tmp_path / "dense") not in Path("/proc/self/maps").read_text()
