"""Products and weights from bits: every path against sums written out in float64, and with the kernels hidden."""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alphatune.hf.scales import AlphaTuningLayer
from alphatune.packed import product
from alphatune.packed.linear import PackedLinear
from alphatune.quant.grouping import Grouping


def _kernels(many: int, few: int) -> Iterator[tuple[int, Callable[..., Any]]]:
    """Numbers of rows and the kernels for them: tiles, and lookups in every kind of register that this CPU has."""
    from alphatune.packed.kernels import lookup, native

    yield many, native.by_tiles
    own = native.registers()
    for kind in {None: [], lookup.AVX2: [lookup.AVX2], lookup.AVX512: [lookup.AVX2, lookup.AVX512]}[own]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(native, "registers", lambda kind=kind: kind)
            yield few, native.by_lookup


native_only = pytest.mark.skipif(importlib.util.find_spec("llvmlite") is None, reason="llvmlite is not installed")


class Drawn:
    """Random bits and scales of a layer, and W^T by the definition in float64."""

    def __init__(self, out: int, n_in: int, size: int | None, planes: int, offset: bool, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.grouping = g = Grouping.of(out, n_in, size)
        words = random.integers(0, 2**32, (-(-n_in // 32), planes, out), dtype=np.uint32)
        groups, shared = g.scales_shape
        alpha = random.standard_normal((groups, planes, shared)).astype(np.float32)
        shift = random.standard_normal((groups, shared)).astype(np.float32) if offset else None
        k, o = np.arange(n_in)[:, None], np.arange(out)[None, :]
        group, row = (k // g.size if g.span == 1 else 0 * k), o // g.span
        self.dense = np.zeros((n_in, out)) if shift is None else shift.astype(np.float64)[group, row] + 0 * k * o
        self.size = np.abs(self.dense)  # what is added up behind a weight
        for plane in range(planes):
            self.size = self.size + np.abs(alpha.astype(np.float64)[group, plane, row])
            bit = words[k // 32, plane, o] >> (k % 32).astype(np.uint32) & 1
            self.dense = self.dense + alpha.astype(np.float64)[group, plane, row] * (2.0 * bit - 1)
        self.parts = (
            torch.from_numpy(words.view(np.int32)),
            torch.from_numpy(alpha),
            None if shift is None else torch.from_numpy(shift),
        )
        self.random = random

    def inputs(self, *shape: int) -> torch.Tensor:
        return torch.from_numpy(self.random.standard_normal((*shape, self.grouping.columns)).astype(np.float32))

    def sums(self, values: np.ndarray) -> np.ndarray:
        """[in, out] -> [groups, out], where no group spans rows."""
        edges = np.arange(0, len(values), self.grouping.size)
        return np.add.reduceat(values, edges, axis=0)

    def error(self, x: torch.Tensor, y: torch.Tensor) -> float:
        """The largest error, relative to the sum of all that is added up for an output, taken as positive."""
        exact, size = x.double().numpy() @ self.dense, np.abs(x.double().numpy()) @ self.size
        return float((np.abs(y.double().numpy() - exact) / np.maximum(size, 1e-30)).max())


def _layers() -> st.SearchStrategy[Drawn]:
    @st.composite
    def draw(pick: st.DrawFn) -> Drawn:
        out, n_in = pick(st.integers(1, 70)), pick(st.integers(1, 150))
        size = pick(st.one_of(st.none(), st.integers(1, n_in), st.integers(1, 4).map(lambda n: n * n_in)))
        return Drawn(out, n_in, size, pick(st.integers(1, 5)), pick(st.booleans()), pick(st.integers(0, 9)))

    return draw()


@native_only
@settings(max_examples=40, deadline=None)
@given(_layers())
def test_a_rebuilt_weight_has_the_bits_of_torchs_own_sum(layer: Drawn) -> None:
    fast, slow = product.rebuild(*layer.parts, layer.grouping), product._rebuild(*layer.parts, layer.grouping)
    assert torch.equal(fast.view(torch.int32), slow.view(torch.int32))
    assert np.abs(fast.double().numpy() - layer.dense).max() < 1e-5


@native_only
@settings(max_examples=40, deadline=None)
@given(_layers(), st.booleans())
def test_values_times_codes_are_exact(layer: Drawn, transposed: bool) -> None:
    words, (n_in, out) = layer.parts[0].numpy().view(np.uint32), layer.dense.shape
    values = torch.randn(out, n_in).T if transposed else torch.randn(n_in, out)
    values[0, 0] = 0.0
    k, o = np.arange(n_in)[:, None], np.arange(out)[None, :]
    for plane in range(words.shape[1]):
        codes = (words[k // 32, plane, o] >> (k % 32).astype(np.uint32) & 1) * 2.0 - 1
        found = product.times_plane(values, layer.parts[0], plane)
        assert np.array_equal(found.numpy(), values.numpy() * codes.astype(np.float32))
        assert np.array_equal(np.signbit(found.numpy()), np.signbit(values.numpy() * codes.astype(np.float32)))


@native_only
@settings(max_examples=40, deadline=None)
@given(_layers(), st.integers(1, 8), st.integers(1, 23))
def test_kernels_multiply_as_float64_does(layer: Drawn, few: int, many: int) -> None:
    planes, offset = layer.parts[0].shape[1], layer.parts[2] is not None
    for rows, kernel in _kernels(many, few):
        x = layer.inputs(rows)
        y = kernel(rows, planes, offset, layer.grouping)(x, *layer.parts)
        assert y.shape == (rows, layer.grouping.rows)
        assert layer.error(x, y) < 1e-6


@native_only
@pytest.mark.parametrize("size", [None, 64, 24])
@pytest.mark.parametrize("shape", [(1000, 300), (96, 9000)], ids=str)
def test_long_sums_stay_within_two_millionths_of_float64(shape: tuple[int, int], size: int | None) -> None:
    layer = Drawn(*shape, size, 3, True)
    for rows, kernel in _kernels(7, 1):
        x = layer.inputs(rows)
        y = kernel(rows, 3, True, layer.grouping)(x, *layer.parts)
        exact = x.double().numpy() @ layer.dense
        assert np.abs(y.numpy() - exact).max() < 2e-6 * np.abs(exact).max()


@native_only
@settings(max_examples=40, deadline=None)
@given(_layers(), st.integers(1, 30), st.sampled_from(["own", "avx2"]))
def test_the_gradient_of_a_planes_scales_is_that_of_float64(layer: Drawn, rows: int, width: str) -> None:
    from alphatune.packed.kernels import lookup, native

    grouping, words = layer.grouping, layer.parts[0].numpy().view(np.uint32)
    if native.registers() is None or grouping.span > 1:
        return
    (n_in, out), plane = layer.dense.shape, words.shape[1] - 1
    x, dy = layer.inputs(rows), torch.from_numpy(layer.random.standard_normal((rows, out)).astype(np.float32))
    k, o = np.arange(n_in)[:, None], np.arange(out)[None, :]
    codes = (words[k // 32, plane, o] >> (k % 32).astype(np.uint32) & 1) * 2.0 - 1
    exact = layer.sums(x.double().numpy().T @ dy.double().numpy() * codes)
    size = layer.sums(np.abs(x.double().numpy().T) @ np.abs(dy.double().numpy()))
    with pytest.MonkeyPatch.context() as patch:
        if width == "avx2":
            patch.setattr(native, "registers", lambda: lookup.AVX2)
        found = native.scale_gradient(x, dy, layer.parts[0], plane, grouping)
    assert (np.abs(found.double().numpy() - exact) / np.maximum(size, 1e-30)).max() < 1e-6


@native_only
def test_a_gradient_over_many_rows_of_one_sign_stays_within_a_third_of_a_millionth() -> None:
    from alphatune.packed.kernels import native

    if native.registers() is None:
        return
    layer = Drawn(48, 96, None, 1, False)
    x, dy = layer.inputs(4003) + 1, torch.from_numpy(layer.random.random((4003, 48)).astype(np.float32))
    k, o = np.arange(96)[:, None], np.arange(48)[None, :]
    words = layer.parts[0].numpy().view(np.uint32)
    codes = (words[k // 32, 0, o] >> (k % 32).astype(np.uint32) & 1) * 2.0 - 1
    exact = (x.double().numpy().T @ dy.double().numpy() * codes).sum(0)
    size = (np.abs(x.double().numpy().T) @ dy.double().numpy()).sum(0)
    found = native.scale_gradient(x, dy, layer.parts[0], 0, layer.grouping)[0]
    assert (np.abs(found.double().numpy() - exact) / size).max() < 3e-7


@native_only
@pytest.mark.parametrize(("which", "looked_up"), [("first", True), ("all", False)])
def test_training_takes_the_gradient_of_alpha_1_from_the_lookup(which: str, looked_up: bool) -> None:
    from alphatune.packed.kernels import native

    layer = Drawn(40, 128, 64, 3, False)
    packed = PackedLinear(*layer.parts, None, layer.grouping)
    scale = packed.initial_scale(which).requires_grad_()
    x, dy = layer.inputs(5), torch.from_numpy(layer.random.standard_normal((5, 40)).astype(np.float32))
    asked: list[torch.Tensor] = []
    with pytest.MonkeyPatch.context() as patch:
        lookup = native.scale_gradient
        patch.setattr(native, "scale_gradient", lambda *given: asked.append(lookup(*given)) or asked[-1])
        packed(x, scale, which).backward(dy)
    assert scale.grad is not None and len(asked) == (looked_up and native.registers() is not None)
    if asked:
        assert torch.equal(scale.grad, asked[0] / layer.grouping.members())


@native_only
def test_a_gradient_is_looked_up_by_layer_dtype_threads_and_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from alphatune.packed.kernels import native

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for size, looked_up in ((None, True), (64, True), (8, False), (128 * 2, False)):  # the last spans rows
            layer = Drawn(40, 128, size, 3, False)
            given = layer.inputs(5), torch.randn(5, 40), layer.parts[0], 0, layer.grouping
            found = product.scale_gradient(*given)
            assert (found is not None) == (looked_up and native.registers() is not None)
            if found is not None:
                torch.use_deterministic_algorithms(True)
                assert torch.equal(product.scale_gradient(*given), found)  # type: ignore[arg-type]
                torch.use_deterministic_algorithms(False)
                assert product.scale_gradient(given[0].bfloat16(), *given[1:]) is None
        layer = Drawn(40, 128, None, 3, False)
        given = layer.inputs(5), torch.randn(5, 40), layer.parts[0], 0, layer.grouping
        own = native.registers()
        if own is not None:
            torch.set_num_threads(own.threads + 1)
            assert product.scale_gradient(*given) is None
            torch.set_num_threads(1)
            apart = given[0].repeat(1, 2)[:, :128], given[1][:1].expand(5, 40), *given[2:]  # not in one piece
            whole = apart[0].contiguous(), apart[1].contiguous(), *given[2:]
            assert torch.equal(product.scale_gradient(*apart), product.scale_gradient(*whole))  # type: ignore[arg-type]
        monkeypatch.setattr(native, "registers", lambda: None)
        assert product.scale_gradient(*given) is None
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(threads)


@native_only
def test_inputs_that_are_not_in_one_piece_and_have_more_dimensions() -> None:
    layer = Drawn(40, 64, None, 3, False)
    x = layer.inputs(3, 2).transpose(0, 1)
    y = product.multiply(x, *layer.parts, layer.grouping)
    assert y.shape == (2, 3, 40) and layer.error(x, y) < 1e-6
    assert product.multiply(x[:0], *layer.parts, layer.grouping).shape == (0, 3, 40)
    half = product.multiply(x.bfloat16(), *layer.parts, layer.grouping)
    assert half.dtype == torch.bfloat16 and layer.error(x, half) < 1e-2


@native_only
def test_another_default_dtype_changes_nothing() -> None:
    layer = Drawn(40, 64, None, 3, False)
    x = layer.inputs(1)
    expected = product.multiply(x, *layer.parts, layer.grouping)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(product.multiply(x, *layer.parts, layer.grouping), expected)
        assert product.rebuild(*layer.parts, layer.grouping).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


@native_only
def test_where_results_must_be_the_same_everywhere_the_weight_is_rebuilt() -> None:
    layer = Drawn(40, 64, None, 3, False)
    x = layer.inputs(1)
    torch.use_deterministic_algorithms(True)
    try:
        y = product.multiply(x, *layer.parts, layer.grouping)
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(y, x @ product._rebuild(*layer.parts, layer.grouping))


@native_only
def test_a_weight_that_was_handed_out_stays_when_another_is_rebuilt() -> None:
    one, other = Drawn(40, 64, None, 3, False), Drawn(40, 64, None, 3, False, seed=1)
    first = product.rebuild(*one.parts, one.grouping)
    before = first.clone()
    product.rebuild(*other.parts, other.grouping)
    product.rebuild(*other.parts, other.grouping, reuse=True)
    assert torch.equal(first, before)


@native_only
def test_limits_are_measured_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from alphatune.packed.kernels import crossover

    monkeypatch.setenv("ALPHATUNE_CACHE", str(tmp_path))
    crossover.limits.cache_clear()
    measured: list[int] = []
    monkeypatch.setattr(crossover, "measure", lambda *_: measured.append(1) or crossover.Limits(2, 64))
    assert crossover.limits(3, False, 1, None) == crossover.Limits(2, 64)
    crossover.limits.cache_clear()
    assert crossover.limits(3, False, 1, None) == crossover.Limits(2, 64) and len(measured) == 1
    (kept,) = (tmp_path / "kernels").glob("rows-3-small-1-grow-*.json")
    assert json.loads(kept.read_text())["lookup"] == 2
    kept.write_text("{")  # a damaged file is measured again
    crossover.limits.cache_clear()
    assert crossover.limits(3, False, 1, None) == crossover.Limits(2, 64) and len(measured) == 2
    crossover.limits.cache_clear()


@native_only
@pytest.mark.parametrize(("threads", "a_second", "kept"), [(2, 10, True), (2, 1000, False), (1, 1000, True)])
def test_limits_of_threads_that_were_disturbed_are_not_kept(
    threads: int, a_second: int, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alphatune.packed.kernels import crossover

    monkeypatch.setenv("ALPHATUNE_CACHE", str(tmp_path))
    crossover.limits.cache_clear()
    monkeypatch.setattr(crossover, "measure", lambda *_: crossover.Limits(2, 64))
    told = iter([(0.0, 7), (3.0, 7 + 3 * a_second)])
    monkeypatch.setattr(crossover, "_so_far", lambda: next(told))
    assert crossover.limits(3, False, threads, None) == crossover.Limits(2, 64)
    assert len(list((tmp_path / "kernels").glob("rows-*.json"))) == kept
    crossover.limits.cache_clear()


@native_only
def test_rows_that_no_path_is_fast_for_get_a_dense_weight_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from alphatune.packed.kernels import crossover

    monkeypatch.setattr(crossover, "limits_for", lambda *_: crossover.Limits(0, 64, (2, 3)))
    product._fastest.cache_clear()
    product.tell_of_dense_weights.cache_clear()
    drawn = Drawn(40, 64, 8, 3, True)
    layer = _layer(drawn)
    with torch.no_grad(), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for rows, kept in ((1, False), (4, False), (3, True), (2, True)):
            x = drawn.inputs(rows)
            with torch.enable_grad():  # a layer in training that no gradient goes through
                assert drawn.error(x, layer(x)) < 1e-6 and (layer._kept._kept is not None) == (rows == 2)
            assert drawn.error(x, layer(x)) < 1e-6
            assert (layer._kept._kept is not None) == kept
    assert len(told) == 1 and "no product of bits is as fast" in str(told[0].message)
    product._fastest.cache_clear()


@native_only
def test_small_groups_are_measured_as_small_groups() -> None:
    from alphatune.packed.kernels import crossover
    from alphatune.quant.grouping import Grouping

    asked: list[int | None] = []
    before, crossover.limits = crossover.limits, lambda *of: asked.append(of[3])  # type: ignore[assignment]
    try:
        for size in (2, 8, 15, 16, 31, 32, 63, 64, 127, 128, None):
            crossover.limits_for(3, Grouping.of(512, 512, size), 1)
    finally:
        crossover.limits = before
    assert asked == [8, 8, 8, 16, 16, 32, 32, 64, 64, None, None]


@native_only
def test_the_limit_is_where_the_gains_add_up_to_the_most() -> None:
    from alphatune.packed.kernels.crossover import _best_limit

    assert _best_limit({1: 0.5, 2: -0.1, 4: 0.3, 8: -0.4, 16: 0.2}) == 4
    assert _best_limit({1: -0.1, 2: -0.2}) == 0 and _best_limit({}) == 0


@native_only
def test_a_cache_that_cannot_be_written_or_is_damaged_costs_time_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alphatune.native import machine
    from alphatune.packed.kernels import native

    layer = Drawn(40, 64, 32, 3, True)
    x = layer.inputs(2)

    def error_with(cache: Path) -> float:
        monkeypatch.setenv("ALPHATUNE_CACHE", str(cache))
        monkeypatch.setattr(machine, "_LOADED", {})
        return layer.error(x, native.by_tiles(2, 3, True, layer.grouping)(x, *layer.parts))

    (tmp_path / "file").write_text("")
    assert error_with(tmp_path / "file" / "below") < 1e-6
    assert error_with(tmp_path) < 1e-6
    (kept,) = (tmp_path / "kernels").iterdir()
    good = kept.read_bytes()
    assert error_with(tmp_path) < 1e-6 and kept.read_bytes() == good  # read, not made again
    kept.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert error_with(tmp_path) < 1e-6 and kept.read_bytes() == good


# --- without kernels


@pytest.fixture
def hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without the package."""
    monkeypatch.setattr(product, "fast", lambda: False)
    monkeypatch.setattr("alphatune.packed.linear.fast", lambda: False)
    product.tell_of_dense_weights.cache_clear()


def _layer(drawn: Drawn) -> PackedLinear:
    return PackedLinear(*drawn.parts, None, drawn.grouping)


def test_without_kernels_the_dense_weight_is_kept_and_said_once(hidden: None) -> None:
    drawn = Drawn(40, 64, 32, 3, True)
    one, other, x = _layer(drawn), _layer(drawn), drawn.inputs(1)
    with torch.no_grad(), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        y = one(x)
        weight = one._kept._kept
        assert weight is not None and drawn.error(x, y) < 1e-6
        assert torch.equal(one(x), y) and one._kept._kept is weight
        other(x)
    assert [str(w.message) for w in told if "alphatune[fast]" in str(w.message)] and len(told) == 1


@pytest.mark.parametrize("which", ["first", "all", "gain"])
@pytest.mark.filterwarnings("ignore:packed layers keep")
def test_a_kept_weight_follows_the_scales(hidden: None, which: str) -> None:
    drawn = Drawn(40, 64, 32, 3, True)
    layer, x = AlphaTuningLayer(_layer(drawn)), drawn.inputs(2)
    layer.add("task", which)
    layer.set_adapter("task")
    with torch.no_grad():
        before = layer(x)
        layer.alphatuning_scale["task"].mul_(2)
        expected = x @ layer.weight_t()
        assert torch.allclose(layer(x), expected, atol=1e-5) and not torch.allclose(before, expected, atol=1e-2)
        layer.base_layer.alpha.mul_(3)
        assert torch.allclose(layer(x), x @ layer.weight_t(), atol=1e-4)
    layer(x.requires_grad_()).sum().backward()
    assert layer.base_layer._kept._kept is None
