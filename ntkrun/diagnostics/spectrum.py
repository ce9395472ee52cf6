"""Eigenvalues of the kernel and drift of kernel and parameters along a run."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ntkrun.common.state_schema import LARGEST, EmptyOr, Schema, Shaped, StateError, Unread, read_state
from ntkrun.common.types import NonNegative, Positive
from ntkrun.diagnostics.base import Diagnostics
from ntkrun.jacobian import Jacobian, StackedJacobian
from ntkrun.network import convert
from ntkrun.ntk.nystrom import LowRankKernel, eigenvalue_errors, leading, low_rank_drift
from ntkrun.ntk.spectrum import (
    condition_number,
    diagonal_blocks,
    drift,
    effective_rank,
    eigenvalues,
    least_effective_rank,
)
from ntkrun.objective import Objective
from ntkrun.objective.batch import Batch
from ntkrun.storage.atomic import write_atomically

log = logging.getLogger(__name__)


class Spectrum(Diagnostics):
    """Spectra of the kernel K of all residual rows, without weights, and of its blocks K_ii, and drift since step 0.

    Always at points of step 0, for otherwise the drift would mix in the change of points, and in float64
    on a copy of the network in evaluation mode, for in float32 round-off hides all eigenvalues below 1e-7
    of the largest.

    A kernel of more than ``dense_rows`` rows is not formed. Its ``leading`` eigenvalues come from products with J by a
    randomised method (``ntkrun.ntk.nystrom``), with how far each may be off and what they leave of the trace.

    Args:
        steps: when to observe, besides step 0 and the end of the run; steps beyond the end are ignored.
        points: the most points per term to take, chosen at random; ``None`` takes all.
        dense_rows: the most rows of a kernel of which all eigenvalues are computed.
        leading: how many eigenvalues of a larger one are computed.
    """

    def __init__(
        self,
        *,
        steps: list[NonNegative[int]],
        points: Positive[int] | None = 200,
        dense_rows: NonNegative[int] = 4000,
        leading: Positive[int] = 64,
    ) -> None:
        self.steps = frozenset(steps)
        self.points = points
        self.dense_rows = dense_rows
        self.leading = leading

    def start(self, objective: Objective, iterations: int) -> None:
        self._due = {0, *self.steps, iterations}
        network = convert(copy.deepcopy(objective.network), torch.float64).eval()
        self._double = Objective(objective.pde, network, memory=objective.memory)
        self._observed: dict[int, dict[str, Tensor]] = {}
        self._points: dict[str, Tensor] = {}
        self._first_parameters: Tensor | None = None
        self._first_kernels: dict[str, Tensor | LowRankKernel] = {}
        self._told: set[tuple[str, bool]] = set()

    def observe(self, step: int, objective: Objective, batch: Batch) -> None:
        if step not in self._due:
            return
        double = self._double
        double.network.load_state_dict(objective.network.state_dict())
        parameters = double.parameter_vector()
        if self._first_parameters is None:
            self._first_parameters, self._points = parameters, self._choose(objective, batch)
        if not self._first_kernels:  # not part of the checkpoint, which they would make large
            with double.at(self._first_parameters):
                double.progress.zero_()
                self._first_kernels = self._kernels(self._jacobians())
        double.progress.copy_(objective.progress)
        values = {"parameter_drift": drift(parameters, self._first_parameters)}
        jacobians = self._jacobians()
        for name, found in self._kernels(jacobians).items():
            first = self._first_kernels[name]
            if isinstance(found, LowRankKernel):
                assert isinstance(first, LowRankKernel)
                own = _of_leading(found, first, jacobians[name])
                self._tell(step, name, found.values[0])
            else:
                assert isinstance(first, Tensor)
                own = _of_all(found, first)
                self._tell(step, name, own["condition_number"])
            values |= {f"{kind}{name}": value for kind, value in own.items()}
        self._observed[step] = {name: value.cpu() for name, value in values.items()}

    def finish(self, directory: Path) -> None:
        """Write ``spectrum.npz``.

        ``steps`` are the T steps observed, ``eigenvalues`` those of K, ``[T, N]``, the largest first;
        ``kernel_drift``, ``effective_rank`` and ``condition_number``, ``[T]``, are also of K, and
        with ``/<term>`` of K_ii; ``parameter_drift``, ``[T]``, is that of the trainable parameters.

        ``method``, a text, is ``dense`` or, where the kernel was not formed, ``nystrom``. Then ``eigenvalues`` are the
        leading ones, ``[T, k]``, each no larger than the true one and within ``eigenvalue_errors``, ``[T, k]``, of one;
        ``missing``, ``[T]``, is the trace beyond them; ``kernel_drift`` is that of the part found, ``effective_rank`` a
        lower bound, and ``condition_number`` NaN.
        """
        if not self._observed:
            return
        steps = sorted(self._observed)
        arrays: dict[str, Any] = {"steps": np.array(steps)}
        for name in self._observed[steps[0]]:
            arrays[name] = torch.stack([self._observed[step][name] for step in steps]).numpy()
        for name in self._names():
            arrays[f"method{name}"] = np.array("nystrom" if f"missing{name}" in arrays else "dense")
        write_atomically(directory / "spectrum.npz", lambda file: np.savez_compressed(file, **arrays))

    def state_dict(self) -> dict[str, Any]:
        return {"observed": self._observed, "points": self._points, "first_parameters": self._first_parameters}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        # The end of a run that is made longer gives way to what an uninterrupted run observes.
        self._observed = {step: values for step, values in state["observed"].items() if step in self._due}
        device = self._double.like.device
        self._points = {name: x.to(device) for name, x in state["points"].items()}
        first = state["first_parameters"]
        self._first_parameters = None if first is None else first.to(device)
        self._first_kernels = {}

    def state_schema(self) -> Any:
        return Observations(self._double, self.points, self.dense_rows, self.leading)

    def _tell(self, step: int, name: str, condition: Tensor) -> None:
        """Say once of every kernel that it is singular or has no eigenvalues, which is no harm to the run."""
        number = condition.item()
        if math.isfinite(number) or (name, number == math.inf) in self._told:
            return
        self._told.add((name, number == math.inf))
        which = f"of term {name[1:]}" if name else "of all terms"
        if number == math.inf:
            log.info("step %d: the kernel %s is singular to rounding; its condition number is infinite", step, which)
        else:
            log.warning("step %d: the kernel %s is not finite or has no eigenvalues; they are left out", step, which)

    def _choose(self, objective: Objective, batch: Batch) -> dict[str, Tensor]:
        """At most ``points`` points of every term, in float64.

        At random without replacement: a regular choice would favour some region of a grid or of a Sobol sequence.
        """
        generator = torch.Generator().manual_seed(0)
        chosen = {}
        for name, points in objective.points(batch).items():
            x = points.to(torch.float64)
            if self.points is not None and self.points < len(x):
                x = x[torch.randperm(len(x), generator=generator)[: self.points].sort().values.to(x.device)]
            chosen[name] = x
        return chosen

    def _names(self) -> list[str]:
        """``""`` for K and ``"/<term>"`` for every K_ii, the suffixes of their arrays' names."""
        return ["", *(f"/{name}" for name in self._double.names)]

    def _jacobians(self) -> dict[str, Jacobian]:
        """J and every J_i by suffix."""
        parts = self._double.jacobians(self._double.batch(self._points))
        return dict(zip(self._names(), (StackedJacobian(parts), *parts), strict=True))

    def _kernels(self, jacobians: Mapping[str, Jacobian]) -> dict[str, Tensor | LowRankKernel]:
        """K and every K_ii by suffix, or what stands for those that are too large to form."""
        if jacobians[""].rows <= self.dense_rows:
            whole = jacobians[""].gram()
            blocks = diagonal_blocks(whole, tuple(jacobians[name].rows for name in self._names()[1:]))
            return dict(zip(self._names(), (whole, *blocks), strict=True))
        return {
            name: _leading(jacobian, self.leading) if jacobian.rows > self.dense_rows else jacobian.gram()
            for name, jacobian in jacobians.items()
        }


def _leading(jacobian: Jacobian, count: int) -> LowRankKernel:
    """The leading eigenvalues, from the same probes every time; NaN where they cannot be had."""
    try:
        return leading(jacobian, count, torch.Generator().manual_seed(0))
    except RuntimeError:  # the kernel is not finite
        like, few = jacobian.diagonal(), min(count, jacobian.rows, jacobian.layout.size)
        return LowRankKernel(like.new_full((len(like), few), math.nan), like.new_full((few,), math.nan), math.nan)


def _of_all(matrix: Tensor, first: Tensor) -> dict[str, Tensor]:
    """What is observed of a kernel that was formed, by kind."""
    spectrum = eigenvalues(matrix)
    return {
        "eigenvalues": spectrum,
        "kernel_drift": drift(matrix, first),
        "effective_rank": effective_rank(spectrum),
        "condition_number": condition_number(spectrum),
    }


def _of_leading(found: LowRankKernel, first: LowRankKernel, jacobian: Jacobian) -> dict[str, Tensor]:
    """What is observed of a kernel whose leading eigenvalues are known, by kind."""
    missing = found.values.new_tensor(found.missing)
    return {
        "eigenvalues": found.values,
        "eigenvalue_errors": eigenvalue_errors(jacobian, found),
        "missing": missing,
        "kernel_drift": low_rank_drift(found, first),
        "effective_rank": least_effective_rank(found.values, missing),
        "condition_number": torch.full_like(missing, torch.nan),
    }


@dataclass(frozen=True)
class Observations(Schema):
    """The state of ``Spectrum``, where all shapes follow from the number of points of every term.

    Attributes:
        objective: in float64.
        points: the most per term.
        dense_rows: the most rows of a kernel that is formed.
        leading: eigenvalues of one that is not.
    """

    objective: Objective
    points: int | None
    dense_rows: int
    leading: int

    def read(self, value: Any, place: str) -> Any:
        given = read_state(dict.fromkeys(("observed", "points", "first_parameters"), Unread()), value, place)
        shapes = {
            name: Shaped((None, width), self.objective.like, self.points or LARGEST, finite=True)
            for name, width in zip(self.objective.names, self.objective.widths, strict=True)
        }
        points = EmptyOr(shapes).read(given["points"], f"{place}.points")
        steps = given["observed"] if points and isinstance(given["observed"], dict) else {}
        if not all(type(step) is int and step >= 0 for step in steps):
            raise StateError(f"{place}.observed: steps are expected")
        values = self._values(points) if points else {}
        schema = {
            "observed": dict.fromkeys(sorted(steps), values),
            "first_parameters": Shaped((self.objective.layout.size,), self.objective.like) if points else None,
        }
        return {**read_state(schema, {k: v for k, v in given.items() if k != "points"}, place), "points": points}

    def _values(self, points: Mapping[str, Tensor]) -> dict[str, Shaped]:
        """What is observed at a step."""
        rows = self.objective.row_counts(self.objective.batch(points))
        number = torch.zeros((), dtype=torch.float64)
        schema = {"parameter_drift": Shaped((), number)}
        for name, size in zip(("", *(f"/{name}" for name in self.objective.names)), (sum(rows), *rows), strict=True):
            few = size > self.dense_rows
            length = min(self.leading, size, self.objective.layout.size) if few else size
            schema[f"eigenvalues{name}"] = Shaped((length,), number)
            if few:
                schema[f"eigenvalue_errors{name}"] = Shaped((length,), number)
                schema[f"missing{name}"] = Shaped((), number)
            for kind in ("kernel_drift", "effective_rank", "condition_number"):
                schema[f"{kind}{name}"] = Shaped((), number)
        return schema
