"""Explain why a tap of B differs from A's: find the likely cause.

    explain("forward/act", found, expected, Context(taps, params, made_by), rule)   # all A's
    -> [Cause("tanh", "GELU in its tanh form", 3.1e-07)]

There are two layers of hypotheses: relations between the two arrays (`relations.py`), and known
mistakes in the operation that made the tap, recomputed from A's inputs. The `rule` gives the known
mistakes of a tap.

Use it for the first tap that differs: after that tap, B's inputs are no longer A's. A doubtful
cause is not named; `pair.py` has the rule. It needs only NumPy.
"""

import numpy as np

from parity.diagnose.causes.hypothesis import Rule, recomputed
from parity.diagnose.causes.pair import Array, Cause, Context, as_pair, ranked
from parity.diagnose.causes.relations import relations


def explain(tap: str, found: Array, expected: Array, context: Context, rule: Rule) -> list[Cause]:
    """Likely causes why a tap of B (`found`) differs from A's (`expected`), best first; often none.

    The context is A's. Without A's inputs in it, only relations are tried.
    """
    causes = relations(found, expected, context, tap)
    pair = as_pair(np.asarray(found), np.asarray(expected), context, tap)
    if pair is None or any(cause.code in ("not finite", "not zero") for cause in causes):
        return causes
    recompute = rule(tap, context)
    if recompute:
        causes += recomputed(recompute, pair, context)
    return ranked(causes, pair.noise)
