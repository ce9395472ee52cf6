"""All rows of a Jacobian: products with them, and the rows themselves, held as one matrix or made a few at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor

from ntkrun.objective.sharding import ALONE, Sharding

Places = slice | Tensor
"""Which rows a block holds: a slice, or their indices."""

Blocks = Callable[[], Iterator[tuple[Places, Tensor]]]
"""Makes blocks of rows, ``[n, P]`` of any dtype, each with the places of its rows among all."""

DOUBLE = torch.finfo(torch.float64)


class Rows(ABC):
    """A matrix ``[N, P]`` in float64, seen through products.

    Of several processes each has rows of its own, and all get the same products with all of them.

    Attributes:
        count: N.
        columns: P.
        ranks: the processes.
    """

    count: int
    columns: int
    ranks: Sharding

    @abstractmethod
    def rescale(self, scale: Tensor) -> None:
        """Multiply every row by a number, ``[N]``."""

    @abstractmethod
    def squares(self) -> Tensor:
        """The squared norm of every row, ``[N]``: the diagonal of the kernel."""

    @abstractmethod
    def matvec(self, vector: Tensor) -> Tensor:
        """The matrix times a vector ``[P]``; returns ``[N]``."""

    @abstractmethod
    def rmatvec(self, vector: Tensor) -> Tensor:
        """The transpose times a vector ``[N]``; returns ``[P]``."""

    @abstractmethod
    def blocks(self) -> Iterator[tuple[Places, Tensor]]:
        """The rows themselves, a few at a time, each block with the places of its rows."""

    def sums(self, buckets: Tensor, factors: Tensor, size: int) -> Tensor:
        """Sums of rows: row b is the sum of all rows in bucket b, each times its factor; ``[size, P]``.

        Args:
            buckets: of every row, ``[N]`` integers below ``size``.
            factors: of every row, ``[N]``.
            size: the number of buckets.
        """
        out = factors.new_zeros(size, self.columns)
        for places, block in self.blocks():
            out.index_add_(0, buckets[places], block * factors[places, None])
        return self.ranks.sum(out)

    def column_sums(self, buckets: Tensor, factors: Tensor, size: int) -> Tensor:
        """As ``sums`` with columns in place of rows, ``[N, size]``.

        Args:
            buckets: of every column, ``[P]`` integers below ``size``.
            factors: of every column, ``[P]``.
            size: the number of buckets.
        """
        out = factors.new_zeros(self.count, size)
        for places, block in self.blocks():
            out[places] = block.new_zeros(len(block), size).index_add_(1, buckets, block * factors)
        return self.ranks.sum(out)

    def matmat(self, matrix: Tensor) -> Tensor:
        """The product with a matrix of many columns, ``[P, m]``; returns ``[N, m]``."""
        out = matrix.new_zeros(self.count, matrix.shape[1])
        for places, block in self.blocks():
            out[places] = block @ matrix
        return self.ranks.sum(out)

    def rmatmat(self, matrix: Tensor) -> Tensor:
        """The product of the transpose with a matrix of many columns, ``[N, m]``; returns ``[P, m]``."""
        total = matrix.new_zeros(self.columns, matrix.shape[1])
        for places, block in self.blocks():
            total.addmm_(block.T, matrix[places])
        return self.ranks.sum(total)


class JacobianRows(Rows):
    """Rows in blocks that are matrices.

    Args:
        count: N.
        columns: P.
        make: the blocks.
        memory: bytes that blocks may take; where all of them fit, they are made once and kept.
        ranks: the processes.

    Attributes:
        held: whether the blocks are kept.
        fits: whether all rows of all processes fit into that memory as one matrix.
    """

    def __init__(self, count: int, columns: int, make: Blocks, memory: int, ranks: Sharding = ALONE) -> None:
        self.count = count
        self.columns = columns
        self.ranks = ranks
        self.scale: Tensor | None = None
        row = columns * DOUBLE.bits // 8
        self.held = -(-count // ranks.count) * row <= memory
        self.fits = count * row <= memory
        self._memory = memory
        self._make = make
        self._kept = list(self._made()) if self.held else []

    def blocks(self) -> Iterator[tuple[Places, Tensor]]:
        yield from self._kept if self.held else self._made()

    def _made(self) -> Iterator[tuple[Places, Tensor]]:
        for places, block in self._make():
            double = block.double()
            yield places, double if self.scale is None else double * self.scale[places, None]

    def rescale(self, scale: Tensor) -> None:
        self.scale = scale if self.scale is None else self.scale * scale
        self._kept = [(places, block.mul_(scale[places, None])) for places, block in self._kept]

    def squares(self) -> Tensor:
        return self._fill(lambda block: torch.linalg.vecdot(block, block))

    def matvec(self, vector: Tensor) -> Tensor:
        return self._fill(lambda block: block @ vector)

    def rmatvec(self, vector: Tensor) -> Tensor:
        total = vector.new_zeros(self.columns)
        for places, block in self.blocks():
            total += vector[places] @ block
        return self.ranks.sum(total)

    def matrix(self) -> Tensor:
        """All rows of all processes, ``[N, P]``."""
        blocks = list(self.blocks())
        if len(blocks) == 1 and isinstance(blocks[0][0], slice) and self.ranks.count == 1:
            return blocks[0][1]
        out = blocks[0][1].new_zeros(self.count, self.columns)
        for places, block in blocks:
            out[places] = block
        return self.ranks.sum(out)

    def strips(self) -> Iterator[Tensor]:
        """All rows of all processes in this one's share of the columns, a few at a time, ``[N, w]``.

        Rows that are not held are made for each. Every process hands its own rows to the others, and no more of them
        than these ask for: P / R columns of its N / R rows to every one of R processes.
        """
        ranks = self.ranks
        width = ranks.count * max(1, self._memory // (self.count * DOUBLE.bits // 8))
        owners: list[Tensor] | None = None
        for start in range(0, self.columns, width):
            stop = min(start + width, self.columns)
            edges = [start + (stop - start) * rank // ranks.count for rank in range(ranks.count + 1)]
            own, places = self._strip(slice(start, stop))
            owners = self._owners(places) if owners is None else owners
            parts = [own[:, i - start : j - start].flatten() for i, j in pairwise(edges)]
            share = edges[ranks.rank + 1] - edges[ranks.rank]
            out = own.new_empty(self.count, share)
            received = ranks.exchange(parts, [len(theirs) * share for theirs in owners])
            for theirs, part in zip(owners, received, strict=True):
                out[theirs] = part.view(len(theirs), share)
            yield out

    def _strip(self, columns: slice) -> tuple[Tensor, Tensor]:
        """Some columns of the rows of this process, and the places of these rows in ascending order."""
        everywhere: Tensor | None = None
        strips, places = [], []
        for place, block in self.blocks():
            if everywhere is None:
                everywhere = torch.arange(self.count, device=block.device)
            strips.append(block[:, columns])
            places.append(everywhere[place])
        order = torch.cat(places).argsort()
        return torch.cat(strips)[order], torch.cat(places)[order]

    def _owners(self, places: Tensor) -> list[Tensor]:
        """The places of the rows of every process, in ascending order, from those of this one."""
        owner = places.new_zeros(self.count)
        owner[places] = self.ranks.rank
        self.ranks.sum(owner)
        return [torch.nonzero(owner == rank)[:, 0] for rank in range(self.ranks.count)]

    def _fill(self, evaluate: Callable[[Tensor], Tensor]) -> Tensor:
        out: Tensor | None = None
        for places, block in self.blocks():
            values = evaluate(block)
            if out is None:
                out = values.new_zeros(self.count)
            out[places] = values
        assert out is not None
        return self.ranks.sum(out)
