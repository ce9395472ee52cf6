"""Gradient descent with adaptive weights on widening networks, against the kernel's prediction."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import LogLocator, NullLocator
from torch import Tensor

from ntkrun.config.assembly import Parts, assemble
from ntkrun.config.configuration import read_configuration
from reproduction import base
from reproduction.base import Budget, Figure, Job, Line, Verdict, fit, grouped, mean_error, names_after, style

WIDTHS = {"quick": (64, 128, 256, 512), "full": (64, 128, 256, 512, 1024, 2048)}
SEEDS = {"quick": 4, "full": 8}
STEPS = 1000
DRIFTS = {"parameter_drift": "parameters θ", "kernel_drift": "kernel K", "weight_drift": r"weights $\lambda$"}
SETTLED = 0.01  # relative change of the weights over the second half of the run
RATE = 0.1  # relative deviation of the rate of decay


def jobs(budget: Budget) -> list[Job]:
    """One per width and seed."""
    return [
        Job(
            f"{width}-{seed}",
            (f"network.width={width}", f"seed={seed}", f"iterations={STEPS}"),
            {"width": width, "seed": seed},
        )
        for width in WIDTHS[budget]
        for seed in range(SEEDS[budget])
    ]


def predict(parts: Parts, rate: float, steps: list[int]) -> tuple[Tensor, list[float], Tensor]:
    """The weighted residual norm under the linear dynamics of the initial kernel and weights.

    Gradient descent on sum_i lambda_i mean(r_i^2) with K and lambda as at the start gives
    r_k = (1 - 2 eta K D)^k r_0 with D = diag(lambda_i / N_i), the exponential exp(-2 eta k K D) for small steps.
    The norm is |D^(1/2) r|, whose square is the loss.

    Returns:
        Eigenvalues of D^(1/2) K D^(1/2), the norms at ``steps``, and the initial weights.
    """
    objective, batch = parts.objective, parts.points.at(0)
    with torch.no_grad():
        kernel = objective.jacobian(batch).gram()
        traces, residuals = objective.traces(batch), objective.residuals(batch)
    counts = torch.tensor(objective.row_counts(batch))
    means = traces / counts
    weights = means.sum() / means
    scale = torch.repeat_interleave(weights / counts, counts).sqrt()
    eigenvalues, vectors = torch.linalg.eigh(scale[:, None] * kernel * scale)
    start = vectors.T @ (scale * torch.cat(residuals))
    norms = [float((start * (1 - 2 * rate * eigenvalues) ** k).norm()) for k in steps]
    return eigenvalues, norms, weights


def work(values: dict[str, Any], directory: Path, arguments: Mapping[str, Any]) -> pd.DataFrame:
    """Train; norms measured and predicted, weights and drifts at the steps logged."""
    base.train(values, directory)
    log = pd.read_csv(directory / "metrics.csv")
    steps, rate = log["step"].tolist(), values["optimizer"]["learning_rate"]
    eigenvalues, norms, weights = predict(assemble(read_configuration(values)), rate, steps)
    names = names_after(log, "loss/")
    first = {name: float(weight) for name, weight in zip(names, weights, strict=True)}
    spectrum = np.load(directory / "spectrum.npz")
    at = pd.Index(spectrum["steps"])
    table = pd.DataFrame(
        {
            "step": steps,
            "norm": np.sqrt(sum(first[name] * log[f"loss/{name}"] for name in names)),
            "predicted": norms,
            **{f"weight/{name}": log[f"weight/{name}"] for name in names},
            "weight_drift": np.max([(log[f"weight/{name}"] / first[name] - 1).abs() for name in names], axis=0),
            "largest_factor": 2 * rate * float(eigenvalues[-1]),
            "least_eigenvalue": float(eigenvalues[0]),
            "largest_eigenvalue": float(eigenvalues[-1]),
        }
    )
    for key in ("parameter_drift", "kernel_drift"):
        table[key] = pd.Series(spectrum[key], index=at).reindex(steps).to_numpy()
    keep = set(np.unique(np.geomspace(10, steps[-1], 25).round(-1))) | {0, steps[-1] // 2, *at.tolist()}
    return table[table["step"].isin(keep)]


def ends(table: pd.DataFrame) -> pd.DataFrame:
    """One row per run: drifts at the end, rates of decay, how far the weights still moved in the second half."""
    rows = []
    for (width, seed), own in grouped(table, ["width", "seed"]):
        own = own.set_index("step")
        last = own.iloc[-1]
        half = own.loc[own.index[-1] // 2]
        terms = [f"weight/{term}" for term in names_after(own, "weight/")]
        rate, predicted = (math.log(own.iloc[0][key] / last[key]) for key in ("norm", "predicted"))
        rows.append(
            {
                "width": width,
                "seed": seed,
                "ratio": rate / predicted,
                "factor": own.iloc[0]["norm"] / last["norm"],
                "deviation": math.sqrt((np.log(own["norm"] / own["predicted"]) ** 2).mean()),
                "settling": max(abs(last[term] / half[term] - 1) for term in terms),
                **{key: last[key] for key in (*DRIFTS, "largest_factor", "least_eigenvalue", "largest_eigenvalue")},
            }
        )
    return pd.DataFrame(rows)


def slope(found: pd.DataFrame, key: str) -> Line:
    """Of the logarithm of a quantity against that of the width, over all runs."""
    return fit(np.log(found["width"]), np.log(found[key]))


def hypotheses(table: pd.DataFrame) -> list[tuple[str, str, bool]]:
    """What the theory asks for, the numbers found, and whether they meet it."""
    found = ends(table)
    wide = found[found["width"] == found["width"].max()]
    weights = [f"weight/{term}" for term in names_after(table, "weight/")]
    low, high = table[weights].min().min(), table[weights].max().max()
    condition = (wide["largest_eigenvalue"] / wide["least_eigenvalue"]).max()
    rows = (
        (
            "step size below the limit",
            f"2η max eig = {found['largest_factor'].max():.2f} < 2",
            found["largest_factor"].max() < 2,
        ),
        (
            "K(0) positive definite",
            f"least eigenvalue ≥ {found['least_eigenvalue'].min():.1e},\ncondition ≤ "
            f"{condition:.0e} at the largest width",
            found["least_eigenvalue"].min() > 0,
        ),
        ("weights bounded", f"{low:.3g} ≤ λ ≤ {high:.3g} in all runs", bool(low > 0 and high < 1e6)),
        (
            "nearly constant kernel",
            f"drift of K ≤ {wide['kernel_drift'].max():.2g} at the largest width",
            wide["kernel_drift"].max() < 0.1,
        ),
        (
            "nearly constant weights",
            f"drift of λ ≤ {wide['weight_drift'].max():.2g} there",
            wide["weight_drift"].max() < 0.1,
        ),
        (
            "by construction",
            "smooth activation (tanh), NTK parametrisation,\nfixed points, full batches, one hidden layer",
            True,
        ),
    )
    return [(what, text, bool(met)) for what, text, met in rows]


def plot(table: pd.DataFrame) -> dict[str, Drawing]:
    """Norms, weights, rates and drifts, and the hypotheses beside them."""
    style()
    figure, grid = plt.subplots(2, 3, figsize=(13.5, 7.2), layout="constrained", width_ratios=(1, 1, 1))
    colours = dict(
        zip(
            sorted(table["width"].unique()),
            plt.colormaps["viridis_r"](np.linspace(0.1, 1, table["width"].nunique())),
            strict=True,
        )
    )
    for width, view in grouped(table, "width"):
        first = view[view["seed"] == 0]
        grid[0][0].plot(
            first["step"], first["norm"] / first["norm"].iloc[0], color=colours[width], label=f"width {width}"
        )
        grid[0][0].plot(
            first["step"], first["predicted"] / first["predicted"].iloc[0], ":", color=colours[width], lw=2.2
        )
        relative = first["weight/boundary"] / first["weight/boundary"].iloc[0]
        grid[0][1].plot(first["step"], relative, color=colours[width])
    grid[0][0].set(
        yscale="log",
        xlabel="gradient descent step",
        ylabel="weighted residual norm, relative to step 0",
        title="residuals decay as the kernel predicts (dotted)",
    )
    grid[0][1].set(
        xlabel="gradient descent step",
        ylabel=r"$\lambda_{boundary}$, relative to step 0",
        title="adaptive weights settle",
    )
    for axes in grid[0][:2]:
        axes.set_xscale("symlog", linthresh=10)
        axes.set_xlim(0, None)
        axes.set_xticks([0, 10, 100, 1000], ["0", "10", "100", "1000"])
        axes.minorticks_off()
    found = ends(table)
    grid[1][0].plot(found["width"], found["ratio"], "o", color=base.GREY, markersize=4, alpha=0.6, label="one run")
    means = found.groupby("width")["ratio"].agg(["mean", "sem"])
    grid[1][0].errorbar(
        means.index, means["mean"], means["sem"], fmt="D-", color=base.RED, label="mean, standard error"
    )
    grid[1][0].axhline(1, color="black", lw=1)
    grid[1][0].set(title="rate of decay against the predicted one", ylabel="rate over the run, measured / predicted")
    for (key, label), colour, marker in zip(DRIFTS.items(), (base.BLUE, base.ORANGE, base.GREEN), "osv", strict=True):
        line = slope(found, key)
        grid[1][1].plot(found["width"], found[key], marker, color=colour, markersize=4, alpha=0.5)
        widths = np.array(sorted(found["width"].unique()))
        grid[1][1].plot(
            widths,
            np.exp(line.intercept) * widths**line.slope,
            color=colour,
            label=f"{label}: slope {line.slope:.2f} ± {line.error:.2f}",
        )
        if key == "parameter_drift":
            reference = 1.6 * np.exp(line.intercept + line.slope * math.log(widths[0]))
            grid[1][1].plot(
                widths, reference * (widths / widths[0]) ** -0.5, "k--", lw=1.2, label="slope -1/2, to compare"
            )
    grid[1][1].set(yscale="log")
    grid[1][1].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    grid[1][1].yaxis.set_major_formatter(lambda v, _: f"{v:g}")
    grid[1][1].yaxis.set_minor_locator(NullLocator())
    grid[1][1].set(ylabel="relative drift at the end of the run", title="drifts shrink with the width")
    for axes in grid[1][:2]:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda v, _: f"{v:g}")
        axes.set_xlabel("width")
    _write_hypotheses(grid[0][2], table)
    grid[1][2].axis("off")
    legends = (
        ("above (seed 0)", grid[0][0], (0, 1.03)),
        ("rates", grid[1][0], (0.45, 1.03)),
        ("drifts", grid[1][1], (0, 0.42)),
    )
    for title, source, place in legends:
        own = grid[1][2].legend(
            *source.get_legend_handles_labels(), title=title, loc="upper left", bbox_to_anchor=place, alignment="left"
        )
        grid[1][2].add_artist(own)
    figure.suptitle(
        "Gradient descent with weights updated at every step, on widening networks (Poisson, one hidden layer)"
    )
    return {"convergence.png": figure}


def _write_hypotheses(axes: Axes, table: pd.DataFrame) -> None:
    axes.axis("off")
    lines = ["Hypotheses, as checked here", ""]
    for what, text, met in hypotheses(table):
        lines.append(f"[{'met' if met else 'NOT MET'}] {what}:")
        lines += [f"    {part}" for part in text.split("\n")]
    axes.text(0, 1, "\n".join(lines), va="top", fontsize=9.5, linespacing=1.35, transform=axes.transAxes)


def verdicts(table: pd.DataFrame) -> list[Verdict]:
    """Settling, rates and drifts."""
    found = ends(table)
    wide = found[found["width"] == found["width"].max()]
    width, seeds = int(wide["width"].iloc[0]), len(wide)
    settling, spread = mean_error(wide["settling"])
    factor = np.exp(mean_error(np.log(wide["factor"]))[0])
    ratio, error = mean_error(wide["ratio"])
    deviation, shrink = mean_error(wide["deviation"]), slope(found, "deviation")
    out = [
        Verdict(
            f"the weights settle: they change by less than {100 * SETTLED:.0f} % over the second half (width {width})",
            f"{100 * settling:.3f} ± {100 * spread:.3f} % ({seeds} seeds), while the norm falls by a factor "
            f"of {factor:.0f}",
            settling + 2 * spread < SETTLED,
        ),
        Verdict(
            f"residuals decay at the rate the initial kernel predicts, within {100 * RATE:.0f} % (width {width})",
            f"measured / predicted {ratio:.4f} ± {error:.4f}",
            abs(ratio - 1) + 2 * error < RATE,
        ),
        Verdict(
            "norms tend to the predicted ones with the width (rms over the steps of log(measured / predicted): slope "
            "against log width below 0 by 2 standard errors)",
            f"slope {shrink.slope:.2f} ± {shrink.error:.2f}; rms {deviation[0]:.3f} ± {deviation[1]:.3f} at {width}",
            shrink.slope + 2 * shrink.error < 0,
        ),
    ]
    for key, label in DRIFTS.items():
        line = slope(found, key)
        what = label.replace(r"$\lambda$", "λ")
        text = f"slope {line.slope:.3f} ± {line.error:.3f}"
        out.append(
            Verdict(
                f"drift of {what} is O(width^(-1/2)): slope at most -1/2, up to 2 standard errors",
                text,
                line.slope - 2 * line.error <= -0.5,
            )
        )
        out.append(
            Verdict(
                f"drift of {what} is like width^(-1/2): slope -1/2 within 2 standard errors",
                f"{text}, {abs(line.slope + 0.5) / line.error:.1f} standard errors from -1/2",
                abs(line.slope + 0.5) <= 2 * line.error,
            )
        )
    return out


ABOUT = """\
Claim (a): gradient descent with adaptive NTK weights converges, in a suitable sense, under conditions. Poisson with
a = 1, 24 + 2 points, one hidden tanh layer in the NTK parametrisation, float64, exact weights at every step, 1,000
steps of η = 1e-3. The dynamics: gradient descent on Σ λ_i mean(r_i²) gives dr/dt = -2 K D r with D = diag(λ_i/N_i),
t = η x step. With K and λ frozen at step 0, r_k = (1 - 2ηK D)^k r_0, close to exp(-2tK D) r_0; that is the dotted
prediction, for the norm |D^(1/2) r| (its square is the loss under the weights of step 0). The rate compared is the
logarithm of the factor by which this norm falls over the run. Drifts are relative: ‖θ - θ_0‖/‖θ_0‖, ‖K -
K_0‖_F/‖K_0‖_F, and the largest |λ_i/λ_i(0) - 1|. O(width^(-1/2)) is an upper bound in the theory of wide networks;
whether the drift is *like* it is asked separately."""

FIGURE = Figure(
    "convergence",
    "Gradient descent with adaptive weights converges as the kernel predicts",
    ABOUT,
    jobs,
    work,
    plot,
    verdicts,
)
