"""Numerical solutions that ship with the package; ``scripts/reference_solutions.py`` computes them."""

from __future__ import annotations

from importlib import resources

import numpy as np
from numpy.typing import NDArray

from ntkrun.pde.base import Reference

Array = NDArray[np.float64]


def load_arrays(name: str) -> dict[str, Array]:
    """All arrays of ``data/<name>.npz``: axes by letter, ``values``, ``tolerance`` and what else there is."""
    with resources.files("ntkrun.pde").joinpath("data", f"{name}.npz").open("rb") as file, np.load(file) as arrays:
        return {key: np.asarray(arrays[key], dtype=np.float64) for key in arrays.files}


def load_reference(name: str, coordinates: tuple[str, ...]) -> Reference:
    """The solution in ``data/<name>.npz``, with axes in the order of ``coordinates``."""
    arrays = load_arrays(name)
    return Reference({c: arrays[c] for c in coordinates}, arrays["values"])
