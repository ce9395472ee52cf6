"""Exact against sketched weights along training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D

from reproduction import base
from reproduction.base import Budget, Figure, Job, Verdict, grouped, mean_error, names_after, style, z_limit

KINDS = {
    "systematic": (),  # the default
    "coordinate": ("weights.distribution=coordinate",),
    "parameter, differences": (
        "weights.side=parameter",
        "weights.distribution=gaussian",
        "weights.derivative=finite_difference",
    ),
}
COLOURS = {"residual": base.BLACK, "boundary": base.BLUE, "initial": base.RED, "initial_velocity": base.GREEN}
UPDATES = {"quick": 40, "full": 60}
STEPS = {"quick": {"poisson": 800, "wave": 400}, "full": {"poisson": 2400, "wave": 1200}}
SIZES = (4, 16, 64)
RATIO = 0.7, 1.4  # of measured to logged standard error


def jobs(budget: Budget) -> list[Job]:
    """One per problem, kind of sketch and sketch size."""
    return [
        Job(
            f"{pde}-{kind.split(',')[0]}-{size}",
            (
                f"pde={pde}",
                *KINDS[kind],
                f"weights.sketch_size={size}",
                f"iterations={steps}",
                f"weights.update_every={steps // UPDATES[budget]}",
                f"log_every={steps}",
                *(["network.activation=sin"] if pde == "wave" else []),
            ),
            {"pde": pde, "kind": kind, "size": size},
        )
        for pde, steps in STEPS[budget].items()
        for kind in KINDS
        for size in SIZES
    ]


def work(values: dict[str, Any], directory: Path, arguments: Mapping[str, Any]) -> pd.DataFrame:
    """Train; one row per update and term."""
    base.train(values, directory)
    log = pd.read_csv(directory / "weights.csv")
    names = names_after(log, "trace/")
    what = ("weight", "exact_weight", "trace", "exact_trace", "standard_error")
    tables = [
        pd.DataFrame({"step": log["step"], "term": name, **{key: log[f"{key}/{name}"] for key in what}})
        for name in names
    ]
    return pd.concat(tables)


def errors(own: pd.DataFrame) -> tuple[float, float]:
    """Relative rms error of the weights over updates and terms, and its standard error by jackknife over updates."""
    square = ((own["weight"] / own["exact_weight"] - 1) ** 2).groupby(own["step"]).mean().to_numpy()
    return jackknife(np.column_stack([square, np.ones(len(square))]))


def jackknife(parts: np.ndarray) -> tuple[float, float]:
    """Root of the ratio of the sums of two columns, and its standard error, leaving out one row at a time."""
    whole = parts.sum(0)
    left = whole - parts
    ratios = np.sqrt(left[:, 0] / left[:, 1])
    n = len(parts)
    return math.sqrt(whole[0] / whole[1]), math.sqrt((n - 1) / n * float(((ratios - ratios.mean()) ** 2).sum()))


def sampled(table: pd.DataFrame) -> pd.DataFrame:
    """The rows whose trace is not exact."""
    return table[table["standard_error"] != 0]


def plot(table: pd.DataFrame) -> dict[str, Drawing]:
    """Rows: problems; columns: three sketches along training, and errors against sketch size."""
    style()
    figure, grid = plt.subplots(2, 4, figsize=(14, 6.4), layout="constrained")
    views = (("systematic", 4), ("systematic", 16), ("parameter, differences", 64))
    for row, (pde, view) in zip(grid, grouped(table, "pde"), strict=True):
        for axes, (kind, size) in zip(row, views, strict=False):
            own = view[(view["kind"] == kind) & (view["size"] == size)]
            for term, line in grouped(own, "term"):
                axes.plot(line["step"], line["exact_weight"], color=COLOURS[term], linewidth=1.3)
                axes.plot(line["step"], line["weight"], "o", color=COLOURS[term], markersize=3, alpha=0.55)
            axes.set(yscale="log", title=f"{pde}: {kind}, s = {size}", xlabel="training step")
            axes.set_ylim(view["exact_weight"].min() / 2, view["exact_weight"].max() * 3)
        row[0].set_ylabel(r"weight $\lambda_i$ of a loss term")
        last = row[-1]
        colours = (base.SKY, base.PINK, base.ORANGE)
        for (kind, own), colour, marker in zip(grouped(view, "kind"), colours, "osD", strict=True):
            found = [found for size, part in grouped(own, "size") if (found := (size, *errors(part)))[1] > 0]
            sizes, values, spread = (np.array(column) for column in zip(*found, strict=True))
            last.errorbar(sizes, 100 * values, 100 * spread, fmt=f"{marker}-", color=colour, label=kind)
        last.plot(SIZES, 100 * np.sqrt(2 / np.array(SIZES)), ":", color="black", label=r"$\sqrt{2/s}$")
        last.set(xscale="log", yscale="log", xlabel="sketch size s", ylabel="rms error of the weights, %")
        last.set_xticks(SIZES, [str(size) for size in SIZES])
        last.minorticks_off()
        last.set_yticks([0.1, 0.3, 1, 3, 10, 30, 100])
        last.minorticks_off()
        last.yaxis.set_major_formatter(lambda v, _: f"{v:g}")
        last.set_title(f"{pde}: error over the run")
    marks = [Line2D([], [], color=colour, label=term) for term, colour in COLOURS.items()]
    marks += [
        Line2D([], [], color=base.GREY, label="exact, same parameters"),
        Line2D([], [], color=base.GREY, marker="o", linestyle="", markersize=3, label="sketched, in use"),
    ]
    figure.legend(handles=[*marks, *grid[0][-1].get_legend_handles_labels()[0]], loc="outside lower center", ncols=5)
    figure.suptitle("Sketched weights scatter around the exact ones along the whole of training, the less the larger s")
    return {"trajectories.png": figure}


def verdicts(table: pd.DataFrame) -> list[Verdict]:
    """No bias along training, honest standard errors, and the size of the errors."""
    cases = list(grouped(sampled(table), ["pde", "kind", "size", "term"]))
    means = {key: mean_error(own["trace"] / own["exact_trace"] - 1) for key, own in cases}
    scores = {key: abs(mean / error) for key, (mean, error) in means.items()}
    worst, limit = max(scores, key=lambda key: scores[key]), z_limit(len(scores))
    mean, error = means[worst]
    out = [
        Verdict(
            f"estimated traces are unbiased (mean over updates, {len(scores)} cases, each |z| below {limit:.2f})",
            f"largest |z| = {scores[worst]:.2f} ({', '.join(map(str, worst))}: mean "
            f"error {100 * mean:.1f} ± {100 * error:.1f} %)",
            scores[worst] < limit,
        )
    ]
    ratios = {}
    for key, own in grouped(sampled(table), ["pde", "kind", "size"]):
        square = ((own["trace"] - own["exact_trace"]) / own["exact_trace"]) ** 2
        logged = (own["standard_error"] / own["exact_trace"]) ** 2
        parts = pd.DataFrame({"a": square, "b": logged}).groupby(own["step"]).sum().to_numpy()
        ratios[key] = jackknife(parts)
    values = [ratio for ratio, _ in ratios.values()]
    out.append(
        Verdict(
            f"logged standard errors are right (rms error / rms standard error {RATIO[0]} to {RATIO[1]}, every case)",
            f"{min(values):.2f} to {max(values):.2f} in {len(values)} cases, each "
            f"± {max(e for _, e in ratios.values()):.2f} or less",
            min(values) > RATIO[0] and max(values) < RATIO[1],
        )
    )
    for pde, view in grouped(table, "pde"):
        found = {key: errors(own) for key, own in grouped(view, ["kind", "size"])}
        texts = []
        for key in (("systematic", 64), ("systematic", 16), ("coordinate", 64), ("parameter, differences", 64)):
            error, spread = found[key]
            texts.append(f"{key[0]}, s = {key[1]}: {f'{100 * error:.1f} ± {100 * spread:.1f} %' if error else 'exact'}")
        claim = f"{pde}: the default sketch (systematic, s = 16 and 64) gives weights to 10 % rms"
        out.append(Verdict(claim, "; ".join(texts), max(found["systematic", size][0] for size in (16, 64)) < 0.1))
    return out


ABOUT = """\
Claims (b) and (c). Default networks (sin activation for the wave), trained under the sketched weights; at every
update the exact weights at the same parameters and points are logged beside them (`weights.compare_exact=true`).
*Systematic*, the default, takes a part of the diagonal at all points, the rest at s points per term that are drawn in
proportion to it along a space-filling curve, and terms of no more than 8 s points whole; where all are taken whole its
weights are exact, and not shown in the last column. *Coordinate* takes s points per term at random. *Parameter,
differences* uses forward passes alone, with s Gaussian probes and the automatic step. The terms of a sketch share its
probes there, and the kernel is nearly of rank one, so that errors are near √(2/s)."""

FIGURE = Figure(
    "trajectories",
    "Sketched weights follow the exact ones along training",
    ABOUT,
    jobs,
    work,
    plot,
    verdicts,
)
