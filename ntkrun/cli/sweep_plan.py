"""The plan of a sweep, from its command line."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

from ntkrun.cli.sweep_jobs import shared
from ntkrun.common.errors import ConfigError

MOST_JOBS = 100_000
OF_THE_SWEEP = -1


def swept(config: DictConfig) -> list[Override]:
    """The overrides of a sweep, those of its sweeper's own configuration first; the last one of a key holds.

    Raises:
        ConfigError: the sweep is of no jobs, or of more than anybody can want.
    """
    parameters = config.hydra.sweeper.get("params") or {}
    arguments = [*(f"{key}={value}" for key, value in parameters.items()), *config.hydra.overrides.task]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())  # it knows groups, for glob
    overrides = list({each.get_key_element(): each for each in parser.parse_overrides(arguments)}.values())
    _check_size(overrides)
    return overrides


def _check_size(overrides: Sequence[Override]) -> None:
    jobs = 1
    for override in overrides:
        if not override.is_discrete_sweep():
            continue
        try:
            values = sum(1 for _ in itertools.islice(override.sweep_iterator(), MOST_JOBS + 1))
        except (ValueError, ArithmeticError):
            raise ConfigError(f"{override.input_line}: there are no such values") from None
        if not values:
            raise ConfigError(f"{override.input_line}: there is no value in it; the sweep would be empty")
        jobs *= values
        if jobs > MOST_JOBS:
            raise ConfigError(f"{override.input_line}: the sweep would be of more than {MOST_JOBS} jobs")


def each_value_once(overrides: Sequence[Override]) -> Iterator[list[str]]:
    """Overrides without sweeps, such that every value of every discrete sweep occurs."""
    choices = []
    for override in overrides:
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


def planned_jobs(config: DictConfig, overrides: list[Override]) -> int:
    """The number of jobs, where the sweeper is the one that tries all combinations, else 0.

    Raises:
        SharedDirectoryError: two of them have the same directory.
    """
    if not str(config.hydra.sweeper._target_).endswith(".BasicSweeper"):
        return 0
    (jobs,) = BasicSweeper.split_arguments(overrides, None)
    node: Any = OmegaConf.to_container(config.hydra.sweep)
    if not re.search(r"hydra[:.]job\.(num|id)\b", str(node["subdir"])):
        _check_directories(config, jobs)
    return len(jobs)


def _check_directories(config: DictConfig, jobs: Sequence[Sequence[str]]) -> None:
    loader = GlobalHydra.instance().config_loader()
    before = HydraConfig.instance().cfg
    taken: dict[str, int] = {os.path.realpath(config.hydra.sweep.dir): OF_THE_SWEEP}
    try:
        for number, job in enumerate(jobs):
            composed = loader.load_sweep_config(config, list(job))
            with open_dict(composed):
                composed.hydra.job.id = composed.hydra.job.num = number
            HydraConfig.instance().set_config(composed)
            directory = os.path.realpath(os.path.join(composed.hydra.sweep.dir, str(composed.hydra.sweep.subdir)))
            other = taken.setdefault(directory, number)
            if other == OF_THE_SWEEP:
                raise ConfigError(f"hydra.sweep.subdir={composed.hydra.sweep.subdir}: this is the sweep's directory")
            if other != number:
                raise shared(other, number, directory)
    finally:
        HydraConfig.instance().cfg = before
