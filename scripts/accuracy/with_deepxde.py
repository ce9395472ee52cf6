"""DeepXDE on torch in float64: Adam, then L-BFGS, by its own training loop."""

from __future__ import annotations

import os
from typing import Any

os.environ["DDE_BACKEND"] = "pytorch"

import deepxde as dde
import numpy as np
import torch
from torch import Tensor

from accuracy.cases import Case, Watch, hard, residual

ITERATIONS = 10_000_000  # the watch ends the training
CALL = 20  # iterations of L-BFGS between looks at the watch; its memory lasts
WEIGHT = 100.0  # of conditions, tuned


def train(case: Case, seed: int, limit: float, tuned: bool) -> Watch:
    """Train until the time is up.

    Its own defaults: tanh, Glorot's uniform initial values, all weights 1, 15,000 steps of Adam at 1e-3, then L-BFGS
    with its own options. Tuned: sine where ntkrun takes it, boundary conditions built in where the problem has a
    transform, other conditions weighted by 100, 2,000 steps of Adam at 3e-3, then L-BFGS with a memory of 200.
    """
    dde.config.set_default_float("float64")
    dde.config.set_random_seed(seed)
    points = case.points(seed)
    built_in = tuned and case.transforms
    terms = [term for term in case.terms if term.name != "residual" and not (built_in and term.name == "boundary")]
    main = next(term for term in case.terms if term.name == "residual")
    conditions = [
        dde.icbc.PointSetOperatorBC(
            points[term.name].numpy(),
            np.zeros((len(points[term.name]), 1)),
            lambda x, u, _, term=term: residual(case, term, x, lambda name: derivative(case, x, u, name))[:, None],
        )
        for term in terms
    ]
    d, box = len(case.pde.coordinates), case.pde.domain
    low, high = [box.low[c] for c in box.low], [box.high[c] for c in box.low]
    region = dde.geometry.Interval(low[0], high[0]) if d == 1 else dde.geometry.Rectangle(low, high)
    data = dde.data.PDE(
        region,
        lambda x, u: residual(case, main, x, lambda name: derivative(case, x, u, name))[:, None],
        conditions,
        0,
        0,
        anchors=points["residual"].numpy(),
    )
    activation = "sin" if tuned and case.sine else "tanh"
    network = dde.nn.FNN([case.inputs, *[case.width] * case.depth, 1], activation, "Glorot uniform")
    if case.pde.periods:
        network.apply_feature_transform(case.features)
    if built_in:
        network.apply_output_transform(lambda x, u: hard(case, x, u[:, 0])[:, None])
    weights = [1.0] + [WEIGHT if tuned else 1.0] * len(conditions)
    model = dde.Model(data, network)
    watch = Watch(case, limit)
    ender = End(watch, network)
    model.compile("adam", lr=3e-3 if tuned else 1e-3, loss_weights=weights, verbose=0)
    model.train(2000 if tuned else 15_000, display_every=ITERATIONS, callbacks=[ender], verbose=0)
    while not ender.over:  # from where it has converged by its own account, with an empty memory
        own = {"maxcor": 200, "gtol": 1e-12, "ftol": 0} if tuned else {}
        dde.optimizers.set_LBFGS_options(maxiter=15_000, **own)
        dde.optimizers.config.LBFGS_options.update(iter_per_step=CALL, fun_per_step=CALL * 5 // 4)
        before = model.train_state.step
        model.compile("L-BFGS", loss_weights=weights, verbose=0)
        model.train(display_every=ITERATIONS, callbacks=[ender], verbose=0)
        if model.train_state.step - before < 3:
            break
    return watch


class End(dde.callbacks.Callback):
    """Looks at the watch after every step."""

    def __init__(self, watch: Watch, network: Any) -> None:
        super().__init__()
        self._watch = watch
        self._network = network
        self.over = False

    def on_batch_end(self) -> None:
        """After a step of Adam, or some of L-BFGS."""
        with torch.no_grad():
            self.over = self._watch.over(lambda x: self._network(x)[:, 0].detach())
        self.model.stop_training = self.over


def derivative(case: Case, x: Tensor, u: Tensor, name: str) -> Tensor:
    """A column of u or of its derivatives of first or second order."""
    if name == "u":
        return u[:, 0]
    axes = [case.pde.coordinates.index(c) for c in name.removeprefix("u_")]
    if len(axes) == 1:
        return dde.grad.jacobian(u, x, i=0, j=axes[0])[:, 0]
    return dde.grad.hessian(u, x, i=axes[0], j=axes[1])[:, 0]
