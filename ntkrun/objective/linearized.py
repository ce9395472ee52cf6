"""The rows of a batch with their Jacobian in blocks, and the residual system of a step made from them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor

from ntkrun.objective.batch import Batch
from ntkrun.objective.chunked import ChunkedObjective, cut
from ntkrun.objective.factored_rows import FactoredRows, Piece
from ntkrun.objective.jacobian_rows import JacobianRows, Places, Rows
from ntkrun.objective.objective import Objective

INTERMEDIATES = 4  # times the size of a block that forming it may take
REUSED = 2**24  # bytes of a block; C libraries give the memory of much larger ones back, and every page costs time anew


class LinearizedRows:
    """Residual rows r of all terms at the present parameters, and their Jacobian.

    Args:
        objective: the problem and the network.
        batch: the points with their weights.
        factored: whether the Jacobian is seen through products alone; its rows are formed otherwise.

    Attributes:
        parameters: the present ones, ``[P]`` in float64.
        residual: the rows, ``[N]`` in float64, term by term; ``Objective.residuals`` has the order within a term.
        rows: the Jacobian; both are multiplied by ``weigh``.
    """

    def __init__(self, objective: Objective, batch: Batch, factored: bool = False) -> None:
        self._objective = objective
        self._batch = batch
        self._counts = objective.row_counts(batch)
        self._scale: Tensor | None = None
        self.parameters = objective.parameter_vector().double()
        self.residual = self._rows()
        self.rows = self._factored() if factored else self._formed()

    def losses(self) -> Tensor:
        """L_i of every term, ``[n]``, of the network's dtype; before ``weigh``."""
        return torch.stack([r.square().mean() for r in self.residual.split(self._counts)]).to(self._objective.like)

    def diagonals(self) -> tuple[Tensor, ...]:
        """diag(K_ii) of every term, ``[N_i]`` points, of the network's dtype: sums over a point's residuals."""
        squares = self.rows.squares().to(self._objective.like).split(self._counts)
        points = self._objective.point_counts(self._batch)
        return tuple(s.view(-1, n).sum(0) for s, n in zip(squares, points, strict=True))

    def weigh(self, weights: Tensor) -> None:
        """Multiply the rows of term i by sqrt(weights_i / N_i), so that their squares add up to the weighted loss."""
        pairs = zip(self._counts, weights.double(), strict=True)
        self._scale = torch.cat([(weight / n).sqrt().expand(n) for n, weight in pairs])
        self.residual = self.residual * self._scale
        self.rows.rescale(self._scale)

    def at(self, parameters: Tensor) -> Tensor:
        """The rows at other ``parameters``, which the network keeps."""
        self._objective.move_to(parameters)
        rows = self._rows()
        return rows if self._scale is None else rows * self._scale

    def _formed(self) -> Rows:
        objective = self._objective
        columns, memory = objective.layout.size, objective.memory
        return JacobianRows(sum(self._counts), columns, self._blocks, memory, objective.ranks)

    def _factored(self) -> Rows:
        objective = self._objective
        like, memory = objective.like, objective.memory
        pieces = jacobian_pieces(objective, self._batch, REUSED)
        return FactoredRows(sum(self._counts), objective.layout.size, pieces, self._here, like, memory, objective.ranks)

    def _blocks(self) -> Iterator[tuple[Places, Tensor]]:
        with self._here():
            yield from jacobian_blocks(self._objective, self._batch)

    def _here(self) -> AbstractContextManager[None]:
        """A context with the network at ``parameters``, wherever it has been moved to since."""
        return self._objective.at(self.parameters)

    def _rows(self) -> Tensor:
        with torch.no_grad():
            return torch.cat(self._objective.residuals(self._batch)).double()


def jacobian_blocks(objective: Objective, batch: Batch) -> Iterator[tuple[Places, Tensor]]:
    """Rows of J of all terms, ``[n, P]``, in blocks that take at most a part of ``objective.memory``.

    Args:
        objective: the problem and the network.
        batch: the points with their weights.

    Yields:
        A block and the places of its rows. Of several processes, each makes those of its own points.
    """
    for places, make in jacobian_pieces(objective, batch):
        yield places, make().dense()


def jacobian_pieces(objective: Objective, batch: Batch, most: int | None = None) -> list[Piece]:
    """The rows of J of all terms in pieces whose matrices take at most a part of ``objective.memory``.

    Args:
        objective: the problem and the network.
        batch: the points with their weights.
        most: bytes of a piece's matrix.

    Returns:
        Of every piece the places of its rows, and what makes its Jacobian. Of several processes, each has those of
        its own points.
    """
    counts = objective.row_counts(batch)
    row = objective.layout.size * objective.like.element_size()
    room = objective.memory // INTERMEDIATES
    room = room if most is None else min(room, most)
    fits = sum(counts) * row <= room
    chunked = isinstance(objective, ChunkedObjective)
    if not chunked and (fits or not objective.pointwise):
        return [(slice(None), lambda: objective.jacobian(batch))]
    starts = list(accumulate(counts, initial=0))
    points = objective.point_counts(batch)
    largest = max(1, room // (row * max(objective.components)))
    size = min(largest, objective.size) if isinstance(objective, ChunkedObjective) else largest
    pieces: list[Piece] = []
    for piece in cut(batch, size, objective.ranks):
        own = torch.arange(piece.rows.start, piece.rows.stop, device=objective.like.device)
        offsets = starts[piece.term] + points[piece.term] * torch.arange(
            objective.components[piece.term], device=objective.like.device
        )
        pieces.append(((offsets[:, None] + own).flatten(), partial(objective.term_jacobian, piece.group)))
    return pieces
