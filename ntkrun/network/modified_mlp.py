"""The modified multilayer perceptron with two encoders."""

from __future__ import annotations

import itertools
from typing import Literal, Unpack

from torch import nn

from ntkrun.common.types import Few, Positive
from ntkrun.jets import ACTIVATIONS, Jet
from ntkrun.network.base import Initialization, Linear
from ntkrun.network.inputs import InputArguments, InputNetwork


class ModifiedMLP(InputNetwork):
    """An MLP whose every hidden layer z mixes two encodings of the inputs, h = z * u + (1 - z) * v.

    u and v are one hidden layer each, applied to the inputs. Source: Wang, Teng, Perdikaris, arXiv 2001.04536;
    here the first hidden layer is mixed as well.

    Args:
        width: units per hidden layer and encoder.
        depth: number of hidden layers.
        activation: the elementwise function after every hidden layer and encoder.
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
        self.u = Linear(self.inputs.width, width, initialization, generator)
        self.v = Linear(self.inputs.width, width, initialization, generator)
        sizes = [self.inputs.width, *[width] * depth, self.outputs]
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
