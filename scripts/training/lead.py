"""Leading programs under test: every one in a warm process of its own, one of them at work at a time."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from training.cases import Case

SCRIPTS = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Program:
    """What is measured.

    Attributes:
        name: in tables.
        module: its module in this package.
        package: the distribution that it needs, if it is none of ours.
        overrides: of ntkrun's configuration.
        block: its steps are measured in multiples of so many.
    """

    name: str
    module: str
    package: str | None = None
    overrides: tuple[str, ...] = ()
    block: int = 1

    def version(self, python: str) -> str | None:
        """The version of its package that a Python has, ``None`` where it is missing."""
        package = self.package or ("ntkrun" if self.module == "with_ntkrun" else "torch")
        code = f"import importlib.metadata as m; print(m.version({package!r}))"
        asked = subprocess.run([self.python(python), "-c", code], capture_output=True, text=True)
        return asked.stdout.strip() if asked.returncode == 0 else None

    def python(self, python: str) -> str:
        """The Python that runs it: the given one for the packages of others."""
        return python if self.package else sys.executable


class Running:
    """A program in its process, waiting for turns.

    Args:
        program, case: what it trains.
        threads: the cores it keeps to.
        python: for the packages of others.
        device: ``cpu`` or ``cuda``.
        further: overrides besides the program's own.
    """

    def __init__(
        self,
        program: Program,
        case: Case,
        threads: int,
        python: str,
        device: str = "cpu",
        further: Sequence[str] = (),
    ) -> None:
        self.program = program
        self.steps = 0  # of a turn
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (open as long as the process)
        command = [program.python(python), "-m", "training.worker", program.module, case.name, str(threads)]
        own = program.python(python) == sys.executable  # which may have packages, and ntkrun itself, by its path
        path = [str(SCRIPTS), str(SCRIPTS.parent), os.environ.get("PYTHONPATH", "")] if own else [str(SCRIPTS)]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        }
        if device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        self._process = subprocess.Popen(
            [*command, *program.overrides, *further],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=SCRIPTS.parent,
            env=environment,
        )

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            _pipe(stream).close()  # the end of its input ends the program
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def turn(self, steps: int) -> float:
        """Let it make steps; returns the seconds that one takes."""
        self.begin(steps)
        return self.end() / steps

    def begin(self, steps: int) -> None:
        """Let it make steps, without waiting for them."""
        self._tell(f"steps {steps}")

    def end(self) -> float:
        """Wait for the steps of ``begin``; returns their seconds."""
        return float(self._answer()["seconds"])

    def peak_memory(self) -> int:
        """The most bytes that it has held so far: of its device, or of the host where that is none."""
        self._tell("memory")
        return int(self._answer()["bytes"])

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def layers(self) -> NDArray[np.float32]:
        """All present parameters as one vector."""
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "layers.npy"
            self._tell(f"save {path}")
            self._answer()
            values: NDArray[np.float32] = np.load(path)
            return values

    def fit_turn(self, seconds: float) -> None:
        """Choose the steps of a turn such that it takes about so long."""
        each = min(self.turn(self.program.block) for _ in range(2))
        self.steps = self.program.block * max(1, math.ceil(seconds / each / self.program.block))

    def _tell(self, line: str) -> None:
        with suppress(BrokenPipeError):  # it has ended, which the lack of an answer tells
            print(line, file=_pipe(self._process.stdin), flush=True)

    def _answer(self) -> dict[str, Any]:
        reply = _pipe(self._process.stdout).readline()
        if not reply:
            self._log.seek(0)
            raise RuntimeError(f"{self.program.name} has ended:\n{self._log.read()[-3000:]}")
        values: dict[str, Any] = json.loads(reply)
        return values


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def differences(case: Case, running: Sequence[Running]) -> dict[str, float]:
    """How much the moves of the parameters so far differ from those of the first program, relative in norm."""
    start = np.concatenate([part.ravel() for layer in case.draw_layers() for part in layer])
    moves = [each.layers() - start for each in running]
    size = np.linalg.norm(moves[0])
    return {r.program.name: float(np.linalg.norm(m - moves[0]) / size) for r, m in zip(running, moves, strict=True)}
