"""How many images each class has."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from transfg_core.data.datasets import Dataset


@dataclass(frozen=True, eq=False)
class Balance:
    """Images of each of C classes in one split; `counts` is (C,) int64."""

    classes: tuple[str, ...]
    counts: NDArray[np.int64]

    @property
    def fewest(self) -> int:
        """The class with the fewest images."""
        return int(self.counts.argmin())

    @property
    def most(self) -> int:
        """The class with the most images."""
        return int(self.counts.argmax())

    @property
    def median(self) -> float:
        """The median number of images of a class."""
        return float(np.median(self.counts))

    @property
    def ratio(self) -> float:
        """Images of the largest class over those of the smallest; infinite if that has none."""
        low, high = int(self.counts.min()), int(self.counts.max())
        return high / low if low else float("inf")

    def below(self, images: int) -> NDArray[np.int64]:
        """Classes with fewer than `images` images, the smallest first."""
        order = np.argsort(self.counts, kind="stable")
        return order[self.counts[order] < images]

    def weights(self) -> NDArray[np.float64]:
        """(C,): n / (C n_c), the weights that make each class count the same; 0 for an empty one.

        Their mean over the images is 1 (King and Zeng 2001; scikit-learn's "balanced").
        """
        total, present = int(self.counts.sum()), np.maximum(self.counts, 1)
        weights: NDArray[np.float64] = total / (len(self.counts) * present)
        return np.where(self.counts > 0, weights, 0.0)


def balance_of(dataset: Dataset, labels: NDArray[np.int64]) -> Balance:
    """The balance of labels (n,) among the data set's classes."""
    return Balance(dataset.classes, np.bincount(labels, minlength=len(dataset.classes)))
