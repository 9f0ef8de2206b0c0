"""PEQA's uniform codes against plain min-max rounding and against s (c - z) written out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alphatune.quant import bcq, uniform

few = settings(max_examples=60, deadline=None, derandomize=True)
rows = st.lists(st.one_of(st.sampled_from([0.0, 1.0, -1.0]), st.floats(-4, 4, width=16)), min_size=1, max_size=12)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rebuild(step, zero, codes):
    return step[:, None] * (codes.float() - zero[:, None])


def min_max_error(row, bits):
    """Plain round-to-nearest over the whole range of the row (and 0), in Python numbers."""
    low, high, top = min(*row, 0.0), max(*row, 0.0), 2**bits - 1
    step = (high - low) / top or 1.0
    zero = round(-low / step)
    return sum((w - step * (min(max(round(w / step) + zero, 0), top) - zero)) ** 2 for w in row)


@few
@given(rows, st.integers(1, 8))
def test_codes_fit_the_bits_and_the_error_is_at_most_that_of_min_max_rounding(row, bits):
    step, zero, codes = uniform.search(torch.tensor([row]), bits)
    assert step.item() > 0
    assert zero.item() == round(zero.item()) and 0 <= zero.item() <= 2**bits - 1
    assert codes.dtype == torch.uint8 and int(codes.max()) <= 2**bits - 1
    error = float((torch.tensor([row]) - rebuild(step, zero, codes)).square().sum())
    assert error <= min_max_error(row, bits) * (1 + 1e-4) + 1e-6


def test_codes_are_nearest_for_the_step_and_zero_point_found():
    w = normal(4, 50)
    step, zero, codes = uniform.search(w, 3)
    levels = step[:, None] * (torch.arange(8) - zero[:, None])  # [n, 8]
    nearest = (w[:, :, None] - levels[:, None]).abs().amin(dim=2)
    assert torch.allclose((w - rebuild(step, zero, codes)).abs(), nearest, atol=1e-6)


def test_the_search_is_better_than_min_max_rounding_where_a_weight_sticks_out():
    w = normal(8, 200)
    w[:, 0] = 6.0
    step, zero, codes = uniform.search(w, 3)
    errors = (w - rebuild(step, zero, codes)).square().sum(dim=1).tolist()
    assert all(e < 0.8 * min_max_error(row, 3) for e, row in zip(errors, w.tolist(), strict=True))


def test_the_step_found_is_the_least_squares_step_of_its_codes():
    w = normal(6, 100)
    step, zero, codes = uniform.search(w, 4)
    centred = codes.double() - zero.double()[:, None]
    best = (w.double() * centred).sum(dim=1) / centred.square().sum(dim=1)
    rest = (w.double() - best[:, None] * centred).square().sum(dim=1)
    assert torch.allclose((w - rebuild(step, zero, codes)).square().sum(dim=1).double(), rest, rtol=1e-2)


@pytest.mark.parametrize("row, bits", [([0.0, 0, 0], 2), ([2.5, 2.5], 3), ([-1.0, -2, -3], 2), ([0.0, 1, 2, 3], 2)])
def test_rows_on_a_grid_are_exact(row, bits):
    step, zero, codes = uniform.search(torch.tensor([row]), bits)
    assert rebuild(step, zero, codes)[0].tolist() == pytest.approx(row, abs=1e-5)


@pytest.mark.parametrize("bits", range(1, 9))
def test_as_binary_planes_rebuild_s_times_c_minus_z(bits):
    w = normal(5, 37, seed=bits)
    step, zero, codes = uniform.search(w, bits)
    alpha, signs, offset = uniform.as_binary(step, zero, codes, bits)
    assert signs.shape == (5, bits, 37) and signs.dtype == torch.bool
    assert torch.allclose(bcq.reconstruct(alpha, signs) + offset[:, None], rebuild(step, zero, codes), atol=1e-6)


def test_scales_of_the_planes_double_and_the_offset_is_their_sum_less_s_z():
    step, zero = torch.tensor([0.5, 3.0]), torch.tensor([2.0, 0.0])
    alpha, _, offset = uniform.as_binary(step, zero, torch.zeros(2, 4, dtype=torch.uint8), 3)
    assert alpha.tolist() == [[0.25, 0.5, 1.0], [1.5, 3.0, 6.0]]  # s 2^(i-2), i = 1, 2, 3
    assert offset.tolist() == [1.75 - 0.5 * 2, 10.5]


def test_plane_i_is_bit_i_of_the_code_lowest_first():
    codes = torch.tensor([[0, 1, 2, 3, 4, 7]], dtype=torch.uint8)
    _, signs, _ = uniform.as_binary(torch.ones(1), torch.zeros(1), codes, 3)
    assert signs[0].int().tolist() == [[0, 1, 0, 1, 0, 1], [0, 0, 1, 1, 0, 1], [0, 0, 0, 0, 1, 1]]
