"""Settings tuned to a combination of choices: they apply to it alone, and what a user says wins."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_module

import ntkrun.cli.hydra_job  # noqa: F401  registers a resolver
from ntkrun.cli.help import choices
from ntkrun.cli.preflight import own_values
from ntkrun.config.assembly import assemble
from ntkrun.config.configuration import read_configuration

TUNED = Path(str(files("ntkrun.conf"))) / "tuned"
PLACES = {path.relative_to(TUNED).as_posix(): path for path in TUNED.rglob("*.yaml")}
GENERAL = {"iterations": 15000, "dtype": "float32", "log_every": 100}


def values(*overrides: str) -> dict[str, Any]:
    with initialize_config_module("ntkrun.conf", version_base="1.3"):
        return own_values(compose("config", overrides=list(overrides)))


def drawn(composed: dict[str, Any]) -> dict[str, int]:
    """Points by term, without measured ones, which are as many as there are."""
    return {term: count for term, count in composed["pde"]["points"].items() if count != "all"}


def test_there_are_files_for_every_problem() -> None:
    names = {
        place.split("/")[-1].removesuffix(".yaml") for place in PLACES if place.startswith("problem/gauss_newton/")
    }
    assert names == set(choices("pde"))


@pytest.mark.parametrize("place", PLACES)
def test_files_name_choices_that_exist(place: str) -> None:
    kind, *names = place.removesuffix(".yaml").split("/")
    groups = {
        "optimizer": ("optimizer",),
        "menu": ("optimizer",),
        "weights": ("optimizer", "weights"),
        "network": ("optimizer", "network"),
        "problem": ("optimizer", "network", "pde"),
        "experiment": ("optimizer", "experiment", "pde"),
    }[kind]
    assert len(names) == len(groups)
    for group, name in zip(groups, names, strict=True):
        assert name in choices(group)


@pytest.mark.parametrize("problem", choices("pde"))
def test_they_are_what_a_run_uses(problem: str) -> None:
    """All that a file says stands in the composed configuration, and the run can be built."""
    composed = values(f"pde={problem}")
    said = yaml.safe_load(PLACES[f"problem/gauss_newton/mlp/{problem}.yaml"].read_text())
    for key, value in said.items():
        if not isinstance(value, dict):
            assert composed[key] == value
            continue
        for name, each in value.items():
            assert composed[key][name] == (each if name != "points" else {**composed[key]["points"], **each})
    assert composed["dtype"] == "float64"
    assert composed["weights"]["update_every"] == 1
    parts = assemble(read_configuration(composed))
    assert parts.objective.layout.size < 2000
    assert parts.settings.checkpoint_every < parts.settings.iterations < 1000


@pytest.mark.parametrize("optimizer", ["gauss_newton", "adam_gauss_newton"])
@pytest.mark.parametrize("network", ["mlp", "fourier", "modified_mlp"])
def test_networks_are_small_enough_for_gauss_newton(optimizer: str, network: str) -> None:
    composed = values("pde=wave", f"network={network}", f"optimizer={optimizer}")
    assert composed["network"]["width"] == 20
    assert composed["network"]["depth"] == 3
    assert composed["dtype"] == "float64"
    parts = assemble(read_configuration(composed))
    assert parts.objective.layout.size < 2500


@pytest.mark.parametrize("optimizer", sorted(set(choices("optimizer")) - {"gauss_newton", "adam_gauss_newton"}))
def test_other_optimizers_keep_the_general_defaults(optimizer: str) -> None:
    if optimizer == "soap":
        pytest.importorskip("pytorch_optimizer")
    composed = values("pde=burgers", f"optimizer={optimizer}")
    assert {key: composed[key] for key in GENERAL} == GENERAL
    assert composed["network"]["width"] == 64
    assert composed["pde"]["resample_every"] == 1
    assert composed["weights"]["update_every"] == "auto"
    assemble(read_configuration(composed))


def test_what_is_given_wins() -> None:
    given = ["iterations=7", "network.width=9", "pde.points.residual=11", "dtype=float32", "weights.update_every=5"]
    composed = values("pde=burgers", *given)
    assert (composed["iterations"], composed["dtype"]) == (7, "float32")
    assert composed["network"]["width"] == 9
    assert composed["network"]["depth"] == 4
    assert composed["pde"]["points"]["residual"] == 11
    assert composed["weights"]["update_every"] == 5


def test_they_can_be_left_out() -> None:
    composed = values("pde=burgers", "~tuned/problem", "~tuned/network", "~tuned/optimizer", "~tuned/weights")
    assert {key: composed[key] for key in GENERAL} == GENERAL
    assert composed["network"]["width"] == 64


def test_experiments_win() -> None:
    composed = values("experiment=training")
    assert composed["optimizer"]["_target_"] == "ntkrun.optimizer.Adam"
    assert (composed["iterations"], composed["network"]["width"]) == (5000, 64)


@pytest.mark.parametrize("weights", choices("weights"))
def test_every_weighting_composes(weights: str) -> None:
    extra = ["++weights.values={boundary: 10}"] if weights == "fixed" else []
    assert values(f"weights={weights}", *extra)["dtype"] == "float64"


def own(folder: Path, text: str, *overrides: str) -> dict[str, Any]:
    """What a run of the problem ``mine`` uses, whose file says ``text``."""
    (folder / "pde").mkdir(exist_ok=True)
    (folder / "pde" / "mine.yaml").write_text(text)
    with initialize_config_module("ntkrun.conf", version_base="1.3"):
        return own_values(compose("config", overrides=[f"hydra.searchpath=[file://{folder}]", "pde=mine", *overrides]))


WAVE = "_target_: ntkrun.pde.Wave\npoints: {residual: 30, boundary: 10, displacement: 10, velocity: 10}\ngrid: 9\n"
OPTIMIZERS = ["gauss_newton", "adam_gauss_newton", "adam", "lbfgs"]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("every", [1, 7, None, "auto"])
def test_a_file_of_ones_own_wins_over_tuned_settings(optimizer: str, every: int | str | None, tmp_path: Path) -> None:
    text = WAVE + f"sampling: sobol\nresample_every: {'null' if every is None else every}\n"
    chosen = f"optimizer={optimizer}"
    assert own(tmp_path, text, chosen)["pde"]["resample_every"] == every
    assert own(tmp_path, text, chosen, "pde.resample_every=3")["pde"]["resample_every"] == 3
    assert own(tmp_path, WAVE + "sampling: sobol\n", chosen)["pde"]["resample_every"] == "auto"


def leaves(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every value by its key with dots."""
    found = {}
    for key, value in node.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def test_whatever_is_tuned_a_file_of_ones_own_wins(tmp_path: Path) -> None:
    """Every key that a file tuned to an optimiser, a weighting or a network sets, set by the problem's file instead."""
    folders = ("optimizer", "weights", "network")
    for place, path in PLACES.items():
        if place.split("/")[0] not in folders:
            continue
        kind, *names = place.removesuffix(".yaml").split("/")
        text = path.read_text()
        keys = leaves(yaml.safe_load(text))
        if "@package weights" in text:
            keys = {f"weights.{key}": value for key, value in keys.items()}
        other = {"float64": "float32", "sin": "tanh", "ntk": "glorot_uniform"}
        mine = {key: other[value] if isinstance(value, str) else value + 1 for key, value in keys.items()}
        node: dict[str, Any] = {"pde": {**yaml.safe_load(WAVE), "sampling": "sobol"}}
        for key, value in mine.items():
            *parents, last = key.split(".")
            inner = node
            for parent in parents:
                inner = inner.setdefault(parent, {})
            inner[last] = value
        choices_made = [f"optimizer={names[0]}"] + ([f"{kind}={names[1]}"] if kind != "optimizer" else [])
        composed = leaves(own(tmp_path, "# @package _global_\n" + yaml.safe_dump(node), *choices_made))
        assert {key: composed[key] for key in mine} == mine, place
        given = [f"{key}={value}" for key, value in keys.items()]
        composed = leaves(own(tmp_path, "# @package _global_\n" + yaml.safe_dump(node), *choices_made, *given))
        assert {key: composed[key] for key in keys} == keys, place


def test_a_name_of_the_menu_is_the_menus(tmp_path: Path) -> None:
    (tmp_path / "pde").mkdir()
    (tmp_path / "pde" / "poisson.yaml").write_text("resample_every: 3\n")
    composed = values(f"hydra.searchpath=[file://{tmp_path}]", "pde=poisson")
    assert composed["pde"]["resample_every"] == "auto"


def test_a_problem_of_ones_own_gets_the_settings_of_optimizer_and_network(tmp_path: Path) -> None:
    (tmp_path / "pde").mkdir()
    own = yaml.safe_load((TUNED.parent / "pde" / "wave.yaml").read_text())
    (tmp_path / "pde" / "mine.yaml").write_text(yaml.safe_dump({**own, "sampling": "sobol"}))
    with initialize_config_module("ntkrun.conf", version_base="1.3"):
        overrides = [f"hydra.searchpath=[file://{tmp_path}]", "pde=mine"]
        composed = own_values(compose("config", overrides=overrides))
    assert drawn(composed) == own["points"]
    assert composed["network"]["width"] == 20
    assert composed["dtype"] == "float64"
    assemble(read_configuration(composed))


@pytest.mark.parametrize("problem", [place.split("/")[-1][:-5] for place in PLACES if "/precise/" in place])
def test_precise_runs_have_more_of_everything(problem: str) -> None:
    usual, precise = values(f"pde={problem}"), values("experiment=precise", f"pde={problem}")
    assert precise["iterations"] > usual["iterations"]
    assert precise["log_every"] == 20
    assert (
        precise["network"]["width"] * precise["network"]["depth"]
        > usual["network"]["width"] * usual["network"]["depth"]
    )
    assert sum(drawn(precise).values()) > sum(drawn(usual).values())


def test_precise_runs_of_other_optimizers_keep_their_own_settings() -> None:
    """What was measured under one optimizer may name keys that another one lacks."""
    composed = values("experiment=precise", "pde=regression", "optimizer=adam")
    assert (composed["iterations"], composed["network"]["width"]) == (GENERAL["iterations"], 64)
