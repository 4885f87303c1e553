"""Why a right function has fewer digits: what the numbers show of it."""

import numpy as np

from parity.comparison.measure import ROUNDOFF
from parity.comparison.verdict import Evidence, Row
from parity.diagnose.causes.facts import Operation, input_of, weight_and_bias
from parity.diagnose.causes.hypothesis import Absent
from parity.diagnose.causes.pair import Array, Cause, Context

SHORT = 1e-6  # float64 that agrees to this many digits, but to no more, was float32 for a moment
LEAST = 1e-11
SAMPLES = 256  # sums that are computed one number after another
NEAR = 3.0  # an error explains another up to this factor
EXPONENTIAL = ("softmax", "log softmax", "sigmoid", "silu", "gelu", "attention")
ROUNDED = "the same function, but rounded more than the bound allows"
CANCELLED = 64.0  # units of roundoff, times 1 + (mean / std)²: the error of a one-pass variance
LEAST_RATIO = 4.0  # (mean / std)² of the channel with the largest error: there a digit cancels
SHOWN = ("one-pass", "float32 constant", "short product", "rounded")


def why_less_precise(
    row: Row,
    other: Row | None,
    context: Context,
    cause: Cause | None,
    evidence: Evidence | None = None,
) -> tuple[str, str] | None:
    """Code and sentence, if a row is less precise and not another function; else None.

    `other` is the row of the same place in the other precision, `evidence` the row's comparison.
    """
    if cause and cause.code in SHOWN:
        return cause.code, cause.text
    if row.precision == "float64" and row.verdict != "less precise":
        agrees = other is not None and other.verdict in ("equivalent", "vacuous")
        is_defined = cause is not None and cause.code == "as defined"
        known = cause is None or cause.code in ("as defined", "scaled")
        if known and agrees and LEAST <= row.error <= SHORT:
            side = "of A " if is_defined else "of one side "
            text = f"float32 agrees, float64 does not: some number {side}was float32 for a moment"
            return "float32 constant", f"{text}; {cause.text}" if cause else text
        return None
    agrees = other is not None and other.verdict in ("equivalent", "vacuous")
    noiseless = row.verdict == "different" and agrees  # no variant of the candidate shows noise
    if row.verdict != "less precise" and not noiseless:
        return None
    made = context.made_by.get(f"{row.stage}/{row.tap}")
    if isinstance(made, Operation):
        if count := naive_sum(row, made, context):
            return "long sum", f"{ROUNDED}; sums of {count} numbers, one by one, round as much"
        if noiseless:
            return None
        if spread := evidence and cancelling_variance(row, made, context, evidence):
            text = f"the variance is E[x²] - E[x]², which cancels: mean / std is up to {spread:.0f}"
            return "one-pass", text
        if made.operation in EXPONENTIAL:
            return "fast math", f"{ROUNDED}; an approximate exponential would explain it"
    return None if noiseless else ("rounding", ROUNDED)


def lost_digits(row: Row) -> float:
    """How many decimal digits a row has less than the baseline."""
    floor = max(row.noise_floor, row.baseline_error, float(ROUNDOFF[row.precision]))
    return max(0.0, float(np.log10(row.error / floor)))


def naive_sum(row: Row, made: Operation, context: Context) -> int:
    """The number of terms of the sums, if adding them one by one has an error of the row's size and
    the baseline's is far smaller; else 0."""
    try:
        terms = summands(f"{row.stage}/{row.tap}", made, context)
    except Absent:
        return 0
    single = terms.astype(np.float32)
    exact = terms.sum(-1)
    added = np.cumsum(single, axis=-1, dtype=np.float32)[..., -1]
    size = float(np.linalg.norm(exact))
    error = float(np.linalg.norm(added - exact)) / size if size else 0.0
    explains = error / NEAR <= row.error <= NEAR * error and row.baseline_error <= error / 2
    return terms.shape[-1] if explains else 0


def cancelling_variance(
    row: Row, made: Operation, context: Context, evidence: Evidence
) -> float | None:
    """The largest mean / std of a batch norm in training, if its error is that of a one-pass
    variance; else None.

    Then the outputs of each channel are off by one factor. Its distance from 1 grows with
    (mean / std)², because that many digits of E[x²] - E[x]² cancel.
    """
    tap = f"{row.stage}/{row.tap}"
    if made.operation != "batch_norm" or not row.stage.endswith("forward"):
        return None
    found, expected = (t.taps.get(tap) for t in (evidence.candidate, evidence.baseline))
    try:
        x = input_of(tap, context)
    except Absent:
        return None
    if not all(isinstance(y, np.ndarray) and y.shape == x.shape for y in (found, expected)):
        return None
    axes = (0, *range(2, x.ndim))
    y = np.asarray(expected, np.float64)
    off = np.asarray(found, np.float64) - y
    core = y - y.mean(axes, keepdims=True)
    off -= off.mean(axes, keepdims=True)  # the mean's own error, which any algorithm has
    factor = (off * core).sum(axes) / np.maximum((core * core).sum(axes), 1e-300)
    left = off - factor.reshape(-1, *[1] * (x.ndim - 2)) * core
    ratio = x.mean(axes) ** 2 / (x.var(axes) + made.number("eps", 1e-5))
    allowed = CANCELLED * float(ROUNDOFF[row.precision]) * (1 + ratio)
    is_factor = np.linalg.norm(left) <= np.linalg.norm(off) / NEAR
    worst = int(np.abs(factor).argmax())
    if is_factor and (np.abs(factor) <= allowed).all() and ratio[worst] >= LEAST_RATIO:
        return float(np.sqrt(ratio.max()))
    return None


def summands(tap: str, made: Operation, context: Context) -> Array:
    """The numbers that some outputs of an operation are sums of: (outputs, terms)."""
    x = input_of(tap, context)
    if made.operation == "linear":
        weight = fitting_weight(tap, context, x, axis=-1)
        rows, outputs = x.reshape(-1, x.shape[-1])[:16], weight[:16]
        return np.asarray((rows[:, None] * outputs[None]).reshape(-1, x.shape[-1]))
    if made.operation == "convolution":
        weight = fitting_weight(tap, context, x, axis=1)
        size = weight.shape[2:]
        corner = x[(slice(None), slice(None, weight.shape[1]), *map(slice, size))]
        if corner.ndim != weight.ndim or corner.shape[2:] != size:
            raise Absent("a window inside the image")
        return np.asarray((corner[:16, None] * weight[None, :16]).reshape(-1, weight[0].size))
    if made.operation == "adaptive mean pool" and made.settings.get("size") in (1, [1, 1], [1]):
        return x.reshape(x.shape[0] * x.shape[1], -1)[:SAMPLES]
    raise Absent(made.operation)


def fitting_weight(tap: str, context: Context, x: Array, axis: int) -> Array:
    """The weight of an operation: (outputs, inputs, ...), for inputs along `axis` of x.

    Raises:
        Absent: the facts of the recording do not fit its arrays.
    """
    weight = next(iter(weight_and_bias(tap, context)))
    width = x.shape[axis] if x.ndim > 1 else 0
    groups = axis > 0 and weight.ndim > 1 and width % weight.shape[1] == 0
    if weight.ndim < 2 or not (groups or width == weight.shape[1]):
        raise Absent(f"a weight that fits {tap}")
    return weight
