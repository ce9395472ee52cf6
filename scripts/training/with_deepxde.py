"""DeepXDE on torch, its own derivatives, losses and training step, in the order of its own loop."""

from __future__ import annotations

import os
from typing import Any

os.environ["DDE_BACKEND"] = "pytorch"

import deepxde as dde
import numpy as np
import torch

from training.cases import HELMHOLTZ_K, RATE, WAVE_SPEED, Case
from training.torch_network import linear_layers, put_layers, take_layers
from training.turns import Turns
from training.with_torch import displacement, forcing


def train(case: Case) -> None:
    """Train until told to stop."""
    dde.config.set_default_float("float32")
    points = case.draw_points()
    conditions = [condition(term, x) for term, x in points.items() if term != "residual"]
    low, d = -1.0 if case.pde == "helmholtz" else 0.0, case.sizes[0]
    box = dde.geometry.Interval(low, 1.0) if d == 1 else dde.geometry.Rectangle([low] * d, [1.0] * d)
    data = dde.data.PDE(box, lambda x, u: equation(case, x, u), conditions, 0, 0, anchors=points["residual"])
    network = dde.nn.FNN(case.sizes, "tanh", "Glorot normal")
    put_layers(linear_layers(network), case)
    model = dde.Model(data, network)
    model.compile("adam", lr=RATE, verbose=0)
    turns = Turns(lambda: take_layers(linear_layers(network)))
    while turns():  # as Model.train does, without its evaluations
        model.train_state.set_data_train(*model.data.train_next_batch(None))
        model._train_step(model.train_state.X_train, model.train_state.y_train, model.train_state.train_aux_vars)


def condition(term: str, x: Any) -> Any:
    """A boundary or initial condition at given points."""
    if term == "initial_velocity":
        return dde.icbc.PointSetOperatorBC(x, 0.0, lambda x, u, _: dde.grad.jacobian(u, x, i=0, j=1))
    values = np.zeros((len(x), 1), dtype=np.float32)
    if term == "initial":
        values[:, 0] = displacement(torch.from_numpy(x[:, 0])).numpy()
    return dde.icbc.PointSetBC(x, values)


def equation(case: Case, x: Any, u: Any) -> Any:
    """The residual of the equation."""
    second = [dde.grad.hessian(u, x, i=i, j=i) for i in range(case.sizes[0])]
    if case.pde == "poisson":
        return second[0] + (4 * torch.pi) ** 2 * torch.sin(4 * torch.pi * x[:, :1])
    if case.pde == "wave":
        return second[1] - WAVE_SPEED**2 * second[0]
    return second[0] + second[1] + HELMHOLTZ_K**2 * u - forcing(x)[:, None]
