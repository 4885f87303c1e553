"""Figures of a run: confusion matrix, hardest images, batches as the model gets them, part hits.

The first two come from the predictions of the run's last evaluation: of the parameters after the
last update. The others come from the data set.
Letters: B images, C classes, S selected patches.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from transfg_core import fonts
from transfg_core.backend import Batch
from transfg_core.config.sections import NORMALISATION, DataConfig
from transfg_core.data.transforms import normalise
from transfg_core.explain.ours import HARDEST_HEADER, MADE_BY
from transfg_core.inspection.sheets import Tile, framed, heading, pages_of, rows_of
from transfg_core.report.plots import STYLE, load_optional

HARDEST = 24  # images in the picture; the CSV file has all
NAMED = 40  # classes at most whose names stand beside a confusion matrix
BATCH = 24  # images of a batch in its picture
BOX = (196, 196)  # of an image in a sheet, in pixels
DPI = 130


class PredictionRow(NamedTuple):
    """A row of predictions.csv: classes by number, and the probability of the guess."""

    image: str
    label: int
    guess: int
    probability: float


def read_predictions(file: Path) -> list[PredictionRow]:
    """The rows of a predictions.csv that `load_run` has accepted."""
    with open(file, encoding="utf-8", newline="") as opened:
        return [
            PredictionRow(row["image"], int(row["label"]), int(row["predicted"]),
                          float(row["probability"]))
            for row in csv.DictReader(opened)
        ]  # fmt: skip


def confusion_matrix(rows: Sequence[PredictionRow], classes: int) -> NDArray[np.int64]:
    """Images of each class (row) that are taken for each class (column): (C, C)."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, ([row.label for row in rows], [row.guess for row in rows]), 1)
    return counts


def draw_confusion(rows: Sequence[PredictionRow], classes: Sequence[str], update: int) -> bytes:
    """The confusion matrix as a PNG file; each row is divided by the images of its class.

    `update` is that of the predictions.

    Raises:
        UserError: matplotlib is not installed.
    """
    matplotlib, figures = load_optional("matplotlib"), load_optional("matplotlib.figure")
    counts = confusion_matrix(rows, len(classes))
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [fonts.readable(name) for name in classes]
    named = len(classes) <= NAMED
    side = 4.5 + 0.22 * len(classes) if named else 9.0
    style = STYLE | {"axes.grid": False, "font.family": fonts.families(names)}
    with matplotlib.rc_context(style):
        figure = figures.Figure(figsize=(side + 1.0, side), layout="constrained")
        panel = figure.subplots()
        image = panel.imshow(shares, cmap="viridis", vmin=0, vmax=100, interpolation="nearest")
        accuracy = 100 * np.trace(counts) / max(counts.sum(), 1)
        panel.set_title(
            f"Confusion matrix: {accuracy:.1f} % of {counts.sum()} images correct\n"
            f"{last_evaluation(update)}"
        )
        panel.set_ylabel("true class")
        panel.set_xlabel("taken for")
        if named:
            panel.set_yticks(range(len(names)), names, fontsize=8)
            panel.set_xticks(range(len(names)), names, fontsize=8, rotation=90)
        figure.colorbar(image, label="% of the images of a class", shrink=0.8)
        return saved(figure)


def saved(figure: Any) -> bytes:
    """A matplotlib figure as a PNG file; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    facts = {"Software": MADE_BY}
    # tight: a constrained layout cuts a title of two lines above a square picture
    figure.savefig(buffer, format="png", dpi=DPI, metadata=facts, bbox_inches="tight")
    return buffer.getvalue()


def hardest(rows: Sequence[PredictionRow]) -> list[PredictionRow]:
    """The images that are classified wrongly, those with the most probable guess first."""
    wrong = [row for row in rows if row.label != row.guess]
    return sorted(wrong, key=lambda row: (-row.probability, row.image))


def last_evaluation(update: int) -> str:
    """Which parameters made the predictions of a run."""
    return f"update {update}, the run's last evaluation"


def hardest_csv(rows: Sequence[PredictionRow], classes: Sequence[str], update: int) -> bytes:
    """All wrong images as CSV: image, class, what it was taken for, probability of that, update."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HARDEST_HEADER)
    for row in hardest(rows):
        names = classes[row.label], classes[row.guess]
        writer.writerow([row.image, *names, row.probability, update])
    return text.getvalue().encode()


def draw_hardest(
    rows: Sequence[PredictionRow],
    classes: Sequence[str],
    pictures: Sequence[Image.Image | None],
    update: int,
) -> bytes:
    """The first wrong images with their classes, as a JPEG file; `pictures` are in that order."""
    tiles = [
        Tile(picture, [classes[row.label], f"taken for {classes[row.guess]}",
                       f"{100 * row.probability:.1f} %"],
             row.image.rpartition("/")[2])
        for row, picture in zip(hardest(rows), pictures, strict=False)
    ]  # fmt: skip
    wrong = len(hardest(rows))
    note = (
        f"{wrong} of {len(rows)} images are classified wrongly; here the {len(tiles)} with the "
        "highest probability of the wrong class. hardest.csv has all."
    )
    return sheet(tiles, f"Hardest images: {last_evaluation(update)}", note)


def sheet(tiles: Sequence[Tile], title: str, note: str) -> bytes:
    """A contact sheet as a JPEG file."""
    blocks = (framed([tile], BOX) for tile in tiles)
    return next(pages_of(rows_of(blocks), heading(title, note), MADE_BY))


def denormalised(batch: Batch, data: DataConfig) -> NDArray[np.uint8]:
    """The images of a batch as pixels (B, H, W, 3), back from what the model gets.

    The normalised values are computed and undone, so that the picture also shows a wrong mean.
    """
    images = batch.images
    given = normalise(images, data) if images.dtype == np.uint8 else images
    means, deviations = (np.array(row)[:, None, None] for row in NORMALISATION[data.normalise])
    exact = 255 * (given.astype(np.float64) * deviations + means)
    pixels: NDArray[np.uint8] = exact.clip(0, 255).round().astype(np.uint8).transpose(0, 2, 3, 1)
    return pixels


def draw_batch(batch: Batch, classes: Sequence[str], data: DataConfig, title: str) -> bytes:
    """The first images of a batch as the model gets them, as a JPEG file."""
    pixels = denormalised(batch, data)[:BATCH]
    tiles = [
        Tile(Image.fromarray(image), label_lines(batch, row, classes), "")
        for row, image in enumerate(pixels)
    ]
    note = (
        f"The first {len(tiles)} of {len(batch.labels)} images, after all transforms and "
        f"normalisation ({data.normalise}), turned back into colours."
    )
    return sheet(tiles, title, note)


def label_lines(batch: Batch, row: int, classes: Sequence[str]) -> list[str]:
    """The class of an image of a batch; of a mixed one, both classes with their shares."""
    if batch.targets is None:
        return [classes[int(batch.labels[row])]]
    shares = batch.targets[row]
    order = np.argsort(-shares, kind="stable")[:2]
    return [f"{100 * shares[k]:.0f} % {classes[int(k)]}" for k in order if shares[k] > 0]


def draw_part_hits(
    labels: Sequence[str], hits: NDArray[np.float64], chance: float, images: int, step: str
) -> bytes:
    """How often each head's patch lies on a true part, beside a random patch, as a PNG file.

    Args:
        labels: (S,) of each selected patch; several may be equal.
        hits: (B, S) 1 for a hit, 0 for none, not-a-number where no part is visible.
        chance: the share of all patches that lie on a part.
        step: whose parameters selected the patches.

    Raises:
        UserError: matplotlib is not installed.
    """
    matplotlib, figures = load_optional("matplotlib"), load_optional("matplotlib.figure")
    names, shares = shares_by_label(labels, hits)
    with matplotlib.rc_context(STYLE):
        figure = figures.Figure(
            figsize=(max(5.5, 0.36 * len(names) + 2), 3.6), layout="constrained"
        )
        panel = figure.subplots()
        panel.bar(range(len(names)), 100 * shares, color="#0072b2", width=0.7)
        panel.axhline(100 * chance, color="#d55e00", linestyle="--", label="any patch")
        panel.set_xticks(range(len(names)), names)
        panel.grid(axis="x", visible=False)
        panel.set_ylim(0, 100)
        panel.set_ylabel("% on a true part")
        panel.set_xlabel("number of the selected patch, as in the figures of images")
        mean = 100 * float(np.nanmean(hits))
        panel.set_title(
            f"Part hits: {mean:.1f} %, by chance {100 * chance:.1f} % ({images} images)\n{step}"
        )
        panel.legend(loc="upper right")
        return saved(figure)


def shares_by_label(
    labels: Sequence[str], hits: NDArray[np.float64]
) -> tuple[list[str], NDArray[np.float64]]:
    """Each label once, and the mean of its columns of hits (B, S)."""
    names = list(dict.fromkeys(labels))
    columns = [[place for place, label in enumerate(labels) if label == name] for name in names]
    return names, np.array([np.nanmean(hits[:, places]) for places in columns])
