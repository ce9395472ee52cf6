"""What the points of a loss term are drawn from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

Method = Literal["uniform", "equispaced", "sobol"]

TIME = "t"  # the letter of time
TIME_ENDS = (f"{TIME}_low", f"{TIME}_high")  # parts of a boundary that are none of space


@dataclass(frozen=True)
class Draws:
    """Draws to be made from one region, one after the other.

    Attributes:
        first: how many were made before these.
        number: how many are wanted.
        count: points of each.
        method: how points are spread.
        seed: of the region, the same for all of its draws.
        unit: makes points of the unit cube of so many dimensions by the method, ``[number, count, dimensions]``.
    """

    first: int
    number: int
    count: int
    method: Method
    seed: int
    unit: Callable[[int], Tensor]

    def generator(self) -> torch.Generator:
        """Random numbers for these draws, the same whenever they are made."""
        return torch.Generator().manual_seed(mix_seed(self.seed, self.first))


@runtime_checkable
class Region(Protocol):
    """What points of a loss term are drawn from: a box, another shape, a table of measured points.

    A point is a row of d coordinates and k further columns, which residuals read by name as they read coordinates: a
    measured value, an outward normal. The network sees the coordinates alone.
    """

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Coordinate letters in input order, those of the problem's domain."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what every point carries beyond its coordinates."""
        ...

    @property
    def dimension(self) -> int:
        """Of the set: d of a solid, d - 1 of a surface, 0 of single points."""
        ...

    @property
    def measure(self) -> float:
        """Length, area or volume in that dimension; of single points their number."""
        ...

    @property
    def least(self) -> int:
        """The fewest points that represent it: 1, or all rows of a table."""
        ...

    def draw(self, draws: Draws) -> Tensor:
        """Points, ``[draws.number, draws.count, d + k]`` in float64.

        They depend on ``draws`` alone, so that resumed runs go on as if they had not stopped.
        """
        ...


def parts_named(parts: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """The parts of a boundary that are asked for; without names, all but the ends of time ``t``.

    Raises:
        ValueError: there is no part of a name, or no boundary.
    """
    if not parts:
        raise ValueError("the region has no boundary with parts")
    for name in names:
        if name not in parts:
            raise ValueError(f"the boundary has no part {name!r}, only {', '.join(parts)}")
    return tuple(names) or tuple(name for name in parts if name not in TIME_ENDS)


def chosen_by(shares: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """The piece that each number of the unit interval falls into, and how far it lies within that piece.

    Args:
        shares: of the pieces, cumulated from 0 to 1, ``[n + 1]``.
        u: the numbers, ``[N]``, contiguous.

    Returns:
        Numbers of pieces below n, and places from 0 to 1 in them, ``[N]`` each.
    """
    k = torch.searchsorted(shares, u, right=True).sub(1).clamp(0, len(shares) - 2)
    return k, ((u - shares[k]) / (shares[k + 1] - shares[k])).clamp(0, 1)


def mix_seed(*numbers: int) -> int:
    """One 63-bit seed from several integers (the multiplier of the PCG family)."""
    state = 0
    for number in numbers:
        state = ((state ^ (number + 0x9E3779B97F4A7C15)) * 6364136223846793005) % 2**63
        state ^= state >> 29
    return state


def product_grid(shape: list[int]) -> Tensor:
    """An equispaced grid of the unit cube, ``[prod(shape), len(shape)]``; the last dimension runs fastest."""
    axes = [torch.linspace(0, 1, n, dtype=torch.float64) if n > 1 else torch.tensor([0.5]).double() for n in shape]
    return torch.cartesian_prod(*axes).reshape(-1, len(shape))


def grid_shape(count: int, dimensions: int) -> list[int]:
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
