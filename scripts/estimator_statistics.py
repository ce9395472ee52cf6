"""Statistics of the estimators of tr(K): measured against predicted variances, the difference step, more from a sample.

Usage: python scripts/estimator_statistics.py [--repetitions R] [--tables NAME ...] [--problems NAME ...] [--layers D]

Prints four Markdown tables. The first compares the variance of estimates of the residual term's trace on
Poisson (tanh network 1-32-32-1, 60 points, float64, 8 probes) with the laws that docs/method.md states; the
uncertainty is one standard error. The second compares the error of difference quotients at the automatic
step with the least over fixed steps; the least in float32 is the floor that round-off sets.

The third asks what a systematic sample of points gains from what else is known: four problems, tanh network of three
layers of 64 units, float64, trained by Adam under exact weights at the problem's number of points, which stay fixed, to
steps 100, 300 and 500. Errors of the trace of the equation are relative and rms over 400 draws. Control variates are
the exact diagonals of all points some steps before (not available where points are drawn anew); importance sampling
chooses points with nine tenths of the probability in proportion to a proxy: the diagonal of the output layer alone, the
squared residual, or the exact diagonals 25 steps before.

The fourth asks what a part of the diagonal gains that is known at all points, on seven problems in float32 at steps
100, 300 and 1,000: errors with 16 and with 64 points over 200 draws. The first proxy is the share of the first and last
layer in diag K, the second one adds the sum over hidden maps and streams of |g|^2 |a|^2, which leaves out products of
different streams; both serve a regression with slopes from the chosen points. The others use the share of the first,
last and middle layer: the ratio to it, with its bias, and the program's own estimate, that share and the rest at points
drawn by chances in proportion to it. --problems and --layers are options of this table.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ntkrun.geometry import Method, Sampler
from ntkrun.jacobian.structured import StructuredJacobian
from ntkrun.network import MLP
from ntkrun.ntk.finite_differences import Difference, balanced_step, difference_quotient
from ntkrun.ntk.sketch import Sketch
from ntkrun.ntk.systematic import hilbert_order, places_along, replicate_sizes, systematic_sample
from ntkrun.objective import Objective
from ntkrun.objective.batch import Batch
from ntkrun.objective.chosen import EQUAL, Chosen, samples
from ntkrun.pde import PDE, AllenCahn, Burgers, Cavity, Helmholtz, KleinGordon, Poisson, Wave

SIZE = 8
TABLES = ("variances", "steps", "more", "regression")
PROBLEMS: dict[str, tuple[PDE, tuple[int, ...], Method]] = {
    "poisson": (Poisson(), (100, 2), "equispaced"),
    "wave": (Wave(), (300, 200, 100, 100), "uniform"),
    "helmholtz": (Helmholtz(), (1000, 400), "sobol"),
    "burgers": (Burgers(), (1000, 100, 100), "sobol"),
}
REGRESSED: dict[str, tuple[PDE, tuple[int, ...], Method]] = PROBLEMS | {
    "klein_gordon": (KleinGordon(), (500, 200, 100, 100), "sobol"),
    "allen_cahn": (AllenCahn(), (1000, 200, 200), "sobol"),
    "cavity": (Cavity(), (1000, 100, 300, 1), "sobol"),
}
PROXIES: dict[str, tuple[str, ...]] = {
    "systematic": (),
    "slope, first and last layer": ("thin",),
    "slopes, and norms of streams": ("thin", "norms"),
}
REGRESSED_STATES, REGRESSED_DRAWS = (100, 300, 1000), 200
STATES, BEFORE = (100, 300, 500), (25, 100)
SIZES, DRAWS = (16, 64), 400

SKETCHES = {
    "parameter, gaussian": Sketch(SIZE, "parameter", "autodiff", "gaussian"),
    "parameter, gaussian, differences": Sketch(SIZE, "parameter", "finite_difference", "gaussian", "central"),
    "residual, gaussian": Sketch(SIZE, "residual", "autodiff", "gaussian"),
    "residual, rademacher": Sketch(SIZE, "residual", "autodiff", "rademacher"),
    "residual, rademacher, differences": Sketch(SIZE, "residual", "finite_difference", "rademacher", "central"),
    "coordinate": Sketch(SIZE, "residual", "autodiff", "coordinate"),
    "hutchpp": Sketch(SIZE, "residual", "autodiff", "gaussian", estimator="hutchpp"),
    "xtrace": Sketch(SIZE, "residual", "autodiff", "gaussian", estimator="xtrace"),
}


def build(
    pde: PDE, width: int, counts: tuple[int, ...], dtype: torch.dtype, depth: int = 2, method: Method = "uniform"
) -> tuple[Objective, Batch]:
    """An objective and its points."""
    generator = torch.Generator().manual_seed(0)
    network = MLP(width, depth, domain=pde.domain, outputs=len(pde.fields), generator=generator).to(dtype)
    objective = Objective(pde, network)
    points = {
        term.name: Sampler(term.region, n, method, i).draw().to(dtype)
        for i, (n, term) in enumerate(zip(counts, objective.terms, strict=True))
    }
    return objective, objective.batch(points)


def predicted(name: str, kernel: Tensor) -> float | None:
    """The variance that theory gives, where it gives one in closed form."""
    square, diagonal, n = kernel.square().sum().item(), kernel.diagonal(), len(kernel)
    if name == "coordinate":
        return n**2 / SIZE * diagonal.var().item() * (1 - SIZE / n)
    if "rademacher" in name:
        return 2 * (square - diagonal.square().sum().item()) / SIZE
    return 2 * square / SIZE if "gaussian" in name else None


def variances(repetitions: int) -> None:
    """Print the first table."""
    objective, batch = build(Poisson(), 32, (60, 2), torch.float64)
    kernel = objective.jacobians(batch)[0].gram()
    trace = kernel.trace().item()
    print("| estimator | mean / exact | measured variance / trace² | predicted | measured / predicted |")
    print("|---|---:|---:|---:|---:|")
    for name, sketch in SKETCHES.items():
        generator = torch.Generator().manual_seed(0)
        samples = torch.stack([sketch.estimate(objective, batch, generator).traces[0] for _ in range(repetitions)])
        centred = samples - samples.mean()
        variance = centred.square().mean()
        error = ((centred**4).mean() - variance**2).clamp_min(0).sqrt() / math.sqrt(repetitions)
        mean_error = samples.std() / math.sqrt(repetitions)
        law = predicted(name, kernel)
        mean = f"{samples.mean() / trace:.4f} ± {mean_error / trace:.4f}"
        cells = [mean, f"{variance / trace**2:.3e}"]
        cells += ["", ""] if law is None else [f"{law / trace**2:.3e}", f"{variance / law:.3f} ± {error / law:.3f}"]
        print(f"| {name} | {' | '.join(cells)} |")


def steps() -> None:
    """Print the second table."""
    print("| problem | precision | difference | automatic step | its error | least error | at step |")
    print("|---|---|---|---:|---:|---:|---:|")
    for pde, counts in ((Poisson(), (60, 2)), (Wave(), (60, 20, 20, 20))):
        exact, exact_batch = build(pde, 32, counts, torch.float64)
        probe = torch.randn(exact.layout.size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        truth = [j.matvec(probe[None])[0] for j in exact.jacobians(exact_batch)]
        for dtype in (torch.float32, torch.float64):
            objective, batch = build(pde, 32, counts, dtype)
            direction = probe.to(dtype)

            def residuals(shift: Tensor, objective: Objective = objective, batch: Batch = batch) -> tuple[Tensor, ...]:
                return objective.residuals(batch, objective.shifted(shift))

            for difference in ("forward", "central"):
                chosen = balanced_step(residuals, direction, objective.parameter_vector().norm().item(), difference)

                def error(delta: float, difference: Difference = difference, direction: Tensor = direction) -> float:
                    quotients = difference_quotient(residuals, direction, delta, difference)
                    pairs = zip(quotients, truth, strict=True)  # noqa: B023
                    return math.sqrt(sum(((q.double() - t).norm() / t.norm()).item() ** 2 for q, t in pairs))

                trials = {10 ** (x / 2): error(10 ** (x / 2)) for x in range(-18, 0)}
                best = min(trials, key=lambda delta: trials[delta])
                precision = str(dtype).removeprefix("torch.")
                print(
                    f"| {type(pde).__name__.lower()} | {precision} | {difference} | {chosen:.1e} "
                    f"| {error(chosen):.1e} | {trials[best]:.1e} | {best:.1e} |"
                )


def trained(objective: Objective, batch: Batch) -> dict[int, dict[str, Tensor]]:
    """Of the equation, at each state and before: diag K, the output layer's part of it, and the squared residuals."""
    network = objective.network
    head = copy.deepcopy(network)
    for parameter in [p for name, p in head.named_parameters() if not name.startswith("layers.3.")]:
        parameter.requires_grad_(False)
    output_layer = Objective(objective.pde, head)
    rows = torch.tensor(objective.row_counts(batch))
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    found = {}
    for step in range(max(STATES) + 1):
        if step in STATES or step + BEFORE[0] in STATES or step + BEFORE[1] in STATES:
            head.load_state_dict(network.state_dict())
            found[step] = {
                "diagonal": objective.diagonals(batch)[0],
                "output layer": output_layer.diagonals(batch)[0],
                "residual": objective.residuals(batch)[0].square(),
            }
        descend(objective, batch, rows, optimizer)
    return found


def descend(objective: Objective, batch: Batch, rows: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """A step under exact NTK weights; ``rows`` are those of every term."""
    gradient = objective.fused(batch, lambda traces: (traces / rows).sum() * rows / traces).gradient
    for name, parameter in objective.network.named_parameters():
        parameter.grad = gradient[name]
    optimizer.step()


def proportional_sample(proxy: Tensor, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A systematic sample with probabilities proportional to a proxy, and the factors of an unbiased sum.

    Points taken at equal distances of the cumulated probability, in replicates that share their offset as in
    ``systematic_sample``; the program's own draws by chances have independent ones, which makes errors here up to three
    times as large. Source: W. G. Madow, "On the theory of systematic sampling, II", Ann. Math. Statist. 20 (1949).
    """
    probability = (1 - EQUAL) * proxy / proxy.sum() + EQUAL / len(proxy)
    bounds = probability.cumsum(0)
    sizes = replicate_sizes(size)
    start, order = torch.rand(1, generator=generator), torch.randperm(len(sizes), generator=generator)
    at = torch.cat([(torch.arange(m) + (order[k] + start) / len(sizes)) / m for k, m in enumerate(sizes)])
    chosen = torch.searchsorted(bounds, at.double(), right=True).clamp_max(len(proxy) - 1)
    return chosen, 1 / (size * probability[chosen])


def estimates(states: Mapping[int, Mapping[str, Tensor]], step: int, size: int, seed: int) -> dict[str, float]:
    """The trace of the equation from one sample of every kind."""
    d = states[step]["diagonal"]
    n, generator = len(d), torch.Generator().manual_seed(seed)
    spread = systematic_sample(n, size, generator)
    found = {
        "random": n * d[torch.randperm(n, generator=generator)[:size]].mean(),
        "systematic": n * d[spread].mean(),
    }
    for before in BEFORE:
        c = states[step - before]["diagonal"]
        found[f"control {before}"] = c.sum() + n * (d - c)[spread].mean()
        ratio = d[spread].sum() / c[spread].sum()  # the ratio estimator: of small bias
        found[f"ratio {before}"] = c.sum() * ratio
    proxies = {name: states[step][name] for name in ("output layer", "residual")}
    proxies[f"diagonal {BEFORE[0]} before"] = states[step - BEFORE[0]]["diagonal"]
    for name, proxy in proxies.items():
        chosen, factors = proportional_sample(proxy, size, generator)
        found[f"by {name}"] = (d[chosen] * factors).sum()
    return {name: float(value / d.sum() - 1) for name, value in found.items()}


def more() -> None:
    """Print the third table."""
    header = ""
    for name, (pde, counts, method) in PROBLEMS.items():
        objective, batch = build(pde, 64, counts, torch.float64, 3, method)
        order = hilbert_order(objective.points(batch)["residual"][:, : len(pde.coordinates)])
        states = trained(objective, batch)
        states = {k: {key: value.detach()[order] for key, value in state.items()} for k, state in states.items()}
        for step in STATES:
            for size in SIZES:
                draws = [estimates(states, step, size, seed) for seed in range(DRAWS)]
                rms = {kind: math.sqrt(sum(e[kind] ** 2 for e in draws) / DRAWS) for kind in draws[0]}
                if not header:
                    header = "| problem | step | points | " + " | ".join(rms) + " |"
                    print(header, "|---|---:|---:" + "|---:" * len(rms) + "|", sep="\n")
                cells = " | ".join(f"{100 * value:.2f} %" for value in rms.values())
                print(f"| {name} | {step} | {size} of {counts[0]} | {cells} |", flush=True)


def shares(objective: Objective, batch: Batch) -> dict[str, Tensor]:
    """Of the equation: diag K, the parts of it by PROXIES and the program, and the norms of hidden streams, ``[N]``."""
    jacobian = objective.jacobians(batch)[0]
    assert isinstance(jacobian, StructuredJacobian)
    found = dict.fromkeys(("diagonal", "known", "thin", "norms"), batch[0].x.new_zeros(jacobian.blocks[0].rows))
    for block in jacobian.blocks:
        found["diagonal"] = found["diagonal"] + block.diagonal(batch[0].x)
        found["known"] = found["known"] + block.parts()[0].diagonal(batch[0].x)
        for gradients in block.plain.values():
            found["thin"] = found["thin"] + gradients.square().flatten(1).sum(1)
        for factors in block.outer.values():
            squares = factors.gradients.square().sum(2) * factors.inputs.square().sum(2)
            found["norms"] = found["norms"] + squares.sum(0)
    return {name: value.detach().double() for name, value in found.items()}


def regressed(d: Tensor, proxies: Tensor, chosen: Tensor) -> float:
    """Relative error of the mean of ``d`` by regression on ``proxies``, ``[N, k]``, with slopes from chosen points.

    Source: W. G. Cochran, "Sampling Techniques", chapter 7.
    """
    own, x = d[chosen], proxies[chosen]
    estimate = own.mean()
    if proxies.shape[1]:
        slopes = torch.linalg.lstsq(x - x.mean(0), (own - own.mean())[:, None]).solution[:, 0]
        estimate = estimate + (proxies.mean(0) - x.mean(0)) @ slopes
    return float(estimate / d.mean() - 1)


def regression(names: Sequence[str], depth: int) -> None:
    """Print the fourth table."""
    print("| problem | step | " + " | ".join(PROXIES) + " | ratio, and middle layer | its bias | by chances |")
    print("|---|---:" + "|---:" * (len(PROXIES) + 3) + "|")
    for name in names:
        pde, counts, method = REGRESSED[name]
        objective, batch = build(pde, 64, counts, torch.float32, depth, method)
        order = hilbert_order(objective.points(batch)["residual"][:, : len(pde.coordinates)])
        rows = torch.tensor(objective.row_counts(batch))
        optimizer = torch.optim.Adam(objective.network.parameters(), 1e-3)
        for step in range(max(REGRESSED_STATES) + 1):
            if step in REGRESSED_STATES:
                print(f"| {name} | {step} | {errors({k: v[order] for k, v in shares(objective, batch).items()})} |")
            descend(objective, batch, rows, optimizer)


def errors(known: Mapping[str, Tensor]) -> str:
    """The cells of one row: rms errors at the two sizes by every set of proxies, by the ratio and by the program."""
    d, part = known["diagonal"], known["known"]
    spread = [
        [systematic_sample(len(d), size, torch.Generator().manual_seed(seed)) for seed in range(REGRESSED_DRAWS)]
        for size in SIZES
    ]
    cells = []
    for keys in PROXIES.values():
        proxies = torch.stack([known[key] for key in keys], dim=1) if keys else d.new_zeros(len(d), 0)
        found = [torch.tensor([regressed(d, proxies, chosen) for chosen in draws]) for draws in spread]
        cells.append(" / ".join(f"{100 * float(e.square().mean().sqrt()):.2f} %" for e in found))
    ratios = [[float(part.mean() * d[k].sum() / part[k].sum() / d.mean() - 1) for k in draws] for draws in spread]
    found = [torch.tensor(each) for each in ratios]
    cells.append(" / ".join(f"{100 * float(e.square().mean().sqrt()):.2f} %" for e in found))
    cells.append(" / ".join(f"{100 * float(e.mean()):.2f} %" for e in found))
    found = [torch.tensor([by_chances(d, part, size, seed) for seed in range(REGRESSED_DRAWS)]) for size in SIZES]
    cells.append(" / ".join(f"{100 * float(e.square().mean().sqrt()):.2f} %" for e in found))
    return " | ".join(cells)


def by_chances(d: Tensor, known: Tensor, size: int, seed: int) -> float:
    """Relative error of the program's estimate of the mean of ``d``, with points in the order of the curve."""
    chosen = Chosen(torch.arange(len(d)), places_along(size, torch.Generator().manual_seed(seed)))
    points, chances = chosen.drawn(known)
    found = samples(known, chosen, chances, (d - known)[points])
    return float((found[0] + found[1:].mean()) / d.sum() - 1)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--problems", nargs="+", choices=list(REGRESSED), default=list(REGRESSED))
    parser.add_argument("--layers", type=int, default=3, help="hidden ones, of the fourth table")
    arguments = parser.parse_args()
    tables = {
        "variances": lambda: variances(arguments.repetitions),
        "steps": steps,
        "more": more,
        "regression": lambda: regression(arguments.problems, arguments.layers),
    }
    for name in arguments.tables:
        tables[name]()
        print()


if __name__ == "__main__":
    main()
