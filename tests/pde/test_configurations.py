"""The menu of problems says what the classes say."""

import importlib
import inspect
from pathlib import Path

import pytest
import torch
import yaml

import ntkrun.pde
from ntkrun.config.component import read_component
from ntkrun.config.schema import read_setup
from ntkrun.geometry import Sampler
from ntkrun.pde import PDE

FOLDER = Path(__file__).parents[2] / "conf" / "pde"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
SETUP = {"points", "sampling", "resample_every", "grid"}


def read(name: str) -> dict[str, object]:
    values: dict[str, object] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    return values


def problem(values: dict[str, object]) -> PDE:
    return read_component({k: v for k, v in values.items() if k not in SETUP}, "pde", PDE).build()


def test_every_problem_has_a_file() -> None:
    classes = {name for name in ntkrun.pde.__all__ if inspect.isclass(getattr(ntkrun.pde, name))}
    problems = {name for name in classes if issubclass(getattr(ntkrun.pde, name), PDE)} - {"PDE"}
    assert {str(read(name)["_target_"]) for name in NAMES} == {f"ntkrun.pde.{name}" for name in problems}


@pytest.mark.parametrize("name", NAMES)
def test_the_file_states_the_defaults_of_the_class(name: str) -> None:
    values = read(name)
    module, _, cls = str(values.pop("_target_")).rpartition(".")
    parameters = inspect.signature(getattr(importlib.import_module(module), cls)).parameters
    given = {k: v for k, v in values.items() if k not in SETUP}
    defaults = {k: p.default for k, p in parameters.items()}
    assert given == {k: list(v) if isinstance(v, tuple) else v for k, v in defaults.items()}


@pytest.mark.parametrize("name", NAMES)
def test_the_points_are_those_of_the_terms(name: str) -> None:
    values = read(name)
    pde = problem(values)
    terms, domain = {term.name: term for term in pde.terms()}, pde.domain
    setup = read_setup(values)
    assert list(setup.points) == list(terms)
    for term, count in setup.points.items():
        points = Sampler(terms[term].region, count, setup.sampling, 0).draw()
        assert len(points) == count
        low, high = (torch.tensor(list(bounds.values()), dtype=torch.float64) for bounds in (domain.low, domain.high))
        places = points[:, : len(domain.coordinates)]
        assert bool(((places >= low) & (places <= high)).all())
        assert bool(domain.contains(places, 1e-12).all())


@pytest.mark.parametrize("name", NAMES)
def test_every_key_is_explained(name: str) -> None:
    first, *lines = (FOLDER / f"{name}.yaml").read_text().splitlines()
    assert first.startswith("# ")
    assert [line for line in lines if not line.startswith(("_target_", "  ")) and "# " not in line] == []
