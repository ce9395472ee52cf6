"""Networks whose outputs a problem transforms: hard constraints and output transforms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from ntkrun.jets import Jet
from ntkrun.network.base import JetNetwork
from ntkrun.network.wrapped import Wrapped, WrappedJets

if TYPE_CHECKING:
    from ntkrun.pde import PDE

Value = TypeVar("Value", Jet, Tensor)


def constrained(network: nn.Module, pde: PDE) -> nn.Module:
    """Wrap a network so that it puts out ``pde.constrain(x, u)`` of its own outputs u.

    Args:
        network: a ``JetNetwork``, or any module mapping ``[N, d]`` to ``[N, fields]`` row by row.
        pde: a problem that ``constrains``.

    Returns:
        A network of the same kind with the parameters of ``network``; it counts as periodic where that does.
    """
    return ConstrainedJets(network, pde) if isinstance(network, JetNetwork) else Constrained(network, pde)


class ConstrainedJets(WrappedJets):
    """A network on jets with its outputs constrained; see ``constrained``."""

    def __init__(self, network: JetNetwork, pde: PDE) -> None:
        super().__init__(network)
        self._pde = pde

    def forward(self, jet: Jet, coefficients: Mapping[str, Jet] = MappingProxyType({})) -> Jet:
        """Map the coordinates to the fields; the transform may read unknown ``coefficients`` of the problem by name."""
        outputs: Jet = self.network(jet)
        width = outputs.streams.shape[-1]
        return Jet.cat(_fields(self._pde, jet, outputs, width, lambda jet, i: jet.column(i), coefficients))


class Constrained(Wrapped):
    """Any other module with its outputs constrained; see ``constrained``."""

    def __init__(self, network: nn.Module, pde: PDE) -> None:
        super().__init__(network)
        self._pde = pde

    def forward(self, x: Tensor, coefficients: Mapping[str, Tensor] = MappingProxyType({})) -> Tensor:
        """Map ``[N, d]`` to ``[N, fields]``; the transform may read unknown ``coefficients`` of the problem by name."""
        outputs: Tensor = self.network(x)
        width = outputs.shape[-1]
        return torch.cat(_fields(self._pde, x, outputs, width, lambda z, i: z[:, i : i + 1], coefficients), dim=1)


def _fields(
    pde: PDE,
    x: Value,
    outputs: Value,
    width: int,
    column: Callable[[Value, int], Value],
    coefficients: Mapping[str, Value],
) -> list[Value]:
    # Loaded already, with the problem itself; networks do not need problems otherwise.
    from ntkrun.pde import Columns, ProblemError

    if width != len(pde.fields):
        raise ProblemError(f"the network has {width} outputs; the fields are {', '.join(pde.fields)}")
    coordinates = {name: column(x, i) for i, name in enumerate(pde.coordinates)}
    fields = {name: column(outputs, i) for i, name in enumerate(pde.fields)}
    read = Columns({**fields, **coefficients}, "the network")
    return list(pde.constrain(Columns(coordinates, "the point set"), read))
