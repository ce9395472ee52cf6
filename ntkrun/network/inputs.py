"""Input scaling and periodic coordinates of networks, and the base of those that begin so."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Required, TypedDict

import torch
from torch import Tensor, nn

from ntkrun.geometry import Box
from ntkrun.jets import Jet
from ntkrun.network.base import JetNetwork

NO_PERIODS: Mapping[str, float] = MappingProxyType({})


class Inputs(nn.Module):
    """Standardised coordinates, and circles in place of periodic ones.

    A coordinate z of period L becomes cos(2 pi z / L) and sin(2 pi z / L), which makes every function of them
    periodic, with all its derivatives (Dong and Ni, arXiv 2007.07442).

    Args:
        domain: the box that the coordinates live in.
        standardize: shift and scale to mean 0 and variance 1 for points uniform on the domain.
        periodic: embed the coordinates that have a period; these are not standardised.
        periods: the period along every periodic coordinate.

    Attributes:
        width: number of columns put out.
        periodic: as given.

    Raises:
        ValueError: an embedding is asked for, but no coordinate is periodic.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, domain: Box, standardize: bool = True, periodic: bool = False, periods: Mapping[str, float] = NO_PERIODS
    ) -> None:
        super().__init__()
        if periodic and not periods:
            raise ValueError("periodic=true: the problem has no periodic coordinate")
        self.periodic = periodic
        self.standardize = standardize
        # Kept as numbers: a buffer of single precision would be off by 1e-8 in a network of double precision.
        self._periods = {domain.coordinates.index(c): period for c, period in periods.items()} if periodic else {}
        self._others = [i for i in range(len(domain.coordinates)) if i not in self._periods]
        self.width = len(self._others) + 2 * len(self._periods)
        if standardize:
            # Of double precision whatever the network's: rounded, they would stay so when it is converted. Computed as
            # numbers: with tensors without memory (device meta) torch would load its compiler, which takes seconds.
            ends = [(domain.low[c], domain.high[c]) for c in domain.coordinates]
            mean = [low + (high - low) / 2 for low, high in ends]
            deviation = [(high - low) / math.sqrt(12) for low, high in ends]
            self.register_buffer("mean", torch.tensor(mean, dtype=torch.float64))
            self.register_buffer("deviation", torch.tensor(deviation, dtype=torch.float64))

    def forward(self, jet: Jet) -> Jet:
        """Map the jet of the coordinates, ``[S, N, d]``, to one of ``width`` columns."""
        scaled = self._standardized(jet) if self.standardize else jet
        if not self._periods:
            return scaled
        angles = Jet.cat([jet.column(i) * (2 * math.pi / period) for i, period in self._periods.items()])
        return Jet.cat([*(scaled.column(i) for i in self._others), angles.cos(), angles.sin()])

    def _standardized(self, jet: Jet) -> Jet:
        """Centred before they are scaled: the other way round, coordinates far from the origin lose their digits."""
        streams = jet.resolve()
        centred = torch.cat([streams[:1] - self.mean.to(streams.dtype), streams[1:]])
        return Jet(centred / self.deviation.to(streams.dtype), jet.plan, None, jet.uses)


class InputArguments(TypedDict, total=False):
    """The arguments of ``InputNetwork``, which its subclasses take as well, by keyword."""

    standardize: bool
    periodic: bool
    domain: Required[Box]
    outputs: int
    periods: Mapping[str, float]
    generator: torch.Generator | None


class InputNetwork(JetNetwork):
    """A network whose first layer is ``Inputs``.

    Args:
        domain: the box the inputs live in; sets the number of inputs.
        standardize, periodic, periods: see ``Inputs``.
        outputs: number of output fields.
        generator: source of the initial values and of whatever else a network draws; subclasses read it.

    Attributes:
        inputs: that layer.
        outputs: as given.
    """

    def __init__(
        self,
        *,
        domain: Box,
        standardize: bool = True,
        periodic: bool = False,
        outputs: int = 1,
        periods: Mapping[str, float] = NO_PERIODS,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.periodic = periodic
        self.inputs = Inputs(domain, standardize, periodic, periods)
        self.outputs = outputs
