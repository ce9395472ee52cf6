import pytest
import torch
from scipy.stats import kstest

from ntkrun.geometry import Box, Sampler, mix_seed

SQUARE = Box.of(x=(-1.0, 1.0), t=(0.0, 2.0))


@pytest.mark.parametrize("method", ["uniform", "sobol"])
def test_points_fill_the_box(method: str) -> None:
    points = Sampler((SQUARE,), 512, method, seed=3).draw()  # type: ignore[arg-type]
    assert points.dtype == torch.float64
    for axis, letter in enumerate("xt"):
        low, width = SQUARE.low[letter], SQUARE.high[letter] - SQUARE.low[letter]
        assert kstest(points[:, axis].numpy(), "uniform", (low, width)).pvalue > 1e-3


def test_sobol_is_more_even_than_independent_points() -> None:
    """One point in each of 64 equal strips, the defining property of a (0, m, 1) net."""
    points = Sampler((SQUARE,), 64, "sobol", seed=0).draw()
    strips = ((points[:, 0] + 1) / 2 * 64).floor().long()
    assert len(strips.unique()) == 64


@pytest.mark.parametrize("method", ["uniform", "sobol"])
def test_draws_differ_and_go_on_after_reload(method: str) -> None:
    sampler = Sampler((SQUARE,), 10, method, seed=1)  # type: ignore[arg-type]
    draws = [sampler.draw() for _ in range(4)]
    assert len(torch.cat(draws).unique(dim=0)) == 40
    other = Sampler((SQUARE,), 10, method, seed=1)  # type: ignore[arg-type]
    other.draw()
    other.load_state_dict({"drawn": 2})
    assert torch.equal(other.draw(), draws[2])
    assert torch.equal(other.draw(), draws[3])


def test_seeds_give_different_points() -> None:
    assert not torch.equal(Sampler((SQUARE,), 4, "sobol", 0).draw(), Sampler((SQUARE,), 4, "sobol", 1).draw())


def test_equispaced_grid_includes_the_ends() -> None:
    points = Sampler((SQUARE,), 12, "equispaced", seed=0).draw()
    assert sorted(points[:, 0].unique().tolist()) == pytest.approx([-1, -1 / 3, 1 / 3, 1])
    assert sorted(points[:, 1].unique().tolist()) == pytest.approx([0, 1, 2])


@pytest.mark.parametrize("count", [13, 14, 22])
def test_lopsided_grids_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match="do not form a grid"):
        Sampler((SQUARE,), count, "equispaced", seed=0)


def test_faces_share_the_points() -> None:
    points = Sampler(SQUARE.faces("x"), 7, "uniform", seed=0).draw()
    assert points[:, 0].tolist() == [-1] * 4 + [1] * 3


def test_ends_of_an_interval_are_points() -> None:
    interval = Box.of(x=(0.0, 3.0))
    assert Sampler(interval.faces("x"), 4, "sobol", seed=0).draw().flatten().tolist() == [0, 0, 3, 3]


def test_mixed_seeds_are_distinct() -> None:
    assert len({mix_seed(a, b, c) for a in range(20) for b in range(20) for c in range(20)}) == 8000
