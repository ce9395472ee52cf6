"""One run: from a configuration and a directory to results on disk."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ntkrun.allocator import keep_freed_memory
from ntkrun.checkpoints import NAME, CheckpointError, load_checkpoint
from ntkrun.config import ConfigError, Settings, Setup, build, read_settings, read_setup
from ntkrun.diagnostics import Diagnostics
from ntkrun.evaluation import Evaluator
from ntkrun.geometry import mix_seed
from ntkrun.logs import logging_to
from ntkrun.objective import Objective, RouteError
from ntkrun.optimizer import Optimizer, Schedule
from ntkrun.pde import PDE, ProblemError
from ntkrun.points import PointSource
from ntkrun.records import Records
from ntkrun.results import Outcome, write_points, write_solution, write_summary
from ntkrun.signals import StopRequest, stop_on_signals
from ntkrun.trainer import DivergenceError, Progress, Trainer, restore
from ntkrun.weights import Weighting

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """What a configuration describes, built and checked."""

    settings: Settings
    objective: Objective
    weighting: Weighting
    optimizer: Optimizer
    schedule: Schedule
    points: PointSource
    evaluator: Evaluator
    diagnostics: Diagnostics


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
    diagnostics = build(values["diagnostics"], "diagnostics", Diagnostics)
    torch.manual_seed(settings.seed)
    generator = torch.Generator().manual_seed(mix_seed(settings.seed, 0))
    runtime = {"domain": pde.domain, "outputs": len(pde.fields), "generator": generator}
    network = build(values["network"], "network", nn.Module, **runtime)
    if not any(p.requires_grad for p in network.parameters()):
        raise ConfigError("network: no trainable parameters")
    network.to(device=_device(settings.device), dtype=getattr(torch, settings.dtype))
    try:
        objective = Objective(pde, network, settings.kernel.route, settings.kernel.memory_mib * 2**20)
        points = PointSource(objective, setup.points, setup.sampling, setup.resample_every, settings.seed)
        evaluator = Evaluator(objective, setup.grid)
    except ProblemError as error:
        raise ConfigError(f"pde: {error}") from None
    except RouteError as error:
        raise ConfigError(f"kernel.{error}") from None
    except ValueError as error:
        raise ConfigError(f"pde.points: {error}") from None
    try:
        weighting.start(objective, settings.seed)
    except ValueError as error:
        raise ConfigError(f"weights: {error}") from None
    diagnostics.start(objective, settings.iterations)
    try:
        optimizer.start(network)
    except ValueError as error:
        raise ConfigError(f"optimizer.{error}") from None
    return Parts(settings, objective, weighting, optimizer, schedule, points, evaluator, diagnostics)


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
    progress = _restore(parts, state) if state else Progress()
    keep_freed_memory()
    with logging_to(directory), stop_on_signals() as stop:
        records = _records(parts, directory, progress.step if state else None)
        trainer = _trainer(parts, records, directory, stop, progress)
        _announce(parts, trainer)
        try:
            finished = trainer.fit()
        except DivergenceError as error:
            outcome = Outcome("failed", 1, str(error))
            log.error("%s; the last checkpoint is kept", error)
        except BaseException as error:
            log.exception("the run failed at step %d", trainer.progress.step)
            records.close()
            _finish(parts, trainer, directory, Outcome("failed", 1, f"{type(error).__name__}: {error}"))
            raise
        else:
            outcome = Outcome("completed") if finished else _interrupted(stop, trainer.progress.step)
        records.close()
        _finish(parts, trainer, directory, outcome)
    return outcome


def _restore(parts: Parts, state: Mapping[str, Any]) -> Progress:
    """Put a checkpoint's state into the parts of a run."""
    try:
        return restore(parts.objective, parts.weighting, parts.optimizer, parts.points, parts.diagnostics, state)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{NAME} does not fit this run: {reason}") from None


def _interrupted(stop: StopRequest, step: int) -> Outcome:
    assert stop.signal is not None
    message = f"{stop.signal.name} at step {step}; the run can be resumed"
    log.warning(message)
    return Outcome("interrupted", 128 + stop.signal, message)


def _trainer(parts: Parts, records: Records, directory: Path, stop: StopRequest, progress: Progress) -> Trainer:
    return Trainer(
        objective=parts.objective,
        weighting=parts.weighting,
        optimizer=parts.optimizer,
        schedule=parts.schedule,
        points=parts.points,
        evaluator=parts.evaluator,
        diagnostics=parts.diagnostics,
        records=records,
        directory=directory,
        iterations=parts.settings.iterations,
        log_every=parts.settings.log_every,
        checkpoint_every=parts.settings.checkpoint_every,
        show_bar=parts.settings.progress,
        should_stop=stop,
        progress=progress,
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
    """Write what a run leaves behind besides tables and checkpoint; the figures last, for they may fail alone."""
    write_points(parts.points, directory)
    parts.diagnostics.finish(directory)
    with trainer.progress.phase("evaluation"):
        write_solution(parts.evaluator, parts.objective.pde.fields, directory)
    write_summary(parts.settings, trainer, outcome, directory)
    if parts.settings.plots:
        from ntkrun.plots import plot_run

        plot_run(directory)


def _device(name: str) -> str:
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ConfigError("device=cuda: no CUDA device is available; allowed here are auto and cpu")
    return "cuda" if name == "auto" and available else "cpu" if name == "auto" else name
