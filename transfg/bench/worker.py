"""A process that repeats one piece of work whenever it is told to.

    python -m transfg.bench.worker JOB       # what transfg/bench/runner.py starts

It answers each line of standard input with a line of JSON into the pipe whose number the job holds:
`go` with the seconds that the work took, `end` with the peak memory. Before the first, one line
tells how long it took to start and to do the work for the first time, operators being compiled
then. The pipe survives the restart that Jittor asks for after rebuilding itself.
"""

import gc
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import numpy as np

from transfg_core.backend import Backend, Batch, load_backend, load_workloads
from transfg_core.checkpoints.pretrained import build_params
from transfg_core.config.loading import build_config
from transfg_core.config.sections import Config
from transfg_core.data.datasets import read_dataset
from transfg_core.data.loader import TrainStream
from transfg_core.errors import UserError
from transfg_core.machine import forget_peak_rss, peak_rss
from transfg_core.train import split_batch

Step = Callable[[], object]
OUT_OF_MEMORY = 3  # exit status
# in the words of PyTorch's devices, of its CPU allocator, of C++ and of oneDNN's operators
NO_MEMORY = re.compile(r"out of memory|can't allocate|bad_alloc|is memory short")


def random_batch(config: Config) -> Batch:
    """One batch in memory."""
    rng, size = np.random.default_rng(0), config.train.batch_size
    images = rng.standard_normal((size, 3, *config.data.crop), dtype=np.float32)
    return Batch(images, rng.integers(0, config.model.classes or 1, size))


@contextmanager
def batches_of(config: Config, real: bool) -> Iterator[Callable[[], Batch]]:
    """What gives the next batch: always the same one, or the data set's."""
    if not real:
        batch = random_batch(config)
        yield lambda: batch
        return
    split = read_dataset(config.data, config.run.seed).train
    stream = TrainStream(split, config.data, config.train.batch_size, config.run.seed, 0)
    try:
        yield lambda: next(stream)
    finally:
        stream.close()


def make_backend(job: dict[str, Any], config: Config) -> Backend:
    """The backend with random weights."""
    if job["method"] == "published":
        backend: Backend = load_workloads(job["backend"]).stored_maps_backend(config)
    else:
        backend = load_backend(job["backend"], config)
    backend.load_params(build_params(config)[0])
    return backend


def make_step(
    job: dict[str, Any], config: Config, backend: Backend, take: Callable[[], Batch]
) -> Step:
    """The work, without what surrounds it."""
    work, stored = job["work"], job["method"] == "published"
    if work == "train":
        parts = config.train.accumulation
        lr = 1e-6  # random images and labels must not blow the weights up

        def train() -> None:
            backend.fetch(backend.train_step(split_batch(take(), parts), lr))

        return train
    if work == "infer":

        def infer() -> None:
            backend.fetch(backend.eval_step(take().images))

        return infer
    workloads, size = load_workloads(job["backend"]), config.train.batch_size
    if work == "attention":
        step: Step = workloads.attention_step(backend, size, stored)
    else:
        step = workloads.selection_step(backend, size, stored)
    return step


def peak_memory(backend: Backend | None) -> int | None:
    """Bytes: of the device, or of the process where that is the device."""
    return backend.device_info()["peak_memory_bytes"] if backend else peak_rss()


def serve(job: dict[str, Any], lines: TextIO, answers: TextIO) -> None:
    """Start, then work whenever a line says so."""

    def answer(**facts: Any) -> None:
        answers.write(json.dumps(facts) + "\n")
        answers.flush()

    config, turn = build_config(job["config"], "the job"), int(job["turn"])
    with batches_of(config, job["reads"]) as take:
        backend = None if job["work"] == "input" else make_backend(job, config)
        step = make_step(job, config, backend, take) if backend else take
        gc.collect()
        forget_peak_rss()  # what building the model took is not the work's
        if backend:
            backend.forget_peak()
        base = peak_memory(backend)
        began = time.monotonic()
        step()
        first = time.monotonic() - began
        info = backend.device_info() if backend else {}
        answer(started=began - job["began"], first=first, base=base, device=info)
        for line in lines:
            if line.strip() != "go":
                break
            if turn > 1:  # what was read ahead while others had their turn
                step()
            timed = max(1, turn - 1)
            begin = time.perf_counter()
            for _ in range(timed):
                step()
            answer(seconds=(time.perf_counter() - begin) / timed)
        answer(peak=peak_memory(backend))


def main() -> int:
    """Exit status 2 after input that is refused, OUT_OF_MEMORY after that."""
    job = json.loads(sys.argv[1])
    with open(job["answers"], "w", encoding="utf-8") as answers:
        try:
            serve(job, sys.stdin, answers)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except (MemoryError, RuntimeError) as error:
            if not (isinstance(error, MemoryError) or NO_MEMORY.search(str(error))):
                raise
            print(f"error: out of memory: {error}", file=sys.stderr)
            return OUT_OF_MEMORY
    return 0


if __name__ == "__main__":
    sys.exit(main())
