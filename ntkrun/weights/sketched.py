"""Weights from sketched kernel traces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ntkrun.backend.transfer import moved
from ntkrun.common.state_schema import Added, EmptyOr, Generator, Shaped, StateError
from ntkrun.common.types import Positive
from ntkrun.geometry import mix_seed
from ntkrun.ntk.finite_differences import Difference
from ntkrun.ntk.sketch import OF_POINTS, Derivative, Distribution, Estimator, Side, Sketch, TraceEstimate
from ntkrun.objective import Evaluation, Objective
from ntkrun.objective.batch import Batch
from ntkrun.weights.average import STATE, averaged, no_average
from ntkrun.weights.base import Request, WeightUpdate
from ntkrun.weights.policy import NTKWeighting


@dataclass(kw_only=True, eq=False)
class Sketched(NTKWeighting):
    """NTK weights from randomised estimates of the traces.

    With the defaults the kernel's diagonal is taken at some training points, and comes out of the backward pass of the
    gradient itself; other sketches take passes of their own.

    The weights are ratios of unbiased estimates and therefore slightly biased themselves.

    Args:
        sketch_size, side, derivative, distribution, difference, delta, estimator: see ``Sketch``.
        corrector: ``fresh`` estimates anew at every update. ``recursive`` takes the last estimate as
            predictor and corrects it by the sketched increment between the old and the new parameters,
            with the same probes at both: T_k = T_{k-1} + S_k(theta_k) - S_k(theta_{k-1}).
        restart_every: updates between restarts of the recursion.
        restart: start the recursion from a ``fresh`` or an ``exact`` estimate.
        average: ``kalman`` makes the weights from averages of successive estimates, each weighted by its variance, that
            follow changes as fast as these stand out from the noise (``ntkrun.weights.average``). Traces and standard
            errors are logged as they are estimated.
        compare_exact: log exact traces and the weights made from them, smoothed alike, beside the sketched ones (their
            cost is not counted).
    """

    sketch_size: Positive[int] = 64
    side: Side = "residual"
    derivative: Derivative = "autodiff"
    distribution: Distribution = "systematic"
    difference: Difference = "forward"
    delta: Positive[float] | Literal["auto"] = "auto"
    estimator: Estimator = "plain"
    corrector: Literal["fresh", "recursive"] = "fresh"
    restart_every: Positive[int] = 10
    restart: Literal["fresh", "exact"] = "fresh"
    average: Literal["none", "kalman"] = "none"
    compare_exact: bool = False

    def __post_init__(self) -> None:
        self.sketch = Sketch(
            self.sketch_size,
            self.side,
            self.derivative,
            self.distribution,
            self.difference,
            self.delta,
            self.estimator,
        )

    def start(self, objective: Objective, seed: int) -> None:
        if self.distribution in OF_POINTS and not objective.pointwise:
            raise ValueError(
                f"distribution={self.distribution} needs residuals that depend on their own point alone; "
                "gaussian and rademacher do not"
            )
        if self.average != "none" and self.corrector != "fresh":
            raise ValueError(
                f"average={self.average} needs corrector=fresh; estimates of corrector={self.corrector} share errors"
            )
        super().start(objective, seed)
        self.averages = no_average(self.weights)
        self.generator = torch.Generator().manual_seed(mix_seed(seed, 1))
        self.previous: dict[str, Tensor] = {}
        self.exact = {"weights": self.weights, "known": self.known}  # as exact traces would have them
        self._beside: dict[str, Tensor] = {}
        self._ordered: tuple[Batch, tuple[Tensor, ...]] | None = None
        self._parameters = objective.layout.size

    def columns(self) -> tuple[str, ...]:
        columns = ["trace", "standard_error"]
        if self.derivative == "finite_difference":
            columns.append("delta")
        if self.compare_exact:
            columns += ["exact_trace", "exact_weight"]
        return tuple(columns)

    def update(self, step: int, objective: Objective, batch: Batch) -> Request:
        start = objective.clock()
        if self._in_pass(objective):
            if self._ordered is None or self._ordered[0] is not batch:  # points mostly stay the same for many steps
                self._counts = objective.point_counts(batch)
                orders = self.sketch.orders(objective, batch, in_pass=True)
                self._ordered = batch, tuple(moved(order, self.weights, torch.int64) for order in orders)
            state = self.rule_state(self.rows(objective, batch))
            if self.average != "none":
                state |= self.averages
            self._beside = self._compared(objective.traces(batch), state) if self.compare_exact else {}
            if self.sketch.takes_whole(max(self._counts)):  # the samples are the traces
                return Request(self.weights, "traces", self.rule_of_samples, state, every=self.every)
            chosen = self.sketch.choose_in_pass(self._ordered[1], self.generator)
            return Request(self.weights, "samples", self.rule_of_samples, state, chosen, every=self.every)
        points = self.kernel_batch(batch)
        self._restarted: Tensor | None = None
        traces, errors, deltas = self._estimate(objective, points)
        scale, rows = self.scale(objective, batch), self.rows(objective, batch)
        traces, errors = traces * scale, errors * scale
        state = self.rule_state(rows)
        used = traces
        if self.average != "none":
            used, self.averages = averaged(traces, errors, self.averages)
        floored = self.absorb(used, rows)
        seconds = objective.clock() - start
        columns = {"trace": traces, "standard_error": errors}
        if deltas is not None:
            columns["delta"] = deltas
        if self.compare_exact:
            columns |= self._compared(objective.traces(points) * scale, state)
        return Request(self.weights, update=WeightUpdate(self.weights, seconds, columns, floored, self._restarted))

    def take(self, request: Request, evaluation: Evaluation) -> WeightUpdate | None:
        if request.rule is not None and self.average != "none":
            self.averages = {name: evaluation.state[name] for name in STATE}
        return super().take(request, evaluation)

    def measured(self, evaluation: Evaluation) -> dict[str, Tensor]:
        return {name: evaluation.state[name] for name in ("trace", "standard_error")} | self._beside

    def _compared(self, exact: Tensor, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Exact traces and the weights made from them, smoothed like those of ``state``, by column of the log."""
        weights, further = self.rule(exact, {**state, **self.exact})
        self.exact = {"weights": weights, "known": further["known"]}
        return {"exact_trace": exact, "exact_weight": weights}

    def rule_of_samples(self, samples: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The weights of an update from samples at the chosen points; a ``Rule`` on ``rule_state``."""
        estimate = self.sketch.from_samples(self._counts, samples)
        traces, errors = estimate.traces, estimate.standard_errors
        used, averages = traces, dict[str, Tensor]()
        if self.average != "none":
            used, averages = averaged(traces, errors, state)
        weights, further = self.rule(used, state)
        return weights, {**further, "trace": traces, "standard_error": errors, **averages}

    def _in_pass(self, objective: Objective) -> bool:
        """Whether the gradient's own pass gives what the estimates are made from."""
        plain = self.distribution in OF_POINTS and self.derivative == "autodiff" and self.corrector == "fresh"
        return plain and self.points == "training" and objective.samples_in_pass

    def _estimate(self, objective: Objective, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
        """Traces, their standard errors and the difference steps, ``[n]`` each."""
        if self.corrector == "fresh":
            estimate = self.sketch.estimate(objective, batch, self.generator)
            return estimate.traces, estimate.standard_errors, estimate.deltas
        if self.updates % self.restart_every == 0:
            traces, errors, deltas = self._restart(objective, batch)
        else:
            traces, errors, deltas = self._advance(objective, batch)
        self.previous = {"parameters": objective.parameter_vector(), "traces": traces, "errors": errors}
        return traces, errors, deltas

    def _restart(self, objective: Objective, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
        if self.restart == "exact":
            exact = objective.traces(batch)
            return exact, torch.zeros_like(exact), None
        estimate = self.sketch.estimate(objective, batch, self.generator)
        return estimate.traces, estimate.standard_errors, estimate.deltas

    def _advance(self, objective: Objective, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
        """The last traces plus the sketched increment; a term that would not stay positive and finite starts afresh."""
        state = self.generator.get_state()
        with objective.at(self.previous["parameters"]):
            before = self.sketch.estimate(objective, batch, self.generator)
        self.generator.set_state(state)
        now = self.sketch.estimate(objective, batch, self.generator)
        change: TraceEstimate = now - before
        traces = self.previous["traces"] + change.traces
        errors = torch.hypot(self.previous["errors"], change.standard_errors)
        positive = (traces > 0) & torch.isfinite(traces)
        self._restarted = ~positive
        traces = torch.where(positive, traces, now.traces)
        errors = torch.where(positive, errors, now.standard_errors)
        return traces, errors, now.deltas

    def state_dict(self) -> dict[str, Any]:
        state = {"generator": self.generator.get_state(), "previous": self.previous}
        averages = {"averages": self.averages} if self.average != "none" else {}
        return {**super().state_dict(), **state, **averages, **({"exact": self.exact} if self.compare_exact else {})}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if self.corrector == "recursive" and bool(state["previous"]) != bool(state["updates"]):
            raise StateError("its last estimate does not fit its number of updates")
        super().load_state_dict(state)
        self.generator.set_state(state["generator"])
        if self.average != "none":
            self.averages = {name: value.to(self.averages[name]) for name, value in state["averages"].items()}
        self.previous = {name: value.to(self.weights) for name, value in state["previous"].items()}
        # Version 0.1.0 did not keep these: they start from the sketched ones.
        exact = state.get("exact", {"weights": self.weights, "known": self.known})
        self.exact = {"weights": exact["weights"].to(self.weights), "known": exact["known"].to(self.known)}

    def state_schema(self) -> Any:
        traces = self.weights
        previous = {"parameters": Shaped((self._parameters,), traces), "traces": traces, "errors": traces}
        kept: Any = EmptyOr(previous) if self.corrector == "recursive" else {}
        schema = {**super().state_schema(), "generator": Generator(), "previous": kept}
        if self.average != "none":
            schema["averages"] = self.averages
        return {**schema, **({"exact": Added(self.exact)} if self.compare_exact else {})}
