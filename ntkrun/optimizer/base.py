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
from ntkrun.objective.jacobian_rows import JacobianRows

Reevaluate = Callable[[], Evaluation]
"""Evaluates the loss of the present step again, with the same weights and points, at the present parameters."""


class ResidualSystem(Protocol):
    """The weighted residual rows of one step, whose squares add up to the loss, as a function of the parameters.

    Attributes:
        parameters: the present ones, ``[P]``.
        residual: R = D r at these, ``[N]``.
        rows: J~ = D J at these, ``[N, P]``.

    All in float64.
    """

    parameters: Tensor
    residual: Tensor
    rows: JacobianRows

    def at(self, parameters: Tensor) -> Tensor:
        """R at other ``parameters``, ``[N]``, which the network keeps."""


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


class Optimizer(ABC):
    """Moves the trainable parameters of a network, by gradients or by residual rows and their Jacobian."""

    @abstractmethod
    def start(self, network: nn.Module) -> None:
        """Take charge of the network's trainable parameters.

        Raises:
            ValueError: the optimiser cannot be used here.
        """

    def horizon(self, iterations: int) -> int:
        """Steps that the learning rate schedule spans, of a run of ``iterations`` steps."""
        return iterations

    def gradient_steps(self, iterations: int) -> int:
        """How many steps of a run of ``iterations`` are made from gradients, at the most."""
        return iterations

    @abstractmethod
    def rate(self, factor: float) -> float | None:
        """The learning rate in use under the schedule's ``factor``, where there is one."""

    @property
    def wants_rows(self) -> bool:
        """Whether the coming step is made by ``step_on_rows``."""
        return False

    def step_on_rows(self, system: ResidualSystem) -> None:
        """Update the parameters from residual rows and their Jacobian.

        Args:
            system: the rows at the present parameters.
        """
        raise NotImplementedError

    def ended(self) -> str:
        """Why there is nothing left to gain; empty as long as there may be."""
        return ""

    def columns(self) -> tuple[str, ...]:
        """Columns of the table of steps, where the optimiser has one."""
        return ()

    def report(self) -> Mapping[str, float | int | None]:
        """The row of the last step in the table of steps; empty where it has none."""
        return {}

    def graph_update(self) -> GraphUpdate | None:
        """The update of the coming step in a form that can be compiled, where there is one."""
        return None

    def took_step(self) -> None:
        """Take note of a step that its ``graph_update`` has made in a compiled graph."""
        raise NotImplementedError

    def step(self, evaluation: Evaluation, factor: float, reevaluate: Reevaluate, changed: bool) -> None:
        """Update the parameters from their gradient.

        Args:
            evaluation: loss and gradient at the present parameters.
            factor: the schedule's factor of the learning rate at this step.
            reevaluate: for optimisers that need the loss at other parameters too.
            changed: whether weights or points are others than at the step before, so that losses and
                gradients of earlier steps are those of another function.
        """
        raise NotImplementedError

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on, as tensors and plain values."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""


@dataclass(kw_only=True, eq=False)
class TorchOptimizer(Optimizer):
    """One optimiser of torch's interface.

    Args:
        learning_rate: the rate that the schedule multiplies.
    """

    learning_rate: Positive[float] = 1e-3

    def rate(self, factor: float) -> float:
        return self.learning_rate * factor

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
