"""The way from an evaluation crop back to the photograph: boxes and maps on every frame.

A photograph has one bright square. The test looks for it in the crop that the model sees, and asks
where these pixels are in the file and in the upright picture.
"""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from transfg_core.config.sections import DataConfig
from transfg_core.data.decoding import decode_image
from transfg_core.data.transforms import eval_transform
from transfg_core.data.view import View, view_of

SQUARE = (60, 25, 76, 41)  # in the stored photograph
STORED = (90, 120)  # height, width
TRANSFORMS = {
    "squash": {"resize": (80, 80), "crop": (64, 64)},
    "shorter side": {"resize": 72, "crop": (64, 64)},
    "not square": {"resize": (100, 70), "crop": (96, 64)},
    "no resize": {"resize": None, "crop": (72, 80)},
}


def photograph(orientation, form="PNG"):
    """A file with a bright square, and the EXIF orientation."""
    pixels = np.full((*STORED, 3), 30, np.uint8)
    left, top, right, bottom = SQUARE
    pixels[top:bottom, left:right] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format=form, exif=exif)
    return file.getvalue()


def bright(pixels):
    """The box of the pixels that are brighter than half."""
    rows, columns = np.nonzero(np.asarray(pixels)[..., 0] > 140)
    return np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float64)


@pytest.fixture(params=TRANSFORMS)
def transform(request):
    return TRANSFORMS[request.param]


@pytest.mark.parametrize("exif", ["apply", "ignore"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_of_the_crop_finds_its_pixels(transform, orientation, exif):
    content, data = photograph(orientation), DataConfig(exif=exif, **transform)
    image, noted = decode_image(io.BytesIO(content), "a.png", data)
    assert noted == orientation
    view = view_of(image, noted, data)
    crop = bright(eval_transform(image, data))
    stored = Image.open(io.BytesIO(content))
    upright = ImageOps.exif_transpose(stored)
    assert view.stored == STORED
    assert view.upright == (upright.height, upright.width)
    # half a pixel of the crop is up to 1.5 pixels of the photograph
    assert np.abs(view.to_stored(crop) - bright(stored)).max() <= 1.5
    assert np.abs(view.to_upright(crop) - bright(upright)).max() <= 1.5
    assert (view.upright_image(image).size) == upright.size
    assert (np.asarray(view.upright_image(image)) == np.asarray(upright)).all()


@pytest.mark.parametrize("exif", ["apply", "ignore"])
@pytest.mark.parametrize("form", ["TIFF", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_every_format_notes_its_orientation(orientation, form, exif):
    """Pillow turns a TIFF when it loads it, and then forgets the orientation."""
    data = DataConfig(exif=exif, **TRANSFORMS["squash"])
    image, noted = decode_image(io.BytesIO(photograph(orientation, form)), "a", data)
    view = view_of(image, noted, data)
    crop = bright(eval_transform(image, data))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(photograph(orientation))))
    assert (noted, view.stored) == (orientation, STORED)
    assert np.abs(view.to_stored(crop) - np.array([SQUARE])).max() <= 1.5
    assert np.abs(view.to_upright(crop) - bright(upright)).max() <= 1.5


@pytest.mark.parametrize("exif", ["apply", "ignore"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_map_lies_on_the_upright_photograph(transform, orientation, exif):
    """The map is the crop's own brightness, so it must be bright where the photograph is."""
    content, data = photograph(orientation), DataConfig(exif=exif, **transform)
    image, noted = decode_image(io.BytesIO(content), "a.png", data)
    view = view_of(image, noted, data)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    spread = view.spread(eval_transform(image, data)[..., 0] / 255, view.upright)
    assert spread.shape == view.upright
    corners = view.to_upright(np.array([[0, 0, data.crop[1], data.crop[0]]], np.float64))[0]
    left, top, right, bottom = corners.round().astype(int)
    inside = np.zeros(spread.shape, bool)
    inside[top + 1 : bottom - 1, left + 1 : right - 1] = True
    outside = np.ones(spread.shape, bool)
    outside[max(top - 1, 0) : bottom + 1, max(left - 1, 0) : right + 1] = False
    assert np.isfinite(spread[inside]).all() and np.isnan(spread[outside]).all()
    found = bright(np.nan_to_num(spread)[..., None] * 255)
    assert np.abs(found - bright(upright)).max() <= 1.5
    half = tuple(side // 2 for side in view.upright)
    small = bright(np.nan_to_num(view.spread(eval_transform(image, data)[..., 0], half))[..., None])
    assert np.abs(2 * small - bright(upright)).max() <= 3


def test_boxes_are_cut_at_the_border():
    view = View((90, 120), (72, 96), (16, 4, 80, 68), 1, False)
    box = view.to_stored(np.array([[-20.0, 60.0, 30.0, 90.0]]))
    assert box.tolist() == [[0.0, 80.0, 57.5, 90.0]]
