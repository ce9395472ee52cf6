"""Copies for MLflow."""

from __future__ import annotations

import importlib.util
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from ntkrun.loggers.base import Logger, flatten
from ntkrun.storage.atomic import write_text_atomically
from ntkrun.storage.reader import UnreadableError, read_text

log = logging.getLogger(__name__)

RUN_ID = "mlflow_run_id"
TAG = "run_directory"
SQLITE = "sqlite:///"
PATIENCE_WITH_STORE = 120  # seconds, while another process makes the store
STATUS = {"completed": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
LIMITS = {"params": 100, "metrics": 1000}  # of one request
LENGTH = 500  # of a parameter's text
PATIENCE = {  # with a server that does not answer, unless the user says otherwise; MLflow's own is minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
}


@dataclass(kw_only=True, eq=False)
class MLflow(Logger):
    """Metrics, parameters and figures in an MLflow store, by MLflow's own client.

    The run has the name of the run directory and a link to it in the tag ``run_directory``; a resumed run goes
    on in the same MLflow run.

    Args:
        tracking_uri: of the store; by default an SQLite file, with the figures beside it. Look at it with
            ``mlflow ui --backend-store-uri sqlite:///outputs/mlflow.db``.
        experiment: the name under which runs are gathered.
    """

    tracking_uri: str = "sqlite:///outputs/mlflow.db"
    experiment: str = "ntkrun"

    def check(self) -> None:
        for package in ("mlflow", "sqlalchemy"):
            if importlib.util.find_spec(package) is None:
                raise ValueError(f"needs the package {package}: pip install 'ntkrun[mlflow]'")

    def addresses(self) -> list[str]:
        return [] if self.tracking_uri == MLflow.tracking_uri else [self.tracking_uri]

    def start(self, directory: Path, values: Mapping[str, Any], step: int) -> None:
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        from mlflow.tracking import MlflowClient

        address = self.tracking_uri
        if address.startswith(SQLITE):
            path = Path(address.removeprefix(SQLITE)).absolute()  # MLflow keeps connections by their address
            address = f"{SQLITE}{path}"
            _make_store(path)
        self._client = MlflowClient(address)
        self._waiting: list[Any] = []
        known = self._known(directory) if step else None
        if known is not None:
            self._run = known
            self._client.set_terminated(self._run, "RUNNING")
            return
        tags = {TAG: directory.resolve().as_uri()}
        run = self._client.create_run(self._experiment(), run_name=directory.name, tags=tags)
        self._run = run.info.run_id
        write_text_atomically(directory / RUN_ID, self._run + "\n")
        self._send("params", [_parameter(key, text) for key, text in flatten(values)])

    def log(self, step: int, row: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self._waiting += [Metric(name, value, now, step) for name, value in row.items()]

    def flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._send("metrics", waiting)

    def finish(self, directory: Path, status: str) -> None:
        self.flush()
        for path in sorted((directory / "plots").glob("*.png")):
            self._client.log_artifact(self._run, str(path), "plots")
        self._client.log_artifact(self._run, str(directory / "summary.json"))
        self._client.set_terminated(self._run, STATUS[status])

    def _known(self, directory: Path) -> str | None:
        """The MLflow run of this very directory, where the store has it.

        The file alone is not enough: it may have come from someone else, and name any run of the store.
        """
        from mlflow.exceptions import MlflowException

        try:
            name = read_text(directory / RUN_ID).strip()
            found = self._client.get_run(name)
        except (UnreadableError, MlflowException):
            return None
        if found.data.tags.get(TAG) == directory.resolve().as_uri():
            return name
        log.warning("%s names a run of another directory; a new one is begun in MLflow", RUN_ID)
        return None

    def _experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        known = self._client.get_experiment_by_name(self.experiment)
        if known is None:
            place = self.tracking_uri.removeprefix(SQLITE)
            beside = None if place == self.tracking_uri else Path(place).resolve().with_suffix("").as_uri()
            try:
                return str(self._client.create_experiment(self.experiment, artifact_location=beside))
            except MlflowException:  # a job beside this one was faster
                known = self._client.get_experiment_by_name(self.experiment)
                if known is None:
                    raise
        return str(known.experiment_id)

    def _send(self, kind: str, items: list[Any]) -> None:
        for start in range(0, len(items), LIMITS[kind]):
            batch: dict[str, Any] = {kind: items[start : start + LIMITS[kind]]}
            self._client.log_batch(self._run, **batch)


def _make_store(path: Path) -> None:
    """Make an SQLite store where there is none, for one of several runs that start together.

    MLflow makes it in many steps. They happen in a file of another name, which gets its own when it is whole.
    """
    if path.exists() and path.stat().st_size:
        return
    from mlflow.tracking import MlflowClient

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock"), timeout=PATIENCE_WITH_STORE):
        if path.exists() and path.stat().st_size:
            return
        for left in path.parent.glob(f".{path.name}.*.tmp"):  # by killed processes, for here is one at a time
            left.unlink()
        temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")
        try:
            MlflowClient(f"{SQLITE}{temporary}").search_experiments()
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _parameter(key: str, text: str) -> Any:
    from mlflow.entities import Param

    return Param(key, text[:LENGTH])
