"""The error that finite differences add to a sketch, against their step."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure as Drawing

from ntkrun.config.assembly import assemble
from ntkrun.config.configuration import read_configuration
from ntkrun.weights import Sketched
from reproduction import base
from reproduction.base import Budget, Figure, Job, Line, Verdict, fit, grouped, style

ORDERS = {"forward": 1, "central": 2}
EXPONENTS = {"parameter": (-9, 0), "residual": (-12, -2)}  # of the steps; J^T omega is much longer than xi
ASYMPTOTIC = 0.03  # largest error of the clean range
ABOVE_FLOOR = 30  # least error of the clean range, as a multiple of the least of all
TOLERANCE = 0.05  # of a slope


def jobs(budget: Budget) -> list[Job]:
    """One per side, difference and precision."""
    probes, per_decade = {"quick": (24, 2), "full": (96, 4)}[budget]
    return [
        Job(
            f"{side}-{difference}-{dtype}",
            (
                f"weights.side={side}",
                f"weights.difference={difference}",
                f"dtype={dtype}",
                f"weights.sketch_size={probes}",
            ),
            {"side": side, "difference": difference, "dtype": dtype},
            {"exponents": [x / per_decade for x in range(per_decade * low, per_decade * high + 1)]},
        )
        for side, (low, high) in EXPONENTS.items()
        for difference, dtype in itertools.product(ORDERS, ("float32", "float64"))
    ]


def work(values: dict[str, Any], directory: Path, arguments: Mapping[str, Any]) -> pd.DataFrame:
    """Errors of samples of the residual term's trace against exact products with the same probes."""
    parts = assemble(read_configuration(values))
    objective, batch = parts.objective, parts.points.at(0)
    assert isinstance(parts.weighting, Sketched)
    sketch = parts.weighting.sketch
    trace = objective.traces(batch)[0].item()

    def samples(**changes: Any) -> tuple[np.ndarray, float]:
        estimate = replace(sketch, **changes).estimate(objective, batch, torch.Generator().manual_seed(0))
        delta = float("nan") if estimate.deltas is None else float(estimate.deltas[0])
        return estimate.samples[0].double().numpy() / trace, delta

    truth, _ = samples(derivative="autodiff", delta="auto")
    rows = []
    for choice in ["auto", *(10**x for x in arguments["exponents"])]:
        found, delta = samples(delta=choice)
        error = found - truth
        mean, spread = base.mean_error(error)
        rms = float(np.sqrt((error**2).mean()))
        rows.append({"automatic": choice == "auto", "delta": delta, "error": rms, "bias": mean, "bias_error": spread})
    return pd.DataFrame(rows)


def clean(own: pd.DataFrame) -> pd.DataFrame:
    """The rows where truncation of leading order alone is seen: small errors, well above round-off."""
    steps = own[~own["automatic"]].sort_values("delta")
    least = steps.nsmallest(1, "error").iloc[0]
    above = steps[steps["delta"] > least["delta"]]
    rows: pd.DataFrame = above[(above["error"] < ASYMPTOTIC) & (above["error"] > ABOVE_FLOOR * least["error"])]
    return rows


def slope(own: pd.DataFrame) -> Line:
    """Of log error against log step over the clean range."""
    rows = clean(own)
    return fit(np.log10(rows["delta"]), np.log10(rows["error"]))


def plot(table: pd.DataFrame) -> dict[str, Drawing]:
    """One panel per side of the sketch."""
    style()
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.8), sharey=True, layout="constrained")
    colours = {"forward": base.RED, "central": base.BLUE}
    for axes, (side, view) in zip(panels, grouped(table, "side"), strict=True):
        for (difference, dtype), own in grouped(view, ["difference", "dtype"]):
            steps, automatic = own[~own["automatic"]], own[own["automatic"]]
            double = dtype == "float64"
            axes.plot(
                steps["delta"],
                steps["error"],
                "o-" if double else "^:",
                color=colours[difference],
                markerfacecolor=colours[difference] if double else "white",
                markersize=4,
                label=f"{difference}, {dtype}",
            )
            axes.plot(
                automatic["delta"],
                automatic["error"],
                "*",
                color="black",
                markersize=11,
                zorder=3,
                label="automatic step" if double and difference == "central" else None,
            )
            if double:
                line, rows = slope(own), clean(own)
                early = rows.iloc[len(rows) // 3]
                above = difference == "forward"  # on the side where there is no other curve
                axes.annotate(
                    f"slope {line.slope:.3f}",
                    (early["delta"], early["error"]),
                    xytext=(-8, 5) if above else (12, -8),
                    textcoords="offset points",
                    ha="right" if above else "left",
                    color=colours[difference],
                )
        clipped = view[(view["difference"] == "forward") & (view["dtype"] == "float64") & ~view["automatic"]]
        seen = clipped[(clipped["bias"].abs() > 3 * clipped["bias_error"]) & (clipped["bias"].abs() > 1e-11)]
        axes.plot(
            seen["delta"],
            seen["bias"].abs(),
            "s",
            color=base.ORANGE,
            markersize=4,
            label="|mean error|, forward, float64, where above 3 standard errors",
        )
        axes.set(
            xscale="log",
            yscale="log",
            ylim=(1e-11, 1e2),
            title=f"{side} side",
            xlabel=r"step $\delta$, multiple of " + ("the probe ξ" if side == "parameter" else "Jᵀω"),
        )
    panels[0].set_ylabel("rms error of a sample of tr $K_{rr}$\nfrom differences, relative to tr $K_{rr}$")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    figure.suptitle("The discretisation error falls with the step as its order says, down to round-off")
    return {"discretisation.png": figure}


def verdicts(table: pd.DataFrame) -> list[Verdict]:
    """Orders, and how small the error becomes."""
    out = []
    for (side, difference), own in grouped(table[table["dtype"] == "float64"], ["side", "difference"]):
        line, rows, order = slope(own), clean(own), ORDERS[difference]
        out.append(
            Verdict(
                f"{side} side, {difference}: error of order δ^{order} (float64, slope within {TOLERANCE} of {order})",
                f"slope {line.slope:.4f} ± {line.error:.4f} over {len(rows)} steps "
                f"from {rows['delta'].min():.1e} to {rows['delta'].max():.1e}",
                abs(line.slope - order) < TOLERANCE,
            )
        )
    least = table[~table["automatic"]].groupby(["dtype", "side", "difference"])["error"].min()
    single, double = least["float32"], least["float64"]
    out.append(
        Verdict(
            "the error can be made small: below 1e-6 in float64 for every variant",
            f"least error {double.min():.1e} to {double.max():.1e}; in float32 it stops at {single.min():.1e} "
            f"to {single.max():.1e}",
            bool(double.max() < 1e-6),
        )
    )
    automatic = table[table["automatic"]].set_index(["dtype", "side", "difference"])["error"] / least
    out.append(
        Verdict(
            "the automatic step is near the best: error within a factor of 5 of the least for every variant",
            f"factors {automatic.min():.1f} to {automatic.max():.1f}",
            bool(automatic.max() < 5),
        )
    )
    return out


ABOUT = f"""\
Claim (b): the estimates are unbiased *up to an arbitrarily small discretisation error*. Same problem as above,
Gaussian probes. Each sample of the trace by finite differences is compared with the sample that exact products give
for the same probe, so that the scatter of the sketch drops out. Slopes are fitted by least squares over the clean
range in float64: errors below {ASYMPTOTIC} and more than {ABOVE_FLOOR} times the least. Orange: the error of the
*mean* over all probes under forward differences; its first-order term is odd in the probe and averages out, so the
expectation is off by order δ² only."""

FIGURE = Figure(
    "discretisation",
    "The discretisation error is as small as one likes, down to round-off",
    ABOUT,
    jobs,
    work,
    plot,
    verdicts,
)
