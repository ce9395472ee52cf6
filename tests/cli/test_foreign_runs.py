"""Runs received from someone else: resuming one executes nothing, writes to nothing and speaks with nobody unasked."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from tests.driver import Result, ntkrun

SMALL = ["optimizer=adam", "network.width=4", "network.depth=1", "pde.grid=6", "iterations=2", "plots=false"]
MODULE = """
from pathlib import Path

from ntkrun.pde import Poisson

Path("harm").touch()


class Mine(Poisson):
    pass
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    result = ntkrun(*SMALL, f"hydra.run.dir={folder / 'run'}", cwd=folder)
    assert result.status == 0, result.stderr
    return folder / "run"


@pytest.fixture
def received(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "received"))


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Modules that a test has imported."""
    yield
    sys.modules.pop("evil_module", None)


def rewrite(run: Path, change: Callable[[dict[str, Any]], object], file: str = "config.yaml") -> None:
    path = run / ".hydra" / file
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(yaml.safe_dump(values), encoding="utf-8")


def resume(run: Path, *more: str, cwd: Path | None = None) -> Result:
    return ntkrun(f"resume={run}", *more, cwd=cwd or run.parent)


def assert_refused(result: Result, *words: str) -> None:
    assert (result.status, result.stdout, result.stderr.count("\n")) == (2, "", 1), result.stderr
    for word in words:
        assert word in result.stderr


TARGETS = ["os.system", "posix.system", "builtins.exec", "subprocess.Popen", "antigravity.x", "evil_module.Mine", "..x"]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("group", ["pde", "network", "weights", "logger", "schedule"])
def test_other_modules_are_not_imported(group: str, target: str, received: Path) -> None:
    (received.parent / "evil_module.py").write_text(MODULE, encoding="utf-8")
    rewrite(received, lambda values: values[group].update(_target_=target, command="touch harm"))
    assert_refused(resume(received), f"{group}._target_={target}")
    assert not (received.parent / "harm").exists()


def test_a_target_hidden_deeper_is_seen(received: Path) -> None:
    rewrite(received, lambda values: values["weights"].update(floor=[{"a": {"_target_": "os.system"}}]))
    assert_refused(resume(received), "weights.floor.0.a._target_=os.system")


@pytest.mark.parametrize("trust", ["evil_module", "other,evil_module"])
def test_what_the_user_declares_is_imported(trust: str, received: Path) -> None:
    (received.parent / "evil_module.py").write_text(MODULE, encoding="utf-8")
    rewrite(received, lambda values: values["pde"].update(_target_="evil_module.Mine"))
    refused = resume(received, "trust=evil_modul")
    assert_refused(refused, "add trust=evil_module")
    result = resume(received, f"trust={trust}", "accept=pde._target_", "iterations=4")
    assert result.status == 0, result.stderr
    assert (received.parent / "harm").exists()


def test_modules_beside_a_run_stand_in_for_no_other(received: Path) -> None:
    """Not even where somebody enters the received directory and goes on from there."""
    for name in ("ntkrun", "torch", "pandas", "matplotlib", "tabulate", "triton", "sitecustomize"):
        (received / f"{name}.py").write_text("from pathlib import Path\nPath('harm').touch()\n", encoding="utf-8")
    assert resume(Path("."), "iterations=4", "plots=true", cwd=received).status == 0
    assert not (received / "harm").exists()


@pytest.mark.parametrize("part", ["launcher", "sweeper", "callbacks"])
def test_hydras_own_classes_are_not_built(part: str, received: Path) -> None:
    evil = {"_target_": "evil_module.Mine"}
    (received.parent / "evil_module.py").write_text(MODULE, encoding="utf-8")
    rewrite(
        received,
        lambda values: values["hydra"].update({part: {"evil": evil} if part == "callbacks" else evil}),
        "hydra.yaml",
    )
    result = resume(received, "iterations=4")
    assert result.status == 0, result.stderr
    assert not (received.parent / "harm").exists()


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir [harm]", "!!python/name:os.system", "!evil x"])
def test_yaml_makes_no_objects(tag: str, received: Path) -> None:
    with open(received / ".hydra" / "config.yaml", "a", encoding="utf-8") as file:
        file.write(f"evil: {tag}\n")
    assert_refused(resume(received), ".hydra/config.yaml, line ", "tags are not read")
    assert not (received.parent / "harm").exists()


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"[1, 2", b"- 1", b"{{{", b"", b"a: ${b}", b"[" * 5000], ids=repr)
def test_what_is_no_configuration(content: bytes, received: Path) -> None:
    (received / ".hydra" / "config.yaml").write_bytes(content)
    assert_refused(resume(received))


class Harmful:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.place,)


@pytest.mark.parametrize("name", ["checkpoint.pt", "best.pt", "checkpoint.previous.pt"])
@pytest.mark.parametrize("form", ["bare", "saved"])
def test_a_pickle_in_place_of_a_state_is_not_executed(name: str, form: str, received: Path) -> None:
    """A bad checkpoint is refused; best.pt is written but never read, and the previous one only in need."""
    harm = received.parent / "harm"
    if form == "bare":
        (received / name).write_bytes(pickle.dumps(Harmful(harm)))
    else:
        torch.save({"format": 2, "progress": Harmful(harm)}, received / name)
    if name == "checkpoint.previous.pt":
        (received / "checkpoint.pt").unlink()
    result = resume(received, "iterations=4")
    assert result.status == (0 if name == "best.pt" else 2), result.stderr
    assert "Traceback" not in result.stderr
    assert not harm.exists()


@pytest.mark.parametrize("name", ["solution.npz", "spectrum.npz", "points.npz", "residuals.npz"])
def test_a_pickle_in_an_array_file_is_not_executed(name: str, received: Path) -> None:
    harm = received.parent / "harm"
    np.savez(received / name, axis_x=np.array([Harmful(harm)], dtype=object))
    resume(received, "iterations=4", "plots=true")
    assert not harm.exists()


def test_links_are_not_followed(received: Path) -> None:
    target = received.parent / "precious"
    target.write_text("mine", encoding="utf-8")
    (received / "ntkrun.log").unlink()
    (received / "ntkrun.log").symlink_to(target)
    assert_refused(resume(received, "iterations=4"), "ntkrun.log is a link")
    assert target.read_text(encoding="utf-8") == "mine"


def test_a_run_is_not_sent_to_an_address_that_came_with_it(received: Path) -> None:
    mlflow = {"_target_": "ntkrun.loggers.MLflow", "tracking_uri": "http://127.0.0.1:9", "experiment": "e"}
    rewrite(received, lambda values: values.update(logger=mlflow))
    assert_refused(resume(received), "not sent to http://127.0.0.1:9 unasked", "add trust=http://127.0.0.1:9")


def test_hydras_rerun_of_a_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.pickle").write_bytes(pickle.dumps(Harmful(tmp_path / "harm")))
    assert_refused(ntkrun("--experimental-rerun", "config.pickle", cwd=tmp_path), "unknown option")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("command", ["resume", "report"])
def test_programs_started_in_a_received_run_obey_nothing_there(command: str, received: Path) -> None:
    """Neither modules, with ``python -m``, nor settings of matplotlib, here a pipe that nobody writes to."""
    for name in ("typing", "json", "yaml", "torch", "numpy", "pandas", "hydra", "omegaconf", "jinja2", "matplotlib"):
        (received / f"{name}.py").write_text("from pathlib import Path\nPath('harm').touch()\n", encoding="utf-8")
    os.mkfifo(received / "matplotlibrc")
    line = ["-c", "from ntkrun.report.cli import main; main(['.'])"]
    if command == "resume":
        rewrite(received, lambda values: values.update(plots=True))
        (received / "matplotlibrc").unlink()
        (received / "matplotlibrc").write_text("backend: module://evil\ntext.usetex: true\n", encoding="utf-8")
        line = ["-m", "ntkrun", "resume=.", "iterations=4"]
    elsewhere = {"PYTHONSAFEPATH": "1"} if command == "report" else {}
    done = subprocess.run(
        [sys.executable, *line],
        cwd=received,
        env=os.environ | elsewhere,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (received / ("plots/losses.png" if command == "resume" else "report/index.html")).exists()
    assert not (received / "harm").exists()
