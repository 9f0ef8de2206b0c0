"""Groups against explicit index loops: which scale belongs to the weight at (row, column)."""

import pytest
import torch

from alphatune.errors import UserError
from alphatune.quant.grouping import Grouping

CASES = {  # rows, columns, group size
    "row-wise": (3, 8, None),
    "dividing": (4, 12, 3),
    "one weight each": (2, 3, 1),
    "ragged": (3, 10, 4),
    "spanning": (6, 4, 8),
    "spanning, rows left over": (7, 4, 12),
    "spanning more rows than there are": (2, 4, 12),
}
each_case = pytest.mark.parametrize("rows, columns, size", CASES.values(), ids=CASES)


def group_of(g, row, column):
    """(group, scale row) of a weight, from the description of the format."""
    if g.size > g.columns:
        return 0, row // (g.size // g.columns)
    return column // g.size, row


def weights(g):
    return [(row, column) for row in range(g.rows) for column in range(g.columns)]


@each_case
def test_every_weight_gets_the_scale_of_its_group(rows, columns, size):
    g = Grouping.of(rows, columns, size)
    scales = torch.arange(float(g.count)).view(g.scales_shape)
    spread = g.spread(scales).broadcast_to(columns, rows)
    assert {group_of(g, *w) for w in weights(g)} == {(i, r) for i in range(g.per_row) for r in range(g.scales_shape[1])}
    for row, column in weights(g):
        assert spread[column, row] == scales[group_of(g, row, column)]


@each_case
def test_total_adds_up_the_groups(rows, columns, size):
    g = Grouping.of(rows, columns, size)
    values = torch.randint(-9, 9, (columns, rows), generator=torch.Generator().manual_seed(0)).float()
    expected = torch.zeros(g.scales_shape)
    for row, column in weights(g):
        expected[group_of(g, row, column)] += values[column, row]
    assert torch.equal(g.total(values), expected)


@each_case
def test_members_counts_the_weights_of_each_group(rows, columns, size):
    g = Grouping.of(rows, columns, size)
    expected = torch.zeros(g.scales_shape)
    for row, column in weights(g):
        expected[group_of(g, row, column)] += 1
    assert torch.equal(g.members(), expected)
    assert g.members().sum() == rows * columns


@each_case
def test_vectors_are_the_groups_in_row_order(rows, columns, size):
    g = Grouping.of(rows, columns, size)
    groups = {}
    for row, column in weights(g):
        groups.setdefault(group_of(g, row, column)[::-1], []).append(float(row * columns + column))
    in_order = [groups[key] for key in sorted(groups)]
    parts = g.vectors(torch.arange(float(rows * columns)).view(rows, columns))
    longest = max(map(len, in_order))
    assert parts[0].tolist() == [v for v in in_order if len(v) == longest]
    assert [v for part in parts[1:] for v in part.tolist()] == [v for v in in_order if len(v) < longest]


@each_case
def test_from_vectors_puts_codes_and_scales_back(rows, columns, size):
    g = Grouping.of(rows, columns, size)
    generator = torch.Generator().manual_seed(1)
    whole = torch.rand(2, rows, columns, generator=generator) < 0.5  # two planes
    by_plane = [g.vectors(plane) for plane in whole]
    signs = [torch.stack(parts, dim=1) for parts in zip(*by_plane, strict=True)]
    number = g.vectors(torch.arange(float(rows * columns)).view(rows, columns))
    scales = [torch.stack([part[:, 0], -part[:, 0]], dim=1) for part in number]  # named after each group's first weight
    rebuilt, by_group = g.from_vectors(signs, scales)
    assert torch.equal(rebuilt, whole.transpose(0, 1))
    assert by_group.shape == (g.per_row, 2, g.scales_shape[1])
    for row, column in weights(g):
        group, shared = group_of(g, row, column)
        first = min(r * columns + c for r, c in weights(g) if group_of(g, r, c) == (group, shared))
        assert by_group[group, :, shared].tolist() == [first, -first]


def test_multiples_of_the_model_width():
    assert Grouping.of(8, 32, "h", width=8).size == 8
    assert Grouping.of(8, 32, "0.5h", width=8).size == 4
    assert Grouping.of(8, 32, "4h", width=8).size == 32
    assert Grouping.of(8, 100, "0.29h", width=100).size == 29  # 0.29 * 100 is 28.999999999999996 in floats


@pytest.mark.parametrize(
    "size, width, message",
    [
        (12, None, "group_size=12: a group larger than a row of 8 weights must span whole rows; use at most 8 or a"),
        ("h", None, "group_size=h: the model's width is not known here; give a number of weights"),
        ("0.3h", 8, "group_size=0.3h: 2.4 is not a whole number of weights at model width 8"),
        ("0.0099h", 100, "group_size=0.0099h: 0.99 is not a whole number of weights"),
        ("1e400h", 8, "group_size=1e400h: must be null"),
        ("0.01h", 100, None),  # one weight: the smallest group
        (
            "0h",
            8,
            "group_size=0h: must be null (None: one row), a whole number of weights from 1 to 1000000000, or",
        ),
        (0, None, "group_size=0: must be null"),
        (-4, None, "group_size=-4: must be null"),
    ],
)
def test_a_size_that_does_not_fit_is_refused(size, width, message):
    if message is None:
        assert Grouping.of(4, 8, size, width).size == 1
        return
    with pytest.raises(UserError) as refused:
        Grouping.of(4, 8, size, width)
    assert str(refused.value).startswith(message)
