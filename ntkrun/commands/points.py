"""Points for predictions: of a table, or of a grid over the domain, with coordinates held fixed where that is asked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ntkrun.geometry import Domain

MOST = 2**26  # nodes of a grid


@dataclass(frozen=True)
class Points:
    """Points and how they lie.

    Attributes:
        table: one column per coordinate, in the order of the domain.
        axes: of a grid, by coordinate, ``[G]`` each; the last one runs fastest. ``None`` for points of a table.
    """

    table: pd.DataFrame
    axes: Mapping[str, NDArray[np.float64]] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Nodes along every axis, or the number of points."""
        return (len(self.table),) if self.axes is None else tuple(len(axis) for axis in self.axes.values())


def read_fixed(texts: Sequence[str], domain: Domain) -> dict[str, float]:
    """Coordinates that are held fixed, from texts such as ``t=0.5``.

    Raises:
        ValueError: one is no such text, names no coordinate, or lies outside of the domain.
    """
    fixed: dict[str, float] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in domain.coordinates:
            raise ValueError(f"--at {text}: expected COORDINATE=NUMBER with one of {', '.join(domain.coordinates)}")
        try:
            fixed[name] = float(value)
        except ValueError:
            raise ValueError(f"--at {text}: {value!r} is no number") from None
        if not domain.low[name] <= fixed[name] <= domain.high[name]:
            raise ValueError(f"--at {text}: the domain has {name} from {domain.low[name]:g} to {domain.high[name]:g}")
    return fixed


def read_points(path: Path, coordinates: Sequence[str], fixed: Mapping[str, float]) -> Points:
    """The points of a CSV file whose first line names the columns; other columns are ignored.

    Args:
        path: the file.
        coordinates: the columns wanted.
        fixed: values of coordinates that it need not have.

    Raises:
        ValueError: it cannot be read, lacks a coordinate, or holds something else than numbers there.
    """
    try:
        table = pd.read_csv(path, dtype=str, skipinitialspace=True, keep_default_na=False)
    except OSError as error:
        raise ValueError(f"--points {path}: {error.strerror or error}") from None
    except (ValueError, pd.errors.ParserError) as error:  # of bytes that are no text, too
        raise ValueError(f"--points {path}: not a table: {str(error).strip()}") from None
    columns = {}
    for c in coordinates:
        if c in fixed:
            columns[c] = np.full(len(table), fixed[c])
            continue
        if c not in table:
            found = ", ".join(map(str, table.columns))
            raise ValueError(f"--points {path}: no column {c}; the first line names the columns, here {found}")
        columns[c] = np.array([_number(text, f"--points {path}, line {k}: {c}") for k, text in enumerate(table[c], 2)])
    return Points(pd.DataFrame(columns, dtype=np.float64))


def _number(text: str, place: str) -> float:
    """A number to its last digit, unlike by most readers of tables."""
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{place} is {text!r}, not a number") from None


def grid_points(domain: Domain, per_axis: int, fixed: Mapping[str, float]) -> Points:
    """An equispaced grid over the domain, ends included; a coordinate held fixed has one node.

    Raises:
        ValueError: it would have too many nodes.
    """
    axes = {
        c: np.array([fixed[c]]) if c in fixed else np.linspace(domain.low[c], domain.high[c], per_axis)
        for c in domain.coordinates
    }
    if (count := math.prod(map(len, axes.values()))) > MOST:
        raise ValueError(f"--grid {per_axis}: {count} points; hold coordinates fixed, as --at t=0.5, or take fewer")
    nodes = np.meshgrid(*axes.values(), indexing="ij")
    return Points(pd.DataFrame({c: node.reshape(-1) for c, node in zip(axes, nodes, strict=True)}), axes)


def inside_of(domain: Domain, table: pd.DataFrame) -> NDArray[np.bool_]:
    """Which rows of a table of points lie in a shape, ``[N]``; elsewhere a grid has no values."""
    points = torch.from_numpy(table.to_numpy(dtype=np.float64, copy=True))
    inside: NDArray[np.bool_] = domain.contains(points).numpy()
    return inside
