"""Where the time of a Gauss-Newton step goes: Jacobian, Gram matrix, factors, accelerations and corrections.

Usage: python scripts/profile_gauss_newton.py [--problems NAME ...] [--iterations N] [key=value ...]

Trains every problem at its defaults for N steps on one thread, in this process, and prints milliseconds of CPU time per
step as a table in Markdown. Parts are timed by the functions that they are made in.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from typing import Any

import ntkrun
from ntkrun.objective.linearized import LinearizedRows
from ntkrun.optimizer.gauss_newton import GaussNewton
from ntkrun.optimizer.least_squares import GramFactorization
from ntkrun.steps.eager import Stepper

PARTS: dict[str, tuple[type, str]] = {
    "step": (Stepper, "step"),
    "Jacobian": (LinearizedRows, "__init__"),
    "Gram matrix": (GramFactorization, "__init__"),
    "factors": (GramFactorization, "at"),
    "accelerations and corrections": (GaussNewton, "_try"),
}


def watch(seconds: Counter[str], calls: Counter[str]) -> None:
    """Count the CPU seconds and calls of every part from now on."""
    for name, (owner, attribute) in PARTS.items():
        function = getattr(owner, attribute)

        def timed(*arguments: Any, _name: str = name, _function: Any = function, **named: Any) -> Any:
            start = time.process_time()
            try:
                return _function(*arguments, **named)
            finally:
                seconds[_name] += time.process_time() - start
                calls[_name] += 1

        setattr(owner, attribute, timed)


def main() -> None:
    """Profile and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", default=["poisson", "wave", "allen_cahn"], metavar="NAME")
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_args()
    seconds: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    watch(seconds, calls)
    print(f"| problem | parameters | {' | '.join(PARTS)} | rest | trials per step |")
    print("|---|---:|" + "---:|" * (len(PARTS) + 2))
    for problem in arguments.problems:
        seconds.clear()
        calls.clear()
        with tempfile.TemporaryDirectory() as place:
            own = [f"pde={problem}", f"iterations={arguments.iterations}", "threads=1", "plots=false", "progress=false"]
            run = ntkrun.train([*own, *arguments.overrides, f"hydra.run.dir={place}/run"])
        each = {name: 1e3 * seconds[name] / calls["step"] for name in PARTS}
        each["rest"] = 2 * each["step"] - sum(each.values())
        size = sum(parameter.numel() for parameter in run.network.parameters())
        numbers = " | ".join(f"{value:.1f}" for value in each.values())
        print(f"| {problem} | {size} | {numbers} | {calls['factors'] / calls['step']:.1f} |", flush=True)


if __name__ == "__main__":
    main()
