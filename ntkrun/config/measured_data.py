"""Measured values of a problem's fields, read from files.

A file is a table whose columns are named as the coordinates and the fields; ``<field>_std`` holds standard deviations.
An empty entry, or NaN, of a field says that it was not observed there. A structured array of NumPy, ``.npy``, stays on
the disk where its columns lie beside each other in the order of the coordinates, the field and its standard deviation.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ntkrun.common.errors import ConfigError, closest
from ntkrun.config.classes import find_class
from ntkrun.config.values import unknown
from ntkrun.geometry import Table
from ntkrun.pde import PDE, Term
from ntkrun.pde.check import place
from ntkrun.pde.measured import DATA, STD, loss_terms
from ntkrun.storage.reader import UnreadableError, opened, read_arrays, read_bytes, read_table

LONGEST = 2**31  # bytes of a file that is read as a whole
MAPPED = 2**44  # of one that is not
AT_A_TIME = 2**20  # rows that are looked at
SLACK = 1e-9  # of a coordinate's interval, by which rounding may put a point outside of it

Values = NDArray[np.float64]


def data_apart(node: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The arguments of a problem's class, and the files of measured values, with their digests.

    Args:
        node: the class, its arguments and ``data``, which is one of these where the class has such an argument.

    Raises:
        ConfigError: see ``files_of``; or there is no such class.
    """
    own = dict(node)
    if own.get(DATA) is None:  # as by default; so a class may have a default of its own
        own.pop(DATA, None)
        return own, {}
    if takes_data(node):
        return own, {}
    del own[DATA]
    return own, files_of(node)


def takes_data(node: Mapping[str, Any]) -> bool:
    """Whether ``data`` is an argument of the problem's own class, which then reads what it likes."""
    return DATA in inspect.signature(find_class(node.get("_target_"), "pde", PDE)).parameters


def check_point_names(given: Mapping[str, int | str], pde: PDE) -> None:
    """See that numbers of points are given for loss terms alone.

    Raises:
        ConfigError: there is no term of such a name.
    """
    names = [term.name for term in loss_terms(pde)]
    if strange := [name for name in given if name not in {*names, DATA}]:
        raise ConfigError(unknown(f"pde.points.{strange[0]}", "pde.points.", names))


def point_counts(given: Mapping[str, int | str], pde: PDE) -> dict[str, int]:
    """The number of points of every term, as given or a usual one, and all rows of tables that are given none.

    Args:
        given: numbers by term; ``all`` for all rows of a table. What is given for ``data`` holds for every measured
            field that is given nothing of its own.
        pde: the problem, of which terms may live on tables.

    Raises:
        ConfigError: all of what is no table is asked for.
    """
    terms = loss_terms(pde)
    tables = {
        term.name: sum(part.least for part in term.region)
        for term in terms
        if all(isinstance(part, Table) for part in term.region)
    }
    usual = {term.name: _usual_count(term, pde) for term in terms if term.name not in (pde.built_in or ())}
    counts = {name: number for name, number in given.items() if isinstance(number, int)}
    for name in given.keys() - counts.keys() - tables.keys() - {DATA}:
        raise ConfigError(f"pde.points.{name}=all: only measured data can be taken as a whole; give a number")
    of_fields = {name for name in tables if name.startswith(f"{DATA}_")}
    if of_fields and DATA in counts:
        general = counts.pop(DATA)
        counts = {**dict.fromkeys(of_fields - given.keys(), general), **counts}
    return {**usual, **counts}


def _usual_count(term: Term, pde: PDE) -> int:
    """The number of points of a term that is given none, by the dimension of its region.

    Of the whole domain 200 on a line and 1,000 else, of its faces and other parts 50 for each and no fewer than 100,
    and single points and rows of tables as they are.
    """
    dimension = max(part.dimension for part in term.region)
    if dimension == 0:
        return sum(part.least for part in term.region)
    if dimension == len(pde.coordinates):
        return 200 if dimension == 1 else 1000
    return max(100, 50 * len(term.region))


def digest(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        limit = MAPPED if path.suffix.lower() == ".npy" else LONGEST
        with opened(Path(os.path.realpath(path)), limit) as file:
            found = hashlib.sha256()
            while block := file.read(2**20):
                found.update(block)
            return found.hexdigest()
    except UnreadableError as error:
        raise ConfigError(f"pde.data: {error}") from None


def read_measurements(files: Mapping[str, str], pde: PDE) -> dict[str, Table]:
    """The tables of every measured field, all files together.

    Args:
        files: the digest of every file, by its path.
        pde: names coordinates and fields.

    Raises:
        ConfigError: a file has changed, cannot be read, or does not fit the problem.
    """
    parts: dict[str, dict[str, dict[str, Values]]] = {}
    for path, known in files.items():
        if digest(Path(path)) != known:
            raise ConfigError(
                f"pde.data: {path} is not the file that it was when the run began; put that one back, or start anew"
            )
        columns = _read(Path(path))
        _check_columns(columns, pde, path)
        _check_coordinates(columns, pde, path)
        for field in (field for field in pde.fields if field in columns):
            parts.setdefault(field, {})[path] = _observed(columns, field, pde, path)
    return {field: _table(field, parts[field], pde) for field in pde.fields if field in parts}


def _read(path: Path) -> dict[str, Values]:
    """The columns of a file by name, ``[N]`` each."""
    readers = {".csv": _read_csv, ".npy": _read_npy, ".npz": _read_npz, ".parquet": _read_parquet}
    if path.suffix.lower() not in readers:
        raise ConfigError(f"pde.data: {path}: expected a file that ends in {', '.join(readers)}")
    try:
        columns = readers[path.suffix.lower()](Path(os.path.realpath(path)))
    except UnreadableError as error:
        raise ConfigError(f"pde.data: {error}") from None
    if not columns or not len(next(iter(columns.values()))):
        raise ConfigError(f"pde.data: {path} has no rows")
    return columns


def _read_csv(path: Path) -> dict[str, Values]:
    frame = read_table(path, whole_lines=False)
    # NumPy begins the line with the names by the sign of a comment; others begin the file by a mark of its encoding.
    return {str(name).lstrip("\ufeff#").strip(): frame[name].to_numpy() for name in frame}


def _read_npy(path: Path) -> dict[str, Values]:
    """The columns of a structured array, of which nothing is read yet where they are of double precision."""
    try:
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UnreadableError(f"{path.name} does not hold an array: {str(error).splitlines()[0]}") from None
    names = array.dtype.names
    if names is None or array.ndim != 1 or any(array.dtype[name].kind not in "fiu" for name in names):
        raise UnreadableError(
            f"{path.name} does not hold columns with names; write a structured array, such as "
            "numpy.empty(n, dtype=[('x', 'f8'), ('u', 'f8')])"
        )
    return {name: np.asarray(array[name]).astype(np.float64, copy=False) for name in names}


def _read_npz(path: Path) -> dict[str, Values]:
    arrays = read_arrays(path)
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) > 1 or any(len(shape) != 1 for shape in shapes):
        raise UnreadableError(f"{path.name} has arrays of the shapes {sorted(shapes)}; expected [N], as many of all")
    for name, array in arrays.items():
        if array.dtype.kind not in "fiu":
            raise UnreadableError(f"{path.name}: {name} does not hold numbers")
    return {name: array.astype(np.float64) for name, array in arrays.items()}


def _read_parquet(path: Path) -> dict[str, Values]:
    content = read_bytes(path, LONGEST)
    try:
        frame = pd.read_parquet(io.BytesIO(content))
        return {str(name): frame[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in frame}
    except ImportError:
        raise UnreadableError(f"{path.name}: Parquet files need pyarrow; pip install 'ntkrun[parquet]'") from None
    except Exception as error:  # whatever changed bytes make of the format, and columns that are no numbers
        raise UnreadableError(f"{path.name} does not hold columns of numbers: {str(error).splitlines()[0]}") from None


def _check_columns(columns: Iterable[str], pde: PDE, path: str) -> None:
    known = [*pde.coordinates, *pde.fields, *(field + STD for field in pde.fields)]
    for name in columns:
        if name not in known:
            raise ConfigError(
                f"pde.data: {path} has a column {name!r}; expected are the coordinates {', '.join(pde.coordinates)} "
                f"and some of {', '.join(known[len(pde.coordinates) :])}{closest(name, known)}"
            )
    if missing := [c for c in pde.coordinates if c not in columns]:
        raise ConfigError(f"pde.data: {path} has no column {missing[0]}, a coordinate of the problem")
    if not set(pde.fields) & set(columns):
        raise ConfigError(f"pde.data: {path} has no column of a field, which are {', '.join(pde.fields)}")
    for field in pde.fields:
        if field + STD in columns and field not in columns:
            raise ConfigError(f"pde.data: {path} has a column {field + STD}, but none of {field}")


def _check_coordinates(columns: Mapping[str, Values], pde: PDE, path: str) -> None:
    for c in pde.coordinates:
        values, low, high = columns[c], pde.domain.low[c], pde.domain.high[c]
        if bad := _rows(~np.isfinite(values)):
            raise ConfigError(f"pde.data: {path}, row {bad[0]}: {c} is {values[bad[0] - 1]:g}{_more(bad)}")
        slack = SLACK * (high - low)
        if bad := _rows((values < low - slack) | (values > high + slack)):
            raise ConfigError(
                f"pde.data: {path}, row {bad[0]}: {c}={values[bad[0] - 1]:g} lies outside of the domain, where {c} "
                f"goes from {low:g} to {high:g}{_more(bad)}"
            )
    width = max(pde.domain.high[c] - pde.domain.low[c] for c in pde.coordinates)
    bad = []
    for start in range(0, len(columns[pde.coordinates[0]]), AT_A_TIME):
        some = np.stack([columns[c][start : start + AT_A_TIME] for c in pde.coordinates], axis=1)
        outside = _rows(~pde.domain.contains(torch.from_numpy(some), SLACK * width).numpy())
        bad += [start + row for row in outside]
    if bad:
        where = place(pde, torch.tensor([columns[c][bad[0] - 1] for c in pde.coordinates]))
        raise ConfigError(f"pde.data: {path}, row {bad[0]}: {where} lies outside of the domain{_more(bad)}")


def _observed(columns: Mapping[str, Values], field: str, pde: PDE, path: str) -> dict[str, Values]:
    """The rows in which a field was observed: coordinates, values and, where there are any, standard deviations."""
    observed = ~np.isnan(columns[field])
    if not observed.any():
        raise ConfigError(f"pde.data: {path} has no value of {field}")
    if bad := _rows(np.isinf(columns[field])):
        raise ConfigError(f"pde.data: {path}, row {bad[0]}: {field} is infinite{_more(bad)}")
    names = [*pde.coordinates, field]
    deviations = columns.get(field + STD)
    if deviations is not None:
        if bad := _rows(observed & ~(np.isfinite(deviations) & (deviations > 0))):
            given = deviations[bad[0] - 1]
            raise ConfigError(
                f"pde.data: {path}, row {bad[0]}: {field + STD} is {given:g}, expected above 0{_more(bad)}"
            )
        names.append(field + STD)
    return {name: columns[name] if observed.all() else columns[name][observed] for name in names}


def _table(field: str, parts: Mapping[str, Mapping[str, Values]], pde: PDE) -> Table:
    """The rows of all files in which a field was observed."""
    having = [path for path, columns in parts.items() if field + STD in columns]
    if having and len(having) < len(parts):
        lacking = next(path for path in parts if path not in having)
        raise ConfigError(f"pde.data: {having[0]} has a column {field + STD}, {lacking} has none; give all or none")
    names = list(next(iter(parts.values())))
    tables = [_beside([columns[name] for name in names]) for columns in parts.values()]
    rows = tables[0] if len(tables) == 1 else np.concatenate(tables)
    return Table(pde.coordinates, tuple(names[len(pde.coordinates) :]), torch.from_numpy(rows))


def _beside(columns: Sequence[Values]) -> Values:
    """Columns as a matrix ``[N, k]``; without a copy where they lie beside each other in memory, or on the disk."""
    first = columns[0]
    places = [column.__array_interface__["data"][0] for column in columns]
    size = first.itemsize
    stride = first.strides[0]
    beside = places == [places[0] + k * size for k in range(len(columns))] and stride >= size * len(columns)
    if beside and all(column.strides == first.strides for column in columns):
        return np.lib.stride_tricks.as_strided(first, (len(first), len(columns)), (stride, size))
    return np.stack(columns, axis=1)


def _rows(bad: NDArray[np.bool_]) -> list[int]:
    """The numbers of bad rows, from 1."""
    return [int(k) + 1 for k in np.flatnonzero(bad)]


def _more(bad: list[int]) -> str:
    return f" ({len(bad)} such rows)" if len(bad) > 1 else ""


def files_of(node: Mapping[str, Any]) -> dict[str, str]:
    """The files of measured values that a problem's node names, with their digests.

    Args:
        node: of the problem; its ``data`` may have digests already, else the files are read for them.

    Raises:
        ConfigError: they are given as something else than a path, a list of paths, or paths with digests.
    """
    given = node.get("data")
    if given is None:
        return {}
    paths = [given] if isinstance(given, str) else list(given) if isinstance(given, list | dict) else []
    known = given if isinstance(given, dict) else {}
    named = bool(paths) and all(isinstance(path, str) and path for path in paths)
    if not named or not all(map(_is_digest, known.values())):
        raise ConfigError(f"pde.data={given}: expected a file, or a list of files, with columns named as the fields")
    if len(set(paths)) < len(paths):
        raise ConfigError(f"pde.data={given}: a file is given twice")
    return {path: str(known.get(path) or digest(Path(path))) for path in paths}


def _is_digest(value: object) -> bool:
    return value is None or (isinstance(value, str) and len(value) == 2 * hashlib.sha256().digest_size)
