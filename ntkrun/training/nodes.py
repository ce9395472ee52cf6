"""Nodes at which a network is compared with the solution: of a grid, or of a low-discrepancy sequence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ntkrun.geometry import Box, Sampler

GRID_DIMENSIONS = 3  # up to these a grid is taken whatever its size
GRID_NODES = 2**20  # the most nodes of a grid in more dimensions
SOBOL_NODES = 2**16  # taken in its place


@dataclass(frozen=True)
class Grid:
    """The nodes of a product of axes; the last coordinate runs fastest.

    Attributes:
        axes: by coordinate letter, ``[G]`` each.
    """

    axes: Mapping[str, NDArray[np.float64]]

    @property
    def shape(self) -> tuple[int, ...]:
        """Nodes along every axis."""
        return tuple(len(axis) for axis in self.axes.values())

    def __len__(self) -> int:
        return math.prod(self.shape)

    def __str__(self) -> str:
        return "a grid of " + " x ".join(map(str, self.shape))

    def points(self, start: int, stop: int) -> Tensor:
        """The nodes from ``start`` to ``stop``, ``[stop - start, d]`` in float64."""
        rows = np.unravel_index(np.arange(start, min(stop, len(self))), self.shape)
        return torch.from_numpy(np.stack([axis[k] for axis, k in zip(self.axes.values(), rows, strict=True)], axis=1))


@dataclass(frozen=True)
class Scattered:
    """Points of a scrambled Sobol sequence in a box, the same in every run.

    Attributes:
        coordinates: letters of the columns.
        all: the points, ``[N, d]`` in float64.
    """

    coordinates: tuple[str, ...]
    all: Tensor

    @classmethod
    def of(cls, domain: Box) -> Scattered:
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


Nodes = Grid | Scattered


def node_count(domain: Box, per_axis: int) -> int:
    """How many nodes ``choose_nodes`` takes."""
    d = len(domain.coordinates)
    whole: int = per_axis**d
    return SOBOL_NODES if d > GRID_DIMENSIONS and whole > GRID_NODES else whole


def choose_nodes(domain: Box, per_axis: int) -> Nodes:
    """An equispaced grid with its ends; where that is too large in many dimensions, Sobol points."""
    if node_count(domain, per_axis) < per_axis ** len(domain.coordinates):
        return Scattered.of(domain)
    return Grid({c: np.linspace(domain.low[c], domain.high[c], per_axis) for c in domain.coordinates})
