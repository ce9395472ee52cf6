"""One bad directory never ends a report, and what somebody has written into a run stays text."""

from __future__ import annotations

import csv
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from matplotlib.text import Text

from ntkrun.report import ReportError, write_report
from ntkrun.report.aggregate import sweeps, swept_keys
from ntkrun.report.figures import draw
from ntkrun.report.gather import gather
from tests.report.folder import METRICS, make_run, write_csv


def change(file: str, act: Callable[[Any], object]) -> Callable[[Path], None]:
    def harm(run: Path) -> None:
        values = yaml.safe_load((run / file).read_text())
        act(values)
        (run / file).write_text(json.dumps(values))

    return harm


def more(lines: str) -> Callable[[Path], None]:
    def harm(run: Path) -> None:
        path = run / ".hydra" / "config.yaml"
        path.write_text(path.read_text() + lines)

    return harm


def table(columns: list[str], *rows: list[object]) -> Callable[[Path], None]:
    return lambda run: write_csv(run / "metrics.csv", columns, rows)


def weights_of(count: int) -> list[str]:
    return ["step", "seconds", "loss", "error/rel_l2", "loss/$q$", *(f"weight/$t_{i}$" for i in range(count))]


ODD = {
    "keys that are no texts": (more("1: a\n2.5: b\nfalse: c\n2001-01-01: d\nnull: e\n"), True),
    "dates and infinities": (more("date: 2001-01-01\nlow: -.inf\nhigh: .inf\nnone: .nan\n"), True),
    "a date for a seed": (change(".hydra/config.yaml", lambda v: v.update(seed="2001-01-01")), True),
    "windows that are no number": (change(".hydra/config.yaml", lambda v: v.update(time_windows=[2])), True),
    "columns twice": (table([*METRICS, "loss"], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]), False),
    "no weights": (table(["step", "seconds", "loss", "loss/a", "error/rel_l2"], [0, 1, 2, 3, 4]), False),
    "many terms": (table(weights_of(100), [0, 1, 1, 1, 1, *[1] * 100]), True),
    "a long name": (table([*weights_of(1), "weight/" + "y" * 50_000], [0, 1, 1, 1, 1, 1, 1]), True),
    "infinite numbers": (table(METRICS, [0, 1, "inf", "-inf", "nan", "inf", "nan", "inf", 1]), True),
    "numbers near the largest": (table(METRICS, [0, 1, 1e308, -1e308, 1e308, 1, 1, 1e308, 1]), False),
    "large numbers": (table(METRICS, [0, 1, 1e99, -1e99, 1e99, 1e-300, 1, 1e99, 1], [1] * 9), True),
    "an error near the largest": (change("summary.json", lambda v: v.update(rel_l2={"final": 1e308})), False),
    "a step beyond the table": (change("summary.json", lambda v: v.update(step=1e20)), False),
    "half a character": (change("summary.json", lambda v: v.update(status="failed", message="\ud800")), False),
    "a long message": (change("summary.json", lambda v: v.update(status="failed", message="x\n" * 10**5)), False),
    "a long name of the problem": (
        change(".hydra/hydra.yaml", lambda v: v["hydra"]["runtime"]["choices"].update(pde="$/" * 5000)),
        True,
    ),
    "many groups": (
        change(".hydra/hydra.yaml", lambda v: v["hydra"]["runtime"].update(choices={f"g{i}": "x" for i in range(999)})),
        False,
    ),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_run_does_not_end_the_report(kind: str, tmp_path: Path) -> None:
    harm, counted = ODD[kind]
    make_run(tmp_path / "good", ["network.width=8"])
    harm(make_run(tmp_path / "odd", ["network.width=9"]))
    write_report([tmp_path], tmp_path / "report")
    runs = list(csv.DictReader((tmp_path / "report" / "runs.csv").read_text().splitlines()))
    assert [run["run"] for run in runs] == ["../good", "../odd"]
    assert runs[0]["reason"] == ""
    assert (runs[1]["reason"] == "") is counted, runs[1]["reason"]
    assert len(runs[1]["reason"]) <= 300


@pytest.mark.parametrize("name", ["²", "٣", "1²", " ", "-", "=1", "javascript:alert(1)", "a" * 255])
def test_odd_names_of_directories(name: str, tmp_path: Path) -> None:
    make_run(tmp_path / "9", status="failed")
    make_run(tmp_path / name, status="failed")
    page = write_report([tmp_path], tmp_path / "report").read_text(encoding="utf-8")
    assert f'href="../{quote(name)}/"' in page


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    os.rename(make_run(tmp_path / "odd"), os.fsencode(tmp_path) + b"/\xff")
    page = write_report([tmp_path], tmp_path / "report").read_text(encoding="utf-8")
    assert 'href="../%FF/"' in page
    assert "../\\udcff" in (tmp_path / "report" / "runs.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize("seed", range(2))
def test_any_values_in_the_files(seed: int, tmp_path: Path) -> None:
    """Twenty runs whose configurations, summaries and tables hold anything at random places."""
    draws = random.Random(seed)
    anything = [None, True, -1, 2**62, 0.5, -1e99, 1e-300, "", "x" * 999, "=1", "$", [], {}, [[]], {"a": {"b": []}}]
    for number in range(20):
        run = make_run(tmp_path / str(number), [f"network.width={draws.choice([8, 9])}", f"seed={number}"])
        for file in (".hydra/config.yaml", "summary.json", ".hydra/hydra.yaml"):
            if draws.random() < 0.5:
                change(file, lambda values: _replace(values, draws, anything))(run)
        rows = [[draws.choice(["", 0, -1, 1e99, "inf", "nan", 7]) for _ in METRICS] for _ in range(3)]
        write_csv(run / "metrics.csv", METRICS, rows)
    found = gather([tmp_path])
    assert len(found) == 20
    assert any(run.counted for run in found)
    write_report([tmp_path], tmp_path / "report")


def _replace(node: dict[str, Any], draws: random.Random, values: list[Any]) -> None:
    """Put another value in a random place."""
    key = draws.choice(sorted(node))
    if isinstance(node[key], dict) and node[key] and draws.random() < 0.7:
        _replace(node[key], draws, values)
    else:
        node[key] = draws.choice(values)


def test_formulas_in_tables_are_texts(tmp_path: Path) -> None:
    values = ["=cmd()", "+cmd()", "-cmd()", "@cmd", "\tcmd", "-1e-3", "+2", "-inf", "a=b"]
    for value in values:
        run = make_run(tmp_path / str(values.index(value)), [f"seed={values.index(value)}"])
        change(".hydra/config.yaml", lambda v, value=value: v["network"].update({"=key()": value}))(run)
    write_report([tmp_path], tmp_path / "report")
    for name in ("runs.csv", "groups.csv"):
        rows = list(csv.DictReader((tmp_path / "report" / name).read_text().splitlines()))
        cells = [row["network.=key()"] for row in rows]
        assert cells[:5] == ["'=cmd()", "'+cmd()", "'-cmd()", "'@cmd", "'\tcmd"]
        assert cells[5:] == values[5:]


def test_a_key_that_begins_like_a_formula(tmp_path: Path) -> None:
    for value in (1, 2):
        run = make_run(tmp_path / str(value))
        change(".hydra/config.yaml", lambda v, value=value: v.update({"=key()": value}))(run)
    write_report([tmp_path], tmp_path / "report")
    assert "'=key()" in (tmp_path / "report" / "runs.csv").read_text().splitlines()[0].split(",")


def test_dollars_are_no_formulas(tmp_path: Path) -> None:
    for width in (8, 9):
        run = make_run(tmp_path / str(width), [f"network.width={width}"])
        change(".hydra/config.yaml", lambda v, w=width: v["network"].update({"$k$": f"$\\frac{w}$"}))(run)
        change(".hydra/hydra.yaml", lambda v: v["hydra"]["runtime"]["choices"].update(pde="$p$"))(run)
        table([*METRICS[:-1], "weight/$t$"], [0, 1, 1, 1, 1, 1, 1, 1, 1])(run)
    runs = gather([tmp_path])
    (sweep,) = sweeps(runs, swept_keys(runs))
    drawn = [text.get_text() for drawing in draw(sweep) for text in drawing.figure.findobj(Text)]
    users = [text for text in drawn if "\\$" in text]
    for word in ("p", "t", "network.$k$".replace("$", "\\$")):
        assert any(word in text for text in users)
    assert not any("mathdefault" not in text and _formula(text) for text in drawn)


def _formula(text: str) -> bool:
    """Whether matplotlib takes a text for a formula: an even number of dollars that are not escaped."""
    return text.count("$") > text.count("\\$")


@pytest.mark.parametrize("name", ["report", "report/figures"])
def test_nothing_is_written_through_links(name: str, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    make_run(tmp_path / "runs" / "0")
    (tmp_path / "runs" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "runs" / name).symlink_to(elsewhere)
    with pytest.raises(ReportError, match="is a link"):
        write_report([tmp_path / "runs"], tmp_path / "runs" / "report")
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("name", ["index.html", "runs.csv", "figures/poisson_loss.png"])
def test_links_in_place_of_files_are_replaced(name: str, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    make_run(tmp_path / "runs" / "0")
    (tmp_path / "runs" / "report" / "figures").mkdir(parents=True)
    (tmp_path / "runs" / "report" / name).symlink_to(precious)
    write_report([tmp_path / "runs"], tmp_path / "runs" / "report")
    assert precious.read_text() == "mine"
    assert not (tmp_path / "runs" / "report" / name).is_symlink()


def test_links_to_runs_elsewhere_are_not_read(tmp_path: Path) -> None:
    make_run(tmp_path / "elsewhere")
    make_run(tmp_path / "runs" / "0")
    (tmp_path / "runs" / "0" / ".hydra").rename(tmp_path / "hydra")
    (tmp_path / "runs" / "0" / ".hydra").symlink_to(tmp_path / "hydra")
    (tmp_path / "runs" / "1").symlink_to(tmp_path / "elsewhere")
    (found,) = gather([tmp_path / "runs"])
    assert found.reason == ".hydra is a link"
