"""A hypothesis about a tap of B, and what it is computed from.

    def layer_norm(tap, context, pair) -> Iterator[Hypothesis]: ...

A function of this form computes the results of known mistakes in one operation from A's inputs. Its
first hypothesis is the operation as A says it is: if it gives B but not A, then A is wrong.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from parity.diagnose.causes.pair import Array, Cause, Context, Pair


class Hypothesis(NamedTuple):
    """The value of B if the sentence is true; `fitted` of its numbers were taken from B."""

    code: str
    text: str
    value: Array
    fitted: int = 0


class Absent(Exception):
    """The context lacks an input: no further hypothesis can be computed."""


def tap_of(context: Context, name: str) -> Array:
    """An activation of A in float64."""
    if name not in context.taps:
        raise Absent(name)
    return context.taps[name].astype(np.float64)


def param_of(context: Context, name: str) -> Array:
    """A parameter in float64."""
    if name not in context.params:
        raise Absent(name)
    return context.params[name].astype(np.float64)


Recompute = Callable[[str, Context, Pair], Iterator[Hypothesis]]
# tap and context -> the known mistakes of the operation that makes the tap, if there are any
Rule = Callable[[str, Context], Recompute | None]


def recomputed(recompute: Recompute, pair: Pair, context: Context) -> Iterator[Cause]:
    """The hypotheses of one operation that reproduce B; stops where the context lacks an input."""
    try:
        for hypothesis in recompute(pair.tap, context, pair):
            value = np.asarray(hypothesis.value, np.float64)
            yield from pair.cause(hypothesis.code, hypothesis.text, value, hypothesis.fitted)
    except Absent:
        return
