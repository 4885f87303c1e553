"""A choice between ties has the last verdict on the numbers that it was made from."""

from dataclasses import replace

import pytest

from parity.comparison.settling import settle_precision, settle_ties
from parity.comparison.verdict import Row

SCORES = Row(
    case="",
    stage="forward",
    tap="norm",
    precision="float32",
    pair="b : a",
    verdict="different",
    error=3e-6,
    baseline_error=1e-7,
    noise_floor=2e-7,
    bound=1e-6,
    candidate_noise=0.0,
    pair_error=3e-6,
)
TIE = {"margin": 1e-8, "noise": 1e-7}
CHOICE = replace(
    SCORES,
    stage="choices",
    tap="relu",
    verdict="equivalent",
    error=0.0,
    reason="2 ties",
    ties=(TIE,),
)


def settled(double_error: float) -> Row:
    """The float32 choice, where float64's scores have this error."""
    rows = settle_ties([SCORES, CHOICE], {"choices/relu": "forward/norm"})
    assert rows[1].verdict == "different"
    double = replace(SCORES, precision="float64", error=double_error, bound=2e-15)
    return settle_precision([*rows, double])[1]


def test_scores_that_are_rounding_leave_a_tie():
    row = settled(3e-6 * 2.0**-53 / 2.0**-24)
    assert row.verdict == "less precise"
    assert row.reason == "2 ties, and norm are less precise"


@pytest.mark.parametrize("error", [3e-6, 1e-9])
def test_scores_of_another_function_leave_none(error):
    row = settled(error)
    assert row.verdict == "different" and "but norm are different" in row.reason
