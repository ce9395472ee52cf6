"""The Python API: training, loading and predicting, without taking over the process."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

import ntkrun
from ntkrun.experiment import trained
from ntkrun.jets import UnknownDerivativeError
from ntkrun.storage.checkpoint import CheckpointError
from tests.driver import ntkrun as command_line

TINY = [
    *("optimizer=adam", "network.width=6", "network.depth=2", "dtype=float64", "plots=false", "progress=false"),
    "pde.grid=8",
]
WAVE = ["pde=wave", *TINY, "iterations=20", "log_every=5"]
WINDOWS = ["pde=diffusion", *TINY, "iterations=5", "time_windows=3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("api")


@pytest.fixture(scope="module")
def wave(folder: Path) -> ntkrun.TrainedRun:
    return ntkrun.train([*WAVE, f"hydra.run.dir={folder / 'wave'}"])


@pytest.fixture(scope="module")
def windows(folder: Path) -> ntkrun.TrainedRun:
    return ntkrun.train([*WINDOWS, f"hydra.run.dir={folder / 'windows'}"])


def without_clock(table: pd.DataFrame) -> pd.DataFrame:
    return table[[column for column in table if "seconds" not in column]]


def points_of(run: ntkrun.TrainedRun, count: int = 40) -> np.ndarray:
    box, generator = run.pde.domain, np.random.default_rng(0)
    low, high = np.array(list(box.low.values())), np.array(list(box.high.values()))
    return low + (high - low) * generator.random((count, len(low)))


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import ntkrun, sys; print({'torch', 'hydra', 'pandas'} & set(sys.modules), 'train' in dir(ntkrun))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set() True"


def test_every_exported_name_is_there() -> None:
    for name in ntkrun.__all__:
        assert getattr(ntkrun, name).__module__.startswith("ntkrun.")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        ntkrun.nothing  # noqa: B018


def test_the_tables_are_those_of_the_command_line(wave: ntkrun.TrainedRun, tmp_path: Path) -> None:
    result = command_line(*WAVE, "threads=1", cwd=tmp_path)
    assert result.status == 0, result.stderr
    for table in ("metrics", "weights"):
        expected = pd.read_csv(result.directory / f"{table}.csv")
        pd.testing.assert_frame_equal(without_clock(getattr(wave, table)), without_clock(expected), rtol=1e-12)
    own, others = (Path(d) / ".hydra" for d in (wave.directory, result.directory))
    assert {path.name for path in own.iterdir()} == {path.name for path in others.iterdir()}
    ours, theirs = (yaml.safe_load((d / "config.yaml").read_text()) for d in (own, others))
    assert {**ours, "threads": 1} == theirs


def test_what_the_run_holds(wave: ntkrun.TrainedRun) -> None:
    assert wave.summary["status"] == "completed"
    assert wave.config["pde"]["c"] == 2.0
    assert wave.metrics["step"].tolist() == [0, 5, 10, 15, 20]
    assert "trace/residual" in wave.weights
    assert "completed" in repr(wave)
    assert str(wave.directory) in repr(wave)


def state_of_the_process() -> dict[str, object]:
    state: dict[str, object] = {
        "signals": {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)},
        "threads": torch.get_num_threads(),
        "random": torch.get_rng_state().tolist(),
        "dtype": torch.get_default_dtype(),
        "path": sys.path[:],
        "arguments": sys.argv[:],
        "environment": dict(os.environ),
        "hydra": (GlobalHydra.instance().hydra, HydraConfig.instance().cfg),
        "logging": (logging.getLogger("ntkrun").handlers[:], logging.getLogger().handlers[:]),
        "directory": os.getcwd(),
        "figures": matplotlib.get_backend(auto_select=False),
    }
    if sys.platform.startswith("linux"):
        import resource

        state["limits"] = [resource.getrlimit(each) for each in (resource.RLIMIT_DATA, resource.RLIMIT_AS)]
    return state


@pytest.mark.parametrize("overrides", [["plots=true"], ["iterations=x"], ["optimizer.learning_rate=1e300"]], ids=str)
def test_the_process_is_left_as_it_was(
    overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Twice in a row, with success or without."""
    monkeypatch.chdir(tmp_path)
    before = state_of_the_process()
    for _ in range(2):
        try:
            run = ntkrun.train([*WAVE, *overrides])
            assert (run.directory / "plots" / "losses.png").stat().st_size > 0
        except (ntkrun.ConfigError, ntkrun.RunError):
            assert overrides != ["plots=true"]
        after = state_of_the_process()
        assert {key for key in before if before[key] != after[key]} == set()
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["pde=wav"], "did you mean wave"),
        (["weights.flor=1"], "did you mean weights.floor"),
        (["seed=1,2"], "sweep"),
        (["-m", "seed=1,2"], "the command line"),
        (["wave"], "expected key=value"),
        (["resume=nowhere"], "nowhere"),
    ],
    ids=str,
)
def test_what_cannot_be_used_is_refused(
    overrides: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ntkrun.ConfigError, match=words):
        ntkrun.train(overrides)
    assert not list(tmp_path.iterdir())


def test_a_run_that_fails(tmp_path: Path) -> None:
    with pytest.raises(ntkrun.RunError, match="not finite") as caught:
        ntkrun.train([*WAVE, "optimizer.learning_rate=1e300", f"hydra.run.dir={tmp_path}"])
    assert caught.value.directory == tmp_path
    assert "failed" in (tmp_path / "summary.json").read_text()


def test_an_interruption_leaves_a_checkpoint(tmp_path: Path) -> None:
    begun = tmp_path / "metrics.csv"

    def interrupt() -> None:
        while not (begun.exists() and begun.read_text().count("\n") > 2):
            threading.Event().wait(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt, match="can be resumed"):
        ntkrun.train([*WAVE, "iterations=1000000", "trainer.compile=false", f"hydra.run.dir={tmp_path}"])
    thread.join()
    run = ntkrun.load(tmp_path)
    assert run.summary["status"] == "interrupted"
    step = run.summary["step"]
    again = ntkrun.train([f"resume={tmp_path}", f"iterations={step + 2}"])
    assert again.summary["step"] == step + 2


def nested(run: ntkrun.TrainedRun, points: np.ndarray, letters: str) -> torch.Tensor:
    """A derivative of the network's values by nested reverse mode."""
    x = torch.tensor(points, requires_grad=True)
    value = run.network(x)[:, 0]
    for letter in letters:
        (gradient,) = torch.autograd.grad(value.sum(), x, create_graph=True)
        value = gradient[:, run.pde.coordinates.index(letter)]
    return value.detach()


def test_derivatives_are_those_of_nested_autograd(wave: ntkrun.TrainedRun, windows: ntkrun.TrainedRun) -> None:
    names = ["u", "u_x", "u_t", "u_tt", "u_xt", "u_xxx"]
    for run in (wave, windows):
        points = points_of(run)
        values = run.predict(points, derivatives=names)
        for k, name in enumerate(names):
            expected = nested(run, points, name.partition("_")[2])
            np.testing.assert_allclose(values[:, k], expected, rtol=1e-10, atol=1e-10)


def test_arrays_tensors_and_tables_agree(wave: ntkrun.TrainedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    points = points_of(wave, 7)
    expected = wave.predict(points)
    assert isinstance(expected, np.ndarray)
    assert expected.shape == (7, 1)
    tensor = wave.predict(torch.tensor(points))
    assert isinstance(tensor, torch.Tensor)
    assert not tensor.requires_grad
    table = pd.DataFrame({"note": list("abcdefg"), "t": points[:, 1], "x": points[:, 0]}, index=range(10, 17))
    predicted = wave.predict(table, derivatives=["u", "u_x"])
    assert predicted.columns.tolist() == ["u", "u_x"]
    assert predicted.index.tolist() == list(range(10, 17))
    np.testing.assert_array_equal(tensor.numpy(), expected)
    np.testing.assert_allclose(predicted[["u"]].to_numpy(), expected, rtol=1e-11)
    monkeypatch.setattr(trained, "ROWS", 3)
    np.testing.assert_allclose(wave.predict(points), expected, rtol=1e-13)
    assert wave.predict(points[:0]).shape == (0, 1)
    with torch.no_grad():
        np.testing.assert_array_equal(wave.network(torch.tensor(points)).numpy(), expected)


def test_time_windows_are_joined(windows: ntkrun.TrainedRun) -> None:
    """Against what the run itself has written on its grid; on an edge the earlier window counts."""
    with np.load(windows.directory / "solution.npz") as solution:
        axes, expected = [solution["axis_x"], solution["axis_t"]], solution["prediction"]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    np.testing.assert_allclose(windows.predict(grid).reshape(expected.shape), expected, rtol=1e-12)
    edge = np.array([[0.3, 1 / 3], [0.3, np.nextafter(1 / 3, 1)]])
    one, other = windows.predict(edge, derivatives=["u_t"])[:, 0]
    assert one != other


def test_windows_that_are_not_trained_are_refused(windows: ntkrun.TrainedRun) -> None:
    part = ntkrun.TrainedRun(windows.directory, windows.config, windows.pde, windows._networks[:2])
    inside = np.array([[0.5, 0.6]])
    np.testing.assert_array_equal(part.predict(inside), windows.predict(inside))
    with pytest.raises(ValueError, match=r"time windows that are trained: t from 0 to 0\.66"):
        part.predict(np.array([[0.5, 0.7]]))


def test_hard_constraints_hold(tmp_path: Path) -> None:
    run = ntkrun.train([*WAVE, "pde.hard_boundary=true", f"hydra.run.dir={tmp_path}"])
    ends = np.array([[0.0, 0.3], [1.0, 0.8]])
    np.testing.assert_allclose(run.predict(ends, derivatives=["u", "u_t"]), 0, atol=1e-15)
    assert abs(run.predict(np.array([[0.4, 0.8]]))) > 1e-6


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x + np.array([0, 1]), "point 0 has t=.*, outside of the domain: t from 0 to 1"),
        (lambda x: np.where(x == x[3, 0], np.nan, x), "point 3 has x=nan"),
        (lambda x: x[:, :1], r"shape \[5, 1\]; expected \[N, 2\] of x, t"),
        (lambda x: x[0], r"shape \[2\]"),
        (lambda x: pd.DataFrame(x, columns=["x", "y"]), "no column t"),
    ],
)
def test_points_that_do_not_fit(wave: ntkrun.TrainedRun, change: Callable[..., np.ndarray], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        wave.predict(change(points_of(wave, 5)))


def test_bounds_in_single_precision_are_inside(wave: ntkrun.TrainedRun) -> None:
    advection = ntkrun.TrainedRun(wave.directory, wave.config, ntkrun.load(wave.directory).pde, wave._networks)
    advection.pde.domain = ntkrun.Box.of(x=(0.0, 2 * np.pi), t=(0.0, 1.0))
    assert float(np.float32(2 * np.pi)) > 2 * np.pi
    assert np.isfinite(advection.predict(np.array([[2 * np.pi, 1.0]], dtype=np.float32))).all()


@pytest.mark.parametrize("name", ["v", "u_z", "u_xxxxx"])
def test_derivatives_that_do_not_exist(name: str, wave: ntkrun.TrainedRun) -> None:
    with pytest.raises(UnknownDerivativeError, match=name):
        wave.predict(points_of(wave), derivatives=[name])


def test_a_loaded_run_predicts_the_same(wave: ntkrun.TrainedRun) -> None:
    points = points_of(wave)
    np.testing.assert_array_equal(ntkrun.load(wave.directory).predict(points), wave.predict(points))
    best = torch.load(wave.directory / "best.pt", weights_only=True)["network"]
    loaded = ntkrun.load(str(wave.directory), best=True, device="cpu").network.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in best.items())


MODULE = """
from pathlib import Path
import ntkrun.pde
Path("harm").touch()
class Mine(ntkrun.pde.Poisson): pass
"""


def test_foreign_directories_import_nothing_unasked(
    wave: ntkrun.TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("someones_module.py").write_text(MODULE)
    made = ntkrun.train(["pde=poisson", *TINY, "iterations=2", "hydra.run.dir=run"]).directory
    path = made / ".hydra" / "config.yaml"
    path.write_text(path.read_text().replace("ntkrun.pde.Poisson", "someones_module.Mine"))
    with pytest.raises(ntkrun.ConfigError, match="trust=someones_module"):
        ntkrun.load(made)
    assert not Path("harm").exists()
    assert type(ntkrun.load(made, trust="someones_module").pde).__name__ == "Mine"
    assert Path("harm").exists()
    sys.modules.pop("someones_module")


class Harmful:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("harm"),)


@pytest.mark.parametrize("best", [False, True])
def test_pickles_are_not_executed(best: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = ntkrun.train(["pde=poisson", *TINY, "iterations=2", "hydra.run.dir=run"]).directory
    (made / ("best.pt" if best else "checkpoint.pt")).write_bytes(pickle.dumps(Harmful()))
    (made / "checkpoint.previous.pt").unlink(missing_ok=True)
    with pytest.raises(CheckpointError):
        ntkrun.load(made, best=best)
    assert not Path("harm").exists()


def test_a_problem_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own_module.py").write_text(MODULE)
    Path("conf/pde").mkdir(parents=True)
    text = "_target_: own_module.Mine\npoints: {residual: 20, boundary: 10}\nsampling: uniform\n"
    Path("conf/pde/mine.yaml").write_text(text + "resample_every: null\ngrid: 10\n")
    run = ntkrun.train(["pde=mine", *TINY, "iterations=2"], config_dir="conf")
    assert type(run.pde).__name__ == "Mine"
    with pytest.raises(ntkrun.ConfigError, match="no such directory"):
        ntkrun.train(["pde=mine"], config_dir="nowhere")
    sys.modules.pop("own_module")


def test_exact_traces_of_a_loaded_network(wave: ntkrun.TrainedRun) -> None:
    """The objective of a run's problem and network, against a dense Jacobian by autograd."""
    objective = ntkrun.Objective(wave.pde, wave.network)
    points = {term.name: torch.tensor(points_of(wave, 4)) for term in objective.terms}
    batch = objective.batch(points)
    parameters = list(wave.network.parameters())
    for name, trace, rows in zip(objective.names, objective.traces(batch), objective.residuals(batch), strict=True):
        gradients = [torch.autograd.grad(row, parameters, retain_graph=True, allow_unused=True) for row in rows]
        total = sum(float(g.square().sum()) for each in gradients for g in each if g is not None)
        assert float(trace) == pytest.approx(total, rel=1e-10), name
