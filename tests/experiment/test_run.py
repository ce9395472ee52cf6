import json
import re
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from ntkrun.cli.help import choices
from ntkrun.training.collocation import PointSource
from tests.driver import Result, ntkrun

TERMS = {"poisson": ["residual", "boundary"], "wave": ["residual", "boundary", "initial", "initial_velocity"]}
COUNTS = {
    "poisson": {"residual": 40, "boundary": 2},
    "wave": {"residual": 30, "boundary": 21, "initial": 10, "initial_velocity": 11},
}
SKETCHED = ["weights=sketched", "weights.sketch_size=4"]
DIFFERENCE = ["weights.side=parameter", "weights.distribution=gaussian", "weights.derivative=finite_difference"]
WEIGHTS = {
    "none": (["weights=none"], []),
    "exact": (["weights=exact"], []),
    "sketched": (SKETCHED, ["standard_error"]),
    "difference": ([*SKETCHED, *DIFFERENCE], ["standard_error", "delta"]),
}
SMALL = [
    *("network=mlp", "network.width=8", "network.depth=2", "network.activation=tanh"),
    *("network.initialization=glorot_normal", "iterations=20", "log_every=5", "evaluate_every=5"),
    "pde.grid=30",
    *("optimizer=adam", "optimizer.learning_rate=1e-3", "schedule=exponential"),
]
PLOTTED = {"poisson-exact", "wave-sketched"}


def strict_json(path: Path) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{path.name} contains {constant}, which is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def columns(kind: str, terms: list[str]) -> list[str]:
    return [f"{kind}/{term}" for term in terms]


@dataclass(frozen=True)
class Case:
    name: str
    terms: list[str]
    counts: dict[str, int]
    extras: list[str]
    result: Result
    directory: Path

    @property
    def metrics(self) -> pd.DataFrame:
        return pd.read_csv(self.directory / "metrics.csv")

    @property
    def weights(self) -> pd.DataFrame:
        return pd.read_csv(self.directory / "weights.csv")


@pytest.fixture(scope="module", params=[f"{pde}-{weights}" for pde in TERMS for weights in WEIGHTS])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    name: str = request.param
    pde, weights = name.split("-")
    overrides, extras = WEIGHTS[weights]
    points = [f"pde.points.{term}={count}" for term, count in COUNTS[pde].items()]
    update = [] if weights == "none" else ["weights.update_every=7"]
    plots = f"plots={str(name in PLOTTED).lower()}"
    cwd = tmp_path_factory.mktemp(name)
    result = ntkrun(f"pde={pde}", *overrides, *update, *points, *SMALL, plots, cwd=cwd)
    assert result.status == 0, result.stderr
    return Case(name, TERMS[pde], COUNTS[pde], extras, result, result.directory)


def test_the_last_line_is_the_run_directory(case: Case) -> None:
    assert case.directory.is_absolute()
    assert case.directory.is_dir()
    name = case.name.replace("difference", "sketched")
    assert re.fullmatch(rf"\d\d-\d\d-\d\d-{name}-[0-9a-f]{{8}}", case.directory.name)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", case.directory.parent.name)
    assert case.directory.parent.parent.name == "outputs"


def test_the_directory_is_complete(case: Case) -> None:
    expected = {".hydra", "ntkrun.log", "metrics.csv", "weights.csv", "summary.json", "points.npz", "solution.npz"}
    expected |= {"best.pt", "residuals.npz", ".lock"}
    expected |= {"checkpoint.pt"} | ({"plots"} if case.name in PLOTTED else set())
    assert {path.name for path in case.directory.iterdir()} == expected
    assert OmegaConf.load(case.directory / ".hydra" / "config.yaml").iterations == 20
    assert "iterations=20" in OmegaConf.load(case.directory / ".hydra" / "overrides.yaml")
    log = (case.directory / "ntkrun.log").read_text()
    assert "step 0 of 20" in log
    assert "step 20 of 20" in log


def test_metrics_have_a_row_every_log_every_steps_and_one_at_the_end(case: Case) -> None:
    metrics = case.metrics
    named = [*columns("loss", case.terms), *columns("weight", case.terms)]
    assert list(metrics.columns) == ["step", "seconds", "loss", *named, "error/rel_l2", "lr"]
    assert metrics["step"].tolist() == [0, 5, 10, 15, 20]
    assert np.isfinite(metrics.to_numpy()).all()
    assert metrics["seconds"].is_monotonic_increasing
    assert metrics["lr"].tolist() == pytest.approx([1e-3 * 0.9 ** (step / 1000) for step in metrics["step"]])


@pytest.mark.parametrize(
    ("log_every", "evaluate_every", "evaluated"),
    [(4, 8, [0, 8, 16, 20]), (4, 6, [0, 8, 12, 20]), (6, 4, [0, 6, 12, 18, 20]), (5, 1000, [0, 20])],
)
def test_rows_have_an_error_every_evaluate_every_steps(
    log_every: int, evaluate_every: int, evaluated: list[int], tmp_path: Path
) -> None:
    """In the first row from a multiple of it on, and in the last row."""
    changes = [f"log_every={log_every}", f"evaluate_every={evaluate_every}"]
    small = [option for option in SMALL if not option.startswith(("log_every", "evaluate_every"))]
    directory = ntkrun("pde=poisson", *small, *changes, cwd=tmp_path).directory
    metrics = pd.read_csv(directory / "metrics.csv")
    assert metrics["step"].tolist() == sorted({*range(0, 20, log_every), 20})
    errors = metrics.set_index("step")["error/rel_l2"].dropna()
    assert errors.index.tolist() == evaluated
    found = json.loads((directory / "summary.json").read_text())["rel_l2"]
    assert (found["final_step"], found["best_step"]) == (20, errors.idxmin())


def test_loss_is_the_weighted_sum_of_its_row(case: Case) -> None:
    metrics = case.metrics
    products = metrics[columns("loss", case.terms)].to_numpy() * metrics[columns("weight", case.terms)].to_numpy()
    assert metrics["loss"].to_numpy() == pytest.approx(products.sum(axis=1), rel=1e-7)


def test_weights_have_a_row_per_update(case: Case) -> None:
    weights = case.weights
    kinds = ["weight"] if case.name.endswith("none") else ["weight", "trace", *case.extras]
    named = [name for kind in kinds for name in columns(kind, case.terms)]
    assert list(weights.columns) == ["step", "seconds", "update_seconds", *named]
    assert weights["step"].tolist() == ([] if case.name.endswith("none") else [0, 7, 14])
    assert np.isfinite(weights.to_numpy(float)).all()


def test_weights_in_both_tables_agree(case: Case) -> None:
    names = columns("weight", case.terms)
    metrics, updates = case.metrics.set_index("step"), case.weights.set_index("step")
    for step in metrics.index.tolist():
        before = updates[updates.index <= step]
        expected = before[names].iloc[-1].tolist() if len(before) else [1.0] * len(names)
        assert metrics.loc[step, names].tolist() == expected


def test_summary(case: Case) -> None:
    summary, metrics = strict_json(case.directory / "summary.json"), case.metrics
    assert set(summary) == {
        *("status", "message", "step", "iterations", "rel_l2", "seconds", "weight_updates", "parameters"),
        *("kernel_route", "weights", "configuration", "seed", "threads", "device", "dtype", "versions", "git_commit"),
        "processes",
    }
    assert (summary["status"], summary["message"]) == ("completed", "")
    assert (summary["step"], summary["iterations"], summary["seed"]) == (20, 20, 0)
    assert summary["weight_updates"] == len(case.weights)
    assert list(summary["weights"].values()) == pytest.approx(metrics[columns("weight", case.terms)].iloc[-1].tolist())
    error = metrics["error/rel_l2"]
    assert summary["rel_l2"] == pytest.approx(
        {
            "final": error.iloc[-1],
            "final_step": 20,
            "best": error.min(),
            "best_step": metrics["step"][error.idxmin()],
        }
    )
    phases = {"compilation", "training", "weight_updates", "diagnostics", "evaluation", "logging", "saving"}
    assert set(summary["seconds"]) == {*phases, "total"}
    assert summary["seconds"]["total"] == pytest.approx(sum(summary["seconds"][phase] for phase in phases))
    assert set(summary["versions"]) == {"ntkrun", "python", "torch", "numpy", "hydra-core", "omegaconf"}


def test_points_are_where_their_terms_live(case: Case) -> None:
    with np.load(case.directory / "points.npz") as file:
        points = dict(file)
    dimensions = 2 if case.name.startswith("wave") else 1
    assert {name: x.shape for name, x in points.items()} == {n: (c, dimensions) for n, c in case.counts.items()}
    for x in points.values():
        assert ((x >= 0) & (x <= 1)).all()
    assert set(points["boundary"][:, 0]) == {0.0, 1.0}
    for name in case.terms[2:]:
        assert (points[name][:, 1] == 0).all()


def test_solution_has_the_error_of_the_last_row(case: Case) -> None:
    with np.load(case.directory / "solution.npz") as file:
        solution = dict(file)
    axes = ["axis_x", "axis_t"] if case.name.startswith("wave") else ["axis_x"]
    assert list(solution) == [*axes, "fields", "prediction", "exact", "error"]
    for axis in axes:
        assert solution[axis] == pytest.approx(np.linspace(0, 1, 30))
    x, t = np.meshgrid(solution["axis_x"], solution.get("axis_t", [0.0]), indexing="ij")
    if "axis_t" in solution:
        mode = [np.sin(k * np.pi * x) * np.cos(2 * k * np.pi * t) for k in (1, 4)]
        expected = (mode[0] + 0.5 * mode[1])[..., None]
    else:
        expected = np.sin(4 * np.pi * x)
    assert solution["exact"] == pytest.approx(expected, abs=1e-12)
    assert solution["prediction"].shape == solution["exact"].shape
    assert (solution["error"] == solution["prediction"] - solution["exact"]).all()
    relative = np.linalg.norm(solution["error"]) / np.linalg.norm(solution["exact"])
    assert relative == pytest.approx(case.metrics["error/rel_l2"].iloc[-1], rel=1e-8)


def test_the_checkpoint_is_plain_data(case: Case) -> None:
    state = torch.load(case.directory / "checkpoint.pt", weights_only=True)
    assert state["progress"]["step"] == 20
    assert all(torch.isfinite(value).all() for value in state["network"].values())
    parameters = sum(value.numel() for name, value in state["network"].items() if name.startswith("layers."))
    assert parameters == strict_json(case.directory / "summary.json")["parameters"]


def test_plots_are_drawn(case: Case) -> None:
    plots = case.directory / "plots"
    if case.name not in PLOTTED:
        assert not plots.exists()
        return
    magic = {"png": b"\x89PNG", "pdf": b"%PDF"}
    figures = ["losses", "weights", "error", "solution", "residuals"]
    figures += ["profiles"] if case.name.startswith("wave") else []
    names = {f"{name}.{suffix}" for name in figures for suffix in magic}
    assert {path.name for path in plots.iterdir()} == names
    for path in plots.iterdir():
        content = path.read_bytes()
        assert content.startswith(magic[path.suffix[1:]])
        assert len(content) > 5000


# Directories


def test_runs_of_the_same_second_have_directories_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Noon(datetime):
        @classmethod
        def now(cls, tz: object = None) -> "Noon":
            return cls(2026, 1, 31, 12)

    monkeypatch.setattr("hydra.core.utils.datetime", Noon)
    runs = [ntkrun(*SMALL, "plots=false", cwd=tmp_path) for _ in range(2)]
    first, second = (run.directory for run in runs)
    assert first != second
    assert first.name.startswith("12-00-00-poisson-exact-")
    assert first.parent == second.parent
    assert [len(list(directory.iterdir())) for directory in (first, second)] == [11, 11]


def test_a_sweep_makes_one_directory_per_combination(tmp_path: Path) -> None:
    result = ntkrun("-m", *SMALL, "weights=none,exact", "seed=0,1", "plots=false", "report=false", cwd=tmp_path)
    assert result.status == 0
    directories = sorted(path.parent for path in tmp_path.rglob("summary.json"))
    assert [directory.name for directory in directories] == ["0", "1", "2", "3"]
    assert [strict_json(directory / "summary.json")["seed"] for directory in directories] == [0, 1, 0, 1]
    assert result.directory == directories[-1].parent


def test_equal_seeds_give_equal_runs_and_others_do_not(tmp_path: Path) -> None:
    tables = []
    for seed in (3, 3, 4):
        run = ntkrun(*SMALL, "pde.sampling=uniform", *SKETCHED, f"seed={seed}", "plots=false", cwd=tmp_path)
        tables.append(pd.read_csv(run.directory / "metrics.csv").drop(columns="seconds"))
    assert tables[0].equals(tables[1])
    assert not tables[0].equals(tables[2])


# Failure

HUGE_STEPS = ["optimizer=gradient_descent", "optimizer.learning_rate=1e20", "checkpoint_every=1"]


@pytest.mark.parametrize(
    ("overrides", "term"),
    [
        (["weights=none", "plots=false"], "boundary"),
        (["weights=exact", "weights.update_every=1"], "boundary"),
        (["weights=exact", "weights.update_every=1", "network.activation=sin"], "residual"),
        (["pde=wave", "weights=none"], "boundary"),
    ],
    ids=["loss", "capped-trace", "trace", "wave"],
)
def test_divergence_is_reported_and_the_checkpoint_stays_finite(
    overrides: list[str], term: str, tmp_path: Path
) -> None:
    result = ntkrun(*SMALL, *HUGE_STEPS, *overrides, cwd=tmp_path)
    directory = result.directory
    assert result.status == 1
    assert "Traceback" not in result.stderr
    summary = strict_json(directory / "summary.json")
    assert summary["status"] == "failed"
    assert re.search(rf"step 1\b.* term {term}\b.*not finite", summary["message"])
    assert summary["message"] in (directory / "ntkrun.log").read_text()
    assert summary["message"] in result.stdout
    state = torch.load(directory / "checkpoint.pt", weights_only=True)
    assert state["progress"]["step"] == 1
    assert all(torch.isfinite(value).all() for value in state["network"].values())
    assert pd.read_csv(directory / "metrics.csv")["step"].tolist() == [0]


def test_parameters_that_overflow_at_once_are_a_divergence(tmp_path: Path) -> None:
    result = ntkrun(*SMALL, *HUGE_STEPS, "optimizer.learning_rate=1e38", "weights=none", "plots=false", cwd=tmp_path)
    assert result.status == 1
    summary = strict_json(result.directory / "summary.json")
    assert summary["status"] == "failed"
    assert re.search(r"step 1\b.*not finite", summary["message"])
    assert not (result.directory / "checkpoint.pt").exists()


class AccidentError(Exception):
    pass


@pytest.mark.parametrize("plots", ["true", "false"], ids=["plots", "no-plots"])
@pytest.mark.parametrize(
    ("step", "rows", "updates"), [(0, [], []), (13, [0, 5, 10], [0, 3, 6, 9])], ids=["at-once", "later"]
)
def test_an_unexpected_error_leaves_the_rows_so_far(
    step: int, rows: list[int], updates: list[int], plots: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points_at = PointSource.at

    def fail(self: PointSource, at: int, *weights: Tensor, **how: bool) -> object:
        if at == step:
            raise AccidentError("the disk fell off")
        return points_at(self, at, *weights, **how)

    monkeypatch.setattr(PointSource, "at", fail)
    directory = tmp_path / "run"
    result = ntkrun(*SMALL, "weights.update_every=3", f"plots={plots}", f"hydra.run.dir={directory}", cwd=tmp_path)
    assert result.status == 1
    assert result.stderr.count("AccidentError: the disk fell off") == 1
    summary = strict_json(directory / "summary.json")
    place = f"({Path(__file__)}:{fail.__code__.co_firstlineno + 2})"
    assert (summary["status"], summary["message"]) == ("failed", f"AccidentError: the disk fell off {place}")
    assert summary["step"] == step
    assert pd.read_csv(directory / "metrics.csv")["step"].tolist() == rows
    # Updates are written when the losses of their steps are checked, at the latest with the next row.
    assert pd.read_csv(directory / "weights.csv")["step"].tolist() == updates
    assert "AccidentError: the disk fell off" in (directory / "ntkrun.log").read_text()
    assert not list(directory.glob(".*.tmp"))


def test_no_steps_at_all(tmp_path: Path) -> None:
    result = ntkrun("iterations=0", "pde.grid=30", cwd=tmp_path)
    assert result.status == 0
    assert pd.read_csv(result.directory / "metrics.csv")["step"].tolist() == [0]
    assert len(list((result.directory / "plots").iterdir())) == 10


def test_kernel_routes_give_the_same_weights(tmp_path: Path) -> None:
    weights = []
    for route in ("structured", "per_point", "dense"):
        result = ntkrun(
            *("pde=poisson", "weights.update_every=5", "dtype=float64", f"kernel.route={route}", "plots=false", *SMALL),
            *("optimizer=gradient_descent", "optimizer.learning_rate=1e-7"),
            cwd=tmp_path,
        )
        assert result.status == 0
        assert f"kernel route: {route}" in (result.directory / "ntkrun.log").read_text()
        table = pd.read_csv(result.directory / "weights.csv")
        weights.append(table[["weight/residual", "weight/boundary"]].to_numpy())
    np.testing.assert_allclose(weights[1], weights[0], rtol=1e-9)
    np.testing.assert_allclose(weights[2], weights[0], rtol=1e-9)


def test_rows_may_be_rarer_than_checks(tmp_path: Path) -> None:
    """A huge log_every neither takes memory nor delays the discovery of a divergence."""
    result = ntkrun(
        *("pde=poisson", *SMALL, "log_every=1000000000", "iterations=1500", "plots=false"),
        *("optimizer=gradient_descent", "optimizer.learning_rate=1e3"),
        cwd=tmp_path,
    )
    assert result.status == 1
    assert re.search(r"step \d+: the loss of term", result.stderr)


@pytest.mark.parametrize(
    "network", [pytest.param(name, marks=[pytest.mark.long] * (name != "mlp")) for name in choices("network")]
)
def test_a_default_run_does_without_torchs_compiler(network: str, tmp_path: Path) -> None:
    """Loading it takes seconds, as long as some problems take to be solved."""
    program = (
        "import sys\nfrom ntkrun.cli.main import main\n"
        "try:\n    main()\nfinally:\n    assert 'torch._dynamo' not in sys.modules"
    )
    arguments = ["pde=poisson", f"network={network}", "iterations=1", "plots=false", "progress=false", "pde.grid=10"]
    done = subprocess.run([sys.executable, "-c", program, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
