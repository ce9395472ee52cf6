"""Problems and networks made for tests."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ntkrun.geometry import Box, Draws
from ntkrun.jets import ACTIVATIONS, Jet
from ntkrun.network import (
    ECRN,
    MLP,
    ChebyshevKAN,
    FourierNetwork,
    JetNetwork,
    Linear,
    ModifiedMLP,
    constrained,
)
from ntkrun.pde import PDE, Columns, Term, integral

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


@dataclass(frozen=True)
class Circle:
    """A circle in the unit square whose points carry their outward normal: a region that is no box."""

    radius: float
    coordinates: tuple[str, ...] = ("x", "t")
    columns: tuple[str, ...] = ("nx", "nt")
    dimension: int = 1
    least: int = 1

    @property
    def measure(self) -> float:
        return 2 * math.pi * self.radius

    def draw(self, draws: Draws) -> Tensor:
        angle = 2 * math.pi * draws.unit(1)
        normal = torch.cat([angle.cos(), angle.sin()], dim=-1)
        return torch.cat([0.5 + self.radius * normal, normal], dim=-1)


class Carried(PDE):
    """Points with further columns and without, in one group and with partner points."""

    domain = TWO

    def terms(self) -> tuple[Term, ...]:
        circle = Circle(0.4)
        return (
            Term("residual", (self.domain,), ("u_t", "u_xx"), lambda x, d: d.u_t - d.u_xx),
            Term("flux", (circle, Circle(0.2)), ("u_x", "u_t"), lambda x, d: d.u_x * x.nx + d.u_t * x.nt - x.x),
            Term("slope", (self.domain,), ("u_x", "u_t"), lambda x, d: d.u_x - x.t),
            Term("jump", (circle,), ("u",), lambda x, d: d.u * x.nx - d.partner.u, partner={"t": 0.1}),
        )


class Integrated(PDE):
    """Integrals of all kinds: with moving ends, a kernel and a derivative; at partner points; in two dimensions."""

    domain = TWO

    def terms(self) -> tuple[Term, ...]:
        left, start = self.domain.face("x", "low"), self.domain.face("t", "low")
        memory = integral(lambda x, d: torch.exp(x.t - x.row.t) * d.u_x**2, "u_x", t=(0.0, "t"), nodes=3)
        moment = integral(lambda x, d: x.x * d.u, "u", x=(0.0, 1.0), t=(lambda x: x.t / 2, 1.5), nodes=2)
        return (
            Term(
                "residual",
                (self.domain,),
                ("u_t", "u_xx"),
                lambda x, d: d.u_t - d.u_xx * d.mean + d.memory,
                integrals={"mean": integral("u", x=(0.0, "t"), nodes=4, mean=True), "memory": memory},
            ),
            Term(
                "mass",
                (left,),
                (),
                lambda x, d: torch.stack([d.mass - 1, d.mass * d.moment - x.t], dim=1),
                integrals={"mass": integral("u", x=(0.0, 1.0), nodes=30), "moment": moment},
            ),
            Term(
                "jump",
                (left,),
                ("u",),
                lambda x, d: d.u * d.mass - d.partner.mass,
                {"t": 0.1, "x": lambda x: 0.3 + x.t / 2},
                integrals={"mass": integral("u", x=(-1.0, 1.0), nodes=3)},
            ),
            Term("initial", (start,), ("u",), lambda x, d: d.u - x.x),
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


class Branching(nn.Module):
    """A network whose way depends on its values, so that no pass serves several points at once."""

    def __init__(self, domain: Box, outputs: int = 1) -> None:
        super().__init__()
        self.inner = nn.Linear(len(domain.coordinates), outputs)

    def forward(self, x: Tensor) -> Tensor:
        u: Tensor = self.inner(x)
        return torch.tanh(u) if bool(x.abs().max() < 1e9) else u


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


class Gains(JetNetwork):
    """Gains of both shapes on the streams: one factor used twice, a vector that is also a bias, and a frozen one."""

    def __init__(self, domain: Box, outputs: int = 1) -> None:
        super().__init__()
        self.first = Linear(len(domain.coordinates), 5, "ntk")
        self.last = Linear(5, outputs, "glorot_normal")
        self.factor = nn.Parameter(torch.tensor([1.5]))
        self.vector = nn.Parameter(torch.linspace(-1, 1, 5))
        self.frozen = nn.Parameter(torch.tensor([0.7]), requires_grad=False)

    def forward(self, jet: Jet) -> Jet:
        jet = self.first(jet).gain(self.factor).tanh()
        jet = jet.gain(self.frozen) + jet.gain(self.vector).sin() * jet.gain(self.vector)
        result: Jet = self.last(jet)
        return result.gain(self.factor)


def modified_mlp(domain: Box, outputs: int = 1) -> ModifiedMLP:
    """Two hidden layers of five."""
    return ModifiedMLP(5, 2, domain=domain, outputs=outputs)


def fourier(domain: Box, outputs: int = 1) -> FourierNetwork:
    """Fixed frequencies of two scales."""
    return FourierNetwork(5, 1, features=3, scales=(0.1, 0.3), domain=domain, outputs=outputs)


def trainable_fourier(domain: Box, outputs: int = 1) -> FourierNetwork:
    """Trained frequencies of two scales."""
    return FourierNetwork(4, 2, features=3, scales=(0.1, 0.3), trainable=True, domain=domain, outputs=outputs)


def cpikan(domain: Box, outputs: int = 1) -> ChebyshevKAN:
    """One hidden layer of four."""
    return ChebyshevKAN(4, 1, 3, domain=domain, outputs=outputs)


def ecrn(domain: Box, outputs: int = 1) -> ECRN:
    """Three residual layers, all kept."""
    return ECRN(3, 3, scale=0.2, trainable=True, domain=domain, outputs=outputs)


NETWORKS: dict[str, Callable[[Box, int], JetNetwork]] = {
    "mlp": mlp,
    "ntk_mlp": ntk_mlp,
    "modified_mlp": modified_mlp,
    "fourier": fourier,
    "trainable_fourier": trainable_fourier,
    "cpikan": cpikan,
    "ecrn": ecrn,
}
"""Every network of the package, small: its derivatives, its kernels and its inputs are tested."""


def thinned_ecrn(domain: Box, outputs: int = 1) -> ECRN:
    """Three residual layers in a step that drops some of them."""
    network = ECRN(3, 3, scale=0.2, survival=0.3, domain=domain, outputs=outputs)
    step = 0
    while all(network.factors) or not any(network.factors):
        network.start_step(step)
        step += 1
    return network


def periodic_mlp(domain: Box, outputs: int = 1) -> MLP:
    """Periodic along x with the length of the domain."""
    period = {"x": domain.high["x"] - domain.low["x"]}
    return MLP(5, 1, periodic=True, domain=domain, outputs=outputs, periods=period)


class Peaked(PDE):
    """A residual that is ``size`` times as large next to x = 0 as elsewhere."""

    domain = Box.of(x=(0.0, 1.0), y=(0.0, 1.0))

    def __init__(self, size: float) -> None:
        self.size = size

    def terms(self) -> tuple[Term, ...]:
        return (Term("residual", (self.domain,), ("u",), lambda x, d: d.u + torch.where(x.x < 0.01, self.size, 1.0)),)


class Anchored(PDE):
    """Fields that vanish at one x by construction, with all operations that a construction may use."""

    built_in = frozenset({"end"})

    def __init__(self, domain: Box = TWO, outputs: int = 2, end: float = 0.0) -> None:
        self.domain = domain
        self.end = end
        self.fields = ("u", "v")[:outputs]  # type: ignore[misc]

    def terms(self) -> tuple[Term, ...]:
        return (
            Term("residual", (self.domain,), ("u_t", "u_xx"), lambda x, d: d.u_t - d.u_xx),
            Term("end", self.domain.faces("x")[:1], ("u",), lambda x, d: d.u),
        )

    def constrain(self, x: Columns, u: Columns) -> tuple[Any, ...]:
        z = x.x - self.end
        lift = z.sin() * (1 - 2 * z.exp()) + (z.cos() - 1)
        distance = (3 * z - z**2).tanh()
        return tuple(lift + distance * (field - 0.5 * field**3) for field in (getattr(u, f) for f in self.fields))


def anchored(domain: Box, outputs: int = 1) -> nn.Module:
    """An MLP on jets, constrained outside of the domain, so that no row of its kernel is zero."""
    return constrained(MLP(5, 1, domain=domain, outputs=outputs), Anchored(domain, outputs, end=-1.0))


def anchored_plain(domain: Box, outputs: int = 1) -> nn.Module:
    """A network that knows nothing of jets, constrained."""
    return constrained(Plain(domain, outputs), Anchored(domain, outputs, end=-1.0))
