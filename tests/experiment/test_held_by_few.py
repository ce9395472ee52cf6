"""A loss at held-out points that few of them hold says little of the error, and the run says so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.driver import ntkrun

COMMAND = ["--config-dir", "conf", "pde=own", "network.width=4", "network.depth=1", "iterations=3", "plots=false"]


@pytest.mark.parametrize("size", [1.0, 1e3])
def test_the_best_network_is_doubted(size: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ntkrun.experiment.run.GROWN", 0.0)  # whatever the losses
    (tmp_path / "conf" / "pde").mkdir(parents=True)
    (tmp_path / "conf" / "pde" / "own.yaml").write_text(f"_target_: tests.problems.Peaked\nsize: {size}\ngrid: 9\n")
    result = ntkrun(*COMMAND, cwd=tmp_path)
    assert result.status == 0, result.stderr
    log = (result.directory / "ntkrun.log").read_text()
    said = re.search(r"(\d+) of 1000 points hold (\d+) % of that of loss term residual, most at x=(\S+), y=", log)
    assert ("little of the error" in log) == (said is not None) == (size > 1)
    if said is not None:
        assert int(said[1]) <= 10
        assert float(said[3]) < 0.01
