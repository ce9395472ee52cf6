"""Errors of the network against the solution, at the nodes of a grid or at scattered ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ntkrun.common.user_frames import cause, where
from ntkrun.jets import plan_streams
from ntkrun.network import output_streams
from ntkrun.pde import PDE, ProblemError, Reference
from ntkrun.pde.check import place
from ntkrun.runtime.distributed import present
from ntkrun.runtime.memory import check_fits
from ntkrun.training.nodes import Grid, Nodes, Scattered, choose_nodes, node_count

CHUNK = 2**12  # points at a time: their activations stay in the cache
SLACK = 1e-12  # of the domain's size, that nodes may lie outside of what a field lives on
EXACT_CHUNK = 2**16  # of a closed form, which may have more to do before it starts
# Of values at all nodes, there are three arrays on saving, solution, prediction and difference, and the file, which is
# made in memory, of the same size where nothing can be compressed, and twice while it grows. Measured: 6.1 to 7.7.
ARRAYS = 9

Interrupted = Callable[[], object]
"""Gives something true where an evaluation is to be left; asked every few thousand points."""


class EvaluationStopped(Exception):  # noqa: N818 (no error)
    """An evaluation was left because it was ``Interrupted``."""


@dataclass(frozen=True)
class Errors:
    """Relative L2 errors of a network over all nodes where the solution is known.

    Attributes:
        total: over all fields at once.
        fields: of every field by itself; ``None`` where its solution is not known, or vanishes everywhere.
    """

    total: float
    fields: Mapping[str, float | None]

    @property
    def worst(self) -> float:
        """The largest of a field; infinite where one is not a number."""
        return worst(self.fields.values())


def worst(errors: Iterable[float | None]) -> float:
    """The largest of those that are known; infinite where one is not a number, or none is known."""
    known = [math.inf if math.isnan(error) else error for error in errors if error is not None]
    return max(known, default=math.inf)


@dataclass(frozen=True)
class Solution:
    """Values at nodes.

    Attributes:
        nodes: where; on a grid, values have one dimension per axis.
        prediction: ``[*nodes.shape, fields]``; NaN outside of the domain, and of what a field lives on.
        exact: the same shape, or ``None`` when no solution is known.
    """

    nodes: Nodes
    prediction: NDArray[np.float64]
    exact: NDArray[np.float64] | None

    def arrays(self, pde: PDE) -> dict[str, NDArray[Any]]:
        """Axes or points, field names, prediction, and exact solution and error where known.

        On a grid there is an array ``axis_x`` for every coordinate x, and values are ``[*grid, fields]``. Scattered
        nodes are ``points``, ``[N, d]``, with their ``coordinates``, and values ``[N, fields]``.
        """
        if isinstance(self.nodes, Grid):
            arrays: dict[str, Any] = {f"axis_{c}": axis for c, axis in self.nodes.axes.items()}
        else:
            arrays = {"points": self.nodes.all.numpy(), "coordinates": np.array(pde.coordinates)}
        arrays |= {"fields": np.array(pde.fields), "prediction": self.prediction}
        if self.exact is not None:
            arrays |= {"exact": self.exact, "error": self.prediction - self.exact}
        return arrays


class Evaluator:
    """Evaluates a network at the nodes of the problem's reference solution, or of an equispaced grid.

    The values at all nodes are written into one array; nothing else grows with their number but the solution.

    Args:
        pde: the problem.
        network: the network.
        like: of the network's dtype and device.
        grid: points per coordinate of an equispaced grid; see ``choose_nodes`` for many dimensions.

    Attributes:
        nodes: where the network is evaluated.
        about: a line about them.
        knows: whether there are errors.

    Raises:
        ProblemError: the problem's solution fails, has the wrong shape, is infinite, or nowhere known.
        ConfigError: the grid does not fit into memory.
    """

    def __init__(self, pde: PDE, network: nn.Module, like: Tensor, grid: int) -> None:
        self._fields = tuple(pde.fields)
        self._network = network
        self._plan = plan_streams([""], pde.coordinates)
        self._like = like
        reference = _reference(pde)
        if reference is None:
            values = ARRAYS * len(self._fields) * node_count(pde.domain, grid) + len(pde.coordinates) * grid
            check_fits(8 * values, f"pde.grid={grid}")
        self.nodes = choose_nodes(pde.domain, grid) if reference is None else _grid(reference, pde)
        exact = _exact(pde, self.nodes) if reference is None else _known(reference, self.nodes)
        self._exact = None if exact is None else exact.reshape(len(self.nodes), -1).to(like.device, torch.float64)
        self._outside = _beyond_supports(pde, self.nodes)
        gaps = ""
        if self._exact is not None:
            if reference is None:
                gaps = _gaps(pde, self.nodes, self._exact, self._outside)
            if self._outside is not None:
                self._exact = self._exact.masked_fill(self._outside.to(like.device), math.nan)
        self._partly = self._exact is not None and bool(self._exact.isnan().any())
        self._size = None if self._exact is None else self._exact.square().nansum(0)
        self.knows = self._size is not None and bool(self._size.any())
        self.about = _about(self.nodes, grid, reference is not None, self._size)
        self.about = "; ".join(filter(None, (self.about, gaps)))

    def error(self, interrupted: Interrupted = lambda: None) -> Errors | None:
        """Relative L2 errors, in float64; ``None`` without a solution, or with one that is zero.

        Raises:
            EvaluationStopped: it was interrupted.
        """
        if not self.knows:
            return None
        assert self._exact is not None
        assert self._size is not None
        known, squares = self._exact, torch.zeros_like(self._size)

        def add(rows: slice, prediction: Tensor) -> None:
            difference = prediction.to(known.dtype) - known[rows]
            if self._partly:
                difference = difference.masked_fill(known[rows].isnan(), 0.0)
            squares.add_(difference.square().sum(0))

        self._evaluate(add, interrupted)
        pairs = list(zip(squares.tolist(), self._size.tolist(), strict=True))
        total = math.sqrt(sum(s for s, _ in pairs) / sum(size for _, size in pairs))
        each = (math.sqrt(s / size) if size else None for s, size in pairs)
        return Errors(total, dict(zip(self._fields, each, strict=True)))

    def solution(self, interrupted: Interrupted = lambda: None) -> Solution:
        """Prediction and solution at the nodes.

        Raises:
            EvaluationStopped: it was interrupted.
        """
        prediction = np.empty((len(self.nodes), len(self._fields)))
        values = torch.from_numpy(prediction)
        self._evaluate(lambda rows, part: values[rows].copy_(part), interrupted)
        if self._outside is not None:
            values.masked_fill_(self._outside, math.nan)
        exact = None if self._exact is None else self.nodes.spread(self._exact.cpu().numpy())
        return Solution(self.nodes, self.nodes.spread(prediction), exact)

    def _evaluate(self, take: Callable[[slice, Tensor], object], interrupted: Interrupted) -> None:
        """Hand all predictions over, ``[n, fields]`` at a time."""
        training = self._network.training
        self._network.eval()
        try:
            with torch.no_grad():
                for start in range(0, len(self.nodes), CHUNK):
                    if interrupted():
                        raise EvaluationStopped
                    x = self.nodes.points(start, start + CHUNK).to(self._like)
                    values = output_streams(self._network, x, self._plan)[0]
                    take(slice(start, start + len(x)), values[:, : len(self._fields)])
        finally:
            self._network.train(training)


class SharedEvaluator(Evaluator):
    """An evaluator whose errors all processes of a run take from the one that leads, so that they decide alike."""

    def error(self, interrupted: Interrupted = lambda: None) -> Errors | None:
        ranks = present()
        found: Errors | None = None
        left = False
        if ranks.leads:
            try:
                found = super().error(interrupted)
            except EvaluationStopped:
                left = True
        found, left = ranks.broadcast((found, left))
        if left:
            raise EvaluationStopped
        return found


def _grid(reference: Reference, pde: PDE) -> Grid:
    return Grid.over(pde.domain, {c: np.asarray(axis, dtype=np.float64) for c, axis in reference.axes.items()})


def _known(reference: Reference, nodes: Nodes) -> Tensor:
    """The values of a reference solution at nodes of its grid, ``[N, fields]``."""
    values = np.asarray(reference.values, dtype=np.float64)
    values = values.reshape(-1, values.shape[-1])
    inside = nodes.inside if isinstance(nodes, Grid) else None
    return torch.from_numpy(values if inside is None else values[inside])


def _beyond_supports(pde: PDE, nodes: Nodes) -> Tensor | None:
    """Which nodes lie outside of what every field lives on, ``[N, fields]``; ``None`` where all live everywhere."""
    if not pde.supports:
        return None
    slack = SLACK * max(map(abs, (*pde.domain.low.values(), *pde.domain.high.values())))
    starts = range(0, len(nodes), EXACT_CHUNK)
    return torch.cat([pde.beyond_supports(nodes.points(start, start + EXACT_CHUNK), slack) for start in starts])


def _gaps(pde: PDE, nodes: Nodes, exact: Tensor, outside: Tensor | None) -> str:
    """Where a closed form has no value, which is left out of errors; by field where fields differ.

    Outside of what a field lives on it need have none.
    """
    missing = exact.isnan() if outside is None else exact.isnan() & ~outside.to(exact.device)
    if not missing.any():
        return ""
    counts = missing.sum(0).tolist()
    alike = bool((missing == missing[:, :1]).all())
    which = {"": counts[0]} if alike else dict(zip(pde.fields, counts, strict=True))
    parts = ", ".join(
        f"{count} of {len(nodes)} nodes{' for ' * bool(name) + name}" for name, count in which.items() if count
    )
    first = int(missing.any(1).nonzero()[0])
    at = place(pde, nodes.points(first, first + 1)[0])
    return f"exact() is no number at {parts}, first at {at}; errors leave them out"


def _about(nodes: Nodes, grid: int, reference: bool, size: Tensor | None) -> str:
    """What errors are relative to, and where."""
    if isinstance(nodes, Scattered):
        return f"pde.grid={grid} makes too many nodes in {nodes.all.shape[1]} dimensions; errors are those at {nodes}"
    if reference:
        return f"errors are those on the reference solution's own nodes, {nodes}; pde.grid is not used"
    if size is not None and not size.any():
        return f"the solution is zero on {nodes}; there is no relative error"
    return "" if size is not None else "no solution is known"


def _exact(pde: PDE, nodes: Nodes) -> Tensor | None:
    """The closed form at all nodes, ``[N, fields]``, checked."""
    values = torch.empty(0)
    for start in range(0, len(nodes), EXACT_CHUNK):
        points = nodes.points(start, start + EXACT_CHUNK)
        exact = _exact_at(pde, points)
        if exact is None:
            return None
        if not len(values):
            values = torch.empty(len(nodes), len(pde.fields), dtype=torch.float64)
        values[start : start + len(points)] = exact.reshape(len(points), -1)
    if values.isnan().all():
        raise ProblemError("exact() is a number nowhere")
    return values


def _exact_at(pde: PDE, points: Tensor) -> Tensor | None:
    """The closed form at ``points``, ``[N, d]``, checked; ``[N]`` or ``[N, fields]``."""
    try:
        exact: object = pde.exact(pde.columns(points))
    except ProblemError as error:
        raise ProblemError(f"exact(): {error}{where(error)}") from error
    except Exception as error:
        raise ProblemError(f"exact() fails with {cause(error)}") from error
    if exact is None:
        return None
    if not isinstance(exact, Tensor):
        raise ProblemError(f"exact() gives a {type(exact).__name__}, expected a tensor")
    n, fields = len(points), len(pde.fields)
    if list(exact.shape) not in [[n, fields]] + [[n]] * (fields == 1):
        raise ProblemError(f"exact() gives shape {list(exact.shape)} at {n} points, expected [{n}, {fields}]")
    if exact.is_complex():
        raise ProblemError("exact() gives complex numbers")
    bad = torch.isinf(exact).reshape(n, -1).any(1)  # NaN says that nothing is known there
    if bad.any():
        raise ProblemError(f"exact() is not finite at {place(pde, points[bad][0])}")
    return exact


def _reference(pde: PDE) -> Reference | None:
    """The numerical solution, checked."""
    try:
        reference = pde.reference()
    except Exception as error:
        raise ProblemError(f"reference() fails with {cause(error)}") from error
    if reference is None:
        return None
    if tuple(reference.axes) != pde.coordinates:
        raise ProblemError(
            f"reference() has the axes {', '.join(reference.axes)}; the coordinates are {', '.join(pde.coordinates)}"
        )
    shape, expected = np.shape(reference.values), [*map(len, reference.axes.values()), len(pde.fields)]
    if list(shape) != expected:
        raise ProblemError(f"reference() gives values of shape {list(shape)}, expected {expected}")
    return reference
