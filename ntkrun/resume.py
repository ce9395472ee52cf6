"""Which run to go on with, and with what changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from ntkrun.config import ConfigError, closest, plain

ALLOWED = ("iterations", "stop.error", "stop.loss", "log_every", "checkpoint_every", "progress", "plots")
"""Keys that may change on resuming: the length of the run and its output."""


def read_resume(arguments: Sequence[str]) -> tuple[Path, dict[str, Any]]:
    """The run directory and its configuration, with the permitted changes.

    Args:
        arguments: ``resume=DIRECTORY`` and overrides.

    Raises:
        ConfigError: no such run, or a change that is not permitted.
    """
    overrides: dict[str, str] = {}
    for argument in arguments:
        key, separator, value = argument.partition("=")
        if not separator:
            raise ConfigError(f"{argument}: resume takes key=value overrides only")
        if key not in ("resume", *ALLOWED):
            raise ConfigError(f"{key} cannot change on resume; {', '.join(ALLOWED)} can{closest(key, ALLOWED)}")
        if key in overrides:
            raise ConfigError(f"{key} is given twice")
        overrides[key] = value
    directory = Path(overrides.pop("resume"))
    config_file = directory / ".hydra" / "config.yaml"
    if not directory.is_dir():
        raise ConfigError(f"resume={directory}: no such directory")
    if not config_file.is_file():
        raise ConfigError(f"resume={directory}: not a run directory, it has no .hydra/config.yaml")
    config = OmegaConf.load(config_file)
    if not isinstance(config, DictConfig):
        raise ConfigError(f"resume={directory}: .hydra/config.yaml is not a configuration")
    values = plain(config)
    if "iterations" in overrides and values.get("time_windows", 1) != 1:
        raise ConfigError("iterations cannot change on resume of a run in time windows; earlier ones are done")
    for key, value in overrides.items():
        *groups, name = key.split(".")
        try:
            read = OmegaConf.select(OmegaConf.from_dotlist([f"{key}={value}"]), key)
        except yaml.YAMLError:
            read = value  # the check of its type will refuse it
        node = values
        for group in groups:
            node = node[group]
        node[name] = read
    return directory, values
