"""An error of as many roundoffs in both precisions is rounding; any other is another function."""

from dataclasses import replace

import pytest

from parity.comparison.settling import BY_CHANCE, JUST_ABOVE, LARGE_NOISE, NOISY, settle_precision
from parity.comparison.verdict import Row
from parity.comparison.zeros import NOISE_LIMIT

U32, U64 = 2.0**-24, 2.0**-53


def pair(short, exact, reason="", verdicts=("different", "different")):
    """Rows of one place; errors in roundoffs of their own precision, ten of which are allowed."""
    facts = ("", "isolated training forward", "bn1")
    return [
        Row(*facts, precision, "b : a", verdict, error * u, 0, 2 * u, 10 * u, 0, error * u, why)
        for precision, verdict, error, u, why in (
            ("float32", verdicts[0], short, U32, ""),
            ("float64", verdicts[1], exact, U64, reason),
        )
    ]


@pytest.mark.parametrize(
    ("short", "exact", "expected"),
    [
        (47, 82, ["less precise", "less precise"]),
        (47, 47 * 7.9, ["less precise", "less precise"]),
        (47, 47 * 8.1, ["different", "different"]),  # float64 does something of its own
        (47 * 8.1, 47, ["different", "different"]),  # float32 does
        (47, 47 * U32 / U64, ["different", "different"]),  # the same error: another function
        (2.0**13, 2.0**13, ["different", "different"]),  # half of the digits of float32 are gone
    ],
)
def test_errors_are_compared_in_roundoffs(short, exact, expected):
    rows = settle_precision(pair(short, exact))
    assert [row.verdict for row in rows] == expected
    assert all(("roundoffs" in row.reason) == (row.verdict == "less precise") for row in rows)


def test_an_open_row_above_its_bound_is_settled_and_one_within_is_left():
    rows = pair(8, 30, JUST_ABOVE, ("equivalent", "undecided"))
    assert [row.verdict for row in settle_precision(rows)] == ["equivalent", "less precise"]
    rows = pair(8, 9, JUST_ABOVE, ("equivalent", "undecided"))
    assert [row.verdict for row in settle_precision(rows)] == ["equivalent", "undecided"]


def test_an_error_that_chance_explains_is_answered_by_float32():
    """A loss is one number: two variants do not tell its noise, and float32 does."""
    verdicts = ("equivalent", "undecided")
    for exact, expected in ((14, "equivalent"), (8 * 8.1, "undecided")):
        rows = settle_precision(pair(8, exact, BY_CHANCE, verdicts))
        assert [row.verdict for row in rows] == ["equivalent", expected]
    rows = settle_precision(pair(47, 82, BY_CHANCE, ("different", "undecided")))
    assert [row.verdict for row in rows] == ["less precise"] * 2


def test_noise_that_is_too_large_to_tell_is_answered_by_float64():
    """As in a wide ResNet-50: gradients within their bounds, which are wide in float32 alone."""
    for verdict, noise, expected in (
        ("equivalent", 3e-4, "equivalent"),
        ("undecided", 3e-4, "undecided"),
        ("different", 3e-4, "undecided"),
        ("equivalent", 0.21 * NOISE_LIMIT, "undecided"),  # it would hide a fault of one percent
    ):
        rows = pair(8, 1, verdicts=("undecided", verdict))
        rows[0] = replace(rows[0], reason=NOISY, noise_floor=noise, bound=5 * noise)
        found = settle_precision(rows)[0]
        assert found.verdict == expected and bool(found.reason)
    rows = pair(8, 8, NOISY, ("equivalent", "undecided"))  # float32 does not answer for float64
    rows[1] = replace(rows[1], noise_floor=1e-5)
    assert settle_precision(rows)[1].verdict == "undecided"


def test_a_large_error_that_the_candidates_variants_have_needs_a_float64_that_agrees():
    """As a one-pass variance in fifty layers: half of the digits are gone, and none in float64."""
    large = 2.0**14  # roundoffs: 1e-3
    for verdicts, error, expected in (
        (("undecided", "equivalent"), large, "less precise"),
        (("undecided", "undecided"), large, "undecided"),
        (("undecided", "different"), large, "undecided"),
        (("undecided", "equivalent"), 1.1 * NOISE_LIMIT / U32, "undecided"),
    ):
        rows = pair(error, 1, verdicts=verdicts)
        rows[0] = replace(rows[0], reason=LARGE_NOISE)
        assert settle_precision(rows)[0].verdict == expected


def test_other_reasons_and_single_rows_stay():
    rows = pair(47, 82, "3 elements are not finite")
    assert [row.verdict for row in settle_precision(rows)] == ["less precise", "different"]
    assert [row.verdict for row in settle_precision(rows[:1])] == ["different"]
    elsewhere = [rows[0], replace(rows[1], tap="bn2")]
    assert [row.verdict for row in settle_precision(elsewhere)] == ["different"] * 2
