"""Users' code that raises, leaves and changes anything: its own run fails, in one line, and nothing else."""

from __future__ import annotations

import linecache
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.test_resume import assert_same_end, summary
from tests.cli.test_sweep import SMALL
from tests.driver import Result, ntkrun

CODE = '''
"""A problem that does something in its residual once the run has begun."""

import gc, logging, os, signal, sys, warnings
import numpy as np
import torch
from ntkrun.geometry import Box
from ntkrun.pde import PDE, Term, Poisson


class Odd(Exception):
    def __str__(self):
        raise KeyError("no words")


class Vile(BaseException):
    pass


def fail():
    raise ValueError("two\\nlines")


def settings():
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.use_deterministic_algorithms(True)
    torch.set_float32_matmul_precision("medium")
    np.seterr(all="raise")
    sys.setrecursionlimit(500)
    gc.disable()
    warnings.simplefilter("error")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = "77"
    sys.path.clear()
    os.chdir("/")


ACTS = {
    "leaves": lambda: sys.exit(0),
    "leaves_with_words": lambda: sys.exit("words"),
    "interrupts": lambda: exec("raise KeyboardInterrupt"),
    "generator": lambda: exec("raise GeneratorExit"),
    "vile": lambda: exec("raise Vile('no exception')", {"Vile": Vile}),
    "odd": lambda: exec("raise Odd", {"Odd": Odd}),
    "fails": fail,
    "no_gradients": lambda: torch.set_grad_enabled(False),
    "no_logging": lambda: logging.disable(logging.CRITICAL),
    "other_logging": lambda: (
        logging.basicConfig(force=True),
        [setattr(logging.getLogger(n), "disabled", True) for n in list(logging.root.manager.loggerDict)],
    ),
    "settings": settings,
    "nothing": lambda: None,
    "closed": lambda: (sys.stdout.close(), sys.stderr.close(), os.close(1), os.close(2)),
}


class Mine(Poisson):
    def __init__(self, a: int = 4, hard_boundary: bool = False, act: str = "nothing", at: int = 3) -> None:
        super().__init__(a)
        self.act, self.left = ACTS[act], at

    def terms(self):
        residual, boundary = super().terms()
        return Term("residual", (self.domain,), ("u_xx",), lambda x, d: self.equation(residual, x, d)), boundary

    def equation(self, residual, x, d):
        self.left -= len(x.x) > 10  # not those that a problem is tried on
        if not self.left:
            self.act()  # the line
        return residual.residual(x, d)
'''
RUN = [*(option for option in SMALL if option != "report=false"), "pde._target_=mine.Mine", "trainer.compile=false"]
FAILING = ("leaves", "leaves_with_words", "interrupts", "generator", "vile", "odd", "fails")


def line_of(text: str) -> int:
    return next(k for k, line in enumerate(CODE.splitlines(), start=1) if text in line)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """With the problem; its modules are forgotten afterwards."""
    (tmp_path / "mine.py").write_text(CODE)
    yield tmp_path
    for name in ("mine", "worse"):
        sys.modules.pop(name, None)
    linecache.clearcache()


def in_a_process(folder: Path, *arguments: str) -> Result:
    command = [sys.executable, "-m", "ntkrun", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.mark.long
def test_one_job_ends_and_poisons_no_other(folder: Path) -> None:
    """Each is followed by one that does nothing, which gives what it gives alone, and is logged."""
    acts = [*FAILING, "no_gradients", "no_logging", "other_logging", "settings", "closed"]
    jobs = ",".join(each for act in acts for each in (act, "nothing"))
    swept = [f"+pde.act={jobs}", "hydra.sweep.dir=sweep", "report=false", "threads=1"]
    result = in_a_process(folder, "-m", *RUN, *swept)
    assert result.status == 1, result.stderr
    assert "Traceback" not in result.stderr
    alone = in_a_process(folder, *RUN, "+pde.act=nothing", "threads=1", "hydra.run.dir=alone")
    assert alone.status == 0, alone.stderr
    for number, act in enumerate(acts):
        one, other = (folder / "sweep" / str(2 * number + k) for k in range(2))
        if act in FAILING:
            assert summary(one)["status"] == "failed", act
            assert f"ntkrun: {2 * number} failed: " in result.stderr
        assert_same_end(folder / "alone", other)
        assert "step 20 of 20" in (other / "ntkrun.log").read_text(), act
        assert f"job {2 * number + 1} completed" in result.stdout, act
    assert result.stdout.splitlines()[-1] == str(folder / "sweep")


@pytest.mark.parametrize("act", FAILING)
def test_an_error_is_one_line_with_the_place_and_a_traceback_in_the_log(act: str, folder: Path) -> None:
    result = ntkrun(*RUN, f"+pde.act={act}", "hydra.run.dir=run", cwd=folder)
    assert result.status == 1
    log = (folder / "run" / "ntkrun.log").read_text()
    assert log.count("Traceback (most recent call last)") >= 1
    assert f"line {line_of('# the line')}, in equation" in log
    lines = [line for line in result.stderr.splitlines() if "failed" in line]
    assert len(lines) == 1
    assert "(mine.py:" in lines[0]
    assert "Traceback" not in result.stderr
    assert "  File" not in result.stderr
    message = summary(folder / "run")["message"]
    assert message in result.stdout
    if act == "fails":
        place = f"(mine.py:{line_of('raise ValueError')})"
        assert message.startswith(
            f"ValueError: two {place}, in the residual of term residual, whose columns are of length"
        )


@pytest.mark.parametrize("what", ["sys.exit(0)", "raise KeyboardInterrupt", "raise GeneratorExit", "raise Odd"])
def test_a_class_that_raises_anything_is_refused(what: str, folder: Path) -> None:
    (folder / "worse.py").write_text(
        "import sys\nfrom mine import Odd\nfrom ntkrun.pde import Poisson\n\n\nclass Worse(Poisson):\n"
        f"    def __init__(self, a: int = 4, hard_boundary: bool = False) -> None:\n        {what}\n"
    )
    options = [option for option in RUN if not option.startswith("pde._target_")]
    result = ntkrun(*options, "pde._target_=worse.Worse", cwd=folder)
    assert (result.status, result.stdout, result.stderr.count("\n")) == (2, "", 1), result.stderr
    assert "(worse.py:8)" in result.stderr
    assert not (folder / "outputs").exists()


# Streams


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("{ntkrun} --help | head -1 > /dev/null; echo ${{PIPESTATUS[0]}}", 0),
        ("{ntkrun} {run} hydra.run.dir=a 2>&-; echo $?", 0),
        ("{ntkrun} {run} hydra.run.dir=b >&- 2>&-; echo $?", 0),
        ("{ntkrun} {run} hydra.run.dir=c > /dev/full; echo $?", 0),
        ("{ntkrun} -m {run} seed=0,1 hydra.sweep.dir=d | true; echo ${{PIPESTATUS[0]}}", 0),
        ("{ntkrun} -m {run} +pde.act=nothing,fails hydra.sweep.dir=e | true; echo ${{PIPESTATUS[0]}}", 1),
        ("{ntkrun} networ=3 2> /dev/full; echo $?", 2),
    ],
    ids=["help", "no-stderr", "no-streams", "full", "sweep", "failed-sweep", "refused"],
)
def test_nobody_reads(line: str, status: int, folder: Path) -> None:
    """The exit status is the work's own, and nothing is said about the streams."""
    command = line.format(ntkrun=f"{sys.executable} -m ntkrun", run=" ".join([*RUN, "iterations=10"]))
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, timeout=600)
    echoed = done.stdout.split()[-1]
    assert int(echoed) == status, done.stderr
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
