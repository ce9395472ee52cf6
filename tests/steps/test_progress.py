"""Residuals that read the progress of the training, and such that change behind the back of compiled steps."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_module
from torch import Tensor

from ntkrun.cli.preflight import own_values
from ntkrun.config.assembly import Parts, assemble
from ntkrun.config.configuration import read_configuration
from ntkrun.diagnostics import Spectrum
from ntkrun.geometry import Box
from ntkrun.objective import Objective
from ntkrun.pde import PDE, Columns, Term
from ntkrun.steps.eager import StepError, Stepper
from tests.cli.test_resume import resume, start, stop_at, summary, table
from tests.driver import Result
from tests.oracle import draw_batch
from tests.problems import mlp
from tests.steps.test_compiled import chunked_stepper, compare, compiled_stepper, traced, walk

__all__ = ["stop_at", "traced"]  # fixtures
HERE = "tests.steps.test_progress"
FACTOR = Path("factor")  # what a residual reads and nothing sees


class Ramp(PDE):
    """u' + k u = 0, u(0) = 1, where k goes from 1 to 5 along the run."""

    domain = Box.of(t=(0.0, 1.0))

    def terms(self) -> tuple[Term, ...]:
        start = self.domain.face("t", "low")
        return (
            Term("residual", (self.domain,), ("u", "u_t"), self.equation),
            Term("initial", (start,), ("u",), lambda x, d: d.u - 1),
        )

    def equation(self, x: Columns, d: Columns) -> Tensor:
        result: Tensor = d.u_t + (1 + 4 * x.progress) * d.u
        return result


class Counting(Ramp):
    """The factor jumps after some calls."""

    def __init__(self) -> None:
        self.calls = 0

    def equation(self, x: Columns, d: Columns) -> Tensor:
        self.calls += 1
        result: Tensor = d.u_t + (5.0 if self.calls > 300 else 1.0) * d.u
        return result


class Elsewhere(Ramp):
    """The factor lies in a file that changes along the run."""

    def equation(self, x: Columns, d: Columns) -> Tensor:
        result: Tensor = d.u_t + (5.0 if FACTOR.exists() else 1.0) * d.u
        return result


def ramp(*overrides: str) -> Parts:
    small = ("optimizer=adam", "dtype=float64", "network.width=6", "network.depth=2", "weights.update_every=2")
    with initialize_config_module("ntkrun.conf", version_base="1.3"):
        values = own_values(compose("config", overrides=[*small, *overrides]))
    points = {"residual": 11, "initial": 3}
    setup = {"points": points, "sampling": "uniform", "resample_every": 1, "grid": 5}
    return assemble(read_configuration({**values, "pde": {"_target_": f"{HERE}.Ramp", **setup}}))


@pytest.mark.parametrize("chunks", [False, True], ids=["whole", "chunks"])
def test_progress_is_an_input_of_compiled_steps(chunks: bool, traced: None) -> None:
    eager, other = ramp(), ramp(*(["trainer.chunk_size=4"] if chunks else []))
    stepper = chunked_stepper(other) if chunks else compiled_stepper(other)
    results = []
    for built, own in ((eager, Stepper(eager.objective, eager.optimizer)), (other, stepper)):
        results.append([])
        for step in range(6):
            built.objective.progress.fill_(step / 6)
            if step % 2:
                own.check_next()
            results[-1] += walk(built, own, range(step, step + 1))
    compare(*results, 1e-9)


def test_residuals_kernels_and_spectra_at_a_progress() -> None:
    """Against the equation with the factor written out."""

    class Written(Ramp):
        def equation(self, x: Columns, d: Columns) -> Tensor:
            result: Tensor = d.u_t + 4 * d.u
            return result

    network = mlp(Ramp.domain).double()
    objective, written = Objective(Ramp(), network), Objective(Written(), network)
    _, batch = draw_batch(objective, [7, 2])
    objective.progress.fill_(0.75)
    assert torch.equal(objective.losses(batch), written.losses(batch))
    assert torch.allclose(objective.traces(batch), written.traces(batch), rtol=1e-13)
    per_point = Objective(Ramp(), network, "per_point")
    per_point.progress.fill_(0.75)
    assert torch.allclose(per_point.traces(batch), written.traces(batch), rtol=1e-12)
    found = []
    for each in (objective, written):
        spectrum = Spectrum(steps=[3], points=None)
        spectrum.start(each, 3)
        each.progress.zero_()
        spectrum.observe(0, each, batch)
        each.progress.fill_(0.75)
        spectrum.observe(3, each, batch)
        found.append(spectrum.state_dict()["observed"][3])
    assert torch.allclose(found[0]["eigenvalues"], found[1]["eigenvalues"], rtol=1e-9)
    assert found[1]["kernel_drift"] == 0
    assert found[0]["kernel_drift"] > 0.1  # from a factor of 1 at the start


def run(directory: Path, problem: str, *overrides: str) -> Result:
    folder = directory.parent / "conf" / "pde"
    folder.mkdir(exist_ok=True, parents=True)
    text = f"_target_: {HERE}.{problem}\npoints: {{residual: 12, initial: 2}}\nsampling: sobol\nresample_every: 1\n"
    (folder / "own.yaml").write_text(text + "grid: 10\n")
    return start(directory, "--config-dir", "conf", "pde=own", *overrides)


@pytest.mark.parametrize("windows", [1, 2])
def test_a_resumed_run_goes_on_at_its_progress(windows: int, tmp_path: Path, stop_at: object) -> None:
    """And in every time window it goes from 0 to 1 anew: the losses of a run are those of its two halves."""
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert run(whole, "Ramp", f"time_windows={windows}").status == 0
    stop_at(17)  # type: ignore[operator]
    assert run(halves, "Ramp", f"time_windows={windows}").status == 143
    stop_at(1000)  # type: ignore[operator]
    assert resume(halves, f"trust={HERE}").status == 0
    assert table(halves / "metrics.csv") == table(whole / "metrics.csv")


def test_the_progress_of_a_run(tmp_path: Path) -> None:
    """It shows in the loss, which for a network that does not move tells the factor."""
    directory = tmp_path / "run"
    still = ("optimizer.learning_rate=1e-30", "schedule=constant", "dtype=float64")
    assert run(directory, "Ramp", *still, "log_every=1", "pde.resample_every=null").status == 0
    losses = pd.read_csv(directory / "metrics.csv")["loss/residual"].to_numpy()
    # (a + k b)^2 in the mean is a quadratic of k, so third differences vanish, and its ends are those of k = 1 and 5.
    assert len(losses) == 31
    assert abs(pd.Series(losses).diff().diff().diff()[3:]).max() < 1e-12
    assert losses[0] != pytest.approx(losses[30], rel=1e-3)


def test_a_residual_that_counts_is_not_compiled(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    assert run(directory, "Counting", "trainer.compile=true").status == 0
    log = (directory / "ntkrun.log").read_text()
    assert "the residual of term residual changes self.calls when it is evaluated" in log
    assert "steps are not compiled: a compiled step would not change it" in log


def test_a_change_that_nothing_sees_ends_the_run_at_the_next_check(
    tmp_path: Path, traced: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between steps 4 and 8 the factor changes; step 7, the last before a checkpoint, is compared."""
    at = iter(range(1000))
    calls = Stepper.check_next

    def change(self: Stepper) -> None:
        if next(at) == 1:  # the second check
            FACTOR.touch()
        calls(self)

    from ntkrun.steps.compiled import CompiledStepper

    own = CompiledStepper.check_next
    monkeypatch.setattr(CompiledStepper, "check_next", lambda self: (change(self), own(self)))
    directory = tmp_path / "run"
    assert run(directory, "Elsewhere", "trainer.compile=true").status == 1
    message = summary(directory)["message"]
    assert re.match(r"step 7: the compiled step differs from the operations that it was made from, so a ", message)
    assert "trainer.compile=false does without" in message
    assert "x.progress" in message
    assert torch.load(directory / "checkpoint.pt", weights_only=True)["progress"]["step"] == 4


def test_rounding_near_the_end_of_training_is_no_difference(traced: None) -> None:
    """Float32 residuals that are rounding alone: the same sums in another order agree in no digit."""
    from ntkrun.steps.graph import Graph

    def function(x: Tensor) -> list[Tensor]:
        return [(x + 1000.0 - 1000.0 - x).square().mean()[None], x > 0]

    like = torch.zeros(())
    graph = Graph(function, lambda k: [torch.linspace(1, 2 + k, 50)], torch.nn.Identity(), like, {})
    graph._compiled = lambda x: [(x - 1000.0 + 1000.0 - x).square().mean()[None], x > 0]
    graph.check_next = True
    graph([torch.linspace(0.1, 0.7, 50)])
    graph._compiled = lambda x: [function(x)[0] + 1e-3, x > 0]
    graph.check_next = True
    with pytest.raises(StepError):
        graph([torch.linspace(0.1, 0.7, 50)])
    graph([torch.linspace(0.1, 0.7, 50)])  # a check is made once
