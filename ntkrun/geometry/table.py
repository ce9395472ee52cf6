"""Measured points: rows of a table, drawn in turn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ntkrun.geometry.region import Draws, mix_seed


@dataclass(frozen=True, eq=False)
class Table:
    """Points that are given, each with what is known there: a region whose points are rows of a table.

    Draws take the rows in turn, in an order of their own in every round, so that all of them are used alike often.
    Where a draw has room for all rows, they keep their order.

    Attributes:
        coordinates: coordinate letters in input order.
        columns: names of the further columns, under which residuals read them.
        rows: ``[N, d + k]`` in float64; arrays of NumPy become tensors.

    Raises:
        ValueError: there are no rows, or they have another number of columns.
    """

    coordinates: tuple[str, ...]
    columns: tuple[str, ...]
    rows: Tensor

    def __post_init__(self) -> None:
        if not isinstance(self.rows, Tensor):
            object.__setattr__(self, "rows", torch.as_tensor(np.asarray(self.rows, dtype=np.float64)))
        width = len(self.coordinates) + len(self.columns)
        if self.rows.dim() != 2 or self.rows.shape[1] != width or not len(self.rows):
            raise ValueError(f"rows of shape {list(self.rows.shape)}; expected some of {width} columns")

    @property
    def dimension(self) -> int:
        """Single points."""
        return 0

    @property
    def measure(self) -> float:
        """The number of rows."""
        return float(len(self.rows))

    @property
    def least(self) -> int:
        """All rows."""
        return len(self.rows)

    def draw(self, draws: Draws) -> Tensor:
        """Rows, ``[number, count, d + k]``."""
        rows, total = self.rows, len(self.rows)
        if draws.count % total == 0:
            return rows.double().repeat(draws.count // total, 1).expand(draws.number, -1, -1)
        places = draws.first * draws.count + torch.arange(draws.number * draws.count)
        rounds, within = places // total, places % total
        chosen = torch.empty_like(places)
        for each in rounds.unique().tolist():
            generator = torch.Generator().manual_seed(mix_seed(draws.seed, each))
            own = rounds == each
            chosen[own] = torch.randperm(total, generator=generator)[within[own]]
        return rows[chosen].double().view(draws.number, draws.count, -1)
