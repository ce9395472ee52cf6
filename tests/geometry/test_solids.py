"""Solids, against volumes, areas, moments and normals that are known otherwise."""

import math

import pytest
import torch

from ntkrun.geometry import Box, Sampler, Solid, ball, block
from ntkrun.geometry.cells import Cells, accepted

SHELL = ball((0, 0, 0), 1, "outer") - ball((0, 0, 0), 0.5, "inner")
BITTEN = block(x=(0, 1), y=(0, 1), z=(0, 2)) - ball((1, 1, 2), 0.5, "bite")
HALF = ball((0, 0, 0), 1) & block(x=(-1, 1), y=(-1, 1), z=(0, 1))
CORNER = block("walls", x=(0, 2), y=(0, 2), z=(0, 2)) - block("notch", x=(1, 3), y=(1, 3), z=(1, 3))
LENS = ball((0, 0, 0), 1, "left") | ball((1, 0, 0), 1, "right")

# Volumes, and integrals of x, by hand: of the lens, two balls less what they share, 5 pi / 12.
SOLIDS: dict[str, tuple[Solid, float, float]] = {
    "shell": (SHELL, 4 / 3 * math.pi * (1 - 1 / 8), 0.0),
    "bitten": (BITTEN, 2 - math.pi / 48, 1 - (math.pi / 48 - math.pi * 0.5**4 / 16)),
    "half": (HALF, 2 / 3 * math.pi, 0.0),
    "corner": (CORNER, 7.0, 8 - 1.5),
    "lens": (LENS, 8 / 3 * math.pi - 5 / 12 * math.pi, (8 / 3 - 5 / 12) * math.pi / 2),
}


@pytest.mark.parametrize("name", SOLIDS)
def test_points_are_uniform_by_volume(name: str) -> None:
    solid, volume, first = SOLIDS[name]
    assert solid.measure == pytest.approx(volume, rel=3e-4)
    x = Sampler((solid,), 2**16, "sobol", 0).draw()
    assert solid.contains(x).all()
    # Twice the standard error of as many independent points, of a coordinate with a deviation below 0.75.
    assert float(x[:, 0].mean()) == pytest.approx(first / volume, abs=2 * 0.75 / 2**8)
    assert len(x.unique(dim=0)) == len(x)


def test_radii_in_a_shell_are_distributed_by_volume() -> None:
    """The Kolmogorov-Smirnov distance of independent points; 1.95 / sqrt(n) is its quantile of 1e-3."""
    radius = Sampler((SHELL,), 20_000, "uniform", 3).draw().norm(dim=1).sort().values
    expected = (radius**3 - 1 / 8) / (1 - 1 / 8)
    steps = torch.arange(1, len(radius) + 1) / len(radius)
    assert (steps - expected).abs().max() < 1.95 / math.sqrt(len(radius))


def test_sobol_points_are_spread_more_evenly() -> None:
    """The share of a shell below 200 planes: a cap of 1 less one of 1/2, in closed form."""
    generator = torch.Generator().manual_seed(0)
    normals = torch.nn.functional.normalize(torch.randn(200, 3, generator=generator, dtype=torch.float64), dim=1)
    heights = 1.8 * torch.rand(200, generator=generator, dtype=torch.float64) - 0.9

    def cap(h: torch.Tensor, r: float) -> torch.Tensor:
        h = h.clamp(-r, r)
        return math.pi * (r**2 * (h + r) - (h**3 + r**3) / 3)

    exact = (cap(heights, 1) - cap(heights, 0.5)) / SOLIDS["shell"][1]

    def error(method: str) -> float:
        found = [Sampler((SHELL,), 1024, method, seed).draw() @ normals.T < heights for seed in range(10)]  # type: ignore[arg-type]
        return float(torch.stack([(each.double().mean(0) - exact).abs().max() for each in found]).median())

    assert error("sobol") < error("uniform") / 2


@pytest.mark.parametrize("name", SOLIDS)
def test_outward_normals_by_the_theorem_of_gauss(name: str) -> None:
    """The flux of (x, y, z) is three times the volume."""
    solid, volume, _ = SOLIDS[name]
    flux = 0.0
    for part in solid.boundary():
        x = Sampler((part,), 4096, "sobol", 0).draw()
        assert part.columns == ("nx", "ny", "nz")
        flux += part.measure * float((x[:, :3] * x[:, 3:]).sum(1).mean())
        assert solid.contains(x[:, :3]).all()
        assert solid.contains(x[:, :3] - 1e-3 * x[:, 3:]).double().mean() > 0.99  # but at edges
        assert solid.contains(x[:, :3] + 1e-3 * x[:, 3:]).double().mean() < 0.01
    assert flux == pytest.approx(3 * volume, rel=2e-3)


def test_parts_and_their_areas() -> None:
    areas = {name: sum(part.measure for part in BITTEN.boundary(name)) for name in BITTEN.parts}
    quarter = math.pi * 0.5**2 / 4
    expected = {"x_low": 2, "x_high": 2 - quarter, "y_low": 2, "y_high": 2 - quarter, "z_low": 1, "z_high": 1 - quarter}
    assert areas == pytest.approx({**expected, "bite": math.pi / 8 * 4 * 0.25}, rel=1e-3)
    assert CORNER.parts == ("walls", "notch")
    assert sum(part.measure for part in CORNER.boundary("notch")) == pytest.approx(3, rel=1e-3)
    assert sum(part.measure for part in CORNER.boundary("walls")) == pytest.approx(21, rel=1e-3)


def test_with_time_and_after_a_resume() -> None:
    domain = SHELL * Box.of(t=(0, 1))
    sampler = Sampler((domain,), 50, "sobol", 0)
    draws = [sampler.draw() for _ in range(66)]
    other = Sampler((domain,), 50, "sobol", 0)
    other.skip_to(64)
    assert torch.equal(other.draw(), draws[64])
    wall = Sampler(domain.boundary("inner"), 10, "uniform", 0).draw()
    assert wall.shape == (10, 7)
    assert torch.allclose(wall[:, :3].norm(dim=1), torch.tensor(0.5).double())
    assert torch.allclose(wall[:, 4:], -2 * wall[:, :3])


def test_nothing_left_is_refused() -> None:
    with pytest.raises(ValueError, match="a solid without a volume"):
        _ = (ball((0, 0, 0), 1) & ball((9, 0, 0), 1)).measure
    with pytest.raises(ValueError, match="next to nothing is left"):
        accepted(torch.rand(3, 2).double(), lambda u: u, lambda x: torch.zeros(len(x), dtype=torch.bool))
    with pytest.raises(ValueError, match="the lower end first"):
        block(x=(0, 1), y=(1, 0), z=(0, 1))


def test_cells_take_their_shares() -> None:
    """Of three cells of four in the plane, each has a third of a fine grid of the unit square."""
    cells = Cells(
        torch.zeros(2).double(), torch.tensor([2.0, 4.0]).double(), torch.tensor([[True, False], [True, True]])
    )
    unit = (torch.cartesian_prod(torch.arange(60), torch.arange(60)) + 0.5) / 60
    x = cells.scale(unit.double())
    counts = torch.zeros(2, 2)
    counts.index_put_(tuple((x / torch.tensor([1.0, 2.0])).long().T), torch.ones(3600), accumulate=True)
    assert counts.tolist() == [[1200, 0], [1200, 1200]]
    assert cells.volume == 6
