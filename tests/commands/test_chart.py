"""Curves as text, read back from their characters."""

from __future__ import annotations

from ntkrun.commands.chart import chart


def cells(text: str) -> list[str]:
    return [line[10:] for line in text.splitlines()]


def test_a_line_goes_from_corner_to_corner() -> None:
    text = chart({"a": [(0, 0.0), (1, 1.0), (2, 2.0)]}, 15, 6, braille=False, colour=False)
    assert cells(text) == ["    *", "  **", "**", "0   2", "* a"]
    assert [line[:8].strip() for line in text.splitlines()[:3]] == ["2.0e+00", "1.0e+00", "0.0e+00"]


def test_many_orders_of_magnitude_have_a_logarithmic_axis() -> None:
    text = chart({"a": [(0, 1e4), (1, 1e2), (2, 1.0)]}, 15, 6, braille=False, colour=False)
    assert cells(text)[:3] == ["**", "  **", "    *"]


def test_curves_have_marks_of_their_own() -> None:
    text = chart({"a": [(0, 0.0), (4, 0.0)], "b": [(0, 1.0), (4, 1.0)]}, 15, 5, braille=False, colour=False)
    assert cells(text)[0] == "ooooo"
    assert cells(text)[2] == "*****"
    assert cells(text)[-1] == "* a   o b"


def test_dots_of_braille() -> None:
    """Ten columns have twenty dots, three lines twelve."""
    text = chart({"a": [(0, 0.0), (1, 1.0)]}, 20, 6, braille=True, colour=False)
    assert (ord(cells(text)[0][9]) - 0x2800) & 0x08  # the upper right dot
    assert (ord(cells(text)[2][0]) - 0x2800) & 0x40  # the lower left one
    assert sum((ord(c) - 0x2800).bit_count() for line in cells(text)[:3] for c in line if c != " ") == 20
    assert "*" in chart({"a": [(0, 0.0)], "b": [(0, 1.0)]}, 20, 6, braille=True, colour=False)


def test_colours_only_where_asked_for() -> None:
    assert "\x1b[36m" in chart({"a": [(0, 1.0)]}, 20, 6, colour=True)
    assert "\x1b" not in chart({"a": [(0, 1.0)]}, 20, 6, colour=False)


def test_nothing_to_draw() -> None:
    nan = float("nan")
    assert chart({"a": [(0, nan)], "b": []}, 20, 6) == "nothing to draw yet"
    assert "a" not in cells(chart({"a": [(0, nan)], "b": [(0, 1.0)]}, 20, 6, braille=False, colour=False))[-1].split()
