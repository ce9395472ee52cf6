"""Shapes in the plane, against areas, lengths, moments and normals that are known otherwise."""

import math

import numpy as np
import pytest
import shapely
import torch
from torch import Tensor

from ntkrun.geometry import Box, Domain, Sampler, ball, disc, polygon, rectangle, shape
from ntkrun.geometry.planar import Planar

L_SHAPE = rectangle(x=(-1, 1), y=(-1, 1)) - rectangle(x=(0, 1), y=(0, 1))
RING = disc((0, 0), 1, "outer") - disc((0.3, 0), 0.25, "hole")
CHANNEL = rectangle(x=(0, 4), y=(0, 1)) - disc((1, 0.4), 0.2, "cylinder")
STAR = polygon([(0, 0), (2, 1), (4, 0), (3, 2), (4, 4), (2, 3), (0, 4), (1, 2)])
TWO = rectangle(x=(0, 1), y=(0, 1)) | disc((3, 0), 0.5)

# Areas, and the integrals of x and of x^2 y, by hand.
DISC_X2Y = math.pi * 0.2**2 * 0.4 * (1 + 0.2**2 / 4)
SHAPES: dict[str, tuple[Planar, float, float, float]] = {
    "l": (L_SHAPE, 3.0, -0.5, -1 / 6),
    "ring": (RING, math.pi * (1 - 0.25**2), -0.3 * math.pi * 0.25**2, 0.0),
    "channel": (CHANNEL, 4 - math.pi * 0.2**2, 8 - math.pi * 0.2**2, 32 / 3 - DISC_X2Y),
    "two": (TWO, 1 + math.pi / 4, 0.5 + 3 * math.pi / 4, 1 / 6),
}


def points(domain: Domain, count: int, method: str = "sobol", seed: int = 0) -> Tensor:
    return Sampler((domain,), count, method, seed).draw()  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SHAPES)
def test_points_are_uniform_by_area(name: str) -> None:
    """Integrals by 2^14 Sobol points, whose error is far below that of as many independent ones, 1/128."""
    domain, area, first, third = SHAPES[name]
    assert domain.measure == pytest.approx(area, rel=1e-5)
    x, y = points(domain, 2**14).unbind(1)
    assert float(x.mean()) * area == pytest.approx(first, abs=2e-3)
    assert float((x**2 * y).mean()) * area == pytest.approx(third, abs=5e-3)
    assert bool(domain.contains(torch.stack([x, y], 1)).all())


@pytest.mark.parametrize("name", SHAPES)
def test_independent_points_fill_cells_by_their_areas(name: str) -> None:
    """The chi-square statistic of counts in cells of a grid; areas of cells by shapely. Five standard deviations."""
    domain, area, *_ = SHAPES[name]
    n, count = 8, 20_000
    x = points(domain, count, "uniform", seed=4)
    low, high = np.array(list(domain.low.values())), np.array(list(domain.high.values()))
    cell = np.minimum(((x.numpy() - low) / (high - low) * n).astype(int), n - 1)
    counts = np.zeros((n, n))
    np.add.at(counts, tuple(cell.T), 1)
    width = (high - low) / n
    boxes = [
        [shapely.box(*(low + width * (i, j)), *(low + width * (i + 1, j + 1))) for j in range(n)] for i in range(n)
    ]
    areas = shapely.area(shapely.intersection(np.array(boxes), domain.polygon))
    expected = count * areas / areas.sum()
    assert counts[expected == 0].sum() == 0
    some = expected > 5
    statistic = float(((counts - expected)[some] ** 2 / expected[some]).sum())
    freedom = int(some.sum()) - 1
    assert abs(statistic - freedom) < 5 * math.sqrt(2 * freedom)
    assert np.array(areas).sum() == pytest.approx(area, rel=1e-5)


def test_sobol_points_are_spread_more_evenly_than_independent_ones() -> None:
    """The largest error of the areas of 300 half planes, over ten seeds."""
    generator = np.random.default_rng(0)
    angle, distance = generator.uniform(0, 2 * np.pi, 300), generator.uniform(-0.7, 0.7, 300)
    normals = np.stack([np.cos(angle), np.sin(angle)])
    fine = points(STAR, 2**17).numpy() / 2 - 1
    exact = (fine @ normals < distance).mean(0)

    def error(method: str) -> float:
        found = [(points(STAR, 1024, method, seed).numpy() / 2 - 1) @ normals < distance for seed in range(10)]
        return float(np.median([abs(each.mean(0) - exact).max() for each in found]))

    assert error("sobol") < error("uniform") / 3


def test_draws_go_on_after_a_resume_and_have_the_number_asked_for() -> None:
    region = (RING, *RING.boundary("hole")[:0])
    sampler = Sampler(region, 77, "sobol", seed=1)
    draws = [sampler.draw() for _ in range(70)]
    other = Sampler(region, 77, "sobol", seed=1)
    for k in (3, 63, 64, 69):
        other.skip_to(k)
        assert torch.equal(other.draw(), draws[k])
    assert len(torch.cat(draws).unique(dim=0)) == 70 * 77


def test_parts_of_the_boundary_by_name() -> None:
    assert set(CHANNEL.parts) == {"left", "right", "bottom", "top", "cylinder"}
    lengths = {name: sum(part.measure for part in CHANNEL.boundary(name)) for name in CHANNEL.parts}
    assert lengths == pytest.approx({"left": 1, "right": 1, "bottom": 4, "top": 4, "cylinder": 0.4 * math.pi}, rel=1e-9)
    x = Sampler(CHANNEL.boundary("cylinder"), 200, "sobol", 0).draw()
    centre = torch.tensor([1, 0.4], dtype=torch.float64)
    assert ((x[:, :2] - centre).norm(dim=1) - 0.2).abs().max() < 1e-12  # on the circle, not on its chords
    assert torch.allclose(x[:, 2:], (centre - x[:, :2]) / 0.2, atol=1e-12)  # out of the channel, into the cylinder
    top = Sampler(CHANNEL.boundary("top"), 8, "uniform", 0).draw()
    assert top[:, 1:].tolist() == [[1, 0, 1]] * 8
    with pytest.raises(
        ValueError, match="the boundary has no part 'cilinder', only left, bottom, right, top, cylinder"
    ):
        CHANNEL.boundary("cilinder")


@pytest.mark.parametrize("name", ["l", "ring", "channel", "two"])
def test_outward_normals_by_the_theorem_of_gauss(name: str) -> None:
    """The flux of (x, y) through the boundary is twice the area, that of a constant field vanishes."""
    domain, area, *_ = SHAPES[name]
    flux, constant = 0.0, torch.zeros(2, dtype=torch.float64)
    for part in domain.boundary():
        x = Sampler((part,), 4096, "sobol", 0).draw()
        assert torch.allclose(x[:, 2:].norm(dim=1), torch.ones(4096, dtype=torch.float64))
        assert part.columns == ("nx", "ny")
        flux += part.measure * float((x[:, :2] * x[:, 2:]).sum(1).mean())
        constant += part.measure * x[:, 2:].mean(0)
        outside = x[:, :2] + 1e-3 * x[:, 2:]
        assert not domain.contains(outside).any()
        assert domain.contains(x[:, :2]).all()
    assert flux == pytest.approx(2 * area, rel=1e-3)
    assert constant.abs().max() < 1e-3 * area


def test_a_product_with_time() -> None:
    domain = RING * Box.of(t=(0, 2))
    assert domain.coordinates == ("x", "y", "t")
    assert domain.measure == pytest.approx(2 * RING.measure)
    x = points(domain, 512)
    assert x.shape == (512, 3)
    assert domain.contains(x).all()
    late = x + torch.tensor([0, 0, 2.0])
    assert not domain.contains(late[x[:, 2] > 0]).any()
    assert domain.parts == ("outer", "hole", "t_low", "t_high")
    side = domain.boundary()
    assert [part.columns for part in side] == [("nx", "ny")] * 2
    wall = Sampler(domain.boundary("hole"), 64, "sobol", 0).draw()
    assert wall.shape == (64, 5)
    assert len(wall[:, 2].unique()) == 64
    start = points(domain.face("t", "low"), 64)
    assert start[:, 2].eq(0).all()
    assert domain.face("t", "low").measure == pytest.approx(RING.measure)
    with pytest.raises(ValueError, match="the shape is no box along x; its boundary has the parts outer, hole, t_low"):
        domain.face("x", "low")
    with pytest.raises(ValueError, match="which are to differ"):
        RING * RING
    assert domain == RING * Box.of(t=(0, 2))  # the same region, made anew


def test_shapes_of_shapely_and_marks() -> None:
    domain = shape(shapely.from_wkt("POLYGON ((0 0, 4 0, 4 2, 0 2, 0 0), (1 0.5, 1 1, 2 1, 2 0.5, 1 0.5))"))
    assert domain.measure == 7.5
    assert domain.parts == ("boundary",)
    named = domain.marked("inlet", lambda x, y: x == 0).marked(
        "hole", lambda x, y: (x > 0.5) & (x < 2.5) & (y > 0) & (y < 2)
    )
    assert {name: named.boundary(name)[0].measure for name in named.parts} == {
        "inlet": 2,
        "hole": 3,
        "boundary": 10 - 0,
    }
    cut = named - disc((4, 2), 1, "bite")
    assert set(cut.parts) == {"inlet", "hole", "boundary", "bite"}
    assert cut.boundary("bite")[0].measure == pytest.approx(math.pi / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: disc((0, 0), 0), r"a disc about \(0, 0\) of radius 0, expected finite numbers, a positive radius"),
        (lambda: polygon([(0, 0), (math.nan, 0), (1, 1)]), "expected finite numbers"),
        (lambda: polygon([(0, 0), (1, 1)]), "a polygon of 2 corners with 2 names"),
        (lambda: polygon([(0, 0), (1, 1), (1, 0), (0, 1)]), "boundary meets itself: Self-intersection"),
        (lambda: disc((0, 0), 1) - disc((0, 0), 2), "without an area"),
        (lambda: rectangle(x=(0, 1), y=(0, 1)) & rectangle(x=(1, 2), y=(0, 1)), "without an area"),
    ],
)
def test_what_is_no_shape_is_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_equispaced_points_are_for_boxes() -> None:
    with pytest.raises(ValueError, match="equispaced points fill boxes alone"):
        points(RING, 16, "equispaced")


def test_what_cannot_be_combined_is_named() -> None:
    box = Box.of(x=(0.0, 1.0), y=(0.0, 1.0))
    for other in (box, ball((0, 0, 0), 1)):
        with pytest.raises(ValueError, match="a plane shape goes with others, as rectangle"):
            disc((0, 0), 1) - other  # type: ignore[operator]
    with pytest.raises(ValueError, match="a solid goes with others, as block"):
        ball((0, 0, 0), 1) | disc((0, 0), 1)  # type: ignore[operator]
