"""A run in a notebook: its table and its solution."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ntkrun.experiment.display import as_html

CONFIG: dict[str, Any] = {
    "network": {"_target_": "ntkrun.network.MLP"},
    "weights": {"_target_": "ntkrun.weights.Exact"},
    "optimizer": {"_target_": "mine.<Steps>"},
}
SUMMARY: dict[str, Any] = {
    **{"status": "failed", "message": "loss <not> finite", "step": 3, "iterations": 9, "parameters": 42},
    **{"rel_l2": {"final": 0.125}, "seconds": {"training": 1.5}},
}


def rows(page: str) -> dict[str, str]:
    return dict(re.findall(r"<th[^>]*>(.*?)</th><td[^>]*>(.*?)</td>", page))


def test_the_table(tmp_path: Path) -> None:
    page = as_html(tmp_path, "Wave", CONFIG, SUMMARY)
    assert rows(page) == {
        "problem": "Wave",
        "network": "MLP, 42 parameters",
        "weights": "Exact",
        "optimizer": "&lt;Steps&gt;",
        "status": "failed: loss &lt;not&gt; finite",
        "steps": "3 of 9",
        "relative L2 error": "1.250e-01",
        "training": "1.50 s",
        "directory": str(tmp_path),
    }
    assert "<img" not in page
    assert rows(as_html(tmp_path, "Wave", CONFIG, {}))["status"] == "unknown"


@pytest.mark.parametrize("scattered", [False, True])
def test_the_figure(scattered: bool, tmp_path: Path) -> None:
    values = np.linspace(0, 1, 20)[:, None]
    arrays: dict[str, Any] = {
        "fields": np.array(["u"]),
        "prediction": values,
        "exact": values + 1,
        "error": 0 * values - 1,
    }
    arrays |= (
        {"points": np.ones((20, 5)), "coordinates": np.array(list("abcde"))} if scattered else {"axis_x": values[:, 0]}
    )
    np.savez(tmp_path / "solution.npz", **arrays)
    (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', as_html(tmp_path, "Wave", CONFIG, SUMMARY))
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert picture.size == ((1024, 320) if scattered else (512, 448))


def test_a_damaged_solution_is_no_figure(tmp_path: Path) -> None:
    (tmp_path / "solution.npz").write_bytes(b"PK")
    assert "<img" not in as_html(tmp_path, "Wave", CONFIG, SUMMARY)
    np.savez(tmp_path / "solution.npz", fields=np.array(["u"]), axis_x=np.zeros(3), prediction=np.zeros((2, 1)))
    assert "<img" not in as_html(tmp_path, "Wave", CONFIG, SUMMARY)
