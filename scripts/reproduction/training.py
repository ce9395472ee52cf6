"""Loss and error of training under no, exact, sketched and frozen weights."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure as Drawing

from reproduction import base
from reproduction.base import Budget, Figure, Job, Verdict, grouped, names_after, style

WEIGHTS = {
    "none": ("weights=none",),
    "exact": ("weights=exact",),
    "sketched": ("weights=sketched",),
    "frozen": ("weights=exact", "weights.freeze_after=0"),
}
COLOURS = {"none": base.BLACK, "exact": base.RED, "sketched": base.SKY, "frozen": base.GREEN}
LINES = {"none": ":", "exact": "-", "sketched": "--", "frozen": "-."}
STEPS = {"quick": {"poisson": 1500}, "full": {"poisson": 3000, "wave": 1500}}
SEEDS = 5
QUANTILE = 2.776  # 97.5 % of Student's t with SEEDS - 1 degrees of freedom
ROWS = 40


def jobs(budget: Budget) -> list[Job]:
    """One per problem, weighting and seed."""
    return [
        Job(
            f"{pde}-{name}-{seed}",
            (
                f"pde={pde}",
                *overrides,
                f"seed={seed}",
                f"iterations={steps}",
                f"log_every={steps // ROWS}",
                f"evaluate_every={steps // ROWS}",
                *(["network.activation=sin", "pde.grid=100"] if pde == "wave" else []),
            ),
            {"pde": pde, "weights": name, "seed": seed},
        )
        for pde, steps in STEPS[budget].items()
        for seed in range(SEEDS)
        for name, overrides in WEIGHTS.items()
    ]


def work(values: dict[str, Any], directory: Path, arguments: Mapping[str, Any]) -> pd.DataFrame:
    """Train; the rows of metrics.csv, with the unweighted sum of the losses."""
    base.train(values, directory)
    log = pd.read_csv(directory / "metrics.csv")
    seconds = json.loads((directory / "summary.json").read_text())["seconds"]
    return pd.DataFrame(
        {
            "step": log["step"],
            "seconds": log["seconds"].round(3),
            "loss": log[[f"loss/{term}" for term in names_after(log, "loss/")]].sum(axis=1),
            "error": log["error/rel_l2"],
            "update_share": seconds["weight_updates"] / (seconds["training"] + seconds["weight_updates"]),
        }
    )


def plot(table: pd.DataFrame) -> dict[str, Drawing]:
    """Rows: problems; columns: loss and error against steps, error against seconds."""
    style()
    count = table["pde"].nunique()
    figure, grid = plt.subplots(count, 3, figsize=(12.5, 1.2 + 3 * count), squeeze=False, layout="constrained")
    for row, (pde, view) in zip(grid, grouped(table, "pde"), strict=True):
        columns = (("loss", "step"), ("error", "step"), ("error", "seconds"))
        for axes, (y, x) in zip(row, columns, strict=True):
            for name, own in grouped(view, "weights"):
                logs = np.log(own.pivot(index="step", columns="seed", values=y))
                at = own.groupby("step")[x].mean().to_numpy()
                mean, error = logs.mean(axis=1), logs.std(axis=1) / math.sqrt(logs.shape[1])
                axes.plot(at, np.exp(mean), LINES[name], color=COLOURS[name], label=name)
                axes.fill_between(at, np.exp(mean - error), np.exp(mean + error), color=COLOURS[name], alpha=0.15, lw=0)
            axes.set(yscale="log", xlabel="training step" if x == "step" else "seconds (mean of the seeds)")
            label = r"$\sum_i L_i$, unweighted" if y == "loss" else "relative $L^2$ error"
            axes.set(ylabel=label, title=f"{pde}: {y} against {'steps' if x == 'step' else x}")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, title="weights")
    figure.suptitle(f"Training under four weightings (geometric mean of {SEEDS} seeds, band: one standard error)")
    return {"training.png": figure}


def compare(view: pd.DataFrame, one: str, other: str) -> tuple[float, float, float]:
    """Geometric mean over seeds of the ratio of final errors, and its 95 % interval."""
    last = view[view["step"] == view["step"].max()].pivot(index="seed", columns="weights", values="error")
    logs = np.log(last[one] / last[other])
    half = QUANTILE * logs.std() / math.sqrt(SEEDS)
    return math.exp(logs.mean()), math.exp(logs.mean() - half), math.exp(logs.mean() + half)


def verdicts(table: pd.DataFrame) -> list[Verdict]:
    """Ratios of final errors, paired by seed, and what the updates cost."""
    out = []
    for pde, view in grouped(table, "pde"):
        for one, other, claim in (
            ("exact", "none", "exact weights end at a smaller error than none (95 % interval below 1)"),
            ("sketched", "exact", "sketched weights end at the error of exact ones (95 % interval contains 1)"),
            ("exact", "frozen", "updated weights end at a smaller error than frozen ones (95 % interval below 1)"),
        ):
            ratio, low, high = compare(view, one, other)
            holds = low <= 1 <= high if one == "sketched" else high < 1
            text = f"error {one} / {other} = {ratio:.2g}, interval {low:.2g} to {high:.2g} over {SEEDS} seeds"
            out.append(Verdict(f"{pde}: {claim}", text, holds))
        shares = {
            name: 100 * view[view["weights"] == name].groupby("seed")["update_share"].first()
            for name in ("exact", "sketched")
        }
        texts = [f"{name} {share.mean():.2f} ± {base.mean_error(share)[1]:.2f} %" for name, share in shares.items()]
        out.append(
            Verdict(
                f"{pde}: updates take less than 2 % of the time",
                ", ".join(texts),
                max(share.mean() for share in shares.values()) < 2,
            )
        )
    return out


ABOUT = """\
Claim (c). Default networks (sin activation for the wave), Adam, updates of the weights as often as they change
(`weights.update_every=auto`, the default); *frozen* keeps the exact weights of step 0, *sketched* takes 64 points per
term, and so the terms of these problems whole: its weights are the exact ones. The loss shown is the unweighted sum of
the terms, which is comparable between weightings. Several runs share the processors, so that seconds are rough. Final
errors are compared by their ratio, paired by seed, with a t-interval of the logarithms. The runs are short, so that
this is early training; which weighting is ahead may change later."""

FIGURE = Figure(
    "training",
    "What the weights do for training",
    ABOUT,
    jobs,
    work,
    plot,
    verdicts,
)
