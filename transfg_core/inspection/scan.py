"""One pass over all images of a data set: what each file is, in arrays that stay small.

An image takes about 50 bytes here, beside its path in the data set itself; 300 bytes if near
duplicates are looked for.
"""

import re
from collections import Counter
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets import Dataset, Samples
from transfg_core.data.datasets.groups import THUMBNAIL
from transfg_core.data.loader import read_ahead
from transfg_core.inspection.facts import DIGEST, FactReader, Trait, find_sample
from transfg_core.inspection.subject import splits_of
from transfg_core.run.progress import CountProgress

AHEAD = 8  # images that are decoded before they are needed


@dataclass(frozen=True, eq=False)
class Scan:
    """The facts of N images: those of the splits, one after another.

    `split` (N,) int8 is the place in `splits`, `labels` (N,) int64, `sizes` (N, 2) int32 height and
    width, `traits` (N,) int32, `digests` (N,) 16 bytes, `phashes` (N,) uint64, and `reason` (N,)
    int32 the place in `reasons` or -1 for an image that can be read. `thumbnails`, (N, 256)
    uint8, and `phashes` are None if near duplicates are not looked for.
    """

    dataset: Dataset
    data: DataConfig
    splits: tuple[str, ...]
    paths: tuple[str, ...]
    ids: tuple[str, ...]
    split: NDArray[np.int8]
    labels: NDArray[np.int64]
    sizes: NDArray[np.int32]
    traits: NDArray[np.int32]
    digests: NDArray[np.void]
    phashes: NDArray[np.uint64] | None
    thumbnails: NDArray[np.uint8] | None
    reason: NDArray[np.int32]
    reasons: tuple[str, ...]

    @property
    def readable(self) -> NDArray[np.bool_]:
        """(N,): which images can be read."""
        return self.reason < 0

    def rows(self, split: str) -> NDArray[np.int64]:
        """The rows of a split."""
        if split not in self.splits:
            return np.zeros(0, np.int64)
        return np.flatnonzero(self.split == self.splits.index(split))

    def having(self, trait: Trait) -> NDArray[np.int64]:
        """The rows of images that have a trait."""
        return np.flatnonzero(self.traits & int(trait))

    def class_of(self, row: int) -> str:
        """The name of an image's class."""
        return self.dataset.classes[int(self.labels[row])]

    def split_of(self, row: int) -> str:
        """The name of an image's split."""
        return self.splits[int(self.split[row])]

    def broken_by_reason(self) -> dict[str, NDArray[np.int64]]:
        """Reason -> rows of the images that cannot be read for it, the most frequent first.

        Reasons that differ in numbers alone are one; of these, N stands in the text.
        """
        general = [re.sub(r"\d+", "N", reason) for reason in self.reasons]
        shared = Counter(general)
        names = [
            reason if shared[form] == 1 else form
            for reason, form in zip(self.reasons, general, strict=True)
        ]
        distinct = list(dict.fromkeys(names))
        place = np.array([distinct.index(name) for name in names], np.int64)
        broken = np.flatnonzero(~self.readable)
        kinds = place[self.reason[broken]] if len(broken) else broken
        counts = np.bincount(kinds, minlength=len(distinct))
        order = np.argsort(-counts, kind="stable")
        return {distinct[k]: broken[kinds == k] for k in order.tolist()}

    def sample(self, row: int) -> tuple[Samples, int]:
        """The split of an image, and its index in it."""
        return find_sample(tuple(splits_of(self.dataset).values()), row)

    def reason_of(self, row: int) -> str:
        """Why an image cannot be read."""
        return self.reasons[int(self.reason[row])]


def scan(dataset: Dataset, data: DataConfig, near: bool = False) -> Scan:
    """Read every image of a data set, in `data.threads` and `data.workers`, with progress.

    Raises:
        RunFailed: a worker process died.
        UserError: `near`, and ImageHash is not installed.
    """
    splits = splits_of(dataset)
    paths = tuple(path for samples in splits.values() for path in samples.paths)
    count = len(paths)
    sizes, digests = np.zeros((count, 2), np.int32), np.zeros(count, f"V{DIGEST}")
    traits, phashes = np.zeros(count, np.int32), np.zeros(count, np.uint64)
    thumbnails = np.zeros((count if near else 0, THUMBNAIL[0] * THUMBNAIL[1]), np.uint8)
    reason, reasons = np.full(count, -1, np.int32), dict[str, int]()
    read = FactReader(tuple(splits.values()), data, near)
    with (
        CountProgress("images", count) as progress,
        closing(read_ahead(read, range(count), data, AHEAD)) as facts,
    ):
        for row, fact in enumerate(facts):
            sizes[row] = fact.height, fact.width
            traits[row], phashes[row] = fact.traits, fact.phash
            digests[row] = np.void(fact.digest)
            if fact.thumbnail:
                thumbnails[row] = np.frombuffer(fact.thumbnail, np.uint8)
            if fact.reason:
                reason[row] = reasons.setdefault(fact.reason, len(reasons))
            progress.advance()
    return Scan(
        dataset=dataset,
        data=data,
        splits=tuple(splits),
        paths=paths,
        ids=tuple(name for samples in splits.values() for name in samples.ids),
        split=np.repeat(np.arange(len(splits)), [len(s.paths) for s in splits.values()]).astype(
            np.int8
        ),
        labels=np.concatenate([samples.labels for samples in splits.values()]),
        sizes=sizes,
        traits=traits,
        digests=digests,
        phashes=phashes if near else None,
        thumbnails=thumbnails if near else None,
        reason=reason,
        reasons=tuple(reasons),
    )
