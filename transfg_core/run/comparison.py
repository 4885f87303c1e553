"""Comparison of two runs: settings that differ, predictions that agree."""

from pathlib import PurePath
from typing import Any, NamedTuple

from transfg_core.config.loading import differing_keys, flatten
from transfg_core.config.sections import Config
from transfg_core.errors import UserError
from transfg_core.run.reading import Run

# Keys that may change when a run is resumed: names and places of files, how they are read, how
# often the run evaluates and saves. None of them changes what the run computes.
FREE_ON_RESUME = (
    "data.cache",
    "data.max_megapixels",
    "data.on_bad_image",
    "data.root",
    "data.threads",
    "data.unpacked",
    "data.workers",
    "model.pretrained",
    "run.dir",
    "run.name",
    "train.eval_batch_size",
    "train.eval_every",
    "train.keep",
    "train.save_every",
)
# The same without the file of weights: other weights make another experiment.
FREE = frozenset(FREE_ON_RESUME) - {"model.pretrained"}
DATA = "data.root"  # its last name tells data sets of one reader apart


def experiment(config: Config) -> dict[str, Any]:
    """The settings that make an experiment, under dotted keys: all but FREE.

    Of `data.root`, the name of the folder stays, wherever the folder is.
    """
    flat = flatten(config.model_dump(mode="json"))
    kept = {key: value for key, value in flat.items() if key not in FREE}
    return kept | {DATA: PurePath(config.data.root).name}


def real_differences(left: Run, right: Run, but: tuple[str, ...] = ()) -> list[str]:
    """The differences of two experiments, as `key: left -> right`, without the keys in `but`."""
    sides = experiment(left.config), experiment(right.config)
    lines = {line.partition(":")[0]: line for line in differing_keys(left.config, right.config)}
    return [
        line
        for key, line in lines.items()
        if key not in but and sides[0].get(key) != sides[1].get(key)
    ]


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
