"""What a linear layer saves instead of its input: how to recompute that input."""

from collections.abc import Callable
from contextvars import ContextVar

import jittor as jt
from jittor import Var

from transfg_jt.ops.bfloat16 import is_bfloat16, round_to_bfloat16

RECOMPUTED = ContextVar("RECOMPUTED", default=None)


class RecomputedInput:
    """Replaces x among the saved tensors: x is recomputed in the backward pass.

    Several operators may save x. The first that reads it recomputes it, and the last frees it.
    """

    def __init__(self, x: Var, compute: Callable[[Var], Var], source: Var) -> None:
        self.x, self.compute, self.source = x, compute, source.detach()
        self.bfloat16 = is_bfloat16(x)
        self.value = None
        self.saves = self.reads = 0

    def recompute(self) -> Var:
        """x, recomputed at the first read and freed after the last."""
        if self.value is None:
            with jt.no_grad():
                value = self.compute(self.source)
                self.value = round_to_bfloat16(value) if self.bfloat16 else value
        value, self.reads = self.value, self.reads + 1
        if self.reads % self.saves == 0:
            self.value = None
        return value


def recomputed_input(x: Var) -> RecomputedInput | None:
    """What an operator saves instead of x, if x is the input that `recompute_input` passes."""
    recomputed = RECOMPUTED.get()
    if recomputed is None or recomputed.x is not x:
        return None
    recomputed.saves += 1
    return recomputed
