"""Which Parquet files are the shards of which split, by their names.

train-00000-of-00002.parquet, train-00001-of-00002.parquet, test-00000-of-00001.parquet
train/0000.parquet, test/0000.parquet
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from transfg_core.data.datasets.split import TEST, TRAIN
from transfg_core.errors import UserError

VALIDATION = "validation"
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


def shards_by_split(root: Path, found: Sequence[Path]) -> dict[str, list[Path]]:
    """The files of training and of testing, complete and from one place each.

    Validation files are for testing where there are no test files.

    Raises:
        UserError: a name says no split, there is no training file, or a shard is absent.
    """
    by_split = defaultdict(list)
    for path in found:
        words = (re.split(r"[-_.]", path.name)[0].lower(), path.parent.name.lower())
        word = next((word for word in words if word in SPLITS), None)
        if word is None:
            raise UserError(
                f"{path}: expected a name that begins with train, test or validation, or a folder "
                f"of such a name, found neither; rename the file"
            )
        by_split[SPLITS[word]].append(path)
    if TRAIN not in by_split:
        raise UserError(
            f"{root}: expected train-*.parquet, found {found[0].name} and no training file; is the "
            "copy complete?"
        )
    shards = {TRAIN: by_split[TRAIN]}
    test = by_split.get(TEST) or by_split.get(VALIDATION)
    if test:
        shards[TEST] = test
    for paths in shards.values():
        _refuse_incomplete(paths)
    return shards


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
