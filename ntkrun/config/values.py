"""Checks of the values of a configuration, with one line about what is wrong with them."""

from __future__ import annotations

import copy
import json
import re
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic.warnings import ArbitraryTypeWarning

from ntkrun.common.errors import ConfigError, closest

_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)


def checked(value: Any, hint: Any, key: str) -> Any:
    """A value of the type and range that an annotation asks for.

    Raises:
        ConfigError: it is not of these, or the annotation is no type.
    """
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
            return adapter.validate_python(texts_read(value, error))
        # What YAML can only write as something else, such as tuples and paths.
        with suppress(TypeError, ValueError):
            return adapter.validate_json(json.dumps(value))
        raise ConfigError(_describe(error, key, value)) from None


Model = TypeVar("Model", bound=BaseModel)


def read_model(model: type[Model], values: Mapping[str, Any], key: str, others: Iterable[str] = ()) -> Model:
    """Values as a model.

    Args:
        model: what they are to be.
        values: by key.
        key: where they stand in the configuration; empty at the top.
        others: further keys that are allowed there, for the message about one that is not known.

    Raises:
        ConfigError: a key is unknown or missing, or a value has the wrong type or range.
    """
    prefix = f"{key}." if key else ""
    for name in values:
        if name not in model.model_fields:
            raise ConfigError(unknown(prefix + name, prefix, [*model.model_fields, *others]))
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        with suppress(ValidationError):
            return model.model_validate(texts_read(dict(values), error))
        first = error.errors()[0]
        if first["type"] == "missing":
            raise ConfigError(f"{prefix}{first['loc'][0]} is missing") from None
        raise ConfigError(_describe(error, key, values)) from None


def unknown(key: str, prefix: str, choices: Iterable[str]) -> str:
    """What is wrong with a key that is none of the choices, which stand below ``prefix``."""
    choices = list(choices)
    hint = closest(key.removeprefix(prefix), choices, prefix)
    if not hint:
        hint = "; known are " + ", ".join(prefix + choice for choice in choices)
        hint += "" if prefix else f"; for a value that others refer to, ${{let.{key}}}, there is let.{key}"
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
    return f"{where}={shown(given)}: expected {allowed}{closest(str(given), words)}"


def _allowed(message: str) -> str:
    for prefix in ("Input should be ", "Value error, "):
        message = message.removeprefix(prefix)
    return "keys with values" if message.startswith("a valid dictionary") else message


def shown(value: Any) -> str:
    """A value as a configuration has it."""
    return "null" if value is None else str(value)


NUMBER = re.compile(r"[+-]?(\d{1,18}|(?=\.?\d)\d{0,30}(\.\d{0,30}([eE][+-]?\d{1,4})?|[eE][+-]?\d{1,4}))", re.ASCII)
LOGICAL = {"true": True, "false": False}


def texts_read(value: Any, error: ValidationError) -> Any:
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
