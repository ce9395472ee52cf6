"""Errors of Hydra and OmegaConf as one line, with what is allowed."""

from __future__ import annotations

import codecs
import errno
import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from ntkrun.cli.help import choices
from ntkrun.common.errors import closest
from ntkrun.common.user_frames import message
from ntkrun.config.classes import is_own
from ntkrun.config.schema import GROUPS, plain

TOO_DEEP = "nested too deeply"


def explain(error: Exception, arguments: Sequence[str]) -> str:
    """One line about an error of configuration composition.

    Args:
        error: what Hydra or OmegaConf raised.
        arguments: the command line.
    """
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        return _no_such_choice(f"{group}={choice}", choice, error.options)
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        longest = max(arguments, key=len)
        return f"{longest}: this is longer than the name of a file may be"
    if isinstance(error, UnicodeError | yaml.reader.ReaderError) and (reason := _unreadable(arguments)):
        return reason
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{os.path.relpath(mark.name)}:{mark.line + 1}: not YAML: {error.problem}"
    if isinstance(error, OSError) and error.errno is None and (reason := _no_mapping(arguments)):
        return reason
    for argument in arguments:
        key, _, value = argument.partition("=")
        if _is_choice_error(error) and key in GROUPS and value not in (known := choices(key)):
            return _no_such_choice(argument, value, known)
        if reason := _unparsable(argument):
            return f"{argument}: not of the form key=value: {reason}"
    text = TOO_DEEP if isinstance(error, RecursionError) else message(error) or type(error).__name__
    if match := re.match(r"Could not (?:override|delete)[^']*'([^']+)'", text):
        return _unknown_key(match[1], arguments)
    for argument in arguments:
        group = argument.removeprefix("~").partition("=")[0]
        if argument.startswith("~") and group in GROUPS and "interpolation" in text:  # of the tuned settings' names
            return f"{argument}: choose one of the group {group!r}, as {group}=NAME"
    return " ".join(re.sub(r"See https?://\S+ for details", "", text).split())


def _is_choice_error(error: Exception) -> bool:
    """Hydra raises nothing more telling where a group is given something that is no name."""
    return isinstance(error, ValueError) and not isinstance(error, HydraException | UnicodeError)


BYTE_ORDER_MARKS = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16", codecs.BOM_UTF32_LE: "UTF-32"}


def _unreadable(arguments: Sequence[str]) -> str | None:
    """The first file of the user's own configuration directories that is not in UTF-8, and what it is in."""
    for place in _config_directories(arguments):
        for path in sorted(Path(place).rglob("*.y*ml")):
            content = path.read_bytes()
            try:
                text = content.decode("utf-8")
            except UnicodeDecodeError as error:
                found = [name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark)]
                line = content[: error.start].count(b"\n") + 1
                kind = f"in {found[0]}" if found else f"not in UTF-8, see line {line}"
                return f"{os.path.relpath(path)} is {kind}; save it in UTF-8"
            if unprintable := yaml.reader.Reader.NON_PRINTABLE.search(text):
                line = text[: unprintable.start()].count("\n") + 1
                return f"{os.path.relpath(path)}:{line}: the character {unprintable[0]!r} is not allowed in YAML"
    return None


def _no_mapping(arguments: Sequence[str]) -> str | None:
    """The first file of the user's own configuration directories that is no mapping; OmegaConf does not name it."""
    for place in _config_directories(arguments):
        for path in sorted(Path(place).rglob("*.y*ml")):
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            if not isinstance(content, dict | None):
                return f"{os.path.relpath(path)} holds a single value; expected are keys with values, as in key: value"
    return None


def _no_such_choice(given: str, choice: str, options: Sequence[str]) -> str:
    return f"{given}: no such choice; allowed are {', '.join(options)}{closest(choice, options)}"


def _unparsable(argument: str) -> str | None:
    """Why an override cannot be parsed, if it cannot."""
    if argument.startswith("-") or not ("=" in argument or argument.startswith("~")):  # an option or its value
        return None
    try:
        OverridesParser.create().parse_override(argument)
    except RecursionError:
        return TOO_DEEP
    except Exception as error:  # of functions within an override as well, and of numbers of too many digits
        return " ".join(str(error).partition("See https")[0].split()) or type(error).__name__
    return None


def _unknown_key(key: str, arguments: Sequence[str]) -> str:
    known = dict(_known_keys(arguments))
    if key in known:
        return f"{key} cannot be set this way"
    parent, _, leaf = key.rpartition(".")
    prefix = f"{parent}." if parent else ""
    siblings = [k.removeprefix(prefix) for k in known if k.startswith(prefix) and "." not in k.removeprefix(prefix)]
    hint = closest(leaf, siblings, prefix)
    if not hint and not parent:
        hint = closest(key, known)
    if not hint and siblings:
        hint = "; known are " + ", ".join(prefix + sibling for sibling in siblings)
        target = str(known.get(f"{prefix}_target_", ""))
        if target and not is_own(target):
            name = target.rpartition(".")[2]
            hint += f"; an argument of {name} that its file leaves out is given as +{key}=..."
    return f"unknown key {key}{hint}"


def _known_keys(arguments: Sequence[str]) -> Iterator[tuple[str, object]]:
    """Every key of the configuration with the command line's choices from groups, and its value."""
    chosen = [a for a in arguments if a.partition("=")[0] in GROUPS]
    own = [f"hydra.searchpath=['file://{os.path.abspath(path)}']" for path in _given_directory(arguments)]
    GlobalHydra.instance().clear()
    for overrides in ([*own, *chosen], []):
        try:
            with initialize_config_module("ntkrun.conf", version_base="1.3"):
                values = plain(compose("config", overrides=overrides))
        except (HydraException, OmegaConfBaseException):
            continue  # a choice that cannot be read; the default menu still helps
        yield from _flatten(values, "")
        return


def _config_directories(arguments: Sequence[str]) -> list[str]:
    """The directories that the command line names: of ``--config-dir`` and of ``hydra.searchpath``."""
    searched = [path for argument in arguments for path in re.findall(r"file://([^\]'\",]+)", argument)]
    return [path for path in (*_given_directory(arguments), *searched) if os.path.isdir(path)]


def _given_directory(arguments: Sequence[str]) -> list[str]:
    """The value of ``--config-dir``, if it is given."""
    found = []
    for argument, following in itertools.pairwise([*arguments, ""]):
        name, equals, value = argument.partition("=")
        if name in ("-cd", "--config-dir"):
            found.append(value if equals else following)
    return found


def _flatten(values: Mapping[str, object], prefix: str) -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        yield prefix + key, value
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
