"""A picture of the classes that runs confuse: images taken for another class, and that class.

It shows images of the data set, so it exists only if the user says where they lie.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from transfg_core import fonts
from transfg_core.data.datasets import read_test
from transfg_core.data.sample_reader import EvalReader
from transfg_core.errors import UserError
from transfg_core.report.confusions import confusions
from transfg_core.report.per_class import Group, predicting
from transfg_core.resume import split_of

PAIRS = 6  # confusions in the picture
WRONG, RIGHT = 3, 2  # images taken for the other class, and images of that class
SIDE, GAP, LINE, FONT = 112, 8, 24, 14  # pixels
INK, PAPER = (34, 34, 34), (255, 255, 255)
QUALITY = 82  # of the JPEG file


@dataclass(frozen=True)
class Example:
    """One row of the picture."""

    title: str
    wrong: tuple[Image.Image, ...]
    right: tuple[Image.Image, ...]


def confusion_picture(groups: Sequence[Group], root: str) -> bytes:
    """A JPEG with the most confused pairs of each data set, as the evaluation reads the images.

    Raises:
        UserError: the images do not lie in `root`, or are not those of the runs.
    """
    examples = [example for group in groups for example in _examples(group, root)]
    width = (WRONG + RIGHT) * (SIDE + GAP) + 3 * GAP
    height = len(examples) * (LINE + SIDE + GAP) + GAP
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, example in enumerate(examples):
        top = GAP + number * (LINE + SIDE + GAP)
        left = float(GAP)
        for text, font in fonts.shorten(example.title, FONT, width - 2 * GAP):
            pen.text((left, top + FONT), text, fill=INK, font=font, anchor="ls")
            left += font.getlength(text)
        for k, image in enumerate(example.wrong):
            sheet.paste(image, (GAP + k * (SIDE + GAP), top + LINE))
        for k, image in enumerate(example.right):
            place = GAP + (WRONG + k) * (SIDE + GAP) + 2 * GAP
            sheet.paste(image, (place, top + LINE))
    file = io.BytesIO()
    sheet.save(file, format="JPEG", quality=QUALITY)
    return file.getvalue()


def _examples(group: Group, root: str) -> list[Example]:
    run = predicting(group.cells[0])[0]
    data = run.config.data.model_copy(update={"root": root})
    split = split_of(run.path / "checkpoints" / "last.safetensors", data)
    test = read_test(data, group.classes, split).test
    place = {name: row for row, name in enumerate(test.ids)}
    unknown = [name for name in run.predictions if name not in place]
    if unknown:
        raise UserError(
            f"--data {root}: expected the test images of {run.path}, found no {unknown[0]}; give "
            "the folder that the runs read"
        )
    of_class: dict[str, list[str]] = {}
    for name in sorted(run.predictions):
        of_class.setdefault(run.predictions[name][0], []).append(name)
    read = EvalReader(test, data)

    def images(ids: Sequence[str]) -> tuple[Image.Image, ...]:
        records = [read(place[name]) for name in ids if name in place]
        return tuple(_small(record.pixels) for record in records if record.pixels.size)

    return [
        Example(
            f"{group.classes[one.label]} (left) taken for {group.classes[one.guess]}: "
            f"{100 * one.share:.1f} %",
            images(one.examples[:WRONG]),
            images(of_class.get(str(one.guess), [])[:RIGHT]),
        )
        for one in confusions(group)[:PAIRS]
    ]


def _small(pixels: NDArray[np.uint8]) -> Image.Image:
    """(H, W, 3) with a longer side of SIDE pixels."""
    image = Image.fromarray(pixels)
    scale = SIDE / max(image.size)
    size = [max(1, round(scale * side)) for side in image.size]
    return image.resize((size[0], size[1]), Image.Resampling.LANCZOS)
