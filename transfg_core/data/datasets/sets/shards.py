"""Which Parquet files are the shards of which split, by their names.

train-00000-of-00002.parquet, train-00001-of-00002.parquet, test-00000-of-00001.parquet
train/0000.parquet, test/0000.parquet
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from transfg_core.data.datasets.split import TEST, TRAIN
from transfg_core.errors import UserError

VALIDATION = "validation"
BOTH = ("aircraft", "flowers", "pets")  # papers train with the validation split, too
TESTED = ("inat2017",)  # whose validation split is the test split, as the real one has no labels
SPLITS = {
    "train": TRAIN, "training": TRAIN, "test": TEST, "validation": VALIDATION,
    "valid": VALIDATION, "val": VALIDATION, "dev": VALIDATION,
}  # fmt: skip
SHARD = re.compile(r"-(\d+)-of-(\d+)")


def parquet_files(root: Path) -> list[Path]:
    """The Parquet files directly in a folder or in its data/, sorted."""
    return sorted([*root.glob("*.parquet"), *root.glob("data/*.parquet")])


def parquet_files_below(root: Path) -> list[Path]:
    """All Parquet files below a folder, sorted; without hidden ones, such as half a download."""
    return [
        path
        for path in sorted(root.rglob("*.parquet"))
        if not any(part.startswith(".") for part in path.relative_to(root).parts)
    ]


def split_in_name(path: Path) -> str | None:
    """The split that the name of a file, or of its folder, begins with; None if it says none."""
    words = (re.split(r"[-_.]", path.name)[0].lower(), path.parent.name.lower())
    return next((SPLITS[word] for word in words if word in SPLITS), None)


class Shards(NamedTuple):
    """Files by part, TRAIN or TEST, and those that are not used."""

    by_part: dict[str, list[Path]]
    unused: list[Path]


def shards_by_split(name: str, root: Path, found: Sequence[Path]) -> Shards:
    """The files of training and of testing, complete and from one place each.

    Validation files are for testing where there are no test files, or where the data set `name`
    has it so. Otherwise they are for training where the set's own lists have it so, or not used.

    Raises:
        UserError: a name says no split, there is no training file, or a shard is absent.
    """
    by_split = defaultdict(list)
    for path in found:
        split = split_in_name(path)
        if split is None:
            raise UserError(
                f"{path}: expected a name that begins with train, test or validation, or a folder "
                f"of such a name, found neither; rename the file"
            )
        by_split[split].append(path)
    if TRAIN not in by_split:
        raise UserError(
            f"{root}: expected train-*.parquet, found {found[0].name} and no training file; is the "
            "copy complete?"
        )
    train, test, validation = (by_split[part] for part in (TRAIN, TEST, VALIDATION))
    unused: list[Path] = []
    if validation and (not test or name in TESTED):
        test, validation, unused = validation, [], test
    for paths in (train, test, validation if name in BOTH else []):
        _refuse_incomplete(paths)
    if name in BOTH:
        train = train + validation
    else:
        unused = unused + validation
    return Shards({TRAIN: train} | ({TEST: test} if test else {}), unused)


def _refuse_incomplete(paths: Sequence[Path]) -> None:
    """Refuse shards of several folders, and a number of shards other than their names say."""
    folders = sorted({str(path.parent) for path in paths})
    if len(folders) > 1:
        raise UserError(
            f"{folders[0]}: expected the shards of a split in one folder, found some in "
            f"{folders[1]}, too; set data.root to the folder of one configuration"
        )
    numbers = [SHARD.search(path.name) for path in paths]
    named = [(int(n[1]), int(n[2])) for n in numbers if n]
    totals = {total for _, total in named}
    if named and (len(totals) > 1 or len(named) < len(paths) or len(named) != max(totals)):
        raise UserError(
            f"{paths[0]}: expected {' or '.join(map(str, sorted(totals)))} shards, as the names "
            f"say, found {len(paths)}; fetch the missing ones, or remove those of an older version"
        )
