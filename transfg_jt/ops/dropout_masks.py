"""Dropout masks of a block that is computed twice: drawn in the first pass, given in the second.

PyTorch's checkpointing restores the random generator instead, so this file has no twin.
"""

from contextvars import ContextVar

from jittor import Var

DRAWN: ContextVar[list[Var] | None] = ContextVar("DRAWN", default=None)  # new masks are appended
GIVEN: ContextVar[list[Var] | None] = ContextVar("GIVEN", default=None)  # taken in order
