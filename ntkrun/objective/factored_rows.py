"""All rows of a Jacobian as linear operators, from layer inputs and gradients, without the matrix itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from ntkrun.jacobian import Jacobian
from ntkrun.objective.jacobian_rows import Places, Rows
from ntkrun.objective.sharding import ALONE, Sharding

Piece = tuple[Places, Callable[[], Jacobian]]
"""The places of some rows among all, and what makes their Jacobian."""


class FactoredRows(Rows):
    """Rows that are never formed but for a few at a time.

    A product with them is a few matrix products over streams per layer. Their factors are much smaller than the
    rows, and stay in memory as far as there is room; the others are made anew for every product. Factors keep the
    dtype of the network, products are in float64.

    Args:
        count: N.
        columns: P.
        pieces: of this process; the rows of each fit into memory as a matrix.
        inside: a context within which pieces are made and used.
        like: a tensor of the device to compute on.
        memory: bytes that factors may take.
        ranks: the processes.
    """

    def __init__(
        self,
        count: int,
        columns: int,
        pieces: Sequence[Piece],
        inside: Callable[[], AbstractContextManager[None]],
        like: Tensor,
        memory: int,
        ranks: Sharding = ALONE,
    ) -> None:
        self.count = count
        self.columns = columns
        self.ranks = ranks
        self._pieces = pieces
        self._inside = inside
        self._zero = torch.zeros((), dtype=torch.float64, device=like.device)
        self._scale: Tensor | None = None
        self._squares: Tensor | None = None  # before scaling
        self._room = memory
        self._kept: dict[int, Jacobian] = {}

    def __iter__(self) -> Iterator[tuple[Places, Jacobian]]:
        with self._inside():
            for k, (places, make) in enumerate(self._pieces):
                yield places, self._part(k, make).double()

    def _part(self, k: int, make: Callable[[], Jacobian]) -> Jacobian:
        if k in self._kept:
            return self._kept[k]
        part = make()
        if part.nbytes <= self._room:
            self._room -= part.nbytes
            self._kept[k] = part
        return part

    def rescale(self, scale: Tensor) -> None:
        self._scale = scale if self._scale is None else self._scale * scale

    def squares(self) -> Tensor:
        if self._squares is None:
            self._squares = self._fill(lambda part: part.diagonal())
        return self._squares if self._scale is None else self._squares * self._scale.square()

    def matvec(self, vector: Tensor) -> Tensor:
        out = self._fill(lambda part: part.matvec(vector[None])[0])
        return out if self._scale is None else out * self._scale

    def rmatvec(self, vector: Tensor) -> Tensor:
        own = vector if self._scale is None else vector * self._scale
        total = self._zero.new_zeros(self.columns)
        for places, part in self:
            total += part.rmatvec(own[None, places])[0]
        return self.ranks.sum(total)

    def blocks(self) -> Iterator[tuple[Places, Tensor]]:
        """The rows themselves, a few at a time: with many vectors at once, products with these are faster."""
        for places, part in self:
            block = part.dense()
            yield places, block if self._scale is None else block * self._scale[places, None]

    def _fill(self, evaluate: Callable[[Jacobian], Tensor]) -> Tensor:
        out = self._zero.new_zeros(self.count)
        for places, part in self:
            out[places] = evaluate(part)
        return self.ranks.sum(out)
