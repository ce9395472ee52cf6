"""Shapes: regions with bounds, that tell what they contain, and with a boundary whose parts have names."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ntkrun.geometry.box import Box, Face
from ntkrun.geometry.region import Draws, Region, parts_named
from ntkrun.geometry.rule import Rule


@runtime_checkable
class Domain(Region, Protocol):
    """A region that a problem may live on: a box, a shape, the product of both."""

    @property
    def low(self) -> Mapping[str, float]:
        """Lower bounds by coordinate letter, in input order."""
        ...

    @property
    def high(self) -> Mapping[str, float]:
        """Upper bounds by coordinate letter."""
        ...

    @property
    def free(self) -> tuple[str, ...]:
        """Coordinates along which it is extended."""
        ...

    def contains(self, points: Tensor, slack: float = 0.0) -> Tensor:
        """Which of the points, ``[N, d]``, lie in it, or within ``slack`` of it, ``[N]``."""
        ...

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts of its boundary."""
        ...

    def boundary(self, *names: str) -> tuple[Region, ...]:
        """The parts of its boundary with these names, with outward normals; all but the ends of time without names."""
        ...

    def face(self, coordinate: str, end: Literal["low", "high"]) -> Domain:
        """The part at one end of a coordinate along which it is a box, such as the beginning of time."""
        ...

    def faces(self, *coordinates: str) -> tuple[Domain, ...]:
        """Both faces of each of the given coordinates."""
        ...


class Shape(ABC):
    """A region that unit cubes are mapped onto by equal measures: solids, surfaces and curves.

    Subclasses are a ``Region``, and where they have a boundary, a ``Domain``.
    """

    @property
    @abstractmethod
    def low(self) -> Mapping[str, float]:
        """Lower bounds by coordinate letter, in input order."""

    @property
    @abstractmethod
    def high(self) -> Mapping[str, float]:
        """Upper bounds by coordinate letter."""

    @property
    @abstractmethod
    def dimension(self) -> int:
        """Of the shape, and of the cube that ``scale`` maps onto it."""

    @property
    @abstractmethod
    def measure(self) -> float:
        """Length, area or volume."""

    @abstractmethod
    def scale(self, unit: Tensor) -> Tensor:
        """Map points of the unit cube, ``[..., dimension]`` in float64, to points and columns, ``[..., d + k]``.

        It is a function of each point alone: points that are spread evenly in the cube are so in the shape, and every
        draw has as many as are asked for.
        """

    @abstractmethod
    def contains(self, points: Tensor, slack: float = 0.0) -> Tensor:
        """Which of the points, ``[N, d]``, lie in it, or within ``slack`` of it, ``[N]``."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts of its boundary."""
        return ()

    def part(self, name: str) -> Sequence[Shape]:
        """One of ``parts``, in pieces; points have outward normals, as ``nx`` and ``ny``."""
        raise ValueError(f"there is no part {name!r} of a boundary")

    def boundary(self, *names: str) -> tuple[Shape, ...]:
        """The parts of its boundary with these names, with outward normals; all but the ends of time without names.

        Raises:
            ValueError: there is no part of a name.
        """
        return tuple(piece for name in parts_named(self.parts, names) for piece in self.part(name))

    def face(self, coordinate: str, end: Literal["low", "high"]) -> Shape:
        """The part at one end of a coordinate along which it is a box, such as the beginning of time.

        Raises:
            ValueError: it is no box along that coordinate.
        """
        raise ValueError(f"the shape is no box along {coordinate}; its boundary has the parts {', '.join(self.parts)}")

    def faces(self, *coordinates: str) -> tuple[Shape, ...]:
        """Both faces of each of the given coordinates.

        Raises:
            ValueError: see ``face``.
        """
        ends: tuple[Literal["low", "high"], ...] = ("low", "high")
        return tuple(self.face(c, end) for c, end in itertools.product(coordinates, ends))

    def __str__(self) -> str:
        ends = ", ".join(f"{c} in [{self.low[c]:.6g}, {self.high[c]:.6g}]" for c in self.coordinates)
        kind = {1: "length", 2: "area", 3: "volume"}.get(self.dimension, "measure")
        parts = f", boundary: {', '.join(self.parts)}" if self.parts else ""
        return f"{type(self).__name__.lower()} of {kind} {self.measure:.4g} with {ends}{parts}"

    def __repr__(self) -> str:
        return f"<{self}>"

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Coordinate letters in input order."""
        return tuple(self.low)

    @property
    def free(self) -> tuple[str, ...]:
        """Coordinates along which it is extended."""
        return tuple(c for c in self.low if self.high[c] > self.low[c])

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the components of the normal on a boundary; none elsewhere."""
        return ()

    @property
    def least(self) -> int:
        """One point represents a shape."""
        return 1

    def quadrature(self, nodes: int) -> Rule:
        """A rule for integrals over the shape, of so many nodes per direction and piece.

        Raises:
            ValueError: there is none for shapes of this kind.
        """
        raise ValueError(f"no rule of quadrature is known over a {type(self).__name__}")

    def draw(self, draws: Draws) -> Tensor:
        """Points, ``[number, count, d + k]``.

        Raises:
            ValueError: equispaced ones are asked for, which only boxes and curves have.
        """
        if draws.method == "equispaced" and self.dimension > 1:
            raise ValueError("equispaced points fill boxes alone; take sobol or uniform ones")
        return self.scale(draws.unit(self.dimension))

    def __mul__(self, other: Factor) -> Product:
        """The product with a region of other coordinates, such as an interval of time."""
        return Product((*_factors(self), *_factors(other)))

    def __rmul__(self, other: Box) -> Product:
        return Product((other, *_factors(self)))


Factor = Shape | Box | Face


@dataclass(frozen=True, repr=False)
class Product(Shape):
    """The product of shapes and boxes of different coordinates.

    Attributes:
        factors: these, in the order of the coordinates.

    Raises:
        ValueError: two of them share a coordinate.
    """

    factors: tuple[Factor, ...]

    def __post_init__(self) -> None:
        letters = [c for factor in self.factors for c in factor.coordinates]
        if len(set(letters)) < len(letters):
            raise ValueError(f"a product of regions with the coordinates {', '.join(letters)}, which are to differ")

    @property
    def low(self) -> Mapping[str, float]:
        return {c: bound for factor in self.factors for c, bound in factor.low.items()}

    @property
    def high(self) -> Mapping[str, float]:
        return {c: bound for factor in self.factors for c, bound in factor.high.items()}

    @property
    def dimension(self) -> int:
        return sum(factor.dimension for factor in self.factors)

    @property
    def measure(self) -> float:
        return math.prod(factor.measure for factor in self.factors)

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(c for factor in self.factors for c in factor.columns)

    def scale(self, unit: Tensor) -> Tensor:
        cubes = unit.split([factor.dimension for factor in self.factors], dim=-1)
        points = [factor.scale(cube) for factor, cube in zip(self.factors, cubes, strict=True)]
        widths = [len(factor.coordinates) for factor in self.factors]
        places = [x[..., :width] for x, width in zip(points, widths, strict=True)]
        return torch.cat([*places, *(x[..., width:] for x, width in zip(points, widths, strict=True))], dim=-1)

    def quadrature(self, nodes: int) -> Rule:
        """The product of the rules of the factors."""
        rules = [factor.quadrature(nodes) for factor in self.factors]
        chosen = [each.ravel() for each in np.meshgrid(*[np.arange(len(r.weights)) for r in rules], indexing="ij")]
        points = [rule.points[k] for rule, k in zip(rules, chosen, strict=True)]
        widths = [len(factor.coordinates) for factor in self.factors]
        places = [x[:, :width] for x, width in zip(points, widths, strict=True)]
        columns = [x[:, width:] for x, width in zip(points, widths, strict=True)]
        weights = np.prod([rule.weights[k] for rule, k in zip(rules, chosen, strict=True)], axis=0)
        return Rule(np.concatenate([*places, *columns], axis=1), weights, sum(rule.error for rule in rules))

    def contains(self, points: Tensor, slack: float = 0.0) -> Tensor:
        columns = points.split([len(factor.coordinates) for factor in self.factors], dim=1)
        inside = [factor.contains(each, slack) for factor, each in zip(self.factors, columns, strict=True)]
        return torch.stack(inside).all(0)

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(name for factor in self.factors if not isinstance(factor, Face) for name in factor.parts)

    def part(self, name: str) -> tuple[Product, ...]:
        return tuple(
            Product((*self.factors[:i], piece, *self.factors[i + 1 :]))
            for i, factor in enumerate(self.factors)
            if not isinstance(factor, Face) and name in factor.parts
            for piece in factor.part(name)
        )

    def face(self, coordinate: str, end: Literal["low", "high"]) -> Product:
        faces = [f.face(coordinate, end) if isinstance(f, Box) and coordinate in f.low else f for f in self.factors]
        if tuple(faces) == self.factors:
            super().face(coordinate, end)
        return Product(tuple(faces))

    def with_interval(self, coordinate: str, low: float, high: float) -> Product:
        """The product with another interval along a coordinate of a box among the factors."""
        return Product(
            tuple(
                Box({**f.low, coordinate: low}, {**f.high, coordinate: high})
                if isinstance(f, Box) and coordinate in f.low
                else f
                for f in self.factors
            )
        )


def _factors(region: Factor) -> tuple[Factor, ...]:
    return region.factors if isinstance(region, Product) else (region,)
