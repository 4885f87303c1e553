"""Pictures of chosen parts: frames where the patches are, on any grid."""

import numpy as np
import pytest

from transfg_core.explain.drawing import CHOSEN, GAP, SEAM, TRUE, part_picture
from transfg_core.models.rows import PartGrid

SIDE = 256  # both test images below are enlarged 4 times, to 256 x 320
GREY = np.full((1, 64, 80, 3), 90, np.uint8)


def pixels(index, scores=None, images=GREY, patch=8, stride=8, **more):
    size = ((64 - patch) // stride + 1, (80 - patch) // stride + 1)
    grid = PartGrid(*size, patch, stride)
    return np.asarray(part_picture(images, np.array(index), scores, grid, **more))


def extent(sheet, colour):
    """Rows and columns between which a colour occurs, from the corner of the first image."""
    rows, columns = np.nonzero((sheet == colour).all(axis=2))
    return tuple(int(one) - GAP for one in (columns.min(), rows.min(), columns.max(), rows.max()))


@pytest.mark.parametrize(("stride", "columns"), [(8, 10), (4, 19)])
def test_a_frame_starts_at_stride_times_index(stride, columns):
    row, column = 3, 5
    sheet = pixels([[row * columns + column + 1]], stride=stride)
    left, top = 4 * stride * column, 4 * stride * row
    assert extent(sheet, CHOSEN) == (left - 1, top - 1, left + 32, top + 32)  # 2 pixels broad


def test_a_patch_of_several_heads_is_drawn_once_and_thicker():
    areas = [(pixels([[12] * heads]) == CHOSEN).all(axis=2).sum() for heads in (1, 2, 3)]
    assert areas == sorted(set(areas))
    assert (pixels([[12, 12, 40]]) == pixels([[40, 12, 12]])).all()


def test_true_boxes_and_images_without_any():
    images = np.concatenate([GREY, GREY])
    sheet = pixels([[1], [1]], images=images, true_boxes=[[[10, 20, 30, 40]], []])
    assert extent(sheet, TRUE) == (40, 80, 119, 159)


def test_the_heat_map_is_bright_where_the_score_is():
    scores = np.zeros((1, 2, 80))
    scores[0, :, 34] = 1  # row 3, column 4: pixels 128..159 and 96..127 when enlarged
    sheet = pixels([[35, 35]], scores)
    second = sheet[GAP : GAP + SIDE, GAP + 320 + SEAM : -GAP].mean(axis=2)
    peak = np.unravel_index(second.argmax(), second.shape)
    assert 96 <= peak[0] < 128 and 128 <= peak[1] < 160
    assert second.max() > 80 and second[0, 0] < 20


def test_the_sheet_holds_every_image_and_title():
    images = np.repeat(GREY, 5, axis=0)
    bare = part_picture(images, np.ones((5, 1), int), None, PartGrid(8, 10, 8, 8))
    assert bare.size == (GAP + 4 * (320 + GAP), GAP + 2 * (SIDE + GAP))
    titles = ["ab", "", "ü", "long " * 40, "x"]
    titled = part_picture(images, np.ones((5, 1), int), None, PartGrid(8, 10, 8, 8), titles=titles)
    assert titled.width == bare.width and titled.height > bare.height
    scored = part_picture(images, np.ones((5, 1), int), np.zeros((5, 1, 80)), PartGrid(8, 10, 8, 8))
    assert scored.width > 2 * (2 * 320)


def test_large_images_keep_their_size_and_inputs_are_untouched():
    image = np.zeros((1, 448, 448, 3), np.uint8)
    sheet = part_picture(image, np.array([[1369]]), np.ones((1, 1, 1369)), PartGrid(37, 37, 16, 12))
    assert sheet.size == (2 * 448 + SEAM + 2 * GAP, 448 + 2 * GAP)
    assert not image.any()


def test_indices_outside_the_grid_are_refused():
    for index in ([[0]], [[81]]):
        with pytest.raises(AssertionError):
            pixels(index)
