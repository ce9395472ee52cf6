from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from ntkrun.training.collocation import PointSource
from tests.driver import Result, assert_refused, ntkrun

SMALL = [
    *("optimizer=adam", "network.width=8", "network.depth=2", "pde.grid=10", "log_every=5", "progress=false"),
    "schedule=constant",
]
COUNTS = {"residual": 30, "boundary": 21, "initial": 10, "initial_velocity": 11}
WAVE = ["pde=wave", "pde.resample_every=1", *(f"pde.points.{term}={n}" for term, n in COUNTS.items())]
SPECTRUM = ["diagnostics=spectrum", "diagnostics.steps=[2,5,13,21]"]
KINDS = ("eigenvalues", "kernel_drift", "effective_rank", "condition_number")
ALWAYS = ("losses", "weights", "error", "solution", "residuals")
FIGURES = {f"{name}.{suffix}" for name in ALWAYS for suffix in ("png", "pdf")}


def start(directory: Path, *overrides: str) -> Result:
    return ntkrun(*SMALL, *overrides, f"hydra.run.dir={directory}", cwd=directory.parent)


def spectrum(directory: Path) -> dict[str, NDArray[Any]]:
    with np.load(directory / "spectrum.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("spectrum") / "run"
    result = start(directory, *WAVE, *SPECTRUM, "diagnostics.points=20", "iterations=30", "weights.update_every=1")
    assert result.status == 0, result.stderr
    return directory


def test_arrays(run: Path) -> None:
    arrays = spectrum(run)
    names = ["", *(f"/{term}" for term in COUNTS)]
    kinds = (*KINDS, "method")
    assert set(arrays) == {"steps", "parameter_drift", *(kind + name for kind in kinds for name in names)}
    assert arrays["steps"].tolist() == [0, 2, 5, 13, 21, 30]
    rows = {name: min(COUNTS[name[1:]], 20) for name in names[1:]}
    rows[""] = sum(rows.values())
    for name in names:
        values = arrays[f"eigenvalues{name}"]
        assert values.shape == (6, rows[name])
        assert values.dtype == np.float64
        assert (np.diff(values, axis=1) <= 0).all()
        assert (values >= -1e-13 * values[:, :1]).all()
        ranks = arrays[f"effective_rank{name}"]
        assert ((ranks > 1) & (ranks < rows[name])).all()
        assert (arrays[f"condition_number{name}"] > 1e3).all()
    for name in ("parameter_drift", *(f"kernel_drift{name}" for name in names)):
        assert arrays[name].shape == (6,)
        assert arrays[name][0] == 0
        assert (arrays[name][1:] > 0).all()
    traces = [arrays[f"eigenvalues{name}"].sum(axis=1) for name in names]
    assert traces[0] == pytest.approx(sum(traces[1:]), rel=1e-12)


def test_figures(run: Path) -> None:
    plots = {path.name: path for path in (run / "plots").iterdir()}
    own = {f"{name}.{suffix}" for name in ("eigenvalues", "drift", "profiles") for suffix in ("png", "pdf")}
    assert set(plots) == FIGURES | own
    assert all(plots[name].stat().st_size > 5000 for name in own)


def test_the_run_is_the_same_as_without(run: Path, tmp_path: Path) -> None:
    assert start(tmp_path / "run", *WAVE, "iterations=30", "weights.update_every=1", "plots=false").status == 0
    assert not (tmp_path / "run" / "spectrum.npz").exists()
    tables = [pd.read_csv(directory / "metrics.csv").drop(columns="seconds") for directory in (run, tmp_path / "run")]
    assert tables[0].equals(tables[1])


def test_traces_are_those_of_the_weights(tmp_path: Path) -> None:
    overrides = [*WAVE, "pde.resample_every=null", "weights.update_every=5", "iterations=6", "plots=false"]
    assert start(tmp_path / "run", *overrides, *SPECTRUM, "diagnostics.points=null").status == 0
    arrays = spectrum(tmp_path / "run")
    assert arrays["steps"].tolist() == [0, 2, 5, 6]
    updates = pd.read_csv(tmp_path / "run" / "weights.csv")
    for term, n in COUNTS.items():
        values = arrays[f"eigenvalues/{term}"]
        assert values.shape == (4, n)
        assert values.sum(axis=1)[[0, 2]] == pytest.approx(updates[f"trace/{term}"].to_numpy(), rel=1e-4)
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    now = torch.cat([p.flatten() for name, p in state["network"].items() if name.startswith("layers.")]).double()
    first = state["diagnostics"]["first_parameters"]
    moved = (now - first).norm() / first.norm()
    assert arrays["parameter_drift"][-1] == pytest.approx(moved.item(), rel=1e-12)


def test_an_untrained_network(tmp_path: Path) -> None:
    assert start(tmp_path / "run", "diagnostics=spectrum", "iterations=0").status == 0
    arrays = spectrum(tmp_path / "run")
    assert arrays["steps"].tolist() == [0]
    assert arrays["eigenvalues"].shape == (1, 102)
    assert arrays["parameter_drift"].tolist() == [0]
    names = {path.name for path in (tmp_path / "run" / "plots").iterdir()}
    assert names == FIGURES | {"eigenvalues.png", "eigenvalues.pdf"}


# Kernels that are not formed

LARGE = ["diagnostics.points=20", "diagnostics.dense_rows=15", "diagnostics.leading=8"]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("spectrum") / "large"
    result = start(directory, *WAVE, *SPECTRUM, *LARGE, "iterations=30", "weights.update_every=1")
    assert result.status == 0, result.stderr
    return directory


def test_leading_eigenvalues_beside_all(run: Path, large: Path) -> None:
    ours, exact = spectrum(large), spectrum(run)
    assert (ours["parameter_drift"] == exact["parameter_drift"]).all()
    for name in ("", *(f"/{term}" for term in COUNTS)):
        values, truth = ours[f"eigenvalues{name}"], exact[f"eigenvalues{name}"]
        if name in ("/initial", "/initial_velocity"):  # 10 and 11 rows
            assert ours[f"method{name}"] == "dense"
            assert values == pytest.approx(truth, rel=1e-9, abs=1e-12 * truth.max())
            continue
        assert ours[f"method{name}"] == "nystrom"
        assert values.shape == (6, 8)
        scale = 1e-12 * truth[:, :1]
        assert (values <= truth[:, :8] + scale).all()
        nearest = np.abs(values[:, :, None] - truth[:, None]).min(axis=2)
        assert (nearest <= ours[f"eigenvalue_errors{name}"] + scale).all()
        assert values == pytest.approx(truth[:, :8], rel=0.02)
        total, missing = truth.sum(axis=1), ours[f"missing{name}"]
        assert values.sum(axis=1) + missing == pytest.approx(total, rel=1e-9)
        assert (missing < 0.02 * total).all()
        rank, true_rank = ours[f"effective_rank{name}"], exact[f"effective_rank{name}"]
        assert (rank <= true_rank * 1.001).all()
        assert rank == pytest.approx(true_rank, rel=0.05)
        assert ours[f"kernel_drift{name}"] == pytest.approx(exact[f"kernel_drift{name}"], rel=0.02)
        assert ours[f"kernel_drift{name}"][0] == 0
        assert np.isnan(ours[f"condition_number{name}"]).all()
    assert (large / "plots" / "eigenvalues.png").exists()


def test_a_run_without_formed_kernels_is_resumed(large: Path, tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    overrides = [*WAVE, *SPECTRUM, *LARGE, "weights.update_every=1", "plots=false"]
    assert start(parts, *overrides, "iterations=5").status == 0
    assert ntkrun(f"resume={parts}", "iterations=30", cwd=tmp_path).status == 0
    assert_same_spectrum(large, parts)


# Resuming


def assert_same_spectrum(one: Path, other: Path) -> None:
    a, b = spectrum(one), spectrum(other)
    assert a.keys() == b.keys()
    for name, values in a.items():
        assert np.array_equal(values, b[name], equal_nan=values.dtype.kind == "f"), name


class AccidentError(Exception):
    pass


@pytest.mark.parametrize("stop", [3, 13, 14])
def test_a_resumed_run_ends_with_the_same_spectra(
    stop: int, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points_at = PointSource.at

    def fail(self: PointSource, at: int, *weights: Tensor, **how: bool) -> object:
        if at == stop:
            raise AccidentError
        return points_at(self, at, *weights, **how)

    parts = tmp_path / "parts"
    overrides = [*WAVE, *SPECTRUM, "diagnostics.points=20", "iterations=30", "weights.update_every=1"]
    with monkeypatch.context() as patch:
        patch.setattr(PointSource, "at", fail)
        failed = start(parts, *overrides, "plots=false", "checkpoint_every=2")
    assert failed.status == 1
    assert "AccidentError" in failed.stderr
    assert spectrum(parts)["steps"].tolist() == [step for step in (0, 2, 5, 13) if step < stop]
    assert ntkrun(f"resume={parts}", cwd=tmp_path).status == 0
    assert_same_spectrum(run, parts)


@pytest.mark.parametrize("end", [5, 11])
def test_a_run_can_be_made_longer(end: int, run: Path, tmp_path: Path) -> None:
    """The end of the first part is not observed in one run unless it was asked for."""
    parts = tmp_path / "parts"
    overrides = [*WAVE, *SPECTRUM, "diagnostics.points=20", "weights.update_every=1", "plots=false"]
    assert start(parts, *overrides, f"iterations={end}").status == 0
    assert spectrum(parts)["steps"][-1] == end
    assert ntkrun(f"resume={parts}", "iterations=30", cwd=tmp_path).status == 0
    assert_same_spectrum(run, parts)


# Failure


def test_divergence_is_still_reported_as_such(tmp_path: Path) -> None:
    huge = ["optimizer=gradient_descent", "optimizer.learning_rate=1e30", "iterations=20", "weights=none"]
    result = start(tmp_path / "run", *huge, *SPECTRUM)
    assert result.status == 1
    assert "Traceback" not in result.stderr
    assert "not finite" in result.stdout
    arrays = spectrum(tmp_path / "run")
    assert arrays["steps"].tolist() == [0]  # the loss of step 1 is not finite, which ends the run there
    assert np.isfinite(arrays["eigenvalues"]).all()
    assert (tmp_path / "run" / "plots" / "eigenvalues.png").exists()
    assert not (tmp_path / "run" / "plots" / "drift.png").exists()


@pytest.mark.parametrize(
    ("line", "words"),
    {
        "diagnostics=spectrm": ("diagnostics=spectrm", "none, spectrum", "did you mean spectrum?"),
        "diagnostics=spectrum diagnostics.points=0": ("diagnostics.points=0", "greater than 0"),
        "diagnostics=spectrum diagnostics.points=all": ("diagnostics.points=all", "integer"),
        "diagnostics=spectrum diagnostics.steps=3": ("diagnostics.steps=3", "list"),
        "diagnostics=spectrum diagnostics.steps=[-1]": ("diagnostics.steps=[-1]", "greater than or equal to 0"),
        "diagnostics=spectrum diagnostics.step=[1]": ("diagnostics.step", "did you mean diagnostics.steps?"),
        "diagnostics=null": ("diagnostics=null", "none, spectrum"),
    }.items(),
)
def test_wrong_input_is_refused(line: str, words: tuple[str, ...], tmp_path: Path) -> None:
    assert_refused(ntkrun(*line.split(), cwd=tmp_path), tmp_path, *words)
