import math

import pytest
import torch

from ntkrun.geometry import Box
from ntkrun.jets import Jet, plan_streams
from ntkrun.network import JetNetwork, output_streams
from ntkrun.network.inputs import Inputs
from tests import problems
from tests.oracle import relative, values

BOX = Box.of(x=(2.0, 4.0), t=(-1.0, 1.0))
VALUE = plan_streams([""], "xt")
NETWORKS: list[type[JetNetwork]] = list(dict.fromkeys(type(make(BOX, 1)) for make in problems.NETWORKS.values()))


def columns(inputs: Inputs, x: torch.Tensor) -> torch.Tensor:
    out: Jet = inputs.double()(Jet(x[None], VALUE))
    return out.resolve()[0]


def test_standardised_inputs_have_mean_zero_and_variance_one() -> None:
    inputs = Inputs(BOX)
    assert inputs.mean.tolist() == [3, 0]
    assert inputs.deviation.tolist() == pytest.approx([2 / math.sqrt(12)] * 2)
    x = BOX.scale(torch.rand(5, 2, dtype=torch.float64))
    expected = (x - torch.tensor([3.0, 0.0])) * math.sqrt(3)
    assert (columns(inputs, x) - expected).abs().max() < 1e-6


def test_inputs_as_they_are() -> None:
    x = BOX.scale(torch.rand(5, 2, dtype=torch.float64))
    assert torch.equal(columns(Inputs(BOX, standardize=False), x), x)


@pytest.mark.parametrize("standardize", [True, False])
def test_circles_in_place_of_periodic_coordinates(standardize: bool) -> None:
    x = BOX.scale(torch.rand(5, 2, dtype=torch.float64))
    inputs = Inputs(BOX, standardize, periodic=True, periods={"x": 0.7})
    angle = 2 * math.pi * x[:, 0] / 0.7
    t = x[:, 1] * math.sqrt(3) if standardize else x[:, 1]
    assert inputs.width == 3
    assert (columns(inputs, x) - torch.stack([t, angle.cos(), angle.sin()], dim=1)).abs().max() < 1e-6


def test_every_coordinate_periodic() -> None:
    inputs = Inputs(BOX, periodic=True, periods={"x": 2.0, "t": 2.0})
    assert inputs.width == 4
    assert columns(inputs, torch.zeros(1, 2, dtype=torch.float64)).tolist() == [[1, 1, 0, 0]]


@pytest.mark.parametrize("network", NETWORKS)
def test_networks_are_periodic_with_all_derivatives(network: type[JetNetwork]) -> None:
    """Up to rounding, although the period is no number of single precision."""
    period = 2.0 / 3
    built = network(domain=BOX, periodic=True, periods={"x": period}).double()  # type: ignore[call-arg]
    assert built.periodic
    x = BOX.scale(torch.rand(6, 2, dtype=torch.float64))
    plan = plan_streams(["xxxx", "xt", "tt"], BOX.coordinates)
    here = output_streams(built, x, plan)
    there = output_streams(built, x + torch.tensor([period, 0.0], dtype=x.dtype), plan)
    for ours, expected in zip(there, here, strict=True):
        assert relative(ours, expected) < 1e-11


@pytest.mark.parametrize("network", NETWORKS)
def test_no_network_is_periodic_unless_asked(network: type[JetNetwork]) -> None:
    built = network(domain=BOX, periods={"x": 2.0}).double()  # type: ignore[call-arg]
    assert not built.periodic
    x = BOX.scale(torch.rand(6, 2, dtype=torch.float64))
    assert relative(values(built, x + torch.tensor([2.0, 0.0])), values(built, x)) > 1e-3


@pytest.mark.parametrize("network", NETWORKS)
def test_periodic_networks_need_a_period(network: type[JetNetwork]) -> None:
    with pytest.raises(ValueError, match="periodic=true: the problem has no periodic coordinate"):
        network(domain=BOX, periodic=True)  # type: ignore[call-arg]


@pytest.mark.parametrize("network", NETWORKS)
def test_generator_fixes_the_initial_values(network: type[JetNetwork]) -> None:
    def built(seed: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return network(domain=BOX, generator=generator).state_dict()  # type: ignore[call-arg]

    torch.manual_seed(1)
    first = built(5)
    torch.manual_seed(2)
    second, other = built(5), built(6)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("at", [0.0, 4.6e6, 1.7e9])
@pytest.mark.parametrize("network", NETWORKS)
def test_in_float64_a_network_is_the_same_wherever_its_domain_lies(network: type[JetNetwork], at: float) -> None:
    """A network built in single precision and converted, as a run does it; coordinates there are exact to 2e-7."""
    unit = torch.linspace(0, 1, 9, dtype=torch.float64)[:, None]
    plan = plan_streams(["xx"], "x")

    def streams(low: float) -> torch.Tensor:
        built = network(domain=Box.of(x=(low, low + 64)), generator=torch.Generator().manual_seed(0)).double()  # type: ignore[call-arg]
        return output_streams(built, low + 64 * unit, plan)

    assert relative(streams(at), streams(0.0)) < 1e-12


def test_in_float32_what_rounding_leaves_of_a_coordinate_is_kept() -> None:
    """Standardised values are off by the rounding of the coordinate, 1/256 at 1e5, and by nothing else."""
    x = (1e5 + torch.linspace(0, 1, 1025, dtype=torch.float64)[:, None]).float()
    inputs = Inputs(Box.of(x=(1e5, 1e5 + 1)))
    out = inputs(Jet(x[None], plan_streams([""], "x"))).resolve()[0]
    expected = (x.double() - (1e5 + 0.5)) * math.sqrt(12)
    assert (out.double() - expected).abs().max() < 1e-5
