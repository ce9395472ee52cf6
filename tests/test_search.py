"""The search for settings in docs/sweeps.md, on a small scale: kept in a file, continued, with trials that are left."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import ntkrun

pytestmark = pytest.mark.long

optuna = pytest.importorskip("optuna", reason="the extra search is not installed")

PAGE = Path(__file__).parents[1] / "docs" / "sweeps.md"


def test_the_search_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (script,) = re.findall(r"```python\n# search\.py\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    changes = {
        "STAGES = (500, 1000, 2000)": "STAGES = (2, 4)",
        "n_trials=20": "n_trials=2",
        '"width", 16, 128': '"width", 4, 8',
    }
    for before, after in changes.items():
        assert script.count(before) == 1
        script = script.replace(before, after)
    monkeypatch.chdir(tmp_path)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    train, seen = ntkrun.train, list[list[str]]()

    def small(overrides: list[str]) -> Any:
        seen.append(overrides)
        own = [] if overrides[0].startswith("resume=") else ["network.depth=1", "pde.grid=20"]
        return train([*overrides, *own, "progress=false"])

    monkeypatch.setattr(ntkrun, "train", small)
    found: dict[str, Any] = {}
    for _ in range(2):  # the second time it is continued
        found = {"__name__": "search"}
        exec(compile(script, "search.py", "exec", dont_inherit=True), found)
    study = found["study"]
    assert len(study.trials) == 4
    ended = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    assert ended
    finals = [ntkrun.load(path).summary["rel_l2"]["final"] for path in (tmp_path / "outputs").glob("*/*")]
    told = [trial.intermediate_values[max(trial.intermediate_values)] for trial in study.trials]
    assert sorted(told) == pytest.approx(sorted(finals))
    assert study.best_value == min(trial.value for trial in ended)
    for trial in ended:
        assert sorted(trial.intermediate_values) == [2, 4]
    assert sum(each[0].startswith("resume=") for each in seen) == sum(4 in t.intermediate_values for t in study.trials)
