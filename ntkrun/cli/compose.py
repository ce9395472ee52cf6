"""Composition of a configuration from overrides, outside of Hydra's own main function."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml
from hydra import compose, initialize_config_module
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from ntkrun.cli.hydra_errors import explain
from ntkrun.common.errors import ConfigError


def compose_run(overrides: Sequence[str], config_dir: str | Path | None, hydra: bool = False) -> DictConfig:
    """The configuration of one run.

    Args:
        overrides: ``group=choice`` and ``key=value``.
        config_dir: a directory with groups of one's own, as ``--config-dir``.
        hydra: whether Hydra's own node is part of it.

    Raises:
        ConfigError: they cannot be used.
    """
    for override in overrides:
        if override.startswith("-") or not ("=" in override or override.startswith("~")):
            raise ConfigError(f"{override}: expected key=value; options and sweeps are for the command line")
    own = []
    if config_dir is not None:
        if not Path(config_dir).is_dir():
            raise ConfigError(f"config_dir={config_dir}: no such directory")
        own.append(f"hydra.searchpath=['file://{Path(config_dir).absolute()}']")
    try:
        with initialize_config_module("ntkrun.conf", version_base="1.3"):
            return compose("config", overrides=[*own, *overrides], return_hydra_config=hydra)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError, OSError) as error:
        raise ConfigError(explain(error, overrides)) from None
