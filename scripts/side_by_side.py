"""How much sooner a sweep is done with its jobs side by side than one after another.

Runs the same sweep of small networks in both ways, in turn, and prints the seconds and their ratio. Start-up and the
end of the sweep count. Side by side the program chooses the threads itself; one after another jobs have one thread,
which is the fastest for networks of this size.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from statistics import median


def seconds(directory: str, jobs: int, iterations: int, *launcher: str) -> float:
    """How long a sweep over seeds takes, as a command."""
    seeds = ",".join(str(seed) for seed in range(jobs))
    command = [sys.executable, "-m", "ntkrun", "-m", "optimizer=adam", f"seed={seeds}", f"iterations={iterations}"]
    command.append("report=false")
    start = time.perf_counter()
    subprocess.run([*command, *launcher], cwd=directory, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="jobs of the sweep, all side by side")
    parser.add_argument("--iterations", type=int, default=15000, help="steps of each job")
    parser.add_argument("--rounds", type=int, default=3, help="how often to measure both")
    arguments = parser.parse_args()
    together = ("hydra/launcher=joblib", f"hydra.launcher.n_jobs={arguments.jobs}")
    ratios = []
    with tempfile.TemporaryDirectory() as directory:
        for _ in range(arguments.rounds):
            after = seconds(directory, arguments.jobs, arguments.iterations, "threads=1")
            beside = seconds(directory, arguments.jobs, arguments.iterations, *together)
            ratios.append(beside / after)
            print(f"one after another {after:.1f} s, side by side {beside:.1f} s, ratio {ratios[-1]:.2f}", flush=True)
    print(f"median ratio {median(ratios):.2f}")


if __name__ == "__main__":
    main()
