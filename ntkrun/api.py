"""Training and loading runs from Python: what the command line does, without taking over the process."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict

from ntkrun.cli.compose import compose_run
from ntkrun.cli.hydra_job import describe  # its module registers what names run directories
from ntkrun.cli.preflight import own_values
from ntkrun.cli.resume import read_resume
from ntkrun.common.errors import ConfigError
from ntkrun.common.state_schema import StateError, read_state, schema_of
from ntkrun.common.torchrun import several_processes
from ntkrun.config.assembly import Parts, assemble, build_networks
from ntkrun.config.classes import look_for_modules_in
from ntkrun.config.configuration import Configuration, read_configuration
from ntkrun.experiment.received import read_received
from ntkrun.experiment.run import execute
from ntkrun.experiment.trained import TrainedRun
from ntkrun.experiment.windows import ends_of, misfit, states_before
from ntkrun.runtime.process_state import process_state_kept
from ntkrun.runtime.threads import set_threads
from ntkrun.storage.atomic import writing
from ntkrun.storage.checkpoint import load_best, load_checkpoint
from ntkrun.storage.lock import check_free


class RunError(RuntimeError):
    """A run that failed, such as by numbers that are not finite; what it wrote until then is kept.

    Attributes:
        directory: of the run.
    """

    def __init__(self, message: str, directory: Path) -> None:
        super().__init__(message)
        self.directory = directory


def train(overrides: Sequence[str] = (), *, config_dir: str | Path | None = None) -> TrainedRun:
    """Carry out a run as ``ntkrun OVERRIDES`` does, and load it.

    Signals and the exit of the process are left alone, and threads, random numbers, limits and the like are put back
    at the end. An interruption (Ctrl-C, or the kernel's stop button) writes a checkpoint first.

    Args:
        overrides: as on the command line, ``group=choice`` and ``key=value``; or ``resume=DIRECTORY`` with the changes
            that it allows. Sweeps are for the command line.
        config_dir: a directory with groups of one's own, as ``--config-dir``.

    Raises:
        ConfigError: the configuration cannot be used; no directory is made then. What else cannot be carried out (no
            usable checkpoint, another process at work in the directory) raises other kinds of ``ValueError``.
        RunError: the run failed.
        KeyboardInterrupt: it was interrupted; its message names what was kept.
    """
    if several_processes():
        raise ConfigError("train is for one process; torchrun starts the command line, torchrun -m ntkrun")
    resumes = any(override.startswith("resume=") for override in overrides)
    with process_state_kept(), _hydra_kept():
        look_for_modules_in(os.getcwd())
        if resumes:
            directory, configuration, accepted = read_resume(overrides)
            set_threads(configuration.settings.threads, None)
            parts, description = None, None
        else:
            directory, configuration, parts, description = _prepare(overrides, config_dir)
            accepted = []
        directory = directory.absolute()
        try:
            outcome = execute(configuration, directory, resumes, (signal.SIGINT,), description, accepted, parts)
        finally:
            if "ntkrun.steps.graph" in sys.modules:
                sys.modules["ntkrun.steps.graph"].forget_graphs()
    if outcome.status == "interrupted":
        raise KeyboardInterrupt(f"{outcome.message}: {directory}")
    if outcome.status != "completed":
        raise RunError(outcome.message, directory)
    return _open(directory, configuration, load_checkpoint(directory).state)


def load(
    directory: str | Path, *, best: bool = False, trust: str | Sequence[str] = (), device: str | None = None
) -> TrainedRun:
    """A run that is there already, from its checkpoint.

    The directory may come from someone else: as for ``ntkrun resume=DIRECTORY``, no module but ntkrun's own is
    imported unless it is trusted, and pickles and links are refused.

    Args:
        directory: the run directory.
        best: take the network of the smallest error, ``best.pt``, instead of the last one.
        trust: modules of one's own whose classes the configuration names.
        device: ``cpu`` or ``cuda`` instead of the device of the run.

    Raises:
        ConfigError: it is no run directory, or names what is not trusted.
        CheckpointError: there is no network in it that can be used.
    """
    modules = [trust] if isinstance(trust, str) else list(trust)
    with process_state_kept():
        if modules:
            look_for_modules_in(os.getcwd())
        place, changes = Path(directory), {} if device is None else {"device": device}
        configuration = read_received(place, str(directory), modules, changes)
        return _open(place.absolute(), configuration, load_best(place) if best else load_checkpoint(place).state)


def _open(directory: Path, configuration: Configuration, state: Mapping[str, Any]) -> TrainedRun:
    """The run of a directory with the networks of a state."""
    with process_state_kept():
        try:
            ends = ends_of(state)
            earlier = states_before(configuration.settings.equal_windows, state)
            pde, networks = build_networks(configuration.without_start(), earlier, ends)
            schema = schema_of(networks[-1].state_dict())
            networks[-1].load_state_dict(read_state(schema, state.get("network"), "network"))
        except (StateError, RuntimeError) as error:
            raise misfit(error) from None
    return TrainedRun(directory, configuration.values, pde, networks, ends)


@contextmanager
def _hydra_kept() -> Iterator[None]:
    """Hydra's global state is free inside and as it was afterwards, for callers that use Hydra themselves."""
    hydra, config = GlobalHydra.instance(), HydraConfig.instance()
    before = hydra.hydra, config.cfg
    hydra.clear()
    try:
        yield
    finally:
        hydra.hydra, config.cfg = before


def _prepare(
    overrides: Sequence[str], config_dir: str | Path | None
) -> tuple[Path, Configuration, Parts, dict[str, str]]:
    """Compose a configuration, assemble its parts and make its directory, as the command line does.

    Returns:
        The directory, the configuration, its parts, and what to keep of the configuration in the directory.
    """
    config = compose_run(overrides, config_dir, hydra=True)
    HydraConfig.instance().set_config(config)
    directory = Path(config.hydra.run.dir).absolute()
    OmegaConf.set_readonly(config.hydra, False)
    with open_dict(config):
        config.hydra.runtime.output_dir = str(directory)
    configuration = read_configuration(own_values(config))
    set_threads(configuration.settings.threads, None)
    parts = assemble(configuration)
    check_free(directory)
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
    return directory, configuration, parts, describe(config)
