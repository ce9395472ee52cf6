"""Predictions as files: tables, arrays, and meshes for ParaView and the like."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ntkrun.commands.points import Points
from ntkrun.storage.atomic import write_atomically, write_text_atomically

SUFFIXES = (".csv", ".npz", ".vtu")


def as_csv(points: Points, values: pd.DataFrame, digits: int) -> str:
    """A table of coordinates and values.

    Args:
        points: the coordinates.
        values: by name, at every point.
        digits: significant ones, of the values; coordinates are written as exactly as they are known.
    """
    columns = {c: points.table[c].map(lambda value: repr(float(value))) for c in points.table}
    for name in values:
        columns[str(name)] = values[name].map(lambda value: f"{value:.{digits}g}")
    return pd.DataFrame(columns).to_csv(index=False, lineterminator="\n")


def write_values(path: Path, points: Points, values: pd.DataFrame, digits: int) -> None:
    """Write values at points in the format that the suffix names.

    Args:
        path: ``.csv``; ``.npz``, with an array for every derivative, shaped as the grid is, and ``axis_x`` and the like
            or, of points of a table, ``x`` and the like; or ``.vtu``.
        points: where.
        values: by name, at every point.
        digits: significant ones, in text.

    Raises:
        ValueError: the format cannot hold them, or needs a package that is not installed.
        WriteError: the file cannot be written.
    """
    if path.suffix == ".csv":
        write_text_atomically(path, as_csv(points, values, digits))
        return
    if path.suffix == ".npz":
        columns = {f"axis_{c}": axis for c, axis in (points.axes or {}).items()}
        arrays: dict[str, Any] = columns or {str(c): points.table[c].to_numpy() for c in points.table}
        arrays |= {str(name): values[name].to_numpy().reshape(points.shape) for name in values}
        write_atomically(path, lambda file: np.savez_compressed(file, **arrays))
        return
    write_atomically(path, lambda file: file.write(_mesh(points, values)))


def _mesh(points: Points, values: pd.DataFrame) -> bytes:
    """A VTK XML file: cells between the nodes of a grid, or single vertices; coordinates held fixed are left out."""
    try:
        import meshio
    except ImportError:
        raise ValueError("--output: .vtu needs the package meshio: pip install 'ntkrun[vtk]'") from None
    fixed = [] if points.axes is None else [c for c, axis in points.axes.items() if len(axis) == 1]
    shown = [c for c in points.table if c not in fixed]
    if len(shown) > 3:
        names = ", ".join(map(str, shown))
        raise ValueError(f"--output: .vtu has three coordinates; hold others of {names} fixed, as --at t=0.5")
    places = np.zeros((len(points.table), 3))
    places[:, : len(shown)] = points.table[shown].to_numpy()
    cells = [("vertex", np.arange(len(points.table))[:, None])]
    if points.axes is not None and shown:
        cells = [_cells([len(axis) for c, axis in points.axes.items() if c in shown])]
    mesh = meshio.Mesh(places, cells, point_data={str(name): values[name].to_numpy() for name in values})
    with tempfile.TemporaryDirectory() as folder:  # it writes to paths alone
        path = Path(folder) / "values.vtu"
        mesh.write(path)
        return path.read_bytes()


def _cells(shape: Sequence[int]) -> tuple[str, NDArray[np.int64]]:
    """Lines, quadrilaterals or hexahedra between the nodes of a grid, with VTK's order of corners."""
    number = np.arange(np.prod(shape)).reshape(shape)
    low, high = slice(None, -1), slice(1, None)
    if len(shape) == 1:
        return "line", np.stack([number[low], number[high]], axis=-1)
    square = [(low, low), (high, low), (high, high), (low, high)]
    if len(shape) == 2:
        return "quad", np.stack([number[corner].reshape(-1) for corner in square], axis=-1)
    cube = [(*corner, end) for end in (low, high) for corner in square]
    return "hexahedron", np.stack([number[corner].reshape(-1) for corner in cube], axis=-1)
