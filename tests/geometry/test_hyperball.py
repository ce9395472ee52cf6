"""Balls in many dimensions: measures, points and normals against closed forms and SciPy's distributions."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from ntkrun.geometry import Box, Sampler, ball, hyperball

LETTERS = "abcdefgh"


@pytest.mark.parametrize(
    ("d", "volume"), [(2, math.pi), (3, 4 * math.pi / 3), (4, math.pi**2 / 2), (5, 8 * math.pi**2 / 15)]
)
def test_measures(d: int, volume: float) -> None:
    solid = hyperball((0.5,) * d, 2.0, letters=LETTERS[:d])
    (surface,) = solid.boundary("sphere")
    assert solid.measure == pytest.approx(volume * 2**d)
    assert surface.measure == pytest.approx(d * volume * 2 ** (d - 1))
    assert (solid.dimension, surface.dimension) == (d, d - 1)


@pytest.mark.parametrize("d", [2, 3, 4, 5, 6, 7])
def test_points_are_uniform(d: int) -> None:
    """A coordinate x of the ball has (1 + x) / 2 ~ Beta((d + 1) / 2, (d + 1) / 2), of its surface (d - 1) / 2 twice."""
    solid = hyperball((0.0,) * d, 1.0, "skin", letters=LETTERS[:d])
    inside = Sampler((solid,), 4000, "uniform", 3).draw().numpy()
    rim = Sampler(solid.boundary(), 4000, "uniform", 4).draw().numpy()[:, :d]
    # every line through the centre is like every other
    oblique = np.ones(d) / math.sqrt(d)
    for points, parameter in ((inside, (d + 1) / 2), (rim, (d - 1) / 2)):
        for x in (*points.T, points @ oblique):
            assert stats.kstest((1 + x) / 2, stats.beta(parameter, parameter).cdf).pvalue > 1e-3
    assert stats.kstest(np.linalg.norm(inside, axis=1) ** d, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("d", [4, 5])
def test_low_discrepancy(d: int) -> None:
    """Means of squares over Sobol points, r^2 / (d + 2) and r^2 / d, to an accuracy that random points lack."""
    solid = hyperball((0.0,) * d, 3.0, letters=LETTERS[:d])
    inside = Sampler((solid,), 8192, "sobol", 0).draw()
    rim = Sampler(solid.boundary(), 8192, "sobol", 0).draw()[:, :d]
    torch.testing.assert_close(inside.square().mean(0), torch.full((d,), 9 / (d + 2)).double(), rtol=2e-3, atol=0)
    torch.testing.assert_close(rim.square().mean(0), torch.full((d,), 9 / d).double(), rtol=2e-3, atol=0)


def test_surface_and_normals() -> None:
    centre = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]).double()
    solid = hyperball(centre.tolist(), 0.5, letters="abcde")
    cylinder = solid * Box.of(t=(0.0, 1.0))
    (side,) = cylinder.boundary()
    assert side.columns == ("na", "nb", "nc", "nd", "ne")
    points = Sampler((side,), 64, "sobol", 0).draw()
    torch.testing.assert_close(points[:, :5], centre + 0.5 * points[:, 6:])
    torch.testing.assert_close(points[:, 6:].norm(dim=1), torch.ones(64).double())
    (surface,) = solid.boundary()
    assert solid.contains(points[:, :5]).all()
    assert surface.contains(points[:, :5]).all()
    assert not solid.contains(points[:, :5] + 1e-3 * points[:, 6:]).any()
    assert not surface.contains(points[:, :5] - 1e-3 * points[:, 6:]).any()


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="two or more each"):
        hyperball((0, 0, 0), 1.0, letters="xy")
    with pytest.raises(ValueError, match="positive radius"):
        hyperball((0, 0), 0.0, letters="xy")
    with pytest.raises(ValueError, match="hyperball takes any number"):
        ball((0, 0, 0, 0), 1.0)
