"""When do other tools call two arrays different? Each rule as its source states it, in NumPy.

A rule takes the baseline's array, the candidate's and, if there is one, the float64 reference, all
of one shape. It returns True where the tool would report a difference. None: the rule does not
apply to this array.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from parity.comparison.sketch import Array

Decide = Callable[[Array, Array, Array | None], bool | None]


@dataclass(frozen=True)
class Rule:
    """A tool's rule: its name, what it says, and where its source says so."""

    name: str
    text: str
    source: str
    differs: Decide


def close(rtol: float, atol: float) -> Decide:
    """Elementwise: |candidate - baseline| <= atol + rtol |baseline|; a NaN is never close."""

    def differs(baseline: Array, candidate: Array, _: Array | None) -> bool:
        return not np.allclose(candidate, baseline, rtol=rtol, atol=atol)

    return differs


def close_means(rtol: float, atol: float) -> Decide:
    """Only the means of the two arrays are compared: PaDiff's mode `mean`.

    `assert_tensor_equal` gives the layer's array first and the module's second, and NumPy's
    `assert_allclose(actual, desired)` scales rtol by the second one.
    """

    def differs(baseline: Array, candidate: Array, _: Array | None) -> bool:
        first, second = candidate.mean(), baseline.mean()
        return not np.isclose(first, second, rtol=rtol, atol=atol, equal_nan=True)

    return differs


def cosine(first: Array, second: Array) -> float:
    """Cosine of the angle between two arrays; NaN if one is zero."""
    a, b = (x.astype(np.float64).ravel() for x in (first, second))
    scale = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / scale) if scale else float("nan")


def msprobe_accuracy(baseline: Array, candidate: Array, _: Array | None) -> bool:
    """msprobe's column `Accuracy Reached or Not` is `No` (`check_accuracy`).

    A cosine that cannot be formed (one array is zero) passes every comparison with a threshold.
    """
    alike = 1.0 if baseline.size == 1 else cosine(baseline, candidate)
    largest = float(np.max(np.abs(candidate.astype(np.float64) - baseline)))
    return (alike < 0.99 and largest > 1e-3) or alike < 0.9 or largest > 1.0


def msprobe_thresholds(baseline: Array, candidate: Array, _: Array | None) -> bool:
    """msprobe's advice for reading the table: cosine above 0.99 and maximum error below 1e-3."""
    alike = 1.0 if baseline.size == 1 else cosine(baseline, candidate)
    largest = float(np.max(np.abs(candidate.astype(np.float64) - baseline)))
    return alike <= 0.99 or largest >= 1e-3


SMALL = 1e-6  # float32: numbers up to this are judged by their absolute error
SMALL_ERROR = 1e-9
RATIOS = {"small": 2.0, "rmse": 2.0, "largest": 10.0, "mean": 2.0}  # above: `error`
IF_ZERO = {"small": 1.0, "rmse": 1e4, "largest": 1e4, "mean": 1.0}  # baseline's measure is 0


def msprobe_ratios(baseline: Array, candidate: Array, reference: Array | None) -> bool | None:
    """The benchmark comparison of msprobe's accuracy checker: errors to a float64 reference.

    The candidate's measures of error are divided by the baseline's. One ratio above its threshold
    is an error. (The balance of signs is shown there, but does not count.)
    """
    if reference is None:
        return None
    ours, theirs = measures(candidate, reference), measures(baseline, reference)
    ratios = {
        name: ours[name] / theirs[name]
        if theirs[name] > 1e-9 * ours[name]
        else (1.0 if ours[name] == 0 else IF_ZERO[name])
        for name in RATIOS
    }
    return any(ratios[name] > most for name, most in RATIOS.items())


def measures(value: Array, reference: Array) -> dict[str, float]:
    """Share of wrong small numbers, root mean square, largest and mean relative error."""
    size = np.abs(reference)
    error = np.abs(value.astype(np.float64) - reference)
    small = size <= SMALL
    relative = np.where(small, -1.0, error / (size + np.finfo(np.float64).eps))
    return {
        "small": float(np.mean(error[small] > SMALL_ERROR)) if small.any() else 0.0,
        "rmse": float(np.sqrt(np.mean(np.where(small, 0.0, error) ** 2))),
        "largest": float(abs(relative.max())),
        "mean": float(abs(relative.mean())),
    }


TORCH = "torch/testing/_comparison.py (PyTorch 2.13): `default_tolerances` of float32"
PADIFF = "github.com/PaddlePaddle/PaDiff: padiff/utils/utils.py, `assert_tensor_equal`"
PADIFF_README = "github.com/PaddlePaddle/PaDiff: README.md, the example of `auto_diff`"
MSPROBE = "msprobe (MindStudio): core/compare, `check_accuracy`; CANN's manual says the same"
MSPROBE_ADVICE = "manual of CANN 7.0, AImpug_000197: acceptable values of the two columns"
RATIO_SOURCE = "api_accuracy_checker, msprobe's predecessor: `benchmark_algorithms_thresholds`"

RULES = (
    Rule(
        "torch.testing.assert_close",
        "each element within 1e-5 + 1.3e-6 of the baseline's",
        TORCH,
        close(1.3e-6, 1e-5),
    ),
    Rule(
        "numpy.allclose",
        "each element within 1e-8 + 1e-5 of the baseline's",
        "numpy.org: `numpy.allclose`, default values",
        close(1e-5, 1e-8),
    ),
    Rule("PaDiff, default", "means within 1e-7 of the baseline's", PADIFF, close_means(1e-7, 0)),
    Rule("PaDiff, README", "each element within 1e-4 (`strict`)", PADIFF_README, close(0, 1e-4)),
    Rule(
        "PaDiff, mean, 1e-4",
        "means within 1e-4, the README's tolerance in the default mode",
        PADIFF,
        close_means(0, 1e-4),
    ),
    Rule(
        "msprobe, accuracy reached",
        "`No` if cosine < 0.99 and largest error > 1e-3, or cosine < 0.9, or largest error > 1",
        MSPROBE,
        msprobe_accuracy,
    ),
    Rule(
        "msprobe, both thresholds",
        "cosine > 0.99 and largest error < 1e-3",
        MSPROBE_ADVICE,
        msprobe_thresholds,
    ),
    Rule(
        "msprobe, benchmark ratios",
        "error to float64, candidate's by baseline's: rms <= 2, mean <= 2, largest <= 10",
        RATIO_SOURCE,
        msprobe_ratios,
    ),
)
