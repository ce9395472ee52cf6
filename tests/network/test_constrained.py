import pytest
import torch
from torch import Tensor, nn

from ntkrun.geometry import Box
from ntkrun.jets import nested_streams, plan_streams
from ntkrun.network import ECRN, MLP, JetNetwork, constrained, output_streams
from ntkrun.pde import ProblemError
from tests.oracle import relative, values
from tests.problems import TWO, Anchored


class AsTensors(nn.Module):
    """The values of a network on jets as those of a plain module with the same parameters."""

    def __init__(self, network: JetNetwork) -> None:
        super().__init__()
        self.inner = network

    def forward(self, x: Tensor) -> Tensor:
        return values(self.inner, x)


def test_jets_and_plain_modules_agree() -> None:
    """In value and derivatives, with the same parameters."""
    pde = Anchored()
    network = MLP(5, 1, domain=TWO, outputs=2).double()
    jets, plain = constrained(network, pde), constrained(AsTensors(network), pde)
    assert isinstance(jets, JetNetwork)
    assert not isinstance(plain, JetNetwork)
    x = torch.rand(4, 2, dtype=torch.float64)
    plan = plan_streams(["xx", "xt", "t"], "xt")
    assert relative(output_streams(jets, x, plan), output_streams(plain, x, plan)) < 1e-11
    assert relative(output_streams(jets, x, plan), nested_streams(lambda z: values(jets, z), x, plan)) < 1e-11


def test_values_follow_the_formula() -> None:
    network = MLP(5, 1, domain=TWO, outputs=2).double()
    x = torch.rand(4, 2, dtype=torch.float64)
    u, z = values(network, x), x[:, :1]
    lift = torch.sin(z) * (1 - 2 * torch.exp(z)) + torch.cos(z) - 1
    expected = lift + torch.tanh(3 * z - z * z) * (u - u**3 / 2)
    assert relative(values(constrained(network, Anchored()), x), expected) < 1e-13


@pytest.mark.parametrize("plain", [False, True])
def test_the_condition_holds_exactly(plain: bool) -> None:
    """Whatever the parameters are."""
    network: nn.Module = MLP(5, 1, domain=TWO, outputs=2)
    if plain:
        network = AsTensors(network)  # type: ignore[arg-type]
    end = torch.tensor([[0.0, 0.3], [0.0, 0.9]])
    assert not values(constrained(network, Anchored()), end).any()


def test_parameters_are_those_of_the_network() -> None:
    network = MLP(5, 1, domain=TWO, outputs=2)
    wrapped = constrained(network, Anchored())
    assert [id(p) for p in wrapped.parameters()] == [id(p) for p in network.parameters()]


def test_periodicity_and_steps_are_passed_on() -> None:
    network = ECRN(2, 3, survival=0.1, domain=TWO, outputs=2, periodic=True, periods={"x": 1.0})
    for wrapped in (constrained(network, Anchored()), constrained(AsTensors(network), Anchored())):
        wrapped.start_step(0)  # type: ignore[operator]
    assert constrained(network, Anchored()).periodic
    assert not constrained(AsTensors(network), Anchored()).periodic
    assert not constrained(MLP(domain=TWO, outputs=2), Anchored()).periodic
    assert not all(network.factors)


def test_number_of_outputs_is_checked() -> None:
    network = constrained(MLP(5, 1, domain=Box.of(x=(0, 1), t=(0, 1))), Anchored())
    with pytest.raises(ProblemError, match="the network has 1 outputs; the fields are u, v"):
        values(network, torch.rand(2, 2))
