"""Distances of taps, against numbers worked out by hand."""

import weakref

import numpy as np
import pytest

from parity.comparison.measure import ROUNDOFF, Facts, Gap, gap, move_by_ulp, norm, relative, unfit
from parity.comparison.sketch import sketch

A = np.linspace(1, 2, 12, dtype=np.float32).reshape(3, 4)


def with_(value, *places):
    """A copy of A with a number put in some places."""
    copy = A.copy()
    for place in places:
        copy[place] = value
    return copy


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (A.T, "shape (4, 3), expected (3, 4)"),
        (A[:2], "shape (2, 4), expected (3, 4)"),
        (A[None], "shape (1, 3, 4), expected (3, 4)"),
        (A.ravel(), "shape (12,), expected (3, 4)"),
        (A.astype(int), "type int64, expected float32"),
        (A.astype("f8"), "type float64, expected float32"),
        (A.astype("f2"), "type float16, expected float32"),
        (A > 0, "type bool, expected float32"),
        (with_(np.nan, (0, 0)), "1 elements are not finite"),
        (with_(np.inf, (0, 0), (2, 3)), "2 elements are not finite"),
        (A * -np.inf, "12 elements are not finite"),
    ],
)
def test_what_cannot_be_compared_is_infinitely_far(value, reason):
    for one in (value, sketch(value) if value.dtype.kind == "f" else value):
        for other in (A, sketch(A)):
            found = gap(one, other)
            assert (found.relative, found.absolute, found.reason) == (np.inf, np.inf, reason)
            assert gap(other, one).relative == np.inf and gap(other, one).reason
    assert unfit(A, A) == ""


def test_a_square_array_is_not_transposed():
    square = np.arange(9, dtype=np.float32).reshape(3, 3)
    assert gap(square.T, square).relative > 0.4
    assert gap(sketch(square.T), sketch(square)).relative > 0.4


def test_two_diverged_taps_do_not_agree():
    for value in (with_(np.nan, (0, 1)), A * np.inf):
        assert gap(value, value.copy()).relative == np.inf
        assert gap(sketch(value), sketch(value)).relative == np.inf


def test_equal_infinities_agree_beside_finite_numbers():
    """As the -inf of an attention mask: only the other numbers are compared."""
    masked = with_(-np.inf, (0, 1), (2, 3))
    assert gap(masked, masked.copy()) == Gap(0.0) and relative(masked, masked.copy()) == 0
    near = masked.copy()
    near[1, 1] *= 1.25
    finite = np.where(np.isfinite(masked), masked, 0)
    expected = 0.25 * abs(masked[1, 1]) / np.linalg.norm(finite)
    for one, other in ((near, masked), (near.astype("f8"), masked)):
        found = gap(one, other, same_type=False)
        assert found.relative == pytest.approx(expected, rel=1e-6)
        assert found.index == (1, 1) and np.isfinite([found.bias, found.ulps]).all()
        assert relative(one, other, same_type=False) == found.relative
    assert norm(masked) == pytest.approx(np.linalg.norm(finite))


@pytest.mark.parametrize(
    "other",
    [
        with_(-np.inf, (0, 1)),
        with_(-np.inf, (0, 1), (2, 2)),
        with_(np.inf, (0, 1), (2, 3)),
        with_(np.nan, (0, 1), (2, 3)),
        with_(-1e30, (0, 1), (2, 3)),
    ],
    ids=["fewer", "elsewhere", "other sign", "nan", "large"],
)
def test_other_infinities_do_not_agree(other):
    masked = with_(-np.inf, (0, 1), (2, 3))
    for pair in ((masked, other), (other, masked)):
        assert gap(*pair).relative == relative(*pair) == np.inf


def test_a_variant_leaves_infinities_as_they_are():
    masked = with_(-np.inf, (0, 1))
    moved = move_by_ulp(masked, np.random.default_rng(0))
    assert moved[0, 1] == -np.inf and (moved != masked).sum() == A.size - 1


def test_type_may_differ_on_request():
    assert gap(A.astype("f8"), A, same_type=False) == Gap(0.0)
    assert "type int64" in gap(A.astype(int), A, same_type=False).reason
    assert "type bool" in gap(A > 0, np.ones((3, 4), int), same_type=False).reason


def test_relative_l2():
    assert gap(A.copy(), A) == Gap(0.0)
    assert gap(A * (1 + 2**-10), A).relative == pytest.approx(2**-10)
    shifted = A.copy()
    shifted[0, 2] += 0.5
    assert gap(shifted, A).relative == pytest.approx(0.5 / np.linalg.norm(A))
    assert gap(A, shifted).relative == pytest.approx(0.5 / np.linalg.norm(shifted))
    assert norm(A) == pytest.approx(np.linalg.norm(A)) == norm(sketch(A))


def test_worst_element_is_named():
    value = A.copy()
    value[0, 0] += 0.25
    value[2, 1] -= 0.5
    found = gap(value, A)
    assert found.index == (2, 1) and found.absolute == 0.5
    assert found.values == (value[2, 1], A[2, 1])
    found = gap(np.array(3, np.float32), np.array(2, np.float32))
    assert (found.relative, found.index, found.values) == (0.5, (), (3.0, 2.0))


def test_bias_separates_a_shift_from_noise():
    """√n for a shift alone; about 1 for noise, like the mean of a normal distribution."""
    rng = np.random.default_rng(0)
    value = rng.standard_normal(10_000)
    assert gap(value + 1e-3, value).bias == pytest.approx(100)
    noise = 1e-3 * rng.standard_normal(value.size)
    assert gap(value + noise - noise.mean(), value).bias < 1e-6
    assert gap(value + noise, value).bias < 4


@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_units_in_the_last_place(kind):
    value = A.astype(kind)
    moved = value.copy()
    for _ in range(3):
        moved[1, 1] = np.nextafter(moved[1, 1], moved.dtype.type(9))
    assert gap(moved, value).ulps == 3
    # an element near zero is left out: any error is many of its units
    with_small = np.concatenate([value.ravel(), np.array([1e-6], kind)])
    other = with_small.copy()
    other[-1] = 2e-6
    assert gap(other, with_small).ulps == 0


def test_integers_and_booleans_are_equal_or_not():
    index = np.array([[1, 5, 2], [3, 3, 3]])
    assert gap(index.copy(), index) == Gap(0.0)
    found = gap(index + [[0, 0, 1], [0, 2, 0]], index)
    assert (found.relative, found.reason) == (np.inf, "2 differ")
    assert (found.absolute, found.index, found.values) == (2.0, (1, 1), (5.0, 3.0))
    assert gap(index.astype("i4"), index) == Gap(0.0)  # another width
    assert gap(index.astype("i4") + 1, index).reason == "6 differ"
    assert gap(index.astype("u8"), index).reason == "type uint64, expected int64"
    assert gap(index > 1, index > 1) == Gap(0.0)
    assert gap(index > 1, index > 2).reason == "1 differ"
    # also integers that are equal in float64
    large = np.array([2**53, 7])
    assert gap(large + [1, 0], large).reason == "1 differ"


def test_a_reference_of_zeros():
    zeros = np.zeros_like(A)
    for one, other in ((A, zeros), (sketch(A), sketch(zeros))):
        assert gap(one, other).relative == np.inf and not gap(one, other).reason
        assert gap(other, one).relative == pytest.approx(1)
        assert gap(other, other) == Gap(0.0)
    assert gap(-zeros, zeros).relative == 0
    assert gap(sketch(-zeros), sketch(zeros)).relative == 0
    assert gap(sketch(zeros), zeros.astype("f8"), same_type=False).relative == 0


@pytest.mark.parametrize("shape", [(0,), (2, 0)])
def test_empty_taps_are_equal(shape):
    assert gap(np.zeros(shape), np.zeros(shape)) == Gap(0.0)


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e-30, 1e30, 1e200, 1e300])
def test_no_size_hides_a_difference(scale):
    """Squares of these numbers leave the range of float64, and NaN would pass every bound."""
    value = A.astype("f8") * scale
    for one, other in ((value * 1.01, value), (sketch(value * 1.01), sketch(value))):
        assert gap(one, other).relative == pytest.approx(0.01)


def test_a_difference_beyond_float64_is_infinite_and_never_nan():
    value = np.full(3, 1.7e308)
    assert gap(-value, value).relative == np.inf
    assert gap(value[:, None], -value[:, None]).relative == np.inf


def test_distance_is_taken_in_float64():
    assert gap(np.array([3e30], "f4"), np.array([2e30], "f4")).relative == pytest.approx(0.5)
    half = np.full(5000, 60000, np.float16)
    assert gap(half * np.float16(0.5), half).relative == pytest.approx(0.5)


def test_a_sketch_against_an_array():
    rng = np.random.default_rng(3)
    value = rng.standard_normal((70, 80))
    other = value + 1e-4 * rng.standard_normal(value.shape)
    exact = gap(other, value)
    for pair in ((sketch(other), value), (other, sketch(value)), (sketch(other), sketch(value))):
        found = gap(*pair)
        assert found.relative == pytest.approx(exact.relative, rel=0.05)
        assert found.absolute >= exact.absolute and found.index is None


def test_roundoffs_are_those_of_the_formats():
    for name in ("float16", "float32", "float64"):
        assert ROUNDOFF[name] == np.finfo(name).eps / 2
    assert ROUNDOFF["bfloat16"] == 2.0**-8  # 8 bits with the hidden one
    assert ROUNDOFF["tf32"] == 2.0**-11


def as_stored(value):
    """An array that cannot be written to, as those of a trace file."""
    value = np.array(value)
    value.flags.writeable = False
    return value


@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize(
    "values",
    [
        ([1.0, 2.0], [1.0, 2.0]),
        ([1.0, 2.5], [1.0, 2.0]),
        ([1.0, 2.0], [0.0, 0.0]),
        ([0.0, 0.0], [0.0, 0.0]),
        ([1.0, np.nan], [1.0, np.nan]),
        ([1.0, np.inf], [1.0, np.inf]),
        ([1.0, np.inf], [1.0, 2.0]),
        ([1.0, 2.0], [1.0, -np.inf]),
        ([3e38, 1.0], [-3e38, 1.0]),
        ([1e-45, 1.0], [0.0, 1.0]),
        ([], []),
        ([1.0], [1.0, 2.0]),
    ],
)
def test_the_short_way_gives_the_same_distance(values, kind):
    value, reference = (as_stored(np.array(v, kind)) for v in values)
    assert relative(value, reference) == gap(value, reference).relative


def test_the_short_way_asks_for_the_same_types():
    value, reference = np.ones(3, np.float32), np.ones(3)
    assert relative(value, reference) == np.inf == gap(value, reference).relative
    assert relative(value, reference, same_type=False) == 0
    assert relative(np.ones(3, np.int64), np.zeros(3, np.int64)) == np.inf
    assert relative(np.ones(3, bool), np.ones(3, bool)) == 0


def test_the_short_way_over_many_blocks_and_sketches():
    rng = np.random.default_rng(0)
    x = as_stored(rng.standard_normal(100_003))
    y = as_stored(x + 1e-3 * rng.standard_normal(100_003))
    assert relative(y, x) == pytest.approx(gap(y, x).relative, rel=1e-12)
    assert relative(sketch(y), x) == gap(sketch(y), sketch(x)).relative


def test_facts_are_of_the_array_as_it_is():
    """An array that can change is measured again, and so is another one at the same address."""
    changing = np.ones(4)
    assert norm(changing) == 2
    changing *= 3
    assert norm(changing) == 6
    for size in range(1, 50):
        assert norm(as_stored(np.ones(size))) == pytest.approx(size**0.5)


def test_facts_are_computed_once_and_keep_nothing_alive():
    facts, asked = Facts(), []
    array = as_stored(np.ones(4))
    for _ in range(3):
        assert facts.of(array, "sum", lambda a: asked.append(1) or a.sum()) == 4
    assert len(asked) == 1 and facts.of(array, "size", lambda a: a.size) == 4
    alive = weakref.ref(array)
    del array
    assert alive() is None
    for number in range(2 * Facts.MOST):
        facts.of(as_stored([number]), "first", lambda a: a[0])
    assert len(facts._known) <= Facts.MOST
