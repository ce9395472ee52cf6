"""What counts as the best network, and what as a target reached: the worst field, or losses at held-out points."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from ntkrun.config.assembly import assemble
from ntkrun.config.configuration import read_configuration
from ntkrun.storage.checkpoint import save_checkpoint
from ntkrun.storage.table import Table, TableError
from ntkrun.training.evaluation import Errors
from ntkrun.training.progress import Progress, Targets
from tests.cli.test_resume import assert_same_end, checkpoint, resume, start, steps, stop_at, summary
from tests.oracle import residual_rows

__all__ = ["stop_at"]  # a fixture


def errors(total: float, **fields: float | None) -> Errors:
    return Errors(total, fields)


def test_the_best_network_is_that_of_the_smallest_error_of_the_worst_field() -> None:
    progress = Progress(step=0)
    seen = [
        (errors(0.5, p=0.5, v=0.9), True),
        (errors(0.1, p=0.1, v=0.95), False),  # better in the total and in p
        (errors(math.nan, p=0.1, v=math.nan), False),
        (errors(0.6, p=0.6, v=0.8), True),
        (errors(0.6, p=0.8, v=0.1), False),  # as good is not better
        (errors(0.7, p=0.7, v=None), True),  # what is not known counts for nothing
    ]
    for step, (each, best) in enumerate(seen):
        progress.step = step
        assert progress.saw_errors(each) == best
        assert (progress.error_step, progress.errors) == (step, list(each.fields.values()))
    assert (progress.best_step, progress.best_error, progress.best_errors) == (5, 0.7, [0.7, None])


def test_errors_that_are_not_numbers_give_way_to_any_other() -> None:
    progress = Progress()
    assert progress.saw_errors(errors(math.nan, u=math.nan))
    progress.step = 5
    assert progress.saw_errors(errors(1e9, u=1e9))


def test_the_best_of_version_0_1_0_is_known_by_its_total() -> None:
    progress = Progress(step=7, best_error=0.3, best_step=2)
    assert not progress.saw_errors(errors(0.2, p=0.1, v=0.4))
    assert progress.saw_errors(errors(0.2, p=0.1, v=0.25))


def test_networks_are_compared_under_the_weights_of_one_moment() -> None:
    """Those at the second look, and not those of the time of each."""
    progress = Progress(step=0)
    assert progress.saw_losses([4.0, 1.0], [1.0, 1.0])
    assert (progress.best_held_out, progress.held_out) == (5.0, 5.0)
    progress.step = 1
    assert progress.saw_losses([5.0, 0.5], [1.0, 10.0])  # 10 against 14, though 10 is more than 5
    progress.step = 2
    assert not progress.saw_losses([0.5, 1.0], [1.0, 1.0])  # 10.5 against 10, though 1.5 against 5.5 by now
    assert (progress.best_held_out, progress.held_out) == (10.0, 10.5)
    progress.step = 3
    assert not progress.saw_losses([0.0, math.nan], [1.0, 1.0])
    assert (progress.best_step, progress.best_losses, progress.best_held_out) == (1, [5.0, 0.5], 10.0)


def test_the_best_has_the_smallest_loss_of_all_whatever_weights_do() -> None:
    """Three networks go round in circles where each is compared under weights of its own time."""
    circle = [
        ([1.0, 2.0, 3.0], [1.0, 1.0, 1.0]),
        ([3.0, 1.0, 2.0], [0.0, 1.0, 1.0]),
        ([2.0, 3.0, 1.0], [0.0, 0.0, 1.0]),
    ]
    progress = Progress(step=0)
    for step in range(30):
        progress.step = step
        losses, weights = circle[step % 3]
        progress.saw_losses(losses, weights)
    assert progress.best_losses == [3.0, 1.0, 2.0]  # under 0, 1, 1: 5, 3 and 4
    generator = torch.Generator().manual_seed(0)
    losses, weights = torch.rand(2, 50, 4, generator=generator, dtype=torch.float64).exp().tolist()
    progress = Progress(step=0)
    for step in range(50):
        progress.step = step
        progress.saw_losses(losses[step], weights[step])
    assert progress.best_step == int(torch.argmin(torch.tensor(losses) @ torch.tensor(weights[1])))


def test_the_best_of_a_checkpoint_without_weights_to_compare_under() -> None:
    progress = Progress(step=7, best_losses=[4.0, 1.0], best_held_out=5.0, best_step=2)
    assert progress.saw_losses([5.0, 0.5], [1.0, 10.0])
    assert progress.compared == [1.0, 10.0]


def test_a_target_is_reached_by_every_field() -> None:
    targets = Targets(error=0.1)
    assert targets.reached(errors(0.01, p=0.001, v=0.2), 1.0) is None
    assert targets.reached(None, 1.0) is None
    reached = targets.reached(errors(0.2, p=0.001, v=0.099), 1.0)
    assert reached == "largest relative L2 error of a field 9.900e-02, target 0.1"
    assert targets.reached(errors(0.05, u=0.05), 1.0) == "relative L2 error 5.000e-02, target 0.1"


# Tables of earlier versions

OLD = "step,loss,error/rel_l2,lr\n0,1.5,0.25,0.1\n5,1.25,,0.1\n10,1,0.5,0.1\n"
NEW = ["step", "loss", "error/rel_l2", "error/p", "error/v", "held_out_loss", "lr"]
LATER = NEW[3:6]


def test_columns_that_earlier_versions_lack_are_added_empty(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(OLD + "15,1")  # half a row
    table = Table(path, NEW, 9, keep_below=10, later=LATER)
    table.add({"step": 10, "loss": 0.5, "error/rel_l2": 0.125, "error/p": 0.25, "held_out_loss": 2.0, "lr": 0.1})
    table.close()
    rows = ["0,1.5,0.25,,,,0.1", "5,1.25,,,,,0.1", "10,0.5,0.125,0.25,,2,0.1"]
    assert path.read_text().splitlines() == [",".join(NEW), *rows]
    before = path.read_bytes()
    Table(path, NEW, 9, keep_below=100, later=LATER).close()
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "columns", [[*NEW, "weight/x"], [c for c in NEW if c != "lr"], ["step", "error/rel_l2", "loss", "error/p", "lr"]]
)
def test_other_columns_are_refused(columns: list[str], tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(OLD)
    with pytest.raises(TableError, match="other columns"):
        Table(path, columns, 9, keep_below=10, later=LATER)
    assert path.read_text() == OLD


# Runs

TRUST = "trust=tests.training.test_evaluation"


@pytest.fixture
def configured(tmp_path: Path) -> Callable[..., list[str]]:
    """Command lines for the fields p, v, w of sizes 1000, 1 and 0, and for the same without a solution."""
    folder = tmp_path / "conf" / "pde"
    folder.mkdir(parents=True)
    for name in ("Unlike", "Unknown"):
        (folder / f"{name.lower()}.yaml").write_text(
            f"_target_: tests.training.test_evaluation.{name}\npoints: {{data: 20}}\n"
            "sampling: uniform\nresample_every: 1\ngrid: 9\n"
        )
    return lambda name, *overrides: [
        f"pde={name}",
        "dtype=float64",
        f"hydra.searchpath=[file://{tmp_path}/conf]",
        *overrides,
    ]


def best(run: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(run / "best.pt", weights_only=True)
    return state


def test_a_run_has_errors_of_every_field(tmp_path: Path, configured: Callable[..., list[str]]) -> None:
    """In tables, summary, log and output, and best.pt is the network whose worst field is best."""
    run = tmp_path / "run"
    result = start(run, *configured("unlike", "optimizer.learning_rate=0.1"))
    assert result.status == 0, result.stderr
    metrics = pd.read_csv(run / "metrics.csv")
    at = list(metrics.columns).index("error/rel_l2")
    assert list(metrics.columns[at : at + 5]) == ["error/rel_l2", "error/p", "error/v", "error/w", "lr"]
    assert metrics["error/w"].isna().all()  # its solution is zero
    with np.load(run / "solution.npz") as file:
        difference, exact = (np.linalg.norm(file[name].reshape(-1, 3), axis=0) for name in ("error", "exact"))
    last = metrics.iloc[-1]
    assert [last["error/p"], last["error/v"]] == pytest.approx(list(difference[:2] / exact[:2]), rel=1e-12)
    found = summary(run)["rel_l2"]
    worst = metrics[["error/p", "error/v"]].max(axis=1)
    k = worst.idxmin()
    assert (found["best_step"], found["best"]) == (metrics["step"][k], pytest.approx(metrics["error/rel_l2"][k]))
    assert found["fields"]["p"] == pytest.approx({"final": last["error/p"], "best": metrics["error/p"][k]})
    assert found["fields"]["w"] == {"final": None, "best": None}
    state = best(run)
    assert (state["step"], state["errors"]["v"]) == (found["best_step"], pytest.approx(metrics["error/v"][k]))
    parts = assemble(read_configuration(_configuration(run)))
    parts.objective.network.load_state_dict(state["network"])
    again = parts.evaluator.error()
    assert again is not None
    assert again.worst == pytest.approx(worst[k], rel=1e-12)
    assert f"(p {last['error/p']:.1e}, v {last['error/v']:.1e})" in (run / "ntkrun.log").read_text()
    assert f"  of v {'':19} {last['error/v']:.3e}".split() == next(
        line.split() for line in result.stdout.splitlines() if line.startswith("  of v")
    )


def test_a_run_ends_where_its_worst_field_reaches_the_target(
    tmp_path: Path, configured: Callable[..., list[str]]
) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    options = configured("unlike", "optimizer.learning_rate=0.1")
    assert start(whole, *options).status == 0
    metrics = pd.read_csv(whole / "metrics.csv")
    worst = metrics[["error/p", "error/v"]].max(axis=1)
    k = next(k for k in range(1, len(worst) - 1) if worst[k] < worst[:k].min())
    assert start(run, *options, f"stop.error={worst[k] * 1.0001}").status == 0
    assert steps(run / "metrics.csv")[-1] == metrics["step"][k]


def test_a_run_of_several_fields_of_version_0_1_0_resumes(
    tmp_path: Path, configured: Callable[..., list[str]], stop_at: Callable[[int], None]
) -> None:
    """Its table gets the new columns, its checkpoint the new values."""
    whole, old = tmp_path / "whole", tmp_path / "old"
    options = configured("unlike", "keep_best=false")
    assert start(whole, *options).status == 0
    stop_at(13)
    assert start(old, *options).status == 128 + signal.SIGTERM
    lacks = ["error/p", "error/v", "error/w"]
    pd.read_csv(old / "metrics.csv").drop(columns=lacks).to_csv(old / "metrics.csv", index=False)
    state = checkpoint(old)
    kept = {"step", "window", "first_step", "seconds", "updates", "error", "error_step", "best_error", "best_step"}
    state["progress"] = {name: value for name, value in state["progress"].items() if name in kept}
    (old / "checkpoint.previous.pt").unlink()
    newer = {"format", "tables", "configuration"}
    save_checkpoint(old, {name: value for name, value in state.items() if name not in newer})
    stop_at(10**6)
    resumed = resume(old, TRUST)
    assert resumed.status == 0, resumed.stderr
    ours, theirs = (pd.read_csv(run / "metrics.csv").drop(columns="seconds") for run in (old, whole))
    assert list(ours.columns) == list(theirs.columns)
    assert ours.drop(columns=lacks).round(12).equals(theirs.drop(columns=lacks).round(12))
    assert ours[lacks][ours["step"] < 13].isna().all(axis=None)
    assert ours[lacks][ours["step"] > 13].equals(theirs[lacks][theirs["step"] > 13])


def test_without_a_solution_losses_at_held_out_points_choose_the_best(
    tmp_path: Path, configured: Callable[..., list[str]], stop_at: Callable[[int], None]
) -> None:
    """Their column is that of an independent computation, resuming ends bit for bit, and best.pt is the best."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = configured("unknown", "optimizer.learning_rate=0.1")
    result = start(whole, *options)
    assert result.status == 0, result.stderr
    assert "no solution is known" in (whole / "ntkrun.log").read_text()
    metrics = pd.read_csv(whole / "metrics.csv")
    losses = metrics["held_out_loss"]
    assert losses.notna().all()
    assert (losses != metrics["loss"]).all()
    k = losses.idxmin()
    state = best(whole)
    assert (state["step"], state["error"]) == (metrics["step"][k], None)
    found = summary(whole)
    assert found["rel_l2"] == {
        **{"final": None, "final_step": None, "best": None, "best_step": None},
        "fields": {name: {"final": None, "best": None} for name in "pvw"},
    }
    assert found["held_out_loss"] == pytest.approx(
        {"final": losses.iloc[-1], "final_step": 30, "best": losses[k], "best_step": metrics["step"][k]}
    )
    assert (
        f"held-out loss, best  {losses[k]:.3e}".split()
        == next(line.split() for line in result.stdout.splitlines() if line.startswith("held-out loss, best"))[:4]
    )

    parts_of_run = assemble(read_configuration(_configuration(whole)))
    parts_of_run.objective.network.load_state_dict(state["network"])
    assert parts_of_run.held_out is not None
    points = parts_of_run.objective.points(parts_of_run.held_out._batch)
    training = parts_of_run.objective.points(parts_of_run.points.at(0))
    assert points["data"].shape == training["data"].shape
    assert not torch.isin(points["data"], training["data"]).any()
    (rows,) = residual_rows(parts_of_run.objective, points)
    assert rows.square().mean().item() == pytest.approx(losses[k], rel=1e-12)

    stop_at(13)
    assert start(parts, *options).status == 128 + signal.SIGTERM
    stop_at(10**6)
    assert resume(parts, TRUST).status == 0
    assert_same_end(whole, parts)
    assert torch.equal(best(parts)["network"]["layers.0.weight"], state["network"]["layers.0.weight"])


def _configuration(run: Path) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((run / ".hydra" / "config.yaml").read_text())
    return values


def test_held_out_points_are_those_of_the_seed(tmp_path: Path, configured: Callable[..., list[str]]) -> None:
    run = tmp_path / "run"
    assert start(run, *configured("unknown", "iterations=0")).status == 0
    values = _configuration(run)

    def points(seed: int) -> torch.Tensor:
        parts = assemble(read_configuration({**values, "seed": seed}))
        assert parts.held_out is not None
        return parts.objective.points(parts.held_out._batch)["data"]

    assert torch.equal(points(0), points(0))
    assert not torch.equal(points(0), points(1))
