"""Fields that depend on some of the coordinates alone, each by a network of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ntkrun.jets import Jet
from ntkrun.network.base import JetNetwork


@dataclass(frozen=True)
class Part:
    """A network and what it stands for.

    Attributes:
        network: maps the coordinates ``inputs`` to the fields ``outputs``.
        inputs: numbers of the coordinates.
        outputs: numbers of the fields.
    """

    network: nn.Module
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def side_by_side(parts: Sequence[Part]) -> nn.Module:
    """Networks of different coordinates as one network of all fields.

    Args:
        parts: together they have every field once.

    Returns:
        A ``JetNetwork`` where all of them are, else a module mapping ``[N, d]`` to ``[N, fields]``.
    """
    jets = all(isinstance(part.network, JetNetwork) for part in parts)
    return SeparateJets(parts) if jets else SeparateModule(parts)


class SeparateJets(JetNetwork):
    """Networks on jets side by side; see ``side_by_side``."""

    def __init__(self, parts: Sequence[Part]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(part.network for part in parts)
        self.periodic = any(getattr(part.network, "periodic", False) for part in parts)
        self._inputs = [part.inputs for part in parts]
        self._order = _order(parts)

    def start_step(self, step: int) -> None:
        for network in self.networks:
            network.start_step(step)  # type: ignore[operator]

    def traceable(self) -> bool:
        return all(network.traceable() for network in self.networks)  # type: ignore[operator]

    def forward(self, jet: Jet) -> Jet:
        # A coordinate that is left out has no stream of its own, so derivatives along it vanish.
        given = [Jet.cat([jet.column(i) for i in inputs]) for inputs in self._inputs]
        fields = Jet.cat([network(own) for network, own in zip(self.networks, given, strict=True)])
        return Jet.cat([fields.column(i) for i in self._order])


class SeparateModule(nn.Module):
    """Other modules side by side; see ``side_by_side``."""

    def __init__(self, parts: Sequence[Part]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(part.network for part in parts)
        self.periodic = any(getattr(part.network, "periodic", False) for part in parts)
        self._inputs = [list(part.inputs) for part in parts]
        self._order = _order(parts)

    def start_step(self, step: int) -> None:
        """Pass the step on to networks that ask for it."""
        for network in self.networks:
            start_step = getattr(network, "start_step", None)
            if start_step is not None:
                start_step(step)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, d]`` to ``[N, fields]``."""
        parts = [network(x[:, inputs]) for network, inputs in zip(self.networks, self._inputs, strict=True)]
        return torch.cat(parts, dim=1)[:, self._order]


def _order(parts: Sequence[Part]) -> list[int]:
    """Where every field is found among the outputs of all parts."""
    outputs = [field for part in parts for field in part.outputs]
    return [outputs.index(field) for field in range(len(outputs))]
