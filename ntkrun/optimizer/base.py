"""The interface of optimisers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ntkrun.common.state_schema import Anything, EmptyOr, Like, Schema, StateError, Whole, read_state, schema_of
from ntkrun.common.types import Positive
from ntkrun.objective import Evaluation
from ntkrun.objective.jacobian_rows import Rows

RATE = "lr"  # torch's name of the option that the schedule moves

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
    rows: Rows

    def at(self, parameters: Tensor) -> Tensor:
        """R at other ``parameters``, ``[N]``, which the network keeps."""


class GraphUpdate(Protocol):
    """An update made of tensor operations alone, to become part of a compiled step."""

    def rate(self, factor: float) -> float:
        """The learning rate in use under the schedule's ``factor``."""

    def tensors(self) -> list[Tensor]:
        """What the update reads and changes besides the parameters."""

    def numbers(self, rate: float) -> tuple[float, ...]:
        """What changes from step to step otherwise, for the coming step under a learning rate."""

    def update(
        self,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor],
        tensors: Sequence[Tensor],
        numbers: Sequence[Tensor],
    ) -> None:
        """Change parameters and ``tensors`` in place.

        Args:
            parameters: the trainable parameters in the network's order.
            gradients: of these.
            tensors: as ``tensors`` gives them.
            numbers: as ``numbers`` gives them, tensors without dimensions.
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

    def matrix_entries(self, rows: int, parameters: int) -> int:
        """How many entries of 8 bytes its matrices have, beyond those of a gradient step.

        Args:
            rows: residual rows of all terms.
            parameters: trainable ones.
        """
        return 0

    def matrix_work(self, rows: int, parameters: int) -> float:
        """Floating-point operations of a step on its matrices, roughly, beyond those of a gradient step.

        Args:
            rows: residual rows of all terms.
            parameters: trainable ones.
        """
        return 0.0

    @property
    def wants_rows(self) -> bool:
        """Whether the coming step is made by ``step_on_rows``."""
        return False

    def wants_factors(self, rows: int, parameters: int) -> bool:
        """Whether a step on so many residual rows and parameters sees their Jacobian through products alone."""
        return False

    def points_drawn(self) -> None:  # noqa: B027 (most optimisers do not care)
        """Take note that the points of the coming step are others than those of the last one."""

    def step_on_rows(self, system: ResidualSystem) -> None:
        """Update the parameters from residual rows and their Jacobian.

        Args:
            system: the rows at the present parameters.
        """
        raise NotImplementedError

    def left(self) -> float | None:
        """The loss before the last step over that before the first, where it tells how far a run has come."""
        return None

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

    def took_step(self, evaluation: Evaluation) -> None:
        """Take note of a step that its ``graph_update`` has made in a compiled graph.

        Args:
            evaluation: the losses and weights of the step; there is no gradient.
        """
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
        """Everything needed to resume, as tensors and plain values."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave, read by ``state_schema``."""

    def state_schema(self) -> Any:
        """What a saved state must look like, see ``ntkrun.common.state_schema``; asked after ``start``."""
        return schema_of(self.state_dict())


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

    def state_schema(self) -> Any:
        """As before the first step, or as after one step of copies of the parameters.

        Of the options of torch's optimiser only those that steps change are taken from a saved state.
        """
        own = self._torch.state_dict()
        try:
            stepped = self._stepped()
        except Exception:  # of torch's interface, but not content with a gradient
            return {"state": Anything(), "param_groups": Anything()}
        pairs = zip(own["param_groups"], stepped["param_groups"], strict=True)
        moving = [{k: v for k, v in after.items() if k == RATE or before.get(k) != v} for before, after in pairs]
        return {"state": EmptyOr(_in_any_order(stepped["state"])), "param_groups": Options(own["param_groups"], moving)}

    def _stepped(self) -> dict[str, Any]:
        """The state of such an optimiser after one step."""
        copies = [nn.Parameter(p.detach().clone()) for p in self._parameters.values()]
        optimizer = self.build(copies)
        for copy in copies:
            copy.grad = torch.zeros_like(copy)
        optimizer.step()
        return optimizer.state_dict()


@dataclass(frozen=True)
class Options(Schema):
    """The options of a torch optimiser: the run's own, for they follow from its configuration.

    Attributes:
        own: by group.
        moving: those that steps change, by group.
    """

    own: Sequence[Mapping[str, Any]]
    moving: Sequence[Mapping[str, Any]] = ()

    def read(self, value: Any, place: str) -> list[dict[str, Any]]:
        groups = read_state([Anything()] * len(self.own), value, place)
        read = [dict(group) for group in self.own]
        for k, (group, schemas) in enumerate(zip(groups, self.moving, strict=False)):
            if not isinstance(group, dict):
                raise StateError(f"{place}.{k}: options by name are expected")
            for key in schemas.keys() & group.keys():
                schema = Whole() if type(schemas[key]) is int else schemas[key]
                read[k][key] = read_state(schema, group[key], f"{place}.{k}.{key}")
        return read


def _in_any_order(state: Any) -> Any:
    """The schema of a state whose tensors are results of matrix products, however these lie in memory."""
    if isinstance(state, Tensor):
        return Like(state, any_order=True)
    if isinstance(state, dict):
        return {key: _in_any_order(value) for key, value in state.items()}
    return [_in_any_order(value) for value in state] if isinstance(state, list) else state
