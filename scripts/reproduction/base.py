"""What a figure is: jobs from a recipe, a table from each, then one CSV, plots and verdicts from that CSV."""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import torch
from hydra import compose, initialize_config_module
from matplotlib import pyplot as plt
from matplotlib.figure import Figure as Drawing
from numpy.typing import ArrayLike, NDArray
from omegaconf import OmegaConf
from PIL import Image

from ntkrun.config.configuration import read_configuration
from ntkrun.config.schema import plain
from ntkrun.experiment.run import execute

Budget = Literal["quick", "full"]

ROOT = Path(__file__).resolve().parent.parent.parent
RUNS = ROOT / "outputs" / "reproduction"
DOCS = ROOT / "docs" / "reproduction"
EXPERIMENT = "experiment"  # how a recipe is chosen
COMMON = ("device=cpu", "progress=false", "plots=false", "keep_best=false", "checkpoint_every=1000000000")

# Okabe and Ito, told apart by the colour-blind.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, RED, PINK, GREY = "#0072B2", "#D55E00", "#CC79A7", "#777777"


@dataclass(frozen=True)
class Job:
    """One process's work for a figure.

    Attributes:
        name: the name of its directory.
        overrides: what it changes in the figure's recipe.
        labels: columns put in front of its table.
        arguments: what the figure's ``work`` is told besides the configuration.
    """

    name: str
    overrides: tuple[str, ...]
    labels: Mapping[str, Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def description(self) -> str:
        """Everything that decides its result, as text."""
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True)


@dataclass(frozen=True)
class Verdict:
    """A claim against a measurement.

    Attributes:
        claim: what is claimed, with the criterion.
        measured: the number and its uncertainty.
        holds: whether the criterion is met.
    """

    claim: str
    measured: str
    holds: bool

    def __str__(self) -> str:
        return f"{self.claim}: {self.measured}: {'holds' if self.holds else 'DOES NOT HOLD'}"


@dataclass(frozen=True)
class Figure:
    """One figure of the reproduction.

    Attributes:
        name: of the figure, its recipe in ``conf/experiment`` and its CSV.
        title, about: for the page of all figures.
        jobs: the jobs of a budget.
        work: carries out one job, from its configuration, directory and arguments; returns its table.
        plot: draws the figure from the table of all jobs; returns drawings by file name.
        verdicts: the claims against the same table.
        alone: whether its jobs must not run side by side, as timings.
    """

    name: str
    title: str
    about: str
    jobs: Callable[[Budget], list[Job]]
    work: Callable[[dict[str, Any], Path, Mapping[str, Any]], pd.DataFrame]
    plot: Callable[[pd.DataFrame], dict[str, Drawing]]
    verdicts: Callable[[pd.DataFrame], list[Verdict]]
    alone: bool = False


def results(budget: Budget) -> Path:
    """Where CSV files and figures of a budget go."""
    return DOCS if budget == "full" else RUNS / "quick"


def start_worker() -> None:
    """One thread, and no log lines but those in the runs' own files."""
    torch.set_num_threads(1)
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (open as long as the process lives)


@contextmanager
def workers(count: int) -> Iterator[ProcessPoolExecutor]:
    """Processes of one thread each."""
    os.environ["OMP_NUM_THREADS"] = "1"  # read when a worker imports torch
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), start_worker)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def carry_out(name: str, job: Job, directory: Path) -> float:
    """Carry out one job and leave its table in its directory; returns the seconds it took."""
    from reproduction import FIGURES

    start = time.perf_counter()
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    with initialize_config_module("ntkrun.conf", version_base="1.3"):
        config = compose("config", overrides=[f"{EXPERIMENT}={name}", *COMMON, *job.overrides])
    OmegaConf.save(config, directory / "config.yaml")
    table = FIGURES[name].work(plain(config), directory, job.arguments)
    for at, (column, value) in enumerate(job.labels.items()):
        table.insert(at, column, value)
    table.to_csv(directory / "table.csv", index=False, float_format="%.6g")
    (directory / "job.json").write_text(job.description())  # last: says that all of it is there
    return time.perf_counter() - start


def train(values: dict[str, Any], directory: Path) -> None:
    """Carry out a run of the program.

    Raises:
        RuntimeError: it did not complete.
    """
    outcome = execute(read_configuration(values), directory)
    if outcome.status != "completed":
        raise RuntimeError(f"{directory}: {outcome.status}, {outcome.message}")


def run(figure: Figure, budget: Budget, pool: ProcessPoolExecutor) -> pd.DataFrame:
    """Carry out the jobs that are not done yet; returns the table of all, written as CSV."""
    jobs = figure.jobs(budget)
    places = {job.name: RUNS / budget / figure.name / job.name for job in jobs}
    missing = [job for job in jobs if not _done(job, places[job.name])]
    print(f"{figure.name}: {len(jobs)} jobs, {len(jobs) - len(missing)} of them done already", flush=True)
    for batch in [[job] for job in missing] if figure.alone else [missing]:
        futures = {pool.submit(carry_out, figure.name, job, places[job.name]): job for job in batch}
        for future in as_completed(futures):
            print(f"  {futures[future].name}: {future.result():.1f} s", flush=True)
    table = pd.concat([pd.read_csv(place / "table.csv") for place in places.values()], ignore_index=True)
    results(budget).mkdir(parents=True, exist_ok=True)
    table.to_csv(results(budget) / f"{figure.name}.csv", index=False)
    return pd.read_csv(results(budget) / f"{figure.name}.csv")


def _done(job: Job, place: Path) -> bool:
    path = place / "job.json"
    return path.exists() and path.read_text() == job.description()


def save(drawing: Drawing, path: Path) -> None:
    """Write a PNG of few colours, which is small."""
    drawing.savefig(path, dpi=110)
    plt.close(drawing)
    with Image.open(path) as image:
        few = image.convert("RGB").quantize(128, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


def style() -> None:
    """The look of all figures."""
    plt.rcdefaults()
    plt.rcParams.update(
        {
            "font.size": 10,
            "axes.titlesize": 10.5,
            "axes.grid": True,
            "grid.alpha": 0.3,
            "axes.axisbelow": True,
            "legend.frameon": False,
            "lines.linewidth": 1.5,
            "lines.markersize": 5,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )


@dataclass(frozen=True)
class Line:
    """A straight line fitted by least squares, with the standard error of its slope."""

    slope: float
    error: float
    intercept: float


def fit(x: ArrayLike, y: ArrayLike) -> Line:
    """Fit y = intercept + slope x to at least three points."""
    a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    centred = a - a.mean()
    slope = float(centred @ (b - b.mean()) / (centred @ centred))
    intercept = float(b.mean() - slope * a.mean())
    rest = b - intercept - slope * a
    return Line(slope, math.sqrt(float(rest @ rest) / (len(a) - 2) / float(centred @ centred)), intercept)


def mean_error(values: ArrayLike) -> tuple[float, float]:
    """Mean and its standard error."""
    v = np.asarray(values, dtype=float)
    return float(v.mean()), float(v.std(ddof=1) / math.sqrt(len(v)))


def rms_error(values: NDArray[np.float64]) -> tuple[float, float]:
    """Root mean square of independent values and its standard error."""
    rms = math.sqrt(float((values**2).mean()))
    return rms, float((values**2).std(ddof=1) / math.sqrt(len(values)) / (2 * rms)) if rms else 0.0


def z_limit(tests: int, level: float = 0.01) -> float:
    """The |z| that any of so many independent tests exceeds by chance with probability ``level`` (Bonferroni)."""
    return NormalDist().inv_cdf(1 - level / (2 * tests))


def names_after(table: pd.DataFrame, prefix: str) -> list[str]:
    """What follows the prefix in the names of the columns that have it."""
    names = (str(column) for column in table.columns)
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]


def grouped(table: pd.DataFrame, by: str | Sequence[str]) -> Iterator[tuple[Any, pd.DataFrame]]:
    """Groups in the order of their first rows."""
    yield from table.groupby(by if isinstance(by, str) else list(by), sort=False)
