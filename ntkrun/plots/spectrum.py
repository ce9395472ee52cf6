"""Figures of kernel spectra and of the drift of kernel and parameters, from the arrays of ``spectrum.npz``."""

from __future__ import annotations

import math

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from ntkrun.plots.labels import words

Arrays = dict[str, NDArray[np.float64]]

SHOWN = 7
"""The most steps in the figure of the eigenvalues."""

WHOLE = "all terms"


def plot_spectrum(spectrum: Arrays) -> dict[str, Figure]:
    """All figures by name: the eigenvalues, and what changes over the steps where the parameters moved."""
    figures = {"eigenvalues": plot_eigenvalues(spectrum)}
    if not np.isnan(_positive(spectrum["parameter_drift"])).all():
        figures["drift"] = plot_drift(spectrum)
    return figures


def plot_eigenvalues(spectrum: Arrays) -> Figure:
    """Eigenvalues of K and of every K_ii against their index at up to ``SHOWN`` steps.

    Eigenvalues that round-off hides, at most N epsilon times the largest, are left out.
    """
    steps = spectrum["steps"]
    picked = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), SHOWN)).round().astype(int))
    colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.92, len(picked)))
    names = ["", *_terms(spectrum)]
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(3.5 * columns + 1.2, 3.1 * rows))
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat[len(names) :]:
        axes.remove()
    hidden = False
    for axes, name in zip(panels.flat, names, strict=False):
        values = spectrum[f"eigenvalues{name}"][picked]
        visible = _visible(values)
        hidden |= bool(np.isnan(visible[np.isfinite(values)]).any())
        index = np.arange(1, values.shape[1] + 1)
        marker = "o" if values.shape[1] <= 20 else ""
        for row, color in zip(visible, colors, strict=True):
            axes.plot(index, row, color=color, marker=marker, markersize=4)
        _index_axis(axes, values.shape[1])
        _log_values(axes, visible)
        axes.set(title=words(name.removeprefix("/")) or WHOLE, xlabel="index")
    for line in panels[:, 0]:
        line.set_ylabel("eigenvalue")
    figure.legend(panels[0][0].lines, [str(steps[k]) for k in picked], title="step", loc="outside right center")
    figure.suptitle("Eigenvalues of the kernel and of its blocks")
    if hidden:
        figure.supxlabel(r"Eigenvalues up to $N\varepsilon$ times the largest are round-off and left out.", fontsize=8)
    return figure


def plot_drift(spectrum: Arrays) -> Figure:
    """Relative drift of kernels and parameters since step 0 above, effective ranks below."""
    steps = spectrum["steps"]
    figure = Figure(figsize=(7.2, 6))
    top, bottom = figure.subplots(2, 1, sharex=True)
    names = ["", *_terms(spectrum)]
    drifts = [_positive(spectrum[f"kernel_drift{name}"]) for name in names]
    drifts.append(_positive(spectrum["parameter_drift"]))
    for i, name in enumerate(names):
        label = words(name.removeprefix("/")) or WHOLE
        # The whole kernel is often that of one term: a broad line shows beneath the others.
        color, width, size = (f"C{i - 1}", 1.4, 3) if name else ("0.75", 4.5, 0)
        style = {"color": color, "linewidth": width, "marker": "o", "markersize": size}
        top.plot(steps, drifts[i], label=f"kernel, {label}", **style)
        bottom.plot(steps, spectrum[f"effective_rank{name}"], label=label, **style)
    top.plot(steps, drifts[-1], marker="o", markersize=3, label="parameters", color="black", linestyle="--")
    _log_values(top, np.stack(drifts))
    top.set(ylabel="relative drift since step 0", title="Drift of kernel and parameters")
    bottom.set(xlabel="step", ylabel="effective rank", title="Effective rank of the kernel")
    _step_axis(bottom, steps)
    for axes in (top, bottom):
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def _terms(spectrum: Arrays) -> list[str]:
    """``/<term>`` of every term, in order."""
    return [name.removeprefix("eigenvalues") for name in spectrum if name.startswith("eigenvalues/")]


def _visible(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Eigenvalues ``[T, N]`` with NaN for those that cannot be told from zero."""
    least = values.shape[1] * np.finfo(np.float64).eps * np.maximum(values[:, :1], 0)
    result: NDArray[np.float64] = np.where(values > least, values, np.nan)
    return result


def _positive(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values for a logarithmic axis: NaN in place of 0, of infinity and of NaN."""
    result: NDArray[np.float64] = np.where(np.isfinite(values) & (values > 0), values, np.nan)
    return result


def _log_values(axes: Axes, values: NDArray[np.float64]) -> None:
    """A logarithmic vertical axis, where there is anything to show."""
    if not np.isfinite(values).any():
        return
    axes.set_yscale("log")
    if np.nanmax(values) > 100 * np.nanmin(values):
        axes.yaxis.set_major_locator(LogLocator(numticks=8))
        axes.yaxis.set_minor_formatter(NullFormatter())


def _index_axis(axes: Axes, count: int) -> None:
    """Logarithmic for long spectra, else whole numbers."""
    if count > 20:
        axes.set_xscale("log")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlim(0.5, count + 0.5)


def _step_axis(axes: Axes, steps: NDArray[np.float64]) -> None:
    """Logarithmic from the first positive step on, with room for step 0, where the steps span decades."""
    positive = steps[steps > 0]
    if positive[-1] >= 100 * positive[0]:
        axes.set_xscale("symlog", linthresh=positive[0], linscale=0.5)
        axes.set_xlim(-0.15 * positive[0], 1.3 * positive[-1])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
