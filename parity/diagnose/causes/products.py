"""Products whose inputs are in a shorter format, summed exactly."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from parity.diagnose.causes.hypothesis import Hypothesis
from parity.diagnose.causes.pair import Array
from parity.diagnose.causes.relations import FORMATS, rounded_to


def cut_to_tf32(x: Array) -> Array:
    """Float32 without its last 13 bits, as a tensor core reads it."""
    cut = np.ascontiguousarray(x, np.float32).view(np.uint32) & np.uint32(0xFFFFE000)
    return cut.view(np.float32).astype(np.float64)


def short_products(product: Callable[[Callable[[Array], Array]], Array]) -> Iterator[Hypothesis]:
    """A product whose inputs are in a shorter format, summed exactly."""
    for name, bits in FORMATS.items():
        text = f"the inputs of the product are rounded to {name}"
        yield Hypothesis("short product", text, product(partial(rounded_to, bits=bits)))
    text = "the inputs of the product are cut to TF32"
    yield Hypothesis("short product", text, product(cut_to_tf32))
