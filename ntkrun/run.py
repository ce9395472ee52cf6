"""One run: from a configuration and a directory to results on disk."""

from __future__ import annotations

import json
import logging
import platform
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ntkrun import __version__
from ntkrun.checkpoints import load_checkpoint
from ntkrun.config import ConfigError, Settings, Setup, build, read_settings, read_setup
from ntkrun.evaluation import Evaluator
from ntkrun.files import write_atomically, write_text_atomically
from ntkrun.geometry import mix_seed
from ntkrun.logs import logging_to
from ntkrun.objective import Objective
from ntkrun.optimizer import Optimizer, Schedule
from ntkrun.pde import PDE, ProblemError
from ntkrun.points import PointSource
from ntkrun.records import Records
from ntkrun.signals import stop_on_signals
from ntkrun.trainer import DivergenceError, Progress, Trainer
from ntkrun.weights import Weighting

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """What a configuration describes, built and checked."""

    settings: Settings
    setup: Setup
    objective: Objective
    weighting: Weighting
    optimizer: Optimizer
    schedule: Schedule
    points: PointSource
    evaluator: Evaluator


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        status: ``completed``, ``failed`` or ``interrupted``.
        exit_status: for the shell.
        message: one line about a failure or an interruption.
    """

    status: str
    exit_status: int = 0
    message: str = ""


def assemble(values: Mapping[str, Any]) -> Parts:
    """Build everything that a configuration describes.

    Args:
        values: the configuration as plain values.

    Raises:
        ConfigError: a value cannot be used.
    """
    settings = read_settings(values)
    setup = read_setup(values["pde"])
    problem = {k: v for k, v in values["pde"].items() if k not in Setup.model_fields}
    pde = build(problem, "pde", PDE)
    weighting = build(values["weights"], "weights", Weighting)
    optimizer = build(values["optimizer"], "optimizer", Optimizer)
    schedule = build(values["schedule"], "schedule", Schedule)
    torch.manual_seed(settings.seed)
    generator = torch.Generator().manual_seed(mix_seed(settings.seed, 0))
    runtime = {"domain": pde.domain, "outputs": len(pde.fields), "generator": generator}
    network = build(values["network"], "network", nn.Module, **runtime)
    if not any(p.requires_grad for p in network.parameters()):
        raise ConfigError("network: no trainable parameters")
    network.to(device=_device(settings.device), dtype=getattr(torch, settings.dtype))
    try:
        objective = Objective(pde, network)
        points = PointSource(objective, setup.points, setup.sampling, setup.resample_every, settings.seed)
        evaluator = Evaluator(objective, setup.grid)
    except ProblemError as error:
        raise ConfigError(f"pde: {error}") from None
    except ValueError as error:
        raise ConfigError(f"pde.points: {error}") from None
    weighting.start(objective, settings.seed)
    optimizer.start(network)
    return Parts(settings, setup, objective, weighting, optimizer, schedule, points, evaluator)


def execute(values: Mapping[str, Any], directory: Path, resume: bool = False) -> Outcome:
    """Carry out a run in its directory, or go on with it from its checkpoint.

    Args:
        values: the configuration as plain values.
        directory: an existing directory; receives tables, checkpoint, solution, plots and summary.
        resume: continue from the checkpoint in the directory.

    Raises:
        ConfigError: a value cannot be used.
        CheckpointError: there is no usable checkpoint.
    """
    state = load_checkpoint(directory) if resume else None
    parts = assemble(values)
    with logging_to(directory), stop_on_signals() as stop:
        records = _records(parts, directory, Progress(**state["progress"]).step if state else None)
        trainer = _trainer(parts, records, directory, stop)
        if state:
            trainer.load_state_dict(state)
        _announce(parts, trainer)
        try:
            finished = trainer.fit()
        except DivergenceError as error:
            outcome = Outcome("failed", 1, str(error))
            log.error("%s; the last checkpoint is kept", error)
        except BaseException as error:
            _finish(parts, trainer, directory, Outcome("failed", 1, f"{type(error).__name__}: {error}"))
            log.exception("the run failed at step %d", trainer.progress.step)
            raise
        else:
            outcome = Outcome("completed") if finished else _interrupted(stop.signal, trainer.progress.step)
        finally:
            records.close()
        _finish(parts, trainer, directory, outcome)
    return outcome


def _interrupted(number: signal.Signals | None, step: int) -> Outcome:
    assert number is not None
    message = f"{number.name} at step {step}; the run can be resumed"
    log.warning(message)
    return Outcome("interrupted", 128 + number, message)


def _trainer(parts: Parts, records: Records, directory: Path, stop: Any) -> Trainer:
    return Trainer(
        objective=parts.objective,
        weighting=parts.weighting,
        optimizer=parts.optimizer,
        schedule=parts.schedule,
        points=parts.points,
        evaluator=parts.evaluator,
        records=records,
        directory=directory,
        iterations=parts.settings.iterations,
        log_every=parts.settings.log_every,
        checkpoint_every=parts.settings.checkpoint_every,
        show_bar=parts.settings.progress,
        should_stop=stop,
    )


def _records(parts: Parts, directory: Path, keep_below: int | None) -> Records:
    digits = 17 if parts.settings.dtype == "float64" else 9
    return Records(directory, parts.objective.names, parts.weighting.extras(), digits, keep_below)


def _announce(parts: Parts, trainer: Trainer) -> None:
    objective, settings = parts.objective, parts.settings
    log.info(
        "%s, %s with %d parameters, weights %s, %s, seed %d, %s on %s",
        type(objective.pde).__name__,
        type(objective.network).__name__,
        objective.layout.size,
        type(parts.weighting).__name__.lower(),
        type(parts.optimizer).__name__,
        settings.seed,
        settings.dtype,
        objective.like.device,
    )
    log.info("kernel route: %s", objective.route)
    if trainer.progress.step:
        log.info("resuming at step %d of %d", trainer.progress.step, settings.iterations)


def _finish(parts: Parts, trainer: Trainer, directory: Path, outcome: Outcome) -> None:
    """Write what a run leaves behind besides tables and checkpoint."""
    points: dict[str, Any] = {name: x.numpy() for name, x in parts.points.points.items()}
    write_atomically(directory / "points.npz", lambda file: np.savez(file, **points))
    with trainer.progress.phase("evaluation"):
        _write_solution(parts, directory)
    if parts.settings.plots:
        from ntkrun.plots import plot_run

        plot_run(directory)
    summary = json.dumps(_summary(parts, trainer.progress, outcome), indent=2)
    write_text_atomically(directory / "summary.json", summary + "\n")


def _write_solution(parts: Parts, directory: Path) -> None:
    solution = parts.evaluator.solution()
    arrays: dict[str, Any] = {f"axis_{c}": axis for c, axis in solution.axes.items()}
    arrays["fields"] = np.array(parts.objective.pde.fields)
    arrays["prediction"] = solution.prediction
    if solution.exact is not None:
        arrays["exact"] = solution.exact
        arrays["error"] = solution.prediction - solution.exact
    write_atomically(directory / "solution.npz", lambda file: np.savez_compressed(file, **arrays))


def _summary(parts: Parts, progress: Progress, outcome: Outcome) -> dict[str, Any]:
    settings = parts.settings
    return {
        "status": outcome.status,
        "message": outcome.message,
        "step": progress.step,
        "iterations": settings.iterations,
        "rel_l2": {
            "final": progress.error,
            "final_step": progress.error_step,
            "best": progress.best_error,
            "best_step": progress.best_step,
        },
        "seconds": {**progress.seconds, "total": progress.elapsed},
        "weight_updates": progress.updates,
        "parameters": parts.objective.layout.size,
        "weights": dict(zip(parts.objective.names, parts.weighting.weights.tolist(), strict=True)),
        "seed": settings.seed,
        "device": str(parts.objective.like.device),
        "dtype": settings.dtype,
        "versions": {
            "ntkrun": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "numpy", "hydra-core", "omegaconf")},
        },
        "git_commit": _git_commit(),
    }


def _git_commit() -> str | None:
    """The commit of the source this program runs from, if it is a checkout; ``-dirty`` with changes."""
    here = Path(__file__).resolve()

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here.parent), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _device(name: str) -> str:
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ConfigError("device=cuda: no CUDA device is available; allowed here are auto and cpu")
    return "cuda" if name == "auto" and available else "cpu" if name == "auto" else name
