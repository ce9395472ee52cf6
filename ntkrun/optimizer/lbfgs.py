"""L-BFGS, alone and after Adam."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ntkrun.common.state_schema import EmptyOr, ListOf, NoneOr, OneOf, Real, Shaped, StateError, Whole
from ntkrun.common.types import Fraction, Positive
from ntkrun.objective import Evaluation
from ntkrun.optimizer.base import GraphUpdate, Optimizer, Options, Reevaluate, TorchOptimizer
from ntkrun.optimizer.first_order import Adam

log = logging.getLogger(__name__)


LINE_SEARCH = 25  # evaluations that one line search may take
SCALE = 1e4  # of the loss after the history was cleared
HISTORY = ("old_dirs", "old_stps", "ro")  # torch's names of differences of gradients, of parameters, and 1 / (y s)


@dataclass(kw_only=True, eq=False)
class LBFGS(TorchOptimizer):
    """L-BFGS with a strong Wolfe line search (Nocedal, Wright, "Numerical Optimization", algorithms 3.5 and 7.5).

    Weights and points stay the same within a step. Where they change between steps, the history is
    cleared, for its gradients are those of another function. The line search finds the length of a step:
    the learning rate is its first trial, and no schedule applies.

    Args:
        history: pairs of differences kept.
        max_iterations: L-BFGS iterations per step.
    """

    learning_rate: Positive[float] = 1.0
    history: Positive[int] = 50
    max_iterations: Positive[int] = 1

    def start(self, network: nn.Module) -> None:
        super().start(network)
        self._scale = 1.0
        self._warned = False

    def build(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.LBFGS(
            parameters,
            lr=self.learning_rate,
            max_iter=self.max_iterations,
            max_eval=1 + LINE_SEARCH * self.max_iterations,
            history_size=self.history,
            # Runs end after a number of steps; none ends early because little changes.
            tolerance_grad=0.0,
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )

    def rate(self, factor: float) -> float:
        return self.learning_rate

    def step(self, evaluation: Evaluation, factor: float, reevaluate: Reevaluate, changed: bool) -> None:
        if changed or not self._torch.state:
            self._torch.state.clear()
            # torch drops pairs whose product y.s is below 1e-10; scaled, that is far below what the loss can resolve.
            self._scale = SCALE / max(float(evaluation.loss), 1e-12)
        known: Evaluation | None = evaluation

        def closure() -> float:
            nonlocal known
            now = reevaluate() if known is None else known
            known = None
            self.assign(now.gradient, self._scale)
            return self._scale * float(now.loss)

        before = [p.detach().clone() for p in self._parameters.values()]
        self._torch.step(closure)
        self._torch.zero_grad(set_to_none=True)
        if not self._warned and all(map(torch.equal, before, self._parameters.values())):
            self._warned = True
            log.warning("L-BFGS finds no lower loss along its direction: the limit of %s is reached", before[0].dtype)

    def state_dict(self) -> dict[str, Any]:
        return {"scale": self._scale, "torch": super().state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for each in state["torch"]["state"].values():
            if len({len(each[name]) for name in HISTORY if name in each}) > 1:
                raise StateError("the lists of its history differ in length")
        self._scale = state["scale"]
        super().load_state_dict(state["torch"])

    def state_schema(self) -> Any:
        like = next(iter(self._parameters.values()))
        flat = Shaped((sum(p.numel() for p in self._parameters.values()),), like)
        number = OneOf((Shaped((), like), Real()))
        state = {
            "func_evals": Whole(),
            "n_iter": Whole(1),
            "d": flat,
            "t": number,
            "old_dirs": ListOf(flat, self.history),
            "old_stps": ListOf(flat, self.history),
            "ro": ListOf(Shaped((), like), self.history),
            "H_diag": number,
            "prev_flat_grad": flat,
            "prev_loss": Real(),
        }
        buffer = [NoneOr(Shaped((), like))] * self.history
        unmoved = {"func_evals": Whole(), "n_iter": Whole(0, 0)}  # where the first gradient vanished
        known = OneOf(({0: unmoved}, {0: state}, {0: {**state, "al": buffer}}))
        options = Options(self._torch.state_dict()["param_groups"])
        return {"scale": Real(least=sys.float_info.min), "torch": {"state": EmptyOr(known), "param_groups": options}}


@dataclass(kw_only=True, eq=False)
class AdamLBFGS(Optimizer):
    """Adam up to a step, L-BFGS from there on.

    The schedule spans the steps of Adam.

    Args:
        learning_rate: of Adam.
        switch_at: the first step of L-BFGS.
        beta1, beta2, epsilon: see ``Adam``.
        history, max_iterations: see ``LBFGS``.
    """

    learning_rate: Positive[float] = 1e-3
    switch_at: Positive[int] = 10000
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    epsilon: Positive[float] = 1e-8
    history: Positive[int] = 50
    max_iterations: Positive[int] = 1

    def start(self, network: nn.Module) -> None:
        self._adam = Adam(learning_rate=self.learning_rate, beta1=self.beta1, beta2=self.beta2, epsilon=self.epsilon)
        self._lbfgs = LBFGS(history=self.history, max_iterations=self.max_iterations)
        self._adam.start(network)
        self._lbfgs.start(network)
        self._steps = 0

    @property
    def _active(self) -> TorchOptimizer:
        return self._adam if self._steps < self.switch_at else self._lbfgs

    def horizon(self, iterations: int) -> int:
        return min(iterations, self.switch_at)

    def rate(self, factor: float) -> float:
        return self._active.rate(factor)

    def graph_update(self) -> GraphUpdate | None:
        return self._active.graph_update()

    def took_step(self, evaluation: Evaluation) -> None:
        self._active.took_step(evaluation)
        self._steps += 1

    def step(self, evaluation: Evaluation, factor: float, reevaluate: Reevaluate, changed: bool) -> None:
        if self._steps == self.switch_at:
            log.info("step %d: L-BFGS takes over from Adam", self._steps)
        self._active.step(evaluation, factor, reevaluate, changed)
        self._steps += 1

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self._steps, "adam": self._adam.state_dict(), "lbfgs": self._lbfgs.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._steps = state["steps"]
        self._adam.load_state_dict(state["adam"])
        self._lbfgs.load_state_dict(state["lbfgs"])

    def state_schema(self) -> Any:
        return {"steps": Whole(), "adam": self._adam.state_schema(), "lbfgs": self._lbfgs.state_schema()}
