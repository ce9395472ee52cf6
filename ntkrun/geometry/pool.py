"""Very many points, a few at a time: mini-batches that take every point of a set once per epoch, and keep none."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from ntkrun.geometry.region import Draws, Method, Region, grid_shape, mix_seed
from ntkrun.geometry.sampler import BLOCK_DRAWS, BLOCK_POINTS, TermPoints, share_out
from ntkrun.geometry.table import Table

ROUNDS = 6  # of the shuffling


class Pool(TermPoints):
    """Mini-batches of a fixed set of points.

    Point i of the set is a function of i: the i-th of a scrambled Sobol sequence, of independent uniform numbers (a
    hash of i), of a grid, or row i of a table. Every epoch takes all of them once, in an order of its own, which is a
    function of the epoch. So memory does not grow with their number, and the k-th batch is the same whatever was drawn
    before it. A batch may begin in one epoch and end in the next.

    Args:
        region: the boxes or other regions that the term lives on, whose points are made of those of the unit cube.
        total: number of points of the set.
        count: of a batch; where the set has no more, every batch is the set, in order.
        method: see ``Sampler``.
        seed: seed of this pool alone.
        shares: of the regions in the points; ``None`` for those of ``shares_by_measure``.

    Raises:
        ValueError: an equispaced grid of that many points would be lopsided.
    """

    def __init__(
        self,
        region: Sequence[Region],
        total: int,
        count: int,
        method: Method,
        seed: int,
        shares: Sequence[float] | None = None,
    ) -> None:
        super().__init__(region, method, seed, shares)
        self.total = total
        self.count = min(count, total)
        self._counts = share_out(total, self._shares)
        self._ends = list(accumulate(self._counts))
        self._length = max(1, min(BLOCK_DRAWS, BLOCK_POINTS // self.count))
        if method == "equispaced":
            for part, n in zip(region, self._counts, strict=True):
                grid_shape(n, part.dimension)
        self._sobol: dict[int, SobolEngine] = {}
        self.skip_to(0)

    def skip_to(self, drawn: int) -> None:
        """Continue as after so many batches."""
        self.drawn = drawn

    def draws(self, number: int) -> Tensor:
        """The next batches, ``[number, count, d + k]`` in float64."""
        start = self.drawn * self.count
        places = torch.arange(start, start + number * self.count)
        self.drawn += number
        if self.count == self.total:
            whole = self.points(torch.arange(self.total))
            return whole.expand(number, -1, -1)
        epochs, within = places // self.total, places % self.total
        for epoch in epochs.unique().tolist():
            own = epochs == epoch
            within[own] = shuffled(within[own], self.total, mix_seed(self.seed, -1, epoch))
        return self.points(within).view(number, self.count, -1)

    def points(self, numbers: Tensor) -> Tensor:
        """The points with these numbers, ``[n]`` integers below ``total``; returns ``[n, d + k]`` in float64."""
        width = len(self.region[0].coordinates) + len(self.region[0].columns)
        out = torch.empty(len(numbers), width, dtype=torch.float64)
        low, high = (bisect_right(self._ends, int(end)) for end in (numbers.min(), numbers.max()))
        for i in range(low, high + 1):
            first, end = self._ends[i] - self._counts[i], self._ends[i]
            own = (numbers >= first) & (numbers < end)
            if bool(own.any()):
                out[own] = self._of_region(i, numbers[own] - first)
        return out

    def _of_region(self, i: int, numbers: Tensor) -> Tensor:
        part = self.region[i]
        if isinstance(part, Table):
            return part.rows[numbers % len(part.rows)].double()

        def unit(dimensions: int) -> Tensor:
            return self._unit(i, numbers, dimensions)[None]

        draws = Draws(0, 1, len(numbers), self.method, mix_seed(self.seed, i), unit)
        return part.draw(draws)[0]

    def _unit(self, i: int, numbers: Tensor, dimensions: int) -> Tensor:
        """Points of the unit cube, ``[n, dimensions]``."""
        if self.method == "uniform" or not dimensions:
            counter = numbers[:, None] * dimensions + torch.arange(dimensions)
            return (hashed(counter, mix_seed(self.seed, i)) >> 11 & 2**53 - 1).double() * 2.0**-53
        if self.method == "equispaced":
            places = torch.unravel_index(numbers, grid_shape(self._counts[i], dimensions))
            sides = grid_shape(self._counts[i], dimensions)
            columns = [p / (n - 1) if n > 1 else p + 0.5 for p, n in zip(places, sides, strict=True)]
            return torch.stack([column.double() for column in columns], dim=1)
        if i not in self._sobol:
            self._sobol[i] = SobolEngine(dimensions, scramble=True, seed=mix_seed(self.seed, i))
        return sobol_points(self._sobol[i], numbers)


def sobol_points(engine: SobolEngine, numbers: Tensor) -> Tensor:
    """The points with these numbers, from 0, of a scrambled Sobol sequence, ``[n, d]`` in float64.

    Point i is the digital shift plus, modulo 2 and bit by bit, the direction numbers of the bits of the Gray code of i
    (Antonov, Saleev 1979), so that no other one is needed for it.
    """
    gray = numbers ^ (numbers >> 1)
    points = engine.shift.expand(len(numbers), -1).clone()
    for bit in range(engine.MAXBIT):
        points ^= -(gray >> bit & 1)[:, None] & engine.sobolstate[:, bit]
    spread: Tensor = points.double() * 2.0**-engine.MAXBIT
    return spread


def shuffled(places: Tensor, total: int, seed: int) -> Tensor:
    """Where each of some places lies in a random order of ``total``; all of them are a permutation.

    A Feistel network permutes the numbers of an even number of bits, and is applied until the result is below ``total``
    (cycle walking: Black, Rogaway, CT-RSA 2002).

    Args:
        places: ``[n]`` integers below ``total``.
        total: number of places.
        seed: of the order.
    """
    half = max(1, ((total - 1).bit_length() + 1) // 2)
    out = _feistel(places, half, seed)
    while bool((beyond := out >= total).any()):
        out[beyond] = _feistel(out[beyond], half, seed)
    return out


def _feistel(numbers: Tensor, half: int, seed: int) -> Tensor:
    mask = 2**half - 1
    left: Tensor = numbers >> half
    right = numbers & mask
    for k in range(ROUNDS):
        left, right = right, left ^ (hashed(right, mix_seed(seed, k)) & mask)
    joined: Tensor = left << half | right
    return joined


def hashed(numbers: Tensor, key: int) -> Tensor:
    """Hashes of 64 bits, as signed integers: the output function of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).

    Args:
        numbers: integers.
        key: 63 bits, which select the function.
    """
    z = numbers * _signed(0x9E3779B97F4A7C15) + key
    z = (z ^ (z >> 30 & 2**34 - 1)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> 27 & 2**37 - 1)) * _signed(0x94D049BB133111EB)
    mixed: Tensor = z ^ (z >> 31 & 2**33 - 1)
    return mixed


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number
