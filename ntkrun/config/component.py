"""A part of a run as a configuration describes it: a class, and checked arguments for its constructor.

The constructor of a class is its schema: annotations give types and ranges, and pydantic checks them. The same holds
for classes that users bring.
"""

from __future__ import annotations

import copy
import inspect
import typing
from collections.abc import Collection, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any, Generic, NotRequired, Required, TypeVar

from ntkrun.common.errors import ConfigError
from ntkrun.common.user_frames import cause, placed
from ntkrun.config.classes import find_class, is_own
from ntkrun.config.values import checked, unknown
from ntkrun.pde import PDE
from ntkrun.pde.check import check_problem

T = TypeVar("T")


@dataclass(frozen=True)
class Component(Generic[T]):
    """A class that a configuration names, and what its constructor is to be called with.

    Attributes:
        key: where it stands in the configuration, for messages.
        cls: the class.
        arguments: those that are configuration; they fit the constructor.
    """

    key: str
    cls: type[T]
    arguments: Mapping[str, Any]

    def build(self, **runtime: Any) -> T:
        """An object of the class.

        Args:
            runtime: arguments that are no configuration; those that the constructor does not take are left out.

        Raises:
            ConfigError: it cannot be built, or a problem's definition does not fit itself.
        """
        known, _ = _arguments(self.cls)
        given = {name: value for name, value in runtime.items() if name in known}
        try:
            built = self.cls(**given, **copy.deepcopy(dict(self.arguments)))
            if isinstance(built, PDE):
                check_problem(built)
        except ValueError as error:
            raise ConfigError(placed(f"{self.key}: {error}", error, self.cls)) from None
        except Exception as error:
            if is_own(self.cls.__module__):
                raise
            raise ConfigError(f"{self.key}: {self.cls.__name__} cannot be built: {cause(error)}") from error
        return built


def read_component(node: Mapping[str, Any], key: str, base: type[T], runtime: Collection[str] = ()) -> Component[T]:
    """The class that ``node["_target_"]`` names, with the other values as arguments of its constructor.

    Args:
        node: of the configuration.
        key: where it stands there, for messages.
        base: what the class must be a subclass of.
        runtime: names of arguments that are no configuration; see ``Component.build``.

    Raises:
        ConfigError: the class cannot be found, or an argument is unknown, missing or out of range.
    """
    cls = find_class(node.get("_target_"), key, base)
    known, open_ended = _arguments(cls)
    offered = [name for name in known if name not in runtime]
    arguments = {}
    for name, value in node.items():
        if name == "_target_":
            continue
        if name not in offered and not open_ended:
            if not offered:
                raise ConfigError(f"unknown key {key}.{name}; {cls.__name__} takes no arguments")
            raise ConfigError(unknown(f"{key}.{name}", f"{key}.", offered))
        arguments[name] = checked(value, known[name].hint if name in known else Any, f"{key}.{name}")
    missing = [n for n in offered if n not in arguments and known[n].required]
    if missing:
        raise ConfigError(f"{key}.{missing[0]} is missing; {cls.__name__} needs it")
    return Component(key, cls, arguments)


@dataclass(frozen=True)
class _Argument:
    """An argument of a constructor: its annotation, and whether it has no default."""

    hint: Any
    required: bool


def _arguments(cls: type) -> tuple[dict[str, _Argument], bool]:
    """The arguments of a class's constructor that can be given by name, and whether it takes any others as well.

    Those of ``**arguments: Unpack[SomeTypedDict]`` count as if they stood in the signature.
    """
    hints = _hints(cls)
    known, open_ended = {}, False
    for name, parameter in inspect.signature(cls).parameters.items():
        hint = hints.get(name, Any)
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            known[name] = _Argument(hint, parameter.default is parameter.empty)
        elif parameter.kind is parameter.VAR_KEYWORD and typing.get_origin(hint) is typing.Unpack:
            (shared,) = typing.get_args(hint)
            for key, inner in typing.get_type_hints(shared, include_extras=True).items():
                marked = typing.get_origin(inner)  # as text it escapes Python's own list of required keys
                if marked in (Required, NotRequired):
                    known[key] = _Argument(typing.get_args(inner)[0], marked is Required)
                else:
                    known[key] = _Argument(inner, key in shared.__required_keys__)
        else:
            open_ended |= parameter.kind is parameter.VAR_KEYWORD
    return known, open_ended


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
