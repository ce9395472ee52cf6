"""The Jacobian of all residual rows as a linear operator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

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
        return vector[..., self.slices[name]].reshape(*vector.shape[:-1], *self.shapes[name])

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
    def gram(self) -> Tensor:
        """K = J J^T, ``[N, N]``."""

    @abstractmethod
    def dense(self) -> Tensor:
        """The matrix itself, ``[N, P]``; for tests and small problems."""

    def kernel_matvec(self, vectors: Tensor) -> Tensor:
        """J J^T w for each of the ``vectors``, ``[m, N]``; returns ``[m, N]``."""
        return self.matvec(self.rmatvec(vectors))
