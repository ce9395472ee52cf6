"""The command line, run inside the test process."""

from __future__ import annotations

import contextlib
import io
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from ntkrun.cli.main import main


@dataclass(frozen=True)
class Result:
    status: object
    stdout: str
    stderr: str

    @property
    def directory(self) -> Path:
        return Path(self.stdout.splitlines()[-1])


def ntkrun(*arguments: object, cwd: Path) -> Result:
    """The command line in this process, which is left as it was."""
    stdout, stderr = io.StringIO(), io.StringIO()
    GlobalHydra.instance().clear()
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(cwd):
        patch.setattr(sys, "argv", ["ntkrun"])
        patch.setattr(sys, "path", sys.path[:])
        patch.setenv("HYDRA_FULL_ERROR", "0")
        with (
            contextlib.redirect_stdout(stdout),
            contextlib.redirect_stderr(stderr),
            pytest.raises(SystemExit) as leaving,
        ):
            main([str(argument) for argument in arguments])
    return Result(leaving.value.code, stdout.getvalue(), stderr.getvalue())


def assert_refused(result: Result, cwd: Path, *words: str) -> None:
    assert result.status == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("ntkrun: ")
    for word in words:
        assert word in result.stderr
    assert not (cwd / "outputs").exists()
