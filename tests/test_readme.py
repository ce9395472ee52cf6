"""The commands of the README and of the other pages run, the scripts they name answer, and links lead somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ntkrun.pde import Poisson
from tests.driver import ntkrun
from tests.experiment.test_bring_your_own import readme_files, write

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / ".github").glob("*.md"))]
TEXT = "\n".join(path.read_text(encoding="utf-8") for path in PAGES)
LINES = "".join(re.findall(r"^```bash\n(.*?)^```$", TEXT, re.M | re.S)).replace("\\\n", " ").splitlines()
PARTS = {part.partition(" # ")[0].strip() for line in LINES for part in line.split("&&")}
ELSEWHERE = ("hydra/sweeper=optuna", "pde=heat")  # in an environment of its own; with measured values, by their tests
COMMANDS = sorted(p for p in PARTS if p.startswith("ntkrun ") and not any(each in p for each in ELSEWHERE))
SCRIPTS = sorted(set(re.findall(r"scripts/\w+\.py", TEXT)))
TINY = ["iterations=2", "plots=false", "report=false", "progress=false"]
OTHERS = ("hydra/launcher=", "hydra.launcher.")  # launchers have tests of their own


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 9
    assert len(SCRIPTS) >= 5


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(command: str, tmp_path: Path) -> None:
    write(tmp_path, readme_files())
    arguments = [each for each in shlex.split(command)[1:] if not each.startswith(OTHERS)]
    for each in arguments:
        if each.startswith("resume="):
            made = ntkrun(*TINY, f"hydra.run.dir={each.removeprefix('resume=')}", cwd=tmp_path)
            assert made.status == 0, made.stderr
            arguments = [each, "iterations=3", "plots=false"]
    tiny = [] if any(each in command for each in ("--cfg", "--list", "resume=")) else TINY
    result = ntkrun(*arguments, *tiny, cwd=tmp_path)
    assert result.status == 0, result.stderr
    sys.modules.pop("my_problems", None)
    sys.modules.pop("my_networks", None)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Files are there, and anchors are headings of theirs."""
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.M)
            known = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in known, target


def test_the_readme_is_short() -> None:
    assert len(README.encode()) < 17_000


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_answer(script: str) -> None:
    done = subprocess.run([sys.executable, ROOT / script, "--help"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")


def test_the_benchmark_of_kernels_measures_every_method(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small case, every method once: one residual row per point makes sketches of all points exact."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import benchmark_kernel

    case = benchmark_kernel.Case(Poisson(), 8, 1, (4, 4))
    table = benchmark_kernel.measure("small", case, budget=0.0, max_cost=0.0).set_index(["method", "size"])
    assert set(benchmark_kernel.SIZES) < set(table.index.get_level_values("method"))
    assert (table["rounds"] >= 3).all()
    assert (table.drop("fused exact, excess", level="method")["ratio"] > 0).all()
    assert table.loc[("coordinate", 4), "error_t"] < 1e-6


def test_the_benchmark_of_training_trains_what_every_program_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """From its own initial values, which steps of hardly any length leave, at its own points."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from training import with_ntkrun
    from training.cases import EVERY

    case, seen = EVERY["poisson 1-512-1"], []

    def turns(network: Any) -> Callable[[], bool]:
        def go() -> bool:
            seen.append(network.layers[0].weight.detach().clone())
            return len(seen) < 3

        return go

    with_ntkrun.run(case, ("weights=none", "trainer.compile=false", "optimizer.learning_rate=1e-30"), turns)
    assert len(seen) == 3
    assert all(np.allclose(weight.numpy(), case.draw_layers()[0][0], rtol=1e-6) for weight in seen)


def test_the_python_versions_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    low, beyond = (int(minor) for minor in re.findall(r"3\.(\d+)", project["requires-python"]))
    said = re.search(r"With Python (.*), from a clone", README)
    assert said is not None
    assert re.findall(r"3\.(\d+)", said[1]) == [str(minor) for minor in range(low, beyond)]
