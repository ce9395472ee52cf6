"""A trained run: its tables, its network, and predictions with derivatives at any points of the domain."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from ntkrun.experiment.display import as_html
from ntkrun.experiment.export import Prediction, export
from ntkrun.geometry import TIME
from ntkrun.jets import Index, StreamPlan, parse_derivative, plan_streams
from ntkrun.network import output_streams
from ntkrun.pde import PDE
from ntkrun.pde.check import place
from ntkrun.storage.reader import read_table
from ntkrun.storage.summary import read_summary
from ntkrun.training.time_marching import Piecewise, window_edges

ROWS = 2**14  # of streams times points that are evaluated at a time

Points = TypeVar("Points", pd.DataFrame, Tensor, NDArray[Any])


class TrainedRun:
    """A run that was trained: what its directory holds, and its network.

    Args:
        directory: the run directory.
        config: its configuration as plain values.
        pde: the problem, on all of time.
        networks: the network; with time windows, those of the windows so far.
        ends: of the windows so far, where the run has chosen them.

    Attributes:
        directory, config, pde: as given.
        network: maps points ``[N, d]`` of its own dtype and device to ``[N, fields]``; with time windows it joins
            those of the windows.
    """

    def __init__(
        self,
        directory: Path,
        config: Mapping[str, Any],
        pde: PDE,
        networks: Sequence[nn.Module],
        ends: Sequence[float] = (),
    ) -> None:
        self.directory = directory
        self.config = dict(config)
        self.pde = pde
        self._networks = tuple(network.eval() for network in networks)
        windows = self.config["time_windows"]
        count = windows if isinstance(windows, int) else 1
        self._edges = window_edges(pde.domain, count, ends)[: len(networks) + 1]
        self.network: nn.Module = self._networks[0]
        if self._edges:
            self.network = Piecewise(self._networks, self._edges[:-1], pde.coordinates.index(TIME)).eval()

    @property
    def windowed(self) -> bool:
        """Whether the run has time windows."""
        return bool(self._edges)

    def __repr__(self) -> str:
        summary = self.summary
        errors = summary.get("rel_l2")
        error = errors.get("final") if isinstance(errors, dict) else None
        known = f", relative L2 error {error:.3e}" if isinstance(error, int | float) else ""
        return f"<{type(self.pde).__name__} in {self.directory}: {summary.get('status', 'unknown')}{known}>"

    def _repr_html_(self) -> str:
        """A table and the solution, in notebooks."""
        return as_html(self.directory, type(self.pde).__name__, self.config, self.summary)

    @property
    def summary(self) -> dict[str, Any]:
        """The content of ``summary.json``."""
        return read_summary(self.directory)

    @property
    def metrics(self) -> pd.DataFrame:
        """The table ``metrics.csv``: losses, weights, errors by step."""
        return read_table(self.directory / "metrics.csv", "step").astype({"step": "int64"})

    @property
    def weights(self) -> pd.DataFrame:
        """The table ``weights.csv``: one row per weight update."""
        return read_table(self.directory / "weights.csv", "step").astype({"step": "int64"})

    def predict(self, points: Points, derivatives: Sequence[str] | None = None) -> Points:
        """The fields, or derivatives of them, at points of the domain.

        Args:
            points: ``[N, d]``, the coordinates in the order of the domain, as an array or tensor; or a table with a
                column for every coordinate.
            derivatives: such as ``["u", "u_x", "u_tt"]``, up to order 4; the fields if not given.

        Returns:
            ``[N, k]``, one column per field or derivative asked for, of the kind of ``points``: an array; a tensor on
            the device of the run, without a graph; or a table with these names and the index of ``points``. Outside
            of what a field lives on (``supports``) it is NaN.

        Raises:
            ValueError: a point lies outside of the domain, or beyond the time windows that are trained; the points
                have another shape, or lack a coordinate.
            UnknownDerivativeError: a derivative does not fit the fields and coordinates, or has a higher order.
        """
        fields, coordinates = self.pde.fields, self.pde.coordinates
        names = tuple(fields if derivatives is None else derivatives)
        wanted = [parse_derivative(name, fields, coordinates) for name in names]
        x = self._checked(points)
        plan = plan_streams(dict.fromkeys(index for _, index in wanted), coordinates)
        values = self._evaluate(x, plan, wanted)
        values.masked_fill_(self.beyond_supports(x, names).to(values.device), torch.nan)
        if isinstance(points, pd.DataFrame):
            return pd.DataFrame(values.numpy(force=True), columns=list(names), index=points.index)
        return values if isinstance(points, Tensor) else values.numpy(force=True)

    def beyond_supports(self, points: Tensor, names: Sequence[str]) -> Tensor:
        """Which derivatives are of fields that do not live at the points, ``[N, k]``.

        Args:
            points: of the domain, ``[N, d]``.
            names: as for ``predict``.
        """
        fields = self.pde.fields
        columns = [fields.index(parse_derivative(name, fields, self.pde.coordinates)[0]) for name in names]
        return self.pde.beyond_supports(points.double(), self._slack(points))[:, columns]

    def prediction(self, derivatives: Sequence[str] | None = None) -> Prediction:
        """The fields, or derivatives of them, as a module: points ``[N, d]`` to ``[N, k]``, in the run's own precision.

        Args:
            derivatives: as for ``predict``.

        Raises:
            UnknownDerivativeError: a derivative does not fit the fields and coordinates, or has a higher order.
        """
        fields, coordinates = self.pde.fields, self.pde.coordinates
        wanted = [parse_derivative(name, fields, coordinates) for name in derivatives or fields]
        plan = plan_streams(dict.fromkeys(index for _, index in wanted), coordinates)
        columns = [(index, fields.index(field)) for field, index in wanted]
        time = coordinates.index(TIME) if self._edges else 0
        return Prediction(copy.deepcopy(self._networks), self._edges[1:-1], time, plan, columns).eval()

    def export(self, path: str | Path, derivatives: Sequence[str] | None = None) -> float:
        """Write the network as a program that needs nothing of ntkrun, and compare it with this run.

        The program knows no shapes: it has values outside of the domain, and of what a field lives on, too.

        Args:
            path: ``.pt2``, for ``torch.export.load``, or ``.onnx``, which needs the extra ``onnx``.
            derivatives: as for ``predict``; the columns of what the program computes.

        Returns:
            The largest difference between both at points of the domain, relative to the largest value.

        Raises:
            ExportError: it cannot be exported, or the program computes something else.
            UnknownDerivativeError: a derivative does not fit the fields and coordinates, or has a higher order.
            WriteError: the file cannot be written.
        """
        return export(self, Path(path), derivatives)

    def _evaluate(self, x: Tensor, plan: StreamPlan, wanted: Sequence[tuple[str, Index]]) -> Tensor:
        """The wanted derivatives, ``[N, k]``, at checked points, each by the network of its time window."""
        like = next(self._networks[0].parameters())
        values = like.new_empty(len(x), len(wanted))
        window = self._window(x)
        columns = [(self.pde.fields.index(field), index) for field, index in wanted]
        for k, network in enumerate(self._networks):
            for rows in (window == k).nonzero()[:, 0].split(max(1, ROWS // plan.streams)):
                with torch.no_grad():
                    read = plan.read(output_streams(network, x[rows].to(like), plan))
                    parts = [read[index][:, column] for column, index in columns]
                    values[rows.to(like.device)] = torch.stack(parts, dim=1)
        return values

    def _window(self, x: Tensor) -> Tensor:
        """The time window of every point, ``[N]``; what lies on an edge belongs to the earlier one."""
        if not self._edges:
            return x.new_zeros(len(x), dtype=torch.long)
        time = x[:, self.pde.coordinates.index(TIME)].contiguous()
        inner = torch.tensor(self._edges[1:-1], dtype=time.dtype)
        return torch.bucketize(time, inner)

    def _slack(self, x: Tensor) -> float:
        """How far points may lie outside of a shape, as their precision has it."""
        size = max(map(abs, (*self.pde.domain.low.values(), *self.pde.domain.high.values())))
        return 2 * torch.finfo(x.dtype).eps * size

    def _checked(self, points: pd.DataFrame | Tensor | ArrayLike) -> Tensor:
        """The points on the CPU in their own precision, ``[N, d]``, all of them in the domain."""
        coordinates = self.pde.coordinates
        if isinstance(points, pd.DataFrame):
            if missing := [c for c in coordinates if c not in points.columns]:
                raise ValueError(f"the table has no column {', '.join(missing)}")
            x = torch.from_numpy(points[list(coordinates)].to_numpy(dtype=np.float64, copy=True))
        elif isinstance(points, Tensor):
            x = points.detach().cpu()
        else:
            x = torch.from_numpy(np.array(points))
        x = x if x.is_floating_point() else x.double()
        if x.dim() != 2 or x.shape[1] != len(coordinates):
            raise ValueError(
                f"points of shape {list(x.shape)}; expected [N, {len(coordinates)}] of {', '.join(coordinates)}"
            )
        for column, c in zip(x.unbind(1), coordinates, strict=True):
            low, high = self.pde.domain.low[c], self.pde.domain.high[c]
            what = "the domain"
            if self._edges and c == TIME and self._edges[-1] < high:
                high, what = self._edges[-1], "the time windows that are trained"
            slack = 2 * torch.finfo(x.dtype).eps * max(abs(low), abs(high))  # of the bounds in that precision
            outside = ~((column >= low - slack) & (column <= high + slack))  # NaN as well
            if outside.any():
                k = int(outside.nonzero()[0])
                raise ValueError(f"point {k} has {c}={column[k]:g}, outside of {what}: {c} from {low:g} to {high:g}")
        inside = self.pde.domain.contains(x.double(), self._slack(x))
        if not inside.all():
            k = int((~inside).nonzero()[0])
            raise ValueError(f"point {k}, {place(self.pde, x[k])}, lies outside of the domain")
        return x
