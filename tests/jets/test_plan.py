import pytest

from ntkrun.jets import UnknownDerivativeError, parse_derivative, parse_operator, plan_streams
from ntkrun.jets.plan import Index


@pytest.mark.parametrize(
    ("indices", "coordinates", "streams"),
    [
        ([""], "x", 1),
        (["xx"], "x", 3),
        (["x", "xx"], "x", 3),
        (["xx", "tt"], "xt", 5),
        (["t"], "xt", 2),
        (["xxxx", "tt"], "xt", 7),
        (["xt"], "xt", 4),
        (["xx", "tt", "xt"], "xt", 7),
        (["xxyy"], "xy", 14),
        ([(("tt", 1.0), ("xx", -4.0))], "xt", 4),
        ([(("tt", 1.0), ("xx", -4.0)), "tt", "xx"], "xt", 5),
        ([(("xx", 1.0), ("yy", 1.0), ("zz", 1.0))], "xyz", 5),
        ([(("t", 1.0), ("x", 3.0))], "xt", 2),
        ([(("t", 1.0), ("xx", -0.1)), "x"], "xt", 3),
        ([(("tt", 1.0), ("xxxx", 1.0))], "xt", 6),
        ([(("xx", 3.0),)], "x", 3),
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
        "mixed-fourth",
        "wave-operator",
        "wave-operator-and-its-parts",
        "laplacian-3d",
        "transport",
        "heat-beside-slope",
        "beam-operator",
        "one-part",
    ],
)
def test_number_of_streams(indices: list[Index], coordinates: str, streams: int) -> None:
    assert plan_streams(indices, list(coordinates)).streams == streams


def test_parse_sorts_letters_by_coordinate() -> None:
    assert parse_derivative("v_tx", ["u", "v"], ["x", "t"]) == ("v", "xt")


def test_an_operator_is_its_field_and_its_parts() -> None:
    assert parse_operator({"v_tx": 2, "v_xx": -1.0}, ["u", "v"], ["x", "t"]) == ("v", (("xt", 2.0), ("xx", -1.0)))


@pytest.mark.parametrize(
    ("formula", "message"),
    [({"u": 1.0}, "not of values"), ({"u_x": 1.0, "v_t": 1.0}, "one field"), ({"u_q": 1.0}, "no coordinate 'q'")],
)
def test_no_operators(formula: dict[str, float], message: str) -> None:
    with pytest.raises(UnknownDerivativeError, match=message):
        parse_operator(formula, ["u", "v"], ["x", "t"])


@pytest.mark.parametrize(
    ("name", "message"), [("w", "no field 'w'"), ("u_y", "no coordinate 'y'"), ("u_xxxxx", "order 5")]
)
def test_unknown_derivatives(name: str, message: str) -> None:
    with pytest.raises(UnknownDerivativeError, match=message):
        parse_derivative(name, ["u"], ["x", "t"])
