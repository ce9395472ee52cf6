"""What networks share that hold another one."""

from __future__ import annotations

from torch import nn

from ntkrun.network.base import JetNetwork


class WrappedJets(JetNetwork):
    """A network on jets around another one, whose parameters it has."""

    def __init__(self, network: JetNetwork) -> None:
        super().__init__()
        self.network = network
        self.periodic = network.periodic

    def start_step(self, step: int) -> None:
        self.network.start_step(step)

    def traceable(self) -> bool:
        return self.network.traceable()


class Wrapped(nn.Module):
    """A module around any other one, whose parameters it has."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.periodic: bool = getattr(network, "periodic", False)

    def start_step(self, step: int) -> None:
        """Pass the step on to a network that asks for it."""
        start_step = getattr(self.network, "start_step", None)
        if start_step is not None:
            start_step(step)
