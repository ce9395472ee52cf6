"""Boxes in space and time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ntkrun.geometry.region import Draws, parts_named, product_grid
from ntkrun.geometry.rule import Rule, cube_rule


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
        """The part of the box at one end of one coordinate.

        Raises:
            ValueError: there is no such coordinate, or end.
        """
        if coordinate not in self.low:
            raise ValueError(f"the box has no coordinate {coordinate!r}, only {', '.join(self.low)}")
        if end not in ("low", "high"):
            raise ValueError(f"a box has no end {end!r} along {coordinate}, only 'low' and 'high'")
        value = (self.low if end == "low" else self.high)[coordinate]
        return Box({**self.low, coordinate: value}, {**self.high, coordinate: value})

    def faces(self, *coordinates: str) -> tuple[Box, ...]:
        """Both faces of each of the given coordinates.

        Raises:
            ValueError: there is no such coordinate.
        """
        ends: tuple[Literal["low", "high"], ...] = ("low", "high")
        return tuple(self.face(c, end) for c, end in itertools.product(coordinates, ends))

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts of the boundary: ``x_low`` and ``x_high`` of a free coordinate ``x``."""
        return tuple(f"{c}_{end}" for c in self.free for end in ("low", "high"))

    def part(self, name: str) -> tuple[Face, ...]:
        """One of ``parts``; points have outward normals."""
        coordinate, _, end = name.rpartition("_")
        return (Face(self.face(coordinate, "low" if end == "low" else "high"), coordinate, -1 if end == "low" else 1),)

    def boundary(self, *names: str) -> tuple[Face, ...]:
        """The parts of the boundary with these names, with outward normals; all but the ends of time without names.

        Raises:
            ValueError: there is no part of a name.
        """
        return tuple(piece for name in parts_named(self.parts, names) for piece in self.part(name))

    def contains(self, points: Tensor, slack: float = 0.0) -> Tensor:
        """Which of the points, ``[N, d]``, lie in the box, up to ``slack`` along every coordinate, ``[N]``."""
        low, high = (points.new_tensor(list(ends.values())) for ends in (self.low, self.high))
        inside: Tensor = (points >= low - slack) & (points <= high + slack)
        return inside.all(1)

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

    def quadrature(self, nodes: int) -> Rule:
        """The product of Gauss-Legendre rules of ``nodes`` each, exact for polynomials of degree 2 nodes - 1."""
        return cube_rule(self.scale, self.dimension, self.measure, nodes)


@dataclass(frozen=True)
class Face:
    """A side of a box whose points carry its outward normal.

    Attributes:
        box: the side, an interval of length zero along ``coordinate``.
        coordinate: along the normal.
        sign: of the normal there.
        axes: coordinates whose components of the normal points carry; all, if none are named.
    """

    box: Box
    coordinate: str
    sign: Literal[-1, 1]
    axes: tuple[str, ...] = ()

    @property
    def low(self) -> Mapping[str, float]:
        """Lower bounds by coordinate letter, in input order."""
        return self.box.low

    @property
    def high(self) -> Mapping[str, float]:
        """Upper bounds by coordinate letter."""
        return self.box.high

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Coordinate letters in input order."""
        return self.box.coordinates

    @property
    def columns(self) -> tuple[str, ...]:
        """The components of the normal, as ``nx``."""
        return tuple(f"n{c}" for c in self.axes or self.coordinates)

    @property
    def dimension(self) -> int:
        """The number of free coordinates."""
        return self.box.dimension

    @property
    def measure(self) -> float:
        """Length or area along the free coordinates; 1 of a single point."""
        return self.box.measure

    @property
    def least(self) -> int:
        """One point represents a side."""
        return 1

    def scale(self, unit: Tensor) -> Tensor:
        """Map points of the unit cube, ``[..., dimension]``, to points and normals, ``[..., d + k]``."""
        points = self.box.scale(unit)
        normal = [float(self.sign) if c == self.coordinate else 0.0 for c in self.axes or self.coordinates]
        return torch.cat([points, points.new_tensor(normal).expand(*points.shape[:-1], -1)], dim=-1)

    def contains(self, points: Tensor, slack: float = 0.0) -> Tensor:
        """Which of the points, ``[N, d]``, lie in the side, or within ``slack`` of it, ``[N]``."""
        return self.box.contains(points, slack)

    def draw(self, draws: Draws) -> Tensor:
        """Points and normals, ``[number, count, d + k]``."""
        return self.scale(draws.unit(self.dimension))

    def quadrature(self, nodes: int) -> Rule:
        """That of the box, with normals."""
        return cube_rule(self.scale, self.dimension, self.measure, nodes)
