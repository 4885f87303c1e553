"""Why digits are lost: each reason is shown by the numbers, and none is named without them."""

from dataclasses import replace

import numpy as np
import pytest

from parity.comparison.measure import ROUNDOFF
from parity.comparison.trace import Trace
from parity.comparison.verdict import Evidence, Row
from parity.diagnose.causes.facts import Operation
from parity.diagnose.causes.pair import Context
from parity.diagnose.causes.rules import rule_for
from parity.diagnose.faults import Fault
from parity.diagnose.local import class_of, likely
from parity.diagnose.precision import lost_digits, why_less_precise
from parity.diagnose.words import size_of

RNG = np.random.default_rng(2)
PLACE = "isolated forward/m"


def row(precision="float32", verdict="less precise", error=1e-5, baseline_error=1e-7):
    facts = [error, baseline_error, baseline_error, 5e-7, error, error]
    return Row("", "isolated forward", "m", precision, "b : a", verdict, *facts)


def context(operation, taps, params=None, **settings):
    params = params or {}
    made = Operation(operation, tuple(taps), tuple(params), settings)
    return Context(taps, params, {PLACE: made})


def cause_of(found, expected, facts):
    traces = [
        Trace("x", {"producer": {"name": "x"}, "precision": "float32"}, {PLACE: value})
        for value in (expected, found)
    ]
    result = likely(row(), Evidence(*traces), facts, rule_for)
    return result[0].code if result else None


def test_a_long_sum_one_by_one():
    x = np.abs(RNG.standard_normal((4, 20000))).astype(np.float32)
    w = np.abs(RNG.standard_normal((3, 20000))).astype(np.float32)
    facts = context("linear", {"forward/x": x}, {"m.weight": w})
    exact = x.astype(float) @ w.astype(float).T
    added = np.array([[np.cumsum(a * b, dtype=np.float32)[-1] for b in w] for a in x])
    error = np.linalg.norm(added - exact) / np.linalg.norm(exact)
    code, text = why_less_precise(row(error=error, baseline_error=1e-7), None, facts, None)
    assert code == "long sum" and "20000" in text and class_of(code) == "less precise"
    far = row(error=100 * error, baseline_error=1e-7)
    assert why_less_precise(far, None, facts, None)[0] == "rounding"
    noisy_baseline = row(error=error, baseline_error=error)
    assert why_less_precise(noisy_baseline, None, facts, None)[0] == "rounding"


def one_pass(x):
    """A layer norm whose variance is E[x²] - E[x]², in float32."""
    mean = x.mean(-1, keepdims=True, dtype=np.float32)
    square = (x * x).mean(-1, keepdims=True, dtype=np.float32)
    return (x - mean) / np.sqrt(np.maximum(square - mean * mean, 0) + np.float32(1e-5))


@pytest.mark.parametrize(("shift", "code"), [(60.0, "one-pass"), (0.0, None)])
def test_a_one_pass_variance(shift, code):
    x = (RNG.standard_normal((40, 64)) + shift).astype(np.float32)
    x64 = x.astype(float)
    right = (x64 - x64.mean(-1, keepdims=True)) / np.sqrt(x64.var(-1, keepdims=True) + 1e-5)
    facts = context("layer_norm", {"forward/x": x}, eps=1e-5, axes=[-1])
    assert cause_of(one_pass(x), right.astype(np.float32), facts) == code


def test_a_one_pass_variance_of_a_batch_norm():
    x = (RNG.standard_normal((16, 3, 6, 5)) + 60).astype(np.float32)
    x64, axes = x.astype(float), (0, 2, 3)
    mean, var = x64.mean(axes, keepdims=True), x64.var(axes, keepdims=True)
    square = (x * x).mean(axes, keepdims=True, dtype=np.float32)
    short = x.mean(axes, keepdims=True, dtype=np.float32)
    found = (x - short) / np.sqrt(square - short * short + np.float32(1e-5))
    right = ((x64 - mean) / np.sqrt(var + 1e-5)).astype(np.float32)
    facts = context("batch_norm", {"forward/x": x}, eps=1e-5)
    assert cause_of(found, right, facts) == "one-pass"


def test_a_float32_constant_in_float64():
    x = RNG.standard_normal((8, 6))
    eps = 1e-3
    right = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
    short = float(np.float32(eps))
    found = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + short)
    facts = context("layer_norm", {"forward/x": x}, eps=eps, axes=[-1])
    assert cause_of(found, right, facts) == "float32 constant"


def test_float64_that_agrees_to_float32_alone():
    exact = row("float64", "different", error=3e-9)
    near = row(verdict="equivalent")
    code, text = why_less_precise(exact, near, Context(), None)
    assert code == "float32 constant" and "float32 agrees, float64 does not" in text
    assert why_less_precise(exact, row(verdict="different"), Context(), None) is None
    assert why_less_precise(row("float64", "different", error=1e-3), near, Context(), None) is None


def test_an_exponential_is_only_a_possibility():
    facts = context("softmax", {"forward/x": RNG.standard_normal((4, 9))}, axis=-1)
    code, text = why_less_precise(row(), None, facts, None)
    assert code == "fast math" and "would explain" in text and lost_digits(row()) == 2
    assert why_less_precise(row(verdict="different"), None, facts, None) is None


def normed(x, variance):
    """A batch norm in training whose variance is computed in the numbers of x."""
    mean = x.mean((0, 2, 3), keepdims=True)
    return (x - mean) / np.sqrt(variance(x, mean) + x.dtype.type(1e-5))


def two_pass(x, mean):
    return ((x - mean) ** 2).mean((0, 2, 3), keepdims=True)


def squares(x, mean):
    return (x * x).mean((0, 2, 3), keepdims=True) - mean * mean


def factor_of_one(x, mean):
    """The variance of one channel is off by as much, where nothing cancels."""
    wrong = np.ones((1, x.shape[1], 1, 1), x.dtype)
    wrong[0, 1] += x.dtype.type(100 * ROUNDOFF[x.dtype.name])
    return two_pass(x, mean) * wrong


@pytest.mark.parametrize(
    ("dtype", "variance", "spread", "code"),
    [
        ("float32", squares, 12.0, "one-pass"),
        ("float64", squares, 12.0, "one-pass"),
        ("float32", two_pass, 12.0, "rounding"),
        ("float32", factor_of_one, 0.2, "rounding"),
        ("float64", factor_of_one, 0.2, "rounding"),
    ],
)
def test_a_variance_that_cancels_in_either_precision(dtype, variance, spread, code):
    shift = spread * np.array([1.0, 0.1, 0.5]).reshape(1, 3, 1, 1)
    x = (RNG.standard_normal((16, 3, 6, 5)) + shift).astype(np.float32)
    expected = normed(x.astype(dtype), two_pass)
    facts = context("batch_norm", {"forward/x": x}, eps=1e-5)
    facts.made_by[PLACE] = Operation("batch_norm", ("forward/x",), (), {"eps": 1e-5})
    found = normed(x.astype(dtype), variance)
    found[0, 0, 0, 0] += np.finfo(dtype).eps  # no two programs agree to the bit
    traces = [
        Trace("x", {"producer": {"name": "x"}, "precision": dtype}, {PLACE: value})
        for value in (expected, found)
    ]
    less = row(dtype, error=50 * ROUNDOFF[dtype], baseline_error=ROUNDOFF[dtype])
    result = why_less_precise(less, None, facts, None, Evidence(*traces))
    assert result[0] == code
    if code == "one-pass":
        assert "mean / std is up to 12" in result[1]


@pytest.mark.parametrize(
    ("precision", "error", "bound", "expected"),
    [
        ("float32", 1e-5, 5e-7, "2.0 digits are lost (error 1e-05, bound 5e-07)"),
        ("float64", 5e-8, 2e-15, "in float64 7 digits agree"),  # it was float32 for a moment
        (
            "float64",
            4e-14,
            2e-15,
            "in float64 alone 2.6 digits are lost (error 4e-14, bound 2e-15)",
        ),
    ],
)
def test_the_size_of_lost_digits_says_where_they_are_lost(precision, error, bound, expected):
    shown = replace(row(precision, error=error, baseline_error=1e-7), bound=bound)
    shown = shown if precision == "float32" else replace(shown, baseline_error=1e-16)
    shown = replace(shown, noise_floor=shown.baseline_error)
    fault = Fault(("rounding",), "less precise", "rounding", "", "linear", "numbers", [shown])
    assert size_of(fault) == expected
