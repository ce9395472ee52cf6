"""Hydra's task function: a single run, or one job of a sweep, in whatever process it is."""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ntkrun.cli.console import print_closing, print_line
from ntkrun.cli.invocation import present_invocation
from ntkrun.cli.preflight import own_values
from ntkrun.cli.restart import note_directory
from ntkrun.cli.sweep_jobs import Job, SharedDirectoryError, claim, note
from ntkrun.common.torchrun import leads, restarted
from ntkrun.common.user_frames import cause
from ntkrun.config.classes import look_for_modules_in
from ntkrun.config.configuration import Configuration, read_configuration
from ntkrun.config.schema import ConfigError
from ntkrun.experiment.description import FOLDER, write_description
from ntkrun.experiment.results import Outcome, achieved, write_failure
from ntkrun.experiment.run import REFUSED, Standing, execute, standing
from ntkrun.runtime.signals import become_worker, hand_over, signal_passed_on
from ntkrun.runtime.threads import set_threads
from ntkrun.runtime.user_changes import user_changes_undone
from ntkrun.storage.atomic import WriteError
from ntkrun.storage.lock import BusyError
from ntkrun.storage.log_files import logging_to
from ntkrun.storage.summary import read_summary

log = logging.getLogger(__name__)


def _unique() -> str:
    """Eight random hexadecimal digits: run directories differ even when runs start together."""
    return os.urandom(4).hex()


# Here, so that processes which a launcher starts have it as soon as they know of ``run_job``.
OmegaConf.register_new_resolver("ntkrun.unique", _unique, use_cache=True, replace=True)


class OtherRunError(ValueError):
    """A directory holds a run of another configuration, which is not to be overwritten."""


def run_job(config: DictConfig) -> float | None:
    """Carry out a configuration in the directory that Hydra has made for it.

    A single run leaves with its exit status. A job of a sweep records how it ended in its directory, so that
    the others continue; only a signal ends the sweep. What Slurm or torchrun starts again resumes from its checkpoint.

    Returns:
        What a sweeper that searches for the best values should make small; see ``achieved``.
    """
    hydra = HydraConfig.get()
    look_for_modules_in(hydra.runtime.cwd)
    directory = Path(hydra.runtime.output_dir)
    if hydra.mode is RunMode.MULTIRUN:
        return _run_sweep_job(config, hydra, directory)
    assembled = present_invocation().take_assembled()
    configuration = assembled.configuration if assembled else read_configuration(own_values(config))
    set_threads(configuration.settings.threads, None)
    if leads():
        note_directory(directory)
    goes_on = leads() and _goes_on(configuration, directory)
    with user_changes_undone():
        parts = assembled.parts if assembled else None
        outcome = execute(configuration, directory, resume=goes_on, description=describe(config), parts=parts)
    if leads():
        print_closing(directory, outcome)
    if outcome.status == "interrupted":
        _requeue_if_preempted()
    sys.exit(outcome.exit_status)


def describe(config: DictConfig) -> dict[str, str]:
    """What to keep of a configuration in its run's directory, by file.

    Interpolations are resolved, for they may depend on the day or the environment; Hydra's own part is as Hydra itself
    would write it.
    """
    hydra: Any = HydraConfig.instance().cfg
    try:
        own = OmegaConf.to_yaml(OmegaConf.create(own_values(config)))
    except ConfigError:  # which the run will be refused for
        own = OmegaConf.to_yaml(config)
    return {
        "config.yaml": own,
        "hydra.yaml": OmegaConf.to_yaml(hydra),
        "overrides.yaml": OmegaConf.to_yaml(hydra.hydra.overrides.task),
    }


def _run_sweep_job(config: DictConfig, hydra: Any, directory: Path) -> float | None:
    sweep, number = Path(hydra.sweep.dir).absolute(), int(hydra.job.num)
    worker = become_worker() if _in_joblib_worker(hydra) else None
    if worker and worker():
        return None
    outcome = _claimed_job(config, directory, sweep, number)
    print_line(number, directory, outcome)
    if worker and worker.alone():
        os._exit(outcome.exit_status)  # there is nobody to end this process otherwise
    stops = outcome.status == "interrupted" and not worker  # an exit of one worker would make joblib kill the others
    if stops and not hand_over(signal.Signals(outcome.exit_status - 128)):
        _requeue_if_preempted()
        sys.exit(outcome.exit_status)
    return achieved(directory) if outcome.status == "completed" else math.inf


def _claimed_job(config: DictConfig, directory: Path, sweep: Path, number: int) -> Outcome:
    """Carry out a job, and write down for the end of the sweep that it has started and how it ended."""
    try:
        claim(sweep, number, directory)
        with user_changes_undone():
            outcome = _sweep_job(config, directory)
    except SharedDirectoryError as error:
        outcome = Outcome("failed", 1, str(error))
    note(sweep, Job(number, str(directory), outcome.status, outcome.message))
    return outcome


def _in_joblib_worker(hydra: Any) -> bool:
    return "JoblibLauncher" in hydra.launcher._target_ and multiprocessing.current_process().name != "MainProcess"


def _sweep_job(config: DictConfig, directory: Path) -> Outcome:
    torch.set_default_dtype(torch.float32)  # whatever an earlier job in this process has left
    try:
        values = own_values(config)
        hydra = HydraConfig.get()
        if "BasicLauncher" not in hydra.launcher._target_:
            values["progress"] = False  # bars of several jobs would overwrite each other
        configuration = read_configuration(values)
        skip = configuration.settings.skip_completed
        set_threads(configuration.settings.threads, hydra)
        state = standing(configuration, directory)
        if state is Standing.COMPLETED and skip:
            return Outcome("completed", message="was there already")
        if state is Standing.OTHER and skip:
            raise OtherRunError(f"{directory} holds a run of another configuration")
        goes_on = state is Standing.UNFINISHED and (skip or _requeued())
        return execute(configuration, directory, resume=goes_on, description=describe(config))
    except (BusyError, OtherRunError) as error:  # the directory is another's
        return Outcome("failed", 1, str(error))
    except BaseException as error:  # users' code raises anything; a job fails by itself
        if isinstance(error, KeyboardInterrupt) and signal_passed_on():
            raise
        return _failure(error, directory, config)
    finally:
        if "matplotlib.pyplot" in sys.modules:
            sys.modules["matplotlib.pyplot"].close("all")
        if "ntkrun.steps.graph" in sys.modules:
            sys.modules["ntkrun.steps.graph"].forget_graphs()


def _failure(error: BaseException, directory: Path, config: DictConfig) -> Outcome:
    """Record in a job's directory why it could not be carried out."""
    outcome = Outcome("failed", 1, cause(error))
    if known := isinstance(error, (*REFUSED, WriteError)):
        outcome = Outcome("failed", 1, str(error))
    if read_summary(directory).get("message") != outcome.message:  # the run itself has not recorded it
        try:
            if not (directory / FOLDER).exists():
                write_description(directory, describe(config))
            with logging_to(directory):
                log.error(outcome.message, exc_info=error.__cause__ if known else error)
            write_failure(directory, outcome)
        except WriteError as trouble:
            print(f"ntkrun: {trouble}", file=sys.stderr)
    return outcome


def _goes_on(configuration: Configuration, directory: Path) -> bool:
    """Whether a run resumes what is in its directory: it was started again, and has not been done with."""
    if not (restarted() or _requeued()):
        return False
    found = standing(configuration, directory)
    # Under torchrun another process may have been lost while it left a run that was done.
    return found is Standing.UNFINISHED or (restarted() and found is Standing.COMPLETED)


def _requeued() -> bool:
    """Whether Slurm has started this job before."""
    return os.environ.get("SLURM_RESTART_COUNT", "0") != "0"


def _requeue_if_preempted() -> None:
    """Put this Slurm job back into the queue where it has to give way to another one.

    Slurm itself does so only with jobs that do not end within the time of grace.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return
    try:
        about = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, timeout=60).stdout
        if "JobState=RUNNING" in about and "Requeue=1" in about and re.search(r"\bPreemptTime=\d", about):
            subprocess.run(["scontrol", "requeue", job], capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("Slurm cannot be asked to requeue this job: %s", error)
