"""The same function computed in another way: what rounding alone can do to a result.

A variant changes a case's weights and batches so that in exact arithmetic every tap stays the same,
once its axes are put back in order:

    ulp:SEED        every weight moves by one unit in the last place, up or down
    symmetry:SEED   images of a batch, colour channels, widths, heads, hidden units and classes
                    change places, and with them the order of every sum over them

Both need no word of a framework, so the noise of any implementation is measured alike.

Which axes a parameter or a tap has, and which of them may change places, the architecture's file
says (transfg_core/models).
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
OUTPUTS = {"prediction": "B", "rollout": "B N"}  # what is recorded beside the taps


def tap_axes(name: str, model: ModelConfig) -> str:
    """Letters of the axes of a tap, whatever its stage and prefixes such as `d/` or `grad/`.

    The last part of the name is a parameter's or a tap's; of other names nothing is known.
    """
    last = name.rpartition("/")[2]
    specs, taps = param_specs(model), taps_of(model)
    if last in specs:
        return specs[last].dims
    return taps[last].axes if last in taps else OUTPUTS.get(last, "")


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
        return self._permute_all(params)

    def batch(self, batch: Batch) -> Batch:
        """A batch of this variant."""
        if self.name.startswith("ulp"):
            return batch
        orders = self.orders()
        labels = np.argsort(orders["C"])[batch.labels]
        return Batch(self._permute(batch.images, "B R - -"), self._permute(labels, "B"))

    def given(self, taps: Arrays) -> Arrays:
        """Taps of the case with their axes in this variant's order."""
        return taps if self.name.startswith("ulp") else self._permute_all(taps)

    def back(self, taps: Arrays) -> Arrays:
        """Taps of this variant with their axes in the case's own order."""
        return taps if self.name.startswith("ulp") else self._permute_all(taps, inverse=True)

    def orders(self) -> dict[str, Array]:
        """Axis letter -> order. Images stay in their micro-batch, since a loss is over pairs."""
        rng, model, train = self.rng, self.config.model, self.config.train
        size = train.batch_size // train.accumulation
        batch = [i * size + rng.permutation(size) for i in range(train.accumulation)]
        orders = {"B": np.concatenate(batch)} | architecture(model).orders(model, rng)
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
