"""Every network's derivatives against nested reverse-mode autograd, in float64."""

import itertools
from collections.abc import Callable

import pytest
import torch

from ntkrun.geometry import Box
from ntkrun.jets import plan_streams
from ntkrun.network import ECRN, MLP, ChebyshevKAN, FourierNetwork, JetNetwork, ModifiedMLP, constrained, output_streams
from tests.oracle import derivative, relative, values
from tests.problems import Anchored, Gains

BOX = Box.of(x=(-1.0, 2.0), t=(0.0, 3.0))
INDICES = ["".join(c) for order in range(5) for c in itertools.combinations_with_replacement("xt", order)]
PERIODS = {"x": 3.0}
SCALES = (0.1, 0.3)
NETWORKS: dict[str, Callable[[], JetNetwork]] = {
    "mlp": lambda: MLP(5, 2, domain=BOX, outputs=2),
    "mlp-periodic": lambda: MLP(5, 2, domain=BOX, outputs=2, periodic=True, periods=PERIODS),
    "mlp-plain-periodic": lambda: MLP(
        4, 1, standardize=False, domain=BOX, outputs=2, periodic=True, periods={"x": 3.0, "t": 6.0}
    ),
    "modified_mlp": lambda: ModifiedMLP(5, 2, domain=BOX, outputs=2),
    "modified_mlp-ntk": lambda: ModifiedMLP(5, 2, "sin", "ntk", standardize=False, domain=BOX, outputs=2),
    "fourier": lambda: FourierNetwork(5, 2, features=3, scales=SCALES, domain=BOX, outputs=2),
    "fourier-periodic": lambda: FourierNetwork(
        4, 1, features=3, scales=SCALES, trainable=True, domain=BOX, outputs=2, periodic=True, periods=PERIODS
    ),
    "cpikan": lambda: ChebyshevKAN(4, 2, 5, domain=BOX, outputs=2),
    "cpikan-linear": lambda: ChebyshevKAN(4, 1, 1, standardize=False, domain=BOX, outputs=2),
    "ecrn": lambda: ECRN(3, 2, scale=0.2, domain=BOX, outputs=2),
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


@pytest.mark.parametrize("name", NETWORKS)
def test_values_do_not_depend_on_the_streams_carried(name: str) -> None:
    network = NETWORKS[name]().double()
    x = BOX.scale(torch.rand(4, 2, dtype=torch.float64))
    assert relative(output_streams(network, x, plan_streams(INDICES, BOX.coordinates))[0], values(network, x)) < 1e-13
