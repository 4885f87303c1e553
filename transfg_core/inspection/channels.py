"""Means and deviations of the colour channels, exact, from counts of 8-bit values.

The counts of each value are added up as integers, so the result depends neither on the order of the
images nor on their number, and takes no memory for them.
"""

from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from math import sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from transfg_core.config.sections import NORMALISATION, DataConfig
from transfg_core.data.datasets.samples import Samples
from transfg_core.data.decoding import read_image
from transfg_core.data.loader import read_ahead
from transfg_core.data.mapped_image import as_pillow
from transfg_core.data.transforms import resized
from transfg_core.errors import UserError
from transfg_core.inspection.facts import reason_of
from transfg_core.inspection.scan import AHEAD
from transfg_core.run.progress import CountProgress

VALUES, CHANNELS = 256, 3


class Histogram(NamedTuple):
    """One image: size as read, and (3, 256) int64 counts of each value after `data.resize`."""

    height: int
    width: int
    counts: NDArray[np.int64]
    reason: str = ""  # why it cannot be read; then the rest is empty


@dataclass(frozen=True, eq=False)
class HistogramReader:
    """Index of a training image -> histogram. Pickled to worker processes."""

    samples: Samples
    data: DataConfig

    def __call__(self, index: int) -> Histogram:
        """Read and resize; `random_resized_crop` is left out, since it takes each part as often."""
        path = self.samples.paths[index]
        try:
            image = read_image(path, self.data, self.samples.region(index))
            height, width = image.height, image.width
            if self.data.resize is not None and self.data.random_resized_crop is None:
                image = as_pillow(resized(image, self.data))
        except UserError as error:
            return Histogram(0, 0, np.zeros((CHANNELS, VALUES), np.int64), reason_of(path, error))
        counts = np.array(image.histogram(), np.int64).reshape(CHANNELS, VALUES)
        return Histogram(height, width, counts)


@dataclass(frozen=True, eq=False)
class Channels:
    """All images of a split: counts (3, 256) int64, sizes (n, 2) int32 of those that were read."""

    counts: NDArray[np.int64]
    sizes: NDArray[np.int32]
    broken: dict[str, int] = field(default_factory=dict)  # reason -> images

    @property
    def pixels(self) -> int:
        """How many pixels were counted."""
        return int(self.counts[0].sum())

    def means(self) -> tuple[float, ...]:
        """Of each channel, on values in [0, 1]."""
        return tuple(float(_moment(counts, 1) / (VALUES - 1)) for counts in self.counts)

    def deviations(self) -> tuple[float, ...]:
        """Of each channel over all pixels, with their number as divisor, on values in [0, 1]."""
        variances = (_moment(counts, 2) - _moment(counts, 1) ** 2 for counts in self.counts)
        return tuple(sqrt(variance) / (VALUES - 1) for variance in variances)

    def after(self, normalise: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Means and deviations after a normalisation: 0 and 1 if it fits these images."""
        means, deviations = NORMALISATION[normalise]
        triples = zip(self.means(), self.deviations(), means, deviations, strict=True)
        pairs = [((m - mean) / d, s / d) for m, s, mean, d in triples]
        return tuple(m for m, _ in pairs), tuple(s for _, s in pairs)

    def closest(self) -> str:
        """The normalisation whose result is closest to means 0 and deviations 1."""

        def distance(name: str) -> float:
            means, deviations = self.after(name)
            return sum(m * m for m in means) + sum((s - 1) ** 2 for s in deviations)

        return min(NORMALISATION, key=distance)


def _moment(counts: NDArray[np.int64], power: int) -> Fraction:
    """The mean of value ** power."""
    total = sum(int(count) * value**power for value, count in enumerate(counts))
    return Fraction(total, max(int(counts.sum()), 1))


def count_channels(samples: Samples, data: DataConfig) -> Channels:
    """Read every image of a split, in `data.threads` and `data.workers`, with progress.

    Raises:
        RunFailed: a worker process died.
    """
    number = len(samples.paths)
    counts = np.zeros((CHANNELS, VALUES), np.int64)
    sizes, broken = np.zeros((number, 2), np.int32), dict[str, int]()
    read = HistogramReader(samples, data)
    with (
        CountProgress("images", number) as progress,
        closing(read_ahead(read, range(number), data, AHEAD)) as histograms,
    ):
        for row, histogram in enumerate(histograms):
            if histogram.reason:
                broken[histogram.reason] = broken.get(histogram.reason, 0) + 1
            counts += histogram.counts
            sizes[row] = histogram.height, histogram.width
            progress.advance()
    return Channels(counts, sizes[sizes[:, 0] > 0], broken)
