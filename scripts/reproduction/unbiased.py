"""Estimates of the kernel and its trace, averaged: their errors against the predicted ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure as Drawing
from numpy.typing import NDArray
from torch import Tensor

from ntkrun.config.assembly import assemble
from ntkrun.config.configuration import read_configuration
from ntkrun.jacobian.operators import Jacobian
from ntkrun.ntk.sketch import Sketch
from ntkrun.weights import Sketched
from reproduction import base
from reproduction.base import Budget, Figure, Job, Verdict, grouped, rms_error, style, z_limit

DIFFERENCE = "weights.derivative=finite_difference"
COARSE = "parameter, forward, step 0.1"
ESTIMATORS = {
    "parameter, Gaussian": ("weights.side=parameter", "weights.distribution=gaussian"),
    "parameter, Rademacher": ("weights.side=parameter", "weights.distribution=rademacher"),
    "parameter, Gaussian, central": (
        "weights.side=parameter",
        "weights.distribution=gaussian",
        DIFFERENCE,
        "weights.difference=central",
    ),
    "residual, Gaussian": ("weights.distribution=gaussian",),
    "residual, Rademacher": ("weights.distribution=rademacher",),
    "residual, Rademacher, central": ("weights.distribution=rademacher", DIFFERENCE, "weights.difference=central"),
    "coordinate": ("weights.distribution=coordinate",),
    "systematic": ("weights.distribution=systematic",),
    "Hutch++": ("weights.distribution=gaussian", "weights.estimator=hutchpp"),
    "XTrace": ("weights.distribution=gaussian", "weights.estimator=xtrace"),
    COARSE: ("weights.side=parameter", "weights.distribution=gaussian", DIFFERENCE, "weights.delta=0.1"),
}
STYLES = dict(
    zip(
        ESTIMATORS,
        (
            (base.BLUE, "o"),
            (base.SKY, "s"),
            (base.BLACK, "x"),
            (base.RED, "D"),
            (base.ORANGE, "^"),
            (base.BLACK, "+"),
            (base.GREEN, "v"),
            ("#7F4F24", "<"),
            (base.PINK, "P"),
            ("#5D3A9B", "*"),
            (base.GREY, "d"),
        ),
        strict=True,
    )
)
ROUND_OFF = 1e-12  # an estimator whose error is smaller is exact
AVERAGED = 8  # sketch size of the averages
REPETITIONS = {"quick": (256, 64), "full": (1024, 384)}  # with exact products, with differences


def jobs(budget: Budget) -> list[Job]:
    """One per estimator."""
    sizes = {"quick": [4, 8, 16], "full": [4, 8, 16, 32]}[budget]
    return [
        Job(
            "".join(c if c.isalnum() else "_" for c in name),
            overrides,
            {"estimator": name},
            {
                "sizes": [AVERAGED] if name == COARSE else sizes,
                "repetitions": REPETITIONS[budget][DIFFERENCE in overrides],
            },
        )
        for name, overrides in ESTIMATORS.items()
    ]


def trace_variance(sketch: Sketch, jacobian: Jacobian, kernel: Tensor) -> float:
    """Variance of the estimated trace that theory gives; NaN where there is no closed form."""
    square, diagonal, n = kernel.square().sum().item(), kernel.diagonal(), len(kernel)
    if sketch.estimator != "plain" or sketch.distribution == "systematic":
        return math.nan
    if sketch.distribution == "coordinate":
        return n**2 / sketch.size * diagonal.var().item() * (1 - sketch.size / n)
    if sketch.distribution == "gaussian":
        return 2 * square / sketch.size
    own = jacobian.dense().square().sum(0) if sketch.side == "parameter" else diagonal
    return 2 * (square - own.square().sum().item()) / sketch.size


def kernel_variance(sketch: Sketch, kernel: Tensor) -> float:
    """Expected squared Frobenius error of the estimated kernel; NaN where there is no closed form here."""
    square, n = kernel.square().sum().item(), len(kernel)
    if sketch.distribution == "systematic":
        return math.nan
    if sketch.side == "parameter":
        return (kernel.trace().item() ** 2 + square) / sketch.size if sketch.distribution == "gaussian" else math.nan
    if sketch.distribution == "coordinate":
        return square * (n / sketch.size - 1)
    return square * (n + 1 if sketch.distribution == "gaussian" else n - 1) / sketch.size


def averages(errors: NDArray[np.float64]) -> list[tuple[int, float, float]]:
    """For doubling R: R, the rms error of means over R estimates, and its standard error.

    Args:
        errors: of single estimates, ``[M]`` or ``[M, entries]``.
    """
    rows, count = [], 1
    while len(errors) // count >= 16:
        groups = errors[: len(errors) // count * count].reshape(len(errors) // count, count, -1).mean(1)
        rows.append((count, *rms_error(np.linalg.norm(groups, axis=1))))
        count *= 2
    return rows


def kernel_bias(errors: NDArray[np.float64]) -> tuple[float, float]:
    """Squared norm of the mean error without that of the noise, and its standard error; ``[M, entries]``."""
    m = len(errors)
    products = errors @ errors.T
    pairs = products[~np.eye(m, dtype=bool)]
    return float(pairs.mean()), float(math.sqrt(2 * (pairs**2).mean() / (m * (m - 1))))


def work(values: dict[str, Any], directory: Path, arguments: Mapping[str, Any]) -> pd.DataFrame:
    """Errors relative to the exact trace of the residual term, and to the exact kernel of all rows."""
    parts = assemble(read_configuration(values))
    objective, batch = parts.objective, parts.points.at(0)
    assert isinstance(parts.weighting, Sketched)
    with torch.no_grad():
        jacobian, whole = objective.jacobians(batch)[0], objective.jacobian(batch).gram()
        block = jacobian.gram()
    exact, norm = block.trace().item(), whole.norm().item()
    rows: list[dict[str, Any]] = []

    def add(quantity: str, size: int, count: int, error: float, spread: float, predicted: float, **more: float) -> None:
        rows.append(
            {
                "quantity": quantity,
                "size": size,
                "averaged": count,
                "error": error,
                "standard_error": spread,
                "predicted": predicted / math.sqrt(count),
                **more,
            }
        )

    for size in arguments["sizes"]:
        sketch = replace(parts.weighting.sketch, size=size)
        generator = torch.Generator().manual_seed(size)
        traces = [sketch.estimate(objective, batch, generator).traces[0] for _ in range(arguments["repetitions"])]
        errors = torch.stack(traces).numpy() / exact - 1
        predicted = math.sqrt(trace_variance(sketch, jacobian, block)) / exact
        mean, spread = base.mean_error(errors)
        for count, rms, error in averages(errors) if size == AVERAGED else [(1, *rms_error(errors))]:
            add(
                "trace",
                size,
                count,
                rms,
                error,
                predicted,
                **({"bias": mean, "bias_error": spread} if count == 1 else {}),
            )
        if size != AVERAGED or sketch.estimator != "plain":
            continue
        kernels = [sketch.kernel(objective, batch, generator) for _ in range(arguments["repetitions"])]
        errors = (torch.stack(kernels) / norm - whole / norm).flatten(1).numpy()
        predicted = math.sqrt(kernel_variance(sketch, whole)) / norm
        square, spread = kernel_bias(errors)
        for count, rms, error in averages(errors):
            add(
                "kernel",
                size,
                count,
                rms,
                error,
                predicted,
                **({"bias": square, "bias_error": spread} if count == 1 else {}),
            )
    return pd.DataFrame(rows)


def plot(table: pd.DataFrame) -> dict[str, Drawing]:
    """Three panels: trace against size, averaged trace, averaged kernel."""
    style()
    figure, panels = plt.subplots(1, 3, figsize=(12, 4.8), layout="constrained")
    views = (
        (table[(table["quantity"] == "trace") & (table["averaged"] == 1)], "size", "one estimate of tr $K_{rr}$"),
        (
            table[(table["quantity"] == "trace") & (table["size"] == AVERAGED)],
            "averaged",
            f"mean of several of them, s = {AVERAGED}",
        ),
        (table[table["quantity"] == "kernel"], "averaged", f"mean of several of all of K, s = {AVERAGED}"),
    )
    for axes, (shown_all, x, title) in zip(panels, views, strict=True):
        view = shown_all[shown_all["error"] > ROUND_OFF]
        for k, (name, own) in enumerate(grouped(view, "estimator")):
            if name == COARSE and x == "size":
                continue
            colour, marker = STYLES[name]
            label = f"{name} (too coarse on purpose)" if name == COARSE else name
            aside = own[x] * 1.035 ** (k - 5)  # where marks would lie on each other
            axes.errorbar(aside, own["error"], own["standard_error"], fmt=marker, color=colour, label=label)
            shown = own["predicted"] if own["predicted"].notna().all() else own["error"] * math.nan
            axes.plot(aside, shown, color=colour, linewidth=1, linestyle="--" if name == COARSE else "-")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(sorted(view[x].unique()))
        axes.xaxis.set_major_formatter(lambda v, _: f"{v:g}")
        axes.set(
            title=title, xlabel="sketch size s (probes, points or products)" if x == "size" else "estimates averaged"
        )
    panels[0].set_ylabel("rms relative error of tr $K_{rr}$")
    panels[1].set_ylabel("rms relative error of tr $K_{rr}$")
    panels[2].set_ylabel(r"rms of $\|\hat K - K\|_F\,/\,\|K\|_F$")
    handles, labels = panels[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, title="marks: measured; lines: predicted")
    figure.suptitle("Averages of sketched kernels tend to the exact one as theory predicts")
    return {"unbiased.png": figure}


def verdicts(table: pd.DataFrame) -> list[Verdict]:
    """No bias, and the predicted variances."""
    single = table[(table["averaged"] == 1) & (table["estimator"] != COARSE) & (table["error"] > ROUND_OFF)]
    out = []
    for quantity, what in (("trace", "tr K_rr"), ("kernel", "all of K")):
        own = single[single["quantity"] == quantity]
        z = own["bias"] / own["bias_error"]
        # Of the kernel the squared bias is estimated, which is not negative: one-sided.
        own = own.assign(z=z.abs() if quantity == "trace" else z)
        row, limit = own.nlargest(1, "z").iloc[0], z_limit(len(own))
        worst = float(row["z"])
        scale = own["bias_error"].max()
        noise = (
            f"largest standard error {100 * scale:.2g} %"
            if quantity == "trace"
            else (f"squared bias known to {scale:.1g} of the squared norm or better")
        )
        out.append(
            Verdict(
                f"the estimates of {what} are unbiased (largest z of {len(own)} below {limit:.2f}, family-wise 1 %)",
                f"largest z = {worst:.2f} ({row['estimator']}, s = {row['size']}), {noise}",
                bool(worst < limit),
            )
        )
    known = single[single["predicted"].notna()]
    ratio = known["error"] / known["predicted"]
    z = (ratio - 1) / (known["standard_error"] / known["predicted"])
    limit = z_limit(len(known))
    out.append(
        Verdict(
            f"single estimates have the predicted rms error ({len(known)} cases, each |z| below {limit:.2f})",
            f"measured / predicted from {ratio.min():.3f} to {ratio.max():.3f}, largest |z| = {z.abs().max():.2f}",
            bool(z.abs().max() < limit),
        )
    )
    coarse = table[(table["estimator"] == COARSE) & (table["averaged"] == 1) & (table["quantity"] == "trace")].iloc[0]
    out.append(
        Verdict(
            "what bias there is comes from discretisation: a forward difference of step 0.1 is biased (|z| above 5)",
            f"bias {100 * coarse['bias']:.1f} ± {100 * coarse['bias_error']:.1f} % of the trace",
            bool(abs(coarse["bias"]) > 5 * coarse["bias_error"]),
        )
    )
    return out


ABOUT = """\
Claim (b): a randomised algorithm gives unbiased estimates of the NTK. Poisson, tanh network 1-32-32-1, 60 residual
points, float64, at the initial parameters. Left: rms error of a single estimate of the residual term's trace.
Middle and right: rms error of means over several independent estimates, of the trace and of the whole kernel of all
rows (Frobenius norm); it falls like the root of their number for as long as there is no bias. Predicted: Var tr =
2‖K‖²/s for Gaussian probes on either side, 2(‖K‖² - Σ K_kk²)/s for Rademacher probes on the residual side (JᵀJ in
place of K on the parameter side), (N²/m)(1 - m/N) Var(K_kk) for coordinates; and for the kernel E‖K̂ - K‖² = ((tr
K)² + ‖K‖²)/s (parameter side, Gaussian), (N + 1)‖K‖²/s and (N - 1)‖K‖²/s (residual side, Gaussian and Rademacher),
(N/m - 1)‖K‖² (coordinate). *Systematic*, the default, takes points at equal distances along a space-filling curve; it,
Hutch++ and XTrace have no closed form; where their error is round-off (below 1e-12)
they are exact, and neither shown nor tested for bias. Differences take their automatic step, except the grey one,
whose bias is there to be seen."""

FIGURE = Figure(
    "unbiased",
    "Sketched kernels are unbiased",
    ABOUT,
    jobs,
    work,
    plot,
    verdicts,
)
