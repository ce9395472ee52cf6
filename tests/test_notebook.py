"""The notebook under docs runs in a fresh kernel, twice in a row, with a bar for notebooks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "first_steps.ipynb"
EXECUTE = """
import sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read("notebook.ipynb", as_version=4)
NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
nbformat.write(notebook, "executed.ipynb")
"""
AGAIN = """
import signal

before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
again = ntkrun.train(["pde=poisson", "weights=exact", "iterations=100"])
assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
assert again.directory != run.directory
assert again.metrics["loss"].equals(run.metrics["loss"])
print("the kernel is alive")
"""


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    """The executed code cells of the notebook and of one that repeats its run."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(AGAIN))
    nbformat.write(notebook, folder / "notebook.ipynb")
    done = subprocess.run([sys.executable, "-c", EXECUTE], cwd=folder, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    executed = nbformat.read(folder / "executed.ipynb", as_version=4)
    return [cell for cell in executed.cells if cell.cell_type == "code"]


def outputs(cell: dict[str, object]) -> str:
    return json.dumps(cell["outputs"])


def test_the_notebook_runs_and_its_run_repeats(cells: list[dict[str, object]]) -> None:
    assert "completed, relative L2 error" in outputs(cells[0])
    assert "trace/residual" in outputs(cells[2])
    assert "the kernel is alive" in outputs(cells[-1])


def test_the_bar_is_that_of_notebooks(cells: list[dict[str, object]]) -> None:
    assert "application/vnd.jupyter.widget-view+json" in outputs(cells[0])


@pytest.mark.parametrize("path", sorted(NOTEBOOK.parent.glob("*.ipynb")), ids=lambda path: str(path.stem))
def test_notebooks_are_kept_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
