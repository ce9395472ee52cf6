"""Solids from files, against volumes, moments and fluxes that are known otherwise."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from ntkrun.common.errors import ConfigError
from ntkrun.geometry import Mesh, Sampler, mesh
from ntkrun.pde import PDE, Term
from ntkrun.pde.check import check_problem


def saved(surface: trimesh.Trimesh, folder: Path, name: str = "solid.stl") -> Mesh:
    surface.export(folder / name)
    return mesh(str(folder / name))


def torus(folder: Path) -> Mesh:
    return saved(trimesh.creation.torus(1.0, 0.4, major_sections=48, minor_sections=24), folder)


def cross(folder: Path) -> Mesh:
    """A solid of large triangles with a reentrant edge: an L of depth 1."""
    corners = [[0, 0], [2, 0], [2, 1], [1, 1], [1, 2], [0, 2]]
    faces = [[0, 1, 3], [1, 2, 3], [0, 3, 5], [3, 4, 5]]
    return saved(trimesh.creation.extrude_triangulation(np.array(corners, dtype=float), faces, 1.0), folder, "l.obj")


def test_points_are_uniform_by_volume(tmp_path: Path) -> None:
    solid = torus(tmp_path)
    assert solid.measure == pytest.approx(2 * math.pi**2 * 0.4**2, rel=0.03)  # a little less, for flat triangles
    x = Sampler((solid,), 2**14, "sobol", 0).draw()
    ring = x[:, :2].norm(dim=1)
    assert (((ring - 1) ** 2 + x[:, 2] ** 2).sqrt() <= 0.403).all()  # chords of the ring cut corners
    # In a torus the mean of the distance to the axis is R + r^2 / (4 R); five standard errors of independent points.
    assert float(ring.mean()) == pytest.approx(1 + 0.4**2 / 4, abs=5 * 0.2 / 2**7)
    assert x.mean(0).abs().max() < 5 * 0.75 / 2**7
    assert solid.contains(x).all()


def test_what_it_contains_is_known_by_its_edges(tmp_path: Path) -> None:
    solid = cross(tmp_path)
    assert solid.measure == pytest.approx(3)
    x = 2.4 * torch.rand(20_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.2
    expected = ((x >= 0) & (x <= torch.tensor([2.0, 2.0, 1.0]))).all(1) & ~((x[:, 0] > 1) & (x[:, 1] > 1))
    assert torch.equal(solid.contains(x), expected)
    corners = torch.tensor([[0, 0, 0], [2, 1, 1], [1, 1, 0.5], [1.5, 1, 0.2], [0, 1, 1]], dtype=torch.float64)
    assert solid.contains(corners).all()
    points = Sampler((solid,), 3000, "sobol", 0).draw()
    assert abs(int((points[:, 0] > 1).sum()) - 1000) < 30
    assert abs(int((points[:, 1] > 1).sum()) - 1000) < 30


def test_outward_normals_and_parts(tmp_path: Path) -> None:
    solid = torus(tmp_path).marked("top", lambda x, y, z: z > 0)
    assert solid.parts == ("top", "surface") or solid.parts == ("surface", "top")
    flux = 0.0
    for part in solid.boundary():
        x = Sampler((part,), 4096, "sobol", 0).draw()
        flux += part.measure * float((x[:, :3] * x[:, 3:]).sum(1).mean())
        assert part.columns == ("nx", "ny", "nz")
    assert flux == pytest.approx(3 * solid.measure, rel=2e-3)
    top = Sampler(solid.boundary("top"), 100, "uniform", 0).draw()
    assert top[:, 2].min() >= 0


def test_surfaces_turned_inside_out_are_turned_back(tmp_path: Path) -> None:
    ball = trimesh.creation.icosphere(3)
    ball.invert()
    solid = saved(ball, tmp_path)
    x = Sampler(solid.boundary(), 500, "sobol", 0).draw()
    assert (x[:, :3] * x[:, 3:]).sum(1).min() > 0.9


def test_what_is_no_solid_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_one = trimesh.creation.icosphere(2)
    open_one.update_faces(np.arange(len(open_one.faces)) > 5)
    with pytest.raises(ValueError, match=r"solid.stl: the surface is not closed"):
        saved(open_one, tmp_path)
    with pytest.raises(ConfigError, match=r"missing.stl: no surface can be read"):
        mesh(str(tmp_path / "missing.stl"))
    monkeypatch.setitem(__import__("sys").modules, "trimesh", None)
    with pytest.raises(ConfigError, match=r"trimesh: pip install 'ntkrun\[shapes\]'"):
        mesh("any.stl")


def test_it_may_be_the_domain_of_a_problem(tmp_path: Path) -> None:
    class Own(PDE):
        domain = torus(tmp_path)

        def terms(self) -> tuple[Term, ...]:
            return (
                Term("residual", (self.domain,), ("u_xx", "u_yy", "u_zz"), lambda x, d: d.u_xx + d.u_yy + d.u_zz),
                Term("flux", self.domain.boundary(), ("u_x",), lambda x, d: d.u_x - x.nx),
            )

    check_problem(Own())
