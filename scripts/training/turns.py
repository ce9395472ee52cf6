"""How a program under test is led: it trains in a process of its own and waits before a step until it is told to go."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from training.cases import Array


class Turns:
    """Called before every step: whether to make it. Returns when the step may be made.

    Standard input says what to do, line by line, and a line of JSON answers: ``steps N`` makes a turn of so many
    steps and tells its seconds, ``save PATH`` writes the parameters, ``memory`` tells the most bytes held so far. The
    end of the input ends the training.

    Args:
        layers: gives the present weights and biases, in the form of ``Case.draw_layers``.
        finish: waits until all steps are done.
        memory: gives the most bytes held so far.
    """

    def __init__(
        self,
        layers: Callable[[], list[tuple[Array, Array]]],
        finish: Callable[[], object] = lambda: None,
        memory: Callable[[], int] = lambda: 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    ) -> None:
        self._layers = layers
        self._finish = finish
        self._memory = memory
        self._left = 0
        self._start: float | None = None

    def __call__(self) -> bool:
        if not self._left:
            self._left = self._next_turn()
            if not self._left:
                return False
            self._start = time.perf_counter()
        self._left -= 1
        return True

    def _next_turn(self) -> int:
        if self._start is not None:
            self._finish()
            answer(seconds=time.perf_counter() - self._start)
        while True:
            words = sys.stdin.readline().split()
            if not words:
                return 0
            if words[0] == "steps":
                return int(words[1])
            if words[0] == "memory":
                answer(bytes=self._memory())
                continue
            flat = [part.ravel() for layer in self._layers() for part in layer]
            np.save(Path(words[1]), np.concatenate(flat))
            answer(saved=words[1])


def answer(**values: object) -> None:
    """One line of JSON to whoever leads this process."""
    print(json.dumps(values), file=sys.__stdout__, flush=True)
