"""The help text, made from the configuration menu itself."""

from __future__ import annotations

import re
from importlib.resources import files
from importlib.resources.abc import Traversable

GROUPS = {
    "pde": "the problem",
    "network": "the network",
    "weights": "how the loss terms are weighted",
    "point_weights": "how the points of a term are weighted",
    "optimizer": "the optimiser",
    "schedule": "the learning rate over the run",
    "diagnostics": "what is recorded besides losses, error and weights",
    "logger": "where the numbers go besides the run's own tables",
    "experiment": "recipes that choose from the groups above",
}

HEAD = """\
ntkrun trains physics-informed neural networks whose loss terms are weighted by the
neural tangent kernel (NTK), computed exactly or by randomised sketching.

usage: ntkrun [group=choice | key=value] ...
       ntkrun resume=RUN_DIRECTORY [trust=MODULE,...] [accept=KEY,...] [key=value] ...
       ntkrun -m key=value1,value2,... ...          one run per combination
       ntkrun show pde=NAME [key=value] ...         a problem in mathematical notation
       ntkrun --list [GROUP]                        the choices of a group, one a line
       eval "$(ntkrun --completion bash)"           completion in this shell; or zsh

ntkrun-predict, ntkrun-export, ntkrun-watch and ntkrun-report are for what comes during and after training.
"""

EXAMPLES = """\
Examples:
  ntkrun pde=poisson weights=sketched
  ntkrun pde=wave optimizer=adam weights=exact weights.update_every=1 iterations=20000
  ntkrun pde=poisson pde.a=2 network.width=128 optimizer=adam schedule=cosine
  ntkrun -m pde=poisson weights=sketched weights.sketch_size=1,4,16,64 seed=0,1,2
  ntkrun resume=outputs/2026-01-31/12-00-00-poisson-exact-0123abcd iterations=400

Each run writes its tables, plots, solution, checkpoint and summary to a directory of its
own under outputs/ and prints that directory as its last line.

More: ntkrun --cfg job (the whole configuration), ntkrun --hydra-help (sweeps, launchers,
configuration directories), ntkrun --version.

Exit status: 0 done, 1 a run failed, 2 what was given cannot be used, 128 + n stopped by signal n.
"""


def help_text() -> str:
    """Usage, groups with their choices, top-level keys and examples."""
    conf = files("ntkrun.conf")
    lines = [HEAD, "Groups and their choices (defaults marked *; keys of a choice: group.key=value):"]
    defaults, keys = _top_level(conf)
    for group, meaning in GROUPS.items():
        lines.append(f"  {group}: {meaning}")
        for name, line in zip(choices(group), group_lines(group), strict=True):
            lines.append(f"   {'*' if defaults.get(group) == name else ' '} {line}")
    lines += ["", "Top-level keys with their defaults:"]
    tuned = _tuned(conf, defaults)
    for key, value, comment in keys:
        if key in tuned:
            comment, value = f"{comment}; {value} in general", tuned[key]
        lines.append(f"    {key:<18} {value:<9} {comment}")
    lines.append(
        f"  Problems have settings of their own under optimizer={defaults['optimizer']}: ntkrun --cfg job pde=NAME"
    )
    return "\n".join([*lines, "", EXAMPLES.rstrip()])


def group_lines(group: str) -> list[str]:
    """The choices of a group, each with the line that its file begins with."""
    folder = files("ntkrun.conf") / group
    texts = {name: (folder / f"{name}.yaml").read_text(encoding="utf-8") for name in choices(group)}
    first = {name: text.removeprefix("# @package _global_\n").splitlines()[0] for name, text in texts.items()}
    return [f"{name:<18} {line.removeprefix('# ')}" for name, line in first.items()]


def choices(group: str) -> list[str]:
    """The names of a group's choices on the menu."""
    entries = (entry.name for entry in (files("ntkrun.conf") / group).iterdir())
    return sorted(name.removesuffix(".yaml") for name in entries if name.endswith(".yaml"))


LINE = re.compile(r"(?P<indent> *)(?P<key>[\w.]+): ?(?P<value>[^#]*?)(?: *# (?P<comment>.*))?$")


def choice_keys(file: Traversable) -> list[tuple[str, str, str]]:
    """The keys of a choice with their defaults and comments, nested ones with dots; none of a file that is not there.

    Args:
        file: a YAML file of a group, read without a YAML parser to start fast.
    """
    if not file.is_file():
        return []
    keys, parents = [], list[tuple[int, str]]()
    for line in file.read_bytes().decode("utf-8", "replace").splitlines():
        found = LINE.match(line)
        if not found or found["key"] == "_target_":
            continue
        indent, value = len(found["indent"]), found["value"].strip()
        parents = [(depth, name) for depth, name in parents if depth < indent]
        if value or found["comment"]:
            keys.append((".".join([*(name for _, name in parents), found["key"]]), value, found["comment"] or ""))
        if not value:
            parents.append((indent, found["key"]))
    return keys


def default_choices() -> dict[str, str]:
    """The choice of every group where none is given."""
    return _top_level(files("ntkrun.conf"))[0]


def top_level_keys() -> list[tuple[str, str, str]]:
    """The keys at the top of the configuration with their defaults and comments."""
    return _top_level(files("ntkrun.conf"))[1]


def _tuned(conf: Traversable, defaults: dict[str, str]) -> dict[str, str]:
    """The top-level keys that the tuned settings of the default choices set, and to what."""
    pde, network, optimizer = (defaults[group] for group in ("pde", "network", "optimizer"))
    values = {}
    for name in (f"optimizer/{optimizer}", f"problem/{optimizer}/{network}/{pde}"):
        for line in (conf / "tuned" / f"{name}.yaml").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if value and not key.startswith((" ", "#")):
                values[key] = value.strip()
    return values


def _top_level(conf: Traversable) -> tuple[dict[str, str], list[tuple[str, str, str]]]:
    """The default choices and the plain keys of config.yaml, read without a YAML parser to start fast."""
    defaults: dict[str, str] = {}
    keys = []
    parent = ""
    for line in (conf / "config.yaml").read_text(encoding="utf-8").splitlines():
        text, _, comment = line.partition(" # ")
        key, separator, value = text.partition(":")
        if key == "hydra":
            break
        if text.startswith("  - "):
            defaults[key.removeprefix("  - ")] = value.strip()
        elif not separator or key.startswith("#"):
            continue
        elif not value:
            parent = f"{key}."
        else:
            keys.append((key if key == key.lstrip() else parent + key.lstrip(), value.strip(), comment))
    return defaults, keys
