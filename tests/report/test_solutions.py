"""Which solutions are shown; what something else than a run has written is left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ntkrun.report.solutions import draw_solutions
from tests.report.folder import make_run
from tests.report.test_figures import only_sweep

Arrays = dict[str, Any]


def arrays() -> Arrays:
    axes = {"axis_x": np.linspace(0, 1, 6), "axis_t": np.linspace(0, 1, 5)}
    values = np.add.outer(*axes.values())[..., None]
    return {**axes, "fields": np.array(["u"]), "prediction": values + 0.5, "exact": values, "error": 0 * values + 0.5}


def test_best_and_median(tmp_path: Path) -> None:
    for seed, error in enumerate((0.3, 0.1, 0.5, 0.2, 0.4)):
        np.savez(make_run(tmp_path / str(seed), [f"seed={seed}"], error=error) / "solution.npz", **arrays())
    best, median = draw_solutions(only_sweep(tmp_path))
    assert best.caption == "Run 1, seed 1: relative L2 error 0.1."
    assert median.caption == "Run 0, seed 0: relative L2 error 0.3."
    assert best.title == "Solution, best run of all runs"
    image = best.figure.axes[0].collections[0].get_array()
    assert np.array_equal(image, arrays()["prediction"][..., 0])


def test_the_only_run_and_none_without_a_solution(tmp_path: Path) -> None:
    np.savez(make_run(tmp_path / "a", ["weights=exact"]) / "solution.npz", **arrays())
    make_run(tmp_path / "b", ["weights=none"])
    (only,) = draw_solutions(only_sweep(tmp_path))
    assert only.title == "Solution, only run of weights=exact"


HARM: dict[str, Callable[[Arrays], object]] = {
    "no fields": lambda a: a.pop("fields"),
    "names of formulas": lambda a: a.update(fields=np.array(["$u^"])),
    "many fields": lambda a: a.update(fields=np.array([f"u{i}" for i in range(99)])),
    "another shape": lambda a: a.update(prediction=a["prediction"][1:]),
    "no error": lambda a: a.pop("error"),
    "nothing finite": lambda a: a.update(prediction=a["prediction"] * np.nan),
    "huge": lambda a: a.update(prediction=a["prediction"] * 1e300),
    "texts": lambda a: a.update(exact=a["exact"].astype(str)),
    "an empty axis": lambda a: a.update(axis_x=np.zeros(0)),
    "an axis without numbers": lambda a: a.update(axis_x=a["axis_x"] * np.inf),
    "objects": lambda a: a.update(fields=np.array([{}], dtype=object)),
}


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.filterwarnings("ignore:invalid value encountered in multiply:RuntimeWarning")
def test_other_arrays_are_left_out(harm: str, tmp_path: Path) -> None:
    found = arrays()
    HARM[harm](found)
    np.savez(make_run(tmp_path / "a") / "solution.npz", **found)
    assert draw_solutions(only_sweep(tmp_path)) == []
