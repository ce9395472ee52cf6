"""The residual network on Fourier features with stochastic depth."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal, Unpack

import torch
from pydantic import Field
from torch import Tensor, nn

from ntkrun.backend.tracing import tracing
from ntkrun.backend.transfer import moved
from ntkrun.common.types import Few, Positive
from ntkrun.geometry import mix_seed
from ntkrun.jets import ACTIVATIONS, Jet
from ntkrun.network.base import Initialization, Linear
from ntkrun.network.fourier import FourierFeatures
from ntkrun.network.inputs import InputArguments, InputNetwork


class ECRN(InputNetwork):
    """Residual layers h + alpha * activation(W h + b) on Fourier features, and a linear output.

    Source: arXiv 2512.08264 (NTK-ECRN). Every alpha is one trainable number. Under stochastic depth (Huang et al.,
    arXiv 1603.09382) residual layer l of L is kept in an optimiser step with probability
    1 - l / L (1 - survival) and its branch is then divided by that probability; otherwise the layer passes h on.
    In evaluation mode, and before the first step, all branches are kept as they are.

    Args:
        features: number of frequencies; h has twice that width.
        depth: number of residual layers L.
        activation: the elementwise function of every residual branch.
        initialization: see ``Linear``.
        scale: standard deviation of the frequencies.
        trainable: whether the frequencies are trained.
        alpha: initial value of every alpha; ``None`` means ``1 / depth``.
        survival: probability of keeping the branch of the last residual layer.
        common: see ``InputNetwork``.

    Attributes:
        survival: probability of keeping each branch.
        factors: what each branch is multiplied by in training mode in the present step, 0 where it is dropped.
    """

    drawn: Tensor

    def __init__(
        self,
        features: Positive[int] = 32,
        depth: Few = 4,
        activation: Literal["tanh", "sin", "silu", "gelu"] = "tanh",
        initialization: Initialization = "glorot_normal",
        scale: Positive[float] = 1.0,
        trainable: bool = False,
        alpha: float | None = None,
        survival: Annotated[float, Field(gt=0, le=1)] = 1.0,
        **common: Unpack[InputArguments],
    ) -> None:
        super().__init__(**common)
        generator = common.get("generator")
        self.activation = ACTIVATIONS[activation]
        self.features = FourierFeatures(self.inputs.width, features, scale, trainable, generator)
        width = 2 * features
        self.layers = nn.ModuleList(Linear(width, width, initialization, generator) for _ in range(depth))
        start = 1 / depth if alpha is None else alpha
        self.alphas = nn.ParameterList(nn.Parameter(torch.full((1,), start)) for _ in range(depth))
        self.last = Linear(width, self.outputs, initialization, generator)
        self.survival = [1 - (layer + 1) / depth * (1 - survival) for layer in range(depth)]
        self.factors = [1.0] * depth
        self.register_buffer("drawn", torch.ones(depth), persistent=False)  # the factors, for traced passes
        self._seed = int(torch.randint(2**62, (), device="cpu", generator=generator))

    def start_step(self, step: int) -> None:
        """Draw the residual layers kept in this step, from the seed and the step alone."""
        generator = torch.Generator().manual_seed(mix_seed(self._seed, step))
        draws = torch.rand(len(self.survival), generator=generator, dtype=torch.float64).tolist()
        self.factors = [1 / p if draw < p else 0.0 for p, draw in zip(self.survival, draws, strict=True)]
        self.drawn.copy_(moved(torch.tensor(self.factors, dtype=torch.float64), self.drawn))

    def traceable(self) -> bool:
        return True

    def forward(self, jet: Jet) -> Jet:
        jet = self.features(self.inputs(jet))
        factors = self.factors if self.training else [1.0] * len(self.factors)
        for k, (layer, alpha, factor) in enumerate(zip(self.layers, self.alphas, factors, strict=True)):
            if tracing() and self.training and self.survival[-1] < 1:
                branch = layer(jet).map(self.activation).gain(alpha)
                jet = jet + replace(branch, streams=branch.streams * self.drawn[k])
            elif factor:
                branch = layer(jet).map(self.activation).gain(alpha)
                jet = jet + (branch if factor == 1 else factor * branch)
        result: Jet = self.last(jet)
        return result
