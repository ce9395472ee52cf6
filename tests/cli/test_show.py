"""Looking at the menu: problems in mathematical notation, choices one a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from ntkrun.cli.help import GROUPS, choices
from tests.driver import assert_refused, ntkrun


def test_a_problem_of_the_menu(tmp_path: Path) -> None:
    result = ntkrun("show", "pde=wave", "pde.c=3", cwd=tmp_path)
    assert (result.status, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "Wave"
    assert "arXiv 2007.14527" in result.stdout
    for words in ("x in [0, 1], t in [0, 1]", "x in [0, 1], t = 0", "initial_velocity: ", "solution:"):
        assert words in result.stdout
    assert any("9" in line and "= 0" in line and "u" in line for line in lines)  # u_tt - 9 u_xx
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", choices("pde"))
def test_all_problems_can_be_shown(name: str, tmp_path: Path) -> None:
    result = ntkrun("show", f"pde={name}", cwd=tmp_path)
    assert (result.status, result.stderr) == (0, "")
    assert "solution: " in result.stdout or "solution:\n" in result.stdout
    assert "not shown" not in result.stdout
    assert "points in" in result.stdout


def test_what_cannot_be_shown_is_refused(tmp_path: Path) -> None:
    assert_refused(ntkrun("show", "pde=wav", cwd=tmp_path), tmp_path, "did you mean wave")
    assert_refused(ntkrun("show", "pde.c=-1", "pde=wave", cwd=tmp_path), tmp_path, "pde.c=-1")
    assert_refused(ntkrun("show", "wave", cwd=tmp_path), tmp_path, "expected key=value")
    late = ntkrun("--config-dir", "conf", "show", "pde=wave", cwd=tmp_path)
    assert_refused(late, tmp_path, "show: expected key=value; it is the first word")
    assert_refused(ntkrun("show", "--config-dir", "nowhere", cwd=tmp_path), tmp_path, "no such directory")


@pytest.mark.parametrize("group", GROUPS)
def test_choices_one_a_line(group: str, tmp_path: Path) -> None:
    result = ntkrun("--list", group, cwd=tmp_path)
    assert [line.split()[0] for line in result.stdout.splitlines()] == choices(group)
    assert all(len(line.split()) > 1 for line in result.stdout.splitlines())


def test_groups_one_a_line(tmp_path: Path) -> None:
    assert [line.split()[0] for line in ntkrun("--list", cwd=tmp_path).stdout.splitlines()] == list(GROUPS)
    assert_refused(ntkrun("--list", "pdf", cwd=tmp_path), tmp_path, "did you mean pde")


TWO_SIDES = """
from ntkrun.geometry import Box
from ntkrun.pde import PDE, Term
from ntkrun.pde.conditions import interface


class TwoSides(PDE):
    domain = Box.of(x=(-1.0, 1.0), t=(0.0, 1.0))
    fields = ("u", "v", "k")
    supports = {"u": Box.of(x=(-1.0, 0.0), t=(0.0, 1.0))}
    depends = {"k": ("x",)}

    def terms(self):
        return (interface("middle", Box.of(x=(0.0, 0.0), t=(0.0, 1.0)), ("u", "v")),)

    def constrain(self, x, u):
        return (u.u, 300 + u.v, u.k.exp())
"""


def test_everything_that_a_problem_is_made_of(tmp_path: Path) -> None:
    (tmp_path / "conf" / "pde").mkdir(parents=True)
    (tmp_path / "sides_shown.py").write_text(TWO_SIDES)
    (tmp_path / "conf" / "pde" / "sides.yaml").write_text(
        "_target_: sides_shown.TwoSides\npoints: {middle: 9}\nsampling: sobol\ngrid: 9\n"
    )
    (tmp_path / "probe.csv").write_text("x,t,u,k\n-0.5,0.1,1,\n-0.5,0.2,1,2\n")
    result = ntkrun("show", "--config-dir", "conf", "pde=sides", "pde.data=probe.csv", cwd=tmp_path)
    assert (result.status, result.stderr) == (0, "")
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert "u lives on x in [-1, 0], t in [0, 1]" in lines
    assert "k depends on x alone" in lines
    assert "the network's outputs are transformed by constrain()" in lines
    assert "data_u: 2 measured values of u" in lines
    assert "data_k: 1 measured values of k" in lines
