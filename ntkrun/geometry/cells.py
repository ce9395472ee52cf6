"""Regions that only tell what they contain: points by a grid of cells that may hold some of them, and by rejection."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.quasirandom import SobolEngine

ATTEMPTS = 10_000  # for a point, before a region is taken for empty
MEASURED = 2**16  # points that a share is measured with


class Cells:
    """Some cells of a grid over a box, onto which it maps the unit cube by equal volumes.

    Coordinate after coordinate is drawn given those before (Rosenblatt, Ann. Math. Stat. 23, 1952), so that Sobol
    points of the cube are spread evenly over the cells.

    Args:
        low, high: corners of the box, ``[d]`` in float64.
        taken: which cells, ``[n, n, ..., n]``; at least one.
    """

    def __init__(self, low: Tensor, high: Tensor, taken: Tensor) -> None:
        self._low, self._width = low, (high - low) / len(taken)
        self.volume = float(self._width.prod() * taken.sum())
        weights, self._tables = taken.double(), list[Tensor]()
        for _ in range(taken.dim()):
            cumulated = weights.cumsum(-1)
            first = torch.nn.functional.pad(cumulated, (1, 0))
            self._tables.insert(0, (first / first[..., -1:].clamp_min(1)).contiguous())
            weights = cumulated[..., -1]

    def scale(self, unit: Tensor) -> Tensor:
        """Map points of the unit cube, ``[N, d]``, into the cells."""
        places, cells = [], list[Tensor]()
        for table, u in zip(self._tables, unit.T.contiguous(), strict=True):
            shares = table[tuple(cells)] if cells else table.expand(len(u), -1)
            k = torch.searchsorted(shares.contiguous(), u[:, None], right=True) - 1
            k = torch.minimum(k, (shares[:, :-1] < shares[:, 1:]).double().cumsum(1).argmax(1, keepdim=True))
            start, end = shares.gather(1, k), shares.gather(1, k + 1)
            places.append((k + ((u[:, None] - start) / (end - start)).clamp(0, 1))[:, 0])
            cells.append(k[:, 0])
        return self._low + self._width * torch.stack(places, dim=1)


def accepted(unit: Tensor, draw: Callable[[Tensor], Tensor], keep: Callable[[Tensor], Tensor]) -> Tensor:
    """Points that are kept, ``[..., columns]``, one for every point of the unit cube, ``[..., dimension]``.

    Where the image of a point is not kept, those of others follow, which are made from its bits: every point has an
    image that depends on it alone, and whose distribution is the uniform one over what is kept.

    Raises:
        ValueError: nothing is ever kept.
    """
    flat = unit.reshape(-1, unit.shape[-1])
    points = draw(flat)
    left = (~keep(points)).nonzero()[:, 0]
    for attempt in range(ATTEMPTS):
        if not len(left):
            return points.view(*unit.shape[:-1], -1)
        points[left] = draw(_rehashed(flat[left], attempt))
        left = left[~keep(points[left])]
    raise ValueError("a shape of which next to nothing is left")


def share_kept(dimension: int, draw: Callable[[Tensor], Tensor], keep: Callable[[Tensor], Tensor]) -> float:
    """The share of the unit cube whose images are kept, by ``MEASURED`` Sobol points."""
    unit = SobolEngine(dimension, scramble=True, seed=0).draw(MEASURED, dtype=torch.float64)
    return float(keep(draw(unit)).double().mean())


def _rehashed(unit: Tensor, attempt: int) -> Tensor:
    """Other points of the unit cube, from the bits of these (the finaliser of SplitMix64)."""
    state = np.full(len(unit), attempt, dtype=np.uint64)
    for column in unit.numpy().T:
        state = _mixed(state ^ np.ascontiguousarray(column).view(np.uint64))
    steps = np.arange(1, unit.shape[1] + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return torch.from_numpy((_mixed(state[:, None] + steps) >> np.uint64(11)) * 2.0**-53)


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
