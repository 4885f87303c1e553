"""Inputs of a pair against the arguments of a model."""

import pytest

from parity.errors import ParityError
from parity.recording.arguments import check_arguments


class Model:
    def forward(self, x, mask=None, *, scale=1.0):
        raise AssertionError("it is only looked at")

    def open(self, *inputs):
        raise AssertionError("it is only looked at")


@pytest.mark.parametrize(
    ("names", "notes"),
    [
        (["x"], []),
        (["x", "mask"], []),
        (["img"], ["inputs are passed by order: img as x"]),
        (["img", "mask"], ["inputs are passed by order: img as x"]),
    ],
)
def test_names_that_differ_are_a_note(names, notes):
    assert check_arguments(Model().forward, names) == notes


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "expected one for each argument of forward.x, mask., found 0"),
        (["a", "b", "c"], "found 3: a, b, c; too many positional arguments"),
        (["mask", "x"], "would get `mask` as `x`, `x` as `mask`"),
        (["mask"], "would get `mask` as `x`"),
    ],
)
def test_a_wrong_number_or_order_is_an_error(names, words):
    with pytest.raises(ParityError, match=words):
        check_arguments(Model().forward, names)


def test_what_has_no_fixed_arguments_takes_all():
    assert check_arguments(Model().open, ["a", "b", "c"]) == []
    assert check_arguments(None, ["a"]) == []
