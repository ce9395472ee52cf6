"""Arguments of ``resume``: the run, its configuration and the permitted changes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from omegaconf import OmegaConf

from ntkrun.common.errors import ConfigError, closest
from ntkrun.config.classes import look_for_modules_in
from ntkrun.config.configuration import Configuration
from ntkrun.config.schema import CHANGEABLE
from ntkrun.experiment.received import read_received


class Resumed(NamedTuple):
    """A run that is to go on.

    Attributes:
        directory: of the run.
        configuration: with the permitted changes.
        accepted: keys that may differ from the checkpoint's.
    """

    directory: Path
    configuration: Configuration
    accepted: list[str]


def read_resume(arguments: Sequence[str]) -> Resumed:
    """The run that is to be resumed.

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
            out = closest(key, CHANGEABLE) or _new_run(arguments)
            raise ConfigError(f"{key} cannot change on resume; {', '.join(CHANGEABLE)} can{out}")
        if key in overrides:
            raise ConfigError(f"{key} is given twice")
        overrides[key] = value
    given = overrides.pop("resume")
    trusted = [each for each in overrides.pop("trust", "").split(",") if each]
    accepted = [each for each in overrides.pop("accept", "").split(",") if each]
    if trusted:
        look_for_modules_in(os.getcwd())
    changes = {key: _read(key, value) for key, value in overrides.items()}
    configuration = read_received(Path(given), f"resume={given}", trusted, changes)
    if "iterations" in changes and configuration.settings.wants_windows:
        raise ConfigError("iterations cannot change on resume of a run in time windows; earlier ones are done")
    return Resumed(Path(given), configuration, accepted)


def _new_run(arguments: Sequence[str]) -> str:
    """How other values are tried on the network of a run."""
    run = next(argument for argument in arguments if argument.startswith("resume=")).partition("=")[2]
    return f"; start_from={run} gives a new run, of any other values, the network of this one"


def _read(key: str, value: str) -> Any:
    """The value of an override; a text that is not YAML stays one, which the check of its type will refuse."""
    try:
        return OmegaConf.select(OmegaConf.from_dotlist([f"{key}={value}"]), key)
    except yaml.YAMLError:
        return value
