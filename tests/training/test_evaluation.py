"""Errors and solutions at nodes: against dense arrays, in bounded memory, and left when a signal comes."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from ntkrun.common.errors import ConfigError
from ntkrun.geometry import Box
from ntkrun.network import MLP
from ntkrun.pde import PDE, Columns, Reference, Term
from ntkrun.runtime import memory
from ntkrun.runtime.signals import StopRequest
from ntkrun.training.evaluation import ARRAYS, Errors, EvaluationStopped, Evaluator
from ntkrun.training.nodes import GRID_NODES, SOBOL_NODES, Grid, Scattered, choose_nodes
from tests.cli.test_resume import assert_same_end, checkpoint, resume, start, steps, summary
from tests.driver import Result, ntkrun
from tests.oracle import values
from tests.problems import TWO

STEPS, ROW = 30, 5


class Unlike(PDE):
    """Three fields of sizes 1000, 1 and 0, whose second may be known on the lower half of x alone."""

    fields: ClassVar[tuple[str, ...]] = ("p", "v", "w")
    domain = TWO

    def __init__(self, partly: bool = False) -> None:
        self.partly = partly

    def terms(self) -> tuple[Term, ...]:
        return (Term("data", (self.domain,), ("p", "v", "w"), lambda x, d: torch.stack([d.p, d.v, d.w], 1)),)

    def exact(self, x: Columns) -> Tensor:
        return torch.stack([1000 + x.x, torch.cos(x.x * x.t), 0 * x.x], 1)

    def reference(self) -> Reference | None:
        if not self.partly:
            return None
        axes = {"x": np.linspace(0, 1, 71), "t": np.linspace(0, 1, 67)}
        x, t = (torch.from_numpy(a) for a in np.meshgrid(*axes.values(), indexing="ij"))
        known = self.exact(Columns({"x": x.flatten(), "t": t.flatten()}, "points")).reshape(71, 67, 3).numpy()
        known[36:, :, 1] = np.nan
        return Reference(axes, known)


class Four(PDE):
    """A function in three dimensions and time."""

    domain = Box.of(x=(0.0, 1.0), y=(-1.0, 1.0), z=(0.0, 2.0), t=(1.0, 2.0))

    def terms(self) -> tuple[Term, ...]:
        return (Term("data", (self.domain,), ("u",), lambda x, d: d.u - self.exact(x)),)

    def exact(self, x: Columns) -> Tensor:
        return torch.sin(x.x + x.y) * torch.cos(x.z) * x.t


def network(pde: PDE) -> MLP:
    return MLP(6, 2, domain=pde.domain, outputs=len(pde.fields)).double()


def evaluator(pde: PDE, net: MLP, grid: int) -> Evaluator:
    return Evaluator(pde, net, next(net.parameters()), grid)


@pytest.mark.parametrize("partly", [False, True])
def test_errors_of_every_field_against_dense_arrays(partly: bool) -> None:
    """On more nodes than are evaluated at a time; what is not known counts nowhere, and zero has no relative error."""
    pde = Unlike(partly)
    net = network(pde)
    found = evaluator(pde, net, 70)
    solution = found.solution()
    assert isinstance(solution.nodes, Grid)
    assert solution.prediction.shape == ((71, 67, 3) if partly else (70, 70, 3))
    x, t = (torch.from_numpy(a).flatten() for a in np.meshgrid(*solution.nodes.axes.values(), indexing="ij"))
    exact = pde.exact(Columns({"x": x, "t": t}, "points")).numpy()
    known = np.ones_like(exact, dtype=bool)
    known[:, 1] = (x.numpy() < 0.505) | (not partly)
    prediction = values(net, torch.stack([x, t], 1)).detach().numpy()
    assert np.abs(solution.prediction.reshape(-1, 3) - prediction).max() < 1e-12
    assert solution.exact is not None
    assert np.array_equal(np.isnan(solution.exact.reshape(-1, 3)), ~known)
    difference, exact = np.where(known, prediction - exact, 0), np.where(known, exact, 0)
    errors = found.error()
    assert errors is not None
    assert errors.total == pytest.approx(np.linalg.norm(difference) / np.linalg.norm(exact), rel=1e-12)
    each = np.linalg.norm(difference, axis=0)[:2] / np.linalg.norm(exact, axis=0)[:2]
    assert list(errors.fields) == ["p", "v", "w"]
    assert [errors.fields["p"], errors.fields["v"]] == pytest.approx(list(each), rel=1e-12)
    assert errors.fields["w"] is None
    assert errors.worst == pytest.approx(max(each), rel=1e-12)


def test_the_worst_field_is_infinite_where_one_is_not_a_number() -> None:
    assert Errors(1.0, {"u": 0.5, "v": None, "w": 2.0}).worst == 2.0
    assert Errors(math.nan, {"u": 0.5, "v": math.nan}).worst == math.inf


class Silent(Unlike):
    def exact(self, x: Columns) -> Tensor:
        return torch.zeros(len(x.x), 3)


class Unknown(Unlike):
    def exact(self, x: Columns) -> Tensor:
        return None  # type: ignore[return-value]


def test_what_errors_are_relative_to_is_said() -> None:
    assert evaluator(Unlike(), network(Unlike()), 5).about == ""
    reference = evaluator(Unlike(True), network(Unlike()), 5)
    assert "own nodes, a grid of 71 x 67; pde.grid is not used" in reference.about
    silent = evaluator(Silent(), network(Unlike()), 5)
    assert "solution is zero" in silent.about
    assert silent.error() is None
    unknown = evaluator(Unknown(), network(Unlike()), 5)
    assert unknown.about == "no solution is known"
    assert unknown.error() is None
    assert unknown.solution().exact is None
    scattered = evaluator(Four(), network(Four()), 100)
    assert "pde.grid=100 makes too many nodes in 4 dimensions" in scattered.about


@pytest.mark.parametrize(
    ("coordinates", "grid", "nodes"),
    [
        ("x", 2**21, 2**21),
        ("xyz", 102, 102**3),  # up to three dimensions a grid, however large
        ("xyzt", 32, GRID_NODES),
        ("xyzt", 33, SOBOL_NODES),
        ("abcdexyzt", 4, 4**9),
        ("abcdexyzt", 100, SOBOL_NODES),
    ],
)
def test_in_many_dimensions_a_large_grid_gives_way_to_sobol_points(coordinates: str, grid: int, nodes: int) -> None:
    domain = Box.of(**dict.fromkeys(coordinates, (-1.0, 2.0)))
    chosen = choose_nodes(domain, grid)
    assert len(chosen) == nodes
    points = chosen.points(nodes - 5, nodes + 5)
    assert points.shape == (5, len(coordinates))
    if isinstance(chosen, Grid):
        assert points[-1].tolist() == [2.0] * len(coordinates)
        assert points[-2].tolist() == [2.0] * (len(coordinates) - 1) + [pytest.approx(2 - 3 / (grid - 1))]
    else:
        assert (chosen.all.min() >= -1) & (chosen.all.max() <= 2)
        assert torch.allclose(chosen.all.mean(0), torch.tensor(0.5).double(), atol=1e-3)
        assert isinstance(again := choose_nodes(domain, grid), Scattered)
        assert torch.equal(again.all, chosen.all)


def test_errors_at_sobol_points_are_those_of_a_grid() -> None:
    """Up to the error of both as quadrature rules."""
    net = network(Four())
    fine, scattered = (evaluator(Four(), net, grid).error() for grid in (30, 100))
    assert fine is not None
    assert scattered is not None
    assert scattered.total == pytest.approx(fine.total, rel=0.02)


PEAK = """
import re, tempfile
from pathlib import Path
import torch
from ntkrun.experiment.results import write_solution
from ntkrun.network import MLP
from tests.training.test_evaluation import Four, evaluator
from ntkrun.geometry import Box

class Three(Four):
    domain = Box.of(x=(0.0, 1.0), y=(-1.0, 1.0), z=(0.0, 2.0))
    def exact(self, x):
        return torch.sin(x.x + 30 * x.y) * torch.cos(20 * x.z)

def peak():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

torch.set_num_threads(1)
pde, grid = Three(), 100
net = MLP(4, 1, domain=pde.domain)
with tempfile.TemporaryDirectory() as directory:
    small = evaluator(pde, net, 40)
    small.error()
    write_solution(small, pde, Path(directory), lambda: None)
    before = peak()
    large = evaluator(pde, net, grid)
    large.error()
    evaluated = peak()
    write_solution(large, pde, Path(directory), lambda: None)
print(evaluated - before, peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems tell the peak in other ways")
def test_a_node_takes_as_much_memory_as_is_counted() -> None:
    """Of one field: the solution and its square for errors, and all that is counted on saving; 4 MB are the rest."""
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    evaluated, saved = (float(size) / 8e6 for size in done.stdout.split())  # in arrays of values at all nodes
    assert evaluated < 2 + 0.5
    assert 3 < saved < ARRAYS + 0.5


def test_nodes_beyond_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted by the nodes that are taken: a grid of 10^8 gives way to few."""
    monkeypatch.setattr(memory, "available", lambda device="cpu": 8 * ARRAYS * 3 * 10**4 + 10**4)
    evaluator(Unlike(), network(Unlike()), 100)
    with pytest.raises(ConfigError, match=r"pde.grid=110: takes about"):
        evaluator(Unlike(), network(Unlike()), 110)
    monkeypatch.setattr(memory, "available", lambda device="cpu": 10**7)
    evaluator(Four(), network(Four()), 100)
    with pytest.raises(ConfigError, match=r"pde.grid=24: takes about"):
        evaluator(Four(), network(Four()), 24)


def test_an_evaluation_is_left_when_it_is_interrupted() -> None:
    net = network(Unlike()).train()
    found = evaluator(Unlike(), net, 100)
    for evaluate in (found.error, found.solution):
        asked = iter([None, None, signal.SIGTERM])
        with pytest.raises(EvaluationStopped):
            evaluate(lambda asked=asked: next(asked))  # type: ignore[misc]
        assert net.training


# Signals during the evaluations of a run


@pytest.fixture
def signal_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Lets SIGTERM come to the next runs during an evaluation, when they have looked for it so many times."""
    monkeypatch.setattr("ntkrun.training.evaluation.CHUNK", 4)

    class StopHeard(StopRequest):
        def __init__(self, times: int) -> None:
            self.left = times

        def heard(self) -> signal.Signals | None:
            self.left -= 1
            if self.left < 0:
                self.signal = signal.SIGTERM
            return self.signal

    def arrange(times: int) -> None:
        @contextmanager
        def stop_on_signals(*numbers: object) -> Iterator[StopRequest]:
            yield StopHeard(times)

        monkeypatch.setattr("ntkrun.experiment.run.stop_on_signals", stop_on_signals)

    return arrange


# A grid of 10 nodes is evaluated in 3 parts: at steps 0, 5, ..., 30 and, after one look, once more for the solution.
@pytest.mark.parametrize(
    ("times", "step"),
    [(1, 0), (3 * 2 + 1, 2 * ROW), (3 * 6 + 1, STEPS), (3 * 7 + 2, STEPS)],
    ids=["first-row", "a-row", "last-row", "solution"],
)
def test_a_run_is_stopped_while_it_is_evaluated(
    times: int, step: int, tmp_path: Path, signal_at: Callable[[int], None]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    signal_at(10**6)
    assert start(whole).status == 0
    signal_at(times)
    stopped = start(parts)
    assert stopped.status == 128 + signal.SIGTERM, stopped.stderr
    assert (summary(parts)["status"], summary(parts)["message"]) == (
        "interrupted",
        f"SIGTERM at step {step}; the run can be resumed",
    )
    assert checkpoint(parts)["progress"]["step"] == step
    at_solution = times > 3 * 7
    assert steps(parts / "metrics.csv") == [*range(0, step, ROW), *([step] if at_solution else [])]
    assert (parts / "solution.npz").exists() == (not at_solution)  # there is time left for it after the signal
    signal_at(10**6)
    resumed = resume(parts)
    assert resumed.status == 0, resumed.stderr
    assert_same_end(whole, parts)
    assert (parts / "solution.npz").exists()


def test_an_interrupted_run_has_no_more_time_than_its_grace(
    tmp_path: Path, signal_at: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an earlier part of the run has left does not stay in its place; all else is written."""
    signal_at(7)
    run = tmp_path / "run"
    assert start(run, "plots=true").status == 128 + signal.SIGTERM
    assert (run / "solution.npz").exists()
    monkeypatch.setattr("ntkrun.experiment.run.GRACE", -1.0)
    signal_at(4)
    assert resume(run).status == 128 + signal.SIGTERM
    assert not (run / "solution.npz").exists()
    assert summary(run)["status"] == "interrupted"
    assert {path.name for path in (run / "plots").glob("*.png")} >= {"losses.png", "error.png"}


def test_a_run_in_four_dimensions(tmp_path: Path) -> None:
    """A grid of 10^8 nodes is refused no memory for, and nothing chokes on what is there in its place."""
    result = four(tmp_path, "pde.grid=100")
    assert result.status == 0, result.stderr
    run = tmp_path / "run"
    assert f"errors are those at {SOBOL_NODES} Sobol points" in (run / "ntkrun.log").read_text()
    with np.load(run / "solution.npz") as file:
        solution = dict(file)
    assert set(solution) == {"points", "coordinates", "fields", "prediction", "exact", "error"}
    assert (solution["points"].shape, list(solution["coordinates"])) == ((SOBOL_NODES, 4), list("xyzt"))
    exact = Four().exact(Four().columns(torch.from_numpy(solution["points"]))).numpy()
    assert np.array_equal(solution["exact"][:, 0], exact)
    error = np.linalg.norm(solution["error"]) / np.linalg.norm(exact)
    assert json.loads((run / "summary.json").read_text())["rel_l2"]["final"] == pytest.approx(error, rel=1e-6)
    assert (run / "plots" / "solution.png").stat().st_size > 10_000


def four(folder: Path, *overrides: str) -> Result:
    (folder / "conf" / "pde").mkdir(parents=True)
    (folder / "conf" / "pde" / "four.yaml").write_text(
        "_target_: tests.training.test_evaluation.Four\n"
        "points: {data: 50}\nsampling: sobol\nresample_every: 1\ngrid: 9\n"
    )
    options = ["pde=four", "network.width=6", "network.depth=2", "iterations=2", *overrides]
    return ntkrun("--config-dir", "conf", *options, "hydra.run.dir=run", cwd=folder)
