"""Images as evaluation and training see them, and what remains of a broken one."""

import io
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from PIL import Image

from transfg_core.config.sections import DataConfig
from transfg_core.data.bad_image import UNREADABLE, open_regular
from transfg_core.data.datasets.samples import Samples
from transfg_core.data.decoding import MILLION, read_image
from transfg_core.data.pixels import to_rgb
from transfg_core.data.sample_reader import EvalReader, TrainReader, epoch_order
from transfg_core.errors import UserError

Views = tuple[Image.Image | None, Image.Image | None]
MOST_BYTES = 1 << 26  # of a broken file that is read
END_OF_IMAGE = b"\xff\xd9"


@dataclass(frozen=True, eq=False)
class ViewReader:
    """Place in `rows` of training images -> both views, `side` pixels wide; pickled to workers.

    The training view is that of the first epoch, without `data.balance`.
    """

    samples: Samples
    data: DataConfig
    seed: int
    rows: tuple[int, ...]
    side: int

    def __call__(self, place: int) -> Views:
        """The image through the evaluation's and through the training's transforms."""
        row, data = self.rows[place], self.data.model_copy(update={"balance": False})
        count = len(self.samples.paths)
        position = int(np.flatnonzero(epoch_order(self.seed, 0, count) == row)[0])
        records = (
            EvalReader(self.samples, data)(row),
            TrainReader(self.samples, data, self.seed)(position),
        )
        evaluated, trained = (
            _shrunk(Image.fromarray(record.pixels), self.side) if record.pixels.size else None
            for record in records
        )
        return evaluated, trained


def _shrunk(picture: Image.Image, side: int) -> Image.Image:
    height = max(1, round(side * picture.height / picture.width))
    return picture.resize((side, height), Image.Resampling.LANCZOS)


def as_read(samples: Samples, index: int, data: DataConfig) -> Image.Image | None:
    """The image before any transform; None if it cannot be read."""
    with suppress(UserError):
        return read_image(samples.paths[index], data, samples.region(index))
    return None


def what_remains(path: str, data: DataConfig) -> Image.Image | None:
    """The decoded part of a JPEG file that is cut short, the rest grey; None for other files.

    A JPEG that ends with its end marker (ITU-T T.81, B.2.1) is complete for Pillow's decoder.
    """
    with suppress(*UNREADABLE, MemoryError), open_regular(path) as file:
        whole = io.BytesIO(file.read(MOST_BYTES) + END_OF_IMAGE)
        with Image.open(whole, formats=["JPEG"]) as image:
            if image.width * image.height <= data.max_megapixels * MILLION:
                image.load()
                return to_rgb(image)
    return None
