"""The same function computed in another way: what rounding alone can do to a result.

A variant changes a case's weights and batches so that in exact arithmetic every tap stays the same,
once its axes are put back in order:

    ulp:SEED        every weight moves by one unit in the last place, up or down
    symmetry:SEED   images of a batch, colour channels, widths, heads, hidden units and classes
                    change places, and with them the order of every sum over them

Both need no word of a framework, so the noise of any implementation is measured alike.

Letters of axes: B batch, R colours, D width, K heads, E = K d heads side by side, M hidden, C
classes, P class token and K parts, T tokens, N patches.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from parity.measure import move_by_ulp
from transfg_core.backend import Array, Arrays, Batch
from transfg_core.config import Config
from transfg_core.errors import UserError
from transfg_core.layout import dims_of

# Axes of taps by the last part of their names; behind the part selection T is P.
TAP_AXES = {
    "patch_embed": "B N D",
    "query": "B T E",
    "key": "B T E",
    "value": "B T E",
    "mix": "B T E",
    "fc1": "B T M",
    "gelu": "B T M",
    "hidden": "B T M",
    "part_scores": "B K N",
    "part_index": "B K",
    "features": "B D",
    "logits": "B C",
    "prediction": "B",
    "rollout": "B N",
}
AFTER_SELECTION = ("part_tokens", "part_layer", "part_norm")
NAMES = ("ulp", "symmetry")


def param_axes(name: str) -> str:
    """Letters of a parameter's axes."""
    dims = dims_of(name).replace("3", "R")
    if ".attn.out.weight" in name:
        return "D E"
    if ".attn." in name and ".attn.out." not in name:
        return dims.replace("D", "E", 1)
    return dims.replace("P", "-")  # the two axes of a patch stay


def tap_axes(name: str, params: Mapping[str, Array]) -> str:
    """Letters of a tap's axes, its rung and prefixes such as `d/` or `grad/` included."""
    last = name.rpartition("/")[2]
    if last in params:
        return param_axes(last)
    if last.startswith("part_row"):
        return "B K T"
    axes = TAP_AXES.get(last.rpartition(".")[2], "")
    if not axes and last.partition(".")[0].startswith(
        ("block", "part_", "tokens", "embed", "norm")
    ):
        axes = "B T D"
    return axes.replace("T", "P") if last.startswith(AFTER_SELECTION) else axes


@dataclass(frozen=True)
class Variant:
    """One way of computing a case anew; `name` is `ulp:SEED` or `symmetry:SEED`."""

    name: str
    config: Config

    def __post_init__(self) -> None:
        kind, _, seed = self.name.partition(":")
        if kind not in NAMES or not (seed.isascii() and seed.isdigit()):
            raise UserError(f"--variant {self.name}: expected ulp:SEED or symmetry:SEED")

    @property
    def rng(self) -> np.random.Generator:
        """Draws that depend on the variant alone."""
        return np.random.default_rng([77, int(self.name.partition(":")[2])])

    def params(self, params: Arrays) -> Arrays:
        """The weights of this variant."""
        if self.name.startswith("ulp"):
            rng, precision = self.rng, self.config.run.precision
            return {name: move_by_ulp(value, rng, precision) for name, value in params.items()}
        return {name: self._permute(value, param_axes(name)) for name, value in params.items()}

    def batch(self, batch: Batch) -> Batch:
        """A batch of this variant."""
        if self.name.startswith("ulp"):
            return batch
        orders = self.orders()
        labels = np.argsort(orders["C"])[batch.labels]
        return Batch(self._permute(batch.images, "B R - -"), self._permute(labels, "B"))

    def given(self, taps: Arrays, params: Mapping[str, Array]) -> Arrays:
        """Taps of the case as this variant names their axes."""
        if self.name.startswith("ulp"):
            return taps
        return {name: self._permute(value, tap_axes(name, params)) for name, value in taps.items()}

    def back(self, taps: Arrays, params: Mapping[str, Array]) -> Arrays:
        """Taps of this variant with the case's own order of axes."""
        if self.name.startswith("ulp"):
            return taps
        return {
            name: self._permute(value, tap_axes(name, params), inverse=True)
            for name, value in taps.items()
        }

    def orders(self) -> dict[str, Array]:
        """Axis letter -> order. Images stay in their micro-batch, since a loss is over pairs."""
        rng, model, train = self.rng, self.config.model, self.config.train
        assert model.width and model.heads and model.classes
        size = train.batch_size // train.accumulation
        batch = [i * size + rng.permutation(size) for i in range(train.accumulation)]
        heads = rng.permutation(model.heads)
        inner = rng.permutation(model.width // model.heads)
        return {
            "B": np.concatenate(batch),
            "R": rng.permutation(3),
            "D": rng.permutation(model.width),
            "K": heads,
            "E": (heads[:, None] * len(inner) + inner).reshape(-1),
            "M": rng.permutation(model.mlp or 1),
            "C": rng.permutation(model.classes),
            "P": np.concatenate([[0], heads + 1]),
        }

    def _permute(self, value: Array, axes: str, inverse: bool = False) -> Array:
        orders = self.orders()
        for axis, letter in enumerate(axes.split()):
            order = orders.get(letter)
            if order is not None:
                order = np.argsort(order) if inverse else order
                value = np.take(value, order, axis=axis)
        return np.ascontiguousarray(value) if axes else value
