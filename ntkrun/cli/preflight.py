"""Checking configurations before anything of them is carried out."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ntkrun.cli.hydra_errors import explain
from ntkrun.common.errors import refuse
from ntkrun.common.torchrun import several_processes
from ntkrun.config.assembly import assemble
from ntkrun.config.schema import ConfigError, plain
from ntkrun.storage.lock import BusyError, check_free


@dataclass(frozen=True)
class Sweep:
    """A sweep that this process has started.

    Attributes:
        directory: of all its jobs.
        report: whether it ends with a report.
    """

    directory: Path
    report: bool


_sweeps: list[Sweep] = []


def started_sweep() -> Sweep | None:
    """The sweep that this process has just carried out, if it was one."""
    return _sweeps.pop() if _sweeps else None


class CheckBeforeStart(Callback):
    """Hydra callback that refuses what cannot run; Hydra calls it before it makes any directory."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Leave with exit status 2 where the configuration cannot be used, or its directory is in use."""
        _check(config)
        _check_directory(config)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Leave with exit status 2 where some value of the sweep cannot be used.

        Every value is looked at once, together with the first values of the other keys. What only fails in
        other combinations fails in its own job.
        """
        if several_processes():
            refuse("a sweep cannot be started by torchrun; start its runs one after the other")
        _sweeps[:] = [Sweep(Path(config.hydra.sweep.dir), bool(config.report))]
        for overrides in _each_value_once([*config.hydra.overrides.task, *_sweeper_parameters(config)]):
            try:
                composed = compose(config.hydra.job.config_name, overrides=overrides)
            except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
                refuse(explain(error, sys.argv[1:]))
            _check(composed)


def own_values(config: DictConfig) -> dict[str, Any]:
    """The configuration without Hydra's own node, as plain values."""
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    assert isinstance(own, DictConfig)
    return plain(own)


def _check(config: DictConfig) -> None:
    try:
        assemble(own_values(config))
    except ConfigError as error:
        refuse(error)


def _check_directory(config: DictConfig) -> None:
    """Look for another process before Hydra overwrites the configuration of its run."""
    if OmegaConf.is_interpolation(config.hydra.run, "dir"):  # made from what is new in every run
        return
    try:
        check_free(Path(config.hydra.run.dir))
    except BusyError as error:
        refuse(error)


def _sweeper_parameters(config: DictConfig) -> list[str]:
    parameters = config.hydra.sweeper.get("params") or {}
    return [f"{key}={value}" for key, value in parameters.items()]


def _each_value_once(arguments: Sequence[str]) -> Iterator[list[str]]:
    """Overrides without sweeps, such that every value of every discrete sweep occurs."""
    choices = []
    for override in OverridesParser.create().parse_overrides(list(arguments)):
        if not override.is_sweep_override():
            assert override.input_line is not None
            choices.append([override.input_line])
        elif override.is_discrete_sweep():
            choices.append([f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()])
    first = [values[0] for values in choices]
    yield first
    for i, values in enumerate(choices):
        for value in values[1:]:
            yield [*first[:i], value, *first[i + 1 :]]
