"""A sweep of many jobs in one process keeps nothing of those that are done.

``scripts/long_sweep.py`` is the long version, which also watches the memory.
"""

from __future__ import annotations

import gc
import linecache
import os
from pathlib import Path
from typing import Any

import pytest
from matplotlib import pyplot as plt
from omegaconf import DictConfig
from torch._inductor.codecache import PyCodeCache
from torch.fx import graph_module

SCRIPTS = Path(__file__).parents[2] / "scripts"
JOBS = 12
pytestmark = pytest.mark.long


def test_files_figures_threads_and_configurations_do_not_pile_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import long_sweep

    configurations: list[int] = []
    look = long_sweep.Watch.on_job_end

    def look_closely(self: Any, config: Any, job_return: Any, **_: Any) -> None:
        gc.collect()
        configurations.append(sum(type(each) is DictConfig for each in gc.get_objects()))
        look(self, config, job_return)

    monkeypatch.setattr(long_sweep.Watch, "on_job_end", look_closely)
    monkeypatch.chdir(tmp_path)
    seen = long_sweep.sweep(JOBS, tmp_path / "sweep", "iterations=5")
    assert len(seen) == JOBS
    assert len(list((tmp_path / "sweep").glob("*/plots/losses.png"))) == JOBS // 2
    first, last = seen[3], seen[-1]
    assert (last.files, last.figures) == (first.files, 0)
    assert last.python_threads == first.python_threads
    assert configurations[-1] == configurations[3]


def test_graphs_of_jobs_that_are_done_are_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, for what has been hidden from the garbage collector is not looked at again for a long time."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import long_sweep

    from ntkrun.steps import graph

    before: list[int] = []
    after: list[int] = []
    let_go = graph.forget_graphs

    def kept() -> int:
        sources = sum(name.startswith("<eval_with_key>") for name in linecache.cache)
        graphs = sum(type(each) is graph.Graph for each in gc.get_objects())
        return sources + graphs + len(graph_module._loader.eval_cache) + len(PyCodeCache.modules)

    def watch() -> None:
        before.append(kept())
        let_go()
        after.append(kept())

    let_go()
    monkeypatch.setattr(graph, "forget_graphs", watch)
    monkeypatch.chdir(tmp_path)
    long_sweep.sweep(4, tmp_path / "sweep", "iterations=3", "log_every=1", "trainer.compile=true")
    assert min(before) > 0  # there were graphs
    assert after == [0] * len(before)


def test_what_is_kept_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import long_sweep

    one = long_sweep.Holdings.now()
    with open(os.devnull):
        plt.figure()
        another = long_sweep.Holdings.now()
        plt.close()
    assert (another.files, another.figures) == (one.files + 1, one.figures + 1)
    seen = [one] * 20 + [another] * 4
    assert [holds for _, holds in long_sweep.verdicts(seen, 20)] == [True, False, False, True, True]
    grown = long_sweep.Holdings(one.memory * 1.06, one.files, one.figures, one.threads, one.python_threads)
    assert [holds for _, holds in long_sweep.verdicts([one] * 20 + [grown] * 4, 20)] == [False, True, True, True, True]
