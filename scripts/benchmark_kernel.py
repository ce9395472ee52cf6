"""What an update of NTK weights costs and how wrong a sketched one is.

Usage: python scripts/benchmark_kernel.py [--seconds S] [--threads T] [--max-cost STEPS] [--case NAME ...]
       python scripts/benchmark_kernel.py --plot-only
       python scripts/benchmark_kernel.py --growth [--threads T]
       python scripts/benchmark_kernel.py --in-pass [--seconds S] [--threads T] [--case NAME ...]

For each case, every method is timed in turn with an unweighted training step (gradient and Adam), in one
process; the ratio to that step is formed round by round, and medians with quartiles are reported. Peak
memory is the growth of the resident set during one call (Linux). The error of a sketch is the root mean
square, over terms and repetitions, of the relative error of t_i and of the weights lambda_i, at the initial
parameters. Dense and per-point Jacobians of the large cases are timed on some of the points and scaled up, as
their cost is linear in them; the column `scaled_by` says by how much. Their memory is that of the part.

With --in-pass prints what updates cost that come out of the gradient's own pass, as those of weights=exact and of the
default sketch do, in processor time, not compiled: the work on traces and weights alone, in steps, and the whole pass
over a plain step, less one; then an estimate by the same sketch in passes of its own, and, in steps, what it takes to
put new points in order along the curve, which comes on top where points have been drawn anew since the last update.

"fused" are updates that come out of the gradient's own pass, with the Adam step of that pass, less a step: of
weights=exact, and of the default sketch, which takes terms of few points whole. "systematic" is the same sketch in a
pass of its own, as where weights.points asks for other points.

Sketches whose cost would exceed --max-cost training steps, by the cost of the smaller size, are left out.

Writes docs/benchmarks/kernel.csv after every case (rows of other cases are kept), kernel.md and kernel.png.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import itertools
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import pandas as pd
import torch
from matplotlib import pyplot as plt
from torch import nn

from ntkrun.geometry import Sampler
from ntkrun.network import MLP
from ntkrun.ntk.sketch import Sketch
from ntkrun.objective import Objective
from ntkrun.objective.batch import Batch
from ntkrun.optimizer import Adam
from ntkrun.pde import PDE, Poisson, Wave
from ntkrun.runtime.allocator import keep_freed_memory
from ntkrun.weights import Exact, Sketched
from ntkrun.weights.policy import NTKWeighting

OUT = Path(__file__).resolve().parent.parent / "docs" / "benchmarks"
LEAST_SHOWN, LEAST_COST = 0.01, 1e-3  # per cent, and in steps, in the plot


@dataclass(frozen=True)
class Case:
    """A problem, a network and the number of points of each term."""

    pde: PDE
    width: int
    depth: int
    counts: tuple[int, ...]

    def build(self) -> tuple[Objective, Batch]:
        """The objective and its points, in float32."""
        network = MLP(self.width, self.depth, domain=self.pde.domain, generator=torch.Generator().manual_seed(0))
        objective = Objective(self.pde, network)
        points = {
            term.name: Sampler(term.region, n, "uniform", i).draw().float()
            for i, (n, term) in enumerate(zip(self.counts, objective.terms, strict=True))
        }
        return objective, objective.batch(points)


CASES = {
    "poisson 1-512-1": Case(Poisson(), 512, 1, (100, 100)),
    "wave 2-500x3-1": Case(Wave(), 500, 3, (300, 200, 100, 100)),
    "wave 2-128x4-1, 2,000": Case(Wave(), 128, 4, (2000, 200, 200, 200)),
    "wave 2-256x4-1, 10,000": Case(Wave(), 256, 4, (10000, 500, 500, 500)),
}

ABOUT = """# Kernel routes and estimators

What an update of NTK weights costs, in unweighted training steps of the same problem (gradient and Adam, not compiled),
and how far estimates of the traces and the weights are from the exact ones (rms over terms and draws, at the initial
parameters): `python scripts/benchmark_kernel.py --threads 1`. Names of cases are of a problem and a tanh network, with
the number of points of the equation where there are many. Made on one core of a shared machine with other work on the
second one; what fused updates cost on the largest case is less than its steps differ by.

- *fused* updates come out of the gradient's own pass and cost what is given on top of it: `weights=exact`, and the
  default sketch, which takes terms of few points whole. All other methods take passes of their own.
- *structured*, *per-point* and *dense* are the routes of the kernel ([method](../method.md)); *nested autograd* is the
  per-point one with a network of torch's own layers.
- *systematic* to *xtrace* are sketches on the side of the residuals, *parameter* on that of the parameters, and
  *difference* uses difference quotients in place of products with the Jacobian ([weights](../weights.md)). Those that
  would cost more than ten steps are left out.

![Error of the weights against the cost of an update](kernel.png)
"""
EXACT, FUSED = "fused exact, excess", "fused systematic, excess"
FUSED_SIZES = (4, 16, 64)
SIZES = {
    "systematic": (4, 16, 64, 256),
    "coordinate": (4, 16, 64, 256),
    "rademacher": (4, 16, 64),
    "gaussian": (4, 16, 64),
    "hutchpp": (6, 12, 30),
    "xtrace": (6, 12, 30),
    "parameter": (4, 16, 64),
    "parameter, difference": (4, 16),
    "residual, difference": (4, 16),
}


def sketch(family: str, size: int) -> Sketch:
    """A member of the estimator family by the names of the table."""
    if family in ("systematic", "coordinate", "rademacher", "gaussian"):
        return Sketch(size, "residual", "autodiff", family)  # type: ignore[arg-type]
    if family in ("hutchpp", "xtrace"):
        return Sketch(size, "residual", "autodiff", "gaussian", estimator=family)  # type: ignore[arg-type]
    if family == "parameter":
        return Sketch(size, "parameter", "autodiff", "gaussian")
    side = "parameter" if family.startswith("parameter") else "residual"
    return Sketch(size, side, "finite_difference", "gaussian")  # type: ignore[arg-type]


def seconds(call: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def interleaved(call: Callable[[], object], step: Callable[[], object], budget: float) -> list[tuple[float, float]]:
    """Times of (call, step), in turn, after one warm-up of each, until the budget is spent; at least 3 rounds."""
    call()
    step()
    rounds: list[tuple[float, float]] = []
    start = time.perf_counter()
    while len(rounds) < 3 or (time.perf_counter() - start < budget and len(rounds) < 41):
        rounds.append((seconds(call), seconds(step)))
    return rounds


def peak_memory(call: Callable[[], object]) -> float:
    """Growth of the resident set during one call, in MiB."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM to VmRSS
    before = status_field("VmRSS")
    call()
    return (status_field("VmHWM") - before) / 1024


def status_field(name: str) -> int:
    """A field of /proc/self/status in kiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise KeyError(name)


def relative_errors(
    objective: Objective, batch: Batch, estimate: Callable[[], torch.Tensor], budget: float
) -> dict[str, float]:
    """Root mean square relative error of t_i and of lambda_i, and the number of estimates of the traces made."""
    rows = torch.tensor(objective.row_counts(batch))
    exact = objective.traces(batch) / rows
    weights = exact.sum() / exact
    squares: list[tuple[float, float]] = []
    start = time.perf_counter()
    while len(squares) < 8 or (time.perf_counter() - start < budget and len(squares) < 100):
        t = (estimate() / rows).clamp_min(1e-12)
        squares.append(((t / exact - 1).square().mean().item(), (t.sum() / t / weights - 1).square().mean().item()))
    error_t, error_weight = (math.sqrt(statistics.fmean(column)) for column in zip(*squares, strict=True))
    return {"error_t": error_t, "error_weight": error_weight, "estimates": len(squares)}


def traces_in_pass(weighting: NTKWeighting, objective: Objective, batch: Batch) -> torch.Tensor:
    """The traces that a weighting makes its weights from in one step."""
    update = weighting.evaluate(0, objective, batch)[1]
    assert update is not None
    return update.columns["trace"]


def plain_copy(case: Case) -> nn.Module:
    """A network of the same size from torch's own layers, differentiated by nested autograd."""
    sizes = [len(case.pde.coordinates), *[case.width] * case.depth]
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 1))


def methods(
    case: Case, objective: Objective, batch: Batch
) -> dict[tuple[str, int], tuple[Callable[[], torch.Tensor], float]]:
    """Every method to be timed in passes of its own, which gives traces, and the factor that scales its time up."""
    calls: dict[tuple[str, int], tuple[Callable[[], torch.Tensor], float]] = {}
    for method, route, network, limit in (
        ("dense exact", "dense", objective.network, 300),
        ("per-point exact", "per_point", objective.network, 100),
        ("per-point exact, nested autograd", "per_point", plain_copy(case), 100),
    ):
        scale = max(1.0, sum(case.counts) / limit)
        if route == "dense" and scale * objective.layout.size * 4 * limit > 2**31:
            continue
        slow = Objective(case.pde, network, route)  # type: ignore[arg-type]
        chosen = [torch.arange(max(1, round(n / scale))) for n in objective.point_counts(batch)]
        subset = slow.subset(batch, chosen)
        calls[method, 0] = (lambda slow=slow, subset=subset: slow.traces(subset), scale)
    calls["structured exact", 0] = (lambda: objective.traces(batch), 1.0)
    for family, sizes in SIZES.items():
        for size in sizes:
            member = sketch(family, size)
            generator = torch.Generator().manual_seed(0)
            calls[family, size] = (
                lambda member=member, generator=generator: member.estimate(objective, batch, generator).traces,
                1.0,
            )
    return calls


def measure(name: str, case: Case, budget: float, max_cost: float) -> pd.DataFrame:
    """All rows of one case."""
    objective, batch = case.build()
    ones = torch.ones(len(objective.terms))
    optimizer = Adam(learning_rate=1e-30)  # the cost of a step without its effect
    optimizer.start(objective.network)

    def step() -> None:
        optimizer.step(objective.gradient(batch, ones), 1.0, lambda: None, False)

    def fused(weighting: NTKWeighting) -> Callable[[], None]:
        weighting.start(objective, 0)
        return lambda: optimizer.step(weighting.evaluate(0, objective, batch)[0], 1.0, lambda: None, False)

    def row(method: str, size: int, rounds: list[tuple[float, float]], scale: float = 1.0, excess: float = 0.0) -> dict:
        ratios = sorted(scale * a / b - excess for a, b in rounds)
        quartiles = statistics.quantiles(ratios, n=4)
        return {
            "case": name,
            "parameters": objective.layout.size,
            "points": sum(case.counts),
            "method": method,
            "size": size,
            "ratio": statistics.median(ratios),
            "ratio_q1": quartiles[0],
            "ratio_q3": quartiles[2],
            "rounds": len(rounds),
            "scaled_by": scale,
            "step_ms": 1e3 * statistics.median(b for _, b in rounds),
        }

    step()
    memory_of_step = peak_memory(step)
    rows = [row("training step", 0, interleaved(step, step, budget)) | {"memory_mib": memory_of_step}]
    exact = fused(Exact(update_every=1))
    rows.append(row(EXACT, 0, interleaved(exact, step, 2 * budget), excess=1.0) | {"memory_mib": peak_memory(exact)})
    for size in FUSED_SIZES:
        print(f"  {FUSED} {size}", flush=True)
        weighting = Sketched(sketch_size=size, update_every=1)
        rows.append(row(FUSED, size, interleaved(fused(weighting), step, 2 * budget), excess=1.0))
        rows[-1] |= relative_errors(objective, batch, lambda w=weighting: traces_in_pass(w, objective, batch), budget)
    for (method, size), (call, scale) in methods(case, objective, batch).items():
        smaller = [r for r in rows if r["method"] == method]
        if smaller and smaller[-1]["ratio"] * size / smaller[-1]["size"] > max_cost:
            continue
        print(f"  {method} {size or ''}", flush=True)
        rows.append(row(method, size, interleaved(call, step, budget), scale))
        if "exact" in method:
            rows[-1]["memory_mib"] = peak_memory(call)
        else:
            rows[-1] |= relative_errors(objective, batch, call, budget)
    return pd.DataFrame(rows)


def markdown(table: pd.DataFrame) -> str:
    """The table for people."""
    lines = [
        "| case | method | size | cost in steps (quartiles) | peak memory, MiB | error of t_i | error of λ_i |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for r in table.itertuples():
        memory = "" if pd.isna(r.memory_mib) else f"{r.memory_mib:.0f}"
        errors = ["" if pd.isna(e) else f"{100 * e:.1f} %" for e in (r.error_t, r.error_weight)]
        cost = f"{r.ratio:.3g} ({r.ratio_q1:.3g} to {r.ratio_q3:.3g})"
        lines.append(f"| {r.case} | {r.method} | {r.size or ''} | {cost} | {memory} | {errors[0]} | {errors[1]} |")
    return "\n".join(lines) + "\n"


def plot(table: pd.DataFrame) -> None:
    """Error of the weights against cost, one panel per case."""
    names = [name for name in CASES if name in set(table["case"])]
    plt.rcParams.update({"font.size": 9, "axes.grid": True, "grid.alpha": 0.3, "legend.frameon": False})
    figure, panels = plt.subplots(
        1, len(names), figsize=(3.4 * len(names), 4), sharex=True, sharey=True, layout="constrained"
    )
    markers = dict(zip((FUSED, *SIZES), "ohsD^vXP*<", strict=True))
    for axes, name in zip(panels, names, strict=True):
        own = table[table["case"] == name]
        for family, marker in markers.items():
            points = own[own["method"] == family]
            error = (100 * points["error_weight"]).clip(lower=LEAST_SHOWN)
            axes.loglog(points["ratio"].clip(lower=LEAST_COST), error, marker=marker, label=family, markersize=5)
        for method, style in (("structured exact", "--"), (EXACT, "-")):
            cost = own[own["method"] == method]["ratio"].iloc[0]
            axes.axvline(max(cost, LEAST_COST), color="black", linestyle=style, linewidth=1, label=method)
        axes.axhline(5, color="0.6", linewidth=1, linestyle=":", label="5 %")
        axes.set(title=name, xlabel="cost of an update in training steps")
    panels[0].set_ylabel(
        f"rms relative error of the weights, %\n({LEAST_SHOWN} and {LEAST_COST:g} steps stand for that or less)"
    )
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5)
    figure.savefig(OUT / "kernel.png", dpi=110)


def growth() -> None:
    """Print how the seconds of exact traces grow with points and parameters, with log-log slopes."""
    sizes = {
        "points": [Case(Wave(), 64, 3, (n, n // 10, n // 10, n // 10)) for n in (500, 1000, 2000, 4000, 8000, 16000)],
        "parameters": [Case(Wave(), width, 3, (1000, 100, 100, 100)) for width in (64, 128, 256, 512, 1024)],
    }
    for name, cases in sizes.items():
        rows = []
        for case in cases:
            objective, batch = case.build()
            best = min(seconds(lambda o=objective, b=batch: o.traces(b)) for _ in range(7))  # type: ignore[misc]
            rows.append((sum(case.counts) if name == "points" else objective.layout.size, best))
            print(f"{name} {rows[-1][0]}: {1e3 * best:.2f} ms", flush=True)
        slope = math.log(rows[-1][1] / rows[0][1]) / math.log(rows[-1][0] / rows[0][0])
        print(f"slope of the cost of exact traces in {name}: {slope:.2f}")


def in_pass(name: str, case: Case, budget: float) -> None:
    """Print the rows of one case: exact traces and systematic sketches out of the gradient's pass."""
    plain, batch = case.build()
    objective = Objective(case.pde, plain.network, clock=time.process_time)
    ones = torch.ones(len(objective.terms))
    generator = torch.Generator().manual_seed(0)
    for size in (0, 16, 64):
        member = Sketch(size or 1, "residual", "autodiff", "systematic")
        weighting = Sketched(sketch_size=size, update_every=1) if size else Exact(update_every=1)
        weighting.start(objective, 0)

        def fused(weighting: NTKWeighting = weighting) -> float:
            update = weighting.evaluate(0, objective, batch)[1]
            return update.seconds if update and update.seconds else 0.0

        def timed(call: Callable[[], object]) -> float:
            start = time.process_time()
            call()
            return time.process_time() - start

        rounds: list[tuple[float, float, float, float]] = []
        start = time.process_time()
        while len(rounds) < 5 or (time.process_time() - start < budget and len(rounds) < 101):
            work: list[float] = []
            whole = timed(lambda fused=fused, work=work: work.append(fused()))  # type: ignore[misc]
            step = timed(lambda: objective.gradient(batch, ones))
            apart = timed(lambda member=member: member.estimate(objective, batch, generator)) if size else math.nan  # type: ignore[misc]
            order = timed(lambda member=member: member.orders(objective, batch, in_pass=True)) if size else math.nan  # type: ignore[misc]
            rounds.append((work[0] / step, whole / step - 1, apart / step, order / step))
        middle = [statistics.median(column) for column in zip(*rounds[1:], strict=True)]
        cells = " | ".join("" if math.isnan(value) else f"{value:.3f}" for value in middle)
        print(f"| {name} | {f'systematic, s = {size}' if size else 'exact'} | {cells} |", flush=True)


def main() -> None:
    """Measure, or only draw what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="budget of every measurement")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--max-cost", type=float, default=10.0, help="of a sketch, in training steps")
    parser.add_argument("--case", action="append", choices=list(CASES), help="only these cases")
    parser.add_argument("--plot-only", action="store_true")
    parser.add_argument("--in-pass", action="store_true", help="only print what updates in the gradient's pass cost")
    parser.add_argument("--growth", action="store_true", help="only print how exact traces grow with the size")
    arguments = parser.parse_args()
    if arguments.growth:
        torch.set_num_threads(arguments.threads)
        keep_freed_memory()
        growth()
        return
    if arguments.in_pass:
        torch.set_num_threads(arguments.threads)
        keep_freed_memory()
        print("| case | update | traces and weights, steps | whole pass, less a step | in passes of its own | order |")
        print("|---|---|---:|---:|---:|---:|")
        for name in arguments.case or CASES:
            in_pass(name, CASES[name], arguments.seconds)
        return
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / "kernel.csv"
    if not arguments.plot_only:
        torch.set_num_threads(arguments.threads)
        keep_freed_memory()
        for name in arguments.case or CASES:
            print(name, flush=True)
            tables = [measure(name, CASES[name], arguments.seconds, arguments.max_cost)]
            if path.exists():
                older = pd.read_csv(path)
                tables.insert(0, older[older["case"] != name])
            pd.concat(tables).to_csv(path, index=False, float_format="%.5g")
    table = pd.read_csv(path)
    (OUT / "kernel.md").write_text(f"{ABOUT}\n{markdown(table)}", encoding="utf-8")
    plot(table)
    print(markdown(table))


if __name__ == "__main__":
    main()
