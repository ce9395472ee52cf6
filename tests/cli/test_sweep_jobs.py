"""What becomes of every job of a sweep, wherever it ran and however it ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from ntkrun.storage.lock import locked
from tests.cli.test_sweep import SMALL, statuses, sweep
from tests.driver import assert_refused, ntkrun


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


# Directories


@pytest.mark.parametrize(
    ("subdir", "words"),
    [
        ("same", ("jobs 0 and 1 of this sweep share the directory", "hydra.sweep.subdir")),
        ("lr${optimizer.learning_rate}", ("jobs 0 and 2 of this sweep share the directory",)),
        ("a/../${optimizer.learning_rate}/.", ("jobs 0 and 2 of this sweep share the directory",)),
        (".", ("hydra.sweep.subdir=.: this is the sweep's directory",)),
    ],
)
def test_jobs_that_share_a_directory_are_refused_before_the_first(
    subdir: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    swept = ["seed=0,1", "optimizer.learning_rate=1e-3,1e-2"]
    assert_refused(ntkrun("-m", *SMALL, *swept, f"hydra.sweep.subdir={subdir}", cwd=tmp_path), tmp_path, *words)


def test_jobs_may_choose_their_own_directories(tmp_path: Path) -> None:
    run = tmp_path / "sweep"
    assert sweep(run, "seed=3,4", "hydra.sweep.subdir=of-${seed}", "iterations=1").status == 0
    assert {path.name for path in run.glob("of-*")} == {"of-3", "of-4"}


@pytest.mark.parametrize("subdir", ["/elsewhere/${hydra:job.num}", ".hidden/${hydra:job.num}"])
def test_jobs_elsewhere_are_counted_and_reported(subdir: str, tmp_path: Path) -> None:
    run, place = tmp_path / "sweep", f"{tmp_path}{subdir}" if subdir.startswith("/") else subdir
    rates = "optimizer.learning_rate=1e-6,1e20"
    result = sweep(run, "optimizer=gradient_descent", rates, f"hydra.sweep.subdir={place}", "report=true")
    assert result.status == 1
    assert "2 jobs: 1 completed, 1 not" in result.stdout
    name = "../elsewhere/1" if subdir.startswith("/") else ".hidden/1"
    assert f"ntkrun: {name} failed: step" in result.stderr
    table = pd.read_csv(run / "report" / "runs.csv")
    assert sorted(table["status"]) == ["completed", "failed"]


@pytest.mark.parametrize("subfolder", ["null", "kept"])
def test_a_failed_job_is_named_whatever_hydra_calls_its_folder(subfolder: str, tmp_path: Path) -> None:
    run = tmp_path / "sweep"
    rates = "optimizer.learning_rate=1e-6,1e20"
    result = sweep(run, "optimizer=gradient_descent", rates, f"hydra.output_subdir={subfolder}")
    assert result.status == 1
    assert "2 jobs: 1 completed, 1 not" in result.stdout
    assert "ntkrun: 1 failed: step" in result.stderr
    assert ntkrun(f"resume={run}/0", "iterations=21", cwd=tmp_path).status == 0


def test_what_a_run_keeps_of_its_configuration_is_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAVES", "3")
    given = ["pde.a='${oc.decode:${oc.env:WAVES}}'", "hydra.run.dir=run"]
    single = [option for option in SMALL if option != "report=false"]
    assert ntkrun(*single, *given, cwd=tmp_path).status == 0
    monkeypatch.setenv("WAVES", "4")
    assert yaml.safe_load((tmp_path / "run" / ".hydra" / "config.yaml").read_text())["pde"]["a"] == 3
    assert "pde.a=" in str(yaml.safe_load((tmp_path / "run" / ".hydra" / "overrides.yaml").read_text()))
    assert ntkrun("resume=run", "iterations=21", cwd=tmp_path).status == 0
    assert ntkrun(*single, "hydra.output_subdir=.hydra", cwd=tmp_path).status == 2


def test_a_sweep_in_the_directory_of_another_changes_nothing(tmp_path: Path) -> None:
    run = tmp_path / "sweep"
    assert sweep(run, "seed=0").status == 0
    before = contents(run)
    with locked(run):
        result = sweep(run, "seed=5,6", "pde.a=2")
    assert (result.status, result.stdout) == (2, "")
    assert result.stderr == f"ntkrun: another process is working in {run}\n"
    assert contents(run) == before


def test_a_job_in_use_keeps_the_configuration_that_is_there(tmp_path: Path) -> None:
    """Also where the file of its lock has been removed."""
    run = tmp_path / "sweep"
    assert sweep(run, "seed=0").status == 0
    before = contents(run / "0")
    with locked(run / "0"):
        (run / "0" / ".lock").unlink()
        result = sweep(run, "seed=5")
    assert (result.status, statuses(run)) == (1, ["completed"])
    assert "ntkrun: 0 failed: another process is working on the run in" in result.stderr
    del before[".lock"]
    after = contents(run / "0")
    assert {name: after[name] for name in before} == before


# Sweeps of nothing


@pytest.mark.parametrize(
    ("swept", "words"),
    [
        ("network=glob(nothing*)", ("network=glob(nothing*)", "no value in it")),
        ("seed=range(3,0)", ("seed=range(3,0)", "no value in it")),
        ("seed=range(0,1000000000)", ("more than 100000 jobs",)),
        ("weights=glob(e*) seed=0,x", ("seed=x: expected a valid integer",)),
        ("weights=glob(*) network=mlp,nothing", ("network=nothing: no such choice",)),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(swept: str, words: tuple[str, ...], tmp_path: Path) -> None:
    assert_refused(ntkrun("-m", *SMALL, *swept.split(), cwd=tmp_path), tmp_path, *words)


def test_groups_are_swept_by_glob(tmp_path: Path) -> None:
    run = tmp_path / "sweep"
    assert sweep(run, "schedule=glob(c*)", "iterations=1").status == 0
    assert statuses(run) == ["completed", "completed"]  # constant and cosine


# Sweepers that search

SWEEPER = """
from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.core.plugins import Plugins

ConfigStore.instance().store(
    group="hydra/sweeper", name="halving", provider="test",
    node={"_target_": "hydra_plugins.halving.Halving", "key": "optimizer.learning_rate", "trials": 3},
)

class Halving(Sweeper):
    '''Halves a value for as long as that makes what the jobs return smaller.'''

    def __init__(self, key, trials):
        self.key, self.trials = key, trials

    def setup(self, *, hydra_context, task_function, config):
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments):
        value, found = 1e-2, []
        for trial in range(self.trials):
            job = [*arguments, f"{self.key}={value}"]
            (ended,) = self.launcher.launch([job], initial_job_idx=trial)
            found.append((float(ended.return_value), value))
            value /= 2
        print("found", found)
"""


@pytest.mark.parametrize("problem", ["poisson", "unknown"])
def test_a_sweeper_that_searches_gets_the_error(problem: str, tmp_path: Path) -> None:
    """Or the unweighted loss, where the solution is not known."""
    plugins = tmp_path / "plugins" / "hydra_plugins"
    plugins.mkdir(parents=True)
    (plugins / "halving.py").write_text(SWEEPER)
    (tmp_path / "unknown.py").write_text(
        "from ntkrun.pde import Poisson\n\n\nclass Unknown(Poisson):\n"
        "    def __init__(self, a: int = 4, hard_boundary: bool = False) -> None:\n        super().__init__(a)\n\n"
        "    def exact(self, x):\n        return None\n"
    )
    own = ["pde._target_=unknown.Unknown"] * (problem == "unknown")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "plugins")}
    command = [sys.executable, "-m", "ntkrun", "-m", *SMALL, *own, "hydra/sweeper=halving", "hydra.sweep.dir=sweep"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "3 jobs: 3 completed, 0 not" in done.stdout
    line = next(line for line in done.stdout.splitlines() if line.startswith("found"))
    for number, (value, _) in enumerate(json.loads(line[6:].replace("(", "[").replace(")", "]"))):
        if problem == "poisson":
            summary = json.loads((tmp_path / "sweep" / str(number) / "summary.json").read_text())
            assert value == pytest.approx(summary["rel_l2"]["final"])
        else:
            last = pd.read_csv(tmp_path / "sweep" / str(number) / "metrics.csv").iloc[-1]
            assert value == pytest.approx(last["loss/residual"] + last["loss/boundary"])
