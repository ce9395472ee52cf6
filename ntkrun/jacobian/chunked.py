"""The Jacobian of many points, of which a few are held at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from ntkrun.jacobian.operators import Jacobian, ParameterLayout

Parts = Callable[[], Iterator[tuple[slice, Jacobian]]]
"""Makes the Jacobians of successive points, each with where these points lie among all."""


class PiecewiseJacobian(Jacobian):
    """The Jacobian of one loss term; every product makes the parts anew, one after the other.

    Args:
        parts: these.
        points: their number of points in all.
        components: residuals per point.
        layout: the order of the parameters.
        like: a tensor of the dtype and device to compute in.
        total: adds up what other processes make of the points that are no part of these.
    """

    def __init__(
        self,
        parts: Parts,
        points: int,
        components: int,
        layout: ParameterLayout,
        like: Tensor,
        total: Callable[[Tensor], Tensor],
    ) -> None:
        self.layout = layout
        self.rows = points * components
        self._parts = parts
        self._shape = (components, points)
        self._like = like
        self._total = total

    def diagonal(self) -> Tensor:
        return self._fill(lambda part: part.diagonal()[:, None])[:, 0]

    def matvec(self, vectors: Tensor) -> Tensor:
        return self._fill(lambda part: part.matvec(vectors).T, len(vectors)).T

    def rmatvec(self, vectors: Tensor) -> Tensor:
        out = vectors.new_zeros(len(vectors), self.layout.size)
        table = vectors.view(-1, *self._shape)
        for rows, part in self._parts():
            out += part.rmatvec(table[:, :, rows].flatten(1))
        return self._total(out)

    def gram(self, other: Jacobian | None = None) -> Tensor:
        mine = self.dense()
        return mine @ (mine if other is None else other.dense()).T

    def dense(self) -> Tensor:
        return self._fill(lambda part: part.dense(), self.layout.size)

    def _fill(self, evaluate: Callable[[Jacobian], Tensor], columns: int = 1) -> Tensor:
        """``evaluate`` of every part, ``[rows of the part, columns]``, put in place, ``[rows, columns]``."""
        out = self._like.new_zeros(*self._shape, columns)
        for rows, part in self._parts():
            out[:, rows] = evaluate(part).view(self._shape[0], -1, columns)
        return self._total(out).flatten(0, 1)
