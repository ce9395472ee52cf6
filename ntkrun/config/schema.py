"""The settings of a run that belong to no class: their types and ranges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ntkrun.common.errors import ConfigError as ConfigError
from ntkrun.common.types import Few, Positive
from ntkrun.config.values import read_model, shown, texts_read
from ntkrun.objective import Route
from ntkrun.training.collocation import Sampling

GROUPS = ("pde", "network", "weights", "point_weights", "optimizer", "schedule", "diagnostics", "logger")

CHANGEABLE = (
    "iterations",
    "stop.error",
    "stop.loss",
    "stop.seconds",
    "log_every",
    "evaluate_every",
    "checkpoint_every",
    "progress",
    "plots",
    "trainer.compile",
)
"""Keys that may change on resuming: the length of the run and its output."""


class KernelSettings(BaseModel):
    """How Jacobian rows and kernels are computed."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    route: Route | Literal["auto"]
    memory_mib: Positive[int]


class StopSettings(BaseModel):
    """What ends a run before its last step."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    error: Positive[float] | None
    loss: Positive[float] | None
    seconds: Positive[float] | None = None


class TrainerSettings(BaseModel):
    """How training steps are computed."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    compile: Literal["auto"] | bool
    chunk_size: Literal["auto"] | Positive[int]


class Settings(BaseModel):
    """The top-level values of a configuration."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    iterations: Annotated[int, Field(ge=0)]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    threads: Literal["auto"] | Few
    device: Literal["auto", "cpu", "cuda"]
    dtype: Literal["float32", "float64"]
    log_every: Positive[int]
    evaluate_every: Positive[int]
    checkpoint_every: Positive[int]
    start_from: str | None = None
    time_windows: Literal["auto", "adaptive"] | Few
    growing_time: Literal["auto"] | Annotated[float, Field(gt=0, lt=1)] | None = None
    stop: StopSettings
    keep_best: bool
    progress: bool
    plots: bool
    skip_completed: bool
    report: bool
    kernel: KernelSettings
    trainer: TrainerSettings
    let: dict[str, Any] = Field(default_factory=dict)  # values that only others refer to

    @property
    def equal_windows(self) -> int:
        """Number of equal time windows; 1 where the run is to choose."""
        return self.time_windows if isinstance(self.time_windows, int) else 1

    @property
    def wants_windows(self) -> bool:
        """Whether time windows are asked for, and not left to the run."""
        return self.time_windows not in (1, "auto")


class Setup(BaseModel):
    """The keys of a ``pde`` that say how it is sampled and evaluated; the others go to its class."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    points: dict[str, Positive[int] | Literal["all"]]
    sampling: Sampling
    resample_every: Positive[int] | Literal["auto"] | None
    batch: Positive[int] | None = None
    hold_out: Annotated[float, Field(ge=0, lt=1)] = 0.0
    grid: Annotated[int, Field(ge=2)]


def plain(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain values, interpolations resolved.

    Raises:
        ConfigError: an interpolation, a missing value, or a whole number beyond all bounds.
    """
    try:
        values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except RecursionError:
        raise ConfigError("the configuration is nested too deeply") from None
    except OmegaConfBaseException as error:
        if isinstance(error, MissingMandatoryValue):
            raise ConfigError(f"{error.full_key} is missing") from None
        key = f"{error.full_key}: " if error.full_key else ""
        raise ConfigError(key + str(error).splitlines()[0]) from None
    assert isinstance(values, dict)
    _check_sizes(values, "")
    return {str(key): value for key, value in values.items()}


def _check_sizes(node: Any, key: str) -> None:
    """Turn down whole numbers that fit into no tensor and no table."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in pairs:
        place = f"{key}.{name}" if key else str(name)
        if isinstance(value, int) and abs(value) >= 2**63:
            raise ConfigError(f"{place}={value}: expected a number below 2^63")
        _check_sizes(value, place)


def read_settings(values: Mapping[str, Any]) -> Settings:
    """The top-level settings of a configuration.

    Raises:
        ConfigError: a key is unknown, or a value has the wrong type or range.
    """
    for group in GROUPS:
        if not isinstance(values.get(group), dict):
            raise ConfigError(f"{group}={shown(values.get(group))}: choose one of the group {group!r}, as {group}=NAME")
    return read_model(Settings, {k: v for k, v in values.items() if k not in GROUPS}, "", GROUPS)


def read_setup(node: Mapping[str, Any]) -> Setup:
    """The sampling and evaluation keys of the ``pde`` node.

    Raises:
        ConfigError: a value is missing or has the wrong type or range.
    """
    return read_model(Setup, {k: v for k, v in node.items() if k in Setup.model_fields}, "pde")


def numbers_read(values: dict[str, Any]) -> dict[str, Any]:
    """A configuration whose settings are numbers where they are given as text, such as by ``${oc.env:SEED}``."""
    try:
        Settings.model_validate(values)
    except ValidationError as error:
        read: dict[str, Any] = texts_read(values, error)
        return read
    return values
