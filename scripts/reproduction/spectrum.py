"""Eigenvalues of the kernel along training, and under differential operators."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure as Drawing

from reproduction import base
from reproduction.base import Budget, Figure, Job, Verdict, grouped, mean_error, style

POINTS = {
    "helmholtz": {"residual": 160, "boundary": 40},
    "diffusion": {"residual": 120, "boundary": 40, "initial": 40},
    "allen_cahn": {"residual": 120, "initial": 40, "periodic": 40},
    "beam": {"residual": 100, "boundary": 25, "moment": 25, "initial": 25, "initial_velocity": 25},
}  # 200 each
NETWORKS = {
    "MLP": ("network=mlp", "network.width=32", "network.depth=3"),
    "Chebyshev KAN": ("network=cpikan", "network.width=8", "network.depth=2"),
}
OPTIMIZERS = {"Adam": "adam", "L-BFGS": "lbfgs", "Adam→L-BFGS": "adam_lbfgs"}
COLOURS = {"Adam": base.BLUE, "L-BFGS": base.RED, "Adam→L-BFGS": base.GREEN}
LINES = {"Adam": "-", "L-BFGS": "--", "Adam→L-BFGS": "-."}
ITERATIONS = {"quick": 300, "full": 1000}
OPERATORS = ("identity", "d/dx", "d²/dx²")
WIDTHS = {"quick": (16, 64, 256), "full": (16, 64, 256, 1024)}
SEEDS = {"quick": 2, "full": 5}
INDICES = np.unique(np.geomspace(1, 200, 24).astype(int))
DECAY = 10  # the index whose eigenvalue is compared with the first
FLOOR = 1e-13  # of the largest eigenvalue; below is round-off


def jobs(budget: Budget) -> list[Job]:
    """Training on four equations and on regression; untrained kernels of operators."""
    steps = ITERATIONS[budget]
    observed = [step for step in (10, 30, 100, 300) if step < steps]
    common = (f"iterations={steps}", f"log_every={steps // 10}", f"diagnostics.steps={observed}")
    found = []
    for pde, points in POINTS.items():
        counts = ", ".join(f"{term}: {count}" for term, count in points.items())
        for network, chosen in NETWORKS.items():
            for name, optimizer in OPTIMIZERS.items():
                switch = (f"optimizer.switch_at={steps // 2}",) if optimizer == "adam_lbfgs" else ()
                found.append(
                    Job(
                        f"{pde}-{chosen[0].removeprefix('network=')}-{optimizer}",
                        (f"pde={pde}", *chosen, f"pde.points={{{counts}}}", f"optimizer={optimizer}", *switch, *common),
                        {"part": "training", "pde": pde, "network": network, "optimizer": name, "seed": 0},
                    )
                )
    networks = {"MLP": NETWORKS["MLP"], "residual Fourier": ("network=ecrn", "network.features=16", "network.depth=3")}
    for network, chosen in networks.items():
        for seed in range(SEEDS[budget]):
            found.append(
                Job(
                    f"regression-{chosen[0].removeprefix('network=')}-{seed}",
                    (
                        "pde=regression",
                        "pde.sampling=equispaced",
                        "pde.points.data=200",
                        *chosen,
                        *common,
                        f"seed={seed}",
                    ),
                    {"part": "regression", "pde": "regression", "network": network, "optimizer": "Adam", "seed": seed},
                )
            )
    for order, operator in enumerate(OPERATORS):
        for width in WIDTHS[budget]:
            for seed in range(SEEDS[budget]):
                found.append(
                    Job(
                        f"operator-{order}-{width}-{seed}",
                        (
                            "pde=regression",
                            "pde._target_=reproduction.operators.Operator",
                            "~pde.frequencies",
                            f"+pde.order={order}",
                            "pde.sampling=equispaced",
                            "pde.points.data=200",
                            f"network.width={width}",
                            "network.depth=2",
                            "network.initialization=ntk",
                            "iterations=0",
                            f"seed={seed}",
                        ),
                        {
                            "part": "operators",
                            "pde": operator,
                            "network": f"width {width}",
                            "optimizer": "",
                            "seed": seed,
                        },
                    )
                )
    return found


def work(values: dict[str, Any], directory: Path, arguments: Mapping[str, Any]) -> pd.DataFrame:
    """Train; some eigenvalues at every step observed, with effective rank and drift."""
    base.train(values, directory)
    spectrum = np.load(directory / "spectrum.npz")
    indices = INDICES[spectrum["eigenvalues"].shape[1] >= INDICES]
    steps = np.unique(spectrum["steps"], return_index=True)[1]
    return pd.DataFrame(
        [
            {
                "step": spectrum["steps"][t],
                "effective_rank": round(spectrum["effective_rank"][t], 3),
                "kernel_drift": round(spectrum["kernel_drift"][t], 4),
                "index": k,
                "eigenvalue": float(f"{spectrum['eigenvalues'][t, k - 1]:.4g}"),
            }
            for t in steps
            for k in indices
        ]
    )


def ends(own: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of the first and of the last step."""
    return own[own["step"] == own["step"].min()], own[own["step"] == own["step"].max()]


def plot(table: pd.DataFrame) -> dict[str, Drawing]:
    """Spectra of the equations, their effective ranks along training, and the other two parts."""
    training = table[table["part"] == "training"]
    return {
        "spectrum.png": _spectra(training),
        "spectrum_rank.png": _ranks(training),
        "spectrum_operators.png": _others(table[table["part"] == "regression"], table[table["part"] == "operators"]),
    }


def _spectra(table: pd.DataFrame) -> Drawing:
    style()
    figure, grid = plt.subplots(2, 4, figsize=(13.5, 6.6), sharex=True, sharey="col", layout="constrained")
    for row, (network, part) in zip(grid, grouped(table, "network"), strict=True):
        for axes, (pde, view) in zip(row, grouped(part, "pde"), strict=True):
            for k, (name, own) in enumerate(grouped(view, "optimizer")):
                first, last = ends(own)
                if k == 0:
                    axes.plot(first["index"], _above(first), color="black", lw=2.5, alpha=0.45, label="start")
                axes.plot(last["index"], _above(last), LINES[name], color=COLOURS[name], label=f"end, {name}")
            axes.set(xscale="log", yscale="log", title=f"{network}, {pde}")
        row[0].set_ylabel(r"eigenvalue $\mu_k$ of K")
    for axes in grid[-1]:
        axes.set_xlabel("index k (of 200)")
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.suptitle(f"Kernel eigenvalues before and after {table['step'].max():,} steps")
    return figure


def _above(own: pd.DataFrame) -> pd.Series:
    """Eigenvalues, without those that are round-off."""
    values: pd.Series = own["eigenvalue"].where(own["eigenvalue"] > FLOOR * own["eigenvalue"].max())
    return values


def _ranks(table: pd.DataFrame) -> Drawing:
    style()
    figure, grid = plt.subplots(2, 4, figsize=(13.5, 6), sharex=True, layout="constrained")
    for column, (pde, part) in enumerate(grouped(table, "pde")):
        for row, key in enumerate(("effective_rank", "kernel_drift")):
            axes = grid[row][column]
            for (network, name), own in grouped(part[part["index"] == 1], ["network", "optimizer"]):
                kan = network != "MLP"
                shown = own[own["step"] > 0] if row else own
                axes.plot(
                    shown["step"],
                    shown[key],
                    "s--" if kan else "o-",
                    color=COLOURS[name],
                    markersize=4,
                    markerfacecolor="white" if kan else COLOURS[name],
                    label=f"{network}, {name}",
                )
            axes.set_xscale("symlog", linthresh=10)
            if row:
                axes.set_yscale("log")
        grid[0][column].set(title=pde, xlim=(0, None), ylim=(0, None))
        ticks = [10**k for k in range(1, 5) if 10**k <= part["step"].max()]
        grid[1][column].set_xticks([0, *ticks], ["0", *(f"{tick:,}" for tick in ticks)])
        grid[1][column].set_xlabel("training step")
    grid[0][0].set_ylabel("effective rank of K (of 200 rows)")
    grid[1][0].set_ylabel(r"$\|K - K_0\|_F\,/\,\|K_0\|_F$")
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle("Effective rank and drift of the kernel along training: at these sizes it is far from constant")
    return figure


def _others(regression: pd.DataFrame, operators: pd.DataFrame) -> Drawing:
    style()
    widths = list(operators["network"].unique())
    figure, grid = plt.subplots(2, 3, figsize=(11, 7), layout="constrained")
    panels = grid.flat[: 2 + len(widths)]
    for axes in grid.flat[2 + len(widths) :]:
        axes.axis("off")
    for axes, (network, part) in zip(panels, grouped(regression, "network"), strict=False):
        steps = sorted(part["step"].unique())
        for step, colour in zip(steps, plt.colormaps["viridis_r"](np.linspace(0.1, 1, len(steps))), strict=True):
            own = part[(part["step"] == step) & (part["seed"] == 0)]
            axes.plot(
                own["index"],
                own["eigenvalue"].where(own["eigenvalue"] > FLOOR * own["eigenvalue"].max()),
                color=colour,
                label=f"{step:,}",
            )
        axes.set(xscale="log", yscale="log", title=f"regression, {network}", xlabel="index k (of 200)")
        axes.set_ylim(1e-10, 1e6)
        axes.set_ylabel(r"eigenvalue $\mu_k$ of K")
    colours = dict(zip(OPERATORS, ((base.BLACK, "-"), (base.BLUE, "--"), (base.RED, "-.")), strict=True))
    for axes, width in zip(panels[2:], widths, strict=True):
        for operator, own in grouped(operators[operators["network"] == width], "pde"):
            relative = own["eigenvalue"] / own.groupby("seed")["eigenvalue"].transform("max")
            logs = relative.where(relative > FLOOR).map(math.log, na_action="ignore").groupby(own["index"])
            mean = logs.agg(lambda v: math.exp(v.mean()) if v.notna().all() else math.nan)
            axes.plot(mean.index, mean, colours[operator][1], color=colours[operator][0], label=operator)
        axes.set(
            xscale="log", yscale="log", title=f"untrained MLP, {width}", xlabel="index k (of 200)", ylim=(FLOOR, 2)
        )
        axes.set_ylabel(r"$\mu_k\,/\,\mu_1$ (geometric mean of seeds)")
    for axes in panels:
        axes.set_xlim(1, 200)
        axes.set_xticks([1, 10, 100], ["1", "10", "100"])
    steps_legend = panels[0].get_legend_handles_labels()
    figure.legend(
        *steps_legend, loc="outside lower left", ncols=len(steps_legend[0]), title="training step (regression, Adam)"
    )
    figure.legend(
        *panels[2].get_legend_handles_labels(), loc="outside lower right", ncols=3, title="operator applied to u"
    )
    figure.suptitle("Eigenvalues along training on regression, and under differential operators at the start")
    return figure


def _count(flags: list[bool]) -> str:
    return f"{sum(flags)} of {len(flags)}"


def verdicts(table: pd.DataFrame) -> list[Verdict]:
    """Ranks, drifts and the effect of operators."""
    training = table[(table["part"] == "training") & (table["index"] == 1)]
    first, last = ends(training)
    starts = first.drop_duplicates(["pde", "network"]).set_index(["pde", "network"])["effective_rank"]
    out = [
        Verdict(
            "kernels have low effective rank at the start (below 10 % of the 200 rows, every equation and network)",
            f"{starts.min():.1f} to {starts.max():.1f}",
            bool(starts.max() < 20),
        )
    ]
    drifts = last.groupby("optimizer", sort=False)["kernel_drift"]
    out.append(
        Verdict(
            "the kernel is far from constant in training at these sizes (drift above 0.1 in every run)",
            "; ".join(f"{name} {own.min():.2g} to {own.max():.2g}" for name, own in drifts),
            bool(last["kernel_drift"].min() > 0.1),
        )
    )
    pairs = last.pivot(index=["pde", "network"], columns="optimizer", values="kernel_drift")
    more = list(pairs["L-BFGS"] > pairs["Adam"])
    out.append(
        Verdict(
            "L-BFGS moves the kernel further than Adam in as many steps (every equation and network, one seed)",
            _count(more),
            all(more),
        )
    )
    for when, rows in (("start", first), ("end", last)):
        ranks = rows.pivot(index=["pde", "optimizer"], columns="network", values="effective_rank")
        if when == "start":  # which is the same under all optimisers
            ranks = ranks[ranks.index.get_level_values("optimizer") == "Adam"]
        larger = list(ranks["Chebyshev KAN"] > ranks["MLP"])
        ratio = np.log(ranks["Chebyshev KAN"] / ranks["MLP"])
        mean, error = mean_error(ratio)
        out.append(
            Verdict(
                f"the Chebyshev KAN's kernel has the larger effective rank at the {when} (every case)",
                f"{_count(larger)}; ratio to the MLP {np.exp(mean):.2f}, times or over {np.exp(error):.2f}",
                all(larger),
            )
        )
    regression = table[(table["part"] == "regression") & (table["index"] == 1)]
    ranks = ends(regression)[0].pivot(index="seed", columns="network", values="effective_rank")
    later = ends(regression)[1].pivot(index="seed", columns="network", values="effective_rank")
    mean, error = mean_error(ranks["residual Fourier"] - ranks["MLP"])
    texts = [f"{name} {ranks[name].mean():.1f} → {later[name].mean():.1f}" for name in ("residual Fourier", "MLP")]
    out.append(
        Verdict(
            "regression: the residual Fourier net starts with a larger effective rank than the MLP (2 standard errors)",
            f"{mean:.1f} ± {error:.1f} more ({len(ranks)} seeds); along training {', '.join(texts)}",
            mean > 2 * error,
        )
    )
    out += [_slower(table[table["part"] == "operators"], operator) for operator in OPERATORS[1:]]
    return out


def _slower(table: pd.DataFrame, operator: str) -> Verdict:
    """Whether an operator makes the eigenvalues fall no faster than the identity does."""
    values = table[table["index"].isin((1, DECAY))].pivot(
        index=["network", "seed", "pde"], columns="index", values="eigenvalue"
    )
    decays = (values[DECAY] / values[1]).map(math.log10).unstack("pde")
    gains = (decays[operator] - decays["identity"]).groupby("network", sort=False)
    found = {str(width): mean_error(own) for width, own in sorted(gains, key=lambda pair: int(str(pair[0]).split()[1]))}
    texts = [f"{width} {mean:+.2f} ± {error:.2f}" for width, (mean, error) in found.items()]
    return Verdict(
        f"{operator} does not make eigenvalues fall faster than the identity (log10 of μ_{DECAY}/μ_1, change above -2 "
        "standard errors at every width)",
        ", ".join(texts),
        all(mean > -2 * error for mean, error in found.values()),
    )


ABOUT = """\
Eigenvalues μ_k of the kernel K of all rows, in float64 (`diagnostics=spectrum`). First: four equations, 200 points
in all, under Adam, L-BFGS and Adam followed by L-BFGS at half time, with the exact weights of step 0, for a tanh
MLP (32 x 3) and a Chebyshev KAN (8 x 2, degree 4); one seed. The effective rank is the exponential of the entropy
of the normalised eigenvalues. Last: a residual Fourier network (16 frequencies, 3 layers) and the MLP on regression
under Adam, and untrained MLPs of two hidden layers in the NTK parametrisation whose rows are u, u_x or u_xx at 200
equispaced points. Questions that arXiv 2506.07958, 2512.08264 and 2503.11029 ask, answered here by own experiments."""

FIGURE = Figure(
    "spectrum",
    "Kernel spectra",
    ABOUT,
    jobs,
    work,
    plot,
    verdicts,
)
