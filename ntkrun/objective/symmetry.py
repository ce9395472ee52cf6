"""What a problem's terms leave open: whether u = 0 satisfies all of them, and whether -u does as well as u."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ntkrun.geometry import Sampler
from ntkrun.jets import Jet
from ntkrun.network import JetNetwork
from ntkrun.network.wrapped import Wrapped, WrappedJets
from ntkrun.objective.residuals import Residuals

MOST = 200  # points of a term; data may be 0 at a few
NODES = 20_000  # of integrals of a term
SHIFT = 0.3  # of the parameters, standard deviation


class _MultipliedJets(WrappedJets):
    """A network on jets with the first outputs, the fields, multiplied by a number."""

    def __init__(self, network: JetNetwork, fields: int, factor: float) -> None:
        super().__init__(network)
        self._fields, self._factor = fields, factor

    def forward(self, jet: Jet) -> Jet:
        outputs: Jet = self.network(jet)
        columns = [outputs.column(i) for i in range(outputs.streams.shape[-1])]
        return Jet.cat([column * self._factor if i < self._fields else column for i, column in enumerate(columns)])


class _Multiplied(Wrapped):
    """Any other module with the first outputs, the fields, multiplied by a number."""

    def __init__(self, network: nn.Module, fields: int, factor: float) -> None:
        super().__init__(network)
        self._fields, self._factor = fields, factor

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.network(x)
        return torch.cat([outputs[:, : self._fields] * self._factor, outputs[:, self._fields :]], dim=1)


def left_open(objective: Residuals, counts: Mapping[str, int]) -> str | None:
    """What the loss does not tell, in words; nothing where it tells the fields apart from 0 and from their negatives.

    Residuals of a network at a few points are compared with those of the same times 0 and times -1. Unknown
    coefficients stay as they are. Where ``constrain`` makes the fields, it may say what terms do not, and nothing is
    looked for.

    Args:
        objective: the problem and a network.
        counts: the number of points by term.
    """
    if objective.pde.constrains:
        return None
    points = {
        term.name: Sampler(term.region, min(counts[term.name], _most(objective, i)), "uniform", i)
        .draw()
        .to(objective.like)
        for i, term in enumerate(objective.terms)
    }
    batch, generator = objective.batch(points), torch.Generator().manual_seed(0)
    parameters = {  # moved, for networks may start as odd functions
        f"network.{name}": p + SHIFT * torch.randn(p.shape, generator=generator).to(p)
        for name, p in objective.detached().items()
    }
    with torch.no_grad():
        own, none, other = (
            torch.cat(_multiplied(objective, factor).residuals(batch, parameters)) for factor in (1.0, 0.0, -1.0)
        )
    slack = torch.finfo(own.dtype).eps ** 0.75 * own.abs().max()
    if bool((none.abs() <= slack).all()):
        return (
            "0 satisfies all terms, and training may find nothing else; a term that excludes it, such as an integral "
            "of the square or a value at one point, leaves the solution that is meant"
        )
    if bool(((own.abs() - other.abs()).abs() <= slack).all()):
        return (
            "the terms do not tell the solution from its negative: either is found, and errors and the choice of "
            "best.pt take one of them for wrong; a term with a value, or a slope, at one point tells them apart"
        )
    return None


def _most(objective: Residuals, i: int) -> int:
    """The most points of a term, fewer where each has many nodes of integrals."""
    nodes = sum(each.integral.count for each in objective.integrals[i])
    return max(1, min(MOST, NODES // max(1, nodes)))


def _multiplied(objective: Residuals, factor: float) -> Residuals:
    """The same terms under the network times a number; the given objective stays as it is."""
    other, fields = copy.copy(objective), len(objective.pde.fields)
    network = objective.network
    if isinstance(network, JetNetwork):
        other.network = _MultipliedJets(network, fields, factor)
    else:
        other.network = _Multiplied(network, fields, factor)
    return other
