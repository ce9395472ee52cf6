"""Checks of configurations before anything of them is carried out."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from ntkrun.cli.data_files import data_located
from ntkrun.cli.hydra_errors import explain
from ntkrun.cli.invocation import Assembled, present_invocation
from ntkrun.cli.sweep import Sweep
from ntkrun.cli.sweep_jobs import SharedDirectoryError
from ntkrun.cli.sweep_plan import each_value_once, planned_jobs, swept
from ntkrun.common.errors import fail, refuse
from ntkrun.common.torchrun import several_processes
from ntkrun.common.user_frames import cause, from_user_code
from ntkrun.config.assembly import assemble
from ntkrun.config.configuration import read_configuration
from ntkrun.config.schema import ConfigError, numbers_read, plain
from ntkrun.experiment.description import FOLDER
from ntkrun.runtime.signals import signal_passed_on
from ntkrun.runtime.threads import set_threads
from ntkrun.storage.atomic import WriteError
from ntkrun.storage.lock import BusyError, check_free


class CheckBeforeStart(Callback):
    """Hydra callback that refuses what cannot run; Hydra calls it before it makes any directory."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Leave with exit status 2 where the configuration cannot be used, or its directory is in use."""
        present_invocation().assembled = _assembled(config, of_sweep=False)
        _check_output_subdirectory(config)
        _check_directory(config)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Leave with exit status 2 where some value of the sweep cannot be used.

        Every value is looked at once, together with the first values of the other keys. What only fails in
        other combinations fails in its own job.
        """
        if several_processes():
            refuse("a sweep cannot be started by torchrun; start its runs one after the other")
        _check_output_subdirectory(config)
        try:
            overrides = swept(config)
            for each in each_value_once(overrides):
                whole = compose(config.hydra.job.config_name, overrides=each, return_hydra_config=True)
                _assembled(whole, of_sweep=True)
            planned = planned_jobs(config, overrides)
        except (ConfigError, SharedDirectoryError) as error:
            refuse(error)
        except Exception as error:  # Hydra, which calls this, would make a warning of it and go on
            refuse(explain(error, sys.argv[1:]))
        sweep = Sweep(Path(config.hydra.sweep.dir).absolute(), bool(config.report), planned)
        try:
            sweep.begin()
        except BusyError as error:
            refuse(error)
        except WriteError as error:
            fail(error)
        present_invocation().sweep = sweep


def own_values(config: DictConfig) -> dict[str, Any]:
    """The configuration without Hydra's own node, as plain values."""
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    assert isinstance(own, DictConfig)
    return data_located(numbers_read(plain(own)), config)


def _assembled(config: DictConfig, of_sweep: bool) -> Assembled:
    """A run of a configuration; leaves with exit status 2 where it cannot be used.

    Args:
        config: with or without Hydra's own node.
        of_sweep: whether it is only looked at here; its job assembles it again, in whatever process that is.
    """
    try:
        configuration = read_configuration(own_values(config))
        if not of_sweep:
            set_threads(configuration.settings.threads, None)
        return Assembled(configuration, assemble(configuration))
    except ConfigError as error:
        refuse(error)
    except BaseException as error:  # users' classes raise anything
        if not from_user_code(error) or (isinstance(error, KeyboardInterrupt) and signal_passed_on()):
            raise
        refuse(cause(error))


def _check_directory(config: DictConfig) -> None:
    """Look for another process before Hydra overwrites the configuration of its run."""
    if OmegaConf.is_interpolation(config.hydra.run, "dir"):  # made from what is new in every run
        return
    try:
        check_free(Path(config.hydra.run.dir))
    except BusyError as error:
        refuse(error)


def _check_output_subdirectory(config: DictConfig) -> None:
    """Hydra would write there before anybody has looked whether another process works in the directory."""
    given = config.hydra.output_subdir
    if given is not None and os.path.normpath(given) == FOLDER:
        refuse(f"hydra.output_subdir={given}: ntkrun itself keeps the configuration there; leave this out")
