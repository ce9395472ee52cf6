"""Copies of a run in tracking programs, read back from their stores."""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib import image
from PIL import Image

from ntkrun import train
from ntkrun.loggers import Logger, TensorBoard
from tests.cli.test_resume import assert_same_end, resume, stop_at
from tests.driver import Result, assert_refused, ntkrun

__all__ = ["stop_at"]

SMALL = [
    *("pde=poisson", "network.width=8", "network.depth=2", "pde.grid=10", "iterations=20", "log_every=5"),
    *("evaluate_every=10", "progress=false", "weights=sketched", "weights.sketch_size=4", "weights.update_every=4"),
    *("optimizer=adam", "checkpoint_every=4"),
]


def start(directory: Path, *overrides: str) -> Result:
    return ntkrun(*SMALL, *overrides, f"hydra.run.dir={directory}", cwd=directory.parent)


def metrics(directory: Path) -> pd.DataFrame:
    return pd.read_csv(directory / "metrics.csv").set_index("step").drop(columns="seconds")


def assert_same_numbers(series: Mapping[str, list[tuple[int, float]]], directory: Path) -> None:
    """Every column of metrics.csv, and the traces of the last update before each row."""
    table = metrics(directory)
    for column in table:
        stored, written = sorted(series[str(column)]), table[column].dropna()
        assert [step for step, _ in stored] == written.index.tolist(), column
        assert [value for _, value in stored] == pytest.approx(written.tolist(), rel=1e-6), column
    updates = pd.read_csv(directory / "weights.csv").set_index("step")
    for step, value in series["trace/boundary"]:
        assert value == pytest.approx(updates[updates.index <= step]["trace/boundary"].iloc[-1], rel=1e-6)


# TensorBoard


def scalars(directory: Path) -> tuple[dict[str, list[tuple[int, float]]], Any]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory / "tensorboard"), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    names = events.Tags()["scalars"]
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in names}, events


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run = tmp_path / "run"
    assert start(run, "logger=tensorboard").status == 0
    series, events = scalars(run)
    assert_same_numbers(series, run)
    (text,) = events.Tensors("configuration/text_summary")
    content = text.tensor_proto.string_val[0].decode()
    assert f"run directory: {run}" in content
    assert "    network.width: 8" in content
    shown = events.Images("losses")[0]
    height, width, _ = image.imread(run / "plots" / "losses.png").shape
    assert (shown.height, shown.width) == (height, width)


def test_tensorboard_has_pictures_along_the_run(tmp_path: Path) -> None:
    """Prediction, solution and error before the first step and in the middle, as they were then."""
    pytest.importorskip("tensorboard")
    run = tmp_path / "run"
    assert start(run, "logger=tensorboard", "logger.pictures=2", "plots=false").status == 0
    shown = scalars(run)[1].Images("training/solution")
    assert [each.step for each in shown] == [0, 10]
    first, other = (np.asarray(Image.open(io.BytesIO(each.encoded_image_string)), dtype=int) for each in shown)
    assert first.shape == other.shape == (shown[0].height, shown[0].width, 3)
    assert np.abs(first - other).max() > 100


def test_pictures_are_those_of_their_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    taken: list[tuple[int, Mapping[str, Any]]] = []
    monkeypatch.setattr(TensorBoard, "picture", lambda _, step, solution: taken.append((step, solution)))
    run = train([*SMALL, "logger=tensorboard", "logger.pictures=2", "plots=false"])
    errors = {step: np.linalg.norm(each["error"]) / np.linalg.norm(each["exact"]) for step, each in taken}
    assert errors == pytest.approx(run.metrics.set_index("step")["error/rel_l2"].loc[[0, 10]].to_dict(), rel=1e-6)
    taken.clear()
    train([*SMALL, "logger=several", "logger.names=[tensorboard]", "logger.tensorboard.pictures=0", "plots=false"])
    assert not taken


def test_tensorboard_goes_on(tmp_path: Path, stop_at: Callable[[int], None]) -> None:
    pytest.importorskip("tensorboard")
    run = tmp_path / "run"
    stop_at(13)
    assert start(run, "logger=tensorboard", "plots=false").status == 143
    stop_at(1000)
    assert resume(run).status == 0
    assert_same_numbers(scalars(run)[0], run)


# MLflow


def client(folder: Path) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(f"sqlite:///{folder / 'outputs' / 'mlflow.db'}")


def history(store: Any, run: Any) -> dict[str, list[tuple[int, float]]]:
    names = run.data.metrics
    return {name: [(m.step, m.value) for m in store.get_metric_history(run.info.run_id, name)] for name in names}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_mlflow(tmp_path: Path, stop_at: Callable[[int], None]) -> None:
    """Two runs in one experiment, of which one is interrupted and goes on."""
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    one, other = tmp_path / "one", tmp_path / "other"
    (tmp_path / "outputs").mkdir()
    stop_at(1000)
    assert start(one, "logger=mlflow").status == 0
    stop_at(13)
    assert start(other, "logger=mlflow", "seed=1", "plots=false").status == 143
    store = client(tmp_path)
    (experiment,) = [e for e in store.search_experiments() if e.name == "ntkrun"]
    runs = {run.info.run_name: run for run in store.search_runs([experiment.experiment_id])}
    assert {name: run.info.status for name, run in runs.items()} == {"one": "FINISHED", "other": "KILLED"}
    stop_at(1000)
    assert resume(other).status == 0
    runs = {run.info.run_name: run for run in store.search_runs([experiment.experiment_id])}
    assert {name: run.info.status for name, run in runs.items()} == {"one": "FINISHED", "other": "FINISHED"}
    for directory in (one, other):
        run = runs[directory.name]
        series = history(store, run)
        assert_same_numbers({name: sorted(set(points)) for name, points in series.items()}, directory)
        assert run.data.tags["run_directory"] == directory.as_uri()
    assert runs["one"].data.params["network.width"] == "8"
    assert {runs[name].data.params["seed"] for name in runs} == {"0", "1"}
    artifacts = [a.path for a in store.list_artifacts(runs["one"].info.run_id, "plots")]
    assert "plots/losses.png" in artifacts


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_received_run_does_not_write_into_others(tmp_path: Path, stop_at: Callable[[int], None]) -> None:
    """Not where the name of a run of the store lies in its directory; a copy of a run is one of its own as well."""
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    mine, received = tmp_path / "mine", tmp_path / "received"
    stop_at(1000)
    assert start(mine, "logger=mlflow", "plots=false").status == 0
    stop_at(13)
    assert start(received, "logger=mlflow", "plots=false").status == 143
    store = client(tmp_path)
    name = (mine / "mlflow_run_id").read_text().strip()
    before = history(store, store.get_run(name)), store.get_run(name).info
    shutil.copy(mine / "mlflow_run_id", received)
    stop_at(1000)
    assert resume(received).status == 0
    after = history(store, store.get_run(name)), store.get_run(name).info
    assert after[0] == before[0]
    assert (after[1].status, after[1].end_time) == (before[1].status, before[1].end_time)
    assert "names a run of another directory" in (received / "ntkrun.log").read_text()
    assert store.get_run((received / "mlflow_run_id").read_text().strip()).info.status == "FINISHED"


SEND = """
import sys
from pathlib import Path
from ntkrun.loggers import MLflow

directory = Path(sys.argv[1])
directory.mkdir()
logger = MLflow()
print("ready", flush=True)
sys.stdin.readline()
logger.start(directory, {"seed": 3}, 0)
logger.log(0, {"loss": 1.0})
logger.flush()
"""


def test_runs_that_start_together_without_a_store(tmp_path: Path) -> None:
    """They make it once, and all of them are in it."""
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    program = [sys.executable, "-W", "ignore", "-c", SEND]
    started = [
        subprocess.Popen([*program, str(k)], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for k in range(3)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in started:
        process.communicate(timeout=120)
        assert process.returncode == 0
    store = client(tmp_path)
    (experiment,) = [e for e in store.search_experiments() if e.name == "ntkrun"]
    runs = store.search_runs([experiment.experiment_id])
    assert sorted(run.info.run_name for run in runs) == ["0", "1", "2"]
    assert [run.data.metrics for run in runs] == [{"loss": 1.0}] * 3
    assert sorted(path.name for path in (tmp_path / "outputs").iterdir()) == [".mlflow.db.lock", "mlflow.db"]


def test_a_store_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    from ntkrun.loggers import MLflow

    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr("mlflow.store.db.utils._initialize_tables", _break_off)
        with pytest.raises(ConnectionError, match="broken off"):
            MLflow().start(run, {}, 0)
    assert not (tmp_path / "outputs" / "mlflow.db").exists()
    MLflow().start(run, {}, 0)
    assert len(client(tmp_path).search_experiments()) == 2


def _break_off(engine: Any) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE experiments (id INTEGER)")
    raise ConnectionError("broken off")


# Weights & Biases


def offline_run(folder: Path) -> tuple[dict[str, list[tuple[int, float]]], dict[str, Any]]:
    """The history and the configuration in the only file that W&B has left in a folder."""
    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal.datastore import DataStore

    (path,) = folder.glob("outputs/wandb/offline-run-*/*.wandb")
    series: dict[str, list[tuple[int, float]]] = {}
    config: dict[str, Any] = {}
    store = DataStore()
    store.open_for_scan(str(path))
    while data := store.scan_data():
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        row = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for name in row:
            series.setdefault(name, []).append((row["_step"], row[name]))
    store._fp.close()
    return series, config


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything stays on this machine; a file of settings that came with the working directory is not obeyed."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "own"))
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "settings").write_text("[default]\nmode = online\nbase_url = http://127.0.0.1:9\n")
    run = tmp_path / "run"
    result = start(run, "logger=several", "logger.names=[wandb,tensorboard]", "logger.wandb.project=mine")
    assert result.status == 0, result.stderr
    assert "left alone" not in (run / "ntkrun.log").read_text()
    series, config = offline_run(tmp_path)
    assert_same_numbers(series, run)
    assert config["run_directory"] == run.as_uri()
    assert config["network.width"] == "8"
    assert any("plots/losses" in name for name in series), sorted(series)
    assert any("training/solution" in name for name in series), sorted(series)
    if importlib.util.find_spec("tensorboard"):
        assert_same_numbers(scalars(run)[0], run)


@pytest.mark.parametrize("goes_on", [True, False])
def test_the_identifier_in_wandb(goes_on: bool, tmp_path: Path) -> None:
    """The same where a run goes on in its directory; another one for a copy elsewhere, and where it starts anew."""
    from ntkrun.loggers.wandb import _identifier

    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    first = _identifier(one, False)
    shutil.copytree(one, other)
    assert (_identifier(one, goes_on) == first) is goes_on
    assert _identifier(other, goes_on) != first


def test_a_received_run_is_sent_nowhere_unasked(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    run = tmp_path / "run"
    assert start(run, "plots=false").status == 0
    path = run / ".hydra" / "config.yaml"
    values = yaml.safe_load(path.read_text())
    online = {"_target_": "ntkrun.loggers.WandB", "mode": "online"}
    for node in (online, {"names": ["wandb"], "wandb": online}):
        path.write_text(yaml.safe_dump({**values, "logger": node}))
        result = resume(run)
        assert result.status == 2
        assert "not sent to wandb unasked; if you trust it, add trust=wandb" in result.stderr


# Several


def test_one_that_fails_leaves_the_others_alone(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run = tmp_path / "run"
    broken = ["+logger.broken._target_=tests.loggers.test_loggers.Broken", "+logger.broken.at=10"]
    result = start(run, "plots=false", "logger=several", "logger.names=[broken,tensorboard]", *broken)
    assert result.status == 0, result.stderr
    assert (run / "ntkrun.log").read_text().count("Broken failed and is left alone") == 1
    assert_same_numbers(scalars(run)[0], run)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["logger.names=[tensorboad]"], "logger.names: no logger tensorboad; known are tensorboard, mlflow, wandb"),
        (["logger.names=[mlflow,mlflow]"], "expected a list of different loggers"),
        (["logger.names=mlflow"], "expected a list of different loggers"),
        (["logger.names=[]"], "expected a list of different loggers"),
        (["logger.mlflow.experiment=3"], "logger.mlflow.experiment=3"),
    ],
)
def test_wrong_names_of_loggers(overrides: list[str], words: str, tmp_path: Path) -> None:
    assert_refused(ntkrun("logger=several", *overrides, cwd=tmp_path), tmp_path, words)


# Faults


@dataclass(kw_only=True, eq=False)
class Broken(Logger):
    """Fails at a step."""

    at: int = 10

    def start(self, directory: Path, values: Mapping[str, Any], step: int) -> None:
        if self.at < 0:
            raise ConnectionError("no such server")

    def log(self, step: int, row: Mapping[str, float]) -> None:
        assert all(np.isfinite(list(row.values())))
        if step == self.at:
            raise ConnectionError("the server is gone")

    def finish(self, directory: Path, status: str) -> None:
        raise AssertionError("not to be called any more")


@pytest.mark.parametrize(("at", "message"), [(-1, "no such server"), (10, "the server is gone")])
def test_a_run_does_not_end_for_its_logger(at: int, message: str, tmp_path: Path) -> None:
    plain, run = tmp_path / "plain", tmp_path / "run"
    assert start(plain, "plots=false").status == 0
    assert (
        start(run, "plots=false", "logger._target_=tests.loggers.test_loggers.Broken", f"+logger.at={at}").status == 0
    )
    assert_same_end(plain, run)
    text = (run / "ntkrun.log").read_text()
    assert text.count(f"Broken failed and is left alone from here on: ConnectionError: {message}") == 1


def test_a_server_that_is_not_there_costs_seconds_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    for name in ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    began = time.monotonic()
    run = tmp_path / "run"
    assert start(run, "logger=mlflow", f"logger.tracking_uri=http://127.0.0.1:{port}", "plots=false").status == 0
    assert time.monotonic() - began < 30  # MLflow's own seven retries take two minutes
    warnings = [line for line in (run / "ntkrun.log").read_text().splitlines() if "WARNING" in line]
    assert len(warnings) == 1
    assert "MLflow failed and is left alone from here on: MlflowException: API request to" in warnings[0]
    assert f"127.0.0.1:{port}" in warnings[0]


@pytest.mark.parametrize(
    ("choice", "package"), [("tensorboard", "tensorboard"), ("mlflow", "sqlalchemy"), ("wandb", "wandb")]
)
def test_a_missing_package_is_named(choice: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import util

    find = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name, *a: None if name == package else find(name, *a))
    result = ntkrun(f"logger={choice}", cwd=tmp_path)
    assert_refused(result, tmp_path, f"logger: needs the package {package}: pip install 'ntkrun[{choice}]'")
