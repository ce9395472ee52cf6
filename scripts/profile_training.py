"""Where the time of a training step of ntkrun goes.

Usage: python scripts/profile_training.py CASE [key=value ...]

for a case of ``scripts/benchmark_training.py``, as `python scripts/profile_training.py 'poisson 1-512-1'`. Trains in
ntkrun's own loop, by default with weights=none and trainer.compile=true, and prints the microseconds of a step in
matrix products, in all other operations and compiled kernels, and in Python between them, with the largest single
items. The step's seconds are taken without the profiler, its parts with it, on one core.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch._inductor import config as compiler
from torch.profiler import ProfilerActivity, profile
from training import with_ntkrun
from training.cases import CASES, Case

WARM, STEPS = 20, 100
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "mkl::", "mkldnn::")


class Stretches:
    """Asked before every step: lets the loop warm up, then times it, then profiles it."""

    def __init__(self) -> None:
        self.done = 0
        self.seconds = 0.0
        self._start = 0.0
        self.profiler = profile(activities=[ProfilerActivity.CPU])

    def __call__(self) -> bool:
        """Whether to make the step."""
        if self.done == WARM:
            self._start = time.perf_counter()
        if self.done == WARM + STEPS:
            self.seconds = (time.perf_counter() - self._start) / STEPS
            self.profiler.start()
        if self.done == WARM + 2 * STEPS:
            self.profiler.stop()
            return False
        self.done += 1
        return True


def report(case: Case, overrides: list[str]) -> None:
    """Train, profile and print."""
    stretches = Stretches()
    with_ntkrun.run(case, overrides, lambda _: stretches)
    items = {e.key: e.self_cpu_time_total / STEPS for e in stretches.profiler.key_averages()}
    products = sum(each for name, each in items.items() if name.startswith(PRODUCTS))
    total = 1e6 * stretches.seconds
    other = sum(items.values()) - products
    print(f"{case.name}: {total:.0f} us per step on {torch.get_num_threads()} thread(s)")
    for name, part in (("matrix products", products), ("other operations and kernels", other)):
        print(f"  {part:8.0f} us  {100 * part / total:3.0f} %  {name}")
    rest = total - products - other
    print(f"  {rest:8.0f} us  {100 * rest / total:3.0f} %  Python between them (less what profiling adds)")
    print("largest items:")
    for name, part in sorted(items.items(), key=lambda item: -item[1])[:12]:
        print(f"  {part:8.0f} us  {name}")


def main() -> None:
    """Profile what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=list(CASES), metavar="CASE", help=f"one of: {', '.join(CASES)}")
    parser.add_argument("overrides", nargs="*", default=["weights=none", "trainer.compile=true"], metavar="key=value")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    compiler.cpp.enable_kernel_profile = True  # compiled kernels tell the profiler of themselves
    report(CASES[arguments.case], arguments.overrides)


if __name__ == "__main__":
    main()
