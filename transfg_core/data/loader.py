"""Batches of samples: an endless shuffled stream for training, one pass in order for evaluation.

Every random choice depends only on (seed, epoch, index of the sample), and mixing of a batch on
(seed, update), never on the thread, the worker process, the framework or earlier reads. So an
interruption does not change the batch of update k, and both twins get the same pixels in the same
order.

Position p of the training stream is place `p % N` of epoch `p // N`. Update k = 1, 2, ... takes the
B positions from `(k - 1) * B`; batches run across the border between epochs. Images are uint8: a
backend normalises them on its device. grain reads ahead in threads or worker processes: it reads
one record at a time and keeps the order. A record holds the error of a broken image, and this
module raises it.

`timeout`, schedulers and Ctrl-C signal the whole process group. Worker processes ignore SIGINT and
SIGTERM: the parent still needs them for its last update, and then ends them. They end by themselves
if the parent is gone.
"""

import atexit
import importlib
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import replace
from itertools import chain
from multiprocessing import resource_tracker
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from transfg_core.backend import Batch
from transfg_core.config.sections import DataConfig
from transfg_core.data.cache.files import open_cache
from transfg_core.data.datasets.samples import Samples
from transfg_core.data.mixing import draw_mix, mix_batch
from transfg_core.data.sample_reader import (
    STREAMS,
    EvalReader,
    Record,
    TrainReader,
    none_readable,
)
from transfg_core.data.worker import STOP_SIGNALS, init_worker
from transfg_core.errors import RunFailed

T = TypeVar("T")


class EvalBatch(NamedTuple):
    """Images (B, H, W, 3) uint8, labels (B,) int64, and index (B,) int64 into the samples."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    index: NDArray[np.int64]  # type: ignore[assignment]  # hides tuple.index, which none needs


class TrainStream:
    """An endless iterator of `Batch`, beginning after any number of updates.

    `start_update` is the number of updates done; the first batch is that of update
    `start_update + 1`. `classes` is the width of the targets that `data.mixup` and `data.cutmix`
    make. `bad_images` maps each file skipped so far to the reason. `close()`, or deleting the
    stream, stops reading ahead.
    """

    def __init__(
        self,
        samples: Samples,
        data: DataConfig,
        batch_size: int,
        seed: int,
        start_update: int = 0,
        classes: int | None = None,
    ) -> None:
        self.bad_images: dict[str, str] = {}
        self._data, self._seed, self._update, self._classes = data, seed, start_update, classes
        assert classes or not (data.mixup or data.cutmix), "targets need the number of classes"
        positions = range(start_update * batch_size, sys.maxsize)
        cached = open_cache(samples, data, training=True)
        read = TrainReader(_for_reading(samples), data, seed, cached)
        self._batches = _batches(read, positions, data, batch_size, self.bad_images)
        # Also closes at exit, before the modules that closing needs are unloaded.
        self._close = weakref.finalize(self, self._batches.close)

    def __iter__(self) -> "TrainStream":
        return self

    def __next__(self) -> Batch:
        """The next update's batch: images (B, H, W, 3) uint8, labels (B,) int64.

        Mixed batches have targets (B, C) float32; mixup's images are normalised, (B, 3, H, W).

        Raises:
            RunFailed: an image is unreadable under `on_bad_image: error`, no image is readable,
                or an image is smaller than the crop; the text names the file. This ends the stream.
        """
        read = next(self._batches)
        self._update += 1
        batch = Batch(read.images, read.labels)
        if self._classes is None or not (self._data.mixup or self._data.cutmix):
            return batch
        rng = np.random.default_rng([self._seed, STREAMS["mix"], self._update])
        mix = draw_mix(self._data.crop, self._data, rng)
        return batch if mix is None else mix_batch(batch, mix, self._data, self._classes)

    def close(self) -> None:
        """Stop reading ahead and end worker processes."""
        self._close()


def eval_batches(
    samples: Samples,
    data: DataConfig,
    batch_size: int,
    bad_images: dict[str, str] | None = None,
) -> Generator[EvalBatch, None, None]:
    """Every sample once, in order; the last batch may be smaller.

    With `on_bad_image: skip`, unreadable images are left out, so that the next images fill the
    batch; `bad_images` collects path -> reason.

    Raises:
        RunFailed: see `TrainStream.__next__`.
    """
    read = EvalReader(_for_reading(samples), data, open_cache(samples, data, training=False))
    bad = {} if bad_images is None else bad_images
    batches = _batches(read, range(len(samples.paths)), data, batch_size, bad)
    atexit.register(batches.close)  # for a caller that stops before the last batch
    empty = True
    try:
        for batch in batches:
            empty = False
            yield batch
    finally:
        batches.close()
        atexit.unregister(batches.close)
    if empty:
        raise RunFailed(none_readable(bad, len(samples.paths)))


def _for_reading(samples: Samples) -> Samples:
    """What a reader needs of the samples: each worker process gets a copy."""
    return replace(samples, ids=(), part_boxes=None)


def _batches(
    read: Callable[[int], Record],
    positions: range,
    data: DataConfig,
    batch_size: int,
    bad_images: dict[str, str],
) -> Generator[EvalBatch, None, None]:
    """Batches of `batch_size`; the last batch may be smaller."""
    with closing(read_ahead(read, positions, data, batch_size)) as records:
        while taken := _take(records, batch_size, bad_images):
            yield _collate(taken)


def read_ahead(
    read: Callable[[int], T], positions: range, data: DataConfig, ahead: int
) -> Generator[T, None, None]:
    """`read(position)` for each position, in order, in `data.threads` and `data.workers`.

    About `ahead` results more than the caller has taken are in memory.

    Raises:
        RunFailed: a worker process died.
    """
    source = _prefetched(read, positions, data, ahead)
    try:
        yield from _start_workers(source) if data.workers else source
    except RuntimeError as error:
        if data.workers == 0:
            raise
        raise RunFailed(
            f"data.workers: {data.workers}: a worker process died: {error}; "
            "try fewer workers, or data.workers=0"
        ) from error
    finally:
        source.close()


def _take(records: Iterator[Record], batch_size: int, bad_images: dict[str, str]) -> list[Record]:
    """The next `batch_size` readable records; fewer at the end."""
    taken: list[Record] = []
    for record in records:
        bad_images.update(record.skipped)
        if record.error:
            raise RunFailed(record.error)
        if record.pixels.size:
            taken.append(record)
        if len(taken) == batch_size:
            break
    return taken


def _collate(records: list[Record]) -> EvalBatch:
    return EvalBatch(
        images=np.stack([record.pixels for record in records]),
        labels=np.array([record.label for record in records], dtype=np.int64),
        index=np.array([record.sample for record in records], dtype=np.int64),
    )


def _prefetched(
    read: Callable[[int], T], positions: range, data: DataConfig, batch_size: int
) -> Any:
    """A grain iterator over `read(position)`, in order and about one batch ahead; has `close()`."""
    grain = _import_grain()
    ahead = batch_size if data.workers == 0 else 1
    options = grain.ReadOptions(data.threads, data.threads + ahead)
    source = grain.MapDataset.range(positions.start, positions.stop).map(read)
    elements = source.to_iter_dataset(options)
    if data.workers:
        per_worker = -(-batch_size // data.workers)
        elements = elements.mp_prefetch(
            grain.MultiprocessingOptions(data.workers, per_worker), init_worker
        )
        # through pipes: what killed processes leave in shared memory, nobody removes
        pipes = grain.experimental.DatasetOptions(min_shm_size=sys.maxsize)
        elements = grain.experimental.WithOptionsIterDataset(elements, pipes)
    return iter(elements)


def _start_workers(source: Iterator[T]) -> Iterator[T]:
    """Take the first record, which starts the worker processes, with their signals blocked.

    A worker needs a second before `init_worker` runs. Until then only the signal mask protects
    it, which processes inherit from the thread that starts them, and threads from theirs.
    """
    first: Future[T | None] = Future()

    def take() -> None:
        try:
            first.set_result(next(source, None))
        except BaseException as error:
            first.set_exception(error)

    resource_tracker.ensure_running()  # starting it would unblock the signals
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        threading.Thread(target=take, daemon=True).start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
    record = first.result()
    return source if record is None else chain([record], source)


def _import_grain() -> ModuleType:
    """Import grain without its warning that the JAX profiler is absent."""
    from absl import logging

    level = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        return importlib.import_module("grain")
    finally:
        logging.set_verbosity(level)
