"""Readers of one sample at one position of a stream: shuffled and augmented, or in order.

A reader is a callable that is pickled to worker processes. It returns the error of an image as a
value in the record, because an exception would reach the caller wrapped, or not at all.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from transfg_core.config.sections import DataConfig
from transfg_core.data.bad_image import BadImage
from transfg_core.data.cache.files import CachedImages
from transfg_core.data.datasets.samples import Samples
from transfg_core.data.decoding import read_image
from transfg_core.data.mapped_image import Source
from transfg_core.data.transforms import eval_transform, train_transform
from transfg_core.errors import UserError

# separate random streams; 3 is the drawn split (datasets/drawing.py), 5 random parts (parts.py)
STREAMS = {"order": 1, "augment": 2, "mix": 4}


class Record(NamedTuple):
    """One read sample: no pixels if it was skipped; a non-empty `error` if the run must stop."""

    pixels: NDArray[np.uint8]  # (H, W, 3), or (0, 0, 3)
    label: int
    sample: int
    skipped: dict[str, str]  # path -> reason
    error: str


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """Indices 0..count-1 in the order of one epoch: (count,)."""
    order = np.random.default_rng([seed, STREAMS["order"], epoch]).permutation(count)
    order.flags.writeable = False
    return order


def balanced_order(
    seed: int, epoch: int, labels: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of one epoch with as many images of each class: (count,), twice.

    A class of few images repeats all of them before it repeats one again; a class of many images
    shows some of them. Numbers of images differ by one at most. The second array says how often an
    image has come before in its class.
    """
    rng = np.random.default_rng([seed, STREAMS["order"], epoch])
    count, present = len(labels), np.unique(labels)
    shares = np.full(len(present), count // len(present))
    shares[rng.permutation(len(present))[: count % len(present)]] += 1
    chosen, repeats = [], []
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1])
    for label, share in zip(present, shares, strict=True):
        members = by_class[label]
        rounds = -(-share // len(members))
        chosen.append(np.concatenate([rng.permutation(members) for _ in range(rounds)])[:share])
        repeats.append(np.arange(share) // len(members))
    order = rng.permutation(count)
    return np.concatenate(chosen)[order], np.concatenate(repeats)[order]


@lru_cache(maxsize=2)
def _order_of(reader: "TrainReader", epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The order of an epoch, and how often each image has come before."""
    if reader.data.balance:
        return balanced_order(reader.seed, epoch, reader.samples.labels)
    order = epoch_order(reader.seed, epoch, len(reader.samples.labels))
    return order, np.zeros_like(order)


@dataclass(frozen=True, eq=False)
class TrainReader:
    """Position in the training stream -> record. Pickled to worker processes."""

    samples: Samples
    data: DataConfig
    seed: int
    cached: CachedImages | None = None

    def __call__(self, position: int) -> Record:
        """Read and augment; the next readable image by index replaces an unreadable one.

        The augmentation is drawn for the sample at this position, also when it is replaced.
        """
        count = len(self.samples.labels)
        epoch, place = divmod(position, count)
        order, repeats = _order_of(self, epoch)
        index, repeat = int(order[place]), int(repeats[place])
        again = [repeat] if repeat else []  # a repeated image has another augmentation
        rng = np.random.default_rng([self.seed, STREAMS["augment"], epoch, index, *again])
        transform = partial(train_transform, rng=rng)
        skipped: dict[str, str] = {}
        for step in range(count):
            chosen = (index + step) % count
            record = _read(self.samples, chosen, self.data, transform, self.cached)
            if not record.skipped or self.data.on_bad_image == "error":
                return record._replace(skipped=skipped)
            skipped.update(record.skipped)
        return record._replace(error=none_readable(skipped, count))


@dataclass(frozen=True, eq=False)
class EvalReader:
    """Index of a sample -> record. Pickled to worker processes."""

    samples: Samples
    data: DataConfig
    cached: CachedImages | None = None

    def __call__(self, index: int) -> Record:
        """Read and crop; an unreadable image gives a record without pixels."""
        record = _read(self.samples, index, self.data, eval_transform, self.cached)
        skip = record.skipped and self.data.on_bad_image == "skip"
        return record._replace(error="") if skip else record


def _read(
    samples: Samples,
    index: int,
    data: DataConfig,
    transform: Callable[..., NDArray[np.uint8]],
    cached: CachedImages | None,
) -> Record:
    """Read a sample into a record; `error` is set if anything is wrong with its file."""
    path, label = samples.paths[index], int(samples.labels[index])
    nothing = np.zeros((0, 0, 3), dtype=np.uint8)
    try:
        image: Source | None = cached.image(index, path) if cached else None
        if image is None:
            image = read_image(path, data, samples.region(index))
    except BadImage as bad:
        return Record(nothing, label, index, {path: bad.reason}, str(bad))
    except UserError as error:  # memory, not the file: never skipped
        return Record(nothing, label, index, {}, str(error))
    try:
        return Record(transform(image, data=data), label, index, {}, "")
    except UserError as error:  # the image does not fit the transform: never skipped
        return Record(nothing, label, index, {}, f"{path}: {error}")
    except MemoryError:
        return Record(
            nothing, label, index, {},
            f"{path}: expected enough memory to resize the image, found too little; lower "
            "data.resize, data.threads or data.workers",
        )  # fmt: skip


def none_readable(bad: dict[str, str], count: int) -> str:
    """The message for a split without a readable image; `bad` maps path -> reason."""
    path, reason = next(iter(bad.items()), ("", "no images"))
    return f"{path}: expected readable images, found none among {count}; this image: {reason}"
