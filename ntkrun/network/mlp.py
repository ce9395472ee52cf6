"""The multilayer perceptron."""

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


class MLP(JetNetwork):
    """Fully connected network: ``depth`` hidden layers of ``width`` units and a linear output.

    Args:
        width: units per hidden layer.
        depth: number of hidden layers.
        activation: the elementwise function after every hidden layer.
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
        sizes = [self.inputs.width, *[width] * depth, outputs]
        self.layers = nn.ModuleList(Linear(a, b, initialization, generator) for a, b in itertools.pairwise(sizes))

    def forward(self, jet: Jet) -> Jet:
        jet = self.inputs(jet)
        *hidden, last = self.layers
        for layer in hidden:
            jet = layer(jet).map(self.activation)
        result: Jet = last(jet)
        return result
