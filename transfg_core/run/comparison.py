"""Comparison of two runs: settings that differ, predictions that agree."""

from typing import NamedTuple

from transfg_core.config.loading import differing_keys
from transfg_core.errors import UserError
from transfg_core.run.reading import Run

NAMES = ("run.name", "run.dir")  # keys that do not belong to the experiment


def real_differences(left: Run, right: Run, but: tuple[str, ...] = ()) -> list[str]:
    """The differences of two configurations, as `key: left -> right`.

    Names, folders and the keys in `but` are left out.
    """
    lines = differing_keys(left.config, right.config)
    return [line for line in lines if line.partition(":")[0] not in (*NAMES, *but)]


class Agreement(NamedTuple):
    """Final predictions of two runs, compared on the images that both predicted."""

    images: int
    same: int  # both predict the same class, right or wrong
    only_left: int  # only the left run is right
    only_right: int

    @property
    def difference(self) -> float:
        """Accuracy of the left run minus that of the right one, as a fraction."""
        return (self.only_left - self.only_right) / self.images


def agreement(left: Run, right: Run) -> Agreement | None:
    """Compare final predictions image by image; None if the runs have no image in common.

    Raises:
        UserError: the runs give one image different labels.
    """
    counts = dict.fromkeys(Agreement._fields, 0)
    for image in left.predictions.keys() & right.predictions.keys():
        label, left_class = left.predictions[image]
        right_label, right_class = right.predictions[image]
        if label != right_label:
            raise UserError(
                f"{left.path} and {right.path}: image {image} has label {label} in one and "
                f"{right_label} in the other, expected equal labels; compare runs on the same data"
            )
        counts["images"] += 1
        counts["same"] += left_class == right_class
        counts["only_left"] += left_class == label != right_class
        counts["only_right"] += right_class == label != left_class
    return Agreement(**counts) if counts["images"] else None
