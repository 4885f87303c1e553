"""Custom-gradient operators that free saved tensors early.

Jittor 1.3.11 destroys such an operator, and the tensors that it saves, only when everything that
Jittor was asked to run has run: activations would stay until the optimiser has finished. PyTorch
frees them during the backward pass, so this file has no twin. `override` sets one of the variables
that change how operators compute.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jittor as jt

FREE_SAVED = ContextVar("FREE_SAVED", default=False)


@contextmanager
def override(variable: ContextVar, value: Any) -> Iterator[None]:
    """Give the variable this value inside the `with` block."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


class Function(jt.Function):
    """`jt.Function` whose `execute` calls `save_for_backward`, and whose `grad` calls `take_saved`.

    Inside `override(FREE_SAVED, True)`, `grad` frees the saved tensors, so that `backward` can be
    called once. Elsewhere it can be called several times, as in Jittor.
    """

    saved: tuple | None = None
    free_saved = False

    def save_for_backward(self, *saved: Any) -> None:
        """Save these values for the gradient."""
        self.saved, self.free_saved = saved, FREE_SAVED.get()

    def take_saved(self) -> tuple:
        """The saved values.

        Raises:
            RuntimeError: If they were already freed.
        """
        saved = self.saved
        if saved is None:
            raise RuntimeError(
                f"{type(self).__name__}: saved tensors were already freed (backward called "
                "twice?); run the forward pass again"
            )
        if self.free_saved:
            self.saved = None
        return saved
