"""How much memory there is, and what becomes of requests for more."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ntkrun.common.errors import ConfigError
from ntkrun.runtime import memory
from tests.driver import assert_refused, ntkrun

MEMINFO = """MemTotal:       16000000 kB
MemFree:         1000000 kB
MemAvailable:    3000000 kB
SwapCached:            7 kB
SwapTotal:       2000000 kB
SwapFree:         500000 kB
"""
LIMITED = """
import sys
import torch
from ntkrun.runtime import memory
memory.available = lambda device="cpu": 300 * 10**6
memory.limit_memory()
torch.ones(10**7)
try:
    torch.ones(10**8)
except RuntimeError as error:
    sys.exit(memory.shortage(error))
"""


def test_memory_and_swap_that_are_free_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meminfo").write_text(MEMINFO)
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    assert memory.available() == 1024 * 3_500_000


def test_all_memory_counts_where_the_system_says_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    total = re.search(r"^MemTotal: +(\d+) kB$", Path("/proc/meminfo").read_text(), re.M)
    assert total is not None
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "none")
    assert memory.available() == pytest.approx(1024 * int(total[1]), rel=1e-3)


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_cuda_device_says_what_is_free(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the device in question, and what torch holds without using it counts as well."""
    figures = {"cuda": (5_000, 900, 200), "cuda:1": (7_000, 800, 300)}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda name: (figures[name][0], 10**9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda name: figures[name][1])
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda name: figures[name][2])
    free, reserved, used = figures[device]
    assert memory.available(device) == free + reserved - used
    with pytest.raises(ConfigError, match="are free"):
        memory.check_fits(free + reserved, "key=1", device)


def test_points_may_take_an_eighth_of_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    totals = {"cuda": 80 * 2**30, "cuda:1": 4 * 2**30}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda name: (1, totals[name]))
    assert memory.for_points(2**30) == 2**30
    assert memory.for_points(2**30, "cuda") == 10 * 2**30
    assert memory.for_points(2**30, "cuda:1") == 2**30


def test_what_is_too_large_is_named_with_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: {"cpu": 2 * 10**9, "cuda": 10**9}[device])
    memory.check_fits(2e9, "key=1")
    with pytest.raises(ConfigError, match=re.escape("key=2: takes about 2.5 GB of memory; 2 GB are free")):
        memory.check_fits(2.5e9, "key=2")
    with pytest.raises(ConfigError, match="1 GB are free"):
        memory.check_fits(2e9, "key=3", "cuda")


@pytest.mark.parametrize(
    ("request_", "line"),
    [
        (lambda: torch.ones(10**15), "out of memory, 4e+06 GB were asked for at once"),
        (lambda: np.ones(10**15), "out of memory, 7.11 PiB were asked for at once"),
        (lambda: [0] * 10**16, "out of memory"),
        (lambda: torch.ones(2) @ torch.ones(3), None),
    ],
    ids=["torch", "numpy", "python", "another error"],
)
def test_errors_that_mean_a_shortage(request_: object, line: str | None) -> None:
    assert callable(request_)
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        request_()
    assert memory.shortage(caught.value) == line


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such limit")
def test_a_limited_process_gets_an_error_instead_of_memory_that_is_not_there() -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, timeout=120)
    assert done.stderr.strip() == "out of memory, 0.4 GB were asked for at once"


@pytest.mark.parametrize(
    "choices",
    [
        ("weights.distribution=gaussian",),
        ("weights.distribution=rademacher", "weights.estimator=plain", "weights.points=10"),
        ("weights.side=parameter", "weights.distribution=gaussian", "weights.derivative=finite_difference"),
    ],
)
def test_a_sketch_larger_than_memory_is_refused_before_the_run(choices: tuple[str, ...], tmp_path: Path) -> None:
    result = ntkrun("weights=sketched", *choices, "weights.sketch_size=1000000000", cwd=tmp_path)
    assert_refused(result, tmp_path, "weights.sketch_size=1000000000: takes about", "GB are free")


def test_normal_equations_larger_than_memory_are_refused_before_the_run(tmp_path: Path) -> None:
    """Chunks and blocks bound all else; 3 matrices of 200,000 rows and columns take 0.96 TB."""
    options = [
        "optimizer=gauss_newton",
        "optimizer.solver=cholesky",
        "network.width=300",
        "network.depth=4",
        "pde.points.residual=200000",
    ]
    result = ntkrun("pde=diffusion", *options, "pde.hard_boundary=true", "pde.points.initial=2", cwd=tmp_path)
    assert_refused(result, tmp_path, "optimizer: GaussNewton with 200002 rows and", "GB of memory", "GB are free")


@pytest.mark.parametrize("choices", [(), ("weights.distribution=gaussian", "weights.estimator=hutchpp")])
def test_a_sketch_that_takes_all_rows_has_any_size(choices: tuple[str, ...], tmp_path: Path) -> None:
    small = ("optimizer=adam", "pde.grid=5", "network.width=4", "iterations=1", "plots=false", "progress=false")
    result = ntkrun("weights=sketched", *choices, "weights.sketch_size=1000000000", *small, cwd=tmp_path)
    assert result.status == 0
