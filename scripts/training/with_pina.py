"""PINA: its solver ``PINN`` in its own trainer, all points in one batch; a step is an epoch of that trainer."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from pina import Condition, LabelTensor, Trainer
from pina.domain import CartesianDomain
from pina.equation import Equation
from pina.model import FeedForward
from pina.operator import grad, laplacian
from pina.optim import TorchOptimizer
from pina.problem import SpatialProblem, TimeDependentProblem
from pina.solver import PINN
from torch import nn

from training.cases import HELMHOLTZ_K, RATE, WAVE_SPEED, Case
from training.torch_network import linear_layers, put_layers, take_layers
from training.turns import Turns
from training.with_torch import displacement, forcing


def train(case: Case) -> None:
    """Train until told to stop."""
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    names = {"poisson": ["x"], "wave": ["x", "t"], "helmholtz": ["x", "y"]}[case.pde]
    network = FeedForward(len(names), 1, layers=[case.width] * case.depth, func=nn.Tanh)
    put_layers(linear_layers(network), case)
    conditions_ = {
        term: Condition(input=LabelTensor(torch.from_numpy(x), names), equation=Equation(residual(case, term)))
        for term, x in case.draw_points().items()
    }
    low = -1.0 if case.pde == "helmholtz" else 0.0
    space = CartesianDomain({name: [low, 1.0] for name in names if name != "t"})

    class InSpace(SpatialProblem):
        output_variables = ["u"]  # noqa: RUF012 (as PINA wants it)
        spatial_domain = space
        domains = {}  # noqa: RUF012
        conditions = conditions_

    class InTime(TimeDependentProblem, InSpace):
        temporal_domain = CartesianDomain({"t": [0.0, 1.0]})

    problem = (InTime if "t" in names else InSpace)()
    solver = PINN(problem, network, optimizer=TorchOptimizer(torch.optim.Adam, lr=RATE))
    turns = Turns(lambda: take_layers(linear_layers(network)))
    if not turns():
        return
    quiet = {"enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}
    Trainer(solver, accelerator="cpu", max_epochs=-1, logger=False, callbacks=[Lead(turns)], **quiet).train()


class Lead(Callback):
    """Waits for the next turn after the last step of one."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Stop the trainer where the training is over."""
        trainer.should_stop = not self._turns()


def residual(case: Case, term: str) -> Any:
    """The residual of a term as a function of points and outputs."""
    if term == "boundary":
        return lambda x, u: u
    if term == "initial":
        return lambda x, u: u - displacement(plain(x["x"]))
    if term == "initial_velocity":
        return lambda x, u: grad(u, x, components=["u"], d=["t"])
    if case.pde == "poisson":
        return lambda x, u: laplacian(u, x) + (4 * torch.pi) ** 2 * torch.sin(4 * torch.pi * plain(x["x"]))
    if case.pde == "wave":
        return lambda x, u: laplacian(u, x, d=["t"]) - WAVE_SPEED**2 * laplacian(u, x, d=["x"])
    return lambda x, u: laplacian(u, x) + HELMHOLTZ_K**2 * u - forcing(plain(x))[:, None]


def plain(x: Any) -> torch.Tensor:
    """Points as a tensor without labels."""
    return x.as_subclass(torch.Tensor).detach()
