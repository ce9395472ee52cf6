"""What a problem's terms leave open: whether 0 or -u satisfy them as well, and what they read outside of the domain."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ntkrun.geometry import Box, Sampler
from ntkrun.jets import Jet
from ntkrun.network import JetNetwork
from ntkrun.network.wrapped import Wrapped, WrappedJets
from ntkrun.objective.residuals import Residuals
from ntkrun.pde.check import place

MOST = 200  # points of a term; data may be 0 at a few
NODES = 20_000  # of integrals of a term
BESIDE = 1e-6  # of the domain's size, that its boundary may be missed by
SHIFT = 0.3  # of the parameters, standard deviation


Factor = Callable[[Tensor], Tensor]
"""What fields are multiplied by at points ``[N, d]``, ``[N, 1]``."""


class _MultipliedJets(WrappedJets):
    """A network on jets with the first outputs, the fields, multiplied by what is constant around every point."""

    def __init__(self, network: JetNetwork, fields: int, factor: Factor) -> None:
        super().__init__(network)
        self._fields, self._factor = fields, factor

    def forward(self, jet: Jet) -> Jet:
        streams = self.network(jet).resolve()
        return Jet(_scaled(streams, self._fields, self._factor(jet.resolve()[0])), jet.plan, None, jet.uses)


class _Multiplied(Wrapped):
    """Any other module with the first outputs, the fields, multiplied likewise."""

    def __init__(self, network: nn.Module, fields: int, factor: Factor) -> None:
        super().__init__(network)
        self._fields, self._factor = fields, factor

    def forward(self, x: Tensor) -> Tensor:
        return _scaled(self.network(x), self._fields, self._factor(x))


def _scaled(outputs: Tensor, fields: int, factor: Tensor) -> Tensor:
    return torch.cat([outputs[..., :fields] * factor, outputs[..., fields:]], dim=-1)


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
    own, none, other = (
        torch.cat(rows) for rows in _rows(objective, counts, (_constant(1), _constant(0), _constant(-1)))[1]
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


def reads_outside(objective: Residuals, counts: Mapping[str, int]) -> dict[str, str]:
    """Terms that read the solution outside of the domain, where nothing is trained, each with a point where it does so.

    They do so by their partner points or by integrals, and what they read makes a difference: residuals are compared
    with those of a network that is another one there. Terms whose own points lie outside are not meant, nor domains
    that are no boxes.

    Args:
        objective: the problem and a network.
        counts: the number of points by term.
    """
    pde, domain = objective.pde, objective.pde.domain
    if not isinstance(domain, Box) or not any(term.partner or term.integrals for term in objective.terms):
        return {}
    beside = BESIDE * max(domain.high[c] - domain.low[c] for c in pde.coordinates)

    def doubled(x: Tensor) -> Tensor:
        return 2 - domain.contains(x.detach(), beside).to(x)[:, None]

    points, (own, other) = _rows(objective, counts, (_constant(1), doubled))
    found = {}
    for i, term in enumerate(objective.terms):
        x = points[term.name][:, : len(pde.coordinates)]
        slack = torch.finfo(x.dtype).eps ** 0.75 * own[i].abs().max()
        differs = ((own[i] - other[i]).abs() > slack).view(-1, len(x)).any(0) & domain.contains(x, beside)
        if (term.partner or term.integrals) and differs.any():
            found[term.name] = place(pde, x[differs][0])
    return found


def _rows(
    objective: Residuals, counts: Mapping[str, int], factors: Sequence[Factor]
) -> tuple[dict[str, Tensor], list[tuple[Tensor, ...]]]:
    """A few points by term, and residuals there of a network with its fields multiplied by each of some factors."""
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
        return points, [_multiplied(objective, factor).residuals(batch, parameters) for factor in factors]


def _constant(factor: float) -> Factor:
    return lambda x: x.new_full((len(x), 1), factor)


def _most(objective: Residuals, i: int) -> int:
    """The most points of a term, fewer where each has many nodes of integrals."""
    nodes = sum(each.integral.count for each in objective.integrals[i])
    return max(1, min(MOST, NODES // max(1, nodes)))


def _multiplied(objective: Residuals, factor: Factor) -> Residuals:
    """The same terms under the network times a number; the given objective stays as it is."""
    other, fields = copy.copy(objective), len(objective.pde.fields)
    network = objective.network
    if isinstance(network, JetNetwork):
        other.network = _MultipliedJets(network, fields, factor)
    else:
        other.network = _Multiplied(network, fields, factor)
    return other
