"""The loss around the last state of a run, for ``ntkrun-predict RUN --landscape``."""

from __future__ import annotations

import copy
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ntkrun.network import convert
from ntkrun.ntk.landscape import losses_on_plane, random_directions, steepest_directions
from ntkrun.objective import Objective
from ntkrun.storage.atomic import write_atomically
from ntkrun.storage.reader import UnreadableError, read_arrays

if TYPE_CHECKING:
    from ntkrun.experiment.trained import TrainedRun

NODES = 25  # along either direction; odd, so that the run is one of them


def write_landscape(run: TrainedRun, path: Path, directions: str, radius: float) -> None:
    """Write the loss on a plane through the parameters of a run, at its last collocation points and weights.

    Args:
        run: of one time window.
        path: ``.npz`` for ``a`` ``[G]``, ``loss`` ``[G, G]`` (weighted, over a and b) and ``loss/<term>``; else a
            figure.
        directions: ``random`` or ``steepest``, see ``ntkrun.ntk.landscape``.
        radius: how far the plane goes in units of the directions.

    Raises:
        ValueError: the run has several time windows, or no points or weights that fit it.
        WriteError: the file cannot be written.
    """
    if run.windowed:
        raise ValueError("a run of several time windows has a loss for each; there is no landscape of it")
    network = convert(copy.deepcopy(run.network), torch.float64)
    objective = Objective(run.pde, network)
    objective.progress.fill_(1.0)
    arrays = read_arrays(run.directory / "points.npz")
    known = run.summary.get("weights")
    weights = [known.get(name) for name in objective.names] if isinstance(known, dict) else [None]
    if set(arrays) != set(objective.names) or not all(isinstance(w, int | float) and math.isfinite(w) for w in weights):
        raise UnreadableError("points.npz or the weights in summary.json are not those of the run's loss terms")
    batch = objective.batch({name: torch.from_numpy(arrays[name]).to(objective.like) for name in objective.names})
    lambdas = torch.tensor(weights, dtype=torch.float64)
    if directions == "random":
        plane = random_directions(objective, torch.Generator().manual_seed(0))
    else:
        plane = steepest_directions(objective, batch, lambdas)
    half = NODES // 2
    a = torch.arange(-half, half + 1, dtype=torch.float64) / half * radius
    losses = losses_on_plane(objective, batch, plane, a)
    found: dict[str, Any] = {"a": a.numpy(), "loss": torch.einsum("n,nab->ab", lambdas, losses).numpy()}
    if path.suffix == ".npz":
        found |= {f"loss/{name}": loss.numpy() for name, loss in zip(objective.names, losses, strict=True)}
        write_atomically(path, lambda file: np.savez_compressed(file, **found))
        return
    content = _figure(found, path.suffix[1:])
    write_atomically(path, lambda file: file.write(content))


def _figure(found: dict[str, Any], kind: str) -> bytes:
    from ntkrun.common.matplotlib_settings import import_matplotlib

    import_matplotlib()
    import matplotlib

    from ntkrun.plots.landscape import plot_landscape
    from ntkrun.plots.run import STYLE

    content = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        plot_landscape(found).savefig(content, format=kind)
    return content.getvalue()
