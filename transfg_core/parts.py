r"""Parts that no number of the model chooses: the controls `random` and `center`.

    parts = draw_parts(config, images, update)    # (B, k) int64, or None if the model chooses

Both twins take these parts, so they cannot differ. Neither control is published: they show what a
selection gains over any other tokens.

`random` reads every pixel, since its parts depend on the image: 8 images of 448 x 448 take 13 ms of
one core of an x86-64 server, half of it for normalising them as the model sees them:

    python -m timeit -p -s "import numpy as np; images = np.zeros((8, 448, 448, 3), np.uint8); \
      from transfg_core.config.loading import load_config; \
      from transfg_core.parts import draw_parts; \
      config = load_config(None, ['model.selection=random', 'data.crop=448'])" \
      "draw_parts(config, images, 1)"

Shapes: B batch, H and W image, N patches, k = `model.top_k`.
"""

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transfg_core.config.sections import Config
from transfg_core.data.transforms import normalise
from transfg_core.models.vit import grid_size, require_vit

EVALUATION = 0  # the update of images that are classified, not trained with


def draw_parts(
    config: Config, images: NDArray[Any], update: int = EVALUATION
) -> NDArray[np.int64] | None:
    """Token indices (B, k), counted with the class token at 0; None if the model chooses.

    Args:
        images: uint8 (B, H, W, 3), or the same normalised, float32 (B, 3, H, W). Both give the same
            parts. They depend on each image alone, not on the batch around it.
        update: the number of the update that trains with the images. The parts of `random` change
            from update to update; in an evaluation they stay.
    """
    if not config.model.draws_parts:
        return None
    model = require_vit(config.model, "part selection")
    grid = grid_size(config.data.crop, model)
    if model.selection == "center":
        return np.tile(nearest_to_center(grid)[: model.row_parts], (len(images), 1))
    planes = normalise(images, config.data) if images.dtype == np.uint8 else images
    keys = [(config.run.seed, 5, update, image_key(image)) for image in planes]
    drawn = [np.random.default_rng(key).permutation(grid[0] * grid[1]) for key in keys]
    return np.asarray(np.stack(drawn)[:, : model.row_parts] + 1, np.int64)


def nearest_to_center(grid: tuple[int, int]) -> NDArray[np.int64]:
    """Token indices (N,) of a grid (rows, columns), the nearest to its centre first.

    Of equally near patches the first in row order comes first.
    """
    rows, columns = np.indices(grid)
    squares = (2 * rows - grid[0] + 1) ** 2 + (2 * columns - grid[1] + 1) ** 2
    return np.argsort(squares.ravel(), kind="stable").astype(np.int64) + 1


def image_key(planes: NDArray[Any]) -> int:
    """A number for one image (3, H, W), in any order of the colours: the sum of their CRC-32."""
    return sum(zlib.crc32(np.ascontiguousarray(plane, np.float32).data) for plane in planes)
