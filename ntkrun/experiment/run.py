"""One run: from a configuration and a directory to results on disk."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path
from typing import Any, Literal

import torch

from ntkrun.common.state_schema import NoneOr, Real, StateError, read_state, schema_of
from ntkrun.common.user_frames import cause
from ntkrun.config.assembly import Marching, Parts, assemble
from ntkrun.config.configuration import Configuration
from ntkrun.config.schema import ConfigError
from ntkrun.experiment.description import write_description
from ntkrun.experiment.identity import compare, fingerprint, identity
from ntkrun.experiment.results import (
    Outcome,
    remove_solution,
    write_points,
    write_residuals,
    write_solution,
    write_summary,
)
from ntkrun.experiment.windows import ENOUGH, UNSOLVED, attempted, ends_of, misfit, next_ends, states_before
from ntkrun.geometry import TIME
from ntkrun.network import feature_count
from ntkrun.network.coupling import suspects
from ntkrun.objective.symmetry import left_open, reads_outside
from ntkrun.pde.check import floating_fields, unread_coefficients
from ntkrun.pde.continuation import UNTIL
from ntkrun.runtime.allocator import keep_freed_memory
from ntkrun.runtime.distributed import LostError, agreed, part, present
from ntkrun.runtime.memory import shortage
from ntkrun.runtime.signals import STOPPING, StopRequest, stop_on_signals
from ntkrun.runtime.threads import spare_threads
from ntkrun.steps.cost_model import choose, step_work
from ntkrun.storage.atomic import WriteError, remove_leftovers
from ntkrun.storage.checkpoint import (
    BEST,
    Checkpoint,
    CheckpointError,
    drop_best,
    drop_damaged,
    has_checkpoint,
    load_best,
    load_checkpoint,
    load_earlier,
    reinstate,
    set_aside,
)
from ntkrun.storage.lock import BusyError, locked
from ntkrun.storage.log_files import logging_to
from ntkrun.storage.summary import read_summary
from ntkrun.storage.table import TableError
from ntkrun.training.evaluation import EvaluationStopped, Evaluator, Interrupted
from ntkrun.training.finite_checks import DivergenceError
from ntkrun.training.parts import LoopSettings
from ntkrun.training.progress import Progress, Targets
from ntkrun.training.records import Columns, Records, tables_schema
from ntkrun.training.time_marching import Piecewise, chosen, growing, may_grow, may_march
from ntkrun.training.trainer import Trainer, restore
from ntkrun.training.workers import Follower, NoRecords, silence

log = logging.getLogger(__name__)

GRACE = 10.0  # seconds that an interrupted run may still take for its solution

GROWN = 10  # times the least loss at held-out points, from which on networks are told apart by it, if by anything

REFUSED = (ConfigError, CheckpointError, TableError, BusyError)
"""What ``execute`` raises where there is nothing that it could carry out; the messages are one line."""


def execute(
    configuration: Configuration,
    directory: Path,
    resume: bool = False,
    signals: Sequence[signal.Signals] = STOPPING,
    description: Mapping[str, str] | None = None,
    accepted: Sequence[str] = (),
    parts: Parts | None = None,
) -> Outcome:
    """Carry out a run in its directory, or resume it from its checkpoint.

    Args:
        configuration: of the run.
        directory: an existing directory; receives tables, checkpoint, solution, plots and summary.
        resume: continue from the checkpoint in the directory, or from the start where the run had not come so far.
        signals: which ask the run to stop.
        description: texts to keep in the directory before anything else, by name (``write_description``).
        accepted: keys of the configuration that may differ from the checkpoint's.
        parts: what the configuration describes, where it is assembled already, in this process and as the last one.

    Raises:
        BusyError: another process works on the run.
        ConfigError: a value cannot be used.
        CheckpointError: there is no usable checkpoint.
        TableError: the tables are those of another run.
        WriteError: the run cannot even begin to write.
    """
    if not present().leads:
        return _follow(configuration, parts)
    with locked(directory):
        if description:
            write_description(directory, description)
        remove_leftovers(directory)
        checkpoint = _find_checkpoint(configuration, directory) if resume else None
        note = compare(checkpoint.state, configuration.values, accepted) if checkpoint else ""
        state = present().broadcast(checkpoint.state if checkpoint else None)
        parts, progress = _set_up(configuration, parts, state)
        tables = _tables(state) if state else None
        with logging_to(directory), stop_on_signals(signals) as own:
            stop = agreed(own)
            if note:
                log.info(note)
            if state is None and parts.settings.start_from is not None:
                log.info("the network starts as that of %s", parts.settings.start_from)
            if checkpoint is None:
                set_aside(directory)
            elif checkpoint.trouble:
                log.warning(checkpoint.trouble)
                drop_damaged(directory)
            if checkpoint is not None:
                _check_best(parts, progress, directory)
            records = make_records(parts, directory, progress.total_steps if state else None, tables)
            trainer = make_trainer(parts, records, directory, stop, progress, identity(configuration.values))
            return _carry_out(configuration, parts, trainer, stop)


def _follow(configuration: Configuration, parts: Parts | None) -> Outcome:
    """Train along with the process that leads, which alone tells what becomes of the run."""
    state: dict[str, Any] | None = present().broadcast(None)
    parts, progress = _set_up(configuration, parts, state)
    with silence(), stop_on_signals() as own, suppress(DivergenceError):
        stop = agreed(own)
        trainer = make_trainer(parts, NoRecords(), Path(), stop, progress)
        while trainer.fit() is not None and (following := _next_window(configuration, parts, trainer)) is not None:
            parts = following
            trainer = make_trainer(parts, NoRecords(), Path(), stop, progress)
        part()
    return Outcome("completed")


def _set_up(
    configuration: Configuration, parts: Parts | None, state: Mapping[str, Any] | None
) -> tuple[Parts, Progress]:
    """The parts of a run and how far it has come, from the state of its checkpoint if it is resumed."""
    if state is not None:
        parts = _assemble_window(configuration, state)
    elif parts is None:
        parts = assemble(configuration)
    fresh = Progress(ends=list(parts.ends), growing=growing(parts.objective.pde))
    progress = _restore(parts, state) if state else fresh
    if progress.step > parts.settings.iterations:
        given, done = parts.settings.iterations, progress.step
        raise ConfigError(f"iterations={given}: the run has done {done} steps; give {done} or more")
    if parts.settings.threads == "auto":
        counts, size = parts.points.counts, parts.objective.layout.size
        matrices = parts.optimizer.matrix_work(parts.objective.residual_rows(counts), size)
        spare_threads(step_work(parts.objective, counts), matrices)
    keep_freed_memory()
    return parts, progress


def _carry_out(configuration: Configuration, parts: Parts, trainer: Trainer, stop: StopRequest) -> Outcome:
    """Train to the end, or to what ends it early, and write what a run leaves behind."""
    directory, progress, digest = trainer.directory, trainer.progress, fingerprint(configuration.values)
    logger = parts.logger  # of the first window, for all
    outcome = Outcome("failed", 1)
    try:
        write_summary(parts.settings, trainer, Outcome("running"), directory, digest)
        _announce(parts, trainer)
        logger.start(directory, configuration.values, progress.total_steps)
        ended = trainer.fit()
        while ended is not None and (following := _next_window(configuration, parts, trainer)) is not None:
            parts = following
            trainer = make_trainer(parts, trainer.records, directory, stop, progress, trainer.configuration)
            ended = trainer.fit()
        part()
        if ended is not None:
            _advise(trainer)
            _doubt_best(trainer)
        outcome = _interrupted(stop, progress.total_steps) if ended is None else _completed(ended)
    except (DivergenceError, WriteError, LostError) as error:
        outcome = Outcome("failed", 1, str(error))
        log.error("%s; %s", error, _kept(directory))
    except BaseException as error:
        if reason := shortage(error):
            outcome = Outcome("failed", 1, f"step {progress.total_steps}: {reason}")
            log.error("%s; the last checkpoint is kept", outcome.message)
        else:
            outcome = Outcome("failed", 1, ", ".join([cause(error), *getattr(error, "__notes__", ())[:1]]))
            log.error("the run failed at step %d: %s", progress.total_steps, outcome.message, exc_info=error)
            if isinstance(error, KeyboardInterrupt) and stop.signal is not None:  # the second Ctrl-C
                raise
    finally:
        outcome = _leave(parts, trainer, outcome, digest, stop)
        logger.finish(directory, outcome.status)
    return outcome


def _leave(parts: Parts, trainer: Trainer, outcome: Outcome, digest: str, stop: StopRequest) -> Outcome:
    """Write what a run leaves behind, as far as it can be written; a run that cannot write everything has failed."""
    try:
        trainer.records.close()
        outcome = _finish(parts, trainer, outcome, digest, stop)
    except WriteError as error:
        if outcome.status != "failed":
            outcome = Outcome("failed", 1, str(error))
            log.error("%s; %s", error, _kept(trainer.directory))
        with suppress(WriteError):  # there may be room for as little as this
            write_summary(parts.settings, trainer, outcome, trainer.directory, digest)
    return outcome


def _kept(directory: Path) -> str:
    return "the last checkpoint is kept" if has_checkpoint(directory) else "there is no checkpoint yet"


def _find_checkpoint(configuration: Configuration, directory: Path) -> Checkpoint | None:
    """The checkpoint to resume from; nothing where a run was killed, or failed, before its first checkpoint.

    Such a run resumes from what an earlier one of the same configuration had left there.
    """
    if not has_checkpoint(directory):
        earlier = load_earlier(directory) or {}
        if earlier.get("configuration") == identity(configuration.values) and earlier.get("tables"):
            reinstate(directory)
    if has_checkpoint(directory) or read_summary(directory).get("status") in ("completed", "interrupted"):
        return load_checkpoint(directory)
    return None


def _check_best(parts: Parts, progress: Progress, directory: Path) -> None:
    """Say where the network of the smallest error so far is lost, so that the next best one takes its place."""
    if not parts.settings.keep_best or parts.edges or progress.best_step is None:
        return
    try:
        read_state(schema_of(parts.objective.network.state_dict()), load_best(directory).get("network"), "network")
    except (CheckpointError, StateError) as error:
        trouble = str(error) if BEST in str(error) else f"{BEST} does not fit this run: {error}"
        log.warning("%s; it is replaced by the network of the next error", trouble)
        progress.forget_best()


def _tables(state: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a checkpoint knows of the tables."""
    try:
        tables: dict[str, Any] | None = read_state(tables_schema(), state.get("tables"), "tables")
    except StateError as error:
        raise misfit(error) from None
    return tables


class Standing(Enum):
    """What a directory holds, seen from a configuration."""

    NEW = auto()
    UNFINISHED = auto()
    COMPLETED = auto()
    OTHER = auto()


def standing(configuration: Configuration, directory: Path) -> Standing:
    """What a directory holds of the run that a configuration describes.

    ``OTHER`` is a run of another configuration, ``UNFINISHED`` one with a checkpoint that is not yet as long as asked.
    """
    summary = read_summary(directory)
    if "configuration" not in summary:
        return Standing.NEW
    if summary["configuration"] != fingerprint(configuration.values):
        return Standing.OTHER
    ended_early = bool(summary["message"])
    if summary["status"] == "completed" and (ended_early or summary["iterations"] >= configuration.settings.iterations):
        return Standing.COMPLETED
    return Standing.UNFINISHED if has_checkpoint(directory) else Standing.NEW


def _assemble_window(configuration: Configuration, state: Mapping[str, Any]) -> Parts:
    """The parts of the time window that a checkpoint was written in."""
    earlier, progress = states_before(configuration.settings.equal_windows, state), state.get("progress", {})
    try:
        given: float | Literal["auto"] | None = "auto"  # earlier versions decided it anew
        if isinstance(progress, dict) and "growing" in progress:
            given = read_state(NoneOr(Real(0)), progress["growing"], "progress.growing")
        marching = Marching(earlier=earlier, ends=ends_of(state), growing=given)
        return assemble(configuration.without_start(), marching)  # the checkpoint has the network
    except (StateError, RuntimeError) as error:
        raise misfit(error) from None


def _next_window(configuration: Configuration, parts: Parts, trainer: Trainer) -> Parts | None:
    """The parts of the time window after the one that is done, or of a shorter one in its place, if there is one."""
    progress, earlier = trainer.progress, list(trainer.earlier)
    if parts.ends:
        ends = next_ends(parts, trainer)
        if ends is None:
            return None
        if len(ends) > len(parts.ends):
            earlier.append(trainer.objective.network.state_dict())
        elif not parts.edges:
            if present().leads:
                drop_best(trainer.directory)
            progress.forget_best()
    elif progress.window + 1 < parts.settings.equal_windows:
        ends = []
        _advise(trainer)
        log.info("time window %d of %d is done", progress.window + 1, trainer.loop.windows)
        earlier.append(trainer.objective.network.state_dict())
    else:
        return None
    progress.first_step, progress.step, progress.window, progress.ends = progress.total_steps, 0, len(earlier), ends
    return assemble(configuration, Marching(earlier=earlier, ends=ends, growing=growing(trainer.objective.pde)))


def _advise(trainer: Trainer) -> None:
    """Say where a run, or a time window, has ended far from a solution, and what to try."""
    left, progress, loop, pde = trainer.optimizer.left(), trainer.progress, trainer.loop, trainer.objective.pde
    if left is None or left < UNSOLVED or progress.step < ENOUGH or loop.targets or pde.measurements:
        return
    if chosen(trainer.parts.pde.domain, trainer.parts.ends):
        return  # it has been said of this window
    if TIME not in pde.coordinates:
        words = "more points, pde.sampling=adaptive, or continuation(...) in a small coefficient"
    else:
        words = "growing_time=0.1" if may_grow(pde) else "point_weights=causal"
        words += " or time_windows=adaptive" if may_march(trainer.parts.pde) else ""
    if loop.windows > 1:
        words += "; what follows begins with what this window has missed"
    log.warning(
        "%sthe loss is still %.1g of the first, where solved problems leave less than 1e-6 under Gauss-Newton; try %s "
        "(see Where a run does not get there in docs/own_problems.md)",
        *(f"time window {progress.window + 1} of {loop.windows}: " if loop.windows > 1 else "", left, words),
    )


def _doubt_best(trainer: Trainer) -> None:
    """Say where the loss at held-out points has grown, but few of them hold it: it then says little of the error."""
    progress, held_out = trainer.progress, trainer.held_out
    if held_out is None or progress.held_out is None or progress.best_held_out is None:
        return
    if progress.held_out < GROWN * progress.best_held_out:
        return
    few = held_out.held_by_few(trainer.weighting.weights.tolist())
    if few:
        log.warning(
            "the loss at held-out points is %.2g times that at step %s, but %s: it says little of the error, and the "
            "network of that step in best.pt may be the worse one",
            *(progress.held_out / progress.best_held_out, progress.best_step, few),
        )


def _restore(parts: Parts, state: Mapping[str, Any]) -> Progress:
    """Put a checkpoint's state into the parts of a run."""
    try:
        return restore(parts, state)
    except Exception as error:  # those of users' own classes too
        raise misfit(error) from error


def _completed(ended: str) -> Outcome:
    if ended:
        log.info("ended early: %s", ended)
    return Outcome("completed", message=ended)


def _interrupted(stop: StopRequest, step: int) -> Outcome:
    number = stop.signal or stop.heard()
    assert number is not None
    message = f"{number.name} at step {step}; the run can be resumed"
    log.warning(message)
    return Outcome("interrupted", 128 + number, message)


def make_trainer(
    parts: Parts, records: Records, directory: Path, stop: StopRequest, progress: Progress, configuration: str = ""
) -> Trainer:
    """What trains these parts; of the processes that do not lead, one that writes nothing."""
    settings = parts.settings
    steps = parts.optimizer.gradient_steps(settings.iterations)
    choice = choose(settings.trainer.compile, steps, parts.objective, parts.points.counts)
    kind = Trainer if present().leads else Follower
    loop = LoopSettings(
        iterations=attempted(settings.iterations) if chosen(parts.pde.domain, parts.ends) else settings.iterations,
        windows=settings.equal_windows,
        targets=Targets(settings.stop.error, settings.stop.loss),
        seconds=settings.stop.seconds,
        log_every=settings.log_every,
        evaluate_every=settings.evaluate_every,
        checkpoint_every=settings.checkpoint_every,
        keep_best=settings.keep_best and not parts.edges,
        show_bar=settings.progress,
    )
    return kind(parts, loop, records, directory, stop, choice, progress, configuration)


def make_records(
    parts: Parts, directory: Path, keep_below: int | None, tables: Mapping[str, Any] | None = None
) -> Records:
    """The tables of a run, opened; rows of an earlier part from the step ``keep_below`` on are dropped."""
    digits = 17 if parts.settings.dtype == "float64" else 9
    objective = parts.objective
    columns = Columns(
        terms=objective.names,
        further=parts.weighting.columns(),
        weighted_points=parts.point_weights.columns(),
        fields=parts.pde.fields if len(parts.pde.fields) > 1 else (),
        held_out=parts.held_out is not None,
        coefficients=tuple(c.name for c in parts.pde.coefficients),
        batched=tuple(parts.points.epochs(0)),
        steps=parts.optimizer.columns(),
    )
    return Records(directory, columns, parts.logger, digits, keep_below, tables)


def _announce(parts: Parts, trainer: Trainer) -> None:
    objective, settings = parts.objective, parts.settings
    log.info(
        "%s, %s with %d parameters, weights %s, %s, seed %d, %s on %s%s",
        type(parts.pde).__name__,
        type(objective.network).__name__,
        objective.layout.size,
        type(parts.weighting).__name__.lower(),
        type(parts.optimizer).__name__,
        settings.seed,
        settings.dtype,
        objective.like.device,
        "" if objective.like.device.type == "cuda" else f", threads: {torch.get_num_threads()}",
    )
    log.info("kernel route: %s", objective.route)
    coupled = suspects(objective.network)
    if not objective.pointwise and (coupled or not objective.mixing):  # a residual that mixes is warned of by itself
        log.warning(
            "outputs at one point depend on other points, so derivatives there are mixed with those of others; %s",
            coupled or "every point should stand alone",
        )
    if objective.size is not None:
        shared = f"shared out among {objective.ranks.count} processes and " if objective.ranks.count > 1 else ""
        log.info("points are %sevaluated in chunks of at most %d", shared, objective.size)
    for text in objective.rules:
        log.info("%s", text)
    for name in parts.points.epochs(0):
        count, total = parts.points.counts[name], parts.points.totals[name]
        log.info("%s: batches of %d of %d points, each once per epoch", name, count, total)
    if objective.built_in:
        log.info("hard constraints: %s", ", ".join(objective.built_in))
    if count := feature_count(parts.pde):
        log.info("the network reads %d features beside the coordinates", count)
    if parts.pde.constrains and not parts.pde.built_in:
        log.info("the network's outputs are transformed by constrain(); all terms are trained")
    if (part := growing(objective.pde)) is not None:
        log.info(
            "time grows from %g of %s to all of it over the first %g %% of the steps (growing_time)",
            *(part, "every window" if parts.edges else "its interval", 100 * UNTIL),
        )
    for field in floating_fields(parts.pde):
        log.warning(
            "no term reads %s itself, only derivatives: it is found up to a constant, which errors and the choice of "
            "best.pt count; a term with its value at one point would fix it",
            field,
        )
    for name in unread_coefficients(parts.pde):
        log.warning("no term declares the coefficient %s among its derivatives: nothing trains it", name)
    alone = objective.alone()
    if ambiguity := left_open(alone, parts.points.counts):
        log.warning("%s", ambiguity)
    for name, where in reads_outside(alone, parts.points.counts).items():
        log.warning(
            "loss term %s at %s reads the solution outside of the domain, where nothing is trained", name, where
        )
    for field, table in parts.pde.measurements.items():
        log.info("%d measured values of %s", len(table.rows), field)
    if parts.held_rows:
        log.info("%d more measured values are held out", parts.held_rows)
    if parts.evaluator.about:
        log.info("%s", parts.evaluator.about)
    if trainer.progress.total_steps:
        end = trainer.progress.first_step + settings.iterations
        log.info("resuming at step %d of %d", trainer.progress.total_steps, end)


def _finish(parts: Parts, trainer: Trainer, outcome: Outcome, digest: str, stop: StopRequest) -> Outcome:
    """Write what a run leaves behind besides tables and checkpoint; the figures last, for they may fail alone.

    A signal that comes before the solution is written makes a completed run an interrupted one.
    """
    directory = trainer.directory
    write_points(parts.points, directory)
    if outcome.status != "failed":
        write_residuals(parts.points, parts.objective, directory)
    parts.diagnostics.finish(directory)
    try:
        _evaluate_end(parts, trainer, _patience(stop))
    except EvaluationStopped:
        log.warning("solution.npz is left out: a signal came before it was done")
        remove_solution(directory)  # that of an earlier part of the run
        if outcome.status == "completed":
            outcome = _interrupted(stop, trainer.progress.total_steps)
    write_summary(parts.settings, trainer, outcome, directory, digest)
    if parts.settings.plots:
        from ntkrun.plots.run import plot_run

        plot_run(directory)
    return outcome


def _evaluate_end(parts: Parts, trainer: Trainer, interrupted: Interrupted) -> None:
    """Write ``solution.npz``; with time windows, also take the error on all of time."""
    progress = trainer.progress
    evaluator = _whole_evaluator(parts) if parts.edges else parts.evaluator
    with progress.phase("saving"):
        write_solution(evaluator, parts.pde, trainer.directory, interrupted)
    if evaluator is not parts.evaluator:  # errors so far were those of single windows
        with progress.phase("evaluation"):
            errors = evaluator.error(interrupted)
        if errors is not None:
            progress.saw_errors(errors)
        progress.forget_best()


def _patience(stop: StopRequest) -> Interrupted:
    """Leaves an evaluation once a signal comes, or some time after the one that has come before."""
    if not stop.heard():
        return stop.heard
    end = time.monotonic() + GRACE
    return lambda: time.monotonic() > end


def _whole_evaluator(parts: Parts) -> Evaluator:
    """Compares the networks of all time windows so far with the solution on all of time."""
    networks = [*parts.earlier, parts.objective.network]
    whole = Piecewise(networks, parts.edges[: len(networks)], parts.pde.coordinates.index(TIME))
    return Evaluator(parts.pde, whole, parts.objective.like, parts.grid)
