"""Nodes at which a network is compared with the solution: of a grid, inside of a shape, or of a Sobol sequence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ntkrun.geometry import Box, Domain, Product, Sampler
from ntkrun.geometry.shape import Factor

GRID_DIMENSIONS = 3  # up to these a grid is taken whatever its size
GRID_NODES = 2**20  # the most nodes of a grid in more dimensions
SOBOL_NODES = 2**16  # taken in its place
AT_A_TIME = 2**16  # nodes of which a shape is asked whether it contains them


@dataclass(frozen=True)
class Grid:
    """The nodes of a product of axes, or those of them that lie inside of a shape; the last coordinate runs fastest.

    Attributes:
        axes: by coordinate letter, ``[G]`` each.
        inside: the places of the nodes that lie inside among all, ascending; ``None`` where all do.
    """

    axes: Mapping[str, NDArray[np.float64]]
    inside: NDArray[np.intp] | None = None

    @classmethod
    def over(cls, domain: Domain, axes: Mapping[str, NDArray[np.float64]]) -> Grid:
        """The nodes of a product of axes that lie in a domain."""
        if isinstance(domain, Box):
            return cls(axes)
        return cls(axes, np.flatnonzero(_inside(domain, axes)))

    @property
    def shape(self) -> tuple[int, ...]:
        """Nodes along every axis."""
        return tuple(len(axis) for axis in self.axes.values())

    def __len__(self) -> int:
        return math.prod(self.shape) if self.inside is None else len(self.inside)

    def __str__(self) -> str:
        whole = "a grid of " + " x ".join(map(str, self.shape))
        return whole if self.inside is None else f"the {len(self)} nodes inside of {whole}"

    def points(self, start: int, stop: int) -> Tensor:
        """The nodes from ``start`` to ``stop``, ``[stop - start, d]`` in float64."""
        places = np.arange(start, min(stop, len(self)))
        rows = np.unravel_index(places if self.inside is None else self.inside[places], self.shape)
        return torch.from_numpy(np.stack([axis[k] for axis, k in zip(self.axes.values(), rows, strict=True)], axis=1))

    def spread(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values at the nodes, ``[N, fields]``, on the whole grid, ``[*shape, fields]``: NaN outside."""
        if self.inside is not None:
            whole = np.full((math.prod(self.shape), values.shape[1]), np.nan)
            whole[self.inside] = values
            values = whole
        return values.reshape(*self.shape, -1)


@dataclass(frozen=True)
class Scattered:
    """Points of a scrambled Sobol sequence in a domain, the same in every run.

    Attributes:
        coordinates: letters of the columns.
        all: the points, ``[N, d]`` in float64.
    """

    coordinates: tuple[str, ...]
    all: Tensor

    @classmethod
    def of(cls, domain: Domain) -> Scattered:
        """``SOBOL_NODES`` points of a domain."""
        return cls(domain.coordinates, Sampler((domain,), SOBOL_NODES, "sobol", 0).draw())

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of points."""
        return (len(self.all),)

    def __len__(self) -> int:
        return len(self.all)

    def __str__(self) -> str:
        return f"{len(self)} Sobol points"

    def points(self, start: int, stop: int) -> Tensor:
        """The points from ``start`` to ``stop``."""
        return self.all[start:stop]

    def spread(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values at the nodes, ``[N, fields]``, as they are."""
        return values


Nodes = Grid | Scattered


def node_count(domain: Domain, per_axis: int) -> int:
    """How many nodes ``choose_nodes`` takes, those of a grid outside of a shape included."""
    d = len(domain.coordinates)
    whole: int = per_axis**d
    return SOBOL_NODES if d > GRID_DIMENSIONS and whole > GRID_NODES else whole


def choose_nodes(domain: Domain, per_axis: int) -> Nodes:
    """An equispaced grid with its ends; where that is too large in many dimensions, Sobol points."""
    if node_count(domain, per_axis) < per_axis ** len(domain.coordinates):
        return Scattered.of(domain)
    return Grid.over(domain, {c: np.linspace(domain.low[c], domain.high[c], per_axis) for c in domain.coordinates})


def _inside(domain: Domain | Factor, axes: Mapping[str, NDArray[np.float64]]) -> NDArray[np.bool_]:
    """Which nodes lie in the domain, ``[*grid]``; of a product of regions, each is asked about its own axes."""
    if isinstance(domain, Product):
        known = np.ones((), dtype=bool)
        for factor in domain.factors:
            own = _inside(factor, {c: axes[c] for c in factor.coordinates})
            known = known[..., *[None] * own.ndim] & own
        return known
    whole = Grid(axes)
    parts = [domain.contains(whole.points(k, k + AT_A_TIME)).numpy() for k in range(0, len(whole), AT_A_TIME)]
    return np.concatenate(parts).reshape(whole.shape)
