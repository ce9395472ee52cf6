"""Watching a run: what is drawn, the page for browsers, and files that are not what a run writes."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ntkrun.commands.watch import ROWS, main, newest_run, read_metrics
from tests.hostile import sparse, unix_socket

HEADER = "step,seconds,loss,loss/residual,loss/boundary,weight/residual,weight/boundary,error/rel_l2,lr\n"


def make_run(run: Path, status: str = "running", rows: int = 11) -> Path:
    run.mkdir(parents=True)
    lines = [f"{10 * k},{k},{2.0**-k},{2.0**-k},{3.0**-k},1,1,{'' if k % 2 else 10.0**-k},1e-3\n" for k in range(rows)]
    (run / "metrics.csv").write_text(HEADER + "".join(lines))
    (run / "summary.json").write_text(json.dumps({"status": status, "iterations": 200}))
    return run


def watch(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(each) for each in arguments])
    assert isinstance(left.value.code, int)
    return left.value.code


def test_one_look(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run")
    with open(run / "metrics.csv", "a") as file:
        file.write("110,11,0.1,0.")  # the next row is being written
    assert watch(tmp_path, "--once") == 0
    out = capsys.readouterr().out
    assert f"{run}: running, step 100 of 200, relative L2 error 1.00e-10" in out
    assert "residual" in out
    assert "boundary" in out


def test_rows_that_are_being_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.touch()
    assert len(read_metrics(tmp_path)) == 0
    path.write_text("step,loss,loss/a\n0,4,4\n5,2,2\n10,1")
    assert read_metrics(tmp_path)["loss/a"].tolist() == [4, 2]
    path.write_text("step,loss,loss/a\n0,inf,1e200\n")
    assert read_metrics(tmp_path).isna().sum().sum() == 2


def test_of_long_tables_a_part_is_drawn_with_the_last_row(tmp_path: Path) -> None:
    table = read_metrics(make_run(tmp_path / "run", rows=1000))
    assert table["step"].tolist() == list(range(0, 10_000, 10))
    step = "".join(f"{k},0,1,1,1,1,1,,\n" for k in range(10 * ROWS + 3))
    (tmp_path / "run" / "metrics.csv").write_text(HEADER + step)
    steps = read_metrics(tmp_path / "run")["step"]
    assert len(steps) <= ROWS
    assert steps.iloc[-1] == 10 * ROWS + 2
    assert set(steps.diff().dropna()) == {11.0}


def test_the_page_loads_itself_anew_until_the_run_ends(tmp_path: Path) -> None:
    run, page = make_run(tmp_path / "run<b>"), tmp_path / "watch.html"
    assert watch(run, "--once", "--every", "7", "--html", page) == 0
    text = page.read_text(encoding="utf-8")
    assert re.search(r'<meta http-equiv="refresh" content="7">', text)
    assert "run&lt;b&gt;: running" in text
    assert len([ElementTree.fromstring(each) for each in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]) == 2
    (run / "summary.json").write_text(json.dumps({"status": "completed", "iterations": 100}))
    assert watch(run, "--html", page) == 0
    text = page.read_text(encoding="utf-8")
    assert "refresh" not in text
    assert "completed, step 100 of 100" in text


def test_of_several_runs_the_newest(tmp_path: Path) -> None:
    for number, name in enumerate(("b", "c", "a")):
        os.utime(make_run(tmp_path / name) / "metrics.csv", (1000 + number, 1000 + number))
    assert newest_run(tmp_path) == tmp_path / "a"


@pytest.mark.parametrize("name", ["metrics.csv", "summary.json"])
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (os.mkfifo, "not a file"),
        (unix_socket, "not a file"),
        (sparse, "longer than"),
        (lambda path: path.symlink_to("/dev/zero"), "it is a link"),
        (lambda path: path.write_bytes(b"\xff\n"), "not UTF-8"),
    ],
    ids=["pipe", "socket", "20 GB", "device", "bytes"],
)
def test_what_no_run_writes_ends_at_once(
    name: str, make: Callable[[Path], object], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run")
    (run / name).unlink()
    make(run / name)
    began = time.process_time()
    assert watch(tmp_path) == 2
    assert time.process_time() - began < 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert f"{name} cannot be read: {reason}" in told.err


def test_control_characters_do_not_reach_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", status="\x1b[2J")
    content = (run / "metrics.csv").read_text().replace("loss/boundary", "loss/\x1b]0;b")
    (run / "metrics.csv").write_text(content)
    assert watch(run, "--once") == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\\x1b]0;b" in out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["missing"], "no such directory"),
        (["."], "no run here"),
        ([".", "--every", "0"], "expected 0.1 to 3600 seconds"),
        ([".", "--html", "watch.txt"], "may be .html"),
    ],
)
def test_refusals(
    arguments: list[str],
    reason: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert watch(*arguments) == 2
    assert reason in capsys.readouterr().err
