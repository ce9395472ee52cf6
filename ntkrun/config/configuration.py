"""The configuration of a run, read once: typed settings, and the classes of its parts with checked arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from ntkrun.common.errors import ConfigError, closest
from ntkrun.config.component import Component, read_component
from ntkrun.config.measured_data import data_apart
from ntkrun.config.schema import Settings, Setup, read_settings, read_setup
from ntkrun.diagnostics import Diagnostics
from ntkrun.loggers import Logger
from ntkrun.optimizer import Optimizer, Schedule
from ntkrun.pde import PDE
from ntkrun.point_weights import PointWeights
from ntkrun.weights import Weighting

OF_NETWORKS = ("domain", "outputs", "periods", "generator")
"""Arguments of networks that follow from the problem and the seed."""


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """Everything that a configuration says, read and checked as far as that can be done without building anything.

    Attributes:
        values: the plain values that it was read from: what identifies the run, and what loggers are told.
        settings: what belongs to no class.
        setup: how the problem is sampled and evaluated.
        data: the digests of files of measured values, by path.
        logger: one, or several side by side.
    """

    values: Mapping[str, Any]
    settings: Settings
    setup: Setup
    pde: Component[PDE]
    data: Mapping[str, str]
    network: Component[nn.Module]
    weights: Component[Weighting]
    point_weights: Component[PointWeights]
    optimizer: Component[Optimizer]
    schedule: Component[Schedule]
    diagnostics: Component[Diagnostics]
    logger: tuple[Component[Logger], ...]

    def without_start(self) -> Configuration:
        """The same for a network that has its parameters already, and not from the run of ``start_from``."""
        settings = self.settings
        as_it_was = {} if settings.start_from is None or settings.growing_time != "auto" else {"growing_time": None}
        return replace(self, settings=settings.model_copy(update={"start_from": None, **as_it_was}))


def read_configuration(values: Mapping[str, Any]) -> Configuration:
    """Read a configuration; the modules of the classes that it names are imported.

    Args:
        values: as plain values.

    Raises:
        ConfigError: a key is unknown, a value is missing or has the wrong type or range, or there is no such class.
    """
    settings, setup = read_settings(values), read_setup(values["pde"])
    problem = {key: value for key, value in values["pde"].items() if key not in Setup.model_fields}
    problem, data = data_apart(problem)
    return Configuration(
        values=values,
        settings=settings,
        setup=setup,
        pde=read_component(problem, "pde", PDE),
        data=data,
        network=read_component(values["network"], "network", nn.Module, OF_NETWORKS),
        weights=read_component(values["weights"], "weights", Weighting),
        point_weights=read_component(values["point_weights"], "point_weights", PointWeights),
        optimizer=read_component(values["optimizer"], "optimizer", Optimizer),
        schedule=read_component(values["schedule"], "schedule", Schedule),
        diagnostics=read_component(values["diagnostics"], "diagnostics", Diagnostics),
        logger=_read_loggers(values["logger"]),
    )


def _read_loggers(node: Mapping[str, Any]) -> tuple[Component[Logger], ...]:
    """The logger of a node, or several, those that its ``names`` choose."""
    if "names" not in node:
        return (read_component(node, "logger", Logger),)
    names = node["names"]
    known = [key for key, value in node.items() if isinstance(value, Mapping)]
    if not isinstance(names, list) or not names or len(names) != len(set(map(str, names))):
        raise ConfigError(f"logger.names={names}: expected a list of different loggers, as [{','.join(known)}]")
    for name in names:
        if name not in known:
            raise ConfigError(
                f"logger.names: no logger {name}; known are {', '.join(known)}{closest(str(name), known)}"
            )
    return tuple(read_component(node[name], f"logger.{name}", Logger) for name in names)
