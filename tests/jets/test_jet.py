"""Taylor-mode derivatives against nested reverse-mode autograd in float64."""

import itertools
import math

import numpy as np
import pytest
import torch

from ntkrun.geometry import Box
from ntkrun.jets import ACTIVATIONS, nested_streams, plan_streams
from ntkrun.network import MLP, output_streams
from tests.oracle import derivative, relative, values

BOX = Box.of(x=(-1.0, 2.0), y=(0.0, 1.0), t=(0.0, 3.0))
INDICES = ["".join(c) for order in range(5) for c in itertools.combinations_with_replacement("xyt", order)]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("standardize", [True, False])
def test_every_derivative_up_to_order_four(activation: str, standardize: bool) -> None:
    network = MLP(7, 2, activation, standardize=standardize, domain=BOX, outputs=2).double()  # type: ignore[arg-type]
    x = BOX.scale(torch.rand(5, 3, dtype=torch.float64))
    plan = plan_streams(INDICES, BOX.coordinates)
    read = plan.read(output_streams(network, x, plan))
    for index, output in itertools.product(INDICES, range(2)):
        axes = ["xyt".index(letter) for letter in index]
        expected = derivative(lambda z, output=output: values(network, z)[:, output], x, axes)
        assert relative(read[index][:, output], expected) < 1e-10, index


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activation_derivatives(activation: str) -> None:
    z = torch.linspace(-6, 6, 41, dtype=torch.float64)
    function = ACTIVATIONS[activation]
    for order, value in enumerate(function(z, 4)):
        expected = derivative(lambda x: function(x[:, 0], 0)[0], z[:, None], [0] * order)
        assert (value - expected).abs().max() < 1e-12


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-7), (torch.float64, 4e-16)])
def test_tanh_is_off_by_rounding_of_one(dtype: torch.dtype, bound: float) -> None:
    """Against NumPy, for small arguments and for those where the exponential overflows too."""
    small, large = torch.logspace(-12, 1, 20001, dtype=dtype), torch.logspace(1, 30, 301, dtype=dtype)
    z = torch.cat([torch.linspace(-12, 12, 100001, dtype=dtype), small, -small, large, -large])
    (t,) = ACTIVATIONS["tanh"](z, 0)
    assert t.dtype == dtype
    assert np.abs(t.double().numpy() - np.tanh(z.double().numpy())).max() < bound
    assert torch.isnan(ACTIVATIONS["tanh"](torch.tensor([math.nan], dtype=dtype), 0)[0]).all()


def test_nested_streams_equal_jets() -> None:
    network = MLP(6, 2, domain=BOX).double()
    x = torch.rand(4, 3, dtype=torch.float64)
    plan = plan_streams(["xxt", "yy", "xxxx"], BOX.coordinates)
    nested = nested_streams(lambda z: values(network, z), x, plan)
    assert relative(nested, output_streams(network, x, plan)) < 1e-11


def test_parameter_gradients_through_streams() -> None:
    """The gradient of a loss of second derivatives, against double backward."""
    network = MLP(6, 2, domain=BOX).double()
    x = torch.rand(4, 3, dtype=torch.float64)
    plan = plan_streams(["xx", "yt"], BOX.coordinates)
    parameters = list(network.parameters())
    read = plan.read(output_streams(network, x, plan))
    ours = torch.autograd.grad((read["xx"] * read["yt"]).sum(), parameters, allow_unused=True)
    function = lambda z: values(network, z)[:, 0]  # noqa: E731
    reference = (derivative(function, x, [0, 0]) * derivative(function, x, [1, 2])).sum()
    expected = torch.autograd.grad(reference, parameters, allow_unused=True)
    for a, b in zip(ours, expected, strict=True):
        assert (a is None or not a.any()) if b is None else relative(a, b) < 1e-10
