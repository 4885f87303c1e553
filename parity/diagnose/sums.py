"""Sums outside of modules: found in the baseline, then checked in the candidate.

A sum, such as a residual, has no tap of its own: it shows as the input of the next module. Where an
input is the sum of two earlier taps in the baseline, it must be the sum of the same taps in the
candidate. This holds also behind another fault, which changes the taps but not their sum.
"""

from collections.abc import Callable, Iterator
from itertools import combinations

import numpy as np

from parity.comparison.missing import OUTPUT
from parity.comparison.verdict import Evidence, Row
from parity.diagnose.causes.pair import Array, Cause
from parity.diagnose.reach import Pass
from parity.diagnose.stages import place_of

EARLIER = 24  # taps before the input that are tried
SAMPLES = 64  # numbers that are compared first
EQUAL, BROKEN = 1e-5, 1e-3  # relative distance of a sum, and of what is no sum

Two = Callable[[Array, Array], Array]
FORMS: dict[str, Two] = {
    "sum": lambda a, b: a + b,
    "ReLU of the sum": lambda a, b: np.maximum(a + b, 0),
}
# code, sentence with the names of both taps, function: what may stand in the place of a sum
MISTAKES: tuple[tuple[str, str, Two], ...] = (
    ("no residual", "{0} alone, without {1}", lambda a, b: a),
    ("no residual", "{1} alone, without {0}", lambda a, b: b),
    ("sign", "{0} minus {1}", lambda a, b: a - b),
    ("sign", "{1} minus {0}", lambda a, b: b - a),
    ("relu first", "ReLU of {0}, plus {1}", lambda a, b: np.maximum(a, 0) + b),
    ("relu first", "{0} plus ReLU of {1}", lambda a, b: a + np.maximum(b, 0)),
    ("no relu", "the sum of {0} and {1} without ReLU", lambda a, b: a + b),
    ("relu", "ReLU of the sum of {0} and {1}", lambda a, b: np.maximum(a + b, 0)),
    ("product", "{0} times {1}", lambda a, b: a * b),
)


def broken_sum(row: Row, evidence: Evidence, graph: Pass) -> Cause | None:
    """What the candidate computes in the place of the baseline's sum; None if it is the sum too.

    Taps may be equal in the baseline, such as the input and the output of dropout that is off. So a
    sum may be one of several pairs of taps; it is right if one pair gives it in the candidate.
    """
    place = place_of(row.stage, row.tap)
    if not is_outside(row) or row.verdict != "different" or place.isolated:
        return None
    causes: list[Cause] = []
    for form, (first, second) in sums(row, evidence, graph):
        taps = [evidence.candidate.taps.get(n) for n in (f"{row.stage}/{row.tap}", first, second)]
        if not all(isinstance(tap, np.ndarray) for tap in taps):
            continue
        y, a, b = (np.asarray(tap, np.float64) for tap in taps)
        if y.shape != a.shape or apart(y, FORMS[form](a, b)) <= BROKEN:
            return None
        names = [name.partition("/")[2] for name in (first, second)]
        unknown = Cause("sum", f"not the {form} of {names[0]} and {names[1]}", 0.0, fitted=1)
        known = (
            Cause(code, f"{text.format(*names)}, instead of the {form}", 0.0)
            for code, text, function in MISTAKES
            if apart(y, function(a, b)) <= EQUAL
        )
        causes.append(next(known, unknown))
    return min(causes, key=lambda cause: cause.fitted, default=None)


def is_outside(row: Row) -> bool:
    """Whether a row may be the result of a function outside of modules."""
    return row.stage.endswith("inputs") or (
        row.stage.endswith("forward") and row.tap.partition(".")[0] == OUTPUT
    )


def sums(row: Row, evidence: Evidence, graph: Pass) -> Iterator[tuple[str, tuple[str, str]]]:
    """The forms, and pairs of earlier taps, that give the baseline's tap."""
    name, taps = f"{row.stage}/{row.tap}", evidence.baseline.taps
    order = graph.taps.get(place_of(row.stage, row.tap).training, [])
    x = taps[name]
    if name not in order or not isinstance(x, np.ndarray) or not x.size:
        return
    before = [n for n in order[: order.index(name)] if "choices/" not in n][-EARLIER:]
    arrays = {n: taps[n] for n in before if n in taps and taps[n].shape == x.shape}
    where = np.random.default_rng(0).integers(0, x.size, SAMPLES)
    samples = {
        n: value.ravel()[where].astype(np.float64)
        for n, value in arrays.items()
        if isinstance(value, np.ndarray)
    }
    some = x.ravel()[where].astype(np.float64)
    for first, second in combinations(samples, 2):
        for form, function in FORMS.items():
            if some.any() and apart(function(samples[first], samples[second]), some) <= EQUAL:
                yield form, (first, second)


def apart(found: Array, expected: Array) -> float:
    """The relative L2 distance of two arrays of one shape."""
    size = float(np.linalg.norm(expected))
    return float(np.linalg.norm(found - expected)) / size if size else np.inf
