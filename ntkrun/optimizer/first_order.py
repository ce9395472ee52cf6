"""Optimisers that take one gradient per step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ntkrun.common.state_schema import Count, EmptyOr, Own, Real
from ntkrun.common.types import Fraction, NonNegative, Positive
from ntkrun.objective import Evaluation
from ntkrun.optimizer.base import RATE, GraphUpdate, Options, Reevaluate, TorchOptimizer

MOMENTS = ("exp_avg", "exp_avg_sq")  # torch's names of the moments of Adam


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

    def graph_update(self) -> GraphUpdate:
        return self

    def took_step(self, evaluation: Evaluation) -> None:
        pass

    def tensors(self) -> list[Tensor]:
        """Nothing: gradient descent has no state."""
        return []

    def numbers(self, rate: float) -> tuple[float, ...]:
        """The learning rate."""
        return (rate,)

    def update(
        self,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor],
        tensors: Sequence[Tensor],
        numbers: Sequence[Tensor],
    ) -> None:
        """See ``GraphUpdate``."""
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.sub_(numbers[0] * gradient)


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

    def start(self, network: nn.Module) -> None:
        super().start(network)
        # torch makes these at its first step; compiled steps need them before.
        for p in self._parameters.values():
            step = torch.zeros((), dtype=torch.float32, device=p.device)
            moments = {name: torch.zeros_like(p, requires_grad=False) for name in MOMENTS}
            self._torch.state[p] = {"step": step, **moments}
        self._steps = 0
        self._uncounted = 0  # of these, by torch's optimiser

    def step(self, evaluation: Evaluation, factor: float, reevaluate: Reevaluate, changed: bool) -> None:
        self._count()
        super().step(evaluation, factor, reevaluate, changed)
        self._steps += 1

    def graph_update(self) -> GraphUpdate:
        return self

    def took_step(self, evaluation: Evaluation) -> None:
        self._steps += 1
        self._uncounted += 1

    def tensors(self) -> list[Tensor]:
        """First moments of the gradients of all parameters, then second moments."""
        return [self._torch.state[p][name] for name in MOMENTS for p in self._parameters.values()]

    def numbers(self, rate: float) -> tuple[float, ...]:
        """The length of a step, the factor of the root of the second moment, and the weight decay."""
        steps = self._steps + 1
        corrections = [-math.expm1(steps * math.log(beta)) if beta else 1.0 for beta in (self.beta1, self.beta2)]
        return rate / corrections[0], 1 / math.sqrt(corrections[1]), 1 - rate * self.decay

    def update(
        self,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor],
        tensors: Sequence[Tensor],
        numbers: Sequence[Tensor],
    ) -> None:
        """See ``GraphUpdate``."""
        means, squares = tensors[: len(parameters)], tensors[len(parameters) :]
        for parameter, gradient, mean, square in zip(parameters, gradients, means, squares, strict=True):
            mean.lerp_(gradient, 1 - self.beta1)
            square.mul_(self.beta2).add_((1 - self.beta2) * gradient * gradient)
            if self.decay:
                parameter.mul_(numbers[2])
            parameter.sub_(numbers[0] * mean / (square.sqrt() * numbers[1] + self.epsilon))

    def state_dict(self) -> dict[str, Any]:
        self._count()
        return super().state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._steps = int(self._torch.state[next(iter(self._parameters.values()))]["step"])
        self._uncounted = 0

    def state_schema(self) -> Any:
        own = self.state_dict()
        state = {k: {**each, "step": Count(each["step"])} for k, each in own["state"].items()}
        return {"state": state, "param_groups": Options(own["param_groups"], [{RATE: Real(least=0)}])}

    @property
    def decay(self) -> float:
        """Weight decay per step and learning rate."""
        return 0.0

    def _count(self) -> None:
        """Tell torch's optimiser of the steps that compiled graphs have made."""
        if self._uncounted:
            for p in self._parameters.values():
                self._torch.state[p]["step"] += self._uncounted
        self._uncounted = 0


@dataclass(kw_only=True, eq=False)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov, Hutter, arXiv 1711.05101).

    Args:
        weight_decay: per step, the parameters shrink by the learning rate times this.
    """

    weight_decay: NonNegative[float] = 1e-4

    @property
    def decay(self) -> float:
        return self.weight_decay

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

    As in its authors' code, the first step makes the eigenbasis and moves no parameter. Later eigenbases come from a QR
    decomposition in single precision, also in runs of double precision: they are orthogonal to 1e-7, which turns the
    directions of steps by as much and leaves gradients, losses and kernels as they are.

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

    def state_schema(self) -> Any:
        schema = super().state_schema()
        options = {"precondition_frequency": Own(self.precondition_every), "shampoo_beta": Own(self.beta2)}
        stepped = schema["state"].schema
        state = {k: {key: options.get(key, value) for key, value in each.items()} for k, each in stepped.items()}
        return {**schema, "state": EmptyOr(state)}
