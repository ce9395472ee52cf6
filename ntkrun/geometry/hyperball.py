"""Balls in any number of dimensions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ntkrun.geometry.shape import Shape

TOUCH = 1e-7  # distance, as a part of the radius, at which a point still counts as one of the ball, or of its surface
HALVINGS = 54  # of an interval, to the last digit of float64


@dataclass(frozen=True, repr=False)
class HyperBall(Shape):
    """A ball in any number of dimensions, made by ``hyperball``; its boundary is one part.

    Attributes:
        letters: of the coordinates.
        centre: its centre.
        radius: its radius.
        name: of its surface.
    """

    letters: tuple[str, ...]
    centre: tuple[float, ...]
    radius: float
    name: str

    @property
    def low(self) -> Mapping[str, float]:
        return {c: x - self.radius for c, x in zip(self.letters, self.centre, strict=True)}

    @property
    def high(self) -> Mapping[str, float]:
        return {c: x + self.radius for c, x in zip(self.letters, self.centre, strict=True)}

    @property
    def dimension(self) -> int:
        return len(self.letters)

    @cached_property
    def measure(self) -> float:
        """Its volume, pi^(d/2) r^d / Gamma(d/2 + 1)."""
        d = self.dimension
        return float(math.pi ** (d / 2) * self.radius**d / math.gamma(d / 2 + 1))

    def scale(self, unit: Tensor) -> Tensor:
        """The d-th power of the distance from the centre is uniform, and so is the direction."""
        distance = self.radius * unit[..., :1] ** (1 / self.dimension)
        points: Tensor = unit.new_tensor(self.centre) + distance * directions(unit[..., 1:])
        return points

    def contains(self, points: Tensor, slack: float = 0.0) -> Tensor:
        return self.distance(points) <= self.radius * (1 + TOUCH) + slack

    def distance(self, points: Tensor) -> Tensor:
        """From the centre, of points ``[N, d]``, ``[N]``."""
        distance: Tensor = (points.double() - torch.tensor(self.centre, dtype=torch.float64)).norm(dim=1)
        return distance

    @property
    def parts(self) -> tuple[str, ...]:
        return (self.name,)

    def part(self, name: str) -> tuple[HyperSphere]:
        return (HyperSphere(self),)


@dataclass(frozen=True, repr=False)
class HyperSphere(Shape):
    """The surface of a ball, with outward normals.

    Attributes:
        ball: the ball.
    """

    ball: HyperBall

    @property
    def low(self) -> Mapping[str, float]:
        return self.ball.low

    @property
    def high(self) -> Mapping[str, float]:
        return self.ball.high

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f"n{c}" for c in self.ball.letters)

    @property
    def dimension(self) -> int:
        return self.ball.dimension - 1

    @property
    def measure(self) -> float:
        """Its area, d / r times the volume."""
        return self.ball.measure * self.ball.dimension / self.ball.radius

    def scale(self, unit: Tensor) -> Tensor:
        normal = directions(unit)
        return torch.cat([unit.new_tensor(self.ball.centre) + self.ball.radius * normal, normal], dim=-1)

    def contains(self, points: Tensor, slack: float = 0.0) -> Tensor:
        return (self.ball.distance(points) - self.ball.radius).abs() <= self.ball.radius * TOUCH + slack


def hyperball(centre: Sequence[float], radius: float, name: str = "sphere", *, letters: Sequence[str]) -> HyperBall:
    """A ball in as many dimensions as its centre has coordinates, whose surface has a name.

    Raises:
        ValueError: there are fewer than two coordinates, not as many letters, or the radius is not positive.
    """
    if len(centre) != len(letters) or len(centre) < 2:
        raise ValueError(
            f"a ball about {tuple(centre)} with the letters {', '.join(letters)}, expected two or more each"
        )
    if not 0 < radius < math.inf or not all(map(math.isfinite, centre)):
        raise ValueError(f"a ball about {tuple(centre)} of radius {radius}, expected finite numbers, a positive radius")
    return HyperBall(tuple(letters), tuple(map(float, centre)), float(radius), name)


def directions(unit: Tensor) -> Tensor:
    """Map the unit cube, ``[..., d - 1]``, onto unit vectors, ``[..., d]``, by equal measures.

    Coordinates are taken in pairs. The squared lengths of n pairs have the distribution of the pieces of an interval
    that is broken at n - 1 uniform points, each pair has a uniform angle; in odd dimensions a coordinate is left over.
    """
    d = unit.shape[-1] + 1
    if d % 2:
        height = _height(unit[..., 0], (d - 3) // 2)[..., None]
        return torch.cat([height, (1 - height**2).clamp_min(0).sqrt() * directions(unit[..., 1:])], dim=-1)
    pairs = d // 2
    squares: list[Tensor] = []
    left = unit.new_ones(unit.shape[:-1])
    for k in range(pairs - 1):
        broken = left * (1 - (1 - unit[..., k]) ** (1 / (pairs - 1 - k)))
        squares, left = [*squares, broken], left - broken
    length = torch.stack([*squares, left], dim=-1).clamp_min(0).sqrt()
    angle = 2 * math.pi * unit[..., pairs - 1 :]
    return torch.stack([length * angle.cos(), length * angle.sin()], dim=-1).flatten(-2)


def _height(share: Tensor, power: int) -> Tensor:
    """The height below which this share of a density (1 - h^2)^power on [-1, 1] lies, by bisection."""
    factors = [(-1) ** k * math.comb(power, k) / (2 * k + 1) for k in range(power + 1)]

    def below(height: Tensor) -> Tensor:
        integral = torch.zeros_like(height)
        for factor in reversed(factors):
            integral = integral * height**2 + factor
        share_below: Tensor = 0.5 + integral * height / (2 * sum(factors))
        return share_below

    low, high = torch.full_like(share, -1.0), torch.ones_like(share)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        under = below(middle) < share
        low, high = torch.where(under, middle, low), torch.where(under, high, middle)
    return (low + high) / 2
