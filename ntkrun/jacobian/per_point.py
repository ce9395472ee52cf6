"""Rows of the Jacobian of any network, by one reverse pass per row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from ntkrun.jacobian.operators import DenseJacobian, Jacobian, ParameterLayout

RowFunction = Callable[[Mapping[str, Tensor], Tensor], Tensor]
"""``f(parameters, x)``: residuals ``[N, m]`` at points ``[N, d]``, each row on its own point."""


def dense_jacobian(
    function: Callable[[Mapping[str, Tensor]], Tensor], parameters: Mapping[str, Tensor], layout: ParameterLayout
) -> DenseJacobian:
    """The Jacobian of residual rows ``[N]`` as a matrix, by reverse mode over all rows at once.

    Args:
        function: the rows as a function of the trainable parameters.
        parameters: the trainable parameters by name, where the Jacobian is taken.
        layout: the order of the parameters.
    """
    return DenseJacobian(layout.flatten(torch.func.jacrev(function)(parameters)), layout)


class PerPointJacobian(Jacobian):
    """The Jacobian of one loss term for networks outside the structured route.

    Rows are formed in chunks, so memory stays bounded; the cost is one reverse pass per row.

    Args:
        function: the residual as a function of trainable parameters and points.
        parameters: the trainable parameters by name, where the Jacobian is taken.
        layout: the order of the parameters.
        x: the term's points, ``[n, d]``.
        memory: bytes that the rows held at a time may take.
    """

    def __init__(
        self,
        function: RowFunction,
        parameters: Mapping[str, Tensor],
        layout: ParameterLayout,
        x: Tensor,
        memory: int,
    ) -> None:
        self.layout = layout
        self._function = function
        self._x = x
        self._parameters = parameters
        with torch.no_grad():
            self._components = function(self._parameters, x[:1]).shape[1]
        self.rows = len(x) * self._components
        self._chunk = max(1, memory // max(1, 2 * layout.size * x.element_size()))

    def diagonal(self) -> Tensor:
        return torch.cat([rows.square().sum(1) for rows in self._row_chunks()])

    def matvec(self, vectors: Tensor) -> Tensor:
        # J v is the gradient of w -> v . J^T w, which is linear in w: reverse mode alone, as in nested_streams.
        pull = torch.func.vjp(self._flat, self._parameters)[1]
        zero = vectors.new_zeros(self.rows)
        push = torch.func.vjp(lambda w: self.layout.flatten(pull(w)[0]), zero)[1]
        return torch.stack([push(v)[0] for v in vectors])

    def rmatvec(self, vectors: Tensor) -> Tensor:
        pull = torch.func.vjp(self._flat, self._parameters)[1]
        return torch.stack([self.layout.flatten(pull(w)[0]) for w in vectors])

    def gram(self, other: Jacobian | None = None) -> Tensor:
        others = self if other is None else other
        if not isinstance(others, PerPointJacobian):
            raise TypeError(f"no kernel between a per-point Jacobian and a {type(others).__name__}")
        return torch.cat(
            [torch.cat([rows @ more.T for more in others._row_chunks()], dim=1) for rows in self._row_chunks()]
        )

    def dense(self) -> Tensor:
        return torch.cat(list(self._row_chunks()))

    def double(self) -> Jacobian:
        return self if self._x.dtype == torch.float64 else DenseJacobian(self.dense().double(), self.layout)

    def _flat(self, parameters: Mapping[str, Tensor]) -> Tensor:
        return self._function(parameters, self._x).T.flatten()

    def _row_chunks(self) -> Iterator[Tensor]:
        for component in range(self._components):

            def row(parameters: Mapping[str, Tensor], point: Tensor, component: int = component) -> Tensor:
                return self._function(parameters, point[None])[0, component]

            gradient = torch.func.vmap(torch.func.grad(row), in_dims=(None, 0))
            for x in self._x.split(self._chunk):
                yield self.layout.flatten(gradient(self._parameters, x))
