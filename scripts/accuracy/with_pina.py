"""PINA in float64: its solver ``PINN`` in its own trainer, Adam at 1e-3, all points in one batch."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import Callback
from pina import Condition, LabelTensor, Trainer
from pina.equation import Equation
from pina.model import FeedForward
from pina.operator import grad
from pina.optim import TorchOptimizer
from pina.problem import AbstractProblem
from pina.solver import PINN
from torch import Tensor, nn

from accuracy.cases import Case, Watch, residual


def train(case: Case, seed: int, limit: float) -> Watch:
    """Train until the time is up."""
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    seed_everything(seed)
    torch.set_default_dtype(torch.float64)
    names = list(case.pde.coordinates)
    inner = FeedForward(case.inputs, 1, layers=[case.width] * case.depth, func=nn.Tanh)
    network = Periodic(case, inner) if case.pde.periods else inner
    terms, points = case.terms, case.points(seed)

    class Problem(AbstractProblem):
        input_variables = names
        output_variables = ["u"]  # noqa: RUF012 (as PINA wants it)
        domains = {}  # noqa: RUF012
        conditions = {  # noqa: RUF012
            term.name: Condition(input=LabelTensor(points[term.name], names), equation=Equation(equation(case, term)))
            for term in terms
        }

    solver = PINN(Problem(), network, optimizer=TorchOptimizer(torch.optim.Adam, lr=1e-3))
    watch = Watch(case, limit)
    quiet = {"enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}
    end = End(watch, network, names)
    Trainer(solver, accelerator="cpu", max_epochs=-1, logger=False, callbacks=[end], **quiet).train()
    return watch


class Periodic(nn.Module):
    """A network of cosine and sine of the periodic coordinates."""

    def __init__(self, case: Case, inner: nn.Module) -> None:
        super().__init__()
        self._case = case
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """Labels of the inputs are dropped."""
        return self.inner(self._case.features(plain(x)))


class End(Callback):
    """Looks at the watch after every step."""

    def __init__(self, watch: Watch, network: nn.Module, names: list[str]) -> None:
        self._watch = watch
        self._network = network
        self._names = names

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """An epoch is one step."""
        with torch.no_grad():
            trainer.should_stop = self._watch.over(self._predict)

    def _predict(self, x: Tensor) -> Tensor:
        return plain(self._network(LabelTensor(x, self._names)))[:, 0]


def equation(case: Case, term: Any) -> Any:
    """The residual of a term as a function of points and outputs."""

    def of(x: Any, u: Any) -> Tensor:
        def derivative(name: str) -> Tensor:
            value = u
            for k, c in enumerate(name.removeprefix("u").removeprefix("_")):
                value = grad(value, x, components=["u"] if k == 0 else [value.labels[0]], d=[c])
            return plain(value)[:, 0]

        return residual(case, term, plain(x).detach(), derivative)[:, None]

    return of


def plain(x: Any) -> Tensor:
    """Numbers without labels."""
    return x.as_subclass(Tensor) if isinstance(x, LabelTensor) else x
