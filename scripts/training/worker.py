"""The process of a program under test: ``python -m training.worker MODULE CASE THREADS [key=value ...]``."""

from __future__ import annotations

import importlib
import os
import sys

from training.cases import EVERY


def main() -> None:
    """Keep to as many cores as there are threads, and train as the process that leads this one says."""
    module, case, threads, *overrides = sys.argv[1:]
    cores = sorted(os.sched_getaffinity(0))[: int(threads)]
    os.sched_setaffinity(0, cores)  # XLA has one thread per core that it may use
    sys.stdout = sys.stderr  # the answers alone go to the true one
    importlib.import_module(f"training.{module}").train(EVERY[case], *overrides)


if __name__ == "__main__":
    main()
