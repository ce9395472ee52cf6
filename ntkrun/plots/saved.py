"""The solution that a run has saved, as far as it is what runs write."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ntkrun.storage.reader import read_arrays

FIELDS = 8
"""Most fields of a solution that is drawn."""
NAME = 40
"""Most characters of the name of a field or coordinate."""
LARGEST = 1e100
"""Largest number that figures bear."""


def axes_of(solution: Iterable[str]) -> list[str]:
    """The coordinates that a solution has axes of, from the names of its arrays; none where it is at single points."""
    return [name.removeprefix("axis_") for name in solution if name.startswith("axis_")]


def of_a_shape(values: NDArray[Any], letters: str) -> bool:
    """Whether two coordinates are lengths of a shape, outside of which nodes have no value; a time is no length."""
    return "t" not in letters and bool(np.isnan(values).any())


def read_solution(directory: Path) -> dict[str, NDArray[Any]]:
    """The arrays of ``solution.npz``, which can be drawn; the directory may have been received.

    Raises:
        ValueError: they are missing, damaged, or something else.
    """
    solution = read_arrays(directory / "solution.npz")
    try:
        _check(solution)
    except (LookupError, TypeError) as error:
        raise ValueError(f"solution.npz is not what a run writes: {type(error).__name__}: {error}") from None
    except ValueError as error:
        raise ValueError(f"solution.npz is not what a run writes: {error}") from None
    return solution


def _check(solution: Mapping[str, NDArray[Any]]) -> None:
    """See that arrays are what a run writes."""
    fields = [str(field) for field in solution["fields"]]
    if not 0 < len(fields) <= FIELDS or not all(field.isidentifier() and len(field) <= NAME for field in fields):
        raise ValueError("the fields are no names, or too many")
    axes = {c: solution[f"axis_{c}"] for c in axes_of(solution)}
    coordinates = list(axes) or [str(c) for c in solution["coordinates"]]
    if not all(c.isidentifier() and len(c) <= NAME for c in coordinates):
        raise ValueError("the coordinates are no names")
    places = list(axes.values()) or [solution["points"]]
    lengths = [len(place) for place in places]
    shape = (*lengths, len(fields))
    tables = [solution[name] for name in ("prediction", "exact", "error") if name in solution]
    for array in [*places, *tables]:
        if array.dtype.kind != "f" or np.any(np.isfinite(array) & (np.abs(array) > LARGEST)):
            raise ValueError("the arrays are not of bounded numbers")
    if not all(np.isfinite(place).all() and np.size(place) for place in places) or any(
        t.shape != shape for t in tables
    ):
        raise ValueError("the arrays do not fit together")
    if ("exact" in solution) != ("error" in solution) or not np.isfinite(solution["prediction"]).any():
        raise ValueError("there is nothing to draw")
