"""Run directories as somebody might send them who means harm, and a program that tries commands on them.

``python -m tests.hostile COMMAND FOLDER`` prints for each kind of harm one line of JSON: how the command ended, the
seconds of computing that it took and by how much it raised this process's memory.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

CONFIG, HYDRA = ".hydra/config.yaml", ".hydra/hydra.yaml"
SUMMARY, TABLE, CHECKPOINT, LOG, LOCK = "summary.json", "metrics.csv", "checkpoint.pt", "ntkrun.log", ".lock"
BOMB = "\n".join(["a0: &a0 [x, x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40))])
CHAIN = "\n".join(["b0: xxxxxxxxxx", *(f"b{i}: ${{b{i - 1}}}${{b{i - 1}}}" for i in range(1, 40))])
MAPPINGS = "\n".join(["b0: {a: 1}", *(f"b{i}: {{a: '${{b{i - 1}}}', b: '${{b{i - 1}}}'}}" for i in range(1, 19))])
DEEP = 10_000
METRICS = "step,seconds,loss,loss/residual,weight/residual,error/rel_l2,lr\n"


Harm = Callable[[Path], object]


def at(name: str, make: Harm) -> Harm:
    """Make something in the place of a file of the run."""

    def harm(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        make(run / name)

    return harm


def unix_socket(path: Path) -> None:
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as end:  # it takes short names only
        end.bind(path.name)


def link(target: str) -> Harm:
    return lambda path: path.symlink_to(target)


def hard_link(path: Path) -> None:
    path.hardlink_to(path.parent.parent / "precious")


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 20 * 2**30)


def put(name: str, content: str) -> Harm:
    return at(name, lambda path: path.write_text(content))


def more(content: str | bytes) -> Harm:
    """Lines at the end of the configuration."""
    data = content if isinstance(content, bytes) else content.encode()
    return lambda run: (run / CONFIG).write_bytes((run / CONFIG).read_bytes() + data)


HARMS: Mapping[str, Harm] = {
    **{f"pipe at {name}": at(name, os.mkfifo) for name in (CONFIG, HYDRA, SUMMARY, TABLE, CHECKPOINT, LOG, LOCK)},
    **{f"socket at {name}": at(name, unix_socket) for name in (CONFIG, SUMMARY, TABLE, LOG)},
    **{f"device at {name}": at(name, link("/dev/zero")) for name in (CONFIG, SUMMARY, TABLE)},
    **{f"link at {name}": at(name, link("../precious")) for name in (LOG, SUMMARY, LOCK, "plots", "tensorboard")},
    **{f"hard link at {name}": at(name, hard_link) for name in (LOG, LOCK)},
    **{f"folder at {name}": at(name, Path.mkdir) for name in (CONFIG, TABLE, CHECKPOINT)},
    **{f"20 GB at {name}": at(name, sparse) for name in (CONFIG, SUMMARY, TABLE, CHECKPOINT)},
    "link at .hydra": lambda run: (run / ".hydra").rename(run.parent / "h") and (run / ".hydra").symlink_to("../h"),
    "aliases": more(BOMB),
    "references to texts": more(CHAIN),
    "references to mappings": more(MAPPINGS),
    "a reference to itself": more("b: ${c}\nc: ${b}\n"),
    "the environment": more("b: ${oc.env:HOME}\n"),
    "a hidden resolver": more("h: env\nb: ${oc.${h}:HOME}\n"),
    "deep YAML": more("b: " + "[" * DEEP + "]" * DEEP),
    "deep mappings": more("b: " + "{a: " * DEEP + "}" * DEEP),
    "deep JSON": put(SUMMARY, '{"status": "completed", "a": ' + "[" * DEEP + "]" * DEEP + "}"),
    "digits in YAML": more("b: " + "7" * 5000),
    "digits in base 16": more("b: 0x" + "f" * 200_000),
    "digits in base 60": more("b: 1" + ":59" * 60_000),
    "odd values in JSON": put(SUMMARY, '{"status": [], "rel_l2": {"final": "x"}, "message": {}}'),
    "digits in JSON": put(SUMMARY, '{"status": "completed", "step": ' + "7" * 5000 + "}"),
    "tags": more("b: !!set {a, b}\n"),
    "a long field": put(TABLE, METRICS + "0,1,2,3,4,5," + "9" * 200_000 + "\n"),
    "a long header": put(TABLE, METRICS.replace("lr", "l" * 200_000) + "0,1,2,3,4,5,6\n"),
    "many columns": put(TABLE, METRICS[:-1] + "".join(f",loss/{i}" for i in range(30_000)) + "\n"),
    "a long text": more("b: " + "x" * 200_000),
    "many values": more("b: [" + "1, " * 80_000 + "1]"),
    "another encoding": more(b"b: \xff\n"),
}


def report(run: Path) -> str:
    """What a report says of the run beside a good one."""
    from ntkrun.report.gather import read_run

    found = read_run(run)
    return f"{found.status}: {found.reason}"


def resume(run: Path) -> str:
    """How resuming ends."""
    from ntkrun.cli.main import main

    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            main([f"resume={run}", "iterations=3", "plots=false"])
    except SystemExit as leaving:
        return f"{leaving.code}: {errors.getvalue()}"


def load(run: Path) -> str:
    """How loading from Python ends."""
    import ntkrun

    try:
        found = ntkrun.load(run)
        assert found.summary is not None
        assert len(found.metrics)
        assert repr(found)
    except ValueError as error:  # what its documentation names
        return f"refused: {error}"
    return "loaded"


def attempt(command: Callable[[Path], str], run: Path) -> dict[str, Any]:
    """Outcome, seconds and MiB of a command."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
    before, began = _peak(), time.process_time()
    signal.setitimer(signal.ITIMER_REAL, 20)
    try:
        outcome = command(run)
    except Exception as error:
        outcome = f"raised {type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return {"outcome": outcome, "seconds": time.process_time() - began, "mib": (_peak() - before) / 1024}


def _peak() -> int:
    """The most memory of this process so far, in KiB."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1])


def _hang(*_: object) -> None:
    raise TimeoutError("it hangs")


def main(name: str, place: Path) -> None:
    signal.signal(signal.SIGALRM, _hang)
    command = {"report": report, "resume": resume, "load": load}[name]
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    made = place / "made"
    attempt(command, Path(shutil.copytree(made, place / f"{name} first")))  # imports take their time once
    for number, (kind, harm) in enumerate(HARMS.items()):
        run = place / f"{name}{number}" / "run"
        shutil.copytree(made, run)
        (run.parent / "precious").write_text("mine")
        harm(run)
        found = attempt(command, run) | {"precious": (run.parent / "precious").read_text()}
        print(json.dumps({"kind": kind, **found}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
