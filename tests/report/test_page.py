"""The page, and the command that writes it."""

from __future__ import annotations

import base64
import contextlib
import io
import re
import subprocess
import sys
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ntkrun.report import write_report
from ntkrun.report.cli import main
from tests.driver import ntkrun
from tests.report.folder import make_run

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Reader(HTMLParser):
    """Collects a page; complains about elements that are not closed in order and identifiers given twice."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.rows: list[list[str]] = []
        self.feed(page)
        self.close()
        assert self.open == []
        ids = [attributes["id"] for _, attributes in self.tags if "id" in attributes]
        assert len(ids) == len(set(ids))

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def attributes(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("page")
    for weights, seed in (("exact", 0), ("exact", 1), ("<b>&", 0)):
        given = ["pde=poisson", f"weights={weights}", "network.width=8", f"seed={seed}"]
        make_run(top / "my sweep" / f"{len(weights)}{seed}", given, error=0.125 * (seed + 1))
    make_run(top / "my sweep" / "9", ["weights=exact", "network.width=8"], status="failed", message="a <script>")
    return write_report([top / "my sweep"], top / "report")


def test_page_needs_nothing_from_elsewhere(report: Path) -> None:
    page = report.read_text()
    reader = Reader(page)
    for _, attributes in reader.tags:
        assert not {"srcset", "background", "poster", "action"} & set(attributes)
    assert all(image["src"].startswith("data:image/png;base64,") for image in reader.attributes("img"))
    assert [link["href"] for link in reader.attributes("link")] == ["data:,"]
    assert all("src" not in script for script in reader.attributes("script"))
    assert "url(" not in page
    assert "@import" not in page
    assert "http:" not in page
    assert "https:" not in page


def test_figures_are_those_of_the_files(report: Path) -> None:
    images = Reader(report.read_text()).attributes("img")
    files = {path.read_bytes() for path in (report.parent / "figures").iterdir()}
    assert {base64.b64decode(image["src"].partition(",")[2]) for image in images} == files
    assert len(images) == 5
    assert all(len(image["alt"]) > 30 for image in images)


def test_links_lead_somewhere(report: Path) -> None:
    reader = Reader(report.read_text())
    links = [link["href"] for link in reader.attributes("a")]
    ids = {attributes["id"] for _, attributes in reader.tags if "id" in attributes}
    assert {link[1:] for link in links if link.startswith("#")} <= ids
    runs = {link for link in links if link.endswith("/")}
    assert runs == {f"../my%20sweep/{name}/" for name in ("50", "51", "40", "9")}
    assert (report.parent / "../my sweep/50").is_dir()
    assert {link for link in links if link.endswith(".csv")} == {"runs.csv", "groups.csv"}


def test_tables_say_what_distinguishes_runs(report: Path) -> None:
    page = report.read_text()
    rows = Reader(page).rows
    assert ["weights", "seeds", "not completed", "final error", "best error", "unweighted loss", "seconds"] in rows
    assert ["exact", "2", "1", "0.188 ± 0.0884", "0.250 ± 0.00", "3.00 ± 0.00", "2.50 ± 0.00"] in rows
    assert ["<b>&", "1", "0", "0.125", "0.250", "3.00", "2.50"] in rows
    assert ["51", "exact", "1", "completed", "0.250", "0.250", "3.00", "2.50"] in rows
    assert ["9", "failed", "a <script>"] in rows
    assert "<code>network.width=8</code>" in page
    assert "<code>pde=poisson</code>" in page
    assert "<code>seed" not in page
    assert "<b>" not in page
    assert page.count("<script>") == 1


def test_rows_sort_by_number(report: Path) -> None:
    page = report.read_text()
    runs = page[page.index('id="runs"') : page.index('id="excluded"')]
    body = re.findall(r"<tr.*?>(.*?)</tr>", runs)[1:]
    cells = [re.findall(r'data-order="(\d+)">([^<]*)<', row) for row in body]
    orders = {text: int(order) for order, text in (row[4] for row in cells)}
    assert sorted(orders, key=lambda text: orders[text]) == ["0.125", "0.250", "0.500"]


def command(*arguments: object, cwd: Path) -> tuple[object, str, str]:
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        pytest.raises(SystemExit) as leaving,
    ):
        main([str(argument) for argument in arguments])
    return leaving.value.code, stdout.getvalue(), stderr.getvalue()


@pytest.mark.parametrize(
    ("arguments", "place"),
    [(["sweep"], "sweep/report"), (["sweep/0", "sweep/1"], "report"), (["sweep", "--output", "there/it"], "there/it")],
)
def test_where_a_report_goes(tmp_path: Path, arguments: list[str], place: str) -> None:
    for seed in (0, 1):  # failed, so that there is nothing to draw
        make_run(tmp_path / "sweep" / str(seed), [f"seed={seed}"], status="failed")
    status, stdout, stderr = command(*arguments, cwd=tmp_path)
    assert (status, stderr) == (0, "")
    assert Path(stdout.splitlines()[-1]) == tmp_path / place / "index.html"
    assert sorted(path.name for path in (tmp_path / place).iterdir()) == [
        *("figures", "groups.csv", "index.html", "runs.csv"),
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "DIR"),
        (["nowhere"], "nowhere: no such directory"),
        (["empty"], "no run directories in empty"),
        (["empty", "--colour"], "--colour"),
        (["runs", "--output", "file"], "file"),
    ],
)
def test_wrong_input_is_refused_in_one_line(tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    make_run(tmp_path / "runs" / "0")
    status, stdout, stderr = command(*arguments, cwd=tmp_path)
    assert (status, stdout) == (2, "")
    assert stderr.startswith("ntkrun: ")
    assert stderr.count("\n") == 1
    assert words in stderr


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom ntkrun.report.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as leaving: assert leaving.code == 0\n"
        "print(sorted({'torch', 'pandas', 'matplotlib', 'numpy', 'jinja2', 'hydra'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "--output DIR" in done.stdout


def test_real_runs(tmp_path: Path) -> None:
    small = ["optimizer=adam", "iterations=4", "log_every=2", "pde.grid=20", "plots=false", "network.depth=1"]
    errors = {}
    for width in (4, 6):
        result = ntkrun("pde=poisson", f"network.width={width}", *small, cwd=tmp_path)
        assert result.status == 0, result.stderr
        errors[width] = float(re.findall(r"error, final +(\S+)", result.stdout)[0])
    status, stdout, _ = command("outputs", cwd=tmp_path)
    assert status == 0
    page = Reader(Path(stdout.strip()).read_text())
    header = next(row for row in page.rows if row[0] == "run")
    assert header == [
        "run",
        "network.width",
        *("seed", "status", "final error", "best error", "unweighted loss", "seconds"),
    ]
    shown = {int(row[1]): float(row[4]) for row in page.rows if row[3:4] == ["completed"]}
    assert shown == {width: pytest.approx(error, rel=5e-3) for width, error in errors.items()}
