import pytest

from ntkrun.jets import UnknownDerivativeError, parse_derivative, plan_streams


@pytest.mark.parametrize(
    ("indices", "coordinates", "streams"),
    [
        ([""], "x", 1),
        (["xx"], "x", 3),
        (["x", "xx"], "x", 3),
        (["xx", "tt"], "xt", 5),
        (["t"], "xt", 2),
        (["xxxx", "tt"], "xt", 7),
        (["xt"], "xt", 5),
        (["xx", "tt", "xt"], "xt", 7),
        (["xxyy"], "xy", 17),
    ],
    ids=[
        "value",
        "second",
        "both-orders-share",
        "wave",
        "velocity",
        "beam",
        "mixed-alone",
        "mixed-reuses",
        "biharmonic",
    ],
)
def test_number_of_streams(indices: list[str], coordinates: str, streams: int) -> None:
    assert plan_streams(indices, list(coordinates)).streams == streams


def test_parse_sorts_letters_by_coordinate() -> None:
    assert parse_derivative("v_tx", ["u", "v"], ["x", "t"]) == ("v", "xt")


@pytest.mark.parametrize(
    ("name", "message"), [("w", "no field 'w'"), ("u_y", "no coordinate 'y'"), ("u_xxxxx", "order 5")]
)
def test_unknown_derivatives(name: str, message: str) -> None:
    with pytest.raises(UnknownDerivativeError, match=message):
        parse_derivative(name, ["u"], ["x", "t"])
