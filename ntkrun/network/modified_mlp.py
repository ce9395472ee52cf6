"""The modified multilayer perceptron with two encoders."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Literal

import torch
from torch import nn

from ntkrun.common.types import Few, Positive
from ntkrun.geometry import Box
from ntkrun.jets import ACTIVATIONS, Jet
from ntkrun.network.base import Initialization, JetNetwork, Linear
from ntkrun.network.inputs import NO_PERIODS, Inputs


class ModifiedMLP(JetNetwork):
    """An MLP whose every hidden layer z mixes two encodings of the inputs, h = z * u + (1 - z) * v.

    u and v are one hidden layer each, applied to the inputs. Source: Wang, Teng, Perdikaris, arXiv 2001.04536;
    here the first hidden layer is mixed as well.

    Args:
        width: units per hidden layer and encoder.
        depth: number of hidden layers.
        activation: the elementwise function after every hidden layer and encoder.
        initialization: see ``Linear``.
        standardize, periodic, periods: see ``Inputs``.
        domain: the box the inputs live in; sets the number of inputs.
        outputs: number of output fields.
        generator: source of the initial values.
    """

    def __init__(
        self,
        width: Positive[int] = 64,
        depth: Few = 3,
        activation: Literal["tanh", "sin", "silu", "gelu"] = "tanh",
        initialization: Initialization = "glorot_normal",
        standardize: bool = True,
        periodic: bool = False,
        *,
        domain: Box,
        outputs: int = 1,
        periods: Mapping[str, float] = NO_PERIODS,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.periodic = periodic
        self.activation = ACTIVATIONS[activation]
        self.inputs = Inputs(domain, standardize, periodic, periods)
        self.u = Linear(self.inputs.width, width, initialization, generator)
        self.v = Linear(self.inputs.width, width, initialization, generator)
        sizes = [self.inputs.width, *[width] * depth, outputs]
        self.layers = nn.ModuleList(Linear(a, b, initialization, generator) for a, b in itertools.pairwise(sizes))

    def forward(self, jet: Jet) -> Jet:
        jet = self.inputs(jet)
        u: Jet = self.u(jet).map(self.activation)
        v: Jet = self.v(jet).map(self.activation)
        difference = u - v
        *hidden, last = self.layers
        for layer in hidden:
            # z u + (1 - z) v with one product of jets instead of two.
            jet = v + layer(jet).map(self.activation) * difference
        result: Jet = last(jet)
        return result
