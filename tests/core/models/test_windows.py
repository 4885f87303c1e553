"""The geometry of Swin's windows against loops over tokens, written from the paper.

Liu et al. 2021 (arXiv 2103.14030): section 3.2, figures 2 and 4, equation 4.
"""

import numpy as np
import pytest

from transfg_core.config.loading import build_config, load_config
from transfg_core.errors import UserError
from transfg_core.models.layout import param_shapes
from transfg_core.models.swin import dims_of, forward_flops, map_sizes, param_specs, windows_of
from transfg_core.models.windows import Windows

# rows, columns, window: divided; not divided; one side clipped; both; one token
MAPS = [(8, 12, 4), (11, 8, 4), (9, 7, 3), (6, 4, 4), (3, 9, 7), (2, 1, 4), (1, 1, 2), (14, 14, 7)]
each_map = pytest.mark.parametrize("size", MAPS, ids=str)
shifted_or_not = pytest.mark.parametrize("shifted", [False, True])


def window_of(place, side, window, step):
    """Number of the window that holds a row or column, and whether it wrapped around.

    Windows start `step` further down; the last takes in the first `step` places of the map.
    """
    moved = (place - step) % side
    return moved // window, place < step


@each_map
@shifted_or_not
def test_who_attends_to_whom(size, shifted):
    """Two tokens attend to one another if window and, after the cyclic shift, side agree."""
    windows = Windows(*size, shifted)
    rows, columns, _ = size
    heights = [rows if rows <= size[2] else size[2], columns if columns <= size[2] else size[2]]
    sides = [-(-side // window) * window for side, window in zip(size, heights, strict=False)]
    steps = [size[2] // 2 if shifted and side > size[2] else 0 for side in size[:2]]
    assert windows.padded == tuple(sides) and windows.shift == tuple(steps)

    expected = set()
    places = list(np.ndindex(*sides))
    kinds = {place: tuple(map(window_of, place, sides, heights, steps)) for place in places}
    for a in places:
        expected |= {(a, b) for b in places if kinds[a] == kinds[b]}

    found = set()
    for tokens, regions in zip(windows.order, windows.regions, strict=True):
        for i, a in enumerate(tokens):
            for j, b in enumerate(tokens):
                if regions[i] == regions[j]:
                    found.add((tuple(divmod(a, sides[1])), tuple(divmod(b, sides[1]))))
    assert found == expected
    assert sorted(windows.order.reshape(-1)) == list(range(sides[0] * sides[1]))
    assert windows.order.shape == (windows.count, heights[0] * heights[1])


@each_map
@shifted_or_not
def test_the_bias_is_that_of_the_offset(size, shifted):
    """The table's row for (query - key), from -(w - 1) in both directions, row by row."""
    windows, w = Windows(*size, shifted), size[2]
    table = {
        (down, right): (down + w - 1) * (2 * w - 1) + right + w - 1
        for down in range(1 - w, w)
        for right in range(1 - w, w)
    }
    assert sorted(table.values()) == list(range((2 * w - 1) ** 2))
    columns = windows.padded[1]
    for tokens, regions in zip(windows.order, windows.regions, strict=True):
        for i, query in enumerate(tokens):
            for j, key in enumerate(tokens):
                if regions[i] == regions[j]:  # neighbours on the map, not only in the window
                    down, right = query // columns - key // columns, query % columns - key % columns
                    assert windows.offsets[i, j] == table[down, right]


def swin(crop: tuple[int, int], **model):
    tree = {"model": {"name": "swin", "classes": 1000} | model, "data": {"crop": crop}}
    return build_config(tree, "swin").model


def test_parameters_and_operations_as_published():
    """Liu et al. 2021, table 1 (GFLOPs count a multiplication with its addition as one)."""
    for size, window, side, params, billions in (
        ("T", 7, 224, 28_288_354, 4.5),
        ("S", 7, 224, 49_606_258, 8.7),
        ("B", 7, 224, 87_768_224, 15.4),
        ("B", 12, 384, 87_903_584, 47.0),
        ("L", 7, 224, 196_532_476, 34.5),
    ):
        model = swin((side, side), size=size, window=window)
        shapes = param_shapes(model, (side, side))
        assert sum(int(np.prod(shape)) for shape in shapes.values()) == params
        assert forward_flops(model, (side, side)) / 2e9 == pytest.approx(billions, rel=0.005)


def test_maps_of_the_stages():
    assert map_sizes((384, 384), swin((384, 384))) == [(96, 96), (48, 48), (24, 24), (12, 12)]
    assert map_sizes((45, 33), swin((45, 33))) == [(11, 8), (6, 4), (3, 2), (2, 1)]
    with pytest.raises(UserError, match="image 3 x 9: expected at least model.patch 4"):
        map_sizes((3, 9), swin((8, 8)))
    with pytest.raises(UserError, match=r"data.crop \[3, 9\] is smaller than model.patch 4"):
        load_config(None, ["model.name=swin", "data.crop=[3,9]"])


def test_every_second_block_is_shifted():
    model = swin((64, 64), window=4)
    assert [windows_of(model, (64, 64), 1, block).shifted for block in range(3)] == [0, 1, 0]
    assert windows_of(model, (64, 64), 1, 1) == Windows(8, 8, 4, True)


def test_shapes_do_not_depend_on_the_image():
    """A checkpoint fits images of every size, also where a window is clipped."""
    model = swin((224, 224), size="tiny")
    assert param_shapes(model, (224, 224)) == param_shapes(model, (60, 44))


def test_letters_of_names():
    model = swin((64, 64))
    assert all(dims_of(name) == spec.dims for name, spec in param_specs(model).items())
    for name in ("stages.3.merging.norm.weight", "stages.4.blocks.0.norm1.bias", "blocks.0.x", "x"):
        assert dims_of(name) == "", name


def test_sizes_that_do_not_fit():
    with pytest.raises(UserError, match="heads: stage 1 has width 64, which is not a multiple of"):
        swin((64, 64), heads=[1, 3, 4, 8])
    with pytest.raises(UserError, match="model.depths"):
        swin((64, 64), depths=[2, 2, 2])
    assert swin((64, 64), size="B", width=64, heads=None).heads == (4, 8, 16, 32)
