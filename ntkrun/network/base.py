"""Layers that carry streams, and the evaluation of any network on a stream plan."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ntkrun.jets import Jet, LinearUse, StreamPlan, nested_streams, plan_streams

Initialization = Literal["glorot_normal", "glorot_uniform", "ntk"]


class JetNetwork(nn.Module):
    """A network whose forward pass maps a jet of points to a jet of outputs.

    Called with points, ``[N, d]``, it gives its values there, ``[N, outputs]``, like any other module.

    Attributes:
        periodic: whether the outputs are periodic, a hard constraint, wherever the problem is.
    """

    periodic: bool = False

    @abstractmethod
    def forward(self, jet: Jet) -> Jet:
        """Map the jet of the inputs, ``[S, N, d]``, to that of the outputs, ``[S, N, outputs]``."""
        raise NotImplementedError

    def __call__(self, argument: Any) -> Any:
        if isinstance(argument, Tensor):
            values = plan_streams([""], [str(i) for i in range(argument.shape[1])])
            return super().__call__(Jet(values.seed(argument), values)).resolve()[0]
        return super().__call__(argument)

    def start_step(self, step: int) -> None:
        """Called before optimiser step ``step``; what a network draws at random for a step it draws here.

        The draw depends on the step and on nothing that happened before, so that a resumed run repeats it.
        """
        return

    def traceable(self) -> bool:
        """Whether a traced pass serves all steps: what ``start_step`` draws must be read from buffers then."""
        return type(self).start_step is JetNetwork.start_step


class Linear(nn.Module):
    """A linear layer on streams.

    Args:
        inputs, outputs: widths.
        initialization: ``glorot_normal`` or ``glorot_uniform`` (zero biases), or ``ntk``: the NTK
            parametrisation W h / sqrt(inputs) + b with all parameters standard normal
            (Jacot, Gabriel, Hongler 2018; Wang, Yu, Perdikaris, arXiv 2007.14527).
        generator: source of the initial values.
    """

    def __init__(
        self, inputs: int, outputs: int, initialization: Initialization, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = 1 / math.sqrt(inputs) if initialization == "ntk" else 1.0
        if initialization == "ntk":
            nn.init.normal_(self.weight, generator=generator)
            nn.init.normal_(self.bias, generator=generator)
        elif initialization == "glorot_normal":
            nn.init.xavier_normal_(self.weight, generator=generator)
        else:
            nn.init.xavier_uniform_(self.weight, generator=generator)

    def forward(self, jet: Jet) -> Jet:
        return jet.linear(self.weight, self.bias, scale=self.scale)


def output_streams(
    network: nn.Module,
    x: Tensor,
    plan: StreamPlan,
    parameters: Mapping[str, Tensor] | None = None,
    uses: list[LinearUse] | None = None,
) -> Tensor:
    """Evaluate a network's output streams at points.

    Args:
        network: a ``JetNetwork``, or any module mapping ``[N, d]`` to ``[N, outputs]`` row by row.
        x: points, ``[N, d]``.
        plan: the streams wanted.
        parameters: values used in place of the network's own parameters.
        uses: for a ``JetNetwork``, receives the inputs and outputs of every linear map and gain.

    Returns:
        ``[S, N, outputs]``.
    """

    def call(argument: Jet | Tensor) -> Jet | Tensor:
        if parameters is None:
            result: Jet | Tensor = network(argument)
        else:
            result = torch.func.functional_call(network, dict(parameters), (argument,))
        return result

    if isinstance(network, JetNetwork):
        jet = call(Jet(plan.seed(x), plan, None, uses))
        assert isinstance(jet, Jet)
        return jet.resolve()
    function: Callable[[Tensor], Tensor] = call  # type: ignore[assignment]
    return nested_streams(function, x, plan)
