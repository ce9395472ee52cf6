"""The cost model of compilation: it takes half a minute, and short runs end before it pays."""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ntkrun.objective import Objective

log = logging.getLogger(__name__)

COMPILATION = 30.0  # seconds that one graph may take to compile
SAVED = 0.5  # the part of a step's time that compilation saves, at least
OVERHEAD = 1e-3  # seconds that the operations of a step take to start
RATE = 2.5e10  # floating-point operations per second of a step


@dataclass(frozen=True)
class CompileChoice:
    """Which steps of a run are compiled.

    Attributes:
        steps: length of the run, or of this time window.
        step_seconds: what a step may take otherwise; an estimate from sizes alone, so that equal runs choose alike.
        setting: compile all steps, none, or those that pay.
    """

    steps: int
    step_seconds: float
    setting: Literal["auto"] | bool

    def pays(self, every: int = 1, graphs: int = 1) -> bool:
        """Whether to compile what happens in one of ``every`` steps and takes so many graphs."""
        if self.setting != "auto":
            return self.setting
        return SAVED * self.step_seconds * self.steps / every >= COMPILATION * graphs


def estimate_step(objective: Objective, counts: Mapping[str, int]) -> float:
    """Seconds that an eager step may take, from the number of streams, points and parameters alone."""
    return OVERHEAD + step_work(objective, counts) / RATE


def step_work(objective: Objective, counts: Mapping[str, int]) -> float:
    """Floating-point operations of a step in products with weights, roughly: one forward, two in the backward pass."""
    return 3 * 2 * objective.layout.size * objective.stream_rows(counts)


def missing_compiler(device: str) -> str | None:
    """What is missing for compilation on a device, if anything is."""
    if device == "cuda":
        from importlib.util import find_spec

        return None if find_spec("triton") else "the package triton"
    wanted: Sequence[str] = [os.environ["CXX"]] if os.environ.get("CXX") else ("g++", "clang++", "cl")
    return None if any(map(shutil.which, wanted)) else f"a C++ compiler ({' or '.join(wanted)})"


def _warn_of_impure(objective: Objective) -> None:
    """Say which residuals are no functions of their own point."""
    for term, names in objective.changing.items():
        log.warning(
            "the residual of term %s changes %s when it is evaluated, which no resumed run would know; residuals are "
            "functions of x and d, and read what changes along a run from x.progress",
            *(term, ", ".join(names)),
        )
    for term in objective.mixing:
        log.warning(
            "the residual of term %s at a point depends on the other points of its batch, which costs much; a mean "
            "over these is no integral: declare one, as Term(..., integrals={'mass': integral('u', x=(0.0, 1.0))})",
            term,
        )


def choose(
    setting: Literal["auto"] | bool, steps: int, objective: Objective, counts: Mapping[str, int]
) -> CompileChoice:
    """Decide, and say so in the log.

    Args:
        setting: of the configuration.
        steps: of the run, or of this time window, that are made from gradients; others are not compiled.
        objective: the problem and the network.
        counts: number of points by term.
    """
    _warn_of_impure(objective)
    if not steps:
        return CompileChoice(0, 0.0, False)
    choice = CompileChoice(steps, estimate_step(objective, counts), setting)
    graphs = 1 if objective.size is None else len(objective.terms)  # one for the chunks of each
    if setting == "auto":
        seconds = choice.step_seconds * steps
        about = f"{math.ceil(seconds)} s" if seconds < 600 else f"{math.ceil(seconds / 60)} min"
        verdict = "compiled" if choice.pays(1, graphs) else "not compiled"
        log.info("steps are %s: the run is estimated at %s without (trainer.compile=auto)", verdict, about)
    if choice.pays(1, graphs) and objective.changing:
        log.warning("steps are not compiled: a compiled step would not change it")
        choice = CompileChoice(steps, choice.step_seconds, False)
    if choice.pays(1, graphs) and (missing := missing_compiler(objective.like.device.type)):
        log.warning("steps are not compiled: %s is missing", missing)
        choice = CompileChoice(steps, choice.step_seconds, False)
    return choice
