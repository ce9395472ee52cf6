"""All rows of a Jacobian, held as one matrix or made anew a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ntkrun.objective.sharding import ALONE, Sharding

Places = slice | Tensor
"""Which rows a block holds: a slice, or their indices."""

Blocks = Callable[[], Iterator[tuple[Places, Tensor]]]
"""Makes blocks of rows, ``[n, P]`` of any dtype, each with the places of its rows among all."""

DOUBLE = torch.finfo(torch.float64)


class JacobianRows:
    """A matrix ``[N, P]`` in float64, in blocks of rows.

    Of several processes each has blocks of its own, and products with the transpose add up over all of them.

    Args:
        count: N.
        columns: P.
        make: the blocks.
        memory: bytes that blocks may take; where all of them fit, they are made once and kept.
        ranks: the processes.

    Attributes:
        held: whether the blocks are kept.
    """

    def __init__(self, count: int, columns: int, make: Blocks, memory: int, ranks: Sharding = ALONE) -> None:
        self.count = count
        self.columns = columns
        self.ranks = ranks
        self.scale: Tensor | None = None
        own = -(-count // ranks.count)
        self.held = own * columns * DOUBLE.bits // 8 <= memory
        self._make = make
        self._kept = list(self._made()) if self.held else []

    def __iter__(self) -> Iterator[tuple[Places, Tensor]]:
        yield from self._kept if self.held else self._made()

    def _made(self) -> Iterator[tuple[Places, Tensor]]:
        for places, block in self._make():
            double = block.double()
            yield places, double if self.scale is None else double * self.scale[places, None]

    def rescale(self, scale: Tensor) -> None:
        """Multiply every row by a number, ``[N]``."""
        self.scale = scale if self.scale is None else self.scale * scale
        self._kept = [(places, block.mul_(scale[places, None])) for places, block in self._kept]

    def squares(self) -> Tensor:
        """The squared norm of every row, ``[N]``: the diagonal of the kernel."""
        return self._fill(lambda block: torch.linalg.vecdot(block, block))

    def matvec(self, vector: Tensor) -> Tensor:
        """The matrix times a vector ``[P]``; returns ``[N]``."""
        return self._fill(lambda block: block @ vector)

    def rmatvec(self, vector: Tensor) -> Tensor:
        """The transpose times a vector ``[N]``; returns ``[P]``."""
        total = vector.new_zeros(self.columns)
        for places, block in self:
            total += vector[places] @ block
        return self.ranks.sum(total)

    def matrix(self) -> Tensor:
        """All rows, ``[N, P]``; of one process alone."""
        blocks = list(self)
        if len(blocks) == 1 and isinstance(blocks[0][0], slice):
            return blocks[0][1]
        out = blocks[0][1].new_empty(self.count, self.columns)
        for places, block in blocks:
            out[places] = block
        return out

    def _fill(self, evaluate: Callable[[Tensor], Tensor]) -> Tensor:
        out: Tensor | None = None
        for places, block in self:
            values = evaluate(block)
            if out is None:
                out = values.new_zeros(self.count)
            out[places] = values
        assert out is not None
        return self.ranks.sum(out)
