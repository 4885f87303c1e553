"""Why a right function has fewer digits: what the numbers show of it."""

import numpy as np

from parity.comparison.measure import ROUNDOFF
from parity.comparison.verdict import Row
from parity.diagnose.causes.facts import Operation, input_of, weight_and_bias
from parity.diagnose.causes.hypothesis import Absent
from parity.diagnose.causes.pair import Array, Cause, Context

SHORT = 1e-6  # float64 that agrees to this many digits, but to no more, was float32 for a moment
LEAST = 1e-11
SAMPLES = 256  # sums that are computed one number after another
NEAR = 3.0  # an error explains another up to this factor
EXPONENTIAL = ("softmax", "log softmax", "sigmoid", "silu", "gelu", "attention")
SHOWN = ("one-pass", "float32 constant", "short product", "rounded")


def why_less_precise(
    row: Row, other: Row | None, context: Context, cause: Cause | None
) -> tuple[str, str] | None:
    """Code and sentence, if a row is less precise and not another function; else None.

    `other` is the row of the same place in the other precision.
    """
    if cause and cause.code in SHOWN:
        return cause.code, cause.text
    if row.precision == "float64" and row.verdict != "less precise":
        agrees = other is not None and other.verdict in ("equivalent", "vacuous")
        if cause is None and agrees and LEAST <= row.error <= SHORT:
            digits = int(-np.log10(row.error))
            text = f"in float64 about {digits} digits agree, in float32 all: some number was "
            return "float32 constant", text + "float32 for a moment, such as a constant"
        return None
    agrees = other is not None and other.verdict in ("equivalent", "vacuous")
    if row.verdict != "less precise" and not (agrees and row.verdict == "different"):
        return None
    digits_text = f"{lost_digits(row)} digits are lost, and float64 agrees"
    made = context.made_by.get(f"{row.stage}/{row.tap}")
    if isinstance(made, Operation):
        if count := naive_sum(row, made, context):
            return "long sum", f"{digits_text}: as many as in sums of {count} numbers one by one"
        if row.verdict == "different":  # the variants of the candidate show no such noise
            return None
        if made.operation in EXPONENTIAL:
            return "fast math", f"{digits_text}; an approximate exponential would explain it"
    return None if row.verdict == "different" else ("rounding", digits_text)


def lost_digits(row: Row) -> str:
    """How many decimal digits a row has less than the baseline."""
    floor = max(row.noise_floor, row.baseline_error, float(ROUNDOFF[row.precision]))
    return f"{max(0.0, float(np.log10(row.error / floor))):.1f}"


def naive_sum(row: Row, made: Operation, context: Context) -> int:
    """The number of terms of the sums, if adding them one by one has an error of the row's size and
    the baseline's is far smaller; else 0."""
    try:
        terms = summands(f"{row.stage}/{row.tap}", made, context)
    except (Absent, ValueError, IndexError):
        return 0
    single = terms.astype(np.float32)
    exact = terms.sum(-1)
    added = np.cumsum(single, axis=-1, dtype=np.float32)[..., -1]
    size = float(np.linalg.norm(exact))
    error = float(np.linalg.norm(added - exact)) / size if size else 0.0
    explains = error / NEAR <= row.error <= NEAR * error and row.baseline_error <= error / 2
    return terms.shape[-1] if explains else 0


def summands(tap: str, made: Operation, context: Context) -> Array:
    """The numbers that some outputs of an operation are sums of: (outputs, terms)."""
    x = input_of(tap, context)
    if made.operation == "linear":
        weight = next(iter(weight_and_bias(tap, context)))
        rows, outputs = x.reshape(-1, x.shape[-1])[:16], weight[:16]
        return np.asarray((rows[:, None] * outputs[None]).reshape(-1, x.shape[-1]))
    if made.operation == "convolution":
        weight = next(iter(weight_and_bias(tap, context)))
        size = weight.shape[2:]
        corner = x[(slice(None), slice(None, weight.shape[1]), *map(slice, size))]
        if corner.shape[2:] != size:
            raise Absent("a window inside the image")
        return np.asarray((corner[:16, None] * weight[None, :16]).reshape(-1, weight[0].size))
    if made.operation == "adaptive mean pool" and made.settings.get("size") in (1, [1, 1], [1]):
        return x.reshape(x.shape[0] * x.shape[1], -1)[:SAMPLES]
    raise Absent(made.operation)
