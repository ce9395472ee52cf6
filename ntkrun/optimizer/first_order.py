"""Optimisers that take one gradient per step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ntkrun.checked import Fraction, NonNegative, Positive
from ntkrun.objective import Evaluation
from ntkrun.optimizer.base import Reevaluate, TorchOptimizer


class FirstOrder(TorchOptimizer):
    """A torch optimiser fed with the gradient of each step."""

    def step(self, evaluation: Evaluation, factor: float, reevaluate: Reevaluate, changed: bool) -> None:
        for group in self._torch.param_groups:
            group["lr"] = self.rate(factor)
        self.assign(evaluation.gradient)
        self._torch.step()
        self._torch.zero_grad(set_to_none=True)


@dataclass(kw_only=True, eq=False)
class GradientDescent(FirstOrder):
    """Plain gradient descent."""

    def build(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=self.learning_rate)


@dataclass(kw_only=True, eq=False)
class Adam(FirstOrder):
    """Adam (Kingma, Ba, arXiv 1412.6980).

    Args:
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        epsilon: added to the denominator.
    """

    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    epsilon: Positive[float] = 1e-8

    def build(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        betas = (self.beta1, self.beta2)
        return torch.optim.Adam(parameters, lr=self.learning_rate, betas=betas, eps=self.epsilon, fused=True)


@dataclass(kw_only=True, eq=False)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov, Hutter, arXiv 1711.05101).

    Args:
        weight_decay: per step, the parameters shrink by the learning rate times this.
    """

    weight_decay: NonNegative[float] = 1e-4

    def build(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            parameters,
            lr=self.learning_rate,
            betas=(self.beta1, self.beta2),
            eps=self.epsilon,
            weight_decay=self.weight_decay,
            fused=True,
        )


@dataclass(kw_only=True, eq=False)
class SOAP(FirstOrder):
    """Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al., arXiv 2409.11321), by ``pytorch-optimizer``.

    Args:
        beta1: decay of the first moment.
        beta2: decay of the second moment and of the preconditioner.
        epsilon: added to the denominator.
        precondition_every: steps between updates of the eigenbasis.
    """

    beta1: Fraction = 0.95
    beta2: Fraction = 0.95
    epsilon: Positive[float] = 1e-8
    precondition_every: Positive[int] = 10

    def build(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        try:
            import pytorch_optimizer
        except ImportError:
            raise ValueError("_target_: SOAP needs the package pytorch-optimizer: pip install 'ntkrun[soap]'") from None
        optimizer: torch.optim.Optimizer = pytorch_optimizer.SOAP(
            parameters,
            lr=self.learning_rate,
            betas=(self.beta1, self.beta2),
            eps=self.epsilon,
            weight_decay=0.0,
            precondition_frequency=self.precondition_every,
        )
        return optimizer
