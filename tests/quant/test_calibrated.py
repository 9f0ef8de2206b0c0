"""Solvers for the output error against numpy's least squares, GPTQ by its definition, and brute force over codes."""

from __future__ import annotations

import copy
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM

from alphatune.compose.compose import config_of
from alphatune.config import Config, Quant
from alphatune.data.load import load
from alphatune.errors import UserError
from alphatune.packed import calibration, disk
from alphatune.packed.linear import packed_layers
from alphatune.packed.walk import linear_layers, quantize_layer, quantize_layers
from alphatune.quant import bcq, calibrated
from alphatune.quant.alternating import alternating
from alphatune.quant.curvature import Curvature, output_error
from alphatune.quant.feedback import Codebook, feedback
from alphatune.quant.grouping import Grouping
from alphatune.run import identity, record
from alphatune.run.execute import execute
from alphatune.run.pipeline import Run
from alphatune.run.sizes import sizes
from alphatune.settings import CALIBRATED, BCQConfig

few = settings(max_examples=25, deadline=None, derandomize=True)
seeds = st.integers(0, 10**6)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def correlated(tokens: int, columns: int, seed: int = 0) -> Tensor:
    """Inputs with correlations, a mean, and channels of very different size."""
    mixing = normal(columns, columns, seed=seed + 1) / columns**0.5 + torch.eye(columns)
    size = torch.exp(0.8 * normal(columns, seed=seed + 2))
    return (normal(tokens, columns, seed=seed + 3) @ mixing + 0.5) * size


def random_signs(rows: int, q: int, columns: int, seed: int) -> Tensor:
    return normal(rows, q, columns, seed=seed) > 0


def design(signs: Tensor, size: int, offset: bool) -> np.ndarray:
    """The columns that a row's scales multiply, [in, G k], from signs [q, in]: one block per group."""
    planes = np.where(signs.numpy(), 1.0, -1.0)
    planes = np.vstack([planes, np.ones(planes.shape[1])]) if offset else planes
    blocks = []
    for start in range(0, planes.shape[1], size):
        for plane in planes:
            column = np.zeros(planes.shape[1])
            column[start : start + size] = plane[start : start + size]
            blocks.append(column)
    return np.array(blocks).T


def start_of(rows: Tensor, q: int, grouping: Grouping, offset: bool) -> tuple[Tensor, Tensor]:
    fits = [alternating(v, q, 5, None, offset) for v in grouping.vectors(rows)]
    scales = [f.alpha if f.offset is None else torch.cat([f.alpha, f.offset[:, None]], dim=1) for f in fits]
    return grouping.from_vectors([f.signs for f in fits], scales)


# --- the metric


def test_the_curvature_is_the_damped_hessian_and_a_factor_of_its_inverse() -> None:
    x = correlated(50, 12).double()
    hessian = (x.T @ x / 50).float()
    curvature = Curvature.of(hessian, 0.1)
    damped = hessian.double() + 0.1 * hessian.double().diagonal().mean() * torch.eye(12)
    assert torch.allclose(curvature.hessian.double(), damped, rtol=1e-6)
    diagonal = damped.diagonal()[curvature.order]
    assert bool((diagonal[1:] <= diagonal[:-1]).all())
    upper = curvature.upper.double()
    assert torch.equal(upper, upper.triu())
    ordered = damped[curvature.order][:, curvature.order]
    factor = curvature.factor.double()
    assert torch.equal(factor, factor.triu()) and torch.allclose(factor @ factor.T, ordered, rtol=1e-5)
    inverse = torch.linalg.inv(ordered)
    assert torch.allclose(upper.T @ upper, inverse, rtol=1e-4, atol=1e-6)


def test_inputs_that_are_always_zero_give_the_identity() -> None:
    curvature = Curvature.of(torch.zeros(4, 4), 0.01)
    assert torch.equal(curvature.hessian, torch.eye(4)) and torch.equal(curvature.upper, torch.eye(4))


def test_output_error_is_that_of_the_outputs() -> None:
    x, e = correlated(30, 7), normal(4, 7, seed=9)
    expected = (x.double() @ e.double().T).square().sum(dim=0) / 30
    assert torch.allclose(output_error(e, x.T @ x / 30).double(), expected, rtol=1e-4)


# --- scales


@few
@given(seeds, st.integers(1, 3), st.sampled_from([12, 6, 5, 4]), st.booleans())
def test_scales_are_numpys_least_squares_on_the_outputs(seed: int, q: int, size: int, offset: bool) -> None:
    x, w, signs = correlated(40, 12, seed % 99), normal(3, 12, seed=seed), random_signs(3, q, 12, seed)
    grouping = Grouping(3, 12, size)
    got = calibrated.best_scales(w, signs, x.T @ x / 40, grouping, offset)
    assert got.shape == (grouping.per_row, q + offset, 3)
    for r in range(3):
        phi = x.double().numpy() @ design(signs[r], size, offset)
        y = x.double().numpy() @ w[r].double().numpy()
        best = np.linalg.lstsq(phi, y, rcond=1e-7)[0]
        residual = [((y - phi @ t) ** 2).sum() for t in (best, got[:, :, r].flatten().double().numpy())]
        assert residual[1] == pytest.approx(residual[0], rel=1e-3, abs=1e-4 * float((y**2).sum()))


# --- codes


@pytest.mark.parametrize("size", [200, 64, 70])
@pytest.mark.parametrize("offset", [False, True])
def test_feedback_without_correlations_is_the_nearest_value(size: int, offset: bool) -> None:
    w, grouping = normal(6, 200), Grouping(6, 200, size)  # more columns than one block
    _, scales = start_of(w, 3, grouping, offset)
    got = calibrated.by_feedback(w, scales, 3, grouping, Curvature.of(torch.eye(200), 0.01))
    assert torch.equal(got, calibrated.nearest(w, scales, 3, grouping))
    error = (w - calibrated.rebuild(got, scales, grouping)).abs()
    for code in bcq.code_table(3):  # no code is nearer
        other = code.expand(6, 200, 3).transpose(1, 2)
        assert bool((error <= (w - calibrated.rebuild(other, scales, grouping)).abs() + 1e-6).all())


def test_rebuilding_is_the_sum_of_planes_and_offset() -> None:
    w, grouping = normal(4, 10), Grouping(4, 10, 4)
    signs, scales = start_of(w, 2, grouping, True)
    expected = torch.zeros(4, 10)
    for r, j in itertools.product(range(4), range(10)):
        t = scales[j // 4, :, r]
        expected[r, j] = sum(t[i] * (1 if signs[r, i, j] else -1) for i in range(2)) + t[2]
    assert torch.allclose(calibrated.rebuild(signs, scales, grouping), expected, atol=1e-6)


@pytest.mark.parametrize("size", [150, 50])
def test_feedback_is_gptq_by_its_definition(size: int) -> None:
    """Column by column: nearest value, then the best change of all columns not yet coded (Eq. 2 of the GPTQ paper)."""
    x, w, grouping = correlated(400, 150), normal(3, 150), Grouping(3, 150, size)
    _, scales = start_of(w, 2, grouping, True)
    curvature = Curvature.of(x.T @ x / 400, 0.01)
    got = calibrated.rebuild(calibrated.by_feedback(w, scales, 2, grouping, curvature), scales, grouping)

    hessian, work, left = curvature.hessian.double().numpy(), w.double().numpy().copy(), curvature.order.tolist()
    expected = np.zeros((3, 150))
    table = np.where(bcq.code_table(2).numpy(), 1.0, -1.0)
    while left:
        j, inverse = left[0], np.linalg.inv(hessian[np.ix_(left, left)])
        for r in range(3):
            t = scales[j // size, :, r].double().numpy()
            values = table @ t[:2] + t[2]
            expected[r, j] = values[np.abs(values - work[r, j]).argmin()]
            work[r, left] -= (work[r, j] - expected[r, j]) / inverse[0, 0] * inverse[0]
        left = left[1:]
    assert np.mean(np.abs(got.numpy() - expected) < 1e-4) > 0.99  # float32 may break a near tie the other way
    errors = [output_error(w - q, curvature.hessian).sum().item() for q in (got, torch.tensor(expected).float())]
    assert errors[0] == pytest.approx(errors[1], rel=0.02)


@pytest.mark.parametrize(("rows", "size", "bits"), [(37, 70, 3), (64, 40, 1), (33, 90, 4), (5, 70, 2), (40, 70, 5)])
@pytest.mark.parametrize("offset", [False, True])
def test_machine_code_gives_the_bits_that_torch_gives(
    rows: int, size: int, bits: int, offset: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, w, grouping = correlated(200, 90), normal(rows, 90), Grouping(rows, 90, size)
    w[0], w[1] = 0.25, 0  # levels that are equal, and weights in the middle between two
    curvature = Curvature.of(x.T @ x / 200, 0.01)
    _, scales = start_of(w, bits, grouping, offset)
    book, groups = Codebook(scales, bits), curvature.order // size
    fast = feedback(w.T[curvature.order], book, groups, curvature.upper)
    monkeypatch.setattr("alphatune.quant.feedback.fast", lambda: False)
    plain = feedback(w.T[curvature.order], book, groups, curvature.upper)
    assert torch.equal(fast[0], plain[0]) and torch.equal(fast[1], plain[1])
    assert fast[0].unique().numel() > 1


def test_a_row_whose_offset_is_all_it_has_is_solved_too() -> None:
    x, w, grouping = correlated(200, 40), normal(6, 40), Grouping(6, 40, 40)
    w[0], w[1], w[2] = 0.0, 3.0, 3 + 1e-3 * w[2]
    curvature = Curvature.of(x.T @ x / 200, 0.01)
    fit = start_of(w, 2, grouping, True)
    signs, scales, told = calibrated.refine(w, *fit, grouping, curvature, "gptq", 3)
    error = output_error(w - calibrated.rebuild(signs, scales, grouping), curvature.hessian)
    power = output_error(w, curvature.hessian)
    assert torch.allclose(told, error, rtol=1e-3, atol=1e-9 * float(power.max()))
    assert bool((error[:2] <= 1e-9 * power.max()).all()) and bool((error[3:] < 0.2 * power[3:]).all())


# --- both in turn


@few
@given(seeds, st.integers(1, 2), st.booleans(), st.sampled_from(["hessian", "gptq"]))
def test_nothing_is_better_than_the_best_of_all_codes(seed: int, q: int, offset: bool, solver: str) -> None:
    x, w, grouping = correlated(20, 4, seed % 99), normal(2, 4, seed=seed), Grouping(2, 4, 4)
    curvature = Curvature.of(x.T @ x / 20, 1e-6)
    signs, scales = start_of(w, q, grouping, offset)
    *refined, _ = calibrated.refine(w, signs, scales, grouping, curvature, solver, 3)
    before, after = (
        output_error(w - calibrated.rebuild(*fit, grouping), curvature.hessian) for fit in ((signs, scales), refined)
    )
    root = np.linalg.cholesky(curvature.hessian.double().numpy()).T
    for r in range(2):
        target, least = root @ w[r].double().numpy(), float("inf")
        for planes in itertools.product(itertools.product((False, True), repeat=4), repeat=q):
            phi = root @ design(torch.tensor(planes), 4, offset)
            least = min(least, ((target - phi @ np.linalg.lstsq(phi, target, rcond=None)[0]) ** 2).sum())
        slack = 1e-4 * float((target**2).sum())
        assert least - slack <= float(after[r]) <= float(before[r]) + slack


@pytest.mark.parametrize("size", [60, 20, 16])
@pytest.mark.parametrize("solver", ["hessian", "gptq"])
def test_no_row_gets_worse_and_more_rounds_do_no_harm(size: int, solver: str) -> None:
    x, w, grouping = correlated(300, 60), normal(40, 60), Grouping(40, 60, size)
    curvature = Curvature.of(x.T @ x / 300, 0.01)
    fit = start_of(w, 2, grouping, True)
    errors = [output_error(w - calibrated.rebuild(*fit, grouping), curvature.hessian)]
    for rounds in (1, 3, 8):
        signs, scales, told = calibrated.refine(w, *fit, grouping, curvature, solver, rounds)
        errors.append(output_error(w - calibrated.rebuild(signs, scales, grouping), curvature.hessian))
        assert torch.allclose(told, errors[-1], rtol=1e-4)
        alpha = scales[:, :2]
        assert bool((alpha >= 0).all()) and bool((alpha[:, 0] >= alpha[:, 1]).all())
    for before, after in itertools.pairwise(errors):
        assert bool((after <= before * (1 + 1e-6)).all())
    assert errors[-1].sum() < (0.6 if solver == "gptq" else 0.99) * errors[0].sum()


@pytest.mark.parametrize("group_size", [None, 64])
def test_each_solver_is_better_than_the_one_before_on_inputs_not_calibrated_on(group_size: int | None) -> None:
    inputs, layer = correlated(3000, 128), nn.Linear(128, 64)
    seen, unseen = inputs[:2000], inputs[2000:]
    errors = []
    for solver in ("greedy", "alternating", "weighted", "hessian", "gptq"):
        config = BCQConfig(2, group_size, solver, offset=solver in CALIBRATED)
        packed, report = quantize_layer(layer, config, hessian=seen.T @ seen / 2000)
        dense = layer.weight.detach()
        difference = unseen @ (dense - packed.weight_t().T).T
        errors.append(float(difference.norm() / (unseen @ dense.T).norm()))
        if solver in CALIBRATED:
            on_seen = (seen @ (dense - packed.weight_t().T).T).norm() / (seen @ dense.T).norm()
            assert report.output_error == pytest.approx(float(on_seen), rel=1e-3)
        else:
            assert report.output_error is None
    assert all(later < earlier for earlier, later in itertools.pairwise(errors)), errors
    assert errors[-1] < 0.75 * errors[1], errors


def test_inputs_unseen_in_calibration_keep_their_weights() -> None:
    x, layer = correlated(100, 32), nn.Linear(32, 8)
    x[:, 16:] = 0
    for solver in CALIBRATED:
        packed, _ = quantize_layer(layer, BCQConfig(3, 16, solver), hessian=x.T @ x / 100)
        dead = packed.weight_t().T[:, 16:] - layer.weight[:, 16:]
        assert bool(torch.isfinite(packed.weight_t()).all())
        assert float(dead.detach().norm() / layer.weight[:, 16:].detach().norm()) < 0.3


@pytest.mark.parametrize("solver", CALIBRATED)
def test_rows_solved_apart_join_as_if_solved_at_once(solver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, layer = correlated(300, 48), nn.Linear(48, 50)
    config, hessian = BCQConfig(2, 20, solver, offset=True), x.T @ x / 300
    whole, report = quantize_layer(layer, config, hessian=hessian)
    monkeypatch.setattr(calibrated, "rows_at_once", lambda grouping, unknowns: 7)
    pieces, again = quantize_layer(layer, config, hessian=hessian)
    # sums in another order can turn a near tie, so the errors agree and nearly all codes do
    assert again.output_error == pytest.approx(report.output_error, rel=0.02)
    assert float((pieces.weight_t() - whole.weight_t()).abs().median()) < 1e-4


def test_a_group_that_spans_rows_is_for_the_weighted_solver_only() -> None:
    x, layer = correlated(100, 16), nn.Linear(16, 6)
    hessian = x.T @ x / 100
    packed, _ = quantize_layer(layer, BCQConfig(2, 32, "weighted", damping=1e-6), hessian=hessian)
    d = hessian.diagonal().repeat(2)
    alpha, signs, *_ = alternating(layer.weight.detach().view(3, 32), 2, 15, d.expand(3, 32))
    assert torch.allclose(packed.weight_t().T, bcq.reconstruct(alpha, signs).view(6, 16), atol=1e-4)
    for solver in ("hessian", "gptq"):
        with pytest.raises(UserError, match=f"^solver={solver}: group_size=32 spans several rows of 16 weights"):
            quantize_layer(layer, BCQConfig(2, 32, solver), hessian=hessian)


# --- second moments of a model's inputs

IDS = torch.tensor([[2, 7, 11, 5, 3, 8], [4, 4, 9, 22, 0, 0], [6, 1, 0, 0, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]])
BATCHES = [{"input_ids": IDS[:2], "attention_mask": MASK[:2]}, {"input_ids": IDS[2:], "attention_mask": MASK[2:]}]


def tiny(kind: str) -> nn.Module:
    torch.manual_seed(0)
    common = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 12}
    return {
        "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=23, n_embd=16, n_layer=2, n_head=2, n_positions=12)),
        "opt": lambda: OPTForCausalLM(OPTConfig(vocab_size=23, ffn_dim=64, word_embed_proj_dim=16, **common)),
        "bert": lambda: BertModel(BertConfig(vocab_size=23, intermediate_size=64, **common)),
    }[kind]().eval()


@pytest.mark.parametrize("kind", ["gpt2", "opt", "bert"])
@pytest.mark.parametrize("memory", [calibration.MEMORY, 4 * 16 * 16])
def test_second_moments_are_those_of_the_inputs_of_every_text_alone(kind: str, memory: int) -> None:
    model = tiny(kind).train()
    layers = linear_layers(model)
    widths = {n: (16 if not n.endswith(("mlp.c_proj", "fc2", "output.dense")) else 64) for n in layers}
    widths |= {n: 16 for n in layers if n.endswith("attention.output.dense")}
    got = dict(calibration.second_moments(model, widths, BATCHES, memory))
    assert list(got) == list(layers)
    assert model.training and not any(m._forward_pre_hooks for m in model.modules())

    seen: dict[str, list[Tensor]] = {name: [] for name in layers}

    def keep(name: str, inputs: Tensor) -> None:
        seen[name].append(inputs.detach().reshape(-1, inputs.shape[-1]))

    for name, layer in layers.items():
        layer.register_forward_pre_hook(lambda _, inputs, name=name: keep(name, inputs[0]))
    with torch.no_grad():
        for ids, mask in zip(IDS, MASK, strict=True):
            model.eval()(input_ids=ids[mask.bool()][None])  # no padding to begin with
    for name, parts in seen.items():
        x = torch.cat(parts).double()
        assert len(x) == 12
        assert torch.allclose(got[name].double(), x.T @ x / 12, rtol=1e-3, atol=1e-5), name


def test_texts_are_needed_and_every_layer_must_see_them() -> None:
    model = tiny("gpt2")
    with pytest.raises(UserError, match="there are no texts to calibrate on"):
        list(calibration.second_moments(model, {"transformer.h.0.attn.c_attn": 16}, []))
    model.spare = nn.Linear(3, 3)
    with pytest.raises(UserError, match="the layer spare saw no token"):
        list(calibration.second_moments(model, {"spare": 3}, BATCHES))


@pytest.mark.parametrize("solver", CALIBRATED)
def test_a_model_is_calibrated_on_its_own_unquantised_inputs(solver: str) -> None:
    model, dense = tiny("gpt2"), tiny("gpt2")
    config = BCQConfig(2, None, solver, offset=True)
    reports = quantize_layers(model, config, False, BATCHES)
    layers = linear_layers(dense)
    moments = calibration.second_moments(dense, {n: m.weight.shape[0] for n, m in layers.items()}, BATCHES)
    for report, (name, hessian) in zip(reports, moments, strict=True):
        alone, _ = quantize_layer(layers[name], config, hessian=hessian)
        assert report.name == name and 0 <= report.output_error < 1
        assert torch.equal(model.get_submodule(name).qweight, alone.qweight)
        assert torch.equal(model.get_submodule(name).offset, alone.offset)


@pytest.mark.parametrize(
    ("config", "batches", "message"),
    [
        (BCQConfig(2, solver="gptq"), None, "solver=gptq: needs calibration inputs; give them, or use alternating"),
        (BCQConfig(2, 64, "gptq"), BATCHES, "solver=gptq: group_size=64 spans several rows of 16 weights"),
        (BCQConfig(2, solver="weighted"), [], "calibration: there are no texts to calibrate on"),
    ],
)
def test_what_cannot_be_done_is_refused_and_the_model_kept(config: BCQConfig, batches: list, message: str) -> None:
    model = tiny("gpt2")
    with pytest.raises(UserError, match=f"^{message}"):
        quantize_layers(model, config, False, batches)
    assert not packed_layers(model)


@pytest.mark.parametrize("solver", ["greedy", "alternating"])
def test_an_offset_reaches_the_layer_the_file_and_the_sizes(solver: str, tmp_path: Path) -> None:
    quant = Quant(q=2, group_size=8, solver=solver, offset=True)
    written, installed = tiny("gpt2"), tiny("gpt2")
    disk.write(tmp_path, written, quant, progress=False)
    disk.install(installed, tmp_path, quant)
    assert all(layer.offset is not None for layer in packed_layers(written).values())
    with torch.no_grad():
        assert torch.equal(written(IDS).logits, installed(IDS).logits)
    config = config_of(["method=ptq", "quant.q=2", "quant.group_size=8", f"quant.solver={solver}", "quant.offset=true"])
    layers = packed_layers(written).values()
    stored = sum(t.numel() * t.element_size() for m in layers for t in (m.qweight, m.alpha, m.offset))
    weights = sum(m.in_features * m.out_features for m in layers)
    others = sum(p.numel() for p in tiny("gpt2").parameters()) - weights
    counted = sizes(tiny("gpt2"), config)
    padding = sum(m.qweight.numel() * 4 - m.bits * m.in_features * m.out_features // 8 for m in layers)
    assert counted.total_bytes == stored - padding + 4 * others


# --- runs


def _run(overrides: list[str]) -> Run:
    config = config_of(overrides)
    return Run(config, load(config.task, config.data))


@pytest.mark.parametrize("method", ["ptq", "alphatuning", "ptq_merged_lora", "ptq_w_plus_lora"])
def test_a_calibrated_run_goes_from_config_to_record(method: str, quick: list[str]) -> None:
    path = execute(config_of([*quick, f"method={method}", "quant.q=2", "quant.solver=gptq", "quant.offset=true"]))
    made = record.read(path)
    assert made["status"] == "completed" and made["validation_loss"] > 0
    assert [0 < layer["output_error"] < 1 for layer in made["quantization"]] == [True] * 8


def test_the_codes_of_a_run_are_those_of_its_training_texts(quick: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = [*quick, "method=ptq", "quant.solver=weighted", "quant.calibration=10"]
    run, calls = _run(overrides), []
    real = disk.write
    monkeypatch.setattr(disk, "write", lambda *a: calls.append(a[4]) or real(*a))
    artifact = run.codes()
    assert sum(len(batch["input_ids"]) for batch in calls[0]) >= 10
    report = json.loads((artifact.path / "report.json").read_text())
    assert all(0 < layer["output_error"] < 1 for layer in report)
    assert _run([*overrides, "seed=3"]).codes().reused

    limited = _run([*overrides, "data.train_limit=4"])
    limited.codes()
    wanted = [item for item in limited._calibration(limited._load()[1])]
    assert len(calls) == 2 and [b["input_ids"].tolist() for b in wanted] == [b["input_ids"].tolist() for b in calls[1]]
    assert limited.plan.quantized["calibration"]["examples"] == 4


def test_runs_depend_on_calibration_only_where_they_calibrate(quick: list[str]) -> None:
    ptq, peqa, dense = (config_of([*quick, f"method={method}"]) for method in ("ptq", "peqa", "full_ft"))

    def run_id(config: Config, **changes: object) -> str:
        config = copy.deepcopy(config)
        for key, value in changes.items():
            group = next(g for g in (config.quant, config.data, config.task) if hasattr(g, key))
            setattr(group, key, value)
        return identity.plan(config, {}, {}).run_id

    for config, solver in ((ptq, "greedy"), (ptq, "alternating"), (ptq, "optimal"), (peqa, "gptq"), (dense, "gptq")):
        without = run_id(config, solver=solver)
        assert without == run_id(config, solver=solver, calibration=3, rounds=9, damping=0.5)
    assert run_id(peqa) == run_id(peqa, offset=True)
    assert run_id(ptq, solver="weighted") == run_id(ptq, solver="weighted", rounds=9)
    changes = [{"solver": "hessian"}, {"calibration": 3}, {"rounds": 9}, {"damping": 0.5}, {"offset": True},
               {"iterations": 3}, {"train_limit": 9}, {"max_context": 100}]  # fmt: skip
    ids = {run_id(ptq, **{"solver": "gptq"} | change) for change in changes}
    assert len({*ids, run_id(ptq, solver="gptq"), run_id(ptq)}) == len(changes) + 2


def test_calibration_settings_without_effect_are_named() -> None:
    assert identity.unused(config_of(["method=ptq"]), ["quant.calibration=3"]) == [
        "quant.calibration=3: quant.solver=greedy does not calibrate; the setting has no effect"
    ]
    assert identity.unused(config_of(["method=peqa"]), ["quant.damping=3"]) == [
        "quant.damping=3: quant.format=uniform does not calibrate; the setting has no effect"
    ]
    assert identity.unused(config_of(["quant.solver=gptq"]), ["quant.rounds=3"]) == []


# what these runs were called before the calibrated solvers existed
NAMES = {
    "task=webnlg model=gpt2-medium method=alphatuning quant.q=3": "webnlg/gpt2-medium/alphatuning/q3-seed0-c84093fbbb",
    "task=webnlg model=gpt2-medium method=ptq_merged_lora quant.q=2":
        "webnlg/gpt2-medium/ptq_merged_lora/q2-seed0-d54e3b3a3b",
    "task=webnlg model=gpt2-medium method=peqa quant.q=4": "webnlg/gpt2-medium/peqa/q4-seed0-7cbcb70955",
    "task=webnlg model=gpt2-medium method=ptq_full_ft quant.q=3": "webnlg/gpt2-medium/ptq_full_ft/q3-seed0-4aa44a3eb5",
    "task=glue/rte model=bert-base-cased method=alphatuning quant.q=3 quant.solver=alternating":
        "glue-rte/bert-base-cased/alphatuning/q3-gh-seed0-9b89884943",
}  # fmt: skip


@pytest.mark.parametrize("overrides", NAMES)
def test_runs_without_the_new_settings_keep_their_names(overrides: str) -> None:
    files = {"train.json": "0" * 64}
    config, backbone = config_of(overrides.split()), {"hub": "fake", "revision": None}
    assert identity.plan(config, backbone, files, identity.Numbers()).run_id == NAMES[overrides]
    same = identity.numbers_of(config) == (1, 1)  # others have another number since
    assert (identity.plan(config, backbone, files).run_id == NAMES[overrides]) == same
