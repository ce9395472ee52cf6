"""The figures that reproduce the claims, one module each, over a small common base."""

from reproduction import convergence, cost, deviations, discretisation, spectrum, training, trajectories, unbiased

FIGURES = {
    module.FIGURE.name: module.FIGURE
    for module in (unbiased, discretisation, trajectories, deviations, training, cost, convergence, spectrum)
}
