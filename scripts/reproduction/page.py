"""The page of all figures."""

from __future__ import annotations

import pandas as pd

from reproduction.base import Budget, Figure, results

HEAD = """\
# Reproduction

The claims are those of the abstract of M. Hirsch, F. Pichi, "Convergence and Sketching-Based Efficient Computation of
Neural Tangent Kernel Weights in Physics-Based Loss", [arXiv 2511.15530](https://arxiv.org/abs/2511.15530): (a) gradient
descent with adaptive NTK weights converges, in a suitable sense, under conditions; (b) a randomised algorithm gives
unbiased estimates of the NTK, up to an arbitrarily small discretisation error; (c) experiments support both. Only the
abstract was available to this project, so that the algorithms are derived independently and problems, networks and
criteria are chosen here. No number on this page is that paper's.

`python scripts/reproduce.py --figure all --budget {budget}` makes this page and all its figures. `--budget quick`
does a smaller version of each, in less than 15 minutes on two cores; the full budget takes about an hour of one
process on a busy machine. Jobs that are done already are skipped, and `--jobs` of them run side by side. Every
figure is drawn, and every verdict computed, from the CSV beside it. A verdict names the claim with its criterion, the
number measured with its uncertainty, and the outcome; "±" is one standard error.
"""


def section(figure: Figure, budget: Budget) -> str:
    """Claim, command, figures and verdicts of one figure."""
    directory = results(budget)
    table = pd.read_csv(directory / f"{figure.name}.csv")
    images = sorted(directory.glob(f"{figure.name}*.png"))
    lines = [f"## {figure.title}", "", figure.about, ""]
    lines += ["```bash", f"python scripts/reproduce.py --figure {figure.name} --budget {budget}", "```", ""]
    for image in images:
        lines += [f"![{figure.title}]({image.name})", ""]
    lines += ["| claim and criterion | measured | verdict |", "|---|---|---|"]
    for verdict in figure.verdicts(table):
        outcome = "holds" if verdict.holds else "**does not hold**"
        cells = (verdict.claim, verdict.measured, outcome)
        lines.append("| " + " | ".join(cell.replace("|", "&#124;") for cell in cells) + " |")
    lines += ["", f"Recipe: `conf/experiment/{figure.name}.yaml`. Table: [{figure.name}.csv]({figure.name}.csv)."]
    return "\n".join(lines) + "\n"


def page(budget: Budget) -> str:
    """All figures that are there."""
    from reproduction import FIGURES

    there = [figure for figure in FIGURES.values() if (results(budget) / f"{figure.name}.csv").exists()]
    return "\n".join([HEAD.format(budget=budget), *(section(figure, budget) for figure in there)])
