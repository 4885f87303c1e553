"""`transfg explain RUN --model`: pictures of a trained model and of its run, without new images.

`filters.png` and `positions.png` need the parameters alone, `confusion.png` and `hardest.csv` the
run's predictions.csv; `hardest.jpg`, `batch_train.jpg`, `batch_test.jpg` and `part_hits.png` also
the data set. What a model or run does not have is named and left out.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from transfg_core.backend import Batch
from transfg_core.checkpoints.file import replace_file
from transfg_core.data.datasets import Dataset, read_dataset, read_test
from transfg_core.data.loader import TrainStream
from transfg_core.data.sample_reader import EvalReader, Record
from transfg_core.errors import RunFailed, UserError
from transfg_core.evaluate import boxes_in_crop
from transfg_core.explain import run_figures
from transfg_core.explain.labels import part_labels
from transfg_core.explain.ours import OF_MODEL, made_here, png_of
from transfg_core.explain.run_figures import BATCH, HARDEST, PredictionRow
from transfg_core.explain.weights import draw_filters, draw_positions
from transfg_core.inference.predictor import Predictor
from transfg_core.inference.source import TrainedModel
from transfg_core.metrics import part_hits
from transfg_core.models.layout import part_grid
from transfg_core.resume import check_classes, split_of
from transfg_core.run.reading import Run, load_run
from transfg_core.trained import refuse_foreign_place

PART_IMAGES = 200  # test images, evenly spread, whose part hits are counted


@dataclass(frozen=True, eq=False)
class Subject:
    """A trained model with what its figures need, each read at its first use.

    `named` says that the user named `data.root`. Every property raises UserError if the run does
    not have it.
    """

    model: TrainedModel
    backend: str
    named: bool

    @property
    def step(self) -> str:
        """Whose parameters the figures of the model show, such as `update 450, best`."""
        return f"update {self.model.position.update}, {self.model.path.resolve().stem}"

    @cached_property
    def evaluated(self) -> Run:
        """The run, whose last evaluation wrote predictions.csv: of its last update."""
        run = self.model.run
        if run is None:
            raise UserError(
                f"{self.model.path}: expected a run's folder with predictions.csv, found none "
                "around it; name the folder of the run"
            )
        found = load_run(run)
        if not found.predictions or found.state != "finished":  # a resumed run has an older file
            raise UserError(
                f"{run}: expected predictions.csv of a finished run, found the run "
                f"{found.state if found.predictions else 'without it'}; finish the run: its last "
                "evaluation writes this file"
            )
        return found

    @property
    def update(self) -> int:
        """The update whose parameters made the predictions."""
        return int(self.evaluated.events[-1]["update"])

    @cached_property
    def predictions(self) -> list[PredictionRow]:
        """The rows of the run's predictions.csv."""
        return run_figures.read_predictions(self.evaluated.path / "predictions.csv")

    @cached_property
    def dataset(self) -> Dataset:
        """The run's data set, with its test split and, if possible, its training images."""
        path, data = self.model.path, self.model.config.data
        if not self.named:
            refuse_foreign_place(path, data.root)
        split = split_of(path, data)
        dataset = read_test(data, self.model.classes, split)
        check_classes(path, list(self.model.classes), dataset)
        return dataset

    def train_batch(self) -> Batch:
        """The batch of the first update."""
        config, split = self.model.config, split_of(self.model.path, self.model.config.data)
        train = self.dataset.train
        if not len(train.labels):  # a reader for evaluations may leave them out
            train = read_dataset(config.data, config.run.seed, split).train
        size = config.train.batch_size
        stream = TrainStream(
            train, config.data, size, config.run.seed, classes=len(self.model.classes)
        )
        try:
            return next(stream)
        finally:
            stream.close()

    def test_batch(self) -> Batch:
        """Test images, evenly spread over the split."""
        records = self.test_records(BATCH)
        if not records:
            raise UserError("test images: expected readable ones, found none; check data.root")
        labels = np.array([record.label for record in records], np.int64)
        return Batch(np.stack([record.pixels for record in records]), labels)

    def test_records(self, most: int) -> list[Record]:
        """Up to `most` test images, evenly spread over the split, without those that are skipped.

        Raises:
            RunFailed: an image cannot be read, unless `data.on_bad_image` is skip.
        """
        read = EvalReader(self.dataset.test, self.model.config.data)
        records = [read(row) for row in evenly_spread(len(self.dataset.test.labels), most)]
        for record in records:
            if record.error:
                raise RunFailed(record.error)
        return [record for record in records if record.pixels.size]

    def hard_images(self) -> list[Image.Image | None]:
        """The hardest images as the model sees them; None for one that is gone or broken."""
        test, data = self.dataset.test, self.model.config.data
        places, read = {name: row for row, name in enumerate(test.ids)}, EvalReader(test, data)
        found: list[Image.Image | None] = []
        for row in run_figures.hardest(self.predictions)[:HARDEST]:
            pixels = read(places[row.image]).pixels if row.image in places else np.zeros(0)
            found.append(Image.fromarray(pixels) if pixels.size else None)
        return found

    def part_hits(self) -> bytes:
        """The picture of part hits, from an evaluation of some test images."""
        model, config, test = self.model.config.model, self.model.config, self.dataset.test
        if not model.selects_parts or test.part_boxes is None:
            lacks = "true part boxes" if model.selects_parts else "part selection"
            raise UserError(f"part hits: expected {lacks}, found none; nothing to compare")
        records = self.test_records(PART_IMAGES)
        predictor = Predictor(self.model, self.model.start(self.backend))
        size, chosen = config.train.eval_batch_size, []
        for first in range(0, len(records), size):
            pixels = np.stack([record.pixels for record in records[first : first + size]])
            chosen.append(predictor.run(pixels)["part_index"])
        index, rows = np.concatenate(chosen), np.array([record.sample for record in records])
        boxes = boxes_in_crop(test, rows, config.data)
        grid = part_grid(model, config.data.crop, "part hits")
        places = [index[:, place : place + 1] for place in range(index.shape[1])]
        hits = [part_hits(place, boxes, grid, config.data.crop) for place in places]
        labels = part_labels(model).labels
        by_place = np.stack([hit for hit, _ in hits], axis=1)
        if np.isnan(by_place).all():
            raise UserError("part hits: expected true parts inside the crops, found none")
        chance = float(np.nanmean(hits[0][1]))
        return run_figures.draw_part_hits(labels, by_place, chance, len(records), self.step)


def evenly_spread(count: int, most: int) -> Sequence[int]:
    """Up to `most` of `count` places, evenly spread."""
    return [int(row) for row in np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))]


FIGURES: dict[str, Callable[[Subject], bytes]] = {
    "filters.png": lambda s: png_of(draw_filters(s.model.config, s.model.params, s.step)),
    "positions.png": lambda s: png_of(draw_positions(s.model.config, s.model.params, s.step)),
    "confusion.png": lambda s: run_figures.draw_confusion(s.predictions, s.model.classes, s.update),
    "hardest.csv": lambda s: run_figures.hardest_csv(s.predictions, s.model.classes, s.update),
    "hardest.jpg": lambda s: run_figures.draw_hardest(
        s.predictions, s.model.classes, s.hard_images(), s.update
    ),
    "batch_train.jpg": lambda s: run_figures.draw_batch(
        s.train_batch(), s.model.classes, s.model.config.data, "The batch of the first update"
    ),
    "batch_test.jpg": lambda s: run_figures.draw_batch(
        s.test_batch(), s.model.classes, s.model.config.data, "Test images"
    ),
    "part_hits.png": Subject.part_hits,
}


def refuse_other_files(out: Path) -> None:
    """Stop before a file of another program would be replaced.

    Raises:
        UserError: the folder has a file with the name of a figure that is not one.
    """
    for name in OF_MODEL:
        path = out / name
        if os.path.lexists(path) and not made_here(path):
            raise UserError(
                f"{path}: expected no file or one of transfg explain, found another; it would be "
                "replaced: choose another folder with --out, or move the file"
            )


def model_figures(subject: Subject, out: Path, say: Callable[[str], None]) -> Iterator[Path]:
    """Write every figure that the model and its run have into `out`; yields the paths.

    `say` gets a line for each figure that is left out.

    Raises:
        UserError: a file of another program would be replaced.
        RunFailed: the logits are not finite, an image of the data set cannot be read, the memory is
            too small, or a file cannot be written.
    """
    refuse_other_files(out)
    out.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        try:
            content = draw(subject)
        except RunFailed:
            raise
        except UserError as error:
            say(f"{name}: left out: {error}")
            continue
        replace_file(out / name, content)
        yield out / name
