"""Random Fourier features, and the multi-scale network on top of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Annotated, Literal, Unpack

import torch
from pydantic import Field
from torch import Tensor, nn

from ntkrun.common.types import Few, Positive
from ntkrun.jets import ACTIVATIONS, Jet
from ntkrun.network.base import Initialization, Linear
from ntkrun.network.inputs import InputArguments, InputNetwork


class FourierFeatures(nn.Module):
    """The features [cos(2 pi B x), sin(2 pi B x)] with normal frequencies B.

    Source: Tancik et al., arXiv 2006.10739.

    Args:
        inputs: number of columns of x.
        features: number of rows of B, ``[features, inputs]``; there are twice as many columns put out.
        scale: standard deviation of the entries of B.
        trainable: whether B is a parameter.
        generator: source of B.
    """

    frequencies: Tensor

    def __init__(
        self, inputs: int, features: int, scale: float, trainable: bool, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        frequencies = nn.init.normal_(torch.empty(features, inputs), std=scale, generator=generator)
        if trainable:
            self.frequencies = nn.Parameter(frequencies)
        else:
            self.register_buffer("frequencies", frequencies)

    def forward(self, jet: Jet) -> Jet:
        angles = jet.linear(self.frequencies, None, scale=2 * math.pi)
        return Jet.cat([angles.cos(), angles.sin()])


class FourierNetwork(InputNetwork):
    """Hidden layers shared by Fourier features of several scales, and a linear output of all their results.

    Source: Wang, Wang, Perdikaris, arXiv 2012.10047 (multi-scale Fourier feature architecture).

    Args:
        width: units per hidden layer.
        depth: number of hidden layers.
        activation: the elementwise function after every hidden layer.
        initialization: see ``Linear``.
        features: frequencies per scale.
        scales: standard deviations of the frequencies, one set of features each. With standardised inputs, a
            frequency of 1 is one period per standard deviation of a coordinate.
        trainable: whether the frequencies are trained.
        common: see ``InputNetwork``.
    """

    def __init__(
        self,
        width: Positive[int] = 64,
        depth: Few = 3,
        activation: Literal["tanh", "sin", "silu", "gelu"] = "tanh",
        initialization: Initialization = "glorot_normal",
        features: Positive[int] = 32,
        scales: Annotated[Sequence[Positive[float]], Field(min_length=1)] = (1.0, 10.0),
        trainable: bool = False,
        **common: Unpack[InputArguments],
    ) -> None:
        super().__init__(**common)
        generator = common.get("generator")
        self.activation = ACTIVATIONS[activation]
        self.features = nn.ModuleList(
            FourierFeatures(self.inputs.width, features, scale, trainable, generator) for scale in scales
        )
        sizes = [2 * features, *[width] * depth]
        self.hidden = nn.ModuleList(Linear(a, b, initialization, generator) for a, b in itertools.pairwise(sizes))
        self.last = Linear(len(scales) * width, self.outputs, initialization, generator)

    def forward(self, jet: Jet) -> Jet:
        jet = self.inputs(jet)
        results = []
        for features in self.features:
            result = features(jet)
            for layer in self.hidden:
                result = layer(result).map(self.activation)
            results.append(result)
        last: Jet = self.last(Jet.cat(results))
        return last
