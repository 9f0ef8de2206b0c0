"""Binary codes against plain-Python loops, numpy's least squares, and brute force over all codes."""

import itertools
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alphatune.quant import bcq
from alphatune.quant.alternating import alternating
from alphatune.quant.solvers import solve_vectors
from alphatune.settings import BCQConfig

few = settings(max_examples=60, deadline=None, derandomize=True)
weights = st.one_of(st.sampled_from([0.0, 0.5, -0.5, 1.0, -1.0, 2.0]), st.floats(-3, 3, width=32))
vectors = st.lists(weights, min_size=1, max_size=8)
short_vectors = st.lists(weights, min_size=1, max_size=6)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def error_of(w, alpha, signs):
    """The squared error of one vector, in float64."""
    rebuilt = sum(float(a) * np.where(s.numpy(), 1.0, -1.0) for a, s in zip(alpha, signs, strict=True))
    return float(((np.asarray(w, dtype=np.float64) - rebuilt) ** 2).sum())


@cache
def projections(g, q):
    """The projection onto the span of q planes, for every set of q planes of length g (up to sign and order)."""
    planes = [(1.0, *rest) for rest in itertools.product((-1.0, 1.0), repeat=g - 1)]
    b = np.array(list(itertools.combinations_with_replacement(planes, q))).transpose(0, 2, 1)  # [sets, g, q]
    return b @ np.linalg.pinv(b)


def least_error(w, q):
    """The global minimum of ||w - sum alpha_i b_i||^2: the least-squares error of every set of planes."""
    w = np.asarray(w, dtype=np.float64)
    return float((((w - projections(len(w), q) @ w) ** 2).sum(axis=1)).min())


def loop_greedy(w, q):
    """Eq. 6-7, number by number."""
    residual, alphas, codes = [float(x) for x in w], [], []
    for _ in range(q):
        b = [1 if r >= 0 else -1 for r in residual]
        alpha = sum(r * s for r, s in zip(residual, b, strict=True)) / len(b)
        residual = [r - alpha * s for r, s in zip(residual, b, strict=True)]
        alphas.append(alpha)
        codes.append([s > 0 for s in b])
    return alphas, codes


# --- greedy


@few
@given(vectors)
def test_one_bit_is_the_sign_and_the_mean_magnitude(w):
    alpha, signs, *_ = bcq.greedy(torch.tensor([w]), 1)
    assert signs[0, 0].tolist() == [x >= 0 for x in w]  # sign(0) = +1
    assert alpha.item() == pytest.approx(sum(abs(x) for x in w) / len(w), abs=1e-6)
    assert error_of(w, alpha[0], signs[0]) == pytest.approx(least_error(w, 1), abs=1e-5)  # Eq. 5 is the exact minimum


@pytest.mark.parametrize("bits", range(1, 9))
def test_greedy_is_the_loop_of_equations_6_and_7(bits):
    w = normal(6, 33, seed=bits)
    alpha, signs, *_ = bcq.greedy(w, bits)
    for row, a, s in zip(w.double().tolist(), alpha, signs, strict=True):
        alphas, codes = loop_greedy(row, bits)
        assert a.tolist() == pytest.approx(alphas, abs=1e-6)
        assert s.tolist() == codes


@few
@given(vectors)
def test_greedy_on_ties_and_zeros_has_the_error_of_the_loop(w):
    alpha, signs, *_ = bcq.greedy(torch.tensor([w]), 3)
    alphas, codes = loop_greedy(w, 3)
    assert error_of(w, alpha[0], signs[0]) == pytest.approx(error_of(w, alphas, torch.tensor(codes)), abs=1e-5)


def test_zero_and_minus_zero_have_sign_plus_one():
    alpha, signs, *_ = bcq.greedy(torch.tensor([[0.0, -0.0, -2.0, 2.0]]), 2)
    assert signs[0, 0].tolist() == [True, True, False, True]
    assert alpha[0].tolist() == [1.0, 1.0]  # residual after plane 1: -1, -1, -1, 1


def test_greedy_keeps_the_order_of_the_equations_even_if_a_later_scale_is_larger():
    alpha, *_ = bcq.greedy(torch.tensor([[4.0, 0, 0, 0]]), 2)
    assert alpha[0].tolist() == [1.0, 1.5]  # |w| has mean 1; the residual 3, -1, -1, -1 has mean magnitude 1.5


@few
@given(vectors)
def test_greedy_error_does_not_rise_with_bits(w):
    errors = [error_of(w, *(t[0] for t in bcq.greedy(torch.tensor([w]), q)[:2])) for q in range(1, 9)]
    assert all(later <= earlier + 1e-5 for earlier, later in itertools.pairwise(errors))


@pytest.mark.parametrize("solver, bits", [("greedy", 3), ("alternating", 3), ("optimal", 2)])
def test_solvers_give_the_same_bytes_twice_and_leave_their_input_alone(solver, bits):
    w = normal(16, 64)
    before = w.clone()
    first, second = (solve_vectors(w, BCQConfig(bits, solver=solver))[:2] for _ in range(2))
    assert [t.numpy().tobytes() for t in first] == [t.numpy().tobytes() for t in second]
    assert torch.equal(w, before)


# --- optimal


@few
@given(vectors, st.integers(1, 2))
def test_optimal_is_the_global_optimum(w, bits):
    alpha, signs, *_ = bcq.optimal(torch.tensor([w]), bits)
    assert error_of(w, alpha[0], signs[0]) == pytest.approx(least_error(w, bits), abs=1e-5)


@pytest.mark.parametrize("w", [[0.0] * 4, [1.0] * 4, [-1.0, 1.0], [0.0, 0, 5], [2.0, 2, 1, 1, 0, 0], [7.0]])
@pytest.mark.parametrize("bits", [1, 2])
def test_optimal_is_global_for_ties_and_zeros(w, bits):
    alpha, signs, *_ = bcq.optimal(torch.tensor([w]), bits)
    assert error_of(w, alpha[0], signs[0]) == pytest.approx(least_error(w, bits), abs=1e-6)


@pytest.mark.parametrize("bits", [1, 2])
def test_optimal_is_never_worse_than_alternating(bits):
    w = normal(64, 50).pow(3)  # heavy tails: alternating ends in local optima
    optimal = bcq.optimal(w, bits).error
    improved = alternating(w, bits, 15).error
    assert bool((optimal <= improved * (1 + 1e-5)).all())
    assert bits == 1 or bool((optimal < improved * 0.999).any())


@pytest.mark.parametrize("solver, bits", [("alternating", 2), ("alternating", 5), ("optimal", 2)])
def test_the_first_scale_is_the_largest_and_none_is_negative(solver, bits):
    alpha, *_ = solve_vectors(normal(64, 20).pow(3), BCQConfig(bits, solver=solver))
    assert bool((alpha[:, :-1] >= alpha[:, 1:]).all()) and bool((alpha >= 0).all())


# --- solve


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_any_float_type_is_solved_in_float32(dtype):
    w = normal(2, 16).to(dtype)
    alpha, signs, *_ = solve_vectors(w, BCQConfig(2))
    expected, *_ = bcq.greedy(w.float(), 2)
    assert alpha.dtype == torch.float32 and signs.dtype == torch.bool
    assert torch.equal(alpha, expected)


def test_iterations_reach_the_alternating_solver():
    w = normal(8, 64)
    for iterations in (1, 4):
        by_config = solve_vectors(w, BCQConfig(3, solver="alternating", iterations=iterations))[:2]
        direct = alternating(w, 3, iterations)[:2]
        assert all(torch.equal(a, b) for a, b in zip(by_config, direct, strict=True))
    assert not torch.equal(alternating(w, 3, 1).alpha, alternating(w, 3, 4).alpha)


def test_what_no_solver_can_do_is_refused():
    with pytest.raises(ValueError, match="solver=gptq: looks at the layers' inputs"):
        solve_vectors(normal(1, 4), BCQConfig(1, solver="gptq"))
    with pytest.raises(ValueError, match="exact only for 1 and 2 bits, not 3"):
        bcq.optimal(normal(1, 4), 3)


def test_reconstruct_is_the_sum_over_planes():
    alpha, signs = torch.tensor([[2.0, 0.5]]), torch.tensor([[[True, False], [True, True]]])
    assert bcq.reconstruct(alpha, signs).tolist() == [[2.5, -1.5]]
    assert bcq.squared_error(torch.tensor([[2.0, -1.0]]), alpha, signs).tolist() == [0.5]  # 0.5^2 + 0.5^2


def test_code_table_counts_up():
    assert bcq.code_table(2).tolist() == [[False, False], [False, True], [True, False], [True, True]]
