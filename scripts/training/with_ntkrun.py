"""ntkrun: its own training loop, from a configuration, with the points and initial values of the case put in."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_module

from ntkrun.config.assembly import assemble
from ntkrun.config.configuration import read_configuration
from ntkrun.config.schema import plain
from ntkrun.experiment.run import make_records, make_trainer
from ntkrun.runtime.allocator import keep_freed_memory
from ntkrun.runtime.signals import StopRequest
from ntkrun.training.progress import Progress
from training.cases import RATE, Case
from training.torch_network import put_layers, take_layers
from training.turns import Turns

NEVER = 10**9


class Ended(StopRequest):
    """Stops the training at the end of the last turn."""

    def __init__(self, turns: Callable[[], bool]) -> None:
        self._turns = turns

    def __call__(self) -> bool:
        return not self._turns()


QUIET = (
    *(f"log_every={NEVER}", f"checkpoint_every={NEVER}", f"iterations={NEVER}", "keep_best=false", "progress=false"),
    *("plots=false", "device=cpu", "dtype=float32", "optimizer=adam", "schedule=constant"),
    f"optimizer.learning_rate={RATE}",
    *("pde.grid=2", "pde.sampling=uniform", "pde.resample_every=null", "network.standardize=false"),
)


def train(case: Case, *overrides: str) -> None:
    """Train until told to stop."""

    def turns(network: Any) -> Turns:
        if next(network.parameters()).device.type == "cpu":
            return Turns(lambda: take_layers(network.layers))
        return Turns(lambda: take_layers(network.layers), torch.cuda.synchronize, torch.cuda.max_memory_allocated)

    run(case, overrides, turns)


def run(case: Case, overrides: Iterable[str], make_turns: Callable[[Any], Callable[[], bool]]) -> None:
    """Train as long as the turns, made for the network, allow the next step."""
    sizes = (f"pde={case.pde}", f"network.width={case.width}", f"network.depth={case.depth}")
    counts = [f"pde.points.{term}={n}" for term, n in case.counts.items()]
    with initialize_config_module("ntkrun.conf", version_base="1.3"):
        values = plain(compose("config", overrides=[*QUIET, *sizes, *counts, *overrides]))
    parts = assemble(read_configuration(values))
    keep_freed_memory()
    network: Any = parts.objective.network
    put_layers(network.layers, case)
    if values["pde"]["resample_every"] is None:
        points = {term: torch.from_numpy(x).double() for term, x in case.draw_points().items()}
        parts.points.load_state_dict({**parts.points.state_dict(), "drawn_at": 0, "points": points, "drawn": 1})
    turns = make_turns(network)
    with tempfile.TemporaryDirectory() as directory:
        records = make_records(parts, Path(directory), None)
        trainer = make_trainer(parts, records, Path(directory), Ended(turns), Progress())
        trainer.fit()
        records.close()
