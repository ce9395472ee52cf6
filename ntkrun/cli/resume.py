"""Arguments of ``resume``: the run, its configuration and the permitted changes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from ntkrun.common.errors import closest
from ntkrun.config.classes import look_for_modules_in
from ntkrun.config.schema import CHANGEABLE, ConfigError
from ntkrun.experiment.received import read_received


def read_resume(arguments: Sequence[str]) -> tuple[Path, dict[str, Any], list[str]]:
    """The run directory, its configuration with the permitted changes, and what may differ from the checkpoint's.

    Args:
        arguments: ``resume=DIRECTORY``, overrides, ``trust=MODULE,...`` for the user's own modules, and
            ``accept=KEY,...`` for values that were changed in the saved configuration.

    Raises:
        ConfigError: no such run, a change that is not permitted, or something that must not be trusted unasked.
    """
    overrides: dict[str, str] = {}
    for argument in arguments:
        key, separator, value = argument.partition("=")
        if not separator:
            raise ConfigError(f"{argument}: resume takes key=value overrides only")
        if key not in ("resume", "trust", "accept", *CHANGEABLE):
            raise ConfigError(f"{key} cannot change on resume; {', '.join(CHANGEABLE)} can{closest(key, CHANGEABLE)}")
        if key in overrides:
            raise ConfigError(f"{key} is given twice")
        overrides[key] = value
    directory = Path(overrides.pop("resume"))
    trusted = [each for each in overrides.pop("trust", "").split(",") if each]
    accepted = [each for each in overrides.pop("accept", "").split(",") if each]
    try:
        values = read_received(directory, trusted)
    except ConfigError as error:
        about_directory = str(error).startswith(f"{directory}: ")
        raise ConfigError(f"resume={error}" if about_directory else str(error)) from None
    if trusted:
        look_for_modules_in(os.getcwd())
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
    return directory, values, accepted
