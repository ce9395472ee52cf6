"""The multilayer perceptron."""

from __future__ import annotations

import itertools
from typing import Literal

import torch
from torch import nn

from ntkrun.checked import Positive
from ntkrun.geometry import Box
from ntkrun.jets import ACTIVATIONS, Jet
from ntkrun.network.base import Initialization, JetNetwork, Linear, Standardize


class MLP(JetNetwork):
    """Fully connected network: ``depth`` hidden layers of ``width`` units and a linear output.

    Args:
        width: units per hidden layer.
        depth: number of hidden layers.
        activation: the elementwise function after every hidden layer.
        initialization: see ``Linear``.
        standardize: shift and scale the inputs to mean 0, variance 1 over the domain.
        domain: the box the inputs live in; sets the number of inputs.
        outputs: number of output fields.
        generator: source of the initial values.
    """

    def __init__(
        self,
        width: Positive[int] = 64,
        depth: Positive[int] = 3,
        activation: Literal["tanh", "sin", "silu", "gelu"] = "tanh",
        initialization: Initialization = "glorot_normal",
        standardize: bool = True,
        *,
        domain: Box,
        outputs: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.standardize = Standardize(domain) if standardize else None
        sizes = [len(domain.coordinates), *[width] * depth, outputs]
        self.layers = nn.ModuleList(Linear(a, b, initialization, generator) for a, b in itertools.pairwise(sizes))

    def forward(self, jet: Jet) -> Jet:
        if self.standardize is not None:
            jet = self.standardize(jet)
        *hidden, last = self.layers
        for layer in hidden:
            jet = layer(jet).map(self.activation)
        result: Jet = last(jet)
        return result
