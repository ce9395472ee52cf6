"""Mini-batches of a fixed set of points."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.quasirandom import SobolEngine

from ntkrun.geometry import Box, Method, Pool, Table, mix_seed, polygon
from ntkrun.geometry.pool import hashed, shuffled, sobol_points

SQUARE = Box({"x": -1.0, "t": 0.0}, {"x": 1.0, "t": 3.0})
ENDS = tuple(Box({"x": x, "t": 0.0}, {"x": x, "t": 3.0}) for x in (-1.0, 1.0))
TABLE = Table(("x",), ("u",), torch.arange(60, dtype=torch.float64).view(30, 2))
REGIONS = {
    "a box": ((SQUARE,), "sobol"),
    "a grid": ((SQUARE,), "equispaced"),
    "two ends": (ENDS, "uniform"),
    "a triangle": ((polygon([(0, 0), (1, 0), (0, 1)]),), "sobol"),
    "a table": ((TABLE,), "sobol"),
}


def rows(points: torch.Tensor) -> list[tuple[float, ...]]:
    return sorted(map(tuple, points.tolist()))


@pytest.mark.parametrize(("region", "method"), REGIONS.values(), ids=list(REGIONS))
def test_every_point_once_per_epoch(region: tuple[Box, ...], method: Method) -> None:
    """Seven epochs in batches that do not divide them, each in another order."""
    pool = Pool(region, 30, 7, method, 5)
    everything = pool.points(torch.arange(30))
    assert len({*rows(everything)}) == 30
    seen = torch.cat([pool.draw() for _ in range(30)]).view(7, 30, -1)
    for epoch in seen:
        assert rows(epoch) == rows(everything)
    assert len({tuple(epoch[:, 0].tolist()) for epoch in seen}) == 7
    again = Pool(region, 30, 7, method, 5)
    again.skip_to(11)
    assert torch.equal(again.draw(), seen.flatten(0, 1)[77:84])
    together = Pool(region, 30, 7, method, 5)
    assert torch.equal(together.draws(30).flatten(0, 1), seen.flatten(0, 1))


def test_a_set_that_is_not_larger_than_a_batch_stays_as_it_is() -> None:
    pool = Pool((TABLE,), 30, 100, "sobol", 0)
    assert torch.equal(pool.draws(3), TABLE.rows.expand(3, -1, -1))


def test_points_are_the_sobol_sequence() -> None:
    """The first one is rounded to single precision by torch."""
    expected = SobolEngine(3, scramble=True, seed=11).draw(500, dtype=torch.float64)
    found = sobol_points(SobolEngine(3, scramble=True, seed=11), torch.arange(500).flip(0)).flip(0)
    assert torch.equal(found[1:], expected[1:])
    assert torch.allclose(found[0], expected[0], rtol=0, atol=1e-7)


def test_hash_is_that_of_python_integers() -> None:
    def expected(number: int, key: int) -> int:
        z = (number * 0x9E3779B97F4A7C15 + key) % 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        return z ^ z >> 31

    numbers = [0, 1, 2, 12345678901, 2**62]
    found = [h % 2**64 for h in hashed(torch.tensor(numbers), mix_seed(3)).tolist()]
    assert found == [expected(number, mix_seed(3)) for number in numbers]


@pytest.mark.parametrize("total", [1, 2, 3, 16, 17, 1000])
def test_orders_are_permutations(total: int) -> None:
    for seed in range(5):
        assert sorted(shuffled(torch.arange(total), total, mix_seed(seed)).tolist()) == list(range(total))


def test_orders_are_random() -> None:
    """Where each of 10 goes over 600 orders: chi-square of 9 * 9 degrees of freedom within 4 standard deviations."""
    counts = np.zeros((10, 10))
    for seed in range(600):
        counts[np.arange(10), shuffled(torch.arange(10), 10, mix_seed(seed, 1)).numpy()] += 1
    chi_square = float(((counts - 60) ** 2 / 60).sum())
    freedom = 9 * 9
    assert abs(chi_square - freedom) < 4 * (2 * freedom) ** 0.5


def test_uniform_points_are_uniform_and_independent() -> None:
    """Chi-square of 100 cells, of the square and of successive points along x, within 4 standard deviations."""
    x = Pool((SQUARE,), 100_000, 100_000, "uniform", 1).draw()
    unit = torch.stack([(x[:, 0] + 1) / 2, x[:, 1] / 3], dim=1)
    pairs = torch.stack([unit[::2, 0], unit[1::2, 0]], dim=1)
    for points in (unit, pairs):
        cells = (points * 10).long() @ torch.tensor([10, 1])
        expected = len(points) / 100
        chi_square = float(((torch.bincount(cells, minlength=100) - expected) ** 2 / expected).sum())
        assert abs(chi_square - 99) < 4 * (2 * 99) ** 0.5


def test_rows_of_a_table_may_be_an_array_of_numpy() -> None:
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    table = Table(("x",), ("u",), rows)  # type: ignore[arg-type]
    assert table.rows.dtype == torch.float64
    assert table.rows.tolist() == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(ValueError, match=r"rows of shape \[2, 3\]; expected some of 2 columns"):
        Table(("x",), ("u",), rows.T)  # type: ignore[arg-type]
