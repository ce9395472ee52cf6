"""How many threads a run computes with."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ntkrun.network import MLP
from ntkrun.objective import Objective
from ntkrun.optimizer import Adam, GaussNewton
from ntkrun.pde import Wave
from ntkrun.runtime.threads import DENSE, WORK, set_threads, spare_threads
from ntkrun.steps.cost_model import step_work
from tests.driver import ntkrun


@pytest.fixture
def four() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize(("work", "threads"), [(0.0, 1), (0.9, 1), (2.5, 2), (4.0, 4), (100.0, 4)])
def test_threads_are_as_many_as_a_step_occupies(work: float, threads: int) -> None:
    spare_threads(work * WORK)
    assert torch.get_num_threads() == threads
    torch.set_num_threads(4)
    spare_threads(0.5 * work * WORK, 0.5 * work * DENSE * WORK)
    assert torch.get_num_threads() == threads


def test_work_is_that_of_the_products() -> None:
    """All layers but the last: 4, 1, 1 and 2 streams of 30, 20, 10 and 10 points; biases count like weights."""
    pde = Wave()
    network = MLP(50, 4, domain=pde.domain)
    counts = {"residual": 30, "boundary": 20, "initial": 10, "initial_velocity": 10}
    rows, size = 4 * 30 + 20 + 10 + 2 * 10, 3 * 50 + 3 * 51 * 50 + 51
    assert step_work(Objective(pde, network), counts) == 6 * rows * size


def test_gauss_newton_has_the_work_of_its_gram_matrix_and_factors() -> None:
    """Of the smaller side: 2,000 rows of 500 parameters, or 500 rows of 2,000 parameters."""
    for rows, parameters in ((2000, 500), (500, 2000)):
        assert GaussNewton().matrix_work(rows, parameters) == 2 * 2000 * 500 * 500 + 500**3 / 3
    assert Adam().matrix_work(2000, 500) == 0


@pytest.mark.usefixtures("four")
def test_a_gauss_newton_run_computes_with_the_threads_that_its_matrices_occupy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """20 x 3 on 1,400 rows: Gram matrix and factors are 2.4e9 operations a step, its products with weights 3e7."""
    monkeypatch.setattr("ntkrun.runtime.threads._AT_START", 4)
    result = ntkrun("pde=wave", "optimizer=gauss_newton", "iterations=1", "plots=false", cwd=tmp_path)
    assert result.status == 0
    assert ", threads: 4\n" in (result.directory / "ntkrun.log").read_text()


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize(("setting", "threads"), [("auto", 1), ("3", 3)])
def test_a_small_run_computes_with_one_thread_unless_told(
    setting: str, threads: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("ntkrun.runtime.threads._AT_START", 4)
    result = ntkrun("network.width=4", "iterations=1", "plots=false", f"threads={setting}", cwd=tmp_path)
    assert result.status == 0
    assert f", threads: {threads}\n" in (result.directory / "ntkrun.log").read_text()


@pytest.mark.usefixtures("four")
def test_a_job_after_a_small_one_has_its_threads_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ntkrun.runtime.threads._AT_START", 3)
    spare_threads(0)
    assert torch.get_num_threads() == 1
    set_threads("auto", None)
    assert torch.get_num_threads() == 3
