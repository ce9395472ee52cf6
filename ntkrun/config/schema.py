"""From configuration to objects, with every value checked before anything is built.

The constructor of a class is its schema: annotations give types and ranges, and pydantic checks them.
The same holds for classes that users bring.
"""

from __future__ import annotations

import copy
import inspect
import json
import re
import typing
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import is_dataclass
from typing import Annotated, Any, Literal, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, TypeAdapter, ValidationError
from pydantic.warnings import ArbitraryTypeWarning

from ntkrun.common.errors import ConfigError as ConfigError
from ntkrun.common.errors import closest
from ntkrun.common.types import Few, Positive
from ntkrun.common.user_frames import cause, where
from ntkrun.config.classes import find_class, is_own
from ntkrun.objective import Route
from ntkrun.pde import PDE
from ntkrun.pde.check import check_problem
from ntkrun.training.collocation import Sampling

T = TypeVar("T")

_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)

GROUPS = ("pde", "network", "weights", "point_weights", "optimizer", "schedule", "diagnostics", "logger")

CHANGEABLE = (
    "iterations",
    "stop.error",
    "stop.loss",
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

    model_config = ConfigDict(strict=True, extra="forbid")

    route: Route | Literal["auto"]
    memory_mib: Positive[int]


class StopSettings(BaseModel):
    """What ends a run before its last step."""

    model_config = ConfigDict(strict=True, extra="forbid")

    error: Positive[float] | None
    loss: Positive[float] | None


class TrainerSettings(BaseModel):
    """How training steps are computed."""

    model_config = ConfigDict(strict=True, extra="forbid")

    compile: Literal["auto"] | bool
    chunk_size: Literal["auto"] | Positive[int]


class Settings(BaseModel):
    """The top-level values of a configuration."""

    model_config = ConfigDict(strict=True, extra="forbid")

    iterations: Annotated[int, Field(ge=0)]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    threads: Literal["auto"] | Few
    device: Literal["auto", "cpu", "cuda"]
    dtype: Literal["float32", "float64"]
    log_every: Positive[int]
    evaluate_every: Positive[int]
    checkpoint_every: Positive[int]
    start_from: str | None = None
    time_windows: Few
    stop: StopSettings
    keep_best: bool
    progress: bool
    plots: bool
    skip_completed: bool
    report: bool
    kernel: KernelSettings
    trainer: TrainerSettings
    let: dict[str, Any] = Field(default_factory=dict)  # values that only others refer to


class Setup(BaseModel):
    """The keys of a ``pde`` that say how it is sampled and evaluated; the others go to its class."""

    model_config = ConfigDict(strict=True, extra="forbid")

    points: dict[str, Positive[int]]
    sampling: Sampling
    resample_every: Positive[int] | Literal["auto"] | None
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
            raise ConfigError(
                f"{group}={_shown(values.get(group))}: choose one of the group {group!r}, as {group}=NAME"
            )
    return _model(Settings, {k: v for k, v in values.items() if k not in GROUPS}, "", GROUPS)


def read_setup(node: Mapping[str, Any]) -> Setup:
    """The sampling and evaluation keys of the ``pde`` node.

    Raises:
        ConfigError: a value is missing or has the wrong type or range.
    """
    return _model(Setup, {k: v for k, v in node.items() if k in Setup.model_fields}, "pde")


def build(node: Mapping[str, Any], key: str, base: type[T], **runtime: Any) -> T:
    """Build the object that ``node["_target_"]`` names.

    Args:
        node: the class path and the constructor's arguments.
        key: where the node stands in the configuration, for messages.
        base: what the class must be a subclass of.
        runtime: arguments that are no configuration; those that the constructor does not take are left out.

    Raises:
        ConfigError: the class cannot be found or built, an argument is unknown, missing or out of range, or a
            problem's definition does not fit itself.
    """
    cls = find_class(node.get("_target_"), key, base)
    parameters = inspect.signature(cls).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    known = {n: p for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    hints = _hints(cls)
    arguments = {n: v for n, v in runtime.items() if n in known}
    offered = [n for n in known if n not in arguments]
    for name, value in node.items():
        if name == "_target_":
            continue
        if name not in offered and not open_ended:
            raise ConfigError(_unknown(f"{key}.{name}", f"{key}.", offered))
        arguments[name] = _checked(value, hints.get(name, Any), f"{key}.{name}")
    missing = [n for n in offered if n not in arguments and known[n].default is inspect.Parameter.empty]
    if missing:
        raise ConfigError(f"{key}.{missing[0]} is missing; {cls.__name__} needs it")
    try:
        built = cls(**arguments)
        if isinstance(built, PDE):
            check_problem(built)
    except ValueError as error:
        raise ConfigError(f"{key}: {error}{where(error)}") from None
    except Exception as error:
        if is_own(cls.__module__):
            raise
        raise ConfigError(f"{key}: {cls.__name__} cannot be built: {cause(error)}") from error
    return built


def _hints(cls: type) -> dict[str, Any]:
    constructor: Any = cls.__init__  # type: ignore[misc]
    try:
        # Of the class, whose bases are read in their own modules, for dataclasses; of the constructor for others.
        return {
            **typing.get_type_hints(cls, include_extras=True),
            **({} if is_dataclass(cls) else typing.get_type_hints(constructor, include_extras=True)),
        }
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        raise ConfigError(f"{cls.__module__}.{cls.__name__}: {error} in a type annotation") from None


def _checked(value: Any, hint: Any, key: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ArbitraryTypeWarning)
            adapter: TypeAdapter[Any] = TypeAdapter(hint, config=_STRICT)
    except (ArbitraryTypeWarning, PydanticUserError):
        raise ConfigError(f"{key}: its type annotation {hint!r} is not a type") from None
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        with suppress(ValidationError):
            return adapter.validate_python(_texts_read(value, error))
        # What YAML can only write as something else, such as tuples and paths.
        with suppress(TypeError, ValueError):
            return adapter.validate_json(json.dumps(value))
        raise ConfigError(_describe(error, key, value)) from None


def numbers_read(values: dict[str, Any]) -> dict[str, Any]:
    """A configuration whose settings are numbers where they are given as text, such as by ``${oc.env:SEED}``."""
    try:
        Settings.model_validate(values)
    except ValidationError as error:
        read: dict[str, Any] = _texts_read(values, error)
        return read
    return values


NUMBER = re.compile(r"[+-]?(\d{1,18}|(?=\.?\d)\d{0,30}(\.\d{0,30}([eE][+-]?\d{1,4})?|[eE][+-]?\d{1,4}))", re.ASCII)
LOGICAL = {"true": True, "false": False}


def _texts_read(value: Any, error: ValidationError) -> Any:
    """A value with numbers and logical values in place of the texts that an error complains of."""
    box = [copy.deepcopy(value)]
    for each in error.errors():
        node: Any = box
        key: Any = 0
        for part in each["loc"]:  # beyond the keys, locations name the branches of a union
            below = node[key]
            if not (isinstance(below, dict) and part in below) and not (
                isinstance(below, list) and isinstance(part, int) and part < len(below)
            ):
                break
            node, key = below, part
        if isinstance(node[key], str):
            node[key] = _read(node[key])
    return box[0]


def _read(text: str) -> str | float | bool:
    if NUMBER.fullmatch(text.strip()):
        return float(text) if any(c in text for c in ".eE") else int(text)
    return LOGICAL.get(text.strip().lower(), text)


Model = TypeVar("Model", bound=BaseModel)


def _model(model: type[Model], values: Mapping[str, Any], key: str, others: Iterable[str] = ()) -> Model:
    prefix = f"{key}." if key else ""
    for name in values:
        if name not in model.model_fields:
            raise ConfigError(_unknown(prefix + name, prefix, [*model.model_fields, *others]))
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        with suppress(ValidationError):
            return model.model_validate(_texts_read(dict(values), error))
        first = error.errors()[0]
        if first["type"] == "missing":
            raise ConfigError(f"{prefix}{first['loc'][0]} is missing") from None
        raise ConfigError(_describe(error, key, values)) from None


def _unknown(key: str, prefix: str, choices: Iterable[str]) -> str:
    choices = list(choices)
    hint = closest(key.removeprefix(prefix), choices, prefix)
    if not hint:
        hint = "; known are " + ", ".join(prefix + choice for choice in choices)
        hint += "" if prefix else f"; for a value that others refer to, ${{let.{key}}}, there is +let.{key}"
    return f"unknown key {key}{hint}"


def _describe(error: ValidationError, key: str, values: Any) -> str:
    """One line: the key, what was given, all that is allowed there."""
    errors = error.errors()
    place, given = [key] * bool(key), values
    for part in errors[0]["loc"]:  # beyond the keys, locations name the branches of a union
        if not isinstance(given, Mapping) or part not in given:
            break
        place.append(str(part))
        given = given[part]
    where = ".".join(place)
    if errors[0]["type"] == "extra_forbidden":
        return f"unknown key {where}"
    depth = len(place) - bool(key)
    same = [e for e in errors if e["loc"][:depth] == errors[0]["loc"][:depth]]
    allowed = " or ".join(dict.fromkeys(_allowed(e["msg"]) for e in same))
    words = [w for e in errors if e["type"] == "literal_error" for w in re.findall("'([^']*)'", e["ctx"]["expected"])]
    return f"{where}={_shown(given)}: expected {allowed}{closest(str(given), words)}"


def _allowed(message: str) -> str:
    for prefix in ("Input should be ", "Value error, "):
        message = message.removeprefix(prefix)
    return "keys with values" if message.startswith("a valid dictionary") else message


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)
