"""What a recording of a pair stores whole, and what as a sketch.

Weights make most of a recording: each parameter has its gradients, twice or more, and its step. A
bound needs only norms and distances of them, which sketches give (within about one per cent). Whole
arrays are for people and for causes, which are looked for in the two float32 recordings without a
variant. So these are whole as far as `WHOLE_WEIGHTS` reaches, and all other recordings store
sketches of whatever has more than `SMALL` numbers.

Whole are also: what modules alone are fed with, and the inputs of kinks, by which ties are judged.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

SMALL = 1 << 15  # numbers: from here on a sketch is smaller, and is compared faster
LARGE = 1 << 22  # activations of the pair in float32
WHOLE_WEIGHTS = 1 << 24  # numbers of all parameters together that have whole gradients
FED = ("forward", "inputs", "backward")  # last words of stages that modules alone are fed from
OF_WEIGHTS = ("gradients", "update")  # last words of stages with an array for each parameter


@dataclass(frozen=True)
class Storing:
    """The limit of each tap of one recording: the elements above which it is a sketch.

    `weights`: the limit for gradients and steps of a recording that is looked at by people.
    """

    main: bool  # float32 without a variant
    fed: bool  # the baseline's pass in float32
    exact: bool  # no variant: ties are judged by the inputs of its kinks
    weights: int
    everything: bool = False  # an array with a layout of its own has no sketch that compares

    def limit(self, name: str, inputs_of_kinks: Collection[str]) -> int | None:
        """The limit of a tap; None: it is stored whole."""
        word = name.partition("/")[0].rpartition(" ")[2]
        if self.everything or (self.fed and word in FED):
            return None
        if self.exact and name in inputs_of_kinks:
            return None
        if not self.main:
            return SMALL
        return self.weights if word in OF_WEIGHTS else LARGE


def limit_of_weights(sizes: Iterable[int], budget: int = WHOLE_WEIGHTS) -> int:
    """The largest limit with which all smaller parameters together have at most `budget` numbers.

    It is at least `SMALL`.
    """
    total, limit = 0, LARGE
    for size in sorted(sizes):
        total += size
        if total > budget:
            limit = min(limit, size - 1)
            break
    return max(limit, SMALL)
