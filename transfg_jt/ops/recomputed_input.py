"""What a linear layer keeps instead of its input: how to compute that input again."""

from collections.abc import Callable
from contextvars import ContextVar

import jittor as jt
from jittor import Var

from transfg_jt.ops.bfloat16 import is_low, rounded

RECOMPUTED = ContextVar("RECOMPUTED", default=None)


class RecomputedInput:
    """Stands for x in what is kept for the backward pass: it is made anew when it is wanted.

    Of the operators that keep x, the first to want it has it made, and the last lets it go.
    """

    def __init__(self, x: Var, make: Callable[[Var], Var], source: Var) -> None:
        self.x, self.make, self.source = x, make, source.detach()
        self.low = is_low(x)
        self.made = None
        self.wanted = self.given = 0

    def again(self) -> Var:
        """x, computed anew; the last of those that keep it lets it go."""
        if self.made is None:
            with jt.no_grad():
                made = self.make(self.source)
                self.made = rounded(made) if self.low else made
        made, self.given = self.made, self.given + 1
        if self.given % self.wanted == 0:
            self.made = None
        return made


def recomputed_input(x: Var) -> RecomputedInput | None:
    """What one is to keep instead of x, if x is what `recompute_input` gave it."""
    fed = RECOMPUTED.get()
    if fed is None or fed.x is not x:
        return None
    fed.wanted += 1
    return fed
