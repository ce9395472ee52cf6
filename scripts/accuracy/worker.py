"""The process of another program: ``python -m accuracy.worker MODULE PROBLEM SEED SECONDS [key=value ...]``.

Prints one line of JSON: error against CPU seconds of training, and the CPU seconds of the process besides.
"""

from __future__ import annotations

import importlib
import json
import sys

import torch

from accuracy.cases import CASES


def main() -> None:
    """Train and tell."""
    module, problem, seed, seconds, *options = sys.argv[1:]
    torch.set_num_threads(1)
    sys.stdout = sys.stderr  # the answer alone goes to the true one
    further = {key: value == "true" for key, _, value in (option.partition("=") for option in options)}
    watch = importlib.import_module(f"accuracy.{module}").train(CASES[problem], int(seed), float(seconds), **further)
    print(json.dumps({"curve": watch.curve, "around": watch.start}), file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    main()
