"""Boxes in space and time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ntkrun.geometry.region import Draws, product_grid


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
    def columns(self) -> tuple[str, ...]:
        """None: points of a box have coordinates alone."""
        return ()

    @property
    def dimension(self) -> int:
        """The number of free coordinates."""
        return len(self.free)

    @property
    def least(self) -> int:
        """One point represents a box."""
        return 1

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

    def draw(self, draws: Draws) -> Tensor:
        """Points, ``[number, count, d]``."""
        return self.scale(draws.unit(self.dimension))

    def grid(self, per_axis: int) -> Tensor:
        """An equispaced grid, ends included, ``[per_axis ** d, d]`` in float64; the last coordinate runs fastest."""
        return self.scale(product_grid([per_axis] * len(self.free)))
