"""What a problem or network that cannot be used is told: which module, which term, which points, which values."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ntkrun.geometry import Box
from ntkrun.network.coupling import shapeless, suspects
from ntkrun.objective import Objective, RouteError
from ntkrun.pde import PDE, Columns, ProblemError, Term
from tests.cli.test_resume import resume, start, summary
from tests.driver import assert_refused, ntkrun
from tests.problems import ONE, mlp

HERE = "tests.objective.test_messages"
FEW = ("optimizer=adam", "iterations=2", "plots=false", "hydra.run.dir=run")


class Root(PDE):
    """Of a field that may become negative."""

    domain = ONE

    def __init__(self, shift: float = -0.5) -> None:
        self.shift = shift

    def terms(self) -> tuple[Term, ...]:
        return (
            Term("residual", (self.domain,), ("u", "u_x"), lambda x, d: d.u_x + torch.sqrt(0 * d.u + x.x + self.shift)),
        )


class Drift(PDE):
    """Fine up to half of the run, then not at the points where x < 1/4."""

    domain = ONE

    def terms(self) -> tuple[Term, ...]:
        return (
            Term("start", self.domain.faces("x"), ("u",), lambda x, d: d.u - 1),
            Term("residual", (self.domain,), ("u", "u_x"), self.equation),
        )

    def equation(self, x: Columns, d: Columns) -> Tensor:
        result: Tensor = d.u_x + torch.sqrt(x.x - 0.25 * (x.progress > 0.5))
        return result


class Measured(PDE):
    """As a first try has it: measured values as one tensor."""

    domain = ONE

    def terms(self) -> tuple[Term, ...]:
        return (Term("data", (self.domain,), ("u",), lambda x, d: d.u - torch.zeros(60)),)


class Normed(nn.Module):
    """Batch statistics of the very points."""

    def __init__(self, domain: Box, outputs: int = 1) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, outputs))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.net(x)
        return result


class Averaged(Normed):
    """Statistics of all points so far."""

    def __init__(self, domain: Box, outputs: int = 1) -> None:
        super().__init__(domain, outputs)
        self.net[1] = nn.BatchNorm1d(4)


class Lazy(nn.Module):
    """A layer that waits for points to take its size from."""

    def __init__(self, domain: Box, outputs: int = 1) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.LazyLinear(4), nn.Tanh(), nn.Linear(4, outputs))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.net(x)
        return result


def test_a_residual_that_is_not_finite_names_what_it_read() -> None:
    with pytest.raises(ProblemError) as caught:
        Objective(Root(), mlp(ONE))
    text = r"loss term 'residual': the residual is not finite at x=(\S+), where u=(\S+), u_x=(\S+)"
    text += r" \(tests/objective/test_messages.py:\d+\)"
    found = re.fullmatch(text, str(caught.value))
    assert found
    assert float(found[1]) < 0.5
    assert all(math.isfinite(float(number)) for number in found.groups())


def test_a_loss_that_is_not_finite_names_the_first_point(tmp_path: Path) -> None:
    folder = tmp_path / "conf" / "pde"
    folder.mkdir(parents=True)
    (folder / "own.yaml").write_text(
        f"_target_: {HERE}.Drift\npoints: {{residual: 9, start: 2}}\nsampling: equispaced\n"
        "resample_every: null\ngrid: 5\n"
    )
    result = start(tmp_path / "run", "--config-dir", "conf", "pde=own", "trainer.compile=false", "dtype=float64")
    assert result.status == 1
    # 30 steps: the 16th is the first beyond the half; the first point is x = 0.
    text = r"step 16: the loss of term residual is not finite, first at x=0, where u=\S+, u_x=\S+"
    assert re.fullmatch(text, summary(tmp_path / "run")["message"])


def test_a_shape_that_does_not_fit_names_the_points() -> None:
    with pytest.raises(ProblemError) as caught:
        Objective(Measured(), mlp(ONE))
    text = "loss term 'data': its residual fails at the 3 points that it is tried on, whose columns are of length 3, "
    assert str(caught.value).startswith(text + "with RuntimeError: The size of tensor a (3) must match the size of ten")


class Counted(Measured):
    """Fine at the few points that it is tried on."""

    def terms(self) -> tuple[Term, ...]:
        return (Term("data", (self.domain,), ("u",), lambda x, d: d.u - torch.zeros(min(60, len(d.u)))),)


def test_a_shape_that_does_not_fit_in_training_names_term_and_points(tmp_path: Path) -> None:
    folder = tmp_path / "conf" / "pde"
    folder.mkdir(parents=True)
    (folder / "own.yaml").write_text(
        f"_target_: {HERE}.Counted\npoints: {{data: 61}}\nsampling: uniform\nresample_every: 1\ngrid: 5\n"
    )
    result = ntkrun("--config-dir", "conf", "pde=own", *FEW, cwd=tmp_path)
    assert result.status == 1
    text = r"RuntimeError: The size of tensor a \(61\) must match the size of tensor b \(60\) .*"
    end = "in the residual of term data, whose columns are of length 61 there"
    assert re.fullmatch(f"{text}, {end}", summary(tmp_path / "run")["message"])


def test_batch_statistics() -> None:
    with pytest.raises(RouteError) as caught:
        Objective(Root(1.0), Normed(ONE))
    text = str(caught.value)
    assert text.startswith("route: Normed fails at a single point with ValueError: Expected more than 1 value per ")
    assert "BatchNorm1d (net.1) lets points meet, where every point must stand alone, as with LayerNorm" in text


def test_lazy_modules(tmp_path: Path) -> None:
    folder = tmp_path / "conf" / "network"
    folder.mkdir(parents=True)
    (folder / "lazy.yaml").write_text(f"_target_: {HERE}.Lazy\n")
    result = ntkrun("--config-dir", "conf", "network=lazy", *FEW, cwd=tmp_path)
    text = "network: LazyLinear (net.0) of Lazy has no shape before it has seen points; take the module that is given"
    assert_refused(result, tmp_path, text)
    assert not (tmp_path / "run").exists()


def test_averages_over_points(tmp_path: Path) -> None:
    folder = tmp_path / "conf" / "network"
    folder.mkdir(parents=True)
    (folder / "own.yaml").write_text(f"_target_: {HERE}.Averaged\n")
    result = ntkrun("--config-dir", "conf", "network=own", *FEW, cwd=tmp_path)
    assert_refused(result, tmp_path, "network: BatchNorm1d (net.1) of Averaged averages over the points that it has s")


def test_which_modules_are_suspected() -> None:
    assert suspects(nn.Sequential(nn.Linear(1, 4), nn.LayerNorm(4))) == ""
    attention = nn.ModuleDict({"a": nn.MultiheadAttention(4, 2), "b": nn.MultiheadAttention(4, 2)})
    assert suspects(attention).startswith("MultiheadAttention (a), MultiheadAttention (b) let points meet")
    assert suspects(nn.BatchNorm1d(3)).startswith("BatchNorm1d (the network itself) lets points meet")
    assert shapeless(mlp(ONE)) is None


def test_a_network_whose_points_meet_is_warned_of(tmp_path: Path) -> None:
    folder = tmp_path / "conf" / "network"
    folder.mkdir(parents=True)
    (folder / "own.yaml").write_text("_target_: tests.problems.Coupled\n")
    result = ntkrun("--config-dir", "conf", "network=own", *FEW, cwd=tmp_path)
    assert result.status == 0
    log = (tmp_path / "run" / "ntkrun.log").read_text()
    assert "outputs at one point depend on other points, so derivatives there are mixed with those of others" in log


def test_a_loss_that_is_not_finite_in_a_compiled_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step has moved the parameters in one go; the run goes on from its checkpoint step by step."""
    monkeypatch.setattr("ntkrun.steps.graph.compile_trace", lambda trace, inputs, like: trace)
    folder, run = tmp_path / "conf" / "pde", tmp_path / "run"
    folder.mkdir(parents=True)
    (folder / "own.yaml").write_text(
        f"_target_: {HERE}.Drift\npoints: {{residual: 9, start: 2}}\nsampling: equispaced\n"
        "resample_every: null\ngrid: 5\n"
    )
    assert start(run, "--config-dir", "conf", "pde=own", "trainer.compile=true").status == 1
    text = "step 16: the loss of term residual is not finite"
    assert summary(run)["message"] == f"{text}; resumed with trainer.compile=false, the run names the point"
    assert resume(run, "trainer.compile=false", f"trust={HERE}").status == 1
    assert summary(run)["message"].startswith(f"{text}, first at x=0, where u=")
