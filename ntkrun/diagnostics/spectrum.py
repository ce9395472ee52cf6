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
from ntkrun.network import convert
from ntkrun.ntk.spectrum import condition_number, diagonal_blocks, drift, effective_rank, eigenvalues, kernel
from ntkrun.objective import Objective
from ntkrun.objective.batch import Batch
from ntkrun.storage.atomic import write_atomically

log = logging.getLogger(__name__)


class Spectrum(Diagnostics):
    """Spectra of the kernel K of all residual rows, without weights, and of its blocks K_ii, and drift since step 0.

    Always at points of step 0, for otherwise the drift would mix in the change of points, and in float64
    on a copy of the network in evaluation mode, for in float32 round-off hides all eigenvalues below 1e-7
    of the largest.

    Args:
        steps: when to observe, besides step 0 and the end of the run; steps beyond the end are ignored.
        points: the most points per term to take, chosen at random; ``None`` takes all.
    """

    def __init__(self, *, steps: list[NonNegative[int]], points: Positive[int] | None = 200) -> None:
        self.steps = frozenset(steps)
        self.points = points

    def start(self, objective: Objective, iterations: int) -> None:
        self._due = {0, *self.steps, iterations}
        network = convert(copy.deepcopy(objective.network), torch.float64).eval()
        self._double = Objective(objective.pde, network, memory=objective.memory)
        self._observed: dict[int, dict[str, Tensor]] = {}
        self._points: dict[str, Tensor] = {}
        self._first_parameters: Tensor | None = None
        self._first_kernels: dict[str, Tensor] = {}
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
                self._first_kernels = self._kernels()
        double.progress.copy_(objective.progress)
        values = {"parameter_drift": drift(parameters, self._first_parameters)}
        for name, matrix in self._kernels().items():
            spectrum = eigenvalues(matrix)
            values[f"eigenvalues{name}"] = spectrum
            values[f"kernel_drift{name}"] = drift(matrix, self._first_kernels[name])
            values[f"effective_rank{name}"] = effective_rank(spectrum)
            values[f"condition_number{name}"] = condition_number(spectrum)
            self._tell(step, name, values[f"condition_number{name}"])
        self._observed[step] = {name: value.cpu() for name, value in values.items()}

    def finish(self, directory: Path) -> None:
        """Write ``spectrum.npz``.

        ``steps`` are the T steps observed, ``eigenvalues`` those of K, ``[T, N]``, the largest first;
        ``kernel_drift``, ``effective_rank`` and ``condition_number``, ``[T]``, are also of K, and
        with ``/<term>`` of K_ii; ``parameter_drift``, ``[T]``, is that of the trainable parameters.
        """
        if not self._observed:
            return
        steps = sorted(self._observed)
        arrays: dict[str, Any] = {"steps": np.array(steps)}
        for name in self._observed[steps[0]]:
            arrays[name] = torch.stack([self._observed[step][name] for step in steps]).numpy()
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
        return Observations(self._double, self.points)

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

    def _kernels(self) -> dict[str, Tensor]:
        """K under ``""`` and every K_ii under ``"/<term>"``, the suffixes of their arrays' names."""
        batch = self._double.batch(self._points)
        whole = kernel(self._double, batch)
        blocks = diagonal_blocks(whole, self._double.row_counts(batch))
        return {"": whole, **{f"/{name}": block for name, block in zip(self._double.names, blocks, strict=True)}}


@dataclass(frozen=True)
class Observations(Schema):
    """The state of ``Spectrum``, where all shapes follow from the number of points of every term.

    Attributes:
        objective: in float64.
        points: the most per term.
    """

    objective: Objective
    points: int | None

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
            schema[f"eigenvalues{name}"] = Shaped((size,), number)
            for kind in ("kernel_drift", "effective_rank", "condition_number"):
                schema[f"{kind}{name}"] = Shaped((), number)
        return schema
