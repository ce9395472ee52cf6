"""Figures of one run, drawn from the files in its directory."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter
from numpy.typing import NDArray

from ntkrun.plots.labels import logarithmic, to_scale, words
from ntkrun.plots.residuals import plot_residuals
from ntkrun.plots.saved import axes_of, of_a_shape
from ntkrun.plots.slices import plot_slices
from ntkrun.plots.spectrum import plot_spectrum
from ntkrun.storage.atomic import write_atomically, writing
from ntkrun.storage.reader import read_arrays
from ntkrun.storage.summary import read_summary

STYLE: dict[Any, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "figure.dpi": 150,
    "font.size": 10,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
}


CELLS = 512  # the most along an axis of a heat map, which has fewer dots
VALUES = {"prediction", "exact", "error"}

log = logging.getLogger(__name__)


def plot_run(directory: Path) -> list[Path]:
    """Draw all figures of a run into ``directory/plots``, as PNG and PDF.

    Args:
        directory: a run directory with ``metrics.csv``, ``weights.csv``, ``solution.npz`` and perhaps ``steps.csv``,
            ``points.npz`` with ``residuals.npz``, and ``spectrum.npz``.

    Returns:
        The files written.
    """
    metrics = pd.read_csv(directory / "metrics.csv")
    updates = pd.read_csv(directory / "weights.csv")
    figures: dict[str, Figure] = {}
    with matplotlib.rc_context(STYLE):
        if len(metrics):
            figures |= {"losses": plot_losses(metrics), "weights": plot_weights(metrics, updates)}
        if metrics["error/rel_l2"].notna().any():
            figures["error"] = plot_error(metrics)
        if (directory / "steps.csv").exists() and len(steps := pd.read_csv(directory / "steps.csv")):
            figures["damping"] = plot_damping(steps)
        if _columns(metrics, "coefficient/"):
            known = read_summary(directory).get("coefficients")
            figures["coefficients"] = plot_coefficients(metrics, known if isinstance(known, dict) else {})
        if (directory / "solution.npz").exists():
            with np.load(directory / "solution.npz") as solution:
                figures["solution"] = plot_solution(solution)
                figures |= {} if "points" in solution else plot_slices(solution)
                figures |= _residuals(directory, solution)
        if (directory / "spectrum.npz").exists():
            try:
                figures |= plot_spectrum(read_arrays(directory / "spectrum.npz"))
            except (ValueError, TypeError, LookupError) as error:  # left by something else than this run
                log.warning("spectrum.npz is not drawn: %s", error)
        return [path for name, figure in figures.items() for path in _save(figure, directory / "plots", name)]


def _residuals(directory: Path, solution: Mapping[str, NDArray[Any]]) -> dict[str, Figure]:
    """The figure of points and residuals, where a run has written both."""
    if not all((directory / name).exists() for name in ("points.npz", "residuals.npz")):
        return {}
    coordinates = axes_of(solution) or [str(c) for c in solution["coordinates"]]
    shape = of_a_shape(solution["prediction"], "")
    try:
        points, sizes = read_arrays(directory / "points.npz"), read_arrays(directory / "residuals.npz")
        return {"residuals": plot_residuals(points, sizes, coordinates, shape)} if sizes else {}
    except (ValueError, TypeError, LookupError) as error:  # left by something else than this run
        log.warning("residuals.npz is not drawn: %s", error)
        return {}


def plot_losses(metrics: pd.DataFrame) -> Figure:
    """Weighted loss and the mean squared residual of every term against the step."""
    figure = Figure(figsize=(6.4, 4))
    axes = figure.subplots()
    for column in _columns(metrics, "loss/"):
        axes.plot(metrics["step"], metrics[column], label=words(column.removeprefix("loss/")))
    axes.plot(metrics["step"], metrics["loss"], color="black", linewidth=1, linestyle="--", label="weighted sum")
    if "held_out_loss" in metrics:
        known = metrics.dropna(subset="held_out_loss")
        axes.plot(known["step"], known["held_out_loss"], ".", color="black", label="weighted sum, held-out")
    logarithmic(axes, metrics[[*_columns(metrics, "loss/"), "loss"]].to_numpy())
    axes.set(xlabel="step", ylabel="loss", title="Loss terms")
    _legend(axes)
    return figure


def plot_weights(metrics: pd.DataFrame, updates: pd.DataFrame) -> Figure:
    """Weights of the loss terms; from every update where there are any."""
    source = updates if len(updates) else metrics
    figure = Figure(figsize=(6.4, 4))
    axes = figure.subplots()
    for column in _columns(source, "weight/"):
        # The last update holds until the end of the run.
        step = np.append(source["step"].to_numpy(), metrics["step"].iloc[-1])
        weight = np.append(source[column].to_numpy(), source[column].iloc[-1])
        axes.step(step, weight, where="post", label=words(column.removeprefix("weight/")))
    logarithmic(axes, source[_columns(source, "weight/")].to_numpy())
    axes.set(xlabel="step", ylabel="weight $\\lambda$", title="Weights of the loss terms")
    _legend(axes)
    return figure


def plot_coefficients(metrics: pd.DataFrame, known: Mapping[str, Any]) -> Figure:
    """Unknown coefficients against the step, one panel each, with their true values where these are known.

    Args:
        metrics: the table of the run.
        known: ``coefficients`` of ``summary.json``.
    """
    columns = _columns(metrics, "coefficient/")
    figure = Figure(figsize=(6.4, 1 + 2.4 * len(columns)))
    panels = figure.subplots(len(columns), 1, sharex=True, squeeze=False)[:, 0]
    for axes, column in zip(panels, columns, strict=True):
        name = column.removeprefix("coefficient/")
        axes.plot(metrics["step"], metrics[column], label="trained")
        true = known.get(name, {}).get("true")
        if true is not None:
            axes.axhline(true, color="black", linewidth=1, linestyle="--", label="true")
        axes.set(ylabel=words(name))
        _legend(axes)
    panels[0].set_title("Unknown coefficients")
    panels[-1].set_xlabel("step")
    return figure


def plot_error(metrics: pd.DataFrame) -> Figure:
    """Relative L2 error against the step, and those of single fields where there are several."""
    figure = Figure(figsize=(6.4, 4))
    axes = figure.subplots()
    evaluated = metrics.dropna(subset="error/rel_l2")
    fields = [c for c in _columns(metrics, "error/") if c != "error/rel_l2" and metrics[c].notna().any()]
    for column in fields:
        axes.plot(evaluated["step"], evaluated[column], marker=".", label=f"${column.removeprefix('error/')}$")
    axes.plot(evaluated["step"], evaluated["error/rel_l2"], marker=".", color="black", label="all fields")
    logarithmic(axes, evaluated[[*fields, "error/rel_l2"]].to_numpy())
    if fields:
        _legend(axes)
    axes.set(xlabel="step", ylabel="relative $L^2$ error", title="Error of the solution")
    return figure


def plot_damping(steps: pd.DataFrame) -> Figure:
    """Damping, step length and gain ratio of Gauss-Newton steps."""
    figure = Figure(figsize=(6.4, 6.4))
    panels = figure.subplots(3, 1, sharex=True)
    labels = {"damping": "damping", "step_length": "step length", "gain_ratio": "gain ratio"}
    for axes, (column, label) in zip(panels, labels.items(), strict=True):
        axes.plot(steps["step"], steps[column], marker=".", markersize=3, linewidth=0.8, color="black")
        axes.set(ylabel=label)
        if column != "gain_ratio":
            logarithmic(axes, steps[column].to_numpy())
    panels[0].set(title="Gauss-Newton steps")
    panels[-1].set(xlabel="step")
    return figure


def plot_solution(solution: Mapping[str, NDArray[Any]]) -> Figure:
    """Prediction, solution and error on the grid: curves in one dimension, heat maps in two.

    Of more dimensions, the first two are shown, at the end of time and in the middle of the others; without a grid, see
    ``plot_scattered``.

    Args:
        solution: the arrays of ``solution.npz``; of those with values at all nodes one is read at a time.
    """
    if "points" in solution:
        return plot_scattered(solution)
    coordinates = axes_of(solution)
    if len(coordinates) == 1:
        return _solution_1d(dict(solution), coordinates[0])
    axes = {c: solution[f"axis_{c}"] for c in coordinates}
    steps = [-(-len(axes[c]) // CELLS) for c in coordinates[:2]]
    cut = {c: len(axes[c]) - 1 if c == "t" else len(axes[c]) // 2 for c in coordinates[2:]}
    place: tuple[Any, ...] = (*(slice(None, None, step) for step in steps), *cut.values())
    shown = {f"axis_{c}": axes[c][::step] for c, step in zip(coordinates[:2], steps, strict=True)}
    shown["fields"] = solution["fields"]
    for name in VALUES & solution.keys():
        shown[name] = solution[name][place].copy()  # or the whole of it would stay
    figure = _solution_2d(shown, coordinates[0], coordinates[1])
    if cut:
        figure.suptitle("at " + ", ".join(f"${c} = {axes[c][k]:.3g}$" for c, k in cut.items()))
    return figure


def plot_scattered(solution: Mapping[str, NDArray[Any]]) -> Figure:
    """Of every field at scattered points: prediction against solution, and how many points have how small an error.

    Where no solution is known, the prediction over the first two coordinates.
    """
    fields, known = [str(field) for field in solution["fields"]], "exact" in solution
    figure = Figure(figsize=(6.4 * (1 + known), 4 * len(fields)))
    panels = figure.subplots(len(fields), 1 + known, squeeze=False)
    prediction, points = solution["prediction"], solution["points"]
    for i, field in enumerate(fields):
        if known:
            exact, error = solution["exact"][:, i], np.sort(np.abs(solution["error"][:, i]))
            left, right = panels[i]
            left.plot(exact, prediction[:, i], ".", markersize=1, rasterized=True)
            left.axline((exact[0], exact[0]), slope=1, color="0.6", linewidth=1)
            left.set(xlabel=f"solution ${field}$", ylabel="prediction", title=f"Prediction ${field}$")
            right.plot(error, np.arange(1, len(error) + 1) / len(error), color="C3")
            right.set(xlabel="absolute error", ylabel="share of points below", title=f"Absolute error ${field}$")
            if (error > 0).any():
                right.set_xscale("log")
            continue
        first, second = (str(c) for c in solution["coordinates"][:2])
        image = panels[i][0].scatter(*points[:, :2].T, c=prediction[:, i], s=1, cmap="RdBu_r", rasterized=True)
        panels[i][0].set(xlabel=f"${first}$", ylabel=f"${second}$", title=f"Prediction ${field}$")
        figure.colorbar(image, ax=panels[i][0])
    return figure


def _solution_1d(solution: dict[str, NDArray[np.float64]], coordinate: str) -> Figure:
    x = solution[f"axis_{coordinate}"]
    fields = [str(field) for field in solution["fields"]]
    known = "exact" in solution
    figure = Figure(figsize=(6.4 * len(fields), 5.6 if known else 4))
    panels = figure.subplots(1 + known, len(fields), sharex=True, squeeze=False)
    for i, field in enumerate(fields):
        top = panels[0][i]
        if known:
            top.plot(x, solution["exact"][..., i], color="0.6", linewidth=3.5, label="exact")
        top.plot(x, solution["prediction"][..., i], color="C0", label="prediction")
        top.set(ylabel=f"${field}$", title=f"Solution ${field}$")
        _legend(top)
        if known:
            error = np.abs(solution["error"][..., i])
            panels[1][i].plot(x, error, color="C3")
            logarithmic(panels[1][i], error)
            panels[1][i].set(ylabel="absolute error")
        panels[-1][i].set(xlabel=f"${coordinate}$")
    return figure


def _solution_2d(solution: dict[str, NDArray[np.float64]], first: str, second: str) -> Figure:
    """Time runs to the right; without time, the first coordinate does."""
    right, up = (second, first) if second == "t" else (first, second)
    fields = [str(field) for field in solution["fields"]]
    names = ["prediction", "exact", "error"] if "exact" in solution else ["prediction"]
    figure = Figure(figsize=(4.4 * len(names), 3.6 * len(fields)))
    panels = figure.subplots(len(fields), len(names), squeeze=False, sharex=True, sharey=True)
    for i, field in enumerate(fields):
        values = solution["exact" if _known(solution, i) else "prediction"][..., i]
        limits = float(np.nanmin(values)), float(np.nanmax(values))
        for axes, name in zip(panels[i], names, strict=True):
            title = {"prediction": "Prediction", "exact": "Solution", "error": "Absolute error"}[name]
            axes.set(title=f"{title} ${field}$")
            axes.grid(False)
            if name != "prediction" and not _known(solution, i):
                axes.text(0.5, 0.5, "not known", transform=axes.transAxes, ha="center", color="0.5")
                continue
            data = np.abs(solution[name][..., i]) if name == "error" else solution[name][..., i]
            low, high = (0.0, None) if name == "error" else limits
            image = axes.pcolormesh(
                solution[f"axis_{right}"],
                solution[f"axis_{up}"],
                data if right == second else data.T,
                cmap="magma" if name == "error" else "RdBu_r",
                vmin=low,
                vmax=high,
                rasterized=True,
            )
            if of_a_shape(solution["prediction"], right + up):
                to_scale(axes, solution[f"axis_{right}"], solution[f"axis_{up}"])
            formatter = ScalarFormatter()
            formatter.set_powerlimits((-2, 3))
            figure.colorbar(image, ax=axes, format=formatter)
        panels[i][0].set(ylabel=f"${up}$")
    for axes in panels[-1]:
        axes.set(xlabel=f"${right}$")
    return figure


def _known(solution: dict[str, NDArray[np.float64]], field: int) -> bool:
    """Whether anything is known of a field's solution."""
    return "exact" in solution and bool(np.isfinite(solution["exact"][..., field]).any())


def _columns(table: pd.DataFrame, prefix: str) -> list[str]:
    return [column for column in table.columns if column.startswith(prefix)]


def _legend(axes: Axes) -> None:
    """A legend beside the axes, where it covers no data."""
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))


def _save(figure: Figure, directory: Path, name: str) -> list[Path]:
    """Write a figure as PNG and PDF; it is laid out once, where ``Figure.savefig`` would do so for every file."""
    with writing(directory):
        directory.mkdir(exist_ok=True)
    paths = [directory / f"{name}.png", directory / f"{name}.pdf"]
    png: Any = FigureCanvasAgg(figure)
    write_atomically(paths[0], png.print_png)
    figure.set_layout_engine("none")
    pdf: Any = FigureCanvasPdf(figure)
    write_atomically(paths[1], pdf.print_pdf)
    return paths
