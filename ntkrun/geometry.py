"""Boxes in space and time, and points drawn from them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

Method = Literal["uniform", "equispaced", "sobol"]


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

    def face(self, coordinate: str, end: Literal["low", "high"]) -> Box:
        """The part of the box at one end of one coordinate."""
        value = (self.low if end == "low" else self.high)[coordinate]
        return Box({**self.low, coordinate: value}, {**self.high, coordinate: value})

    def faces(self, *coordinates: str) -> tuple[Box, ...]:
        """Both faces of each of the given coordinates."""
        ends: tuple[Literal["low", "high"], ...] = ("low", "high")
        return tuple(self.face(c, end) for c, end in itertools.product(coordinates, ends))

    def scale(self, unit: Tensor) -> Tensor:
        """Map points of the unit cube of the free coordinates, ``[N, len(free)]``, into the box, ``[N, d]``."""
        corner, edges = self._affine
        return corner.to(unit) + unit @ edges.to(unit)

    @cached_property
    def _affine(self) -> tuple[Tensor, Tensor]:
        """The lower corner, ``[d]``, and the edge from it along every free coordinate, ``[len(free), d]``."""
        corner = torch.tensor([self.low[c] for c in self.coordinates], dtype=torch.float64)
        edges = torch.zeros(len(self.free), len(self.low), dtype=torch.float64)
        for edge, c in zip(edges, self.free, strict=True):
            edge[self.coordinates.index(c)] = self.high[c] - self.low[c]
        return corner, edges

    def grid(self, per_axis: int) -> Tensor:
        """An equispaced grid, ends included, ``[per_axis ** d, d]`` in float64; the last coordinate runs fastest."""
        return self.scale(_product_grid([per_axis] * len(self.free)))


class Sampler:
    """Draws the points of one loss term; each draw continues where the last one ended.

    Args:
        region: the boxes the term lives on; points are shared out among them in turn.
        count: number of points.
        method: ``uniform`` (independent), ``sobol`` (scrambled low-discrepancy sequence) or
            ``equispaced`` (a grid with the ends included; every draw is the same).
        seed: seed of this sampler alone.

    Raises:
        ValueError: an equispaced grid of that many points would be lopsided or missing.
    """

    def __init__(self, region: tuple[Box, ...], count: int, method: Method, seed: int) -> None:
        self.region = region
        self.method = method
        self.seed = seed
        self.drawn = 0
        self._counts = [len(range(i, count, len(region))) for i in range(len(region))]
        self._sobol: dict[int, SobolEngine] = {}
        if method == "equispaced":
            for box, n in zip(region, self._counts, strict=True):
                _grid_shape(n, len(box.free))

    def draw(self) -> Tensor:
        """The next points, ``[count, d]`` in float64."""
        parts = [
            box.scale(self._unit(n, len(box.free), i))
            for i, (box, n) in enumerate(zip(self.region, self._counts, strict=True))
            if n
        ]
        self.drawn += 1
        return torch.cat(parts)

    def state_dict(self) -> dict[str, int]:
        """How many draws were made; with the seed this fixes all later ones."""
        return {"drawn": self.drawn}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue after ``state["drawn"]`` draws."""
        self.drawn = state["drawn"]
        self._sobol = {}

    def _unit(self, n: int, dimensions: int, part: int) -> Tensor:
        if dimensions == 0:
            return torch.zeros(n, 0, dtype=torch.float64)
        if self.method == "equispaced":
            return _product_grid(_grid_shape(n, dimensions))
        if self.method == "uniform":
            # One seed per draw, so that a resumed run needs no generator state.
            generator = torch.Generator().manual_seed(mix_seed(self.seed, part, self.drawn))
            return torch.rand(n, dimensions, generator=generator, dtype=torch.float64)
        if part not in self._sobol:
            engine = SobolEngine(dimensions, scramble=True, seed=mix_seed(self.seed, part))
            self._sobol[part] = engine.fast_forward(self.drawn * n)
        points: Tensor = self._sobol[part].draw(n, dtype=torch.float64)
        return points


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
