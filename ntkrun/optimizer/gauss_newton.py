"""Gauss-Newton steps on residual rows, damped (Levenberg, Marquardt) and with geodesic acceleration."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ntkrun.common.state_schema import Added, Like, ListOf, NoneOr, Real, Whole
from ntkrun.common.types import Fraction, NonNegative, Positive
from ntkrun.objective import Evaluation
from ntkrun.optimizer.base import GraphUpdate, Optimizer, Reevaluate, ResidualSystem
from ntkrun.optimizer.damping import DampingPolicy, Trial
from ntkrun.optimizer.first_order import Adam
from ntkrun.optimizer.least_squares import LeastSquares, Solution
from ntkrun.optimizer.memory import Memory
from ntkrun.optimizer.solvers import SKETCHED, Solver, least_squares, matrix_entries, matrix_work, resolve

log = logging.getLogger(__name__)

DIFFERENCE = 0.1  # of a step, for the second derivative along it (Transtrum, Sethna)
ROUGH = 1e-3  # relative accuracy of accelerations and corrections, which the residual after them judges
FAITHFUL = 0.75  # gain ratio beyond which a step is not corrected further
WORTHWHILE = 0.9  # of the loss before it, the most that a correction may leave
LAST_DIGITS = sys.float_info.epsilon  # of the first loss: residuals have lost half of the digits of float64
STALLS = 6  # steps in a row that find no lower loss, after which the run ends; points may be drawn anew within 5


@dataclass(kw_only=True, eq=False)
class GaussNewton(Optimizer):
    """Gauss-Newton with Levenberg-Marquardt damping and geodesic acceleration.

    With the weighted rows R = D r and J~ = D J, D = diag(sqrt(lambda_i / N_i)), a step is
    d = -(J~'J~ + mu)^-1 J~'R, which is -J~'(K~ + mu)^-1 R with the kernel K~ = J~J~'. The acceleration
    a = -(1/2) (J~'J~ + mu)^-1 J~' D r''[d, d] removes the second-order change of R as far as it can
    (Transtrum, Sethna, arXiv 1201.5885). All of it in float64, whatever the network computes in.

    Args:
        damping: mu of the first step, relative to |J~|_F^2.
        damping_factor: by which damping changes between the trials of a step.
        gain_target: damping is lowered as long as the loss falls by more than this part of what its linear model says.
        acceleration: the most that 2|a| / |d| may be; steps that bend more are damped more. 0 leaves a out.
        corrections: the most that a step may have. The residual at theta + d + a differs from its linear model R + J~d
            by terms of third and higher order; a correction -(J~'J~ + mu)^-1 J~' times this difference, by the same
            factors, brings it back (a chord iteration for r(theta + s) = R + J~d in the range of J~), and one more
            evaluation judges it.
        solver: ``cholesky``, ``qr``, ``sketched`` or ``sketch_and_solve``; ``auto`` chooses, see ``solvers.resolve``.
        sketch_size: rank of the sketch; ``auto``: see ``Sketching``.
        tolerance: relative accuracy of a step by ``sketched``.
        memory: the most that earlier draws of points count from one to the next, where points are drawn anew at every
            step and the loss at new ones is left behind; see ``Memory``. 0 leaves them out. Under ``cholesky`` or
            ``auto``, with no more than 3,000 parameters and two per row.
        patience: steps after which a run ends that has gained too little in them; see ``least_gain``.
        least_gain: the part of its loss that a run must lose within ``patience`` steps.
        last_gain: the same once the loss is below ``LAST_DIGITS`` of that before the first step.
    """

    damping: Positive[float] = 1e-6
    damping_factor: Annotated[float, Field(gt=1)] = 4.0
    gain_target: Fraction = 0.1
    acceleration: NonNegative[float] = 0.75
    corrections: NonNegative[int] = 6
    solver: Solver = "auto"
    sketch_size: Positive[int] | Literal["auto"] = "auto"
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 1e-6
    memory: Annotated[float, Field(ge=0, lt=1)] = 0.98
    patience: Positive[int] = 100
    least_gain: Fraction = 0.02
    last_gain: Fraction = 0.9

    def start(self, network: nn.Module) -> None:
        self._policy = DampingPolicy(self.gain_target, self.damping_factor)
        trained = [p for p in network.parameters() if p.requires_grad]
        like = torch.zeros((), dtype=torch.float64, device=trained[0].device)
        self._memory = Memory(self.memory, like, sum(p.numel() for p in trained))
        self._damping = self.damping
        self._stalls = 0
        self._first = 0.0  # loss before the first step
        self._gains: list[float] = []  # logarithms of the loss before over that after, of the last steps
        self._ended = ""
        self._report: dict[str, float | int | None] = {}

    @property
    def wants_rows(self) -> bool:
        return True

    def gradient_steps(self, iterations: int) -> int:
        return 0

    def matrix_entries(self, rows: int, parameters: int) -> int:
        return matrix_entries(self.solver, self.sketch_size, rows, parameters)

    def wants_factors(self, rows: int, parameters: int) -> bool:
        return resolve(self.solver, rows, parameters) in SKETCHED

    def matrix_work(self, rows: int, parameters: int) -> float:
        return matrix_work(self.solver, self.sketch_size, rows, parameters)

    def rate(self, factor: float) -> float | None:
        return None

    def left(self) -> float | None:
        last = self._report.get("loss")
        return last / self._first if last and self._first else None

    def ended(self) -> str:
        return self._ended

    def columns(self) -> tuple[str, ...]:
        return COLUMNS

    def report(self) -> Mapping[str, float | int | None]:
        return self._report

    def points_drawn(self) -> None:
        self._memory.points_drawn()

    def step_on_rows(self, system: ResidualSystem) -> None:
        residual, start = system.residual, system.parameters
        loss = float(residual.square().sum())
        squares = self._least_squares(system)

        def attempt(damping: float) -> Trial | None:
            solution = squares.at(damping * squares.scale)
            if solution is None:
                return None
            model = residual + squares.image(solution)
            return self._try(system, solution, model, loss, squares.predicted(solution), damping)

        search = self._policy.search(self._damping, attempt)
        best = search.best
        system.at(start if best is None else best.position)
        if best is not None:
            self._damping = search.damping
        self._take_note(loss, best)
        self._memory.fitted(loss if best is None else best.loss)
        self._report = {
            "loss": loss,
            "damping": search.damping,
            "trials": search.trials,
            "gain_ratio": None if best is None else best.ratio,
            "step_length": 0.0 if best is None else best.length,
        }

    def _least_squares(self, system: ResidualSystem) -> LeastSquares:
        rows, residual = system.rows, system.residual
        exact = resolve(self.solver, rows.count, rows.columns) in ("auto", "cholesky")
        remembering = self._memory.least_squares(rows, residual) if exact else None
        return remembering or least_squares(rows, residual, self.solver, self.sketch_size, self.tolerance)

    def _try(
        self, system: ResidualSystem, solution: Solution, model: Tensor, loss: float, predicted: float, damping: float
    ) -> Trial | None:
        """A step, accelerated and corrected as far as that helps; nothing where the path bends too much."""
        step = self._accelerated(system, solution, model)
        if step is None:
            return None
        best: Trial | None = None
        for left in reversed(range(1 + self.corrections)):
            position = system.parameters + step
            residual = system.at(position)
            after = float(residual.square().sum())
            if not math.isfinite(after) or predicted <= 0:
                break
            shrinks = after / best.loss if best is not None and best.loss else 0.0
            if shrinks > WORTHWHILE:
                break
            best = Trial(damping, (loss - after) / predicted, after, position, float(torch.linalg.vector_norm(step)))
            if best.ratio >= FAITHFUL or not left or after * shrinks**left > loss:  # even at this rate
                break
            step = step + solution.solve(residual - model, ROUGH)
        return best

    def _accelerated(self, system: ResidualSystem, solution: Solution, model: Tensor) -> Tensor | None:
        """The step d + a, or nothing where the path bends too much."""
        d = solution.step
        if not self.acceleration:
            return d
        ahead = system.at(system.parameters + DIFFERENCE * d)
        curvature = (2 / DIFFERENCE) * ((ahead - system.residual) / DIFFERENCE - (model - system.residual))
        if not bool(torch.isfinite(curvature).all()):
            return None
        a = 0.5 * solution.solve(curvature, ROUGH)
        return d + a if 2 * a.norm() <= self.acceleration * d.norm() else None

    def _take_note(self, loss: float, best: Trial | None) -> None:
        """Find out whether there is anything left to gain."""
        self._ended = ""  # a problem that changes along the run may have been solved on the way
        if best is None:
            self._stalls += 1
            if self._stalls >= STALLS:
                self._ended = f"no step lowers the loss below {loss:.3e}, however much it is damped"
            return
        self._stalls = 0
        self._first = self._first or loss
        if best.loss == 0:
            self._ended = "the loss is 0"
            return
        self._gains = [*self._gains, math.log(loss / best.loss)][-self.patience :]
        solved = best.loss < LAST_DIGITS * self._first
        needed = self.last_gain if solved else self.least_gain
        if len(self._gains) == self.patience and sum(self._gains) < -math.log1p(-needed):
            part = 100 * -math.expm1(-sum(self._gains))
            fell = f"the loss fell by {part:.2g} % in {self.patience} steps, to {best.loss:.3e}"
            self._ended = fell + (f", {best.loss / self._first:.1e} of the first" if solved else "")

    def state_dict(self) -> dict[str, Any]:
        return {
            "damping": self._damping,
            "stalls": self._stalls,
            "first": self._first,
            "gains": list(self._gains),
            "ended": self._ended,
            "memory": self._memory.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._damping, self._stalls, self._ended = state["damping"], state["stalls"], state["ended"]
        self._first, self._gains = state["first"], list(state["gains"])
        self._memory.load_state_dict(state["memory"])

    def state_schema(self) -> Any:
        return {
            "damping": Real(least=sys.float_info.min),
            "stalls": Whole(0, STALLS),
            "first": Real(least=0),
            "gains": ListOf(Real(), self.patience),
            "ended": "",
            "memory": Added(self._memory.state_schema(), self._memory.state_dict()),
        }


@dataclass(kw_only=True, eq=False)
class AdamGaussNewton(GaussNewton):
    """Adam up to a step, or until its loss stalls; Gauss-Newton from there on.

    The schedule spans the steps of Adam.

    Args:
        learning_rate: of Adam.
        switch_at: the first step of Gauss-Newton at the latest.
        stall_steps: length of the intervals whose mean losses are compared.
        stall_gain: the part of the mean loss that Adam must gain from one interval to the next.
        beta1, beta2, epsilon: see ``Adam``; the others see ``GaussNewton``.
    """

    learning_rate: Positive[float] = 3e-3
    switch_at: Positive[int] = 1000
    stall_steps: Positive[int] = 250
    stall_gain: Fraction = 0.1
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    epsilon: Positive[float] = 1e-8

    def start(self, network: nn.Module) -> None:
        super().start(network)
        self._adam = Adam(learning_rate=self.learning_rate, beta1=self.beta1, beta2=self.beta2, epsilon=self.epsilon)
        self._adam.start(network)
        self._device = next(network.parameters()).device
        self._steps = 0  # of Adam
        self._switched = False
        self._sum: Tensor | None = None  # of the losses of this interval, on their device
        self._mean = math.inf  # of those of the last one

    @property
    def wants_rows(self) -> bool:
        return self._switched

    def horizon(self, iterations: int) -> int:
        return min(iterations, self.switch_at)

    def gradient_steps(self, iterations: int) -> int:
        return min(iterations, self.switch_at)

    def rate(self, factor: float) -> float | None:
        return None if self._switched else self._adam.rate(factor)

    def graph_update(self) -> GraphUpdate | None:
        return None if self._switched else self._adam.graph_update()

    def took_step(self, evaluation: Evaluation) -> None:
        self._adam.took_step(evaluation)
        self._count(evaluation)

    def step(self, evaluation: Evaluation, factor: float, reevaluate: Reevaluate, changed: bool) -> None:
        self._adam.step(evaluation, factor, reevaluate, changed)
        self._count(evaluation)

    def _count(self, evaluation: Evaluation) -> None:
        """Take note of a step of Adam and find out whether it was the last; looks at losses once per interval."""
        self._steps += 1
        loss = evaluation.loss.detach().double()
        self._sum = loss if self._sum is None else self._sum + loss
        reason = "" if self._steps < self.switch_at else f"{self._steps} steps are done"
        if self._steps % self.stall_steps == 0:
            mean, self._sum = float(self._sum) / self.stall_steps, None
            if mean > (1 - self.stall_gain) * self._mean:
                reason = f"the mean loss, {mean:.3e}, was {self._mean:.3e} in the {self.stall_steps} steps before"
            self._mean = mean
        if reason:
            self._switched = True
            log.info("step %d: Gauss-Newton takes over from Adam: %s", self._steps, reason)

    def state_dict(self) -> dict[str, Any]:
        own = {"steps": self._steps, "switched": self._switched, "sum": self._sum, "mean": self._mean}
        return {**super().state_dict(), "adam": self._adam.state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._adam.load_state_dict(state["adam"])
        self._steps, self._switched, self._mean = state["steps"], state["switched"], state["mean"]
        self._sum = state["sum"]

    def state_schema(self) -> Any:
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        own = {"steps": Whole(), "switched": False, "sum": NoneOr(Like(total)), "mean": Real()}
        return {**super().state_schema(), "adam": self._adam.state_schema(), **own}


COLUMNS = ("loss", "damping", "trials", "gain_ratio", "step_length")
"""Of the table of steps."""
