"""A checkpoint belongs to its run: what differs from the directory's configuration is named and refused unless told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from ntkrun.experiment.identity import compare, identity
from ntkrun.storage.checkpoint import CheckpointError
from tests.cli.test_resume import (
    STEPS,
    Runs,
    assert_resume_refused,
    assert_same_end,
    checkpoint,
    resume,
    runs,
    start,
    stopped,
)

__all__ = ["runs", "stopped"]

EDITS: dict[str, tuple[str, Any]] = {
    "seed": ("seed", 1),
    "learning-rate": ("optimizer.learning_rate", 0.5),
    "problem": ("pde.a", 3),
    "dtype": ("dtype", "float64"),
    "optimizer": ("optimizer", {"_target_": "ntkrun.optimizer.GradientDescent", "learning_rate": 1e-6}),
    "weights": ("weights.update_every", 5),
    "points": ("pde.points.residual", 30),
    "windows": ("kernel.memory_mib", 100),
}


def edit(run: Path, key: str, value: Any) -> None:
    path = run / ".hydra" / "config.yaml"
    values = node = yaml.safe_load(path.read_text())
    *groups, name = key.split(".")
    for group in groups:
        node = node[group]
    assert node[name] != value
    node[name] = value
    path.write_text(yaml.safe_dump(values))


@pytest.mark.parametrize(("key", "value"), EDITS.values(), ids=EDITS)
def test_an_edited_configuration_is_refused_and_named(key: str, value: Any, stopped: Path) -> None:
    edit(stopped, key, value)
    assert_resume_refused(stopped, [f"iterations={STEPS}"], f"checkpoint.pt is of a run with {key}", f"accept={key}")


@pytest.mark.parametrize("overrides", [["seed=1"], ["optimizer.learning_rate=0.5"], ["pde.a=3"]], ids=str)
def test_a_checkpoint_of_another_run_of_the_same_shapes_is_refused(
    overrides: list[str], stopped: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    assert start(other, "schedule=constant", "iterations=2", *overrides).status == 0
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        (stopped / name).unlink()
    shutil.copy(other / "checkpoint.pt", stopped)
    key, _, value = overrides[0].partition("=")
    assert_resume_refused(stopped, [], f"of a run with {key}={value} (", f"accept={key}")


def test_what_is_accepted_may_differ_and_belongs_to_the_run_from_there_on(stopped: Path) -> None:
    edit(stopped, "optimizer.learning_rate", 0.5)
    edit(stopped, "seed", 7)
    assert_resume_refused(stopped, ["accept=seed"], "optimizer.learning_rate", "add accept=optimizer.learning_rate")
    assert resume(stopped, f"iterations={STEPS}", "accept=seed,optimizer").status == 0
    log = (stopped / "ntkrun.log").read_text()
    assert log.count("(0.5 here)") == 1
    assert pd.read_csv(stopped / "metrics.csv")["lr"].tolist()[-1] == 0.5
    assert resume(stopped, f"iterations={STEPS}").status == 0
    assert json.loads(checkpoint(stopped)["configuration"])["seed"] == 7


def test_a_checkpoint_without_a_configuration_is_resumed_with_a_line(runs: Runs, stopped: Path) -> None:
    """As version 0.1.0 wrote them."""
    state = checkpoint(stopped)
    torch.save({k: v for k, v in state.items() if k not in ("configuration", "tables")}, stopped / "checkpoint.pt")
    assert resume(stopped, f"iterations={STEPS}").status == 0
    assert "is of a version that did not keep the configuration" in (stopped / "ntkrun.log").read_text()
    assert_same_end(runs.whole, stopped, progress=False)


@pytest.mark.parametrize("iterations", [0, 5, 12])
def test_a_run_does_not_become_shorter(iterations: int, stopped: Path) -> None:
    words = f"iterations={iterations}: the run has done 13 steps; give 13 or more"
    assert_resume_refused(stopped, [f"iterations={iterations}"], words)


BAD: dict[str, Callable[[str], Any]] = {
    "number": lambda text: 3,
    "no-json": lambda text: text[:-3],
    "list": lambda text: [text],
    "deep": lambda text: "[" * 10**5,
    "other": lambda text: "[1]",
    "huge": lambda text: json.dumps({"seed": "x" * 10**6}),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_configuration_of_another_kind_is_refused(bad: Callable[[str], Any]) -> None:
    values = {"seed": 0, "pde": {"a": 4}, "iterations": 10}
    with pytest.raises(CheckpointError) as caught:
        compare({"configuration": bad(identity(values))}, values, [])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_length_and_output_do_not_belong_to_the_identity() -> None:
    values = {"seed": 0, "pde": {"a": 4}, "iterations": 10, "stop": {"error": None}, "threads": 3}
    assert compare({"configuration": identity(values)}, {**values, "iterations": 20, "threads": 1}, []) == ""
    assert json.loads(identity(values)) == {"seed": 0, "pde": {"a": 4}, "stop": {}}


@pytest.mark.parametrize("name", ["metrics.csv", "weights.csv"])
def test_damaged_tables_are_restored_on_resume(name: str, runs: Runs, stopped: Path) -> None:
    content = (stopped / name).read_bytes()
    (stopped / name).write_bytes(content[:200] + bytes(60) + content[260:])
    assert resume(stopped, f"iterations={STEPS}").status == 0
    assert f"{name}: row" in (stopped / "ntkrun.log").read_text()
    assert_same_end(runs.whole, stopped, progress=False)
