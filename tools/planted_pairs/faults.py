"""All planted faults and clean controls, and the pair of each.

A control computes the same function in another way: nothing may be told.
"""

from torch import nn

from parity import Pair, Side
from tools.planted_pairs.blocks import BLOCKS
from tools.planted_pairs.layers import LAYERS
from tools.planted_pairs.nets import INPUTS, NETS
from tools.planted_pairs.planted import Planted
from tools.planted_pairs.states import CONTROLS, STATES, STRUCTURES

FAULTS: tuple[Planted, ...] = (*LAYERS, *BLOCKS, *STATES)
ALL = {each.name: each for each in (*FAULTS, *STRUCTURES, *CONTROLS)}


def pair_of(name: str) -> Pair:
    """The pair of an entry; a generated pair file calls it."""
    entry = ALL[name]

    def baseline() -> nn.Module:
        net = NETS[entry.net]()
        return entry.prepare(net) if entry.prepare else net

    return Pair(
        Side("torch", baseline),
        Side("torch", lambda: entry.plant(baseline())),
        INPUTS[entry.net],
        layouts=entry.layouts,
        tag=name,
    )
