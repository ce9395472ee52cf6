import pytest
import torch
from scipy.stats import kstest
from torch import Tensor
from torch.quasirandom import SobolEngine

from ntkrun.geometry import Box, Sampler, mix_seed, share_out

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
    other.skip_to(2)
    assert torch.equal(other.draw(), draws[2])
    assert torch.equal(other.draw(), draws[3])


@pytest.mark.parametrize("method", ["uniform", "sobol"])
@pytest.mark.parametrize(("count", "length"), [(7, 64), (3000, 21), (40_000, 1)])
def test_a_draw_is_the_same_whatever_was_drawn_before(method: str, count: int, length: int) -> None:
    region = (SQUARE, SQUARE.face("x", "low"))
    fresh = Sampler(region, count, method, seed=1)  # type: ignore[arg-type]
    assert fresh.left == length
    draws = [fresh.draw() for _ in range(2 * length + 2)]
    for k in {0, 1, length // 2, length - 1, length, length + 1, 2 * length, 2 * length + 1}:
        other = Sampler(region, count, method, seed=1)  # type: ignore[arg-type]
        other.draw()
        other.skip_to(k)
        assert torch.equal(other.draw(), draws[k])
    several = Sampler(region, count, method, seed=1)  # type: ignore[arg-type]
    taken: list[Tensor] = []
    while len(taken) < len(draws):
        taken += several.draws(min(5, several.left))
    for ours, expected in zip(taken, draws, strict=False):
        assert torch.equal(ours, expected)


def test_blocks_of_sobol_draws_are_one_sequence() -> None:
    """That of torch, drawn point by point."""
    engine = SobolEngine(2, scramble=True, seed=mix_seed(5, 0))
    sampler = Sampler((SQUARE,), 9, "sobol", seed=5)
    corner, widths = torch.tensor([-1.0, 0.0]).double(), torch.tensor([2.0, 2.0]).double()
    for _ in range(130):
        sequence = torch.cat([engine.draw(1, dtype=torch.float64) for _ in range(9)])
        assert torch.equal(sampler.draw(), corner + sequence * widths)


def test_blocks_of_uniform_draws_are_independent() -> None:
    """Of 130 draws, the same point in all draws and all points are spread evenly, and none comes twice."""
    sampler = Sampler((SQUARE,), 8, "uniform", seed=5)
    draws = torch.stack([sampler.draw() for _ in range(130)])
    assert len(draws.reshape(-1, 2).unique(dim=0)) == 130 * 8
    for points in (draws[:, 3], draws.reshape(-1, 2)):
        assert kstest(points[:, 1].numpy(), "uniform", (0.0, 2.0)).pvalue > 1e-3
    later = draws[1:, :, 0] * draws[:-1, :, 0]
    assert abs(later.mean().item()) < 4 / (3 * later.numel() ** 0.5)  # four standard errors: x has variance 1/3


def test_no_more_draws_at_a_time_than_are_left_in_the_block() -> None:
    sampler = Sampler((SQUARE,), 1000, "uniform", seed=0)
    sampler.draw()
    with pytest.raises(ValueError, match="65 draws at a time are asked for; 63 are left in the block"):
        sampler.draws(65)
    assert len(sampler.draws(63)) == 63


def test_a_box_is_reached_from_end_to_end() -> None:
    box = Box.of(x=(-1.0, 3.0), y=(2.0, 2.0), t=(0.5, 1.0))
    unit = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.25, 0.5]], dtype=torch.float64)
    expected = [[-1.0, 2.0, 0.5], [3.0, 2.0, 1.0], [0.0, 2.0, 0.75]]
    assert box.scale(unit).tolist() == expected
    assert box.scale(unit[None].repeat(2, 1, 1)).tolist() == [expected, expected]


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


@pytest.mark.parametrize(
    ("count", "shares", "expected"),
    [
        (7, [0.5, 0.5], [4, 3]),
        (10, [0.6, 0.3, 0.1], [6, 3, 1]),
        (10, [0.94, 0.04, 0.02], [8, 1, 1]),
        (3, [0.98, 0.01, 0.01], [1, 1, 1]),
        (100, [1 / 3, 1 / 3, 1 / 3], [34, 33, 33]),
    ],
)
def test_shares_of_points(count: int, shares: list[float], expected: list[int]) -> None:
    assert share_out(count, shares) == expected


def test_boxes_have_points_by_their_measure_unless_told_otherwise() -> None:
    region = (Box.of(x=(0.0, 1.0), y=(0.0, 1.0)), Box.of(x=(1.0, 4.0), y=(0.0, 1.0)))
    assert (Sampler(region, 8, "sobol", seed=0).draw()[:, 0] > 1).sum() == 6
    assert (Sampler(region, 8, "sobol", seed=0, shares=(3, 1)).draw()[:, 0] > 1).sum() == 2
    mixed = (region[0], Box.of(x=(0.0, 0.0), y=(0.0, 5.0)))
    assert (Sampler(mixed, 8, "uniform", seed=0).draw()[:, 0] == 0).sum() == 4


@pytest.mark.parametrize("method", ["uniform", "sobol"])
def test_more_boxes_than_points_take_turns(method: str) -> None:
    """Every face of a cube, one of which is twice as large, has its share of 4,800 draws, spread over all of it."""
    cube = Box.of(x=(0.0, 1.0), y=(0.0, 1.0), z=(0.0, 1.0))
    region = (*cube.faces("x", "y"), cube.face("z", "low"), Box.of(x=(0.0, 2.0), y=(0.0, 1.0), z=(1.0, 1.0)))
    sampler = Sampler(region, 4, method, seed=3)  # type: ignore[arg-type]
    draws = torch.stack([sampler.draw() for _ in range(4800)])
    points = draws.flatten(0, 1)
    on = [(points[:, i] == value) for i in range(3) for value in (0.0, 1.0)]
    counts = torch.stack(on).sum(1)
    share = 4 * 4800 / 7
    assert (counts / torch.tensor([share] * 5 + [2 * share]) - 1).abs().max() < 0.01
    for face, axis in zip(on, (1, 1, 2, 2, 0, 0), strict=True):
        widest = 2.0 if points[face][:, axis].max() > 1 else 1.0
        assert kstest(points[face][:, axis].numpy() / widest, "uniform").pvalue > 1e-3
    other = Sampler(region, 4, method, seed=3)  # type: ignore[arg-type]
    for k in (0, 63, 64, 700):
        other.skip_to(k)
        assert torch.equal(other.draw(), draws[k])


def test_many_measured_places_take_turns() -> None:
    """Of 1,000 places and 300 points, every place is met in its 30 % of 400 draws, and no draw has one twice."""
    places = tuple(Box.of(x=(float(k), float(k))) for k in range(1000))
    sampler = Sampler(places, 300, "uniform", seed=1)
    draws = torch.stack([sampler.draw()[:, 0] for _ in range(400)])
    assert all(len(draw.unique()) == 300 for draw in draws)
    times = draws.flatten().long().bincount(minlength=1000)
    assert (times - 120).abs().max() <= 4  # the discrepancy of multiples of the golden ratio


def test_ends_of_an_interval_are_points() -> None:
    interval = Box.of(x=(0.0, 3.0))
    assert Sampler(interval.faces("x"), 4, "sobol", seed=0).draw().flatten().tolist() == [0, 0, 3, 3]


def test_mixed_seeds_are_distinct() -> None:
    assert len({mix_seed(a, b, c) for a in range(20) for b in range(20) for c in range(20)}) == 8000
