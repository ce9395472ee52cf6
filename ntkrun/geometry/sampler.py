"""The points of a loss term, drawn from its region."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from ntkrun.geometry.box import Box
from ntkrun.geometry.region import Draws, Method, Region, grid_shape, mix_seed, product_grid

GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
BLOCK_DRAWS, BLOCK_POINTS = 64, 2**16  # the most draws that are made at a time, and the most points of several draws


class TermPoints(ABC):
    """The points of one loss term, a draw at a time, made in blocks of draws.

    Args:
        region: the boxes or other regions that the term lives on.
        method: see ``Sampler``.
        seed: seed of these points alone.
        shares: of the regions in the points; ``None`` for those of ``shares_by_measure``.

    Attributes:
        drawn: number of draws so far.
    """

    drawn: int
    _length: int  # draws of a block

    def __init__(self, region: Sequence[Region], method: Method, seed: int, shares: Sequence[float] | None) -> None:
        self.region = tuple(region)
        self.method = method
        self.seed = seed
        self._shares = shares_by_measure(region) if shares is None else [share / sum(shares) for share in shares]

    @abstractmethod
    def skip_to(self, drawn: int) -> None:
        """Continue as after so many draws."""

    @property
    def left(self) -> int:
        """The number of draws left in the present block."""
        return self._length - self.drawn % self._length

    def draw(self) -> Tensor:
        """The next points, ``[count, d + k]`` in float64."""
        return self.draws(1)[0]

    @abstractmethod
    def draws(self, number: int) -> Tensor:
        """The points of the next draws, at most ``left``, ``[number, count, d + k]`` in float64."""


class Sampler(TermPoints):
    """Draws the points of one loss term; each draw continues where the last one ended.

    Draws are made in blocks whose length depends on ``count`` alone, so that the k-th draw is the same whatever was
    drawn before it. Where there are fewer points than boxes, every draw takes others of them, in turn, so that over
    many draws each box has its share; so it is with other regions.

    Args:
        region: the boxes or other regions that the term lives on.
        count: number of points.
        method: ``uniform`` (independent), ``sobol`` (scrambled low-discrepancy sequence) or
            ``equispaced`` (a grid with the ends included; every draw is the same).
        seed: seed of this sampler alone.
        shares: of the boxes in the points; ``None`` for those of ``shares_by_measure``.

    Raises:
        ValueError: an equispaced grid of that many points would be lopsided or missing.
    """

    def __init__(
        self,
        region: Sequence[Region],
        count: int,
        method: Method,
        seed: int,
        shares: Sequence[float] | None = None,
    ) -> None:
        super().__init__(region, method, seed, shares)
        self._count = count
        self._counts = share_out(count, self._shares) if count >= len(region) else []
        self._length = 1 if method == "equispaced" else max(1, min(BLOCK_DRAWS, BLOCK_POINTS // count))
        if method == "equispaced":
            for part, n in zip(region, self._counts, strict=bool(self._counts)):
                grid_shape(n, part.dimension)
        self.skip_to(0)

    def skip_to(self, drawn: int) -> None:
        """Continue as after so many draws."""
        self.drawn = drawn
        self._block: tuple[int, Tensor] | None = None
        self._sobol: dict[int, SobolEngine] = {}

    def draws(self, number: int) -> Tensor:
        """The points of the next draws, ``[number, count, d + k]`` in float64.

        Args:
            number: of draws; at most ``left``.

        Raises:
            ValueError: there are fewer left.
        """
        if number > self.left:
            raise ValueError(f"{number} draws at a time are asked for; {self.left} are left in the block")
        index, start = divmod(self.drawn, self._length)
        if self._block is None or self._block[0] != index:
            self._block = index, self._make(index)
        self.drawn += number
        return self._block[1][start : start + number]

    def _make(self, index: int) -> Tensor:
        """A block of draws, ``[length, count, d + k]``."""
        if not self._counts:
            return self._in_turn(index)
        parts = [
            part.draw(
                Draws(
                    first=index * self._length,
                    number=self._length,
                    count=n,
                    method=self.method,
                    seed=mix_seed(self.seed, i),
                    unit=partial(self._unit, index, n, part=i),
                )
            )
            for i, (part, n) in enumerate(zip(self.region, self._counts, strict=True))
        ]
        return torch.cat(parts, dim=1)

    def _in_turn(self, index: int) -> Tensor:
        """A block of draws, ``[length, count, d + k]``, each with points in some of the regions.

        The regions' shares lie one after the other on a line as long as ``count``, and those are taken that hold the
        places u, 1 + u, ...: each as often as its share says for u spread evenly, as multiples of the golden ratio are.
        """
        draws = torch.arange(index * self._length, (index + 1) * self._length, dtype=torch.float64)
        offset = mix_seed(self.seed, len(self.region)) / 2**63
        places = torch.arange(self._count) + torch.frac(offset + draws * GOLDEN_RATIO)[:, None]
        ends = torch.tensor(self._shares, dtype=torch.float64).cumsum(0) * self._count
        chosen = torch.searchsorted(ends, places, right=True).clamp_max(len(self.region) - 1)
        boxes = [part for part in self.region if isinstance(part, Box)]
        if len(boxes) < len(self.region):
            return self._of_chosen(index, chosen)
        low = torch.tensor([list(box.low.values()) for box in boxes], dtype=torch.float64)
        high = torch.tensor([list(box.high.values()) for box in boxes], dtype=torch.float64)
        unit = self._unit(index, self._count, low.shape[1], 0)
        # Successive Sobol points lie in different parts of the cube; no box may always have the same part.
        generator = torch.Generator().manual_seed(mix_seed(self.seed, -1, index))
        order = torch.rand(chosen.shape, generator=generator).argsort(1)
        unit = unit.take_along_dim(order[..., None], dim=1)
        return low[chosen] + (high - low)[chosen] * unit

    def _of_chosen(self, index: int, chosen: Tensor) -> Tensor:
        """Points of the regions with the numbers ``chosen``, ``[length, count]``, in their places."""
        widths = {len(part.coordinates) + len(part.columns) for part in self.region}
        points = torch.empty(*chosen.shape, widths.pop(), dtype=torch.float64)
        before = index * self._length * self._count
        for i in chosen.unique().tolist():
            places = chosen == i
            count, seed = int(places.sum()), mix_seed(self.seed, i)
            generator = torch.Generator().manual_seed(mix_seed(seed, index))

            def unit(dimensions: int, count: int = count, generator: torch.Generator = generator) -> Tensor:
                return torch.rand(1, count, dimensions, generator=generator, dtype=torch.float64)

            first = math.ceil(before * self._shares[i] / count)  # as if all draws before had taken as many
            draws = Draws(first=first, number=1, count=count, method="uniform", seed=seed, unit=unit)
            points[places] = self.region[i].draw(draws)[0]
        return points

    def _unit(self, index: int, n: int, dimensions: int, part: int) -> Tensor:
        """The points of one region in a block, ``[length, n, dimensions]`` in the unit cube."""
        shape = self._length, n, dimensions
        if dimensions == 0:
            return torch.zeros(shape, dtype=torch.float64)
        if self.method == "equispaced":
            return product_grid(grid_shape(n, dimensions))[None]
        if self.method == "uniform":
            # One seed per block, so that a resumed run needs no generator state.
            generator = torch.Generator().manual_seed(mix_seed(self.seed, part, index))
            return torch.rand(shape, generator=generator, dtype=torch.float64)
        number = self._length * n
        if part not in self._sobol:
            engine = SobolEngine(dimensions, scramble=True, seed=mix_seed(self.seed, part))
            self._sobol[part] = engine.fast_forward(index * number)
        points: Tensor = self._sobol[part].draw(number, dtype=torch.float64)
        return points.view(shape)


def shares_by_measure(region: Sequence[Region]) -> list[float]:
    """The share of every box or other region in all of them: by measure, or equal where their dimensions differ."""
    alike = len({part.dimension for part in region}) == 1
    measures = [part.measure if alike else 1.0 for part in region]
    return [measure / sum(measures) for measure in measures]


def share_out(count: int, shares: Sequence[float]) -> list[int]:
    """How many of ``count`` points every region has: by the largest remainders, but at least one."""
    wanted = [count * share for share in shares]
    counts = [max(1, math.floor(round(each, 9))) for each in wanted]
    while (left := count - sum(counts)) != 0:
        lacking = {i: round(each - n, 9) for i, (each, n) in enumerate(zip(wanted, counts, strict=True))}
        if left > 0:
            chosen = sorted(lacking, key=lambda i: -lacking[i])[:left]
        else:
            chosen = sorted((i for i in lacking if counts[i] > 1), key=lambda i: lacking[i])[:-left]
        for i in chosen:
            counts[i] += 1 if left > 0 else -1
    return counts
