"""Independent answers: nested autograd, and the dense Jacobian one row at a time in float64."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ntkrun.geometry import Sampler
from ntkrun.jets import Jet, StreamPlan
from ntkrun.network import JetNetwork
from ntkrun.objective import Objective
from ntkrun.objective.batch import Batch
from ntkrun.pde import PDE, Columns, Integral
from ntkrun.pde.integral import End


def values(network: nn.Module, x: Tensor) -> Tensor:
    """The network's outputs, ``[N, outputs]``; on jets of the value alone, so that no derivative rule is used."""
    if isinstance(network, JetNetwork):
        plan = StreamPlan((), (), (("", ((0, 1.0),)),))
        out: Jet = network(Jet(x[None], plan))
        return out.resolve()[0]
    result: Tensor = network(x)
    return result


class AsTensors(nn.Module):
    """The values of a network on jets as those of a plain module with the same parameters."""

    def __init__(self, network: JetNetwork) -> None:
        super().__init__()
        self.inner = network

    def forward(self, x: Tensor) -> Tensor:
        return values(self.inner, x)


def derivative(function: Callable[[Tensor], Tensor], x: Tensor, axes: list[int]) -> Tensor:
    """A partial derivative of a scalar function at every row of ``x`` by nested reverse mode, ``[N]``."""
    x = x.detach().requires_grad_()
    y = function(x)
    for axis in axes:
        if not y.requires_grad:
            return torch.zeros(len(x), dtype=x.dtype)
        (gradient,) = torch.autograd.grad(y.sum(), x, create_graph=True, allow_unused=True)
        y = torch.zeros(len(x), dtype=x.dtype) if gradient is None else gradient[:, axis]
    return y


def term_columns(function: Callable[[Tensor], Tensor], x: Tensor, objective: Objective, i: int) -> Columns:
    """The derivatives that term i declares, of a function ``[N, d] -> [N, fields]``, at partner points too."""
    pde, term = objective.pde, objective.terms[i]
    d = len(pde.coordinates)

    def columns(x: Tensor) -> dict[str, Tensor]:
        def named(name: str) -> Tensor:
            field, _, letters = name.partition("_")
            index = pde.outputs.index(field)
            return derivative(
                lambda z: function(z)[:, index], x[:, :d], [pde.coordinates.index(letter) for letter in letters]
            )

        combined = {
            name: torch.stack([factor * named(part) for part, factor in formula.items()]).sum(0)
            for name, formula in term.operators.items()
        }
        integrals = {name: _integral(function, x, pde, each) for name, each in term.integrals.items()}
        return {**{name: named(name) for name in term.derivatives}, **combined, **integrals}

    partner = None
    if term.partner is not None:
        places = []
        for c, own in zip(pde.coordinates, x.unbind(1), strict=False):
            at = term.partner.get(c, 0.0)
            places.append(at(pde.columns(x[:, :d])) if callable(at) else own + at)
        partner = Columns(columns(torch.stack(places, dim=1)), "oracle")
    return Columns(columns(x), "oracle", partner)


def _integral(function: Callable[[Tensor], Tensor], x: Tensor, pde: PDE, integral: Integral) -> Tensor:
    """An integral by one evaluation of all points per node of Gauss's rule, ``[N]``."""
    z, w = np.polynomial.legendre.leggauss(integral.nodes)
    at, total, size = pde.columns(x), torch.zeros(len(x), dtype=x.dtype), torch.ones(len(x), dtype=x.dtype)

    def place(end: End) -> Tensor:
        return getattr(at, end) if isinstance(end, str) else end(at) if callable(end) else torch.full_like(x[:, 0], end)

    ends = {c: [place(end) for end in pair] for c, pair in integral.over.items()}
    for low, high in ends.values():
        size = size * (high - low)
    for node in itertools.product(range(integral.nodes), repeat=len(ends)):
        columns = list(x.unbind(1))
        for (c, (low, high)), k in zip(ends.items(), node, strict=True):
            columns[pde.coordinates.index(c)] = (low + high) / 2 + (high - low) / 2 * z[k]
        place = torch.stack(columns, dim=1)
        read = {}
        for name in integral.derivatives:
            field, _, letters = name.partition("_")
            i, axes = pde.outputs.index(field), [pde.coordinates.index(letter) for letter in letters]
            read[name] = derivative(lambda y, i=i: function(y)[:, i], place, axes)
        nodes = Columns(dict(zip(pde.coordinates, columns, strict=True)), "nodes", row=at)
        total = total + math.prod(w[k] / 2 for k in node) * integral.integrand(nodes, Columns(read, "nodes"))
    return total if integral.mean else total * size


def residual_rows(objective: Objective, points: Mapping[str, Tensor]) -> list[Tensor]:
    """r_i of every term by nested autograd, ``[N_i]``, with a graph to the parameters."""
    rows = []
    for i, term in enumerate(objective.terms):
        x = points[term.name]
        columns = term_columns(lambda z: values(objective.network, z), x, objective, i)
        residual = term.residual(objective.pde.columns(x, None, term.columns), columns)
        rows.append(residual.reshape(len(x), -1).T.flatten())
    return rows


def dense_jacobians(objective: Objective, points: Mapping[str, Tensor]) -> list[Tensor]:
    """J_i of every term, ``[N_i, P]``, one reverse pass per row."""
    parameters = [p for p in objective.network.parameters() if p.requires_grad]
    jacobians = []
    for rows in residual_rows(objective, points):
        gradients = []
        for row in rows:
            parts = (
                torch.autograd.grad(row, parameters, retain_graph=True, allow_unused=True)
                if row.requires_grad
                else [None] * len(parameters)
            )
            flat = [(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(parameters, parts, strict=True)]
            gradients.append(torch.cat(flat))
        jacobians.append(torch.stack(gradients))
    return jacobians


def draw_points(objective: Objective, counts: list[int], seed: int = 0) -> dict[str, Tensor]:
    """Uniform points of every term in the network's dtype."""
    return {
        term.name: Sampler(term.region, n, "uniform", seed + i).draw().to(objective.like)
        for i, (term, n) in enumerate(zip(objective.terms, counts, strict=True))
    }


def draw_batch(objective: Objective, counts: list[int], seed: int = 0) -> tuple[dict[str, Tensor], Batch]:
    """``draw_points`` and the batch of them."""
    points = draw_points(objective, counts, seed)
    return points, objective.batch(points)


def relative(a: Tensor, b: Tensor) -> float:
    """Largest absolute difference relative to the largest absolute value of ``b``."""
    return ((a - b).abs().max() / b.abs().max().clamp_min(torch.finfo(b.dtype).tiny)).item()
