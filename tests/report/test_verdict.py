"""Verdicts against SciPy's paired test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ntkrun.report import write_report
from ntkrun.report.aggregate import sweeps, swept_keys
from ntkrun.report.gather import gather
from ntkrun.report.verdict import compare, quantile, verdicts
from tests.report.folder import make_run


@pytest.mark.parametrize("freedom", [*range(1, 31), 31, 40, 100])
def test_quantiles(freedom: int) -> None:
    assert quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=2e-3 if freedom > 30 else 1e-4)


def test_a_comparison_is_a_paired_test_of_logarithms() -> None:
    draws = np.random.default_rng(0)
    one = np.exp(draws.normal(size=8))
    other = one * np.exp(draws.normal(0.5, 0.3, size=8))
    found = compare([(k, e) for k, e in enumerate(one)], [(k, e) for k, e in enumerate(other)][::-1])
    assert found is not None
    test = stats.ttest_rel(np.log(other), np.log(one))
    low, high = test.confidence_interval(0.95)
    assert found.seeds == 8
    assert found.ratio == pytest.approx(np.exp(np.mean(np.log(other / one))))
    assert (found.low, found.high) == (pytest.approx(np.exp(low), rel=1e-4), pytest.approx(np.exp(high), rel=1e-4))
    assert found.told_apart is bool(test.pvalue < 0.05)


def test_only_common_seeds_count() -> None:
    found = compare([(0, 1.0), (1, 2.0), (2, 3.0), (3, 0.0)], [(1, 4.0), (2, 6.0), (3, 9.0), (9, 1e9)])
    assert found is not None
    assert (found.ratio, found.seeds, found.low) == (pytest.approx(2), 2, pytest.approx(2))
    assert compare([(0, 1.0)], [(0, 2.0)]) is None
    wide = compare([(0, 1e-300), (1, 1.0)], [(0, 1e100), (1, 1.0)])
    assert wide is not None
    assert (wide.low, wide.high, wide.told_apart) == (0, float("inf"), False)
    assert compare([(0, 1.0), (1, 1.0)], [(2, 2.0), (3, 2.0)]) is None


def test_lines_on_the_page(tmp_path: Path) -> None:
    errors = {8: (1.0, 2.0, 4.0), 16: (3.0, 7.0, 11.0), 32: (1.1, 1.9, 4.1), 64: (9.0,)}
    for width, values in errors.items():
        for seed, error in enumerate(values):
            make_run(tmp_path / f"{width}-{seed}", [f"network.width={width}", f"seed={seed}"], error=error)
    runs = gather([tmp_path])
    (sweep,) = sweeps(runs, swept_keys(runs))
    close, worse, alone = verdicts(sweep)
    assert close.startswith(
        "network.width=8 against network.width=32: not told apart; the latter has 1.02 times the error"
    )
    assert worse.startswith("network.width=8 against network.width=16: better; the latter has 3.07 times the error")
    assert worse.endswith("; 3 seeds).")
    assert alone == "network.width=8 against network.width=64: fewer than two common seeds, so nothing can be said."
    page = write_report([tmp_path], tmp_path / "report").read_text(encoding="utf-8")
    assert f"<li>{close}</li>" in page


def test_one_group_is_compared_with_none(tmp_path: Path) -> None:
    for seed in (0, 1):
        make_run(tmp_path / str(seed), [f"seed={seed}"])
    runs = gather([tmp_path])
    (sweep,) = sweeps(runs, swept_keys(runs))
    assert verdicts(sweep) == []
