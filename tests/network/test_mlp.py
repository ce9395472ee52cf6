import math

import pytest
import torch

from ntkrun.geometry import Box
from ntkrun.network import MLP
from tests.oracle import values

BOX = Box.of(x=(2.0, 4.0), y=(-1.0, 1.0))


@pytest.mark.parametrize("initialization", ["glorot_normal", "glorot_uniform", "ntk"])
def test_initial_spread(initialization: str) -> None:
    """Standard deviations within 5 standard errors of the stated ones."""
    network = MLP(200, 2, initialization=initialization, domain=BOX)  # type: ignore[arg-type]
    weight = network.layers[1].weight
    expected = 1.0 if initialization == "ntk" else math.sqrt(2 / 400)
    assert weight.std().item() == pytest.approx(expected, rel=5 / math.sqrt(2 * weight.numel()))
    assert (network.layers[1].bias.std().item() > 0.5) == (initialization == "ntk")


def test_ntk_parametrisation_scales_by_fan_in() -> None:
    network = MLP(16, 1, "tanh", "ntk", standardize=False, domain=BOX).double()
    first, last = network.layers
    x = torch.rand(5, 2, dtype=torch.float64)
    hidden = torch.tanh(x @ first.weight.T / math.sqrt(2) + first.bias)
    assert torch.allclose(values(network, x), hidden @ last.weight.T / 4 + last.bias, atol=1e-14)


def test_generator_fixes_the_initial_values() -> None:
    networks = [MLP(4, 2, domain=BOX, generator=torch.Generator().manual_seed(5)) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(networks[0].parameters(), networks[1].parameters(), strict=True))


def test_initial_values_of_a_seed_stay_what_they_are() -> None:
    """Layer by layer from one generator, whatever the inputs are."""
    network = MLP(4, 1, domain=BOX, generator=torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    for layer, shape in zip(network.layers, [(4, 2), (1, 4)], strict=True):
        expected = torch.nn.init.xavier_normal_(torch.empty(shape), generator=generator)
        assert torch.equal(layer.weight, expected)
        assert not layer.bias.any()
