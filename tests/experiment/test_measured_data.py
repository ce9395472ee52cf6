"""Measured values from files: what is read, how rows are used and weighed, and what is refused."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm

from ntkrun.common.errors import ConfigError
from ntkrun.config.measured_data import digest, point_counts, read_measurements
from ntkrun.geometry import Sampler, Table
from ntkrun.network import MLP
from ntkrun.objective import Objective
from ntkrun.pde import PDE, Cavity, Diffusion, LaplaceHole, Term
from ntkrun.pde.measured import loss_terms
from ntkrun.training.collocation import PointSource
from ntkrun.training.time_marching import TimeWindow
from tests.driver import Result, assert_refused, ntkrun
from tests.problems import System

SMALL = ["pde=diffusion", "pde.points.residual=30", "pde.points.boundary=8", "pde.points.initial=8", "pde.grid=6"]
SMALL += ["network.width=4", "network.depth=1", "iterations=6", "log_every=2", "plots=false"]


def frame(rows: int = 60) -> pd.DataFrame:
    x, t = np.random.default_rng(1).random((2, rows))
    return pd.DataFrame({"x": x, "t": t, "u": np.exp(-t) * np.sin(math.pi * x)})


def read(pde: PDE, *paths: Path) -> dict[str, Table]:
    return read_measurements({str(path): digest(path) for path in paths}, pde)


WRITERS: dict[str, Callable[[pd.DataFrame, Path], Any]] = {
    "csv": lambda table, path: table.to_csv(path, index=False),
    "csv of NumPy": lambda table, path: np.savetxt(path, table, delimiter=",", header=",".join(table)),
    "csv with a mark": lambda table, path: table.to_csv(path, index=False, encoding="utf-8-sig"),
    "csv without an end": lambda table, path: path.write_text(table.to_csv(index=False).rstrip("\n")),
    "npz": lambda table, path: np.savez(path, **{name: table[name].to_numpy() for name in table}),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_is_read_as_it_was_written(kind: str, tmp_path: Path) -> None:
    expected = frame()[["u", "t", "x"]]  # in any order
    path = tmp_path / f"probe.{kind.partition(' ')[0]}"
    WRITERS[kind](expected, path)
    (table,) = read(Diffusion(), path).values()
    assert (table.coordinates, table.columns) == (("x", "t"), ("u",))
    assert np.allclose(table.rows.numpy(), frame().to_numpy(), rtol=1e-15)


def structured(table: pd.DataFrame, path: Path) -> Path:
    np.save(path, table.to_records(index=False))
    return path


def mapped(tensor: torch.Tensor) -> str:
    """The file, if any, that the memory of a tensor is."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, stop = (int(end, 16) for end in line.split()[0].split("-"))
        if start <= tensor.data_ptr() < stop:
            return line
    raise LookupError


def test_an_array_stays_on_the_disk_where_its_columns_lie_beside_each_other(tmp_path: Path) -> None:
    path = structured(frame().assign(v=0.0), tmp_path / "probe.npy")
    (table,) = read(Diffusion(), structured(frame(), tmp_path / "own.npy")).values()
    assert mapped(table.rows).endswith("own.npy")
    assert np.array_equal(table.rows.numpy(), frame().to_numpy())
    (other,) = read(Diffusion(), structured(frame()[["u", "x", "t"]], tmp_path / "other.npy")).values()
    assert np.array_equal(other.rows.numpy(), frame().to_numpy())
    assert not mapped(other.rows).endswith(".npy")
    with pytest.raises(ConfigError, match="has a column 'v'"):
        read(Diffusion(), path)
    np.save(path, np.zeros((5, 3)))
    with pytest.raises(ConfigError, match=r"pde.data: probe.npy does not hold columns with names; write a structured"):
        read(Diffusion(), path)
    path.write_bytes(b"no array")
    with pytest.raises(ConfigError, match=r"pde.data: probe.npy does not hold an array"):
        read(Diffusion(), path)


def test_a_point_outside_is_named_wherever_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the second of several parts that are looked at, of a domain that is no box."""
    monkeypatch.setattr("ntkrun.config.measured_data.AT_A_TIME", 3)
    pde = LaplaceHole()
    table = pd.DataFrame({"x": [-0.9] * 4 + [0.9], "y": [0.0] * 4 + [0.9], "u": [1.0] * 5})
    with pytest.raises(ConfigError, match=r"row 5: x=0.9, y=0.9 lies outside of the domain$"):
        read(pde, structured(table, tmp_path / "probe.npy"))


def test_a_parquet_file_is_read_or_says_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "probe.parquet"
    try:
        frame().to_parquet(path)
    except ImportError:
        path.write_bytes(b"PAR1")
        with pytest.raises(ConfigError, match=r"pde.data: probe.parquet: Parquet files need pyarrow; pip install"):
            read(Diffusion(), path)
        return
    (table,) = read(Diffusion(), path).values()
    assert np.array_equal(table.rows.numpy(), frame().to_numpy())


# Rows in turn


def draws_of(rows: int, count: int, number: int, seed: int = 3) -> torch.Tensor:
    table = Table(("x",), ("u",), torch.stack([torch.arange(rows), -torch.arange(rows)], dim=1).double())
    sampler = Sampler((table,), count, "sobol", seed)
    return torch.stack([sampler.draw() for _ in range(number)])


def test_all_rows_are_used_alike_often() -> None:
    points = draws_of(rows=10, count=4, number=50)
    assert torch.equal(points[..., 1], -points[..., 0])
    assert torch.equal(points[..., 0].flatten().long().bincount(), torch.full((10,), 20))
    for start in range(0, 50, 5):  # two rounds
        assert torch.equal(points[start : start + 5, :, 0].flatten().long().bincount(), torch.full((10,), 2))
    assert not torch.equal(points[0], points[5])
    assert not torch.equal(points[0], draws_of(rows=10, count=4, number=1, seed=4)[0])


def test_all_rows_at_a_time_keep_their_order() -> None:
    assert torch.equal(draws_of(7, 7, 3)[2, :, 0], torch.arange(7).double())
    assert torch.equal(draws_of(7, 14, 3)[1, :, 0], torch.arange(7).double().repeat(2))


def test_rows_that_would_never_be_used_are_refused() -> None:
    pde = Diffusion()
    pde.measurements = {"u": Table(("x", "t"), ("u",), torch.rand(1000, 3).double())}
    objective = Objective(pde, MLP(4, 1, domain=pde.domain).double())
    counts = {"residual": 4, "boundary": 4, "initial": 4, "data": 500}
    for every in (None, "auto"):
        with pytest.raises(ValueError, match=r"^data: 500 points for 1000 rows, of which some would never have any"):
            PointSource(objective, counts, "sobol", every, 0)
    points = PointSource(objective, counts, "sobol", 1, 0)
    used = []
    for step in range(2):
        points.at(step)
        used.append(points.points["data"])
    assert len(torch.cat(used).unique(dim=0)) == 1000


def test_numbers_of_rows() -> None:
    pde = Cavity()
    rows = torch.rand(7, 3).double()
    pde.measurements = {"u": Table(("x", "y"), ("u",), rows), "v": Table(("x", "y"), ("v",), rows[:3])}
    assert [term.name for term in loss_terms(pde)[-2:]] == ["data_u", "data_v"]
    usual = {"residual": 1000, "lid": 100, "walls": 150, "pressure": 1}  # by the dimensions of their regions
    given = {**usual, "lid": 5}
    assert point_counts({"lid": 5}, pde) == {**given, "data_u": 7, "data_v": 3}
    assert point_counts({"lid": 5, "data": "all"}, pde) == {**given, "data_u": 7, "data_v": 3}
    assert point_counts({"data": 2}, pde) == {**usual, "data_u": 2, "data_v": 2}
    assert point_counts({"data": 2, "data_v": "all"}, pde) == {**usual, "data_u": 2, "data_v": 3}
    with pytest.raises(ConfigError, match=r"pde\.points\.lid=all: only measured data"):
        point_counts({"lid": "all"}, pde)
    assert point_counts({"residual": 3, "data": "all"}, Diffusion()) == {"residual": 3, "boundary": 100, "initial": 100}


# What rows say


def losses(pde: PDE, seed: int = 0) -> tuple[dict[str, float], Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]]:
    """The losses of the data terms under a network, and the network as a function."""
    torch.manual_seed(seed)
    objective = Objective(pde, MLP(6, 2, domain=pde.domain, outputs=len(pde.fields)).double())
    points = {
        term.name: Sampler(term.region, sum(part.least for part in term.region), "sobol", 0).draw()
        for term in objective.terms
    }
    values = dict(zip(objective.names, objective.losses(objective.batch(points)).tolist(), strict=True))
    return values, lambda x: objective.network(torch.tensor(x)).detach().numpy()


def test_a_field_counts_where_it_was_observed(tmp_path: Path) -> None:
    """Two files that measure different fields, one with gaps; each term is the mean over what there is."""
    first, second = frame(9), frame(5).rename(columns={"u": "v"})
    first["v"] = np.where(np.arange(9) < 4, 0.25 * first["u"], np.nan)
    first.to_csv(tmp_path / "a.csv", index=False)
    second.to_csv(tmp_path / "b.csv", index=False)
    pde = System()
    pde.measurements = read(pde, tmp_path / "a.csv", tmp_path / "b.csv")
    found, network = losses(pde)
    u = network(first[["x", "t"]].to_numpy())[:, 0] - first["u"]
    places = pd.concat([first[:4], second])
    v = network(places[["x", "t"]].to_numpy())[:, 1] - places["v"]
    assert found["data_u"] == pytest.approx((u**2).mean(), rel=1e-12)
    assert found["data_v"] == pytest.approx((v**2).mean(), rel=1e-12)


def test_rows_are_weighted_by_their_accuracy(tmp_path: Path) -> None:
    """By 1 / s^2 over its mean: equal standard deviations change nothing."""
    table = frame(9)
    table["u_std"] = np.linspace(0.01, 0.5, 9)
    table.to_csv(tmp_path / "probe.csv", index=False)
    pde = Diffusion()
    pde.measurements = read(pde, tmp_path / "probe.csv")
    found, network = losses(pde)
    misfit = network(table[["x", "t"]].to_numpy())[:, 0] - table["u"]
    weight = table["u_std"] ** -2.0
    assert found["data"] == pytest.approx(np.average(misfit**2, weights=weight), rel=1e-12)
    table["u_std"] = 1e-3
    table.to_csv(tmp_path / "probe.csv", index=False)
    pde.measurements = read(pde, tmp_path / "probe.csv")
    assert losses(pde)[0]["data"] == pytest.approx((misfit**2).mean(), rel=1e-12)


# The command line


YAML = "_target_: ntkrun.pde.Diffusion\ndata: probe.csv\npoints: {residual: 30, boundary: 8, initial: 8}\n"
YAML += "sampling: sobol\nresample_every: null\ngrid: 6\n"


def run(*arguments: object, cwd: Path) -> Result:
    result = ntkrun(*SMALL, *arguments, cwd=cwd)
    assert result.status == 0, result.stderr
    return result


def points_of(result: Result) -> np.ndarray[Any, Any]:
    with np.load(result.directory / "points.npz") as arrays:
        return np.asarray(arrays["data"])


@pytest.mark.parametrize("beside", [True, False], ids=["beside the YAML file", "in the working directory"])
def test_a_path_of_a_yaml_file(beside: bool, tmp_path: Path) -> None:
    folder = tmp_path / "my_conf" / "pde"
    folder.mkdir(parents=True)
    (folder / "own.yaml").write_text(YAML)
    frame(5).to_csv(tmp_path / "probe.csv", index=False)
    if beside:
        frame(7).to_csv(folder / "probe.csv", index=False)
    result = run("--config-dir", "my_conf", "pde=own", cwd=tmp_path)
    assert len(points_of(result)) == (7 if beside else 5)
    both = run("--config-dir", "my_conf", "pde=own", "pde.data=[probe.csv,other.npz]", cwd=with_other(tmp_path))
    assert len(points_of(both)) == 5 + 3  # from the command line, paths start at the working directory


def with_other(folder: Path) -> Path:
    table = frame(3)
    np.savez(folder / "other.npz", **{name: table[name].to_numpy() for name in table})
    return folder


def test_other_rows_at_every_draw_and_a_resumed_run(tmp_path: Path) -> None:
    """Resumed in another directory, and with the numbers of a run that was not interrupted; not with another file."""
    frame(20).to_csv(tmp_path / "probe.csv", index=False)
    own = ["pde.data=probe.csv", "pde.points.data=8", "pde.resample_every=1", "network.width=5"]
    whole = run(*own, cwd=tmp_path)
    first = run(*own, "iterations=3", cwd=tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    resumed = ntkrun(f"resume={first.directory}", "iterations=6", cwd=elsewhere)
    assert resumed.status == 0, resumed.stderr
    assert np.array_equal(points_of(whole), points_of(first))
    assert len(points_of(whole)) == 8
    a, b = (pd.read_csv(each.directory / "metrics.csv").filter(like="loss").iloc[-1] for each in (whole, first))
    assert np.array_equal(a, b)
    frame(21).to_csv(tmp_path / "probe.csv", index=False)
    before = len(list(tmp_path.rglob("*")))
    changed = ntkrun(f"resume={first.directory}", "iterations=7", cwd=tmp_path)
    assert changed.status == 2
    assert "probe.csv is not the file that it was when the run began" in changed.stderr
    assert len(list(tmp_path.rglob("*"))) == before


def test_batches_take_every_row_once_per_epoch(tmp_path: Path) -> None:
    """Rows of a file and points of the domain; a run that is resumed goes on in its epoch."""
    structured(frame(20), tmp_path / "probe.npy")
    own = ["pde.data=probe.npy", "pde.batch=8", "network.width=5", "log_every=1", "weights=sketched"]
    whole = run(*own, cwd=tmp_path)
    table = pd.read_csv(whole.directory / "metrics.csv")
    assert np.allclose(table["epoch/data"], np.arange(7) * 8 / 20, rtol=1e-15)
    assert np.allclose(table["epoch/residual"], np.arange(7) * 8 / 30, rtol=1e-15)
    assert "epoch/boundary" not in table  # has 8 points
    first = run(*own, "iterations=3", cwd=tmp_path)
    assert ntkrun(f"resume={first.directory}", "iterations=6", cwd=tmp_path).status == 0
    resumed = pd.read_csv(first.directory / "metrics.csv")
    columns = [name for name in table if name != "seconds"]
    pd.testing.assert_frame_equal(resumed[columns], table[columns], check_exact=True)
    assert np.array_equal(points_of(whole), points_of(first))


def test_epochs_of_a_source_of_points() -> None:
    pde = Diffusion()
    pde.measurements = {"u": Table(("x", "t"), ("u",), torch.rand(1000, 3).double())}
    objective = Objective(pde, MLP(4, 1, domain=pde.domain).double())
    counts = {"residual": 300, "boundary": 4, "initial": 4, "data": 1000}
    points = PointSource(objective, counts, "sobol", None, 0, batch=200)
    assert points.counts == {"residual": 200, "boundary": 4, "initial": 4, "data": 200}
    used: dict[str, list[torch.Tensor]] = {name: [] for name in counts}
    for step in range(15):
        points.at(step)
        for name, x in points.points.items():
            used[name].append(x)
    assert points.epochs(15) == {"residual": 10.0, "data": 3.0}
    for name, epochs in points.epochs(15).items():
        rows, times = torch.cat(used[name]).unique(dim=0, return_counts=True)
        assert len(rows) == counts[name]
        assert bool((times == epochs).all())
    assert all(torch.equal(x, used["boundary"][0]) for x in used["boundary"])
    with pytest.raises(ValueError, match="adaptive points follow the residuals and are no fixed set"):
        PointSource(objective, counts, "adaptive", 10, 0, batch=200)


def test_a_run_without_data_is_that_of_earlier_versions(tmp_path: Path) -> None:
    """A checkpoint of a configuration that knows nothing of data."""
    result = run(cwd=tmp_path)
    path = result.directory / ".hydra" / "config.yaml"
    text = path.read_text()
    assert "  data: null\n" in text
    path.write_text(text.replace("  data: null\n", "").replace("    data: all\n", "").replace("  batch: null\n", ""))
    resumed = ntkrun(f"resume={result.directory}", "iterations=8", cwd=tmp_path)
    assert resumed.status == 0, resumed.stderr


MISTAKES: dict[str, tuple[str, tuple[str, ...]]] = {
    # what the file holds, what the one line must contain
    "a point outside": ("x,t,u\n0.5,0.5,1\n1.5,0.5,1\n", ("row 2: x=1.5 lies outside of the domain", "from 0 to 1")),
    "many points outside": ("x,t,u\n0,1.5,1\n1,2,1\n", ("row 1: t=1.5 lies outside", "(2 such rows)")),
    "a coordinate missing in a row": ("x,t,u\n0.5,,1\n", ("row 1: t is nan",)),
    "no column of a coordinate": ("x,u\n0.5,1\n", ("has no column t, a coordinate",)),
    "no column of a field": ("x,t\n0.5,1\n", ("has no column of a field, which are u",)),
    "another column": (
        "x,t,u,w\n0.5,0.5,1,2\n",
        ("has a column 'w'; expected are the coordinates x, t and some of u",),
    ),
    "a misspelt column": ("x,t,u,u_sdt\n0.5,0.5,1,2\n", ("has a column 'u_sdt'", "did you mean u_std?")),
    "semicolons": ("x;t;u\n0.5;0.5;1\n", ("has ';' between its columns; expected are commas",)),
    "tabs": ("x\tt\tu\n0,5\t0,5\t1\n", (r"has '\t' between its columns",)),
    "no names": ("0.5,0.5,1\n0.5,0.7,1\n", ("has numbers in its first line; expected are the names",)),
    "deviations of nothing": ("x,t,u_std\n0,0,1\n", ("has no column of a field",)),
    "a deviation of 0": ("x,t,u,u_std\n0,0,1,1\n0,0,1,0\n", ("row 2: u_std is 0, expected above 0",)),
    "a deviation missing": ("x,t,u,u_std\n0,0,1,\n", ("row 1: u_std is nan",)),
    "nothing observed": ("x,t,u\n0,0,\n1,0,nan\n", ("has no value of u",)),
    "an infinite value": ("x,t,u\n0,0,inf\n", ("row 1: u is infinite",)),
    "words": ("x,t,u\n0,0,high\n", ("line 2", "'high'")),
    "too few entries": ("x,t,u\n0,0\n", ("line 2: 2 values instead of 3",)),
    "no rows": ("x,t,u\n", ("has no rows",)),
    "nothing": ("", ("probe.csv is empty",)),
    "a column twice": ("x,t,u,u\n0,0,1,1\n", ("two columns u",)),
    "no text": ("\xff\xfe", ("not UTF-8",)),
}


@pytest.mark.parametrize(("content", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_file_that_does_not_fit_gets_one_line(content: str, words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "probe.csv").write_bytes(content.encode("latin-1"))
    assert_refused(ntkrun(*SMALL, "pde.data=probe.csv", cwd=tmp_path), tmp_path, "pde.data: ", "probe.csv", *words)


LINES: dict[str, tuple[str, tuple[str, ...]]] = {
    "no such file": ("pde.data=prob.csv", ("pde.data=prob.csv: there is no such file in .",)),
    "a directory": ("pde.data=folder.csv", ("folder.csv", "not a file")),
    "another kind of file": ("pde.data=probe.txt", ("expected a file that ends in .csv, .npy, .npz, .parquet",)),
    "nothing": ("pde.data=", ("pde.data=: expected a file, or null for none",)),
    "a number": ("pde.data=3", ("pde.data=3: expected a file, or a list of files",)),
    "an empty list": ("pde.data=[]", ("pde.data=[]: expected a file, or a list of files",)),
    "a file twice": ("pde.data=[probe.csv,probe.csv]", ("a file is given twice",)),
    "fewer points than rows": ("pde.data=probe.csv pde.points.data=2", ("data: 2 points for 5 rows", "resample_every")),
    "arrays of two sizes": ("pde.data=two.npz", ("two.npz has arrays of the shapes",)),
    "no arrays": ("pde.data=bad.npz", ("bad.npz is damaged",)),
    "deviations of one file": ("pde.data=[probe.csv,std.csv]", ("std.csv has a column u_std", "probe.csv has none")),
}


@pytest.mark.parametrize(("line", "words"), LINES.values(), ids=LINES)
def test_a_line_that_does_not_fit_is_refused(line: str, words: tuple[str, ...], tmp_path: Path) -> None:
    frame(5).to_csv(tmp_path / "probe.csv", index=False)
    shutil.copy(tmp_path / "probe.csv", tmp_path / "probe.txt")
    frame(5).assign(u_std=1.0).to_csv(tmp_path / "std.csv", index=False)
    np.savez(tmp_path / "two.npz", x=np.zeros(2), t=np.zeros(2), u=np.zeros(3))
    (tmp_path / "bad.npz").write_bytes(b"PK")
    (tmp_path / "folder.csv").mkdir()
    assert_refused(ntkrun(*SMALL, "pde.resample_every=null", *line.split(), cwd=tmp_path), tmp_path, *words)


def test_time_windows_have_the_rows_of_their_time(tmp_path: Path) -> None:
    frame(30).to_csv(tmp_path / "probe.csv", index=False)
    pde = Diffusion()
    pde.measurements = read(pde, tmp_path / "probe.csv")
    parts = [TimeWindow(pde, k, 3, None if k == 0 else MLP(4, 1, domain=pde.domain)) for k in range(3)]
    rows = [part.measurements["u"].rows for part in parts]
    for k, own in enumerate(rows):
        assert ((own[:, 1] >= k / 3) & (own[:, 1] <= (k + 1) / 3)).all()
    assert sorted(torch.cat(rows)[:, 0].tolist()) == sorted(frame(30)["x"])
    pde.measurements = {"u": Table(("x", "t"), ("u",), rows[0])}
    with pytest.raises(ValueError, match=r"time_windows: no value of u was measured between t=0.333333 and t=0.666667"):
        TimeWindow(pde, 1, 3, None)


def test_a_problem_may_have_a_term_of_that_name(tmp_path: Path) -> None:
    frame(5).to_csv(tmp_path / "probe.csv", index=False)

    class Own(Diffusion):
        def terms(self) -> tuple[Term, ...]:
            return (*super().terms(), Term("data", (self.domain,), ("u",), lambda x, d: d.u))

    pde = Own()
    pde.measurements = read(pde, tmp_path / "probe.csv")
    with pytest.raises(ValueError, match=r"two loss terms share a name: .*data, data"):
        Objective(pde, MLP(4, 1, domain=pde.domain))


def test_points_in_a_hole_lie_outside_of_the_domain(tmp_path: Path) -> None:
    path = tmp_path / "probe.csv"
    pd.DataFrame({"x": [0.8, 0.3, 0.1], "y": [0.1, 0.1, 0.1], "u": [0.0, 0.9, 0.8]}).to_csv(path, index=False)
    with pytest.raises(ConfigError, match=r"row 2: x=0.3, y=0.1 lies outside of the domain"):
        read(LaplaceHole(), path)


def test_the_example_of_the_documentation(tmp_path: Path) -> None:
    """Files and command as printed; noise of 1 % leaves the diffusivity within 5 %."""
    text = (Path(__file__).parents[2] / "docs" / "own_problems.md").read_text(encoding="utf-8")
    for name in ("heat.py", "my_conf/pde/heat.yaml"):
        (found,) = re.findall(rf"^```\w+\n(# {name}\n.*?)^```$", text, re.M | re.S)
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(found, encoding="utf-8")
    (command,) = re.findall(r"^ntkrun (.*pde=heat.*)$", text, re.M)
    x, t, noise = np.random.default_rng(1).random((3, 200))
    u = np.exp(-0.1 * math.pi**2 * t) * np.sin(math.pi * x) + 0.01 * norm.ppf(noise)
    pd.DataFrame({"x": x, "t": t, "u": u}).to_csv(tmp_path / "thermometers.csv", index=False)
    result = ntkrun(*command.split(), "plots=false", cwd=tmp_path)
    sys.modules.pop("heat", None)
    assert result.status == 0, result.stderr
    found = json.loads((result.directory / "summary.json").read_text())["coefficients"]["a"]
    assert found["value"] == pytest.approx(0.1, rel=0.05)
    assert abs(found["value"] - 0.1) < 5 * found["standard_error"]


NOISY = """
import numpy as np
from ntkrun.geometry import Box
from ntkrun.pde import PDE, Term

class Noisy(PDE):
    domain = Box.of(x=(0.0, 1.0), t=(0.0, 1.0))

    def terms(self):
        places = [Box.of(x=(a, a), t=(b, b)) for a, b in np.random.default_rng(3).random((60, 2))]
        equation = Term("residual", (self.domain,), ("u_t", "u_xx"), lambda x, d: d.u_t - 0.1 * d.u_xx)
        ends = Term("ends", self.domain.faces("x"), ("u",), lambda x, d: d.u)
        return equation, ends, Term("data", tuple(places), ("u",), lambda x, d: d.u - self.measured(x))

    def measured(self, x):
        return self.exact(x) + 0.014 * torch.sin(1e6 * (x.x + x.t))  # errors of 0.01 from place to place

    def exact(self, x):
        return torch.exp(-0.1 * torch.pi**2 * x.t) * torch.sin(torch.pi * x.x)
"""


def test_a_run_that_is_left_with_errors_of_values_ends(tmp_path: Path) -> None:
    """A term of one's own at 60 places."""
    (tmp_path / "noisy_values.py").write_text("import torch\n" + NOISY, encoding="utf-8")
    (tmp_path / "my_conf" / "pde").mkdir(parents=True)
    (tmp_path / "my_conf" / "pde" / "noisy.yaml").write_text(
        "_target_: noisy_values.Noisy\npoints: {residual: 300, ends: 60, data: 60}\nsampling: sobol\n"
        "resample_every: null\ngrid: 21\n",
        encoding="utf-8",
    )
    result = ntkrun("--config-dir", "my_conf", "pde=noisy", "iterations=200", "plots=false", cwd=tmp_path)
    sys.modules.pop("noisy_values", None)
    assert result.status == 0, result.stderr
    found = json.loads((result.directory / "summary.json").read_text())
    assert found["rel_l2"]["final"] < 2 * found["rel_l2"]["best"]  # 2.7 times where the errors are fitted
    assert "measured values apart, has not fallen for 30 steps" in (result.directory / "ntkrun.log").read_text()
