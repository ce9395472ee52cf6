"""Runs that start from the network of another run."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.test_foreign_runs import Harmful
from tests.cli.test_resume import Runs, checkpoint, resume, runs, start, summary
from tests.driver import Result, assert_refused, ntkrun

__all__ = ["runs"]

SMALL = ["optimizer=adam", "network.width=8", "network.depth=2", "pde.grid=10", "plots=false", "iterations=0"]


def network(run: Path, name: str = "checkpoint.pt") -> dict[str, Any]:
    state: dict[str, Any] = torch.load(run / name, weights_only=True)["network"]
    return state


def begin(place: Path, cwd: Path, *overrides: str) -> Result:
    return ntkrun(*SMALL, f"start_from={place}", *overrides, cwd=cwd)


@pytest.mark.parametrize("name", ["", "best.pt"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_network_is_that_of_the_other_run(name: str, dtype: str, runs: Runs, tmp_path: Path) -> None:
    other = ["seed=7", "pde.a=2", "optimizer=lbfgs", "weights=none", f"dtype={dtype}"]
    result = begin(runs.whole / name, tmp_path, *other)
    assert result.status == 0, result.stderr
    assert f"the network starts as that of {runs.whole / name}" in result.stderr
    ours, theirs = network(result.directory), network(runs.whole, name or "checkpoint.pt")
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert torch.equal(ours[key], value.to(ours[key].dtype)), key
    assert next(iter(ours.values())).dtype == getattr(torch, dtype)


def test_such_a_run_resumes_without_the_other(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "best.pt").write_bytes((runs.whole / "best.pt").read_bytes())
    run = tmp_path / "run"
    assert start(run, f"start_from={tmp_path / 'best.pt'}", "iterations=4").status == 0
    (tmp_path / "best.pt").unlink()
    assert resume(run, "iterations=6").status == 0
    assert summary(run)["step"] == checkpoint(run)["progress"]["step"] == 6


REFUSED: dict[str, tuple[Callable[[Path], object], list[str], str]] = {
    "missing": (lambda run: None, ["start_from=nowhere"], "there is no nowhere"),
    "shapes": (lambda run: None, ["network.width=9"], "shape [8, 1] where [9, 1] is expected"),
    "layers": (lambda run: None, ["network.depth=3"], "network.layers.2"),
    "kind": (lambda run: None, ["network=cpikan", "~network.depth", "~network.width"], "network."),
    "number": (lambda run: None, ["start_from=3"], "string"),
    "damaged": (lambda run: (run / "best.pt").write_bytes(b"PK"), [], "is damaged"),
    "pickle": (lambda run: (run / "best.pt").write_bytes(pickle.dumps(Harmful(run / "harm"))), [], "is damaged"),
    "saved": (
        lambda run: torch.save({"format": 5, "network": Harmful(run / "harm")}, run / "best.pt"),
        [],
        "not loaded",
    ),
    "none": (lambda run: torch.save({"format": 5, "network": 3}, run / "best.pt"), [], "holds no network"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_before_a_directory_is_made(name: str, runs: Runs, tmp_path: Path) -> None:
    run, (change, overrides, words) = tmp_path / "other", REFUSED[name]
    run.mkdir()
    (run / "best.pt").write_bytes((runs.whole / "best.pt").read_bytes())
    change(run)
    result = begin(run / "best.pt", tmp_path, *overrides)
    assert_refused(result, tmp_path, "start_from=", words)
    assert not (run / "harm").exists()
