"""The classes that configurations name: which may be imported, and finding them."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ntkrun.common.errors import ConfigError, closest
from ntkrun.common.user_frames import cause

T = TypeVar("T")

OWN = __name__.partition(".")[0]


def find_class(path: object, key: str, base: type[T]) -> type[T]:
    """The class that a ``_target_`` names.

    To import a module is to execute it, so what cannot hold such a class is turned down before.

    Args:
        path: the module and the class, as ``module.Class``.
        key: of the node with that ``_target_``, for messages.
        base: what the class must be a subclass of.

    Raises:
        ConfigError: there is no such class, or it is not one of these.
    """
    if path is None:
        raise ConfigError(f"{key}._target_ is missing; it names the class, as module.Class")
    if not isinstance(path, str) or not _is_path(path):
        raise ConfigError(f"{key}._target_={path}: expected the path of a class, as module.Class")
    place, _, name = path.rpartition(".")
    if (top := place.partition(".")[0]) in sys.stdlib_module_names:
        raise ConfigError(
            f"{key}._target_={path}: {top} is a module of Python itself, not imported in search of a {base.__name__}"
        )
    module = _import(place, f"{key}._target_={path}")
    found = getattr(module, name, None)
    if found is None:
        classes = [n for n, v in vars(module).items() if isinstance(v, type) and issubclass(v, base)]
        raise ConfigError(f"{key}._target_={path}: module {place!r} has no {name!r}{closest(name, classes)}")
    if not isinstance(found, type) or not issubclass(found, base):
        raise ConfigError(f"{key}._target_={path}: not a subclass of {base.__module__}.{base.__name__}")
    if inspect.isabstract(found):
        lacking = ", ".join(f"{method}()" for method in sorted(getattr(found, "__abstractmethods__", ())))
        raise ConfigError(f"{key}._target_={path}: the class lacks {lacking}")
    return found


def look_for_modules_in(directory: str) -> None:
    """Let modules in a directory, where users keep their own, be found; last, so that they stand in for no other."""
    if directory not in sys.path:
        sys.path.append(directory)


def is_own(module: str) -> bool:
    """Whether a module is of this package."""
    return module.partition(".")[0] == OWN


def check_declared(values: Mapping[str, Any], declared: Collection[str]) -> None:
    """Turn down a configuration from elsewhere that names a class in a module nobody has declared.

    Args:
        values: the configuration.
        declared: modules to trust, each with all below it, besides this package.

    Raises:
        ConfigError: the first such class.
    """
    for key, path in _targets(values):
        place = path.rpartition(".")[0] if isinstance(path, str) else ""
        if is_own(place) or any(f"{place}.".startswith(f"{each}.") for each in declared):
            continue
        hint = f"; if you trust its code, add trust={place}" if _is_path(str(path)) else ""
        raise ConfigError(f"{key}={path}: a module that is not of {OWN} is not imported for a resumed run{hint}")


def _targets(node: object, key: str = "") -> Iterator[tuple[str, object]]:
    """All ``_target_`` keys of a configuration with their values."""
    pairs = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for name, value in pairs:
        place = f"{key}.{name}" if key else str(name)
        if name == "_target_":
            yield place, value
        yield from _targets(value, place)


def _is_path(path: str) -> bool:
    """Whether this may be a module and a class; modules like ``__main__`` are programs."""
    parts = path.split(".")
    return len(parts) > 1 and all(part.isidentifier() and not part.startswith("__") for part in parts)


def _import(place: str, given: str) -> Any:
    try:
        return importlib.import_module(place)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{place}.".startswith(f"{error.name}."):
            near = closest(place, (file.stem for file in Path.cwd().glob("*.py"))) if error.name == place else ""
            raise ConfigError(f"{given}: {error}{near}") from None
        if is_own(place) and not isinstance(error, ImportError):
            raise
        raise ConfigError(f"{given}: {cause(error)}") from error
