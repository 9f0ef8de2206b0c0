"""Alternating codes and scales against the loop of Appendix C and brute force over all codes, from each start."""

import importlib.util
import itertools
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alphatune.quant import alternating as module
from alphatune.quant import bcq, uniform
from alphatune.quant.alternating import alternating
from alphatune.quant.grouping import Grouping
from alphatune.quant.solvers import solve_matrix, solve_vectors
from alphatune.settings import BCQConfig

few = settings(max_examples=60, deadline=None, derandomize=True)
weights = st.one_of(st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 2.0]), st.floats(-3, 3, width=32))
vectors = st.lists(weights, min_size=1, max_size=8)
starts = pytest.mark.parametrize("start", ["greedy", "uniform", "best"])


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def errors_of(w, fit, d=None):
    """The (weighted) squared error of each vector by the definition, in float64."""
    rebuilt = (fit.alpha.double()[:, :, None] * (fit.signs.double() * 2 - 1)).sum(dim=1)
    rebuilt += 0 if fit.offset is None else fit.offset.double()[:, None]
    square = (w.double() - rebuilt) ** 2
    return (square if d is None else square * d).sum(dim=1)


@cache
def projections(g, q, offset):
    """The projection onto the span of q planes (and a constant), for every set of q planes of length g."""
    planes = [(1.0, *rest) for rest in itertools.product((-1.0, 1.0), repeat=g - 1)]
    b = np.array(list(itertools.combinations_with_replacement(planes, q))).transpose(0, 2, 1)  # [sets, g, q]
    b = np.concatenate([b, np.ones((len(b), g, 1))], axis=2) if offset else b
    return b @ np.linalg.pinv(b)


def least_error(w, q, offset=False):
    """The global minimum: the least-squares error of every set of planes."""
    w = np.asarray(w, dtype=np.float64)
    return float((((w - projections(len(w), q, offset) @ w) ** 2).sum(axis=1)).min())


def loop(w, q, iterations):
    """Appendix C for one vector, number by number: greedy, then least-squares scales and nearest codes in turn."""
    w = np.asarray(w, dtype=np.float64)
    residual, planes = w.copy(), []
    for _ in range(q):
        planes.append(np.where(residual >= 0, 1.0, -1.0))
        residual = residual - np.abs(residual).mean() * planes[-1]
    b = np.array(planes).T
    combinations = np.array(list(itertools.product((-1.0, 1.0), repeat=q)))
    for _ in range(iterations):
        alpha = np.linalg.lstsq(b, w, rcond=None)[0]
        b = combinations[np.abs(w[:, None] - combinations @ alpha).argmin(axis=1)]
    return float(((w - b @ alpha) ** 2).sum())


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("iterations", [1, 3, 15])
def test_it_reaches_the_error_of_the_loop_of_appendix_c(bits, iterations):
    w = normal(8, 24, seed=bits)
    fit = alternating(w, bits, iterations)
    assert errors_of(w, fit).tolist() == pytest.approx([loop(row, bits, iterations) for row in w], rel=1e-3)


@few
@given(st.lists(vectors, min_size=1, max_size=4), st.integers(1, 5), st.booleans(), st.sampled_from(["greedy", "best"]))
def test_the_error_told_is_that_of_the_codes_and_lies_between_the_optimum_and_the_start(rows, bits, offset, start):
    size = min(map(len, rows))
    w = torch.tensor([row[:size] for row in rows])
    fit = alternating(w, bits, 15, offset=offset, start=start)
    errors = errors_of(w, fit)
    assert fit.error.tolist() == pytest.approx(errors.tolist(), abs=1e-5)
    assert bool((fit.alpha >= 0).all()) and fit.alpha.isfinite().all()
    greedy = (bcq.greedy_with_offset if offset else bcq.greedy)(w, bits)
    for error, at_start, row in zip(errors, errors_of(w, greedy), w.tolist(), strict=True):
        assert error <= at_start + 1e-5
        if size <= 6 and bits <= 2:
            assert error >= least_error(row, bits, offset) - 1e-5


@few
@given(
    st.integers(0, 10**6), st.integers(1, 5), st.sampled_from([2, 5, 16, 33, 64]), st.booleans(),
    st.sampled_from(["normal", "heavy", "few values", "shifted"]),
)  # fmt: skip
def test_the_best_start_is_never_worse_than_the_searched_uniform_grid(seed, bits, size, offset, kind):
    w = normal(6, size, seed=seed)
    w = {"normal": w, "heavy": w.pow(3), "few values": (w * 2).round() / 2, "shifted": w + 1.5}[kind]
    best = errors_of(w, alternating(w, bits, 15, offset=offset, start="best"))
    step, zero, codes = (uniform.search if offset else uniform.symmetric)(w, bits)  # the grid that fits the planes
    grid = (w.double() - step.double()[:, None] * (codes.double() - zero.double()[:, None])).square().sum(dim=1)
    slack = 1e-6 * w.square().sum(dim=1)
    assert bool((best <= grid + slack).all())
    for start in ("greedy", "uniform"):
        assert bool((best <= errors_of(w, alternating(w, bits, 15, offset=offset, start=start)) + slack).all())


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_the_symmetric_grid_is_that_of_a_search_by_hand(bits):
    w = normal(3, 40, seed=bits)
    step, zero, codes = uniform.symmetric(w, bits)
    top = 2**bits - 1
    assert zero.tolist() == [top / 2] * 3
    levels = step[:, None] * (torch.arange(top + 1) - zero[:, None])
    error = (w[:, :, None] - levels[:, None]).abs().amin(dim=2).square().sum(dim=1)
    assert torch.allclose((w - levels.gather(1, codes.long())).square().sum(dim=1), error, rtol=1e-4)
    full = w.abs().amax(dim=1) * 2 / top
    for shrink in np.linspace(0.25, 1, 40):
        tried = full[:, None] * float(shrink) * (torch.arange(top + 1) - top / 2)
        assert bool((error <= (w[:, :, None] - tried[:, None]).abs().amin(dim=2).square().sum(dim=1) * 1.02).all())


def test_a_uniform_start_is_better_at_four_bits_and_greedy_codes_at_some_rows_of_few():
    w = normal(400, 64)
    totals = {s: float(alternating(w, 4, 15, start=s).error.sum()) for s in ("greedy", "uniform", "best")}
    assert totals["best"] <= totals["uniform"] < 0.8 * totals["greedy"]
    greedy, grid = (alternating(w, 2, 15, start=start).error for start in ("greedy", "uniform"))
    assert bool((greedy < grid * 0.999).any()) and bool((grid < greedy * 0.999).any())


@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("weighed", [False, True])
@starts
def test_no_vector_gets_worse_from_one_iteration_to_the_next(offset, weighed, start):
    w, history = normal(30, 40), []
    d = normal(30, 40, seed=1).square() if weighed else None
    fit = alternating(w, 3, 15, d, offset, start, history.append)
    assert len(history) > 3
    turns = list(itertools.pairwise(history))
    if start == "best":  # where the second start begins, errors may rise
        assert sum(not bool((later <= earlier).all()) for earlier, later in turns) <= 1
    else:
        assert all(bool((later <= earlier).all()) for earlier, later in turns)
        assert torch.allclose(history[-1].float(), fit.error)
    assert torch.allclose(errors_of(w, fit, d).float(), fit.error, rtol=1e-4)


def test_rows_that_are_done_are_put_away_and_change_nothing(monkeypatch):
    w = torch.cat([normal(20, 50), normal(20, 1).expand(20, 50), normal(20, 50, seed=1).round()])
    fits = []
    for share in (0.0, 0.5, 1.1):  # never, as usual, at once
        monkeypatch.setattr(module, "_COMPACT", share)
        fits.append(alternating(w, 3, 15, start="best"))
    for fit in fits[1:]:
        assert all(torch.equal(a, b) for a, b in zip(fit[:2], fits[0][:2], strict=True))


@few
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 5), st.booleans())
def test_small_systems_are_solved_as_numpy_solves_them(seed, k, n, singular):
    rows = normal(n, k + 2, k, seed=seed).double()
    if singular and k > 1:
        rows[0, :, -1] = -rows[0, :, 0]
    gram, moment = rows.transpose(1, 2) @ rows, normal(n, k, seed=seed + 1).double()
    moment = (gram @ moment[:, :, None])[:, :, 0]  # normal equations always have a solution
    got = bcq.least_squares(gram.permute(1, 2, 0), moment.T, 1e-9)
    for i in range(n):
        expected = np.linalg.pinv(gram[i].numpy(), rcond=1e-9, hermitian=True) @ moment[i].numpy()
        assert got[:, i].tolist() == pytest.approx(expected.tolist(), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("w", [[0.0] * 5, [1.25] * 5, [-3.0], [-0.0, 0.0]])
@pytest.mark.parametrize("bits", [1, 2, 3, 8])
@pytest.mark.parametrize("offset", [False, True])
@starts
def test_constant_vectors_are_exact_at_any_width(w, bits, offset, start):
    fit = alternating(torch.tensor([w]), bits, 15, offset=offset, start=start)
    assert fit.alpha.isfinite().all()
    assert errors_of(torch.tensor([w]), fit).item() == pytest.approx(0, abs=1e-9)


@starts
def test_codes_are_the_nearest_whether_or_not_a_scale_is_larger_than_those_behind_it(start):
    for bits in (2, 3, 4):
        w = normal(64, 30, seed=bits).pow(3)
        fit = alternating(w, bits, 15, start=start)
        behind = fit.alpha.flip(1).cumsum(dim=1).flip(1) - fit.alpha
        assert bits < 4 or bool((fit.alpha < behind).any())
        rebuilt = bcq.reconstruct(fit.alpha, fit.signs)
        levels = fit.alpha @ (bcq.code_table(bits).float() * 2 - 1).T
        nearest = (w[:, :, None] - levels[:, None]).abs().amin(dim=2)
        assert torch.allclose((w - rebuilt).abs(), nearest, atol=1e-5)


def test_it_improves_on_greedy_and_each_bit_lowers_the_error():
    w = normal(32, 64)
    assert alternating(w, 3, 15).error.sum() < 0.8 * bcq.greedy(w, 3).error.sum()
    w = normal(4, 300)
    for solver in ("greedy", "alternating"):
        errors = [float(solve_vectors(w, BCQConfig(q, solver=solver)).error.sum()) for q in range(1, 9)]
        assert all(later < earlier for earlier, later in itertools.pairwise(errors))


@pytest.mark.parametrize("size", [None, 7, 32, 192])
def test_pieces_solved_apart_join_as_if_solved_at_once(size, monkeypatch):
    w, config = normal(50, 96), BCQConfig(3, size, "alternating", offset=True, start="best")
    grouping = Grouping.of(50, 96, size)
    whole = solve_matrix(w, config, grouping)
    monkeypatch.setattr("alphatune.quant.solvers._LEAST_ROOM", 30_000)
    pieces = solve_matrix(w, config, grouping)
    assert all(torch.equal(a, b) for a, b in zip(pieces_of(whole), pieces_of(pieces), strict=True))


def pieces_of(solved):
    return solved.qweight, solved.alpha, solved.offset


# --- offset and weights


@few
@given(st.integers(0, 10**6), st.integers(1, 2), st.booleans(), st.sampled_from(["greedy", "uniform", "best"]))
def test_no_codes_are_better_than_the_best_of_all_under_weights(seed, q, offset, start):
    w, d = normal(1, 4, seed=seed), normal(1, 4, seed=seed + 1).square() + 0.1
    found = alternating(w, q, 15, d, offset, start)
    root = d[0].double().sqrt().numpy()
    target, least = w[0].double().numpy() * root, float("inf")
    for planes in itertools.product(itertools.product((-1.0, 1.0), repeat=4), repeat=q):
        phi = np.array([*planes, *([(1.0,) * 4] if offset else [])]).T * root[:, None]
        least = min(least, ((target - phi @ np.linalg.lstsq(phi, target, rcond=None)[0]) ** 2).sum())
    assert least - 1e-5 <= float(errors_of(w, found, d))
    assert float(found.error) == pytest.approx(float(errors_of(w, found, d)), abs=1e-5)


def test_weights_of_one_change_nothing_and_weights_of_zero_drop_their_inputs():
    w = normal(20, 50)
    for offset in (False, True):
        plain, weighed = alternating(w, 3, 15, offset=offset), alternating(w, 3, 15, torch.ones(20, 50), offset)
        assert torch.allclose(plain.alpha, weighed.alpha, atol=1e-5)
        assert float((plain.signs == weighed.signs).float().mean()) > 0.999
    d = (torch.arange(50) < 40).float().expand(20, 50)
    fit, less = alternating(w, 2, 100, d, start="uniform"), alternating(w[:, :40], 2, 100, start="best")
    assert float(fit.error.sum()) < 1.1 * float(less.error.sum())


@pytest.mark.parametrize("solve", [bcq.greedy_with_offset, lambda w, q: alternating(w, q, 15, offset=True)])
def test_an_offset_takes_a_shift_of_all_weights(solve):
    w = torch.round(normal(8, 30) * 64) / 64  # a shift by 4 is then exact in float32
    fit, shifted = solve(w, 2), solve(w + 4, 2)
    assert torch.allclose(shifted.alpha, fit.alpha, atol=1e-5)
    assert torch.allclose(shifted.offset, fit.offset + 4, atol=1e-5)
    assert float((shifted.signs == fit.signs).float().mean()) > 0.98  # ties may fall either way


def test_an_offset_makes_two_values_and_constants_exact():
    w = torch.tensor([[3.0, 1.0, 1.0, 3.0, 1.0], [2.5] * 5])
    for q in (1, 3):
        fit = alternating(w, q, 15, offset=True)
        assert torch.allclose(bcq.reconstruct(fit.alpha, fit.signs) + fit.offset[:, None], w, atol=1e-6)


@pytest.mark.skipif(importlib.util.find_spec("llvmlite") is None, reason="llvmlite is not installed")
@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("weighed", [False, True])
def test_machine_code_gives_the_bits_that_torch_gives(bits, offset, weighed, monkeypatch):
    fits = []
    for allowed in (True, False):
        monkeypatch.setattr(module, "fast", lambda allowed=allowed: allowed)
        for size in (1, 2, 3, 5, 17, 64, 200):
            w, d = normal(40, size, seed=size), normal(40, size, seed=size + 1).square() if weighed else None
            w[0], w[1], w[2], w[3] = 0, 0.5, w[2].round(), (w[3] * 2).round() / 2  # ties and singular systems
            if weighed:
                d[4], d[5, ::2] = 0, 0
            fits.append(alternating(w, bits, 15, d, offset))
    for fast, plain in zip(fits[:7], fits[7:], strict=True):
        parts = [(a, b) for a, b in zip(fast, plain, strict=True) if a is not None]
        assert len(parts) == 3 + offset and all(torch.equal(a, b) for a, b in parts)
