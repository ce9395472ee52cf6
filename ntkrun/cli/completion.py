"""Completion of the command line in bash and zsh, from the menu itself. Loads nothing heavy: it answers every Tab."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from ntkrun.cli.help import GROUPS, choice_keys, choices, default_choices, top_level_keys

OPTIONS = ("--help", "--version", "--list", "--multirun", "--cfg", "--config-dir", "--completion")
OTHERS = ("resume=", "trust=", "accept=", "hydra.run.dir=", "hydra.sweep.dir=", "hydra/launcher=", "hydra/sweeper=")

SCRIPTS = {
    "bash": """\
_ntkrun() {
    local IFS=$'\\n' line="${COMP_LINE:0:$COMP_POINT}"
    local word="${line##* }"
    COMPREPLY=($(ntkrun --completions "$line" 2>/dev/null))
    case "$COMP_WORDBREAKS" in *=*) COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*=}"}"}") ;; esac
    compopt -o nospace 2>/dev/null
}
complete -o default -F _ntkrun ntkrun
""",
    "zsh": """\
_ntkrun() {
    local -a found
    found=(${(f)"$(ntkrun --completions "$LBUFFER" 2>/dev/null)"})
    (( $#found )) && compadd -S '' -- $found || _files
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i }
compdef _ntkrun ntkrun
""",
}
"""What the one line in a shell's start file evaluates: ``eval "$(ntkrun --completion bash)"``."""


def completions(line: str) -> list[str]:
    """The words that the last word of a command line may become; empty where the shell should offer files.

    Args:
        line: from the name of the command to the cursor.
    """
    *before, word = line.split(" ")
    key, equals, value = word.partition("=")
    given = [each for each in before[1:] if each]
    if given and given[-1] == "--list":
        return [group for group in GROUPS if group.startswith(word)]
    if not equals:
        return [each for each in _keys(given) if each.startswith(word)]
    kept, comma, last = value.rpartition(",")  # of a sweep
    return [f"{key}={kept}{comma}{name}" for name in _choices(key, given) if name.startswith(last)]


def _keys(given: Sequence[str]) -> Iterator[str]:
    yield from (f"{group}=" for group in GROUPS)
    yield from (f"{key}=" for key, _, _ in top_level_keys())
    yield from OTHERS
    yield from OPTIONS
    if not given:
        yield "show"
    chosen = default_choices() | dict(word.split("=", 1) for word in given if "=" in word)
    for group in GROUPS:
        name = chosen.get(group, "").split(",")[0]
        yield from (f"{group}.{key}=" for key, _, _ in choice_keys(_file(group, name, given)))


def _choices(group: str, given: Sequence[str]) -> list[str]:
    if group not in GROUPS:
        return []
    own = _directory(given)
    found = (own / group).glob("*.yaml") if own else ()
    return sorted({*choices(group), *(path.stem for path in found)})


def _file(group: str, name: str, given: Sequence[str]) -> Traversable:
    own = _directory(given)
    if own and (own / group / f"{name}.yaml").is_file():
        return own / group / f"{name}.yaml"
    return files("ntkrun.conf") / group / f"{name}.yaml"


def _directory(given: Sequence[str]) -> Path | None:
    """The directory of the user's own groups."""
    for option, value in itertools.pairwise([*given, ""]):
        name, equals, rest = option.partition("=")
        if name in ("--config-dir", "-cd"):
            return Path(rest if equals else value)
    return None
