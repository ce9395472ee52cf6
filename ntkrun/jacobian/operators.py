"""The Jacobian of all residual rows as a linear operator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


class ParameterLayout:
    """How the trainable parameters of a network lie in one vector of length P.

    Args:
        network: its parameters with ``requires_grad`` are laid out in their own order.
    """

    def __init__(self, network: nn.Module) -> None:
        self.shapes = {name: p.shape for name, p in network.named_parameters() if p.requires_grad}
        self.slices: dict[str, slice] = {}
        start = 0
        for name, shape in self.shapes.items():
            self.slices[name] = slice(start, start + shape.numel())
            start += shape.numel()
        self.size = start

    def flatten(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Named tensors of shape ``[*batch, *shape]`` to ``[*batch, P]``."""
        first = tensors[next(iter(self.shapes))]
        batch = first.shape[: first.dim() - len(next(iter(self.shapes.values())))]
        return torch.cat([tensors[name].reshape(*batch, -1) for name in self.shapes], dim=-1)

    def part(self, vector: Tensor, name: str) -> Tensor:
        """The entries of ``vector``, ``[*batch, P]``, that belong to one parameter, ``[*batch, *shape]``."""
        return vector[..., self.slices[name]].reshape((*vector.shape[:-1], *self.shapes[name]))

    def unflatten(self, vector: Tensor) -> dict[str, Tensor]:
        """``[*batch, P]`` to named tensors of shape ``[*batch, *shape]``."""
        return {name: self.part(vector, name) for name in self.shapes}


class Jacobian(ABC):
    """J = dr/dtheta of some residual rows, ``[N, P]``, never formed as a whole.

    Attributes:
        rows: the number of rows N.
        layout: the order of the P parameters.
    """

    rows: int
    layout: ParameterLayout

    @abstractmethod
    def diagonal(self) -> Tensor:
        """diag(J J^T), ``[N]``: the squared norm of every row."""

    @abstractmethod
    def matvec(self, vectors: Tensor) -> Tensor:
        """J v for each of the ``vectors``, ``[m, P]``; returns ``[m, N]``."""

    @abstractmethod
    def rmatvec(self, vectors: Tensor) -> Tensor:
        """J^T w for each of the ``vectors``, ``[m, N]``; returns ``[m, P]``."""

    @abstractmethod
    def gram(self, other: Jacobian | None = None) -> Tensor:
        """The kernel between these rows and those of ``other`` (or themselves), J J'^T, ``[N, N']``.

        Args:
            other: a Jacobian of the same network by the same route.
        """

    @abstractmethod
    def dense(self) -> Tensor:
        """The matrix itself, ``[N, P]``; for tests and small problems."""

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors that it holds, besides points and parameters."""
        return 0

    def double(self) -> Jacobian:
        """The same rows with all products in float64."""
        matrix = self.dense()
        return self if matrix.dtype == torch.float64 else DenseJacobian(matrix.double(), self.layout)

    def kernel_matvec(self, vectors: Tensor) -> Tensor:
        """J J^T w for each of the ``vectors``, ``[m, N]``; returns ``[m, N]``."""
        return self.matvec(self.rmatvec(vectors))


class StackedJacobian(Jacobian):
    """The rows of several Jacobians, one below the other.

    Args:
        parts: from top to bottom.
    """

    def __init__(self, parts: Sequence[Jacobian]) -> None:
        self.parts = tuple(parts)
        self.layout = self.parts[0].layout
        self.rows = sum(part.rows for part in self.parts)

    def diagonal(self) -> Tensor:
        return torch.cat([part.diagonal() for part in self.parts])

    def matvec(self, vectors: Tensor) -> Tensor:
        return torch.cat([part.matvec(vectors) for part in self.parts], dim=1)

    def rmatvec(self, vectors: Tensor) -> Tensor:
        pieces = vectors.split([part.rows for part in self.parts], dim=1)
        return torch.stack([part.rmatvec(w) for part, w in zip(self.parts, pieces, strict=True)]).sum(0)

    def gram(self, other: Jacobian | None = None) -> Tensor:
        if other is not None:
            return torch.cat([part.gram(other) for part in self.parts])
        blocks: dict[tuple[int, int], Tensor] = {}
        for i, part in enumerate(self.parts):
            blocks[i, i] = part.gram()
            for j in range(i):
                blocks[i, j] = part.gram(self.parts[j])
                blocks[j, i] = blocks[i, j].T
        n = range(len(self.parts))
        return torch.cat([torch.cat([blocks[i, j] for j in n], dim=1) for i in n])

    def dense(self) -> Tensor:
        return torch.cat([part.dense() for part in self.parts])

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)

    def double(self) -> Jacobian:
        return StackedJacobian([part.double() for part in self.parts])


class ScaledJacobian(Jacobian):
    """The rows of a Jacobian, each times a number of its own.

    Args:
        inner: the rows.
        scale: the factors, ``[N]``.
    """

    def __init__(self, inner: Jacobian, scale: Tensor) -> None:
        self.inner = inner
        self.scale = scale
        self.layout = inner.layout
        self.rows = inner.rows

    def diagonal(self) -> Tensor:
        return self.inner.diagonal() * self.scale.square()

    def matvec(self, vectors: Tensor) -> Tensor:
        return self.inner.matvec(vectors) * self.scale

    def rmatvec(self, vectors: Tensor) -> Tensor:
        return self.inner.rmatvec(vectors * self.scale)

    def gram(self, other: Jacobian | None = None) -> Tensor:
        others = self if other is None else other
        if not isinstance(others, ScaledJacobian):
            raise TypeError(f"no kernel between a scaled Jacobian and a {type(others).__name__}")
        return self.scale[:, None] * self.inner.gram(others.inner) * others.scale

    def dense(self) -> Tensor:
        return self.scale[:, None] * self.inner.dense()

    @property
    def nbytes(self) -> int:
        return self.inner.nbytes + self.scale.nbytes

    def double(self) -> Jacobian:
        return ScaledJacobian(self.inner.double(), self.scale.double())


class DenseJacobian(Jacobian):
    """A Jacobian held as a matrix; for tests, tiny problems and rows that share points.

    Args:
        matrix: ``[N, P]``.
        layout: the order of the parameters.
    """

    def __init__(self, matrix: Tensor, layout: ParameterLayout) -> None:
        self.matrix = matrix
        self.layout = layout
        self.rows = len(matrix)

    def diagonal(self) -> Tensor:
        return self.matrix.square().sum(1)

    def matvec(self, vectors: Tensor) -> Tensor:
        return vectors @ self.matrix.T

    def rmatvec(self, vectors: Tensor) -> Tensor:
        return vectors @ self.matrix

    def gram(self, other: Jacobian | None = None) -> Tensor:
        return self.matrix @ (self if other is None else other).dense().T

    def dense(self) -> Tensor:
        return self.matrix

    @property
    def nbytes(self) -> int:
        return self.matrix.nbytes
