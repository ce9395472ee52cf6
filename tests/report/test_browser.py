"""The page in a browser: sorting, hiding groups, values under the pointer, links after a move, size."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import numpy as np
import pytest

from ntkrun.report import write_report
from tests.report.folder import METRICS, make_run, write_csv

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)

ERRORS = {"exact": (0.25, 0.125, 0.5), "none": (0.75, 0.0625, 1.0)}

LOOK = """
<script>
addEventListener("error", (event) => {
  const told = {textContent: event.message, className: "trouble"};
  document.body.append(Object.assign(document.createElement("pre"), told));
});
</script>
"""
ACT = """
<script>
const rows = (table) => [...table.tBodies[0].rows];
const runs = document.querySelector("#runs").parentElement.querySelector("table");
const column = [...runs.tHead.rows[0].cells].findIndex((cell) => cell.textContent === "final error");
const errors = () => rows(runs).filter((row) => !row.hidden).map((row) => row.cells[column].textContent);
const button = runs.tHead.rows[0].cells[column].querySelector("button");
const plots = [...document.querySelectorAll(".plot")];
const lines = () => plots.map((plot) => plot.querySelectorAll("polyline, circle[fill-opacity]").length);
const said = {};
button.click(); said.ascending = errors();
button.click(); said.descending = errors();
said.lines = lines();
const boxes = [...document.querySelectorAll(".groups input")];
said.groups = boxes.map((box) => box.parentElement.textContent);
boxes[0].click(); said.fewer = lines(); said.left = errors();
boxes[1].click(); said.none = plots[0].querySelector("output").textContent;
boxes[0].click(); boxes[1].click(); said.again = errors();
const cost = plots[plots.length - 1];
const box = cost.querySelector("circle[fill-opacity]").getBoundingClientRect();
const place = {clientX: box.x + box.width / 2, clientY: box.y + box.height / 2, bubbles: true};
cost.dispatchEvent(new PointerEvent("pointermove", place));
said.hover = cost.querySelector("output").textContent;
cost.dispatchEvent(new PointerEvent("pointerleave"));
said.after = cost.querySelector("output").textContent;
const toggle = document.querySelector(".charts button");
said.axes = [plots[0].querySelector("text.x").textContent];
toggle.click(); said.axes.push(plots[0].querySelector("text.x").textContent);
said.links = [...document.querySelectorAll("td a")].map((link) => link.href);
said.shown = [...document.querySelectorAll("img")].filter((image) => image.offsetParent && !image.naturalWidth).length;
said.trouble = [...document.querySelectorAll(".trouble")].map((each) => each.textContent);
document.body.append(Object.assign(document.createElement("pre"), {id: "said", textContent: JSON.stringify(said)}));
</script>
"""


def solution(place: Path, offset: float) -> None:
    axes = {"axis_x": np.linspace(0, 1, 30), "axis_t": np.linspace(0, 1, 20)}
    exact = np.sin(3 * axes["axis_x"][:, None] + axes["axis_t"])[..., None]
    arrays: dict[str, Any] = {**axes, "fields": np.array(["u"]), "exact": exact, "prediction": exact + offset}
    np.savez(place / "solution.npz", **arrays, error=np.full_like(exact, offset))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("browser")
    for weights, errors in ERRORS.items():
        for seed, error in enumerate(errors):
            run = make_run(top / "before" / f"{weights} {seed}", [f"weights={weights}", f"seed={seed}"], error=error)
            solution(run, error)
    write_report([top / "before"], top / "before" / "report")
    (top / "before").rename(top / "after")
    return top / "after" / "report" / "index.html"


@pytest.fixture(scope="module")
def said(report: Path) -> dict[str, Any]:
    if BROWSER is None:
        pytest.skip("there is no Chromium on this machine")
    acted = report.with_name("acted.html")
    acted.write_text(report.read_text().replace("<body>", f"<body>{LOOK}").replace("</body>", f"{ACT}</body>"))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]
    profile = f"--user-data-dir={report.parent / 'profile'}"
    done = subprocess.run(
        [BROWSER, *options, profile, acted.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    (found,) = re.findall(r'<pre id="said">(.*?)</pre>', done.stdout, re.DOTALL)
    answer: dict[str, Any] = json.loads(html.unescape(found))
    assert answer["trouble"] == []
    return answer


def test_a_click_sorts_the_table(said: dict[str, Any]) -> None:
    ascending = sorted(error for errors in ERRORS.values() for error in errors)
    assert [float(each) for each in said["ascending"]] == ascending
    assert said["descending"] == said["ascending"][::-1]


def test_a_click_hides_a_group_in_charts_and_tables(said: dict[str, Any]) -> None:
    assert said["groups"] == ["weights=exact", "weights=none"]
    assert said["lines"] == [6, 6, 6]  # runs in the charts of error, loss and cost
    assert said["fewer"] == [3, 3, 3]
    assert sorted(map(float, said["left"])) == sorted(ERRORS["none"])
    assert said["none"] == "no group is chosen"
    assert len(said["again"]) == 6


def test_values_under_the_pointer(said: dict[str, Any]) -> None:
    """The first mark of the chart of cost, which is drawn first."""
    assert said["hover"].startswith("weights=exact (exact 0, seed 0): ")
    assert said["hover"].endswith("seconds in training and weight updates 2.5, relative L2 error 0.25")
    assert said["after"] == ""


def test_step_or_seconds(said: dict[str, Any]) -> None:
    assert said["axes"] == ["step", "seconds"]


def test_links_lead_to_the_runs_after_a_move(said: dict[str, Any], report: Path) -> None:
    assert len(said["links"]) == 6
    found = {Path(unquote(urlparse(link).path)) for link in said["links"]}
    assert found == {report.parents[1] / f"{weights} {seed}" for weights in ERRORS for seed in range(3)}
    assert all((path / "summary.json").exists() for path in found)


def test_all_pictures_are_there(said: dict[str, Any]) -> None:
    assert said["shown"] == 0


def test_solutions_of_best_and_median_runs(report: Path) -> None:
    page = report.read_text()
    titles = re.findall(r"<h4>(.*?)</h4>", page)
    assert titles == [
        f"Solution, {which} run of weights={name}" for name in ("none", "exact") for which in ("best", "median")
    ]
    captions = re.findall(r"<figcaption>Run (.*?), seed (.): relative L2 error (.*?)\.</figcaption>", page)
    assert captions == [
        ("none 1", "1", "0.0625"),
        ("none 0", "0", "0.75"),
        ("exact 1", "1", "0.125"),
        ("exact 0", "0", "0.25"),
    ]


@pytest.mark.long
def test_a_hundred_runs_fit_into_five_megabytes(tmp_path: Path) -> None:
    """Of 400 rows each, in ten groups, with saved solutions."""
    steps = np.arange(400)
    rows = [[step, step / 7, 1, 0.3 + 1 / (step + 1), 0.1, 1, 5, 1 / (step + 3), 0.1] for step in steps]
    for number in range(100):
        given = [f"network.width={10 + number // 10}", f"seed={number % 10}"]
        run = make_run(tmp_path / "runs" / str(number), given, error=(1 + number % 7) / 64)
        write_csv(run / "metrics.csv", METRICS, rows)
        solution(run, 0.01 * (number + 1))
    page = write_report([tmp_path / "runs"], tmp_path / "report")
    assert page.stat().st_size < 5e6
