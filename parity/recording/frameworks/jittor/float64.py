"""Float64 arithmetic in Jittor, with Python's numbers in float64 as well.

Jittor 1.3.11 makes a Python number float32: `x * 0.1` has the factor 0.10000000149 for a float64 x,
and `0.1 + x` is float32. The gradient of a mean has a float32 factor 1 / n as well. A float64
recording would then agree to some eight digits only, and show a difference in nearly every tap of
a right model.
"""

from typing import Any

import numpy as np

from parity.errors import ParityError

# Methods of jittor.Var that take a number
METHODS = (
    *("__add__", "__radd__", "__iadd__", "__sub__", "__rsub__", "__isub__"),
    *("__mul__", "__rmul__", "__imul__", "__truediv__", "__rtruediv__", "__itruediv__"),
    *("__pow__", "__rpow__", "__floordiv__", "__mod__"),
    *("__gt__", "__ge__", "__lt__", "__le__", "__eq__", "__ne__"),
    *("add", "subtract", "multiply", "divide", "pow", "maximum", "minimum"),
)


def use_float64(jittor: Any) -> None:
    """Keep arrays in 64 bits, numbers in the type of the array beside them, and `float_auto` away.

    Call it before any array exists: Jittor cannot compute in float64 after float32.

    Raises:
        ParityError: Jittor runs on CUDA, where it has no float64 products.
    """
    if jittor.flags.use_cuda:
        raise ParityError(
            "jittor: float64 is not possible on CUDA; set nvcc_path= in the environment"
        )
    jittor.flags.auto_convert_64_to_32 = 0
    jittor.Var.float_auto = jittor.float_auto = lambda x: x  # it would make float32
    for name in METHODS:
        if hasattr(jittor.Var, name):
            setattr(jittor.Var, name, with_numbers(jittor, getattr(jittor.Var, name)))
    for owner in (jittor, jittor.Var):
        owner.mean = mean_in_float64(owner.mean)
    jittor.Var.reduce = reduce_in_float64(jittor.Var.reduce)


def mean_in_float64(mean: Any) -> Any:
    """The mean as a sum divided by a number, for float64 arrays."""

    def call(array: Any, *axes: Any, **more: Any) -> Any:
        if str(array.dtype) != "float64":
            return mean(array, *axes, **more)
        total = array.sum(*axes, **more)
        return total / (array.numel() / total.numel())

    return call


def reduce_in_float64(reduce: Any) -> Any:
    """`reduce`, whose means are sums divided by a number, for float64 arrays."""

    def call(array: Any, operation: str, *axes: Any, **more: Any) -> Any:
        if operation != "mean" or str(array.dtype) != "float64":
            return reduce(array, operation, *axes, **more)
        total = reduce(array, "add", *axes, **more)
        return total / (array.numel() / total.numel())

    return call


def with_numbers(jittor: Any, method: Any) -> Any:
    """The method; beside a float64 array, a number becomes a float64 array of shape (1,)."""

    def call(array: Any, other: Any, *rest: Any) -> Any:
        number = isinstance(other, int | float | np.number) and not isinstance(other, bool)
        if number and str(array.dtype) == "float64":
            other = jittor.array(np.array([other], np.float64))
        return method(array, other, *rest)

    return call
