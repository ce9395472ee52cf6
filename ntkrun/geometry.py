"""Boxes in space and time, and points drawn from them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

Method = Literal["uniform", "equispaced", "sobol"]

GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
BLOCK_DRAWS, BLOCK_POINTS = 64, 2**16  # the most draws that are made at a time, and the most points of several draws


@dataclass(frozen=True)
class Box:
    """A product of intervals, one per coordinate; an interval of length zero makes it a face.

    Attributes:
        low, high: bounds per coordinate, keyed by the coordinate's letter, in input order.
    """

    low: Mapping[str, float]
    high: Mapping[str, float]

    @classmethod
    def of(cls, **intervals: tuple[float, float]) -> Box:
        """``Box.of(x=(0, 1), t=(0, 2))``."""
        return cls({k: v[0] for k, v in intervals.items()}, {k: v[1] for k, v in intervals.items()})

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Coordinate letters in input order."""
        return tuple(self.low)

    @property
    def free(self) -> tuple[str, ...]:
        """Coordinates whose interval has positive length."""
        return tuple(c for c in self.low if self.high[c] > self.low[c])

    @property
    def measure(self) -> float:
        """Length, area or volume along the free coordinates; 1 of a single point."""
        return math.prod(self.high[c] - self.low[c] for c in self.free)

    def face(self, coordinate: str, end: Literal["low", "high"]) -> Box:
        """The part of the box at one end of one coordinate."""
        value = (self.low if end == "low" else self.high)[coordinate]
        return Box({**self.low, coordinate: value}, {**self.high, coordinate: value})

    def faces(self, *coordinates: str) -> tuple[Box, ...]:
        """Both faces of each of the given coordinates."""
        ends: tuple[Literal["low", "high"], ...] = ("low", "high")
        return tuple(self.face(c, end) for c, end in itertools.product(coordinates, ends))

    def scale(self, unit: Tensor) -> Tensor:
        """Map points of the unit cube of the free coordinates, ``[..., len(free)]``, into the box, ``[..., d]``."""
        points = unit.new_empty(*unit.shape[:-1], len(self.low))
        columns = iter(unit.unbind(-1))
        for c, column in zip(self.low, points.unbind(-1), strict=True):
            if c in self.free:
                torch.mul(next(columns), self.high[c] - self.low[c], out=column)
                column += self.low[c]
            else:
                column.fill_(self.low[c])
        return points

    def grid(self, per_axis: int) -> Tensor:
        """An equispaced grid, ends included, ``[per_axis ** d, d]`` in float64; the last coordinate runs fastest."""
        return self.scale(_product_grid([per_axis] * len(self.free)))


class Sampler:
    """Draws the points of one loss term; each draw continues where the last one ended.

    Draws are made in blocks whose length depends on ``count`` alone, so that the k-th draw is the same whatever was
    drawn before it. Where there are fewer points than boxes, every draw takes others of them, in turn, so that over
    many draws each box has its share.

    Args:
        region: the boxes the term lives on.
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
        region: tuple[Box, ...],
        count: int,
        method: Method,
        seed: int,
        shares: Sequence[float] | None = None,
    ) -> None:
        self.region = region
        self.method = method
        self.seed = seed
        self._count = count
        self._shares = shares_by_measure(region) if shares is None else [share / sum(shares) for share in shares]
        self._counts = share_out(count, self._shares) if count >= len(region) else []
        self._length = 1 if method == "equispaced" else max(1, min(BLOCK_DRAWS, BLOCK_POINTS // count))
        if method == "equispaced":
            for box, n in zip(region, self._counts, strict=bool(self._counts)):
                _grid_shape(n, len(box.free))
        self.skip_to(0)

    def skip_to(self, drawn: int) -> None:
        """Continue as after so many draws."""
        self.drawn = drawn
        self._block: tuple[int, Tensor] | None = None
        self._sobol: dict[int, SobolEngine] = {}

    @property
    def left(self) -> int:
        """The number of draws left in the present block."""
        return self._length - self.drawn % self._length

    def draw(self) -> Tensor:
        """The next points, ``[count, d]`` in float64."""
        return self.draws(1)[0]

    def draws(self, number: int) -> Tensor:
        """The points of the next draws, ``[number, count, d]`` in float64.

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
        """A block of draws, ``[length, count, d]``."""
        if not self._counts:
            return self._in_turn(index)
        parts = [
            box.scale(self._unit(index, n, len(box.free), i))
            for i, (box, n) in enumerate(zip(self.region, self._counts, strict=True))
        ]
        return torch.cat(parts, dim=1)

    def _in_turn(self, index: int) -> Tensor:
        """A block of draws, ``[length, count, d]``, each with points in some of the boxes.

        The boxes' shares lie one after the other on a line as long as ``count``, and those are taken that hold the
        places u, 1 + u, ...: each as often as its share says for u spread evenly, as multiples of the golden ratio are.
        """
        draws = torch.arange(index * self._length, (index + 1) * self._length, dtype=torch.float64)
        offset = mix_seed(self.seed, len(self.region)) / 2**63
        places = torch.arange(self._count) + torch.frac(offset + draws * GOLDEN_RATIO)[:, None]
        ends = torch.tensor(self._shares, dtype=torch.float64).cumsum(0) * self._count
        chosen = torch.searchsorted(ends, places, right=True).clamp_max(len(self.region) - 1)
        low = torch.tensor([list(box.low.values()) for box in self.region], dtype=torch.float64)
        high = torch.tensor([list(box.high.values()) for box in self.region], dtype=torch.float64)
        unit = self._unit(index, self._count, low.shape[1], 0)
        # Successive Sobol points lie in different parts of the cube; no box may always have the same part.
        generator = torch.Generator().manual_seed(mix_seed(self.seed, -1, index))
        order = torch.rand(chosen.shape, generator=generator).argsort(1)
        unit = unit.take_along_dim(order[..., None], dim=1)
        return low[chosen] + (high - low)[chosen] * unit

    def _unit(self, index: int, n: int, dimensions: int, part: int) -> Tensor:
        """The points of one box in a block, ``[length, n, dimensions]`` in the unit cube."""
        shape = self._length, n, dimensions
        if dimensions == 0:
            return torch.zeros(shape, dtype=torch.float64)
        if self.method == "equispaced":
            return _product_grid(_grid_shape(n, dimensions))[None]
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


def shares_by_measure(region: Sequence[Box]) -> list[float]:
    """The part of every box in the whole region: by measure, or equal where their dimensions differ."""
    alike = len({len(box.free) for box in region}) == 1
    measures = [box.measure if alike else 1.0 for box in region]
    return [measure / sum(measures) for measure in measures]


def share_out(count: int, shares: Sequence[float]) -> list[int]:
    """How many of ``count`` points every box has: by the largest remainders, but at least one."""
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


def mix_seed(*numbers: int) -> int:
    """One 63-bit seed from several integers (the multiplier of the PCG family)."""
    state = 0
    for number in numbers:
        state = ((state ^ (number + 0x9E3779B97F4A7C15)) * 6364136223846793005) % 2**63
        state ^= state >> 29
    return state


def _product_grid(shape: list[int]) -> Tensor:
    axes = [torch.linspace(0, 1, n, dtype=torch.float64) if n > 1 else torch.tensor([0.5]).double() for n in shape]
    return torch.cartesian_prod(*axes).reshape(-1, len(shape))


def _grid_shape(count: int, dimensions: int) -> list[int]:
    """Split ``count`` into near-equal factors, largest first."""
    shape = []
    remaining = count
    for axis in range(dimensions, 0, -1):
        target = round(remaining ** (1 / axis), 9)
        factor = next(f for f in range(math.ceil(target), remaining + 1) if remaining % f == 0) if remaining else 0
        shape.append(factor)
        remaining = remaining // factor if factor else 0
    if count and dimensions and max(shape) > 2 * min(shape):
        nearest = round(count ** (1 / dimensions)) ** dimensions
        raise ValueError(
            f"{count} equispaced points do not form a grid in {dimensions} dimensions with sides within a factor of 2; "
            f"{nearest} do"
        )
    return shape
