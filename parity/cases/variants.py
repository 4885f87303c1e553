"""Variants: the same function computed in another way, to measure the effect of rounding.

A variant changes the weights and batches of a case:

    ulp:SEED        every weight moves by one unit in the last place, up or down
    symmetry:SEED   images of a batch, colour channels, widths, heads, hidden units and classes
                    are permuted, which changes the order of every sum over them

In exact arithmetic a symmetry leaves every tap the same, once its axes are back in order. Variants
need no framework, so the noise of every implementation is measured in the same way.

The architecture's file (transfg_core/models) lists the axes of each parameter and tap, and the axes
that may be permuted.
"""

from dataclasses import dataclass

import numpy as np

from parity.comparison.measure import move_by_ulp
from transfg_core.backend import Array, Arrays, Batch
from transfg_core.config.model import ModelConfig
from transfg_core.config.sections import Config
from transfg_core.errors import UserError
from transfg_core.models.layout import architecture, param_specs, taps_of

NAMES = ("ulp", "symmetry")
OUTPUTS = {
    "prediction": "B",
    "rollout": "B N",
    "grad_cam": "B -",
    "saliency": "B - -",
}  # axes of recorded outputs that are no taps


def tap_axes(name: str, model: ModelConfig) -> str:
    """Letters of the axes of a tap; its stage and prefixes such as `d/` or `grad/` are ignored.

    The last part of the name is the name of a parameter or tap. Other names have no letters.
    """
    base = name.rpartition("/")[2]
    specs, taps = param_specs(model), taps_of(model)
    if base in specs:
        return specs[base].dims
    return taps[base].axes if base in taps else OUTPUTS.get(base, "")


@dataclass(frozen=True)
class Variant:
    """Another way to compute a case; `name` is `ulp:SEED` or `symmetry:SEED`."""

    name: str
    config: Config

    def __post_init__(self) -> None:
        kind, _, seed = self.name.partition(":")
        if kind not in NAMES or not (seed.isascii() and seed.isdigit()):
            raise UserError(f"--variant {self.name}: expected ulp:SEED or symmetry:SEED")

    @property
    def rng(self) -> np.random.Generator:
        """A random generator that depends on the seed of the variant alone."""
        return np.random.default_rng([77, int(self.name.partition(":")[2])])

    def params(self, params: Arrays) -> Arrays:
        """A case's weights, changed by this variant."""
        if self.name.startswith("ulp"):
            rng, precision = self.rng, self.config.run.precision
            return {name: move_by_ulp(value, rng, precision) for name, value in params.items()}
        return self._permute_all(params)

    def batch(self, batch: Batch) -> Batch:
        """A batch of the case, changed by this variant."""
        if self.name.startswith("ulp"):
            return batch
        orders = self.orders()
        labels = np.argsort(orders["C"])[batch.labels]
        targets = None if batch.targets is None else self._permute(batch.targets, "B C")
        return Batch(self._permute(batch.images, "B R - -"), self._permute(labels, "B"), targets)

    def given(self, taps: Arrays) -> Arrays:
        """Taps of the case with their axes in this variant's order."""
        return taps if self.name.startswith("ulp") else self._permute_all(taps)

    def back(self, taps: Arrays) -> Arrays:
        """Taps of this variant with their axes in the case's own order."""
        return taps if self.name.startswith("ulp") else self._permute_all(taps, inverse=True)

    def orders(self) -> dict[str, Array]:
        """Axis letter -> order of that axis.

        Images stay in their micro-batch, because the contrastive loss is over its pairs.
        """
        rng, model, train = self.rng, self.config.model, self.config.train
        size = train.batch_size // train.accumulation
        micro_batches = [i * size + rng.permutation(size) for i in range(train.accumulation)]
        orders = {"B": np.concatenate(micro_batches)} | architecture(model).orders(model, rng)
        return orders | {"C": rng.permutation(model.class_count)}

    def _permute_all(self, arrays: Arrays, inverse: bool = False) -> Arrays:
        model = self.config.model
        return {
            name: self._permute(value, tap_axes(name, model), inverse)
            for name, value in arrays.items()
        }

    def _permute(self, value: Array, axes: str, inverse: bool = False) -> Array:
        orders = self.orders()
        for axis, letter in enumerate(axes.split()):
            order = orders.get(letter)
            if order is not None:
                order = np.argsort(order) if inverse else order
                value = np.take(value, order, axis=axis)
        return np.ascontiguousarray(value) if axes else value
