"""A process that does one turn of work at each request.

    python -m transfg.bench.worker JOB       # transfg/bench/runner.py starts this

It answers each line of standard input with a line of JSON. It answers `go` with the seconds of a
step and `end` with the peak memory. A first line, before any request, has the time to start and the
time of the first step, which compiles operators. The answers go into a pipe, whose number the job
holds; it survives the restart that Jittor needs after it has rebuilt itself.
"""

import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, TextIO

import numpy as np

from transfg.bench.subject import PEERS
from transfg_core.backend import (
    Array,
    Backend,
    Batch,
    load_backend,
    load_peer,
    load_torchvision_input,
    load_workloads,
)
from transfg_core.checkpoints.pretrained import build_params
from transfg_core.config.loading import build_config
from transfg_core.config.sections import Config, DataConfig
from transfg_core.data.cache.build import fill_cache
from transfg_core.data.datasets import read_dataset
from transfg_core.data.loader import TrainStream
from transfg_core.data.transforms import normalise
from transfg_core.errors import UserError, is_out_of_memory
from transfg_core.machine import cpu_seconds, forget_peak_rss, peak_rss
from transfg_core.train import split_batch

Step = Callable[[], object]
OUT_OF_MEMORY = 3  # exit status


def random_batch(config: Config) -> Batch:
    """One batch of random images and labels."""
    rng, size = np.random.default_rng(0), config.train.batch_size
    images = rng.standard_normal((size, 3, *config.data.crop), dtype=np.float32)
    return Batch(images, rng.integers(0, config.model.class_count, size))


@contextmanager
def batches_of(job: dict[str, Any], config: Config) -> Iterator[Callable[[], Any]]:
    """A function that gives the next batch: of the data set if the job reads, else the same one."""
    if not job["reads"]:
        batch = random_batch(config)
        yield lambda: batch
        return
    data, size = config.data, config.train.batch_size
    split = read_dataset(data, config.run.seed).train
    if job["backend"] == "torchvision":
        batches = load_torchvision_input().batches(split, data, size)
        yield lambda: next(batches)
        return
    fill_cache(data, split, [], partial(print, file=sys.stderr))
    classes = config.model.class_count
    with closing(TrainStream(split, data, size, config.run.seed, 0, classes)) as stream:
        if job["method"] == "float32":
            yield lambda: normalised(next(stream).images, data)
        else:
            yield lambda: next(stream)


def normalised(images: Array, data: DataConfig) -> Array:
    """Images as float32, (B, 3, H, W); mixup has normalised them."""
    return images if images.dtype == np.float32 else normalise(images, data)


def make_backend(job: dict[str, Any], config: Config) -> Backend:
    """Create the backend with random weights."""
    if job["method"] == "published":
        backend: Backend = load_workloads(job["backend"]).stored_maps_backend(config)
    elif job["method"] in PEERS:
        backend = load_peer(job["method"], config)
    else:
        backend = load_backend(job["backend"], config)
    backend.load_params(build_params(config)[0])
    return backend


def make_step(
    job: dict[str, Any], config: Config, backend: Backend, take: Callable[[], Batch]
) -> Step:
    """A function that does one step of the job's work; `take` gives a batch."""
    work, stored = job["work"], job["method"] == "published"
    if work == "train":
        parts = config.train.accumulation
        lr = 1e-6  # small, because training on random images and labels may diverge

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
    """Peak memory of the device in bytes; of the process on the CPU, or without a backend."""
    return backend.device_info()["peak_memory_bytes"] if backend else peak_rss()


def serve(job: dict[str, Any], lines: TextIO, answers: TextIO) -> None:
    """Build the step, run it once, then answer the requests in `lines`."""

    def answer(**facts: Any) -> None:
        answers.write(json.dumps(facts) + "\n")
        answers.flush()

    config, turn = build_config(job["config"], "the job"), int(job["turn"])
    with batches_of(job, config) as take:
        backend = None if job["work"] == "input" else make_backend(job, config)
        step = make_step(job, config, backend, take) if backend else take
        gc.collect()
        forget_peak_rss()  # building the model does not count
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
            if turn > 1:  # uses up what was read ahead during the turns of the others
                step()
            timed = max(1, turn - 1)
            begin, spent = time.perf_counter(), cpu_seconds()
            for _ in range(timed):
                step()
            seconds, spent = time.perf_counter() - begin, cpu_seconds() - spent
            answer(seconds=seconds / timed, cpu=spent / timed)
        answer(peak=peak_memory(backend))


def main() -> int:
    """Run the job; exit status 2 if the input is refused, OUT_OF_MEMORY if memory is short."""
    job = json.loads(sys.argv[1])
    with open(job["answers"], "w", encoding="utf-8") as answers:
        try:
            serve(job, sys.stdin, answers)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            print(f"error: out of memory: {error}", file=sys.stderr)
            return OUT_OF_MEMORY
    return 0


if __name__ == "__main__":
    sys.exit(main())
