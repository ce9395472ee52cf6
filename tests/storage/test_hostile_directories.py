"""Every kind of harm that a run directory can hold is refused or listed, at once, and nothing is written through it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.driver import ntkrun
from tests.hostile import HARMS

COMMANDS = ("report", "resume", "load")
NOT_READ = {  # by a command that need not refuse what it does not look at, or writes anew
    "report": (
        *("checkpoint.pt", "ntkrun.log", ".lock", "plots", "tensorboard"),
        *("references", "a reference", "environment", "resolver", "a long text"),
    ),
    # What stands in place of a table is kept aside: its rows are part of the checkpoint.
    "resume": ("20 GB at summary.json", "JSON", "a long field", "a long header", "many columns"),
    "load": ("20 GB at summary.json", "JSON"),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Any]]:
    """Of every command on every kind of harm, each command in a process of its own, which measures itself."""
    folder = tmp_path_factory.mktemp("hostile")
    small = ["optimizer=adam", "network.width=4", "network.depth=1", "pde.grid=6", "iterations=2", "plots=false"]
    made = ntkrun(*small, f"hydra.run.dir={folder / 'made'}", cwd=folder)
    assert made.status == 0, made.stderr
    found = {}
    for command in COMMANDS:
        done = subprocess.run(
            [sys.executable, "-m", "tests.hostile", command, str(folder)],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(lines) == len(HARMS), done.stderr
        found |= {(command, line["kind"]): line for line in lines}
    return found


@pytest.mark.parametrize("kind", HARMS)
@pytest.mark.parametrize("command", COMMANDS)
def test_harm_is_refused_or_listed(command: str, kind: str, outcomes: dict[tuple[str, str], dict[str, Any]]) -> None:
    found = outcomes[command, kind]
    outcome = found["outcome"]
    good, bad = {"report": ("completed", "broken: "), "resume": ("0: ", "2: ntkrun: "), "load": ("loaded", "refused")}[
        command
    ]
    assert outcome.startswith(good if any(part in kind for part in NOT_READ[command]) else bad), outcome
    assert outcome.startswith(good) or outcome.count("\n") == (command == "resume"), outcome
    assert len(outcome) < 1000
    assert found["seconds"] < 1
    assert found["mib"] < 500
    assert found["precious"] == "mine"
