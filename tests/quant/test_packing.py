"""Signs as bits: the documented layout against an explicit loop, and multiplication by xor against multiplication."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alphatune.quant.packing import pack, sign_bits, times_codes, unpack

few = settings(max_examples=60, deadline=None, derandomize=True)


def random_signs(out, q, n_in, seed=0):
    return torch.rand(out, q, n_in, generator=torch.Generator().manual_seed(seed)) < 0.5


@few
@given(st.integers(1, 5), st.integers(1, 8), st.integers(1, 100), st.integers(0, 99))
def test_unpack_undoes_pack(out, q, n_in, seed):
    signs = random_signs(out, q, n_in, seed)
    packed = pack(signs)
    assert packed.dtype == torch.int32
    assert packed.shape == (-(-n_in // 32), q, out) and packed.is_contiguous()
    assert torch.equal(unpack(packed, n_in), signs)


@pytest.mark.parametrize("n_in", [1, 31, 32, 33, 70])
def test_the_bit_of_input_k_is_bit_k_mod_32_of_word_k_div_32(n_in):
    signs = random_signs(3, 2, n_in)
    packed = pack(signs).tolist()
    for out in range(3):
        for plane in range(2):
            for k in range(-(-n_in // 32) * 32):
                expected = k < n_in and bool(signs[out, plane, k])  # 1 means +1; the missing inputs are 0 bits
                assert (packed[k // 32][plane][out] & 0xFFFFFFFF) >> (k % 32) & 1 == expected


def test_words_of_known_codes():
    signs = torch.zeros(1, 1, 34, dtype=torch.bool)
    signs[0, 0, [0, 3, 31, 33]] = True
    assert pack(signs)[:, 0, 0].tolist() == [1 + 8 - 2**31, 2]
    assert pack(torch.ones(1, 1, 32, dtype=torch.bool)).item() == -1


@pytest.mark.parametrize("n_in", [1, 32, 45])
def test_sign_bits_are_set_where_the_code_is_minus_one(n_in):
    signs = random_signs(4, 3, n_in)
    for plane in range(3):
        bits = sign_bits(pack(signs)[:, plane], n_in)
        assert bits.shape == (n_in, 4)
        assert torch.equal(bits, torch.where(signs[:, plane].T, 0, -(2**31)).int())


@few
@given(st.lists(st.floats(width=32), min_size=1, max_size=40), st.integers(0, 99))
def test_times_codes_multiplies_exactly(values, seed):
    # every float: -0.0, negative, subnormal, infinite; nan is compared by its bits too, as x * 1 would keep it
    column = torch.tensor(values)[:, None]
    signs = random_signs(2, 1, len(values), seed)
    result = times_codes(column.expand(-1, 2), sign_bits(pack(signs)[:, 0], len(values)))
    expected = torch.where(signs[:, 0].T, column, -column)
    assert torch.equal(result.view(torch.int32), expected.contiguous().view(torch.int32))


def test_times_codes_broadcasts_a_row_of_scales():
    scales, signs = torch.tensor([[1.5, -0.0, -2.0]]), random_signs(3, 1, 33)
    result = times_codes(scales, sign_bits(pack(signs)[:, 0], 33))
    expected = scales * (signs[:, 0].T.float() * 2 - 1)
    assert torch.equal(result.view(torch.int32), expected.view(torch.int32))  # -0.0 included
