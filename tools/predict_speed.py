r"""How fast `transfg predict` reads and classifies a folder, beside classifying alone.

    python -m tools.predict_speed configs/cub/overlap.yaml FOLDER --images 24 --batch 4
    python -m tools.predict_speed configs/toy/quickstart.yaml data/toy/images \
        --images 1000 --batch 50

The model has the configuration's architecture and initial values: its speed does not depend on
what it has learned. In each round the tool classifies a batch that lies in memory, as
`transfg bench --work infer` does, and then the images of the folder, which threads read meanwhile.
Both are the same number of images. The rounds alternate, so a slow moment hits both.
"""

import argparse
import os
import statistics
import sys
import time
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from transfg_core.backend import BACKENDS
from transfg_core.checkpoints.pretrained import build_params
from transfg_core.checkpoints.training import SavedPosition
from transfg_core.config.loading import load_config
from transfg_core.inference.inputs import Input, find_inputs
from transfg_core.inference.predictor import Predictor
from transfg_core.inference.source import TrainedModel


def untrained(config_path: str, batch: int, overrides: list[str]) -> TrainedModel:
    """A model with its initial values and 200 classes."""
    own = [f"train.eval_batch_size={batch}", "model.classes=200", "model.pretrained=null"]
    config = load_config(config_path, [*overrides, *own])
    params, _ = build_params(config)
    classes = tuple(map(str, range(200)))
    position = SavedPosition(update=0, evaluated=0, best_top1=-1, best_update=0)
    return TrainedModel(Path(config_path), config, classes, params, position, "none")


def alone(model: Predictor, images: int, batch: int) -> float:
    """Seconds to classify batches that lie in memory."""
    crop = model.model.config.data.crop
    pixels = np.random.default_rng(0).integers(0, 256, (batch, *crop, 3), np.uint8)
    started = time.perf_counter()
    for _ in range(images // batch):
        model.run(pixels)
    return time.perf_counter() - started


def folder(model: Predictor, inputs: list[Input]) -> float:
    """Seconds to read and classify files."""
    started = time.perf_counter()
    unread = [crop for results in model.stream(inputs) for crop, result in results if not result]
    assert not unread, unread
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("config")
    parser.add_argument("folder")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--backend", default="torch", choices=tuple(BACKENDS))
    parser.add_argument("--images", type=int, default=100, help="in each round")
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    source = untrained(given.config, given.batch, given.overrides)
    model = Predictor(source, source.start(given.backend))
    count = given.images - given.images % given.batch
    files = find_inputs([given.folder], sys.stdin.buffer).images
    inputs = list(islice(cycle(files), count))
    alone(model, given.batch, given.batch), folder(model, inputs[: given.batch])
    pairs = [(alone(model, count, given.batch), folder(model, inputs)) for _ in range(given.rounds)]
    ratios = [whole / bare for bare, whole in pairs]
    for name, times in zip(("classify", "predict"), zip(*pairs, strict=True), strict=True):
        rates = sorted(count / seconds for seconds in times)
        middle, low, high = statistics.median(rates), rates[0], rates[-1]
        print(f"{name:9} {middle:8.2f} images/s  ({low:.2f} to {high:.2f})")
    print(
        f"predict / classify, time: {statistics.median(ratios):.3f} "
        f"({min(ratios):.3f} to {max(ratios):.3f}), {given.backend}, batch {given.batch}, "
        f"{os.cpu_count()} cores"
    )


if __name__ == "__main__":
    main()
