"""Problems and networks made for tests."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from ntkrun.geometry import Box
from ntkrun.jets import ACTIVATIONS, Jet
from ntkrun.network import MLP, JetNetwork, Linear
from ntkrun.pde import PDE, Term

ONE = Box.of(x=(0.0, 1.0))
TWO = Box.of(x=(0.0, 1.0), t=(0.0, 1.0))


class System(PDE):
    """Two fields, two residuals per interior point, one initial term of each width, shared points' needs."""

    fields: ClassVar[tuple[str, ...]] = ("u", "v")
    domain = TWO

    def terms(self) -> tuple[Term, ...]:
        start = (self.domain.face("t", "low"),)
        return (
            Term(
                "residual",
                (self.domain,),
                ("u_t", "v_t", "u_xx", "v_x", "u"),
                lambda x, d: torch.stack([d.u_t - d.v_x, d.v_t - d.u_xx + d.u**3], dim=1),
            ),
            Term("initial", start, ("u", "v"), lambda x, d: torch.stack([d.u - x.x, d.v], dim=1)),
            Term("end", self.domain.faces("x")[1:], ("u",), lambda x, d: d.u),
        )


class Mixed(PDE):
    """Fourth-order and mixed derivatives, and one term at a single point."""

    domain = TWO

    def terms(self) -> tuple[Term, ...]:
        corner = self.domain.face("x", "low").face("t", "low")
        return (
            Term("residual", (self.domain,), ("u_xt", "u_xxxx", "u"), lambda x, d: d.u_xt + 0.1 * d.u_xxxx + d.u * x.t),
            Term("corner", (corner,), ("u",), lambda x, d: d.u - 1),
        )


class Shared(JetNetwork):
    """One hidden layer applied twice, with a bias that is used once more in the output."""

    def __init__(self, domain: Box, outputs: int = 1) -> None:
        super().__init__()
        self.first = Linear(len(domain.coordinates), 5, "glorot_normal")
        self.hidden = Linear(5, 5, "ntk")
        self.last = Linear(5, outputs, "glorot_normal")

    def forward(self, jet: Jet) -> Jet:
        tanh = ACTIVATIONS["tanh"]
        jet = self.first(jet).map(tanh)
        jet = self.hidden(self.hidden(jet).map(tanh)).map(tanh)
        result: Jet = self.last(jet.linear(self.hidden.weight, self.hidden.bias, scale=0.3, bias_scale=2.0).map(tanh))
        return result


class Gain(JetNetwork):
    """A parameter outside of any linear map: not for the structured route."""

    def __init__(self, domain: Box, outputs: int = 1) -> None:
        super().__init__()
        self.inner = MLP(5, 1, domain=domain, outputs=outputs)
        self.gain = nn.Parameter(torch.tensor(1.5))

    def forward(self, jet: Jet) -> Jet:
        jet = self.inner(jet)
        return Jet(self.gain * jet.resolve(), jet.plan, None, jet.uses)


class Coupled(nn.Module):
    """Every output depends on all points: rows are not per point."""

    def __init__(self, domain: Box, outputs: int = 1) -> None:
        super().__init__()
        self.inner = nn.Linear(len(domain.coordinates), outputs)

    def forward(self, x: Tensor) -> Tensor:
        u = torch.tanh(self.inner(x))
        return u + u.mean(0, keepdim=True)


class CoupledJets(JetNetwork):
    """As ``Coupled``, built of jets: J^T 1 of the structured route is the gradient, but its rows are wrong."""

    def __init__(self, domain: Box, outputs: int = 1) -> None:
        super().__init__()
        self.inner = MLP(5, 1, domain=domain, outputs=outputs)

    def forward(self, jet: Jet) -> Jet:
        jet = self.inner(jet)
        streams = jet.resolve()
        return Jet(streams + streams.mean(1, keepdim=True), jet.plan, None, jet.uses)


class Plain(nn.Module):
    """A network that knows nothing of jets."""

    def __init__(self, domain: Box, outputs: int = 1) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(len(domain.coordinates), 6), nn.SiLU(), nn.Linear(6, outputs))
        self.gain = nn.Parameter(torch.tensor(1.5))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.gain * self.inner(x)
        return result


def mlp(domain: Box, outputs: int = 1) -> MLP:
    """Two hidden layers of six."""
    return MLP(6, 2, domain=domain, outputs=outputs)


def ntk_mlp(domain: Box, outputs: int = 1) -> MLP:
    """The NTK parametrisation."""
    return MLP(8, 2, "sin", "ntk", domain=domain, outputs=outputs)


def frozen_mlp(domain: Box, outputs: int = 1) -> MLP:
    """First weight, second bias and last bias frozen."""
    network = mlp(domain, outputs)
    network.layers[0].weight.requires_grad_(False)
    network.layers[1].bias.requires_grad_(False)
    network.layers[2].bias.requires_grad_(False)
    return network
