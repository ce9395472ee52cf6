"""Every network's derivatives against nested reverse-mode autograd, in float64."""

import itertools
from collections.abc import Callable
from functools import partial

import pytest
import torch

from ntkrun.geometry import Box
from ntkrun.jets import nested_streams, plan_streams
from ntkrun.network import MLP, ChebyshevKAN, FourierNetwork, JetNetwork, ModifiedMLP, constrained, output_streams
from tests import problems
from tests.oracle import derivative, relative, values
from tests.problems import Anchored, Gains

BOX = Box.of(x=(-1.0, 2.0), t=(0.0, 3.0))
INDICES = ["".join(c) for order in range(5) for c in itertools.combinations_with_replacement("xt", order)]
PERIODS = {"x": 3.0}
SCALES = (0.1, 0.3)
OPERATORS = [
    (("tt", 1.0), ("xx", -4.0)),
    (("t", 1.0), ("x", 2.5)),
    (("t", 1.0), ("xx", -0.3)),
    (("x", 2.0), ("tt", 1.0), ("xxxx", 0.5)),
    (("xt", 1.0), ("xxx", -1.0), ("xxtt", 0.7)),
]
NETWORKS: dict[str, Callable[[], JetNetwork]] = {
    **{name: partial(make, BOX, 2) for name, make in problems.NETWORKS.items()},
    "mlp-periodic": lambda: MLP(5, 2, domain=BOX, outputs=2, periodic=True, periods=PERIODS),
    "mlp-plain-periodic": lambda: MLP(
        4, 1, standardize=False, domain=BOX, outputs=2, periodic=True, periods={"x": 3.0, "t": 6.0}
    ),
    "modified_mlp-ntk": lambda: ModifiedMLP(5, 2, "sin", "ntk", standardize=False, domain=BOX, outputs=2),
    "fourier-periodic": lambda: FourierNetwork(
        4, 1, features=3, scales=SCALES, trainable=True, domain=BOX, outputs=2, periodic=True, periods=PERIODS
    ),
    "cpikan-linear": lambda: ChebyshevKAN(4, 1, 1, standardize=False, domain=BOX, outputs=2),
    "gains": lambda: Gains(BOX, 2),
    "constrained": lambda: constrained(ModifiedMLP(5, 1, domain=BOX, outputs=2), Anchored(BOX, 2)),  # type: ignore[dict-item, return-value]
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_derivative_up_to_order_four(name: str) -> None:
    network = NETWORKS[name]().double()
    x = BOX.scale(torch.rand(4, 2, dtype=torch.float64))
    plan = plan_streams(INDICES, BOX.coordinates)
    read = plan.read(output_streams(network, x, plan))
    for index, output in itertools.product(INDICES, range(2)):
        axes = ["xt".index(letter) for letter in index]
        expected = derivative(lambda z, output=output: values(network, z)[:, output], x, axes)
        assert relative(read[index][:, output], expected) < 1e-9, index


@pytest.mark.parametrize("operator", OPERATORS, ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_operators_are_carried_as_one_stream(name: str, operator: tuple[tuple[str, float], ...]) -> None:
    """Also by nested differentiation, for networks of any build, and beside other streams."""
    network = NETWORKS[name]().double()
    x = BOX.scale(torch.rand(4, 2, dtype=torch.float64))
    alone, beside = (plan_streams(indices, BOX.coordinates) for indices in ([operator], ["xt", operator, "t"]))
    assert alone.collapsed
    streams = output_streams(network, x, alone)
    assert relative(nested_streams(lambda z: values(network, z), x, alone), streams) < 1e-9
    for output in range(2):
        parts = [
            factor
            * derivative(lambda z, o=output: values(network, z)[:, o], x, ["xt".index(letter) for letter in letters])
            for letters, factor in operator
        ]
        expected = torch.stack(parts).sum(0)
        assert relative(alone.read(streams)[operator][:, output], expected) < 1e-9
        read = beside.read(output_streams(network, x, beside))
        assert relative(read[operator][:, output], expected) < 1e-9


@pytest.mark.parametrize("name", NETWORKS)
def test_values_do_not_depend_on_the_streams_carried(name: str) -> None:
    network = NETWORKS[name]().double()
    x = BOX.scale(torch.rand(4, 2, dtype=torch.float64))
    assert relative(output_streams(network, x, plan_streams(INDICES, BOX.coordinates))[0], values(network, x)) < 1e-13
