"""A run that may have come from someone else: what it may ask for before anything of it is used.

Its directory holds files and folders only, its configuration nothing but plain values, and to import, to read the
environment or to speak with a server is up to the one who uses it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ntkrun.common.errors import ConfigError
from ntkrun.config.assembly import build_logger
from ntkrun.config.classes import check_declared
from ntkrun.config.configuration import Configuration, read_configuration
from ntkrun.storage.reader import TABLE, UnreadableError, read_yaml

CONFIGURATION = Path(".hydra") / "config.yaml"
FILES = (".csv", ".json", ".npz", ".pt", ".log")
"""Suffixes of what is a file in a run directory."""
ENTRIES = 10_000
"""Most files of a run directory."""
SPENT = 100_000
"""Most characters and values that references may lead to."""
CHAIN = 20
"""Most references that lead on to another."""

_REFERENCE = re.compile(r"\$\{(\.*[A-Za-z_][\w-]*(?:\.[\w-]+)*)\}")
_RESOLVER = re.compile(r"\$\{\s*([^:}]+?)\s*:")


def read_received(
    directory: Path, name: str, trusted: Collection[str] = (), changes: Mapping[str, Any] = MappingProxyType({})
) -> Configuration:
    """The configuration of a run, if nothing in its directory and nothing that it asks for is unexpected.

    Args:
        directory: the run directory.
        name: what messages call it.
        trusted: modules that may be imported, addresses that may be spoken with.
        changes: values in place of those in the directory, by dotted key; of ``CHANGEABLE`` ones or the device.

    Raises:
        ConfigError: it is no run directory, or something must not be trusted unasked.
    """
    if not directory.is_dir():
        raise ConfigError(f"{name}: no such directory")
    if not os.path.lexists(directory / CONFIGURATION):
        raise ConfigError(f"{name}: not a run directory, it has no {CONFIGURATION.as_posix()}")
    _check_files(directory)
    try:
        values = read_yaml(directory / CONFIGURATION)
    except UnreadableError as error:
        raise ConfigError(f"{name}: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{name}: {CONFIGURATION.as_posix()} is not a configuration")
    values = _References(values).resolved()
    check_declared(values, trusted)
    for key, value in changes.items():
        *groups, last = key.split(".")
        node: Any = values
        for group in groups:
            node = node.get(group) if isinstance(node, dict) else None
        if isinstance(node, dict):  # else there are no such settings, which are missed below
            node[last] = value
    configuration = read_configuration(values)
    _check_addresses(configuration, trusted)
    return configuration


def _check_addresses(configuration: Configuration, trusted: Collection[str]) -> None:
    """See that a run is sent to no address that came with it."""
    for address in build_logger(configuration.logger).addresses():
        if address not in trusted:
            raise ConfigError(
                f"logger: a resumed run is not sent to {address} unasked; if you trust it, add trust={address}"
            )


def _check_files(directory: Path) -> None:
    """See that a run directory holds nothing but files and folders, whose content is nowhere else."""
    for count, (path, status) in enumerate(_entries(directory)):
        if stat.S_ISLNK(status.st_mode):
            raise ConfigError(f"{path} is a link; a run directory with links is not used")
        if stat.S_ISDIR(status.st_mode):
            if path.parent == directory and path.suffix in FILES:
                raise ConfigError(f"{path} is a folder; a run has a file there")
            continue
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{path} is neither a file nor a folder; a run directory with such things is not used")
        if status.st_nlink > 1 and path.parent == directory:  # lock and log are written in place
            raise ConfigError(f"{path} has another name elsewhere (a hard link); use a copy of the directory")
        if path.suffix == ".csv" and status.st_size > TABLE:
            raise ConfigError(f"{path} is longer than {TABLE >> 20} MiB; it is no table of a run")
        if count >= ENTRIES:
            raise ConfigError(f"{directory} has more than {ENTRIES} files; it is not the directory of one run")


def _entries(top: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Everything below a directory, links not followed."""
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                found = [(folder / entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
        except OSError as error:
            raise ConfigError(f"{folder} cannot be read: {error.strerror}") from None
        yield from found
        waiting += [path for path, status in found if stat.S_ISDIR(status.st_mode)]


class _References:
    """A configuration and the references to its own values in it, ``${key}``, resolved within bounds.

    A reference may lead to others, and a few lines could so grow into more than any memory holds.
    """

    def __init__(self, values: Mapping[Any, Any]) -> None:
        self._values = values
        self._spent = 0

    def resolved(self) -> dict[str, Any]:
        """All values."""
        return {str(key): self._resolve(value, (str(key),), 0) for key, value in self._values.items()}

    def _resolve(self, value: Any, place: tuple[str, ...], followed: int) -> Any:
        key = ".".join(place)
        if followed:
            self._spent += 1 + (len(value) if isinstance(value, str) else 0)
        if self._spent > SPENT or followed > CHAIN:
            raise ConfigError(f"{key}: references lead on to others without end")
        if isinstance(value, dict):
            return {name: self._resolve(each, (*place, str(name)), followed) for name, each in value.items()}
        if isinstance(value, list):
            return [self._resolve(each, (*place, str(i)), followed) for i, each in enumerate(value)]
        if value == "???":
            raise ConfigError(f"{key} is missing")
        if not isinstance(value, str) or "${" not in value:
            return value
        self._check(value, key)
        if whole := _REFERENCE.fullmatch(value):
            return self._follow(whole[1], place, followed)
        return _REFERENCE.sub(lambda found: str(self._follow(found[1], place, followed)), value)

    def _follow(self, name: str, place: tuple[str, ...], followed: int) -> Any:
        """What a reference at a place leads to; with points before it, counted from there."""
        own = name.lstrip(".")
        above = place[: -(len(name) - len(own))] if name != own else ()
        target = (*above, *own.split("."))
        node: Any = self._values
        for part in target:
            try:
                node = node[int(part)] if isinstance(node, list) else node[part]
            except (LookupError, TypeError, ValueError):
                raise ConfigError(f"{'.'.join(place)}: there is no {'.'.join(target)} to refer to") from None
        return self._resolve(node, target, followed + 1)

    def _check(self, value: str, key: str) -> None:
        """See that a text asks for nothing but other values."""
        rest = _REFERENCE.sub("", value)
        if "${" not in rest:
            return
        resolver = _RESOLVER.search(rest)
        called = f"{resolver[1]} is not called" if resolver else f"{value} is not read"
        raise ConfigError(f"{key}: {called} for a configuration that may come from someone else; put a value there")
