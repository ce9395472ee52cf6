"""Swept keys, and means over seeds."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Final

import pandas as pd

from ntkrun.report.gather import COMPLETED, OUTPUT_KEYS, Run

Value = str | int | float | bool | None
ABSENT: Final = "—"
"""The value of a key that a run's configuration does not have."""
STATISTICS = ("final_error", "best_error", "unweighted_loss", "seconds")
"""What groups have statistics of."""


@dataclass(frozen=True)
class Statistic:
    """Mean, standard deviation (n - 1) and count of what is known of a quantity."""

    mean: float | None
    deviation: float | None
    count: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Statistic:
        """Of all values that are not ``None``; one value has no deviation."""
        known = [value for value in values if value is not None]
        return cls(fmean(known) if known else None, stdev(known) if len(known) > 1 else None, len(known))


@dataclass(frozen=True, eq=False)
class Group:
    """Runs that differ in nothing but the seed.

    Attributes:
        values: of the swept keys.
        members: all of them, those included that do not count.
    """

    values: tuple[Value, ...]
    members: tuple[Run, ...]

    @property
    def runs(self) -> list[Run]:
        """Those that count."""
        return [run for run in self.members if run.counted]

    @property
    def not_completed(self) -> int:
        """The number of those that have not come to a usable end."""
        return sum(run.status != COMPLETED for run in self.members)

    @property
    def final_error(self) -> Statistic:
        """Of the final relative L2 error."""
        return Statistic.of(run.final_error for run in self.runs)

    @property
    def best_error(self) -> Statistic:
        """Of the smallest relative L2 error."""
        return Statistic.of(run.best_error for run in self.runs)

    def field_error(self, name: str) -> Statistic:
        """Of the final relative L2 error of a field."""
        return Statistic.of(run.field_errors.get(name) for run in self.runs)

    @property
    def unweighted_loss(self) -> Statistic:
        """Of the sum of the unweighted loss terms at the end."""
        return Statistic.of(run.unweighted_loss for run in self.runs)

    @property
    def seconds(self) -> Statistic:
        """Of the seconds in training and weight updates."""
        return Statistic.of(run.seconds for run in self.runs)


@dataclass(frozen=True, eq=False)
class Sweep:
    """Runs of one problem.

    Attributes:
        problem: its name.
        keys: what was swept among them; numeric keys have numbers, and perhaps null, as values.
        groups: in the order of the keys' ``levels``.
    """

    problem: str
    keys: tuple[str, ...]
    groups: tuple[Group, ...]

    @property
    def runs(self) -> list[Run]:
        """Those that count."""
        return [run for group in self.groups for run in group.runs]

    @property
    def solved(self) -> bool:
        """Whether an error is known of any run."""
        return any(run.final_error is not None for run in self.runs)

    def measure(self, run: Run) -> float | None:
        """How good a run is: its final error, or the unweighted loss where no error is known at all."""
        return run.final_error if self.solved else run.unweighted_loss

    def choices(self, group: Group) -> str:
        """What distinguishes a group, as one would type it; empty where nothing was swept."""
        return ", ".join(f"{key}={text(value)}" for key, value in zip(self.keys, group.values, strict=True))


def sweeps(runs: Sequence[Run], keys: Sequence[str]) -> list[Sweep]:
    """The runs by problem; runs without a readable configuration are left out."""
    by_problem: dict[str, list[Run]] = {}
    for run in runs:
        if run.choices:
            by_problem.setdefault(run.problem, []).append(run)
    return [_sweep(problem, members, keys) for problem, members in by_problem.items()]


def _sweep(problem: str, runs: Sequence[Run], keys: Sequence[str]) -> Sweep:
    table = values_by_run(runs, keys)
    column = {key: levels(row[k] for row in table) for k, key in enumerate(keys)}
    own = [k for k, key in enumerate(keys) if len(column[key]) > 1]
    members: dict[tuple[Value, ...], list[Run]] = {}
    for run, row in zip(runs, table, strict=True):
        members.setdefault(tuple(row[k] for k in own), []).append(run)
    order = sorted(members, key=lambda values: [column[keys[k]].index(v) for k, v in zip(own, values, strict=True)])
    groups = tuple(Group(values, tuple(members[values])) for values in order)
    return Sweep(problem, tuple(keys[k] for k in own), groups)


def levels(values: Iterable[Value]) -> list[Value]:
    """Distinct values: numbers in ascending order, others as they appear, null and absent last."""
    distinct = list(dict.fromkeys(values))
    known = [value for value in distinct if value is not None and value != ABSENT]
    if numeric(known):
        known.sort(key=lambda value: float(value))
    return known + [value for value in distinct if value is None or value == ABSENT]


def numeric(values: Iterable[Value]) -> bool:
    """Whether all values that are neither null nor absent are numbers, and there are any."""
    known = [value for value in values if value is not None and value != ABSENT]
    return bool(known) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in known)


def swept_keys(runs: Sequence[Run]) -> list[str]:
    """Groups and keys that differ between runs, the seed aside; the problem first, then as on the command line.

    Of a group whose choice differs the choice is named, and single keys only where they differ between runs of the
    same choice, or were given different values on the command line.
    """
    known = [run for run in runs if run.choices]
    given = list(dict.fromkeys(key for run in known for key in run.overridden))
    groups = list(dict.fromkeys(group for run in known for group in run.choices))
    swept = [
        group
        for group in groups
        if group not in OUTPUT_KEYS and _differ(run.choices.get(group, ABSENT) for run in known)
    ]
    flat = flattened(known)
    for key in dict.fromkeys(key for values in flat for key in values):
        if key == "seed" or key.partition(".")[0] in OUTPUT_KEYS:
            continue
        group = next((group for group in groups if key.startswith(group.replace("/", ".") + ".")), "")
        alike: dict[str, list[Value]] = {}
        for run, values in zip(known, flat, strict=True):
            choice = "" if key in given else run.choices.get(group, "")
            alike.setdefault(choice, []).append(values.get(key, ABSENT))
        if any(_differ(values) for values in alike.values()):
            swept.append(key)
    rank = {key: place for place, key in enumerate(dict.fromkeys(["pde", *given]))}
    return sorted(swept, key=lambda key: rank.get(key, len(rank)))


def _differ(values: Iterable[Value]) -> bool:
    return len(set(values) - {ABSENT}) > 1


def values_by_run(runs: Sequence[Run], keys: Sequence[str]) -> list[tuple[Value, ...]]:
    """Of every run the values of keys, or the choices where a key is a group."""
    return [tuple(run.choices.get(key) or _look_up(run.configuration, key) for key in keys) for run in runs]


def _look_up(configuration: Mapping[str, Any], key: str) -> Value:
    node: Any = configuration
    for name in key.split("."):
        if not isinstance(node, dict) or name not in node:
            return ABSENT
        node = node[name]
    return _plain(node)


def flattened(runs: Sequence[Run]) -> list[dict[str, Value]]:
    """Configurations with dotted keys.

    Lists stay whole, as text; so do mappings where other runs have a plain value in their place.
    """
    keys = {key for run in runs for key, _ in _leaves(run.configuration, "", frozenset())}
    parents = {key[:place] for key in keys for place, letter in enumerate(key) if letter == "."}
    return [dict(_leaves(run.configuration, "", frozenset(keys & parents))) for run in runs]


def _leaves(node: Mapping[str, Any], prefix: str, whole: frozenset[str]) -> Iterator[tuple[str, Value]]:
    for name, value in node.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and value and key not in whole:
            yield from _leaves(value, f"{key}.", whole)
        else:
            yield key, _plain(value)


def _plain(value: object) -> Value:
    """A value that can be compared and sorted; lists and mappings as text."""
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    return value if value is None or isinstance(value, str | int | float | bool) else json.dumps(value, default=str)


def text(value: Value) -> str:
    """A value as one would type it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def field_names(runs: Sequence[Run]) -> list[str]:
    """The fields that any of the runs has errors of, each by itself."""
    return list(dict.fromkeys(name for run in runs for name in run.field_errors))


def runs_table(runs: Sequence[Run], keys: Sequence[str], output: Path) -> pd.DataFrame:
    """``runs.csv``: one row per run, paths relative to the report; what is not known stays empty."""
    columns = list(dict.fromkeys(["pde", *keys]))
    fields = field_names(runs)
    rows = []
    for run, values in zip(runs, values_by_run(runs, columns), strict=True):
        rows.append(
            {
                "run": Path(os.path.relpath(run.directory, output)).as_posix(),
                "status": run.status,
                "reason": run.reason,
                **_cells(columns, values),
                "seed": "" if run.seed is None else str(run.seed),
                "step": run.step,
                "final_error": run.final_error,
                "best_error": run.best_error,
                **{f"final_error/{name}": run.field_errors.get(name) for name in fields},
                "unweighted_loss": run.unweighted_loss,
                "seconds": run.seconds,
                "training_seconds": run.training_seconds,
                "update_seconds": run.update_seconds,
            }
        )
    return pd.DataFrame(rows).astype({"step": "Int64"})


def groups_table(found: Sequence[Sweep], keys: Sequence[str]) -> pd.DataFrame:
    """``groups.csv``: one row per combination of swept values, with statistics over seeds."""
    swept = list(dict.fromkeys(["pde", *keys]))
    fields = field_names([run for sweep in found for run in sweep.runs])
    names = [*STATISTICS, *(f"final_error/{name}" for name in fields)]
    header = [f"{name}/{part}" for name in names for part in ("mean", "deviation", "count")]
    rows = []
    for group in (group for sweep in found for group in sweep.groups):
        row = _cells(swept, values_by_run(group.members[:1], swept)[0])
        row |= {"count": len(group.runs), "not_completed": group.not_completed}
        statistics: list[Statistic] = [getattr(group, name) for name in STATISTICS]
        for name, statistic in zip(names, [*statistics, *map(group.field_error, fields)], strict=True):
            row |= {f"{name}/{part}": getattr(statistic, part) for part in ("mean", "deviation", "count")}
        rows.append(row)
    return pd.DataFrame(rows, columns=[*swept, "count", "not_completed", *header])


def _cells(columns: Sequence[str], values: Sequence[Value]) -> dict[str, object]:
    return {c: "" if value == ABSENT else text(value) for c, value in zip(columns, values, strict=True)}


def spread(values: Iterable[float]) -> bool:
    """Whether values are positive and span more than a factor of 10, so that a logarithmic axis suits them."""
    known = [value for value in values if math.isfinite(value)]
    return bool(known) and min(known) > 0 and max(known) > 10 * min(known)
