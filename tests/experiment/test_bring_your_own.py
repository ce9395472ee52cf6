"""Problems and networks in a user's own directory: the README's example, from a wheel, and mistakes in it."""

from __future__ import annotations

import linecache
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ntkrun.config.component import read_component
from ntkrun.network import MLP
from ntkrun.objective import Objective
from ntkrun.pde import PDE
from tests.driver import Result, assert_refused, ntkrun
from tests.oracle import draw_points, term_columns

ROOT = Path(__file__).parents[2]
PROBLEM, PROBLEM_YAML = "my_problems.py", "my_conf/pde/my_pde.yaml"
NETWORK, NETWORK_YAML = "my_networks.py", "my_conf/network/my_net.yaml"
RUN_DIRECTORY = {
    *(".hydra", "ntkrun.log", "metrics.csv", "weights.csv", "summary.json", "points.npz", "solution.npz"),
    *("checkpoint.pt", "best.pt", "residuals.npz", ".lock"),
}

SMALL = ["optimizer=adam", "network.width=4", "pde.grid=6", "iterations=2", "plots=false"]

JETS = """
from ntkrun.geometry import Box
from ntkrun.jets import Jet
from ntkrun.network import JetNetwork, Linear


class Jets(JetNetwork):
    def __init__(self, width: int = 8, *, domain: Box, outputs: int) -> None:
        super().__init__()
        self.first = Linear(len(domain.coordinates), width, "glorot_normal")
        self.last = Linear(width, outputs, "glorot_normal")

    def forward(self, jet: Jet) -> Jet:
        return self.last(self.first(jet).tanh())
"""

COMPARED = """
import numpy as np
from ntkrun.geometry import Box
from ntkrun.pde import PDE, Reference, Term
from ntkrun.pde.conditions import dirichlet


class Line(PDE):
    def __init__(self):
        self.domain = Box.of(x=(0.0, 1.0))

    def terms(self):
        start = dirichlet("start", self.domain.face("x", "low"))
        return Term("residual", (self.domain,), ("u_x",), lambda x, d: d.u_x - 1), start

    def reference(self):
        x = np.array([0.0, 0.1, 0.7, 1.0])
        return Reference({"x": x}, 2 * x[:, None])
"""


def section() -> str:
    """The README's section and the page that continues it."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    own = re.split(r"^## ", text.partition("## Bring your own problem\n")[2], maxsplit=1, flags=re.M)[0]
    page = (ROOT / "docs" / "own_problems.md").read_text(encoding="utf-8")
    return own + page


def readme_files() -> dict[str, str]:
    """The section's files by the name in their first line."""
    fenced = re.findall(r"^```(?:python|yaml)\n(# (\S+)\n.*?)^```$", section(), re.M | re.S)
    return {name: text for text, name in fenced}


def readme_commands() -> list[list[str]]:
    """The section's commands, as arguments of ntkrun."""
    lines = "".join(re.findall(r"^```bash\n(.*?)^```$", section(), re.M | re.S)).splitlines()
    commands = [shlex.split(line) for line in lines]
    assert all(command[0] == "ntkrun" for command in commands)
    return [command[1:] for command in commands]


def readme_command(choice: str) -> list[str]:
    """The first of them that makes this choice."""
    return next(command for command in readme_commands() if choice in command)


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A directory with the files of the README, whose modules are forgotten afterwards."""
    write(tmp_path, readme_files())
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
    linecache.clearcache()


# The wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, unpacked from a wheel that was built from a copy of the sources."""
    place = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("ntkrun", "conf"):
        shutil.copytree(ROOT / name, place / "sources" / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, place / "sources")
    build = ["-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, *build, "-w", str(place), str(place / "sources")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (file,) = place.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(place / "unpacked")
    return place / "unpacked"


def from_wheel(wheel: Path, cwd: Path, *arguments: str) -> Result:
    """The command line in a process of its own that has the wheel's ntkrun."""
    code = (
        "import sys, ntkrun\n"
        f"assert ntkrun.__file__.startswith({str(wheel)!r}), ntkrun.__file__\n"
        "from ntkrun.cli.main import main\nmain()"
    )
    # As a console script: the current directory is not on the path by itself.
    environment = {**os.environ, "PYTHONPATH": str(wheel), "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    return Result(done.returncode, done.stdout, done.stderr)


def test_the_wheel_has_all_data(wheel: Path) -> None:
    def data(folder: Path) -> set[str]:
        return {str(p.relative_to(folder)) for kind in ("*.yaml", "*.npz") for p in folder.rglob(kind)}

    assert data(wheel / "ntkrun") == {f"conf/{p}" for p in data(ROOT / "conf")} | data(ROOT / "ntkrun")
    assert (wheel / "ntkrun" / "py.typed").is_file()


def test_the_example_of_the_readme_runs_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """From a directory that holds nothing else; the run is resumed there, too."""
    write(tmp_path, readme_files())
    small = [
        "optimizer=adam",
        "plots=false",
        "log_every=20",
        "evaluate_every=20",
        "network.width=12",
        "pde.points.residual=60",
        "pde.grid=20",
    ]
    small += ["optimizer.learning_rate=1e-2", "iterations=60"]
    done = from_wheel(wheel, tmp_path, *readme_command("pde=my_pde"), *small)
    assert done.status == 0, done.stderr
    assert {path.name for path in done.directory.iterdir()} == RUN_DIRECTORY
    metrics = pd.read_csv(done.directory / "metrics.csv")
    assert metrics["step"].tolist() == [0, 20, 40, 60]
    assert np.isfinite(metrics.to_numpy()).all()
    assert metrics["loss"].iloc[-1] < 0.2 * metrics["loss"].iloc[0]
    assert metrics["error/rel_l2"].iloc[-1] < 0.5 * metrics["error/rel_l2"].iloc[0]
    assert f"{metrics['error/rel_l2'].iloc[-1]:.3e}" in done.stdout

    again = f"resume={done.directory.relative_to(tmp_path)}"
    resumed = from_wheel(wheel, tmp_path, again, "iterations=80")
    assert resumed.status == 2
    assert "my_problems.Nagumo" in resumed.stderr
    assert "trust=my_problems" in resumed.stderr
    resumed = from_wheel(wheel, tmp_path, again, "iterations=80", "trust=my_problems")
    assert resumed.status == 0, resumed.stderr
    assert pd.read_csv(done.directory / "metrics.csv")["step"].tolist() == [0, 20, 40, 60, 80]


@pytest.mark.long
def test_every_example_of_the_page_runs_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """All files and commands of the page and of the README's section, with two steps."""
    write(tmp_path, readme_files())
    (tmp_path / "thermometers.csv").write_text("x,t,u\n0.5,0.1,0.9\n0.25,0.2,0.6\n", encoding="utf-8")
    commands = [command for command in readme_commands() if "--config-dir" in command]
    assert len(commands) >= 7
    for command in commands:
        done = from_wheel(wheel, tmp_path, *command, "iterations=2", "plots=false", "network.width=6")
        assert done.status == 0, done.stderr


def test_reference_solutions_are_found_in_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """By a problem of the menu with the network of the README."""
    write(tmp_path, readme_files())
    own = ["--config-dir", "./my_conf", "network=my_net", "network.width=4"]
    done = from_wheel(wheel, tmp_path, *own, "pde=burgers", "pde.points.residual=20", "iterations=2", "plots=false")
    assert done.status == 0, done.stderr
    assert np.isfinite(pd.read_csv(done.directory / "metrics.csv")["error/rel_l2"]).all()


# The example


def test_the_example_is_short_and_not_on_the_menu() -> None:
    files = readme_files()
    assert {PROBLEM, PROBLEM_YAML, NETWORK, NETWORK_YAML} <= set(files)
    assert len((files[PROBLEM] + files[PROBLEM_YAML]).splitlines()) < 40
    assert not list((ROOT / "ntkrun" / "pde").glob("*nagumo*"))


@pytest.mark.parametrize("threshold", [0.25, 0.6])
def test_the_solution_of_the_example_has_no_residual(
    threshold: float, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(folder)
    pde = read_component({"_target_": "my_problems.Nagumo", "threshold": threshold}, "pde", PDE).build()
    objective = Objective(pde, MLP(4, 1, domain=pde.domain).double())

    def solution(x: torch.Tensor) -> torch.Tensor:
        u = pde.exact(pde.columns(x))
        assert u is not None
        return u[:, None]

    points = draw_points(objective, [40, 20, 20])
    for i, term in enumerate(objective.terms):
        x = points[term.name]
        residual = term.residual(pde.columns(x), term_columns(solution, x, objective, i))
        assert residual.abs().max() < 1e-12, term.name
    # The front is where it says: u = 1/2 at x = 2 (1 - 2a) t.
    assert solution(torch.tensor([[2 - 4 * threshold, 1.0]])).item() == pytest.approx(0.5)


@pytest.mark.parametrize(("name", "route"), [("Ridges", "per_point"), ("Jets", "structured")])
def test_own_networks(name: str, route: str, folder: Path) -> None:
    write(folder, {NETWORK: readme_files()[NETWORK] + JETS})
    target = f"network._target_=my_networks.{name}"
    result = ntkrun(*readme_command("network=my_net"), target, *SMALL, "weights.update_every=1", cwd=folder)
    assert result.status == 0, result.stderr
    assert f"kernel route: {route}" in (result.directory / "ntkrun.log").read_text()
    assert np.isfinite(pd.read_csv(result.directory / "weights.csv").to_numpy()).all()


def test_errors_at_the_nodes_of_a_reference_and_a_file_that_says_little(folder: Path) -> None:
    """The solution is x; what it is compared with here is 2 x, so that the relative error is a half."""
    yaml = "_target_: compared.Line\npoints: {residual: 20, start: 1}\n"
    write(folder, {"compared.py": COMPARED, "my_conf/pde/line.yaml": yaml})
    made = ["pde=line", "network.width=4", "network.depth=1", "iterations=20", "plots=false"]
    result = ntkrun("--config-dir", "my_conf", *made, cwd=folder)
    assert result.status == 0, result.stderr
    assert pd.read_csv(result.directory / "metrics.csv")["error/rel_l2"].iloc[-1] == pytest.approx(0.5, rel=1e-5)
    with np.load(result.directory / "solution.npz") as arrays:
        assert arrays["axis_x"].tolist() == [0.0, 0.1, 0.7, 1.0]
    assert "sampling: sobol\n" in (result.directory / ".hydra" / "config.yaml").read_text(encoding="utf-8")


def test_the_example_of_conditions_and_integrals(folder: Path) -> None:
    """Its closed form has no residual; Adam gets near it in a few steps."""
    command = readme_command("pde=my_rod")
    few = ["optimizer=adam_gauss_newton", "optimizer.switch_at=20", "iterations=60", "network.width=12"]
    result = ntkrun(*command, *few, "network.depth=2", "pde.grid=21", "plots=false", cwd=folder)
    assert result.status == 0, result.stderr
    assert pd.read_csv(result.directory / "metrics.csv")["error/rel_l2"].iloc[-1] < 1e-4


# Mistakes

EQUATION = "return d.u_t - d.u_xx - 8 * d.u * (1 - d.u) * (d.u - self.a)"
EXACT = "return torch.sigmoid(4 * (1 - 2 * self.a) * x.t - 2 * x.x)"
DECLARED = '("u", "u_t", "u_xx")'
CLASS = "class Nagumo(PDE):\n"
CONSTRUCTOR = "self.a = threshold"
BOX = "Box.of(x=(-3.0, 5.0), t=(0.0, 2.0))"
TERMS = "        return (\n"
BODY = "return self.last(torch.exp(-(self.first(x) ** 2)))"
HARD = BOX + "\n        self.built_in = {'boundary'}"
CONSTRAIN = HARD + "\n\n    def constrain(self, x, u):\n        "
RESIDUAL = "pde: loss term 'residual'"
HERE = "(my_problems.py:8)"  # where the class begins
CONDITION = "        from ntkrun.pde.conditions import neumann\n        return (neumann('a', ends, field='w'),)\n"


def operators(text: str) -> tuple[str, str, str]:
    """The mistake of a term whose operators are ``text``."""
    return PROBLEM, "self.equation)", f"self.equation, operators={text})"


FAILS = "the network fails on points [3, 2] with "

MISTAKES: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    # what is wrong: the file, its text, what stands there instead, what the one line must contain
    "residual summed": (
        PROBLEM,
        EQUATION,
        "return d.u.sum()",
        (RESIDUAL, "shape [], expected [3] or [3, m]", "(my_problems.py:23)"),
    ),
    "residual transposed": (PROBLEM, EQUATION, "return d.u[None]", (RESIDUAL, "shape [1, 3]", "dim=1")),
    "residuals stacked on dimension 0": (
        *(PROBLEM, EQUATION, "return torch.stack([d.u, d.u_t, d.u_xx])"),
        (RESIDUAL, "shape [3, 2], expected [2] or [2, m]; stack residuals with dim=1"),
    ),
    "columns that broadcast": (
        *(PROBLEM, EQUATION, "return d.u_t - d.u_xx[:, None]"),
        (RESIDUAL, "3 residuals per point at 3 points but 2 at 2"),
    ),
    "residual a number": (
        PROBLEM,
        EQUATION,
        "return 0.0",
        (RESIDUAL, "of type float, expected a tensor", "(my_problems.py:23)"),
    ),
    "return forgotten": (PROBLEM, EQUATION, EQUATION[7:], (RESIDUAL, "of type NoneType", "is its return missing?")),
    "residual of another type": (
        *(PROBLEM, EQUATION, "return d.u.double()"),
        (RESIDUAL, "the residual is of float64, the run of float32"),
    ),
    "residual raising": (
        *(PROBLEM, EQUATION, "return d.u_t - torch.ones(7)"),
        (RESIDUAL, "The size of tensor a (3) must match the size of tensor b (7)", "(my_problems.py:24)"),
    ),
    "residual raising in a library": (
        *(PROBLEM, EQUATION, "import numpy as np\n        return d.u - np.interp(d.u, [0, 1], [0, 1])"),
        (RESIDUAL, "Can't call numpy() on Tensor that requires grad", "(my_problems.py:25)"),
    ),
    "residual not finite": (
        *(PROBLEM, EQUATION, "return d.u_t / (0 * x.x)"),
        (RESIDUAL, "the residual is not finite at x=", "t="),
    ),
    "residual without the network": (
        PROBLEM,
        EQUATION,
        "return x.x",
        (RESIDUAL, "does not depend on the network", "(my_problems.py:23)"),
    ),
    "unknown coordinate": (
        PROBLEM,
        EQUATION,
        "return d.u - x.y",
        (RESIDUAL, "no 'y', only x, t, progress (my_problems.py:24)"),
    ),
    "undeclared derivative": (
        *(PROBLEM, DECLARED, '("u", "u_t")'),
        (RESIDUAL, "no 'u_xx', only u, u_t (my_problems.py:24)"),
    ),
    "derivative of no field": (PROBLEM, DECLARED, '("w_t",)', (RESIDUAL, "'w_t': no field 'w'; the fields are u")),
    "derivative by no coordinate": (PROBLEM, DECLARED, '("u_y",)', (RESIDUAL, "no coordinate 'y'", "x, t")),
    "derivative of order 5": (PROBLEM, DECLARED, '("u_xxxxx",)', (RESIDUAL, "the highest order is 4")),
    "derivatives a string": (PROBLEM, DECLARED, '"u_xx"', (RESIDUAL, "the derivatives are 'u_xx', expected a tuple")),
    "operators a list": (*operators("['heat']"), (RESIDUAL, "the operators are ['heat'], expected finite factors")),
    "operator of nothing": (*operators("{'heat': {}}"), (RESIDUAL, "the operators are {'heat': {}}")),
    "operator with no number": (*operators("{'heat': {'u_xx': float('nan')}}"), (RESIDUAL, "expected finite factors")),
    "operator by no coordinate": (*operators("{'heat': {'u_yy': 1.0}}"), (RESIDUAL, "no coordinate 'y'")),
    "operator of values": (*operators("{'heat': {'u': 1.0}}"), (RESIDUAL, "made of derivatives, not of values")),
    "operator named as a derivative": (
        *operators("{'u_t': {'u_t': 1.0}}"),
        (RESIDUAL, "u_t names two of its derivatives"),
    ),
    "region a box": (PROBLEM, "(self.domain,)", "self.domain", (RESIDUAL, "region is a Box, expected a tuple")),
    "region of other coordinates": (
        *(PROBLEM, "(self.domain,)", "(Box.of(t=(0, 1), x=(0, 1)),)"),
        (RESIDUAL, "region has the coordinates ['t', 'x'], expected ['x', 't']"),
    ),
    "residual no function": (PROBLEM, "self.equation)", "None)", (RESIDUAL, "of type NoneType, expected a function")),
    "partner of no coordinate": (
        *(PROBLEM, "self.equation)", 'self.equation, {"z": 1.0})'),
        (RESIDUAL, "the partner is {'z': 1.0}"),
    ),
    "partner nowhere": (
        *(PROBLEM, "self.equation)", 'self.equation, {"x": float("inf")})'),
        (RESIDUAL, "the partner is {'x': inf}, expected distances, or functions of the point"),
    ),
    "partner of no column": (
        *(PROBLEM, "self.equation)", 'self.equation, {"x": lambda x: x.x[:1]})'),
        (RESIDUAL, "x of the partner is of shape [1], expected a tensor of shape [3]"),
    ),
    "two terms of one name": (PROBLEM, '"initial"', '"boundary"', ("two loss terms share a name", "boundary", HERE)),
    "a term without a name": (PROBLEM, '"initial"', "7", ("loss term 7: expected a name",)),
    "no terms": (PROBLEM, TERMS, "        return ()\n" + TERMS, ("there are no loss terms",)),
    "terms without return": (PROBLEM, TERMS, "        (\n", ("terms() gives a NoneType", "is its return missing?")),
    "one term alone": (
        *(PROBLEM, TERMS, TERMS[:-2] + "Term('a', ends, ('u',), lambda x, d: d.u)\n" + TERMS),
        ("terms() gives a Term, expected a tuple of Term", HERE),
    ),
    "terms of names": (PROBLEM, TERMS, "        return ('a',)\n" + TERMS, ("terms() gives a str among its terms",)),
    "terms raising": (
        *(PROBLEM, "self.equation", "self.equatoin"),
        ("terms() fails with AttributeError", "'equatoin' (my_problems.py:18)"),
    ),
    "face of no coordinate": (
        *(PROBLEM, 'faces("x")', 'faces("y")'),
        ("terms() fails with ValueError: the box has no coordinate 'y', only x, t (my_problems.py:16)",),
    ),
    "face at no end": (
        PROBLEM,
        '"low"',
        '"left"',
        ("no end 'left' along t, only 'low' and 'high' (my_problems.py:16)",),
    ),
    "condition of no field": (PROBLEM, TERMS, CONDITION + TERMS, ("loss term 'a'", "no field 'w'", HERE)),
    "no domain": (PROBLEM, f"self.domain = {BOX}", "pass", ("pde: the domain is missing, expected a Box", HERE)),
    "domain a tuple": (PROBLEM, BOX, "(0.0, 1.0)", ("the domain is of type tuple, expected a Box",)),
    "coordinate of many letters": (
        *(PROBLEM, BOX, "Box.of(space=(-3.0, 5.0), t=(0.0, 2.0))"),
        ("the domain has the coordinates ['space', 't'], expected single letters",),
    ),
    "domain upside down": (PROBLEM, "(-3.0, 5.0)", "(5.0, -3.0)", ("the domain has x=(5.0, -3.0)", "lower end first")),
    "domain not finite": (PROBLEM, "5.0", "float('inf')", ("the domain has x=(-3.0, inf), expected finite numbers",)),
    "fields a string": (PROBLEM, CLASS, CLASS + "    fields = 'uv'\n", ("fields='uv': expected a tuple", HERE)),
    "a field with an underscore": (PROBLEM, CLASS, CLASS + "    fields = ('u_a',)\n", ("without underscores",)),
    "period of no coordinate": (PROBLEM, CLASS, CLASS + "    periods = {'y': 1.0}\n", ("periods={'y': 1.0}", "x, t")),
    "built-in name of no term": (
        *(PROBLEM, BOX, HARD.replace("boundary", "edge")),
        ("built_in={'edge'}: expected a set of names of loss terms",),
    ),
    "no constrain": (PROBLEM, BOX, HARD, ("built_in names loss terms, but there is no constrain()",)),
    "constrain raising": (
        *(PROBLEM, BOX, CONSTRAIN + "return (torch.floor(x.x) * u.u,)"),
        ("constrain() fails", "torch.floor is not known with its derivatives", "(my_problems.py:17)"),
    ),
    "constrain of too many fields": (
        *(PROBLEM, BOX, CONSTRAIN + "return (x.x, u.u)"),
        ("constrain() has 2 outputs; the fields are u",),
    ),
    "exact of wrong shape": (PROBLEM, EXACT, "return (x.x + x.t).reshape(-1, 2)", ("exact() gives shape [", ", 1]")),
    "exact transposed": (PROBLEM, EXACT, "return x.x[None]", ("exact() gives shape [1, 36] at 36 points",)),
    "exact a number": (PROBLEM, EXACT, "return 0.0", ("exact() gives a float, expected a tensor",)),
    "exact raising": (PROBLEM, EXACT, "return torch.sinh(self.nu)", ("exact() fails with", "'nu' (my_problems.py:27)")),
    "exact not finite": (PROBLEM, EXACT, "return x.x / (x.x + 3)", ("exact() is not finite at x=-3, t=0",)),
    "reference missing": (
        *(PROBLEM, EXACT, EXACT + "\n\n    def reference(self):\n        return torch.load('data.pt')"),
        ("reference() fails with FileNotFoundError", "data.pt", "(my_problems.py:30)"),
    ),
    "class without terms": (PROBLEM, "def terms", "def term", ("my_problems.Nagumo: the class lacks terms()",)),
    "class no PDE": (PROBLEM, CLASS, "class Nagumo:\n", ("Nagumo: not a subclass of ntkrun.pde.base.PDE",)),
    "constructor raising": (PROBLEM, CONSTRUCTOR, "open('data')", ("Nagumo cannot be built", "(my_problems.py:12)")),
    "constructor refusing": (
        *(PROBLEM, CONSTRUCTOR, "raise ValueError('threshold must be whole')"),
        ("pde: threshold must be whole (my_problems.py:12)",),
    ),
    "annotation misspelt": (
        *(PROBLEM, "threshold: float", "threshold: 'flaot'"),
        ("my_problems.Nagumo", "'flaot' is not defined"),
    ),
    "annotation no type": (
        *(PROBLEM, "threshold: float", "threshold: 0.25"),
        ("pde.threshold: its type annotation 0.25 is not a type",),
    ),
    "module with a syntax error": (
        *(PROBLEM, "import torch\n", "import torch\nx = (\n"),
        ("pde._target_=my_problems.Nagumo", "SyntaxError", "(my_problems.py:3)"),
    ),
    "module with a wrong import": (
        *(PROBLEM, "import torch\n", "import torch\nimport numppy\n"),
        ("No module named 'numppy' (my_problems.py:3)",),
    ),
    "module raising": (PROBLEM, "import torch\n", "import torch\n1 / 0\n", ("ZeroDivisionError", "(my_problems.py:3)")),
    "module missing": (PROBLEM_YAML, "my_problems.", "my_problem.", ("'my_problem'", "did you mean my_problems?")),
    "class missing": (PROBLEM_YAML, "Nagumo", "Nagummo", ("no 'Nagummo'", "did you mean Nagumo?")),
    "target missing": (PROBLEM_YAML, "_target_: my_problems.Nagumo\n", "", ("pde._target_ is missing",)),
    "argument of wrong type": (
        *(PROBLEM_YAML, "threshold: 0.25", "threshold: fast"),
        ("pde.threshold=fast: expected a valid number",),
    ),
    "argument unknown": (
        *(PROBLEM_YAML, "threshold: 0.25", "thresold: 6"),
        ("unknown key pde.thresold; did you mean pde.threshold?",),
    ),
    "points of no term": (PROBLEM_YAML, "boundary: 100", "edge: 100", ("pde.points", "edge", "boundary")),
    "no YAML": (PROBLEM_YAML, "points: {", "points: {{", ("my_conf/pde/my_pde.yaml:5: not YAML",)),
    "a list for YAML": (PROBLEM_YAML, "_target_: ", "- ", ("my_conf/pde/my_pde.yaml:3: not YAML",)),
    "network of other outputs": (NETWORK, "(width, outputs)", "(width, 2)", ("has 2 outputs; the fields are u",)),
    "network of shape [N]": (
        *(NETWORK, BODY, BODY + "[:, 0]"),
        ("the network gives shape [3] on points [3, 2]", "[3, 1]"),
    ),
    "network without return": (NETWORK, BODY, BODY[7:], ("the network gives a NoneType, expected a Tensor",)),
    "network of another type": (NETWORK, BODY, BODY + ".double()", ("the network gives float64 on points of float32",)),
    "network raising": (NETWORK, BODY, BODY.replace("first", "fisrt"), (FAILS, "'fisrt' (my_networks.py:17)")),
    "network with mixed types": (NETWORK, "(x)", "(x.double())", (FAILS, "same dtype", "(my_networks.py:17)")),
    "network not finite": (NETWORK, BODY, BODY + " / 0", ("the network is not finite at x=",)),
    "network cut from its parameters": (NETWORK, BODY, BODY + ".detach()", ("do not depend on trainable parameters",)),
    "network without parameters": (
        *(NETWORK, "        self.last =", "        self.requires_grad_(False)\n        outputs ="),
        ("network: no trainable parameters",),
    ),
    "network without super": (NETWORK, "super().__init__()", "pass", ("Ridges cannot be built", "(my_networks.py:13)")),
    "network without forward": (
        *(NETWORK, "def forward", "def foward"),
        (FAILS, 'missing the required "forward" function'),
    ),
    "network's argument of wrong type": (NETWORK_YAML, "width: 64", "width: six", ("network.width=six",)),
    "network's argument unknown": (NETWORK_YAML, "width: 64", "widht: 64", ("did you mean network.width?",)),
    "jet network of tensors": (
        *(NETWORK, "class Ridges(nn.Module)", "from ntkrun.network import JetNetwork\n\nclass Ridges(JetNetwork)"),
        (FAILS, "torch.linear is not known with its derivatives", "(my_networks.py:19)"),
    ),
}


@pytest.mark.parametrize(("file", "text", "instead", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_gets_one_line(file: str, text: str, instead: str, words: tuple[str, ...], folder: Path) -> None:
    source = readme_files()[file]
    assert text in source
    if text == EXACT:  # the conditions read it too, and would complain first
        source = source.replace("- self.exact(x)", "- x.t")
    write(folder, {file: source.replace(text, instead)})
    command = readme_command("network=my_net" if file in (NETWORK, NETWORK_YAML) else "pde=my_pde")
    assert_refused(ntkrun(*command, "pde.grid=6", "dtype=float32", cwd=folder), folder, *words)


WRONG_LINES = {
    "--config-dir ./my_cnf pde=my_pde": ("config directory", "my_cnf", "not found"),
    "--config-dir ./my_conf pde=my_dpe": ("pde=my_dpe", "did you mean my_pde?"),
    "--config-dir ./my_conf pde=my_pde network=my_ne": ("network=my_ne", "did you mean my_net?"),
    "--config-dir ./my_conf pde=my_pde pde.thresold=3": ("unknown key pde.thresold; did you mean pde.threshold?",),
    "--config-dir=./my_conf pde=my_pde pde.speed=3": (
        "unknown key pde.speed; known are pde.",
        "pde.threshold",
        "an argument of Nagumo that its file leaves out is given as +pde.speed=...",
    ),
    "-cd ./my_conf pde=my_pde pde.points.bondary=3": ("did you mean pde.points.boundary?",),
    "--config-dir ./my_conf pde=my_pde pde.threshold=fast": ("pde.threshold=fast: expected a valid number",),
    "--config-dir ./my_conf pde=my_pde network=my_net pde.threshold=[1": (
        "pde.threshold=[1: not of the form key=value",
    ),
}


@pytest.mark.parametrize(("line", "words"), WRONG_LINES.items(), ids=WRONG_LINES)
def test_a_wrong_line_names_the_users_own_keys(line: str, words: tuple[str, ...], folder: Path) -> None:
    assert_refused(ntkrun(*line.split(), cwd=folder), folder, *words)


def test_an_argument_that_the_file_leaves_out_is_given_with_a_plus(folder: Path) -> None:
    write(folder, {PROBLEM_YAML: readme_files()[PROBLEM_YAML].replace("threshold: 0.25\n", "")})
    result = ntkrun(*readme_command("pde=my_pde"), *SMALL, "+pde.threshold=0.5", cwd=folder)
    assert result.status == 0, result.stderr
    with np.load(result.directory / "solution.npz") as arrays:
        known = 1 / (1 + np.exp(2 * arrays["axis_x"][:, None] - 0 * arrays["axis_t"]))  # a front that stands still
        np.testing.assert_allclose(arrays["exact"][..., 0], known, atol=1e-6)


def test_a_file_that_names_the_class_alone(folder: Path) -> None:
    """Points, sampling and grid have defaults: 1,000 points of a plane domain, 100 of its sides and of its start."""
    write(folder, {PROBLEM_YAML: "_target_: my_problems.Nagumo\n"})
    small = [*SMALL[:2], "iterations=0", "plots=false"]
    result = ntkrun(*readme_command("pde=my_pde"), *small, "pde.points.initial=30", cwd=folder)
    assert result.status == 0, result.stderr
    with np.load(result.directory / "points.npz") as arrays:
        assert {name: len(arrays[name]) for name in arrays} == {"residual": 1000, "boundary": 100, "initial": 30}
    shown = ntkrun("show", *readme_command("pde=my_pde"), cwd=folder).stdout
    assert re.findall(r"^(\w+): (\d+) points", shown, re.M) == [
        *(("residual", "1000"), ("boundary", "100"), ("initial", "100"))
    ]


def test_arguments_that_yaml_writes_as_something_else(folder: Path) -> None:
    """Tuples are lists there, and paths strings."""
    arguments = "threshold: tuple[float, ...], data: pathlib.Path) -> None:\n        assert data.suffix"
    problem = readme_files()[PROBLEM].replace("threshold: float = 0.25) -> None:", arguments)
    problem = problem.replace("= threshold", "= threshold[0]").replace(
        "import torch\n", "import pathlib\n\nimport torch\n"
    )
    yaml = readme_files()[PROBLEM_YAML].replace("threshold: 0.25", "threshold: [0.25, 0.5]\ndata: points.npz")
    write(folder, {PROBLEM: problem, PROBLEM_YAML: yaml})
    result = ntkrun(*readme_command("pde=my_pde"), *SMALL, cwd=folder)
    assert result.status == 0, result.stderr
