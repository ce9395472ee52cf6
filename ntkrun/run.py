"""One run: from a configuration and a directory to results on disk."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ntkrun.allocator import keep_freed_memory
from ntkrun.checkpoints import NAME, CheckpointError, load_checkpoint
from ntkrun.config import ConfigError, Settings, Setup, build, read_settings, read_setup
from ntkrun.diagnostics import Diagnostics, NoDiagnostics
from ntkrun.evaluation import Evaluator
from ntkrun.geometry import mix_seed
from ntkrun.loggers import Guarded, Logger
from ntkrun.logs import logging_to
from ntkrun.network import constrained
from ntkrun.objective import Objective, RouteError
from ntkrun.optimizer import Optimizer, Schedule
from ntkrun.pde import PDE, ProblemError
from ntkrun.point_weights import PointWeights
from ntkrun.points import PointSource
from ntkrun.records import Records
from ntkrun.results import (
    Outcome,
    fingerprint,
    read_summary,
    write_points,
    write_solution,
    write_summary,
)
from ntkrun.signals import StopRequest, stop_on_signals
from ntkrun.trainer import DivergenceError, Progress, Targets, Trainer, restore
from ntkrun.weights import Weighting
from ntkrun.windows import TIME, Piecewise, TimeWindow, frozen, time_edges

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """What a configuration describes, built and checked; of one time window where there are several.

    Attributes:
        pde: the problem on all of time.
        earlier: the networks of earlier time windows.
    """

    settings: Settings
    pde: PDE
    grid: int
    objective: Objective
    weighting: Weighting
    point_weights: PointWeights
    optimizer: Optimizer
    schedule: Schedule
    points: PointSource
    evaluator: Evaluator
    diagnostics: Diagnostics
    logger: Logger
    earlier: tuple[nn.Module, ...] = ()


def assemble(values: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]] = ()) -> Parts:
    """Build everything that a configuration describes.

    Args:
        values: the configuration as plain values.
        earlier: states of the networks of earlier time windows; the parts are those of the next window.

    Raises:
        ConfigError: a value cannot be used.
    """
    settings = read_settings(values)
    setup = read_setup(values["pde"])
    problem = {k: v for k, v in values["pde"].items() if k not in Setup.model_fields}
    whole = build(problem, "pde", PDE)
    weighting = build(values["weights"], "weights", Weighting)
    point_weights = build(values["point_weights"], "point_weights", PointWeights)
    optimizer = build(values["optimizer"], "optimizer", Optimizer)
    schedule = build(values["schedule"], "schedule", Schedule)
    diagnostics = build(values["diagnostics"], "diagnostics", Diagnostics)
    logger = build(values["logger"], "logger", Logger)
    if settings.time_windows > 1 and not isinstance(diagnostics, NoDiagnostics):
        raise ConfigError(f"time_windows={settings.time_windows}: diagnostics observe one window only; leave them out")
    try:
        pde, network, networks = _networks(values, settings, whole, earlier)
        objective = Objective(pde, network, settings.kernel.route, settings.kernel.memory_mib * 2**20)
        evaluator = Evaluator(pde, network, objective.like, setup.grid)
    except ProblemError as error:
        raise ConfigError(f"pde: {error}") from None
    except RouteError as error:
        raise ConfigError(f"kernel.{error}") from None
    try:
        points = PointSource(objective, setup.points, setup.sampling, setup.resample_every, settings.seed)
    except ValueError as error:
        raise ConfigError(f"pde.points: {error}") from None
    diagnostics.start(objective, settings.iterations)
    fixed_points = setup.resample_every is None
    starts: tuple[tuple[str, Callable[[], None]], ...] = (
        ("weights: ", lambda: weighting.start(objective, settings.seed)),
        ("point_weights: ", lambda: point_weights.start(objective, fixed_points)),
        ("optimizer.", lambda: optimizer.start(network)),
        ("logger: ", logger.check),
    )
    for key, start in starts:
        try:
            start()
        except ValueError as error:
            raise ConfigError(f"{key}{error}") from None
    if point_weights.varying and getattr(weighting, "points", "training") != "training":
        raise ConfigError("weights.points: with point_weights, kernels are taken at the training points")
    return Parts(
        settings=settings,
        pde=whole,
        grid=setup.grid,
        objective=objective,
        weighting=weighting,
        point_weights=point_weights,
        optimizer=optimizer,
        schedule=schedule,
        points=points,
        evaluator=evaluator,
        diagnostics=diagnostics,
        logger=Guarded(logger),
        earlier=networks,
    )


def _networks(
    values: Mapping[str, Any], settings: Settings, whole: PDE, earlier: Sequence[Mapping[str, Any]]
) -> tuple[PDE, nn.Module, tuple[nn.Module, ...]]:
    """The problem of the present time window, its network, and those of the windows before.

    A window's network starts with the parameters of the one before.
    """
    if settings.time_windows == 1:
        return whole, _network(values["network"], settings, whole), ()
    pde = TimeWindow(whole, 0, settings.time_windows, None)
    network = _network(values["network"], settings, pde)
    networks: list[nn.Module] = []
    for k, state in enumerate(earlier, start=1):
        network.load_state_dict(state)
        networks.append(frozen(network))
        pde = TimeWindow(whole, k, settings.time_windows, network)
        network = _network(values["network"], settings, pde)
        for name, parameter in network.named_parameters():
            parameter.data.copy_(state[name])
    return pde, network, tuple(networks)


def _network(node: Mapping[str, Any], settings: Settings, pde: PDE) -> nn.Module:
    torch.manual_seed(settings.seed)
    generator = torch.Generator().manual_seed(mix_seed(settings.seed, 0))
    runtime = {"domain": pde.domain, "outputs": len(pde.fields), "periods": pde.periods, "generator": generator}
    network = build(node, "network", nn.Module, **runtime)
    if not any(p.requires_grad for p in network.parameters()):
        raise ConfigError("network: no trainable parameters")
    if pde.built_in:
        network = constrained(network, pde)
    return network.to(device=_device(settings.device), dtype=getattr(torch, settings.dtype))


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
    parts = assemble(values) if state is None else _assemble_window(values, state)
    progress = _restore(parts, state) if state else Progress()
    keep_freed_memory()
    with logging_to(directory), stop_on_signals() as stop:
        records = _records(parts, directory, progress.total_steps if state else None)
        trainer = _trainer(parts, records, directory, stop, progress)
        configuration = fingerprint(values)
        write_summary(parts.settings, trainer, Outcome("running"), directory, configuration)
        _announce(parts, trainer)
        logger = parts.logger  # of the first window, for all
        logger.start(directory, values, progress.total_steps)
        try:
            ended = trainer.fit()
            while ended is not None and progress.window + 1 < parts.settings.time_windows:
                parts = _next_window(values, trainer)
                trainer = _trainer(parts, records, directory, stop, progress)
                ended = trainer.fit()
        except DivergenceError as error:
            outcome = Outcome("failed", 1, str(error))
            log.error("%s; the last checkpoint is kept", error)
        except BaseException as error:
            log.exception("the run failed at step %d", progress.total_steps)
            records.close()
            failed = Outcome("failed", 1, f"{type(error).__name__}: {error}")
            _finish(parts, trainer, directory, failed, configuration)
            logger.finish(directory, failed.status)
            raise
        else:
            outcome = _interrupted(stop, progress.total_steps) if ended is None else _completed(ended)
        records.close()
        _finish(parts, trainer, directory, outcome, configuration)
        logger.finish(directory, outcome.status)
    return outcome


class Standing(Enum):
    """What a directory holds, seen from a configuration."""

    NEW = auto()
    UNFINISHED = auto()
    COMPLETED = auto()
    OTHER = auto()


def standing(values: Mapping[str, Any], directory: Path) -> Standing:
    """What a directory holds of the run that a configuration describes.

    ``OTHER`` is a run of another configuration, ``UNFINISHED`` one with a checkpoint that is not yet as long as asked.
    """
    summary = read_summary(directory)
    if "configuration" not in summary:
        return Standing.NEW
    if summary["configuration"] != fingerprint(values):
        return Standing.OTHER
    ended_early = bool(summary["message"])
    if summary["status"] == "completed" and (ended_early or summary["iterations"] >= values["iterations"]):
        return Standing.COMPLETED
    return Standing.UNFINISHED if (directory / NAME).exists() else Standing.NEW


def _assemble_window(values: Mapping[str, Any], state: Mapping[str, Any]) -> Parts:
    """The parts of the time window that a checkpoint was written in."""
    try:
        return assemble(values, state["earlier"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise _misfit(error) from None


def _next_window(values: Mapping[str, Any], trainer: Trainer) -> Parts:
    """The parts of the time window after the one that is done."""
    progress = trainer.progress
    log.info("time window %d of %d is done", progress.window + 1, trainer.windows)
    earlier = [*trainer.earlier, trainer.objective.network.state_dict()]
    progress.first_step, progress.step, progress.window = progress.total_steps, 0, progress.window + 1
    return assemble(values, earlier)


def _restore(parts: Parts, state: Mapping[str, Any]) -> Progress:
    """Put a checkpoint's state into the parts of a run."""
    try:
        return restore(
            parts.objective,
            parts.weighting,
            parts.point_weights,
            parts.optimizer,
            parts.points,
            parts.diagnostics,
            state,
        )
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise _misfit(error) from None


def _misfit(error: Exception) -> CheckpointError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return CheckpointError(f"{NAME} does not fit this run: {reason}")


def _completed(ended: str) -> Outcome:
    if ended:
        log.info("ended early: %s", ended)
    return Outcome("completed", message=ended)


def _interrupted(stop: StopRequest, step: int) -> Outcome:
    assert stop.signal is not None
    message = f"{stop.signal.name} at step {step}; the run can be resumed"
    log.warning(message)
    return Outcome("interrupted", 128 + stop.signal, message)


def _trainer(parts: Parts, records: Records, directory: Path, stop: StopRequest, progress: Progress) -> Trainer:
    return Trainer(
        objective=parts.objective,
        weighting=parts.weighting,
        point_weights=parts.point_weights,
        optimizer=parts.optimizer,
        schedule=parts.schedule,
        points=parts.points,
        evaluator=parts.evaluator,
        diagnostics=parts.diagnostics,
        records=records,
        directory=directory,
        iterations=parts.settings.iterations,
        windows=parts.settings.time_windows,
        targets=Targets(parts.settings.stop.error, parts.settings.stop.loss),
        log_every=parts.settings.log_every,
        checkpoint_every=parts.settings.checkpoint_every,
        keep_best=parts.settings.keep_best and parts.settings.time_windows == 1,
        show_bar=parts.settings.progress,
        should_stop=stop,
        progress=progress,
        earlier=tuple(network.state_dict() for network in parts.earlier),
    )


def _records(parts: Parts, directory: Path, keep_below: int | None) -> Records:
    digits = 17 if parts.settings.dtype == "float64" else 9
    objective = parts.objective
    return Records(
        directory,
        objective.names,
        parts.weighting.columns(),
        parts.point_weights.columns(),
        parts.logger,
        digits,
        keep_below,
    )


def _announce(parts: Parts, trainer: Trainer) -> None:
    objective, settings = parts.objective, parts.settings
    log.info(
        "%s, %s with %d parameters, weights %s, %s, seed %d, %s on %s",
        type(parts.pde).__name__,
        type(objective.network).__name__,
        objective.layout.size,
        type(parts.weighting).__name__.lower(),
        type(parts.optimizer).__name__,
        settings.seed,
        settings.dtype,
        objective.like.device,
    )
    log.info("kernel route: %s", objective.route)
    if objective.built_in:
        log.info("satisfied by construction: %s", ", ".join(objective.built_in))
    if trainer.progress.total_steps:
        end = trainer.progress.first_step + settings.iterations
        log.info("resuming at step %d of %d", trainer.progress.total_steps, end)


def _finish(parts: Parts, trainer: Trainer, directory: Path, outcome: Outcome, configuration: str) -> None:
    """Write what a run leaves behind besides tables and checkpoint; the figures last, for they may fail alone."""
    write_points(parts.points, directory)
    parts.diagnostics.finish(directory)
    with trainer.progress.phase("evaluation"):
        evaluator = parts.evaluator if parts.settings.time_windows == 1 else _whole_evaluator(parts)
        write_solution(evaluator, parts.pde.fields, directory)
        if evaluator is not parts.evaluator:  # errors so far were those of single windows
            trainer.progress.error, trainer.progress.error_step = evaluator.error(), trainer.progress.total_steps
            trainer.progress.best_error = trainer.progress.best_step = None
    write_summary(parts.settings, trainer, outcome, directory, configuration)
    if parts.settings.plots:
        from ntkrun.plots import plot_run

        plot_run(directory)


def _whole_evaluator(parts: Parts) -> Evaluator:
    """Compares the networks of all time windows so far with the solution on all of time."""
    networks = [*parts.earlier, parts.objective.network]
    starts = time_edges(parts.pde.domain, parts.settings.time_windows)[: len(networks)]
    whole = Piecewise(networks, starts, parts.pde.coordinates.index(TIME))
    return Evaluator(parts.pde, whole, parts.objective.like, parts.grid)


def _device(name: str) -> str:
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ConfigError("device=cuda: no CUDA device is available; allowed here are auto and cpu")
    return "cuda" if name == "auto" and available else "cpu" if name == "auto" else name
