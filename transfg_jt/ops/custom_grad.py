"""Operators with a gradient of their own that let go of what they keep as soon as they can.

Jittor 1.3.11 destroys such an operator, and with it what it keeps, only when all that it was asked
to run has run: activations would stay until the optimiser is through. PyTorch lets them go, so this
file has no twin. `scope` sets one of the variables that change how operators compute.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jittor as jt

ONCE = ContextVar("ONCE", default=False)


@contextmanager
def scope(variable: ContextVar, value: Any) -> Iterator[None]:
    """Inside it, the variable has this value."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


class Function(jt.Function):
    """`jt.Function` whose `execute` calls `keep`, and whose `grad` calls `take`.

    What is computed inside `scope(ONCE, True)` is differentiated once: what `grad` took is gone.
    Elsewhere a gradient may be asked for again, as Jittor has it.
    """

    kept: tuple | None = None
    once = False

    def keep(self, *kept: Any) -> None:
        """Keep these for the gradient."""
        self.kept, self.once = kept, ONCE.get()

    def take(self) -> tuple:
        """What was kept.

        Raises:
            RuntimeError: If it is gone.
        """
        kept = self.kept
        if kept is None:
            raise RuntimeError(
                f"{type(self).__name__}: what it kept for its gradient is gone, which was asked "
                "for before, or in vain; compute what is differentiated anew"
            )
        if self.once:
            self.kept = None
        return kept
