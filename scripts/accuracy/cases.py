"""The problems of the comparison as other programs get them: ntkrun's own definitions, points and solutions."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ntkrun.geometry import Sampler
from ntkrun.pde import PDE, AllenCahn, Burgers, Helmholtz, KleinGordon, Poisson, Wave
from ntkrun.pde.base import Columns, Term

NODES = 100  # per coordinate of the grid for errors, where no reference has its own

Predict = Callable[[Tensor], Tensor]
"""The network's values at points, ``[N, d]`` to ``[N]``, in float64."""


@dataclass(frozen=True)
class Case:
    """A problem with the network and at least the points that ntkrun solves it with.

    Attributes:
        pde: the problem, all terms trained.
        width, depth: of the hidden layers.
        counts: points by term.
        sine: whether ntkrun's network has sines.
    """

    pde: PDE
    width: int
    depth: int
    counts: Mapping[str, int]
    sine: bool = True

    @property
    def transforms(self) -> bool:
        """Whether the problem has an output transform that builds its boundary condition in."""
        return type(self.pde).constrain is not PDE.constrain

    @property
    def terms(self) -> list[Term]:
        """Those that are trained: a network of ``features`` is periodic by itself."""
        return [term for term in self.pde.terms() if term.partner is None]

    @property
    def inputs(self) -> int:
        """Features of a point."""
        return len(self.pde.coordinates) + len(self.pde.periods)

    def points(self, seed: int) -> dict[str, Tensor]:
        """Sobol points by term, ``[N_i, d]`` in float64."""
        return {
            term.name: Sampler(term.region, self.counts[term.name], "sobol", 1000 * seed + i, term.shares).draw()
            for i, term in enumerate(self.terms)
        }

    def features(
        self, x: Any, library: Any = torch, stack: Callable[[list[Any]], Any] = lambda parts: torch.stack(parts, -1)
    ) -> Any:
        """What the network sees of points: cosine and sine of periodic coordinates, the others as they are.

        Args:
            x: coordinates in the last dimension.
            library: has ``cos`` and ``sin`` for them.
            stack: puts columns side by side.
        """
        parts: list[Any] = []
        for i, c in enumerate(self.pde.coordinates):
            if c in self.pde.periods:
                angle = x[..., i] * (2 * math.pi / self.pde.periods[c])
                parts += [library.cos(angle), library.sin(angle)]
            else:
                parts.append(x[..., i])
        return stack(parts)

    def solution(self) -> tuple[Tensor, Tensor]:
        """Nodes, ``[N, d]``, and the solution there, ``[N]``: where ntkrun computes its errors."""
        reference = self.pde.reference()
        if reference is not None:
            axes = [np.asarray(reference.axes[c]) for c in self.pde.coordinates]
        else:
            box = self.pde.domain
            number = 1000 if len(self.pde.coordinates) == 1 else NODES
            axes = [np.linspace(box.low[c], box.high[c], number) for c in self.pde.coordinates]
        nodes = torch.from_numpy(np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes)))
        if reference is not None:
            return nodes, torch.from_numpy(np.asarray(reference.values)).flatten()
        exact = self.pde.exact(self.pde.columns(nodes))
        assert exact is not None
        return nodes, exact.flatten()


CASES = {
    "poisson": Case(Poisson(), 24, 2, {"residual": 200, "boundary": 2}),
    "wave": Case(Wave(), 20, 3, {"residual": 1200, "boundary": 200, "initial": 100, "initial_velocity": 100}),
    "helmholtz": Case(Helmholtz(), 24, 3, {"residual": 1500, "boundary": 240}),
    "klein_gordon": Case(
        KleinGordon(), 20, 2, {"residual": 700, "boundary": 128, "initial": 64, "initial_velocity": 64}
    ),
    "burgers": Case(Burgers(), 20, 4, {"residual": 1600, "boundary": 200, "initial": 200}, sine=False),
    "allen_cahn": Case(AllenCahn(), 20, 4, {"residual": 1500, "initial": 300}, sine=False),
}


class Derivatives:
    """What a residual reads, from a program's own derivatives.

    Args:
        term: names its operators.
        derivative: the column of a derivative by its name, ``u`` for the value.
    """

    def __init__(self, term: Term, derivative: Callable[[str], Tensor]) -> None:
        self._operators = term.operators
        self._derivative = derivative

    def __getattr__(self, name: str) -> Tensor:
        if name in self._operators:
            parts = [factor * self._derivative(each) for each, factor in self._operators[name].items()]
            return sum(parts[1:], start=parts[0])
        return self._derivative(name)


def residual(case: Case, term: Term, x: Tensor, derivative: Callable[[str], Tensor]) -> Tensor:
    """The residual of a term at points ``[N, d]``, ``[N]``."""
    columns: Any = Derivatives(term, derivative)
    value: Tensor = term.residual(case.pde.columns(x), columns)
    return value


def hard(case: Case, x: Tensor, u: Tensor) -> Tensor:
    """The problem's own output transform at points ``[N, d]`` of values ``[N]``."""
    return case.pde.constrain(case.pde.columns(x), Columns({"u": u}, "the network"))[0]


class Watch:
    """Notes error against CPU seconds of training; stands still while it looks.

    CPU seconds of all threads, so that what else the machine does counts as little as it can.

    Args:
        case: the problem.
        limit: seconds after which training is to end.
        every: the part of the seconds so far that lies between looks.
    """

    def __init__(self, case: Case, limit: float, every: float = 0.04) -> None:
        self._nodes, self._exact = case.solution()
        self._limit = limit
        self._every = every
        self._next = 0.0
        self._spent = 0.0  # on looking
        self.start = time.process_time()
        self.curve: list[tuple[float, float]] = []

    @property
    def seconds(self) -> float:
        """Of training so far."""
        return time.process_time() - self.start - self._spent

    def over(self, predict: Predict) -> bool:
        """Called after a step: whether the time is up."""
        seconds = self.seconds
        if seconds < self._next and seconds < self._limit:
            return False
        before = time.process_time()
        error = torch.linalg.vector_norm(predict(self._nodes) - self._exact) / torch.linalg.vector_norm(self._exact)
        self.curve.append((seconds, float(error)))
        self._spent += time.process_time() - before
        self._next = seconds + max(0.1, self._every * seconds)
        return seconds >= self._limit
