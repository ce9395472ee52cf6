"""The menu of networks: YAML and constructors agree, and every value is checked."""

import inspect
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import pytest
import yaml

from ntkrun.config.component import read_component
from ntkrun.config.configuration import OF_NETWORKS
from ntkrun.config.schema import ConfigError
from ntkrun.geometry import Box
from ntkrun.network import InputNetwork, JetNetwork

BOX = Box.of(x=(0.0, 1.0))
FOLDER = files("ntkrun.conf") / "network"
NAMES = sorted(entry.name.removesuffix(".yaml") for entry in FOLDER.iterdir() if entry.name.endswith(".yaml"))


def node(name: str, **changes: object) -> dict[str, Any]:
    return {**yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8")), **changes}


def build(name: str, **changes: object) -> Any:
    return read_component(node(name, **changes), "network", JetNetwork, OF_NETWORKS).build(domain=BOX)


def test_names() -> None:
    assert {"mlp", "fourier", "modified_mlp", "cpikan", "ecrn"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_defaults_are_the_constructors(name: str) -> None:
    network = build(name)
    own, shared = (inspect.signature(cls).parameters.values() for cls in (type(network), InputNetwork))
    defaults = {p.name: p.default for p in (*own, *shared) if p.kind is not p.VAR_KEYWORD and p.name not in OF_NETWORKS}
    plain = {k: list(v) if isinstance(v, Sequence) and not isinstance(v, str) else v for k, v in defaults.items()}
    assert {k: v for k, v in node(name).items() if k != "_target_"} == plain


@pytest.mark.parametrize("name", NAMES)
def test_every_key_is_explained(name: str) -> None:
    first, target, *lines = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    assert first.startswith("# ")
    assert target.startswith("_target_: ")
    assert all(" # " in line for line in lines)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("fourier", {"scales": []}, "network.scales"),
        ("fourier", {"scales": [1.0, 0.0]}, "network.scales"),
        ("fourier", {"scales": 1.0}, "network.scales"),
        ("fourier", {"features": 0}, "network.features=0"),
        ("ecrn", {"survival": 0.0}, "network.survival=0.0"),
        ("ecrn", {"survival": 1.1}, "network.survival=1.1"),
        ("cpikan", {"degree": 0}, "network.degree=0"),
        ("modified_mlp", {"depth": 0}, "network.depth=0"),
        ("modified_mlp", {"periodic": True}, "the problem has no periodic coordinate"),
    ],
)
def test_values_out_of_range(name: str, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(name, **changes)


def test_whole_numbers_and_lists_are_taken() -> None:
    network = build("fourier", scales=[1, 2, 5])
    assert len(network.features) == 3
    build("ecrn", alpha=0.1, survival=0.5)
