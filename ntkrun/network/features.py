"""Networks that read functions of the coordinates beside these."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ntkrun.geometry import Box, Domain
from ntkrun.jets import Jet
from ntkrun.network.base import JetNetwork
from ntkrun.network.wrapped import Wrapped, WrappedJets

if TYPE_CHECKING:
    from ntkrun.pde import PDE

END = math.sqrt(3)  # of an interval about 0 on which uniform numbers have variance 1, so that they stay as they are


def feature_count(pde: PDE) -> int:
    """The number of features that a problem declares.

    Raises:
        ProblemError: ``features`` fails, or gives something else than columns.
    """
    # Loaded already, with the problem itself; networks do not need problems otherwise.
    from ntkrun.pde import ProblemError

    low, high = pde.domain.low, pde.domain.high
    middle = torch.tensor([[(low[c] + high[c]) / 2 for c in pde.coordinates]], dtype=torch.float64, device="cpu")
    try:
        found: object = _features(pde, middle)
    except Exception as error:
        raise ProblemError(f"features() fails with {type(error).__name__}: {error}") from error
    if not isinstance(found, tuple | list) or not all(isinstance(f, Tensor) and f.shape == (1, 1) for f in found):
        raise ProblemError("features() gives no tuple of functions of the coordinates")
    return len(found)


def featured_domain(domain: Domain, count: int) -> Box:
    """The box that a network with so many features lives in: the coordinates' intervals, and one for each feature.

    Features are expected to be of order 1: networks that standardise their inputs take them as they are.
    """
    names = [f"feature_{i}" for i in range(count)]
    low = {c: domain.low[c] for c in domain.coordinates} | dict.fromkeys(names, -END)
    high = {c: domain.high[c] for c in domain.coordinates} | dict.fromkeys(names, END)
    return Box(low, high)


def with_features(network: nn.Module, pde: PDE) -> nn.Module:
    """Let a network read the coordinates and ``pde.features(x)``.

    Args:
        network: a ``JetNetwork``, or any module mapping ``[N, d + k]`` to ``[N, fields]`` row by row, for k features.
        pde: the problem.

    Returns:
        A network of the same kind of the d coordinates, with the parameters of ``network``.
    """
    return FeaturedJets(network, pde) if isinstance(network, JetNetwork) else Featured(network, pde)


class FeaturedJets(WrappedJets):
    """A network on jets that reads features; see ``with_features``."""

    def __init__(self, network: JetNetwork, pde: PDE) -> None:
        super().__init__(network)
        self._pde = pde

    def forward(self, jet: Jet) -> Jet:
        result: Jet = self.network(Jet.cat([jet, *_features(self._pde, jet)]))
        return result


class Featured(Wrapped):
    """Any other module that reads features; see ``with_features``."""

    def __init__(self, network: nn.Module, pde: PDE) -> None:
        super().__init__(network)
        self._pde = pde

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, d]`` to ``[N, fields]``."""
        result: Tensor = self.network(torch.cat([x, *_features(self._pde, x)], dim=1))
        return result


def _features(pde: PDE, x: Any) -> tuple[Any, ...]:
    """The features at points ``[N, d]``, or of their jet, one column each."""
    from ntkrun.pde import Columns

    column = x.column if isinstance(x, Jet) else lambda i: x[:, i : i + 1]
    return pde.features(Columns({name: column(i) for i, name in enumerate(pde.coordinates)}, "the point set"))
