"""Ending a run at a target, and keeping the best network."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from ntkrun.network import MLP
from ntkrun.pde import Poisson
from ntkrun.training.evaluation import Evaluator
from tests.cli.test_resume import assert_same_end, resume, start, steps, summary
from tests.driver import assert_refused, ntkrun

OPTIONS = ["weights=sketched", "weights.sketch_size=4", "weights.smoothing=0.5", "weights.update_every=5"]
NULL = ["stop.error=null", "stop.loss=null"]


def rows(directory: Path) -> pd.DataFrame:
    return pd.read_csv(directory / "metrics.csv")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("targets") / "whole"
    assert start(directory, *OPTIONS).status == 0
    return directory


@pytest.mark.parametrize(("target", "column"), [("error", "error/rel_l2"), ("loss", "loss")])
def test_a_run_ends_at_its_target(target: str, column: str, whole: Path, tmp_path: Path) -> None:
    """At the first row at or below it, with the network of that row; what follows can still be had."""
    values = rows(whole)[column]
    k = next(i for i in range(1, len(values) - 1) if values[i] < values[:i].min())
    directory = tmp_path / "run"
    result = start(directory, *OPTIONS, f"stop.{target}={values[k] * 1.0001}")
    step = int(rows(whole)["step"][k])
    assert result.status == 0
    assert (summary(directory)["status"], summary(directory)["step"]) == ("completed", step)
    assert f"target {values[k] * 1.0001:g}" in summary(directory)["message"]
    assert rows(directory).drop(columns="seconds").equals(rows(whole).drop(columns="seconds")[: k + 1])
    assert summary(directory)["rel_l2"]["final"] == pytest.approx(rows(whole)["error/rel_l2"][k], rel=1e-8)
    again = resume(directory)
    assert (again.status, summary(directory)["step"]) == (0, step)
    assert steps(directory / "metrics.csv")[-1] == step
    assert resume(directory, *NULL).status == 0
    assert summary(directory)["message"] == ""
    assert_same_end(whole, directory)


def test_a_target_that_is_not_reached_changes_nothing(whole: Path, tmp_path: Path) -> None:
    assert start(tmp_path / "run", *OPTIONS, "stop.error=1e-9", "stop.loss=1e-30").status == 0
    assert_same_end(whole, tmp_path / "run")


def test_a_run_ends_when_its_time_is_up(whole: Path, tmp_path: Path) -> None:
    """One step after the first row that is late; a resumed one does not go on, and what follows can still be had."""
    directory = tmp_path / "run"
    assert start(directory, *OPTIONS, "stop.seconds=1e-6").status == 0
    assert (summary(directory)["status"], summary(directory)["step"]) == ("completed", 1)
    assert "stop.seconds=1e-06" in summary(directory)["message"]
    assert steps(directory / "metrics.csv") == [0, 1]
    assert resume(directory).status == 0
    assert steps(directory / "metrics.csv") == [0, 1]
    assert resume(directory, "stop.seconds=1e6").status == 0
    assert summary(directory)["message"] == ""
    assert_same_end(whole, directory)


def test_the_best_network_is_kept(whole: Path) -> None:
    best = torch.load(whole / "best.pt", weights_only=True)
    errors = rows(whole)["error/rel_l2"]
    assert best["step"] == rows(whole)["step"][errors.idxmin()] == summary(whole)["rel_l2"]["best_step"]
    assert best["error"] == pytest.approx(errors.min(), rel=1e-8)
    network = MLP(8, 2, domain=Poisson().domain)
    network.load_state_dict(best["network"])
    like = next(network.parameters())
    errors = Evaluator(Poisson(), network, like, 10).error()
    assert errors is not None
    assert errors.total == pytest.approx(best["error"], rel=1e-6)


def test_the_best_network_may_be_left_out(tmp_path: Path) -> None:
    assert start(tmp_path / "run", "keep_best=false").status == 0
    assert not (tmp_path / "run" / "best.pt").exists()


@pytest.mark.parametrize("override", ["stop.error=0", "stop.loss=-1", "stop.eror=1", "stop=1", "keep_best=2"])
def test_wrong_targets_are_refused(override: str, tmp_path: Path) -> None:
    assert_refused(ntkrun(override, cwd=tmp_path), tmp_path, override.partition("=")[0])
