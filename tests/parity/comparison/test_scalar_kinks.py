"""Choices at the kink of a single number, such as the ReLU of a margin."""

from pathlib import Path

import numpy as np
import pytest

from parity.comparison.judge import judge_taps
from parity.comparison.trace import Trace
from parity.comparison.verdict import Evidence

TINY = 1e-9
KINKS = {"choices/r": {"kind": "relu", "input": "forward/x", "corners": [0.0], "settings": {}}}


def trace(name, x, precision="float32"):
    taps = {"forward/x": np.array(x, precision), "choices/r": np.array(x > 0, np.uint8)}
    producer = {"name": name, "version": "1", "device": "cpu"}
    manifest = {"producer": producer, "precision": precision, "subject": {}, "variant": None}
    return Trace(Path(f"{name}-{precision}.npz"), manifest | {"kinks": KINKS}, taps)


@pytest.mark.parametrize(("candidate", "expected"), [(1.5, "undecided"), (-1.0, "different")])
def test_a_choice_of_one_number(candidate, expected):
    """Noise of one number is known badly: as large as the number, it decides nothing."""
    variants = [trace(f"a{n}", x * TINY) for n, x in enumerate((-2.0, 3.0, -1.0))]
    x = candidate * (1.0 if expected == "different" else -TINY)
    exact = trace("a", TINY, "float64")
    _, row = judge_taps(
        ["forward/x", "choices/r"], Evidence(trace("a", TINY), trace("b", x), exact, variants)
    )
    assert (row.verdict, len(row.ties)) == (expected, 1)
