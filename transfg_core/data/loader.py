"""From samples to batches: shuffled without end for training, in order and once for evaluation.

Every random choice is a function of (seed, epoch, index of the sample): never of thread, worker
process, framework or what was read before. So update k of a run has the same batch however often
the run was interrupted, and both twins see the same pixels in the same order.

Position p of the training stream is place `p % N` of epoch `p // N`, and update k takes positions
`k * B` to `(k + 1) * B - 1`: batches run across the border between epochs. Records travel as uint8
and become float32 in the caller's thread. Reading ahead in threads, or in worker processes, is
grain's: one record at a time, order kept; a broken image comes as a value and is raised here.
"""

import atexit
import importlib
import signal
import sys
import weakref
from collections.abc import Callable, Generator, Iterator
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from transfg_core.backend import Batch
from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets.samples import Samples
from transfg_core.data.sample_reader import EvalReader, Record, TrainReader, none_readable
from transfg_core.data.transforms import normalise
from transfg_core.errors import RunFailed


class EvalBatch(NamedTuple):
    """Images (B, 3, H, W) float32, labels (B,) int64, and index (B,) int64 into the samples."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    index: NDArray[np.int64]  # type: ignore[assignment]  # hides tuple.index, which none needs


class TrainStream:
    """An endless iterator of `Batch`, beginning at any update.

    `bad_images` maps each file that was skipped so far to the reason. `close()` stops reading
    ahead; so does dropping the stream.
    """

    def __init__(
        self,
        samples: Samples,
        data: DataConfig,
        batch_size: int,
        seed: int,
        start_update: int = 0,
    ) -> None:
        self.bad_images: dict[str, str] = {}
        positions = range(start_update * batch_size, sys.maxsize)
        read = TrainReader(samples.paths, samples.labels, data, seed)
        self._batches = _batches(read, positions, data, batch_size, self.bad_images)
        # Also at exit, while the modules that closing needs are still there.
        self._close = weakref.finalize(self, self._batches.close)

    def __iter__(self) -> "TrainStream":
        return self

    def __next__(self) -> Batch:
        """The next update's batch: images (B, 3, H, W) float32, labels (B,) int64.

        Raises:
            RunFailed: an image is unreadable under `on_bad_image: error`, every image is, or an
                image is smaller than the crop; the text names the file. The stream has then ended.
        """
        batch = next(self._batches)
        return Batch(batch.images, batch.labels)

    def close(self) -> None:
        """Stop reading ahead and end worker processes."""
        self._close()


def eval_batches(
    samples: Samples,
    data: DataConfig,
    batch_size: int,
    bad_images: dict[str, str] | None = None,
) -> Iterator[EvalBatch]:
    """Every sample once, in order; the last batch may be smaller.

    With `on_bad_image: skip`, unreadable images are left out, the next ones move up, and
    `bad_images` gets path -> reason.

    Raises:
        RunFailed: as `TrainStream.__next__`.
    """
    read = EvalReader(samples.paths, samples.labels, data)
    bad = {} if bad_images is None else bad_images
    batches = _batches(read, range(len(samples.paths)), data, batch_size, bad)
    atexit.register(batches.close)  # for a caller that stops half-way
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


def _batches(
    read: Callable[[int], Record],
    positions: range,
    data: DataConfig,
    batch_size: int,
    bad_images: dict[str, str],
) -> Generator[EvalBatch, None, None]:
    """Batches of `batch_size`, the last one smaller if the positions end."""
    records = _prefetched(read, positions, data, batch_size)
    try:
        while taken := _take(records, batch_size, bad_images):
            batch = _collate(taken, data)
            del taken  # their memory may be a worker's
            yield batch
    except RuntimeError as error:
        if data.workers == 0:
            raise
        raise RunFailed(f"data.workers: {data.workers}: a worker died: {error}") from error
    finally:
        records.close()


def _take(records: Iterator[Record], batch_size: int, bad_images: dict[str, str]) -> list[Record]:
    """The next `batch_size` readable records, fewer at the end."""
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


def _collate(records: list[Record], data: DataConfig) -> EvalBatch:
    return EvalBatch(
        images=normalise(np.stack([record.pixels for record in records]), data),
        labels=np.array([record.label for record in records], dtype=np.int64),
        index=np.array([record.sample for record in records], dtype=np.int64),
    )


def _prefetched(
    read: Callable[[int], Record], positions: range, data: DataConfig, batch_size: int
) -> Any:
    """A grain iterator over `read(position)` in order, about one batch ahead; `close()` ends it."""
    grain = _import_grain()
    ahead = batch_size if data.workers == 0 else 1
    options = grain.ReadOptions(data.threads, data.threads + ahead)
    source = grain.MapDataset.range(positions.start, positions.stop).map(read)
    elements = source.to_iter_dataset(options)
    if data.workers:
        per_worker = -(-batch_size // data.workers)
        elements = elements.mp_prefetch(
            grain.MultiprocessingOptions(data.workers, per_worker), _ignore_interrupt
        )
    return iter(elements)


def _ignore_interrupt(worker: int, workers: int) -> None:
    """Ctrl-C is for the parent alone, which then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _import_grain() -> ModuleType:
    """grain, without its warning that the JAX profiler is absent."""
    from absl import logging

    level = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        return importlib.import_module("grain")
    finally:
        logging.set_verbosity(level)
