"""Plain torch: the derivatives by nested ``autograd.grad``, operation by operation, Adam by torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from training.cases import HELMHOLTZ_K, RATE, WAVE_SPEED, Case
from training.torch_network import linear_layers, put_layers, take_layers
from training.turns import Turns


def train(case: Case) -> None:
    """Train until told to stop."""
    modules: list[nn.Module] = []
    for a, b in zip(case.sizes, case.sizes[1:], strict=False):
        modules += [nn.Linear(a, b), nn.Tanh()]
    network = nn.Sequential(*modules[:-1])
    put_layers(linear_layers(network), case)
    points = {term: torch.from_numpy(x) for term, x in case.draw_points().items()}
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE, fused=True)
    turns = Turns(lambda: take_layers(linear_layers(network)))
    while turns():
        optimizer.zero_grad(set_to_none=True)
        loss = torch.stack([residual(network, case, term, x).square().mean() for term, x in points.items()]).sum()
        loss.backward()
        optimizer.step()


def residual(network: nn.Module, case: Case, term: str, x: Tensor) -> Tensor:
    """The residual of a term, ``[N]``."""
    if term == "boundary":
        return network(x)[:, 0]
    if term == "initial":
        return network(x)[:, 0] - displacement(x[:, 0])
    x = x.detach().requires_grad_()
    u = network(x)[:, 0]
    first = slope(u, x)
    if term == "initial_velocity":
        return first[:, 1]
    second = [slope(first[:, i], x)[:, i] for i in range(x.shape[1])]
    if case.pde == "poisson":
        return second[0] + (4 * math.pi) ** 2 * torch.sin(4 * math.pi * x[:, 0].detach())
    if case.pde == "wave":
        return second[1] - WAVE_SPEED**2 * second[0]
    return second[0] + second[1] + HELMHOLTZ_K**2 * u - forcing(x.detach())


def slope(u: Tensor, x: Tensor) -> Tensor:
    """Gradient of every entry with respect to its own point, ``[N, d]``."""
    return torch.autograd.grad(u, x, torch.ones_like(u), create_graph=True)[0]


def displacement(x: Tensor) -> Tensor:
    """The wave at t = 0."""
    return torch.sin(math.pi * x) + 0.5 * torch.sin(4 * math.pi * x)


def forcing(x: Tensor) -> Tensor:
    """The right-hand side of the Helmholtz problem."""
    return (HELMHOLTZ_K**2 - 17 * math.pi**2) * torch.sin(math.pi * x[:, 0]) * torch.sin(4 * math.pi * x[:, 1])
