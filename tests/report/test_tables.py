"""runs.csv and groups.csv against numbers computed by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from ntkrun.report import ReportError, write_report
from ntkrun.report.aggregate import ABSENT, groups_table, levels, runs_table, sweeps, swept_keys, values_by_run
from ntkrun.report.gather import find_runs, gather
from tests.report.folder import METRICS, make_run, write_csv


def tables(*directories: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """runs.csv and groups.csv without the figures, which take longer."""
    runs = gather(directories)
    keys = swept_keys(runs)
    return runs_table(runs, keys, directories[0] / "report"), groups_table(sweeps(runs, keys), keys)


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


def test_means_deviations_and_counts(tmp_path: Path) -> None:
    errors = {4: (1.0, 2.0, 6.0), 16: (0.5,)}
    for size, values in errors.items():
        for seed, error in enumerate(values):
            make_run(
                tmp_path / f"{size}-{seed}",
                [f"network.width={size}", f"seed={seed}"],
                error=error,
                best=error / 2,
                training=seed + 1.0,
                updates=0.25,
                loss=10 * error,
            )
    write_report([tmp_path], tmp_path / "report")

    runs = read(tmp_path / "report" / "runs.csv")
    assert list(runs["run"]) == ["../4-0", "../4-1", "../4-2", "../16-0"]
    assert list(runs["status"]) == ["completed"] * 4
    assert list(runs["network.width"]) == [4, 4, 4, 16]
    assert list(runs["seed"]) == [0, 1, 2, 0]
    assert list(runs["final_error"]) == [1.0, 2.0, 6.0, 0.5]
    assert list(runs["best_error"]) == [0.5, 1.0, 3.0, 0.25]
    assert list(runs["unweighted_loss"]) == [10.0, 20.0, 60.0, 5.0]  # not the weighted 97
    assert list(runs["seconds"]) == [1.25, 2.25, 3.25, 1.25]
    assert list(runs["training_seconds"]) == [1.0, 2.0, 3.0, 1.0]
    assert list(runs["update_seconds"]) == [0.25] * 4

    groups = read(tmp_path / "report" / "groups.csv")
    assert list(groups["network.width"]) == [4, 16]
    assert list(groups["count"]) == [3, 1]
    assert list(groups["not_completed"]) == [0, 0]
    first, second = groups.iloc[0], groups.iloc[1]
    assert first["final_error/mean"] == 3.0
    assert first["final_error/deviation"] == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert first["best_error/mean"] == 1.5
    assert first["unweighted_loss/mean"] == 30.0
    assert first["seconds/mean"] == 2.25
    assert first["seconds/deviation"] == 1.0
    assert second["final_error/mean"] == 0.5
    assert math.isnan(second["final_error/deviation"])
    assert second["final_error/count"] == 1


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        ([["seed=0"], ["seed=1"]], []),
        ([["plots=true"], ["plots=false"]], []),
        ([["network.width=8"], ["network.width=64"]], ["network.width"]),
        ([[], ["network.width=8"]], ["network.width"]),
        # a choice stands for all its keys
        ([["weights=none"], ["weights=exact"]], ["weights"]),
        # keys of one choice, beside another choice
        (
            [["weights=none"], ["weights=sketched", "weights.size=1"], ["weights=sketched", "weights.size=4"]],
            ["weights", "weights.size"],
        ),
        # the problem first, then as given
        (
            [["network.width=8", "iterations=9", "pde=wave"], ["network.width=9"]],
            ["pde", "network.width", "iterations"],
        ),
        # what the command line sets counts, even between choices
        ([["weights=none"], ["weights=exact", "weights.update_every=1"]], ["weights"]),
        (
            [["weights=sketched", "weights.update_every=5"], ["weights=exact", "weights.update_every=1"]],
            ["weights", "weights.update_every"],
        ),
        # lists are values
        ([["pde.a=[1, 2]"], ["pde.a=[1, 3]"]], ["pde.a"]),
        # so is a mapping beside a plain value
        ([["pde.a={x: 1}"], ["pde.a=null"]], ["pde.a"]),
    ],
    ids=lambda value: "; ".join(map(str, value)) or "nothing",
)
def test_what_was_swept(tmp_path: Path, overrides: list[list[str]], keys: list[str]) -> None:
    for number, each in enumerate(overrides):
        make_run(tmp_path / str(number), each)
    assert swept_keys(gather([tmp_path])) == keys


def test_keys_that_a_choice_lacks_are_absent(tmp_path: Path) -> None:
    make_run(tmp_path / "0", ["weights=none"])
    make_run(tmp_path / "1", ["weights=sketched", "weights.size=4"])
    make_run(tmp_path / "2", ["weights=sketched", "weights.size=null"])
    runs = gather([tmp_path])
    keys = swept_keys(runs)
    assert values_by_run(runs, keys) == [("none", ABSENT), ("sketched", 4), ("sketched", None)]
    assert list(tables(tmp_path)[1]["weights.size"]) == ["", "4", "null"]


def test_problems_are_kept_apart(tmp_path: Path) -> None:
    make_run(tmp_path / "0", ["pde=poisson", "network.width=8"])
    make_run(tmp_path / "1", ["pde=wave", "network.width=8", "iterations=50"])
    make_run(tmp_path / "2", ["pde=wave", "network.width=9", "iterations=50"])
    runs = gather([tmp_path])
    keys = swept_keys(runs)
    poisson, wave = sweeps(runs, keys)
    assert (poisson.problem, poisson.keys, len(poisson.runs)) == ("poisson", (), 1)
    assert (wave.problem, wave.keys) == ("wave", ("network.width",))
    assert [group.values for group in wave.groups] == [(8,), (9,)]
    assert list(tables(tmp_path)[1]["iterations"]) == ["20", "50", "50"]


def test_levels_are_in_the_order_of_a_reader() -> None:
    assert levels([16, 2, None, 4.0, 2]) == [2, 4.0, 16, None]
    assert levels(["none", "exact", ABSENT, "exact", "auto"]) == ["none", "exact", "auto", ABSENT]
    assert levels([3, "auto", 1]) == [3, "auto", 1]


def test_a_lengthened_run_has_its_new_length(tmp_path: Path) -> None:
    make_run(tmp_path / "0")
    make_run(tmp_path / "1")
    summary = tmp_path / "1" / "summary.json"
    summary.write_text(json.dumps(json.loads(summary.read_text()) | {"iterations": 40}))
    runs = gather([tmp_path])
    assert values_by_run(runs, swept_keys(runs)) == [(20,), (40,)]


def test_a_repeated_run_counts_once(tmp_path: Path) -> None:
    make_run(tmp_path / "2026-01-01", ["seed=1"], error=3.0)
    make_run(tmp_path / "2026-01-02", ["seed=1", "plots=false"], error=1.0)
    make_run(tmp_path / "2026-01-03", ["seed=2"], error=2.0)
    runs, groups = tables(tmp_path, tmp_path / "2026-01-02")
    assert runs["reason"].tolist() == ["the same configuration and seed as 2026-01-02, which counts", "", ""]
    assert groups[["count", "not_completed", "final_error/mean"]].values.tolist() == [[2, 0, 1.5]]


def test_runs_are_found_in_their_order(tmp_path: Path) -> None:
    for name in ("sweep/10", "sweep/2", "single", "sweep/report/old"):
        make_run(tmp_path / name)
    (tmp_path / "sweep" / "report" / "index.html").touch()
    assert [path.relative_to(tmp_path).as_posix() for path in find_runs([tmp_path])] == [
        "single",
        "sweep/2",
        "sweep/10",
    ]
    assert find_runs([tmp_path / "single"]) == [tmp_path / "single"]


def cut(name: str, characters: int) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        path = run / name
        path.write_text(path.read_text()[:-characters])

    return damage


def put(name: str, content: str | bytes) -> Callable[[Path], None]:
    return lambda run: (run / name).write_bytes(content if isinstance(content, bytes) else content.encode()) and None


def remove(name: str) -> Callable[[Path], None]:
    return lambda run: (run / name).unlink()


HEADER = ",".join(METRICS) + "\n"


@pytest.mark.parametrize(
    ("damage", "status", "reason"),
    [
        (remove("summary.json"), "unfinished", "no summary.json: the run was killed or is not yet done"),
        (remove("metrics.csv"), "broken", "no metrics.csv"),
        (remove("weights.csv"), "broken", "no weights.csv"),
        (remove(".hydra/config.yaml"), "broken", "no .hydra/config.yaml"),
        (remove(".hydra/hydra.yaml"), "broken", "no .hydra/hydra.yaml"),
        (cut("metrics.csv", 1), "broken", "metrics.csv ends in the middle of a line"),
        (put("metrics.csv", ""), "broken", "metrics.csv is empty"),
        (put("metrics.csv", HEADER), "broken", "metrics.csv has no rows"),
        (put("metrics.csv", HEADER + "0,1\n"), "broken", "metrics.csv, line 2: 2 values instead of 9"),
        (put("metrics.csv", HEADER + "0,1,2,3,4,5,6,7,x\n"), "broken", "metrics.csv, line 2: could not convert"),
        (put("metrics.csv", "step,loss\n1,2\n"), "broken", "metrics.csv has no column seconds"),
        (put("metrics.csv", b"\xff\xfe\n"), "broken", "metrics.csv cannot be read: not UTF-8"),
        (put("summary.json", '{"status": "comp'), "broken", "summary.json is not JSON"),
        (put("summary.json", "[]"), "broken", "summary.json does not say how the run ended"),
        (put("summary.json", '{"status": "completed"}'), "broken", "summary.json has no seconds"),
        (
            put("summary.json", '{"status": "completed", "seconds": {"training": "x"}}'),
            "broken",
            "summary.json: seconds.training is not a number",
        ),
        (put("summary.json", '{"status": "running"}'), "running", "the run is not yet done, or its process was lost"),
        (put("summary.json", '{"status": "failed", "message": "<i>"}'), "failed", "<i>"),
        (put(".hydra/config.yaml", "a: [1,"), "broken", ".hydra/config.yaml, line "),
        (put(".hydra/config.yaml", "text"), "broken", ".hydra/config.yaml is not a configuration"),
        (put(".hydra/hydra.yaml", "hydra: {}"), "broken", ".hydra/hydra.yaml does not say what was chosen"),
        (put(".hydra/overrides.yaml", "a: 1"), "broken", ".hydra/overrides.yaml is not a list"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_broken_runs_are_listed(tmp_path: Path, damage: Callable[[Path], None], status: str, reason: str) -> None:
    make_run(tmp_path / "0", ["network.width=8"], error=1.0)
    damage(make_run(tmp_path / "1", ["network.width=9"], error=2.0))
    good, bad = gather([tmp_path])
    assert good.counted
    assert not bad.counted
    assert bad.status == status
    assert bad.reason.startswith(reason)
    assert "\n" not in bad.reason


def test_broken_runs_are_left_out_of_means(tmp_path: Path) -> None:
    make_run(tmp_path / "0", ["network.width=8", "seed=0"], error=1.0)
    make_run(tmp_path / "1", ["network.width=8", "seed=1"], error=9.0, status="failed", message="loss <is> not finite")
    make_run(tmp_path / "2", ["network.width=9", "seed=0"], error=None, best=None, status="interrupted")
    cut("metrics.csv", 5)(make_run(tmp_path / "3", ["network.width=9", "seed=1"], error=9.0))
    page = write_report([tmp_path], tmp_path / "report").read_text()
    groups = read(tmp_path / "report" / "groups.csv")
    assert list(groups["count"]) == [1, 0]
    assert list(groups["not_completed"]) == [1, 2]
    assert groups["final_error/mean"].iloc[0] == 1.0
    assert math.isnan(groups["final_error/mean"].iloc[1])
    assert list(read(tmp_path / "report" / "runs.csv")["status"]) == ["completed", "failed", "interrupted", "broken"]
    left_out = page[page.index('id="excluded"') :]
    assert "loss &lt;is&gt; not finite" in left_out
    assert "metrics.csv ends in the middle of a line" in left_out


def test_nothing_but_broken_runs(tmp_path: Path) -> None:
    remove("summary.json")(make_run(tmp_path / "0"))
    (tmp_path / "1").mkdir()
    write_csv(tmp_path / "1" / "metrics.csv", METRICS, [])
    write_report([tmp_path], tmp_path / "report")
    assert list(read(tmp_path / "report" / "runs.csv")["status"]) == ["unfinished", "broken"]
    assert list(read(tmp_path / "report" / "groups.csv")["count"]) == [0]


def test_no_runs(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="no run directories"):
        write_report([tmp_path], tmp_path / "report")
    assert not (tmp_path / "report").exists()


def with_fields(directory: Path, *overrides: str, **errors: float | None) -> None:
    """A run whose summary has errors of several fields."""
    make_run(directory, overrides)
    summary = json.loads((directory / "summary.json").read_text())
    summary["rel_l2"]["fields"] = {name: {"final": error, "best": error} for name, error in errors.items()}
    (directory / "summary.json").write_text(json.dumps(summary))


def test_errors_of_several_fields(tmp_path: Path) -> None:
    with_fields(tmp_path / "a", "network.width=4", "seed=0", p=0.25, v=1.0)
    with_fields(tmp_path / "b", "network.width=4", "seed=1", p=0.75, v=None)
    make_run(tmp_path / "c", ["network.width=8"])  # of an earlier version
    write_report([tmp_path], tmp_path / "report")
    runs, groups = (read(tmp_path / "report" / f"{name}.csv") for name in ("runs", "groups"))
    assert runs["final_error/p"].fillna(-1).tolist() == [0.25, 0.75, -1]
    assert runs["final_error/v"].fillna(-1).tolist() == [1.0, -1, -1]
    assert groups["final_error/p/mean"].fillna(-1).tolist() == [0.5, -1]
    assert groups["final_error/p/deviation"].iloc[0] == pytest.approx(math.sqrt(0.125))
    assert groups["final_error/v/count"].tolist() == [1, 0]
    page = (tmp_path / "report" / "index.html").read_text()
    assert "final error of p" in page
    assert "final error of v, count" in page


@pytest.mark.parametrize("fields", [[], {"=1+1": {}}, {"u": {"final": "x"}}, {f"u{i}": {} for i in range(101)}])
def test_errors_of_fields_that_are_none(fields: object, tmp_path: Path) -> None:
    with_fields(tmp_path / "a")
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    summary["rel_l2"]["fields"] = fields
    (tmp_path / "a" / "summary.json").write_text(json.dumps(summary))
    (run,) = gather([tmp_path])
    assert (run.status, run.reason.partition(":")[0]) == ("broken", "summary.json")
