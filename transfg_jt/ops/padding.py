"""Zeros around a feature map.

The gradient of Jittor 1.3.11's own padding adds up values that do not overlap; here it is a cut.
PyTorch has such an operator, so this file has no twin.
"""

import jittor as jt
from jittor import Var


class Pad(jt.Function):
    """Zeros at the four sides; saves nothing."""

    def execute(self, x: Var, left: int, right: int, top: int, bottom: int) -> Var:
        self.before, self.shape = (top, left), x.shape
        rows, columns = x.shape[2] + top + bottom, x.shape[3] + left + right
        return x.reindex([*x.shape[:2], rows, columns], ["i0", "i1", f"i2-{top}", f"i3-{left}"])

    def grad(self, grad: Var) -> tuple:
        top, left = self.before
        cut = grad.reindex(self.shape, ["i0", "i1", f"i2+{top}", f"i3+{left}"])
        return cut, None, None, None, None


def pad(x: Var, sides: tuple[int, int, int, int]) -> Var:
    """Zeros left, right, above and below: (B, C, H, W) -> (B, C, H', W'), as PyTorch's `pad`."""
    return Pad.apply(x, *sides)
