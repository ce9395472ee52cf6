"""What an optimiser is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ntkrun.common.types import Positive
from ntkrun.objective import Evaluation

Reevaluate = Callable[[], Evaluation]
"""Evaluates the loss of the present step again, with the same weights and points, at the present parameters."""


class GraphUpdate(Protocol):
    """An update made of tensor operations alone, to become part of a compiled step."""

    def rate(self, factor: float) -> float:
        """The learning rate in use under the schedule's ``factor``."""

    def tensors(self) -> list[Tensor]:
        """What the update reads and changes besides the parameters."""

    def numbers(self, rate: float, ahead: int) -> tuple[float, ...]:
        """What changes from step to step otherwise, for the step that comes ``ahead`` steps after the coming one."""

    def update(
        self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], tensors: Sequence[Tensor], numbers: Tensor
    ) -> None:
        """Change parameters and ``tensors`` in place.

        Args:
            parameters: the trainable parameters in the network's order.
            gradients: of these.
            tensors: as ``tensors`` gives them.
            numbers: as ``numbers`` gives them, as one tensor.
        """


@dataclass(kw_only=True, eq=False)
class Optimizer(ABC):
    """Moves the trainable parameters of a network.

    Args:
        learning_rate: the rate that the schedule multiplies.
    """

    learning_rate: Positive[float] = 1e-3

    @abstractmethod
    def start(self, network: nn.Module) -> None:
        """Take charge of the network's trainable parameters.

        Raises:
            ValueError: the optimiser cannot be used here.
        """

    def horizon(self, iterations: int) -> int:
        """Steps that the learning rate schedule spans, of a run of ``iterations`` steps."""
        return iterations

    def rate(self, factor: float) -> float:
        """The learning rate in use under the schedule's ``factor``."""
        return self.learning_rate * factor

    def graph_update(self) -> GraphUpdate | None:
        """The update of the coming step in a form that can be compiled, where there is one."""
        return None

    def took_step(self) -> None:
        """Take note of a step that its ``graph_update`` has made in a compiled graph."""
        raise NotImplementedError

    @abstractmethod
    def step(self, evaluation: Evaluation, factor: float, reevaluate: Reevaluate, changed: bool) -> None:
        """Update the parameters.

        Args:
            evaluation: loss and gradient at the present parameters.
            factor: the schedule's factor of the learning rate at this step.
            reevaluate: for optimisers that need the loss at other parameters too.
            changed: whether weights or points are others than at the step before, so that losses and
                gradients of earlier steps are those of another function.
        """

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on, as tensors and plain values."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""


class TorchOptimizer(Optimizer):
    """One optimiser of torch's interface."""

    def start(self, network: nn.Module) -> None:
        dtype = next(network.parameters()).dtype
        if self.learning_rate > torch.finfo(dtype).max:
            raise ValueError(f"learning_rate={self.learning_rate}: too large for {dtype}")
        self._parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self._torch = self.build(list(self._parameters.values()))

    @abstractmethod
    def build(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """The torch optimiser for these parameters.

        Raises:
            ValueError: it cannot be used here.
        """

    def assign(self, gradient: Mapping[str, Tensor], scale: float = 1.0) -> None:
        """Hand the gradient times ``scale`` to the torch optimiser."""
        for name, parameter in self._parameters.items():
            parameter.grad = gradient[name] if scale == 1 else scale * gradient[name]

    def state_dict(self) -> dict[str, Any]:
        return self._torch.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._torch.load_state_dict(dict(state))
