"""Runs below directories, and their files."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ntkrun.common.errors import one_line
from ntkrun.storage.reader import UnreadableError, read_json, read_table, read_yaml

COMPLETED = "completed"
UNFINISHED = "unfinished"
BROKEN = "broken"
OUTPUT_KEYS = ("logger", "progress", "plots", "report", "skip_completed")
"""Groups and keys at the top of the configuration that do not concern what is computed."""
GROUPS = 100
"""Most groups that a run may have chosen from."""
FIELDS = 100
"""Most fields whose errors a table has each by itself."""
LARGEST = 1e100
"""Largest finite number that sums, means and figures still bear."""
LONGEST = 300
"""Most characters of a reason."""


def brief(words: str, longest: int) -> str:
    """A text, cut off where it is longer."""
    return words if len(words) <= longest else words[: longest - 1] + "…"


@dataclass(frozen=True, eq=False)
class Run:
    """One run, as far as its directory tells.

    Attributes:
        directory: the run directory, absolute.
        status: that of ``summary.json``; ``unfinished`` where there is none, ``broken`` where files cannot be used.
        reason: why the run is in no figure and no mean; empty for those that are.
        configuration: the whole configuration, nested.
        choices: what was chosen from each group.
        overridden: keys and groups given on the command line, in order.
        step: the last step.
        final_error, best_error: relative L2 errors, where there is an exact solution.
        field_errors: final ones by field, where there are several.
        training_seconds, update_seconds: time spent in training and in weight updates.
        metrics: ``metrics.csv`` of a completed run.
        weights: ``weights.csv`` of a completed run.
    """

    directory: Path
    status: str = BROKEN
    reason: str = ""
    configuration: Mapping[str, Any] = field(default_factory=dict)
    choices: Mapping[str, str] = field(default_factory=dict)
    overridden: tuple[str, ...] = ()
    step: int | None = None
    final_error: float | None = None
    best_error: float | None = None
    field_errors: Mapping[str, float | None] = field(default_factory=dict)
    training_seconds: float | None = None
    update_seconds: float | None = None
    metrics: pd.DataFrame = field(default_factory=pd.DataFrame)
    weights: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def counted(self) -> bool:
        """Whether the run is part of figures and means."""
        return self.status == COMPLETED and not self.reason

    @property
    def problem(self) -> str:
        """What was chosen as ``pde``."""
        return self.choices.get("pde", "unknown")

    @property
    def seed(self) -> object:
        """The seed."""
        return self.configuration.get("seed")

    @property
    def seconds(self) -> float | None:
        """Seconds in training and weight updates."""
        if self.training_seconds is None or self.update_seconds is None:
            return None
        return self.training_seconds + self.update_seconds

    @property
    def unweighted_loss(self) -> float | None:
        """The sum of the unweighted loss terms at the end."""
        return _finite(unweighted_loss(self.metrics).iloc[-1]) if len(self.metrics) else None


def unweighted_loss(metrics: pd.DataFrame) -> pd.Series[float]:
    """The sum of the unweighted loss terms, by row; unlike the weighted one comparable between weightings."""
    return metrics[[column for column in metrics.columns if column.startswith("loss/")]].sum(axis=1, skipna=False)


def gather(directories: Sequence[Path]) -> list[Run]:
    """Read all runs in and below directories; of completed runs that are alike in everything only the last counts."""
    return _set_aside_repeats([read_run(path) for path in find_runs(directories)])


def find_runs(directories: Sequence[Path]) -> list[Path]:
    """Run directories in and below the given ones, whole or broken, in the order of dates and job numbers."""
    found = {path for directory in directories for path in _walk(directory.resolve())}
    return sorted(found, key=lambda path: [_natural(part) for part in path.parts])


def _walk(top: Path) -> Iterator[Path]:
    """Run directories in and below one; links are not followed, nor are directories that cannot be read."""
    waiting = [top]
    while waiting:
        path = waiting.pop()
        try:
            with os.scandir(path) as entries:
                folders = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
        except OSError:
            continue
        if {".hydra", "summary.json", "metrics.csv"} & set(folders):
            yield path
        waiting += [
            path / name
            for name, is_folder in folders.items()
            if is_folder and not name.startswith(".")
            if not (name == "report" and (path / name / "index.html").exists())
        ]


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts ``2`` before ``10``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def read_run(directory: Path) -> Run:
    """Read a run directory; whatever is wrong with it becomes the run's ``reason``."""
    run = Run(directory)
    try:
        run = _described(run)
        if not os.path.lexists(directory / "summary.json"):
            return replace(run, status=UNFINISHED, reason="no summary.json: the run was killed or is not yet done")
        run = _summarised(run)
        if run.status != COMPLETED:
            return run
        metrics = read_table(directory / "metrics.csv", "step", "seconds", "loss", "error/rel_l2")
        weights = read_table(directory / "weights.csv", "step", "seconds")
        _check_tables(metrics, weights)
        return replace(run, metrics=metrics, weights=weights)
    except UnreadableError as error:
        return replace(run, status=BROKEN, reason=brief(one_line(error), LONGEST))


def _check_tables(metrics: pd.DataFrame, weights: pd.DataFrame) -> None:
    """See that there is something to draw, in numbers that can be added up."""
    if metrics.empty:
        raise UnreadableError("metrics.csv has no rows")
    for kind in ("loss/", "weight/"):
        if not any(str(column).startswith(kind) for column in metrics):
            raise UnreadableError(f"metrics.csv has no column {kind}...")
    for name, table in (("metrics.csv", metrics), ("weights.csv", weights)):
        sizes = table.abs().to_numpy()
        if np.any(np.isfinite(sizes) & (sizes > LARGEST)):
            raise UnreadableError(f"{name} has a number beyond {LARGEST:g}")


def _described(run: Run) -> Run:
    """With its configuration, choices and overrides."""
    folder = run.directory / ".hydra"
    if folder.is_symlink():
        raise UnreadableError(".hydra is a link")
    configuration = read_yaml(folder / "config.yaml")
    if not isinstance(configuration, dict):
        raise UnreadableError(".hydra/config.yaml is not a configuration")
    run = replace(run, configuration=_comparable(configuration))
    overrides = read_yaml(folder / "overrides.yaml")
    hydra = read_yaml(folder / "hydra.yaml")
    try:
        choices = {
            str(group): "null" if choice is None else str(choice)
            for group, choice in hydra["hydra"]["runtime"]["choices"].items()
            if not str(group).startswith(("hydra/", "tuned/"))  # tuned settings follow from the other choices
        }
    except (TypeError, KeyError, AttributeError):
        raise UnreadableError(".hydra/hydra.yaml does not say what was chosen") from None
    if len(choices) > GROUPS:
        raise UnreadableError(f".hydra/hydra.yaml has more than {GROUPS} groups")
    if not isinstance(overrides, list):
        raise UnreadableError(".hydra/overrides.yaml is not a list")
    keys = [str(override).partition("=")[0].lstrip("+~").partition("@")[0] for override in overrides]
    return replace(run, choices=choices, overridden=tuple(keys))


def _comparable(value: Any) -> Any:
    """A value of a configuration with texts for keys, and for numbers that are not finite."""
    if isinstance(value, dict):
        return {str(key): _comparable(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_comparable(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _summarised(run: Run) -> Run:
    """With what its ``summary.json`` says."""
    summary = read_json(run.directory / "summary.json")
    if not isinstance(summary, dict) or not isinstance(summary.get("status"), str):
        raise UnreadableError("summary.json does not say how the run ended")
    status = summary["status"]
    seconds = [_number(summary, "seconds", name) for name in ("training", "weight_updates")]
    if status == COMPLETED and None in seconds:
        raise UnreadableError("summary.json has no seconds")
    reason = "" if status == COMPLETED else str(summary.get("message") or "")
    if status == "running":
        reason = "the run is not yet done, or its process was lost"
    return replace(
        run,
        status=status,
        reason=brief(one_line(reason), LONGEST) or ("" if status == COMPLETED else "no reason is recorded"),
        configuration=_as_long_as(
            run.configuration, None if "window_ends" in summary else _count(summary, "iterations")
        ),
        step=_count(summary, "step"),
        final_error=_number(summary, "rel_l2", "final"),
        best_error=_number(summary, "rel_l2", "best"),
        field_errors=_field_errors(summary),
        training_seconds=seconds[0],
        update_seconds=seconds[1],
    )


def _field_errors(summary: Mapping[str, Any]) -> dict[str, float | None]:
    errors = summary.get("rel_l2")
    fields = errors.get("fields", {}) if isinstance(errors, dict) else {}
    if not isinstance(fields, dict) or len(fields) > FIELDS or not all(name.isidentifier() for name in fields):
        raise UnreadableError("summary.json: rel_l2.fields does not hold errors of fields")
    return {brief(name, LONGEST): _number(summary, "rel_l2", "fields", name, "final") for name in fields}


def _as_long_as(configuration: Mapping[str, Any], iterations: int | None) -> Mapping[str, Any]:
    """The configuration of a run that may have been lengthened on resuming."""
    windows = configuration.get("time_windows", 1)
    windows = 1 if windows in ("auto", "adaptive") else windows
    if iterations is None or not isinstance(windows, int) or windows < 1:
        return configuration
    return {**configuration, "iterations": iterations // windows}


def _number(summary: Mapping[str, Any], *keys: str) -> float | None:
    """A finite number from nested mappings, ``None`` where it is null, not finite or absent."""
    value: Any = summary
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnreadableError(f"summary.json: {'.'.join(keys)} is not a number")
    if abs(value) > LARGEST:
        raise UnreadableError(f"summary.json: {'.'.join(keys)} is beyond {LARGEST:g}")
    return _finite(value)


def _count(summary: Mapping[str, Any], *keys: str) -> int | None:
    """A whole number that a table can hold."""
    value = _number(summary, *keys)
    if value is not None and abs(value) >= 2**53:
        raise UnreadableError(f"summary.json: {'.'.join(keys)} is beyond 2^53")
    return None if value is None else int(value)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _set_aside_repeats(runs: Sequence[Run]) -> list[Run]:
    last = {_identity(run): run.directory for run in runs if run.counted}
    return [
        replace(run, reason=f"the same configuration and seed as {last[_identity(run)].name}, which counts")
        if run.counted and last[_identity(run)] != run.directory
        else run
        for run in runs
    ]


def _identity(run: Run) -> str:
    own = {key: value for key, value in run.configuration.items() if key not in OUTPUT_KEYS}
    return json.dumps(own, sort_keys=True, default=str)
