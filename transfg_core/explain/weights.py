"""Pictures of a trained model's parameters: first filters, and similarity of positions.

Source: Dosovitskiy et al. 2021 (arXiv 2010.11929), figure 7, left and centre. They need no data.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from transfg_core.backend import Arrays
from transfg_core.config.sections import Config
from transfg_core.config.vit import VitConfig
from transfg_core.errors import UserError
from transfg_core.explain.page import Panel, page, strip
from transfg_core.explain.pictures import colours, to_image
from transfg_core.models.layout import part_grid, taps_of

COMPONENTS = 28  # as in the paper
TILE = 96  # pixels of a component
PER_ROW = 7
MAPS = 12  # rows and columns of similarity maps at most; of more patches, evenly spread ones
WIDE = 900  # pixels of the picture of all similarity maps
SEAM = 3  # pixels between two small pictures
WHITE = 255.0


def first_filters(config: Config, params: Arrays) -> tuple[str, NDArray[np.float64]]:
    """Name and weight (D, 3, P, P) of the layer that reads the image."""
    rows = taps_of(config.model).values()
    name = next(row.params[0] for row in rows if "images" in row.reads)
    return name, params[name].astype(np.float64)


def principal_components(
    filters: NDArray[np.float64], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The first principal components of filters (D, 3, P, P), and their shares of the variance.

    Returns (n, 3, P, P) and (n,), for n = `count` or fewer. The filters are centred first. The sign
    of a component means nothing; here the largest number is positive.
    """
    flat = filters.reshape(len(filters), -1)
    _, strengths, axes = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
    largest = np.take_along_axis(axes, abs(axes).argmax(axis=1)[:, None], axis=1)
    variances = strengths**2
    shares = variances / max(variances.sum(), np.finfo(float).tiny)
    return (axes * np.sign(largest))[:count].reshape(-1, *filters.shape[1:]), shares[:count]


def draw_filters(config: Config, params: Arrays, step: str) -> Image.Image:
    """The first principal components of the filters of the layer that reads the image.

    `step` says whose parameters these are, for the title.
    """
    name, filters = first_filters(config, params)
    components, shares = principal_components(filters, COMPONENTS)
    tiles = [tile_of(component) for component in components]
    side = filters.shape[-1]
    caption = (
        f"Principal components of {name}: the {len(tiles)} directions in which its {len(filters)} "
        f"filters of {side} x {side} pixels differ most. Together they are "
        f"{100 * shares.sum():.0f} % of the variance. Grey is 0."
    )
    return one_panel(f"Filters of the first layer: {step}", caption, grid_of(tiles, PER_ROW))


def tile_of(component: NDArray[np.float64]) -> NDArray[np.float64]:
    """A component (3, P, P) as colours (TILE, TILE, 3) around grey, each pixel enlarged."""
    scaled = 127.5 * (1 + component / max(abs(component).max(), np.finfo(float).tiny))
    image = to_image(scaled.transpose(1, 2, 0)).resize((TILE, TILE), Image.Resampling.NEAREST)
    return np.asarray(image, np.float64)


def position_similarity(positions: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Cosine of every pair of position embeddings: (1, 1 + N, D), class token first -> (N, N)."""
    wide = positions[0, 1:].astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    unit = wide / np.maximum(lengths, np.finfo(float).tiny)
    cosines: NDArray[np.float64] = unit @ unit.T
    return cosines


def draw_positions(config: Config, params: Arrays, step: str) -> Image.Image:
    """Cosine similarity of the position embedding of patches with those of all patches.

    `step` says whose parameters these are, for the title.

    Raises:
        UserError: the model has no position embeddings.
    """
    if not isinstance(config.model, VitConfig):
        raise UserError(
            f"position embeddings: expected model.name vit, found {config.model.name}, whose "
            "attention or convolutions know places by themselves"
        )
    grid = part_grid(config.model, config.data.crop, "position embeddings")
    rows, columns = grid.rows, grid.columns
    maps = position_similarity(params["pos_embed"]).reshape(rows, columns, rows, columns)
    chosen = [
        np.unique(np.linspace(0, count - 1, min(count, MAPS)).round().astype(int))
        for count in (rows, columns)
    ]
    enlarged = max(1, round(WIDE / (len(chosen[1]) * columns)))
    tiles = [
        np.kron(colours((maps[row, column] + 1) / 2), np.ones((enlarged, enlarged, 1)))
        for row in chosen[0]
        for column in chosen[1]
    ]
    count = len(tiles)
    which = f"all {count}" if count == rows * columns else f"{count} of {rows * columns}"
    caption = (
        f"One small map for each of {which} patches, at its place in the image: the cosine of its "
        f"position embedding and those of the {rows} x {columns} patches. Dark blue is -1, yellow "
        "is 1."
    )
    title = f"Similarity of position embeddings: {step}"
    return one_panel(title, caption, grid_of(tiles, len(chosen[1])))


def grid_of(tiles: list[NDArray[np.float64]], columns: int) -> Image.Image:
    """Tiles of one size, (h, w, 3) each, in rows with white between them."""
    height, width = tiles[0].shape[:2]
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    size = (rows * (height + SEAM) - SEAM, columns * (width + SEAM) - SEAM, 3)
    sheet = np.full(size, WHITE)
    for number, tile in enumerate(tiles):
        top, left = (
            x * (n + SEAM) for x, n in zip(divmod(number, columns), (height, width), strict=True)
        )
        sheet[top : top + height, left : left + width] = tile
    return to_image(sheet)


def one_panel(title: str, caption: str, picture: Image.Image) -> Image.Image:
    """A page with a single picture."""
    empty = strip(picture.width)
    return page(empty, [Panel(title, caption, picture)], 1, empty)
