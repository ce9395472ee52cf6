import csv
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from ntkrun.optimizer import memory
from ntkrun.runtime.signals import StopRequest
from tests.driver import Result, ntkrun

STEPS, STOP = 30, 13  # the interruption falls on no multiple of log_every or checkpoint_every
SMALL = [
    *(
        "optimizer=adam",
        "network=mlp",
        "network.width=8",
        "network.depth=2",
        "pde.grid=10",
        "plots=false",
        "progress=false",
    ),
    *(f"iterations={STEPS}", "log_every=5", "evaluate_every=5", "checkpoint_every=4", "weights.update_every=3"),
]
MISSING = [  # keys above that some choices do not have
    *(("weights=relobralo", "weights.update_every"), ("weights=uncertainty", "weights.update_every")),
    *(("network=ecrn", "network=mlp"), ("network=ecrn", "network.width"), ("network=ecrn", "network.depth")),
]
WAVE = ["pde=wave", "pde.points.residual=30", "pde.points.boundary=21", "pde.points.initial=10"]
SKETCHED = ["weights=sketched", "weights.sketch_size=4"]
CASES = {
    "exact-every-step": ["weights=exact", "weights.update_every=1"],
    "exact-auto": ["weights=exact", "weights.update_every=auto"],
    "sketched-auto": [*SKETCHED, "weights.update_every=auto", "weights.average=kalman"],
    "sketched": [*SKETCHED, "weights.derivative=autodiff", "weights.distribution=coordinate"],
    "sketched-difference": [
        *SKETCHED,
        "weights.side=parameter",
        "weights.distribution=gaussian",
        "weights.derivative=finite_difference",
    ],
    "wave-fresh-points": [*WAVE, "weights=exact", "pde.sampling=uniform", "pde.resample_every=1"],
    "sobol-fresh-points": [*WAVE, "pde.sampling=sobol", "pde.resample_every=1"],
    "sobol-every-7": ["weights=exact", "pde.sampling=sobol", "pde.resample_every=7"],
    "smoothing": [*SKETCHED, "weights.smoothing=0.9", "weights.freeze_after=20"],
    "gradient-descent": ["optimizer=gradient_descent", "optimizer.learning_rate=1e-6", "schedule=constant"],
    "adam-cosine": ["optimizer=adam", "schedule=cosine"],
    "adam-exponential": ["optimizer=adam", "schedule=exponential", "schedule.every=10"],
    "float64": ["weights=exact", "dtype=float64"],
    "lbfgs": ["optimizer=lbfgs", "dtype=float64", "weights.update_every=7", "pde.sampling=uniform"],
    "adam-then-lbfgs": ["optimizer=adam_lbfgs", "optimizer.switch_at=10", "weights.freeze_after=3"],
    "adam-before-lbfgs": ["optimizer=adam_lbfgs", "optimizer.switch_at=20"],
    "gauss-newton": [*WAVE, "optimizer=gauss_newton", "pde.resample_every=7"],
    "gauss-newton-sketched": [*WAVE, "optimizer=gauss_newton", "optimizer.solver=sketched", "optimizer.sketch_size=20"],
    "gauss-newton-adaptive": [*WAVE, "optimizer=gauss_newton", "pde.sampling=adaptive", "pde.resample_every=auto"],
    "gauss-newton-r3": [*WAVE, "optimizer=gauss_newton", "pde.sampling=r3", "pde.resample_every=3"],
    "adam-r3": [*WAVE, "optimizer=adam", "pde.sampling=r3", "pde.resample_every=2"],
    "adam-gauss-newton": [*WAVE, "optimizer=adam_gauss_newton", "optimizer.switch_at=10", "dtype=float64"],
    "adam-before-gauss-newton": [*WAVE, "optimizer=adam_gauss_newton", "optimizer.switch_at=20"],
    "adamw": ["optimizer=adamw"],
    "soap": ["optimizer=soap"],
    "gradient-norm": ["weights=gradient_norm"],
    "softadapt": ["weights=softadapt", "weights.loss_weighted=true"],
    "relobralo": [*WAVE, "weights=relobralo", "weights.expected_rho=0.5"],
    "uncertainty": ["weights=uncertainty"],
    "causal": [*WAVE, "weights=exact", "point_weights=causal"],
    "residual-attention": ["weights=sketched", "point_weights=residual_attention"],
    "stochastic-depth": ["network=ecrn", "network.survival=0.5", "network.features=4"],
    "periodic": ["pde=advection", "pde.points.residual=30", "pde.points.initial=10", "pde.points.periodic=8"],
    "periodic-embedding": ["pde=advection", "pde.points.residual=30", "network.periodic=true"],
    "hard-boundary": ["pde.hard_boundary=true"],
}


# As exact as the others, in .ci/run alone: they take longest, or differ little from one of the others.
LONG = {
    *("gauss-newton-sketched", "gauss-newton-adaptive", "adam-gauss-newton", "adam-before-gauss-newton"),
    *("adam-before-lbfgs", "adam-exponential", "sobol-every-7", "sketched-difference", "adamw", "periodic"),
}


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Lets the next runs behave as if SIGTERM had come during the given step."""

    class StopLater(StopRequest):
        def __init__(self, steps: int) -> None:
            self.left = steps

        def __call__(self) -> bool:
            if not self.left:
                self.signal = signal.SIGTERM
            self.left -= 1
            return self.signal is not None

    def arrange(steps: int) -> None:
        @contextmanager
        def stop_on_signals(*_: object) -> Iterator[StopRequest]:
            yield StopLater(steps)

        monkeypatch.setattr("ntkrun.experiment.run.stop_on_signals", stop_on_signals)

    return arrange


def start(directory: Path, *overrides: str) -> Result:
    directory.parent.mkdir(exist_ok=True, parents=True)
    missing = tuple(key for choice, key in MISSING if choice in overrides)
    small = [option for option in SMALL if not (missing and option.startswith(missing))]
    return ntkrun(*small, *overrides, f"hydra.run.dir={directory}", cwd=directory.parent)


def resume(directory: Path, *overrides: str) -> Result:
    return ntkrun(f"resume={directory}", *overrides, cwd=directory.parent)


def table(path: Path) -> list[list[str]]:
    """A table as text, without what the clock decides."""
    with open(path, newline="") as file:
        header, *rows = csv.reader(file)
    kept = [i for i, column in enumerate(header) if not column.endswith("seconds")]
    return [[row[i] for i in kept] for row in [header, *rows]]


def steps(path: Path) -> list[int]:
    return [int(row[0]) for row in table(path)[1:]]


def checkpoint(directory: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(directory / "checkpoint.pt", weights_only=True)
    return state


def summary(directory: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((directory / "summary.json").read_text())
    return values


def flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list):
        for k, v in value.items() if isinstance(value, dict) else enumerate(value):
            yield from flat(v, f"{key}.{k}")
    else:
        yield key, value


def assert_same_end(one: Path, other: Path, progress: bool = True) -> None:
    for name in sorted({path.name for path in (*one.glob("*.csv"), *other.glob("*.csv"))}):
        assert table(one / name) == table(other / name)
    a, b = ({k: v for k, v in flat(checkpoint(each)) if not k.startswith(".tables")} for each in (one, other))
    assert a.keys() == b.keys()
    for key, value in a.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, b[key]), key
        elif ".seconds" not in key and (progress or not key.startswith(".progress")):
            assert value == b[key], key


@pytest.mark.parametrize(
    "overrides",
    [pytest.param(case, id=name, marks=[pytest.mark.long] * (name in LONG)) for name, case in CASES.items()],
)
def test_a_resumed_run_ends_bit_for_bit_like_an_uninterrupted_one(
    overrides: list[str], tmp_path: Path, stop_at: Callable[[int], None]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert start(whole, *overrides).status == 0
    stop_at(STOP)
    stopped = start(parts, *overrides)
    assert stopped.status == 128 + signal.SIGTERM, stopped.stderr
    assert (summary(parts)["status"], summary(parts)["step"]) == ("interrupted", STOP)
    assert checkpoint(parts)["progress"]["step"] == STOP
    assert steps(parts / "metrics.csv") == [0, 5, 10]
    stop_at(STEPS)
    resumed = resume(parts)
    assert resumed.status == 0, resumed.stderr
    assert resumed.directory == parts
    assert_same_end(whole, parts)
    ends = [{k: v for k, v in summary(d).items() if k != "seconds"} for d in (whole, parts)]
    assert ends[0] == ends[1]


def test_a_run_that_remembers_draws_ends_bit_for_bit_like_an_uninterrupted_one(
    tmp_path: Path, stop_at: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "BEHIND", 1e-9)
    monkeypatch.setattr(memory, "LOOKS", 3)
    overrides = [*WAVE, "optimizer=gauss_newton", "pde.resample_every=1"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert start(whole, *overrides).status == 0
    stop_at(STOP)
    assert start(parts, *overrides).status == 128 + signal.SIGTERM
    assert checkpoint(parts)["optimizer"]["memory"]["total"] is not None
    stop_at(STEPS)
    assert resume(parts).status == 0
    assert_same_end(whole, parts)


@pytest.mark.long
def test_compiled_and_other_steps_go_on_from_each_other(tmp_path: Path, stop_at: Callable[[int], None]) -> None:
    """Compiled steps after compiled ones bit for bit, in any other order but for rounding.

    Standardized coordinates are symmetric, so the first gradient of the last bias would be nothing but rounding, which
    Adam makes whole steps of.
    """
    own = ["weights=exact", "weights.update_every=1", "dtype=float64", "pde.sampling=uniform", "pde.resample_every=1"]
    own.append("network.standardize=false")
    compiled = "trainer.compile=true"
    whole, eager = tmp_path / "compiled", tmp_path / "eager"
    stop_at(STEPS)
    assert start(whole, *own, compiled).status == 0
    assert start(eager, *own, "trainer.compile=false").status == 0
    for first in ("true", "false"):
        stop_at(STOP)
        assert start(tmp_path / first, *own, f"trainer.compile={first}").status == 143
    ends = {}
    for first, then in (("true", "true"), ("true", "false"), ("false", "true")):
        ends[first, then] = parts = tmp_path / f"{first}-{then}"
        shutil.copytree(tmp_path / first, parts)
        before = checkpoint(parts)["progress"]["seconds"]["compilation"]
        assert (before > 0) == (first == "true")
        stop_at(STEPS)
        assert resume(parts, f"trainer.compile={then}").status == 0
        assert (checkpoint(parts)["progress"]["seconds"]["compilation"] > before) == (then == "true")
    assert_same_end(whole, ends["true", "true"])
    expected = dict(flat(checkpoint(eager)["network"]))
    for each in (whole, *ends.values()):
        found = dict(flat(checkpoint(each)["network"]))
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-8, atol=1e-10)


def test_a_run_may_be_interrupted_again_and_again(tmp_path: Path, stop_at: Callable[[int], None]) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    start(whole, *CASES["wave-fresh-points"])
    stop_at(3)
    start(parts, *CASES["wave-fresh-points"])
    for _ in range(STEPS // 3):
        resume(parts)
    assert summary(parts)["status"] == "completed"
    assert_same_end(whole, parts)


@pytest.mark.parametrize("stop", [0, 13, 20], ids=["untrained", "between-rows", "on-a-row"])
def test_a_finished_run_can_be_made_longer(stop: int, tmp_path: Path) -> None:
    """Its closing row gives way to what an uninterrupted run writes."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    start(whole, "schedule=constant")
    start(parts, "schedule=constant", f"iterations={stop}")
    assert steps(parts / "metrics.csv")[-1] == stop
    assert resume(parts, f"iterations={STEPS}").status == 0
    assert_same_end(whole, parts, progress=False)  # the best error may be that of the closing row


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    run, copy = tmp_path / "run", tmp_path / "copy"
    start(run)
    shutil.copytree(run, copy)
    assert resume(run).status == 0
    assert_same_end(run, copy)


# After a crash


@dataclass(frozen=True)
class Runs:
    whole: Path
    stopped: Path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """One run to the end and one whose last checkpoint is at step 13; tests work on copies."""
    folder = tmp_path_factory.mktemp("runs")
    made = Runs(folder / "whole", folder / "stopped")
    assert start(made.whole, "schedule=constant").status == 0
    assert start(made.stopped, "schedule=constant", f"iterations={STOP}").status == 0
    return made


@pytest.fixture
def stopped(runs: Runs, tmp_path: Path) -> Path:
    return Path(shutil.copytree(runs.stopped, tmp_path / "run"))


def append(path: Path, text: str) -> None:
    with open(path, "a") as file:
        file.write(text)


def test_rows_beyond_the_checkpoint_are_dropped(runs: Runs, stopped: Path) -> None:
    for name, beyond in (("metrics.csv", (15, 20, 25)), ("weights.csv", (15, 18, 21))):
        width = len((stopped / name).read_text().splitlines()[0].split(","))
        append(stopped / name, "".join(",".join([str(step)] + ["1.0"] * (width - 1)) + "\n" for step in beyond))
    assert resume(stopped, f"iterations={STEPS}").status == 0
    assert_same_end(runs.whole, stopped, progress=False)


@pytest.mark.parametrize("half", ["1", "15", "15,", "15,0.02,1.1e"], ids=repr)
def test_half_a_row_is_dropped(half: str, runs: Runs, stopped: Path) -> None:
    """A process that is killed may have written its last row up to any character, even up to another number."""
    for name in ("metrics.csv", "weights.csv"):
        append(stopped / name, half)
    resumed = resume(stopped, f"iterations={STEPS}")
    assert resumed.status == 0, resumed.stderr
    assert_same_end(runs.whole, stopped, progress=False)


# Changes on resuming


def test_permitted_changes_work(stopped: Path) -> None:
    changes = [
        "iterations=20",
        "log_every=2",
        "evaluate_every=6",
        "checkpoint_every=100",
        "progress=true",
        "plots=true",
    ]
    result = ntkrun(*changes, f"resume={stopped}", cwd=stopped.parent)
    assert result.status == 0, result.stderr
    assert steps(stopped / "metrics.csv") == [0, 5, 10, 14, 16, 18, 20]
    evaluated = pd.read_csv(stopped / "metrics.csv").dropna(subset="error/rel_l2")
    assert evaluated["step"].tolist() == [0, 5, 10, 18, 20]
    assert (summary(stopped)["step"], summary(stopped)["iterations"]) == (20, 20)
    assert (stopped / "plots" / "losses.png").exists()


def everything_in(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def assert_resume_refused(directory: Path, overrides: list[str], *words: str) -> None:
    before = everything_in(directory)
    result = resume(directory, *overrides)
    assert (result.status, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr
    assert everything_in(directory) == before


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("network.width=3", ("network.width", "iterations", "log_every", "checkpoint_every", "progress", "plots")),
        ("pde=wave", ("pde", "iterations")),
        ("optimizer=lbfgs", ("optimizer cannot change on resume", "start_from={run} gives a new run")),
        ("seed=1", ("seed", "iterations")),
        ("iteration=20", ("iteration ", "did you mean iterations?")),
        ("iterations", ("iterations", "key=value")),
        ("iterations=abc", ("iterations=abc", "integer")),
        ("iterations=[1", ("iterations=[1", "integer")),
        ("log_every=0", ("log_every=0", "greater than 0")),
        ("resume=elsewhere", ("resume", "twice")),
        ("-m", ("-m", "key=value")),
        ("--multirun", ("--multirun", "key=value")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_changes_are_refused(override: str, words: tuple[str, ...], stopped: Path) -> None:
    assert_resume_refused(stopped, [override], *(word.format(run=stopped) for word in words))


# Bad checkpoints


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harm",)


def expand_moments(path: Path) -> None:
    """Moments of the right shape with one element in memory, which an update in place would write beyond."""
    state = torch.load(path, weights_only=True)
    for each in state["optimizer"]["state"].values():
        each["exp_avg"] = torch.zeros(1, 1)[0, 0].expand(each["exp_avg"].shape)
    torch.save(state, path)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("weights\n"),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "nearly-whole": lambda path: path.write_bytes(path.read_bytes()[:-10]),
    "pickle": lambda path: path.write_bytes(pickle.dumps({"format": 1})),
    "harmful-pickle": lambda path: path.write_bytes(pickle.dumps(Harmful())),
    "harmful-save": lambda path: torch.save({"format": 1, "progress": Harmful()}, path),
    "tensor": lambda path: torch.save(torch.ones(3), path),
    "other-format": lambda path: torch.save({**torch.load(path, weights_only=True), "format": 0}, path),
    "no-state": lambda path: torch.save({"format": 1}, path),
    "expanded-moments": expand_moments,
    "other-network": lambda path: torch.save({**torch.load(path, weights_only=True), "network": {}}, path),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_bad_checkpoint_is_refused(damage: Callable[[Path], object], stopped: Path) -> None:
    (stopped / "checkpoint.previous.pt").unlink()
    damage(stopped / "checkpoint.pt")
    assert_resume_refused(stopped, [], "checkpoint.pt")
    assert not (stopped.parent / "harm").exists()


@pytest.mark.parametrize(
    "damage", ["harmful-save", "tensor", "other-format", "no-state", "expanded-moments", "other-network"]
)
def test_a_whole_file_that_is_no_checkpoint_is_refused_in_spite_of_an_older_one(damage: str, stopped: Path) -> None:
    DAMAGE[damage](stopped / "checkpoint.pt")
    assert_resume_refused(stopped, [], "checkpoint.pt")


def test_a_run_directory_without_its_configuration_is_refused(stopped: Path) -> None:
    shutil.rmtree(stopped / ".hydra")
    assert_resume_refused(stopped, [], str(stopped), ".hydra/config.yaml")


# Signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_stops_a_run_that_can_be_resumed(number: signal.Signals, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    eager = "trainer.compile=false"  # as the runs that this one is compared with are, for they are short
    long = [*SMALL, "schedule=constant", "iterations=1000000", "checkpoint_every=17", eager]
    command = [sys.executable, "-m", "ntkrun", *long, f"hydra.run.dir={parts}"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while not (parts / "checkpoint.pt").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 128 + number
    assert "Traceback" not in stderr
    assert stdout.splitlines()[-1] == str(parts)
    assert summary(parts)["status"] == "interrupted"
    assert number.name in summary(parts)["message"]
    step = summary(parts)["step"]
    assert checkpoint(parts)["progress"]["step"] == step
    assert steps(parts / "metrics.csv") == list(range(0, step, 5))
    assert steps(parts / "weights.csv") == list(range(0, step, 3))
    end = f"iterations={step + 7}"
    assert resume(parts, end).status == 0
    assert summary(parts)["status"] == "completed"
    assert start(whole, "schedule=constant", end).status == 0
    assert_same_end(whole, parts)


@pytest.mark.parametrize("plots", ["true", "false"], ids=["plots", "no-plots"])
def test_a_signal_before_the_first_step(plots: str, tmp_path: Path, stop_at: Callable[[int], None]) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    start(whole)
    stop_at(0)
    assert start(parts, f"plots={plots}").status == 128 + signal.SIGTERM
    assert (summary(parts)["status"], summary(parts)["step"]) == ("interrupted", 0)
    stop_at(STEPS)
    assert resume(parts).status == 0
    assert_same_end(whole, parts)
