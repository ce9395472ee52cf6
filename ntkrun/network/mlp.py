"""The multilayer perceptron."""

from __future__ import annotations

import itertools
from typing import Literal, Unpack

from torch import nn

from ntkrun.common.types import Few, Positive
from ntkrun.jets import ACTIVATIONS, Jet
from ntkrun.network.base import Initialization, Linear
from ntkrun.network.inputs import InputArguments, InputNetwork


class MLP(InputNetwork):
    """Fully connected network: ``depth`` hidden layers of ``width`` units and a linear output.

    Args:
        width: units per hidden layer.
        depth: number of hidden layers.
        activation: the elementwise function after every hidden layer.
        initialization: see ``Linear``.
        common: see ``InputNetwork``.
    """

    def __init__(
        self,
        width: Positive[int] = 64,
        depth: Few = 3,
        activation: Literal["tanh", "sin", "silu", "gelu"] = "tanh",
        initialization: Initialization = "glorot_normal",
        **common: Unpack[InputArguments],
    ) -> None:
        super().__init__(**common)
        generator = common.get("generator")
        self.activation = ACTIVATIONS[activation]
        sizes = [self.inputs.width, *[width] * depth, self.outputs]
        self.layers = nn.ModuleList(Linear(a, b, initialization, generator) for a, b in itertools.pairwise(sizes))

    def forward(self, jet: Jet) -> Jet:
        jet = self.inputs(jet)
        *hidden, last = self.layers
        for layer in hidden:
            jet = layer(jet).map(self.activation)
        result: Jet = last(jet)
        return result
