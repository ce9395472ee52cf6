"""Where the files of measured data lie that a configuration names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from ntkrun.common.errors import ConfigError
from ntkrun.config.measured_data import files_of, takes_data

KEY = "pde.data"


def data_located(values: dict[str, Any], config: DictConfig) -> dict[str, Any]:
    """The configuration with the absolute paths of its files of measured data, each with its digest.

    A relative path from the command line starts at the working directory; one from a YAML file at the directory of that
    file or, where there is nothing, at the working directory.

    Args:
        values: the configuration.
        config: as Hydra composed it.

    Raises:
        ConfigError: there is no such file, or it cannot be read.
    """
    node = values.get("pde")
    if not isinstance(node, Mapping) or node.get("data") is None or takes_data(node):
        return values
    places = _places(config.hydra if "hydra" in config else HydraConfig.get())
    data = node["data"]
    if isinstance(data, str | list):  # else it has been located before
        paths = data if isinstance(data, list) else [data]
        data = [_located(path, places) if isinstance(path, str) else path for path in paths]
    return {**values, "pde": {**node, "data": files_of({**node, "data": data})}}


def _places(hydra: Any) -> list[Path]:
    """The directories where relative paths may start."""
    here = Path.cwd()
    given = [override.lstrip("+").partition("=")[0] for override in hydra.overrides.task]
    if KEY in given:
        return [here]
    name = f"pde/{hydra.runtime.choices.get('pde')}.yaml"
    sources = [Path(source.path) for source in hydra.runtime.config_sources if source.schema == "file"]
    return [*((source / name).parent for source in sources if (source / name).is_file()), here]


def _located(path: str, places: list[Path]) -> str:
    found = [place / path for place in places if path and (place / path).exists()]
    if not found:
        if not path:
            raise ConfigError(f"{KEY}=: expected a file, or null for none")
        looked = " or ".join(dict.fromkeys(os.path.relpath(place) for place in places))
        raise ConfigError(f"{KEY}={path}: there is no such file in {looked}")
    return os.path.abspath(found[0])
