"""Several processes that train together, started by torchrun, against one that trains alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import ntkrun.runtime.distributed
from ntkrun.common.errors import refuse
from ntkrun.objective import Objective
from ntkrun.objective.batch import Batch
from ntkrun.objective.chunked import cut
from ntkrun.pde import Wave
from ntkrun.runtime.distributed import Ranks, StopTogether
from ntkrun.runtime.signals import StopRequest
from ntkrun.runtime.threads import available_cores, set_threads
from tests.driver import assert_refused
from tests.driver import ntkrun as run_ntkrun
from tests.oracle import draw_batch
from tests.problems import mlp

ROOT = Path(__file__).parents[2]
TORCHRUN = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
ADDRESS = {"MASTER_ADDR": "localhost", "MASTER_PORT": "0"}


def torchrun(*arguments: object, processes: int = 2) -> list[str]:
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), "-m"]
    return [*start, *(str(argument) for argument in arguments)]


def train_together(
    *arguments: object, cwd: Path, processes: int = 2, timeout: int = 120
) -> subprocess.CompletedProcess[str]:
    """Start ntkrun by torchrun and wait for it."""
    command = torchrun("ntkrun", *arguments, processes=processes)
    return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=timeout)


def environment() -> dict[str, str]:
    """Ours, with the tests' modules to be found from anywhere."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.mark.long
def test_two_processes_get_what_one_gets() -> None:
    """Losses, gradients, traces, products, training and Gauss-Newton steps, to rounding, on both processes."""
    arguments = [
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "tests/objective/test_chunked.py",
        "tests/steps/test_rows.py",
        "-k",
        "weighted or weightings or either_side",
    ]
    result = subprocess.run(
        torchrun("pytest", *arguments), cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count(" passed") == 2


SMALL = [
    *("pde=wave", "pde.points.residual=40", "pde.points.boundary=9", "pde.points.initial=1", "pde.grid=10"),
    *("network.width=8", "network.depth=3", "optimizer=adam", "dtype=float64", "schedule=constant", "plots=false"),
    *("weights=sketched", "weights.sketch_size=4", "weights.update_every=3", "point_weights=causal", "log_every=5"),
]


def summary(directory: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((directory / "summary.json").read_text())
    return values


def network(directory: Path) -> dict[str, torch.Tensor]:
    values: dict[str, torch.Tensor] = torch.load(directory / "checkpoint.pt", weights_only=True)["network"]
    return values


@pytest.mark.long
def test_a_run_that_is_stopped_and_resumed_ends_like_one_alone(tmp_path: Path) -> None:
    """Under SIGTERM to torchrun, which passes it on; the last part has three processes, one more than a term points."""
    together, alone = tmp_path / "together", tmp_path / "alone"
    long = ["iterations=1000000", "checkpoint_every=20", f"hydra.run.dir={together}"]
    process = subprocess.Popen(
        torchrun("ntkrun", *SMALL, *long), cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 120
        while not (together / "checkpoint.pt").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        stdout, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode != 0
    assert stdout.splitlines()[-1] == str(together)
    stopped = summary(together)
    assert (stopped["status"], stopped["processes"]) == ("interrupted", 2)
    assert f"SIGTERM at step {stopped['step']}" in stopped["message"]

    end = f"iterations={stopped['step'] + 7}"
    resumed = train_together(f"resume={together}", end, cwd=tmp_path, processes=3)
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.splitlines()[-1] == str(together)
    assert resumed.stderr.count("resuming at step") == 1
    assert run_ntkrun(*SMALL, end, f"hydra.run.dir={alone}", cwd=tmp_path).status == 0
    assert (summary(together)["status"], summary(together)["processes"]) == ("completed", 3)
    assert_alike(together, alone)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "together"]


@pytest.mark.long
def test_standard_errors_and_residuals_are_those_of_one_process(tmp_path: Path) -> None:
    """The process that leads makes them of all points."""
    small = ["pde=diffusion_inverse", "network.width=8", "network.depth=2", "iterations=40", "plots=false"]
    together, alone = tmp_path / "together", tmp_path / "alone"
    assert train_together(*small, f"hydra.run.dir={together}", cwd=tmp_path).returncode == 0
    assert run_ntkrun(*small, f"hydra.run.dir={alone}", cwd=tmp_path).status == 0
    (name, expected), (_, found) = (next(iter(summary(each)["coefficients"].items())) for each in (alone, together))
    assert found["value"] == pytest.approx(expected["value"], rel=1e-6)
    assert found["standard_error"] == pytest.approx(expected["standard_error"], rel=1e-4), name
    residuals = np.load(alone / "residuals.npz"), np.load(together / "residuals.npz")
    assert set(residuals[0]) == set(residuals[1])
    for term, rows in residuals[0].items():
        np.testing.assert_allclose(residuals[1][term], rows, atol=1e-4 * rows.max())


def worker(torchrun: int, rank: int) -> int | None:
    """The process of a rank among the children of torchrun."""
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1]) if entry.name.isdigit() else 0
            if parent == torchrun and f"RANK={rank}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                return int(entry.name)
        except OSError:  # it has ended meanwhile
            continue
    return None


def saved_step(directory: Path) -> int:
    """Of the checkpoint; 0 where there is none, or it is being replaced."""
    try:
        return int(torch.load(directory / "checkpoint.pt", weights_only=True)["progress"]["step"])
    except FileNotFoundError:
        return 0


@pytest.mark.long
def test_a_run_whose_processes_are_killed_goes_on_by_itself(tmp_path: Path) -> None:
    """First the one that follows, then the one that leads; in the directory of the first start, to the same bits."""
    here, alone = tmp_path / "here", tmp_path / "alone"
    here.mkdir()
    small = [*SMALL, "iterations=500", "checkpoint_every=25", "progress=false"]
    command = torchrun("ntkrun", *small)
    command[3:3] = ["--max-restarts", "2", "--monitor-interval", "0.1"]
    process = subprocess.Popen(
        command, cwd=here, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    try:
        killed = 0
        for rank in (1, 0):
            step, pid = 0, None
            while step <= killed or pid is None:
                assert process.poll() is None, process.communicate()[1]
                assert time.monotonic() < deadline
                step = max((saved_step(path.parent) for path in here.glob("outputs/*/*/checkpoint.pt")), default=0)
                pid = worker(process.pid, rank)
                time.sleep(0.02)
            os.kill(pid, signal.SIGKILL)
            killed = step
        stdout, stderr = process.communicate(timeout=120)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, stderr
    (directory,) = here.glob("outputs/*/*")
    assert stdout.splitlines()[-1] == str(directory)
    assert stderr.count("resuming at step") == 2
    assert (summary(directory)["status"], summary(directory)["step"]) == ("completed", 500)
    undisturbed = train_together(*small, f"hydra.run.dir={alone}", cwd=tmp_path)
    assert undisturbed.returncode == 0, undisturbed.stderr
    for name, value in network(alone).items():
        assert torch.equal(network(directory)[name], value)
    for name in ("metrics.csv", "weights.csv"):
        ours, expected = pd.read_csv(directory / name), pd.read_csv(alone / name)
        columns = [column for column in expected if not str(column).endswith("seconds")]
        pd.testing.assert_frame_equal(ours[columns], expected[columns], check_exact=True)


def assert_alike(together: Path, alone: Path) -> None:
    """Both runs have the same rows and end with the same network, up to rounding."""
    for name in ("metrics.csv", "weights.csv"):
        ours, expected = pd.read_csv(together / name), pd.read_csv(alone / name)
        columns = [column for column in expected if not str(column).endswith("seconds")]
        pd.testing.assert_frame_equal(ours[columns], expected[columns], check_exact=False, rtol=1e-8)
    for name, value in network(alone).items():
        torch.testing.assert_close(network(together)[name], value, rtol=1e-8, atol=1e-10)


@pytest.mark.long
def test_processes_that_compile_get_what_one_gets_that_does_not(tmp_path: Path) -> None:
    """With an odd number of points, so that the two fill up pieces of different length; two graphs for each."""
    together, alone = tmp_path / "together", tmp_path / "alone"
    small = [
        *("pde=poisson", "pde.points.residual=21", "pde.grid=10", "network.width=6", "network.depth=1"),
        *("weights=exact", "weights.update_every=1", "iterations=6", "log_every=2", "dtype=float64", "plots=false"),
        *("optimizer=gradient_descent", "optimizer.learning_rate=1e-6"),  # Adam magnifies gradients of symmetry, zero
    ]
    compiled = ["trainer.compile=true", f"hydra.run.dir={together}"]
    result = train_together(*small, *compiled, cwd=tmp_path, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "not compiled" not in result.stderr
    assert run_ntkrun(*small, "trainer.compile=false", f"hydra.run.dir={alone}", cwd=tmp_path).status == 0
    assert (summary(together)["processes"], summary(together)["seconds"]["compilation"] > 0) == (2, True)
    assert summary(alone)["seconds"]["compilation"] == 0
    assert_alike(together, alone)


def test_a_process_that_fails_ends_the_run(tmp_path: Path) -> None:
    """The other one notices, says so and leaves what a failed run leaves."""
    (tmp_path / "failing.py").write_text(
        "import os\n\nfrom ntkrun.point_weights import Uniform\n\n\n"
        "class Failing(Uniform):\n"
        "    steps = 0\n\n"
        "    def update(self, objective, batch):\n"
        "        if os.environ['RANK'] == '1' and self.steps == 7:\n"
        "            raise ArithmeticError('of process 1')\n"
        "        self.steps += 1\n"
    )
    conf = tmp_path / "conf" / "point_weights"
    conf.mkdir(parents=True)
    (conf / "failing.yaml").write_text("_target_: failing.Failing\n")
    directory = tmp_path / "run"
    small = [
        "optimizer=adam",
        "point_weights=failing",
        "network.width=8",
        "iterations=1000",
        "checkpoint_every=5",
        "plots=false",
    ]
    result = train_together("--config-dir", "./conf", *small, f"hydra.run.dir={directory}", cwd=tmp_path)
    assert result.returncode != 0
    assert "ArithmeticError: of process 1" in result.stderr
    assert "another process of this run has ended; the last checkpoint is kept" in result.stderr
    assert summary(directory)["status"] == "failed"
    state = torch.load(directory / "checkpoint.pt", weights_only=True)
    assert state["progress"]["step"] == 5


# Without starting processes


@pytest.fixture
def follower(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torchrun tells the second of two processes on each of two machines."""
    for name, value in {**TORCHRUN, **ADDRESS}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shares_are_all_the_points_once(count: int) -> None:
    pde = Wave()
    objective = Objective(pde, mlp(pde.domain))
    points, batch = draw_batch(objective, [31, 9, 1, 5])

    def share(rank: int, batch: Batch, i: int) -> list[torch.Tensor]:
        return [piece.group.x for piece in cut(batch, 4, Ranks(rank, count)) if piece.term == i]

    for i, name in enumerate(objective.names):
        shares = [share(rank, batch, i) for rank in range(count)]
        assert torch.equal(torch.cat([x for own in shares for x in own]), points[name])
        sizes = [sum(map(len, own)) for own in shares]
        assert max(sizes) - min(sizes) <= 1


class Told(Ranks):
    """Two processes, of which the other one says what it is told to."""

    def __init__(self, other: Sequence[int]) -> None:
        super().__init__(0, 2)
        object.__setattr__(self, "other", list(other))
        object.__setattr__(self, "asked", 0)

    def largest(self, numbers: Sequence[int]) -> list[int]:
        object.__setattr__(self, "asked", self.asked + 1)  # type: ignore[attr-defined]
        return [max(pair) for pair in zip(numbers, self.other, strict=True)]  # type: ignore[attr-defined]


def test_a_request_to_another_process_is_a_request() -> None:
    stop = StopTogether(StopRequest(), Told([signal.SIGTERM, -5]))
    assert stop()
    assert stop.signal is signal.SIGTERM


def test_processes_ask_each_other_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every quarter of a second, at the pace of the slowest; at every step where steps take longer."""
    now = 0.0
    monkeypatch.setattr(ntkrun.runtime.distributed.time, "perf_counter", lambda: now)
    for seconds, steps, times in ((0.001, 4000, (16, 30)), (0.1, 40, (18, 22)), (1.0, 10, (9, 10))):
        ranks = Told([0, -1000])
        stop = StopTogether(StopRequest(), ranks)
        for _ in range(steps):
            assert not stop()
            now += seconds
        assert times[0] <= ranks.asked <= times[1]  # type: ignore[attr-defined]


def test_a_process_that_does_not_lead_is_silent(follower: None, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        refuse("a reason")
    assert leaving.value.code == 0
    assert capsys.readouterr() == ("", "")


def test_processes_share_the_cores(follower: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "6")
    before = torch.get_num_threads()
    try:
        set_threads("auto", None)
        assert (torch.get_num_threads(), available_cores()) == (3, 6)
    finally:
        torch.set_num_threads(before)


def test_a_run_that_is_started_again_takes_its_first_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with quotes; by one process that torchrun started, whose folder for reports survives the restart."""
    folder = tmp_path / "none_x"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(folder / "attempt_0" / "0" / "error.json"))
    folder.mkdir()
    small = ["optimizer=adam", "network.width=4", "iterations=4", "plots=false", "pde.grid=10", "progress=false"]
    first = run_ntkrun(*small, f"hydra.run.dir='{tmp_path}/it\\'s=${{now:%Y}}-${{ntkrun.unique:}}'", cwd=tmp_path)
    assert first.status == 0, first.stderr
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(folder / "attempt_1" / "0" / "error.json"))
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    again = run_ntkrun(*small, cwd=tmp_path)
    assert again.status == 0, again.stderr
    assert again.directory == first.directory
    assert "resuming at step 4 of 4" in (first.directory / "ntkrun.log").read_text()
    assert not (tmp_path / "outputs").exists()


def test_sweeps_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**TORCHRUN, **ADDRESS, "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("ntkrun.runtime.distributed.join", lambda: None)
    assert_refused(run_ntkrun("-m", "seed=0,1", cwd=tmp_path), tmp_path, "sweep", "torchrun")


def test_networks_whose_points_depend_on_each_other_are_not_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ntkrun.config.assembly.present", lambda: Ranks(0, 2))
    conf = tmp_path / "conf" / "network"
    conf.mkdir(parents=True)
    (conf / "coupled.yaml").write_text("_target_: tests.problems.Coupled\n")
    result = run_ntkrun("--config-dir", "./conf", "network=coupled", cwd=tmp_path)
    assert_refused(result, tmp_path, "shared by 2 processes", "Coupled")


def test_processes_without_a_device_each_are_refused(
    follower: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setattr("ntkrun.runtime.distributed.join", lambda: None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert_refused(run_ntkrun("device=cuda", cwd=tmp_path), tmp_path, "device=cuda", "2 processes", "1 CUDA")
