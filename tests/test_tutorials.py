"""The tutorials under docs run in fresh kernels, and what they say of their runs holds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

pytestmark = pytest.mark.long
DOCS = Path(__file__).parents[1] / "docs"
EXECUTE = """
import sys
import nbformat
from nbclient import NotebookClient

NotebookClient(nbformat.read("notebook.ipynb", as_version=4), timeout=300, kernel_name="python3").execute()
"""
CHECKS = {
    "own_problem": """
assert run.summary["rel_l2"]["final"] < 1e-5
assert np.abs(u - (x[:, 0] - np.exp((x[:, 0] - 1) / 0.05))).max() < 1e-5  # up to exp(-20)
errors = {n: each.summary["rel_l2"]["final"] for n, each in runs.items()}
assert errors[400] < 1e-5
assert errors[400] < errors[100]
assert opened.summary["rel_l2"]["final"] < 1e-6
""",
    "inverse_problem": """
z = table["difference / standard error"]
assert 1.34 < (z**2).sum() < 21.96  # chi-squared with 8 degrees of freedom, 99 %
assert (table["standard error"] > table["bound"]).all()  # who knows less, knows it less well
assert abs(last["loss/data"] ** 0.5 / NOISE - 1) < 0.15
assert last["loss/residual"] < 0.1 * last["loss/data"]
""",
    "weights_on_the_wave": """
final = {choice: run.summary["rel_l2"]["final"] for choice, run in runs.items()}
assert abs(final["none"] - 0.2**0.5) < 0.01  # without the mode sin 4 pi x
assert max(final["exact"], final["sketched"]) < 0.01
assert slow["exact"].summary["rel_l2"]["final"] < slow["none"].summary["rel_l2"]["final"]
assert 0.5 < ratio.min() < ratio.max() < 2
""",
    "how_weights_work": """
assert torch.allclose(weights * traces, traces.sum().expand(4))
assert runs["exact"].metrics["step"].iloc[-1] == 300
""",
    "sweep": """
assert list(runs["status"]) == ["completed"] * 6
assert sorted(runs["seed"]) == [0, 0, 1, 1, 2, 2]
assert abs(run.predict([[0.125]])[0, 0] - 1) < 1e-4  # sin 4 pi x
""",
}


@pytest.mark.parametrize("name", CHECKS)
def test_a_tutorial_runs(name: str, tmp_path: Path) -> None:
    notebook = nbformat.read(DOCS / f"{name}.ipynb", as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(CHECKS[name]))
    nbformat.write(notebook, tmp_path / "notebook.ipynb")
    here = os.pathsep.join(folder for folder in os.environ["PATH"].split(os.pathsep) if not _has_slurm(folder))
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE],
        cwd=tmp_path,
        env={**os.environ, "PATH": here},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr


def _has_slurm(folder: str) -> bool:
    return (Path(folder) / "sbatch").exists()
