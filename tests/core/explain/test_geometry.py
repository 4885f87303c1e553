"""Selected patches and maps against the true parts of toy birds, on the photographs as stored.

The photographs are not square and turned by EXIF data; a part is painted magenta, so that Pillow
alone finds it again. The backend selects the patch that is nearest to it.
"""

import itertools

import numpy as np
import pytest
from magenta import magenta
from PIL import Image, ImageOps

from transfg_core.data.pixels import ORIENTATION
from transfg_core.data.toy.birds import PARTS, draw_bird
from transfg_core.explain import maps
from transfg_core.explain.maps import explain, spread_grid
from transfg_core.metrics import patch_boxes

STORED = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # EXIF orientation -> Transpose that undoes it
SIZES = {"without overlap": 8, "with overlap": 6}
TRANSFORMS = {
    "squeezed": ["data.resize=[72,96]", "data.crop=[64,80]"],
    "shorter side": ["data.resize=80", "data.crop=[72,76]"],
    "cut alone": ["data.resize=null", "data.crop=[90,80]"],
}


def photograph(path, part, orientation, seed=0):
    """A bird on a wide background with one magenta part, stored turned; its box when upright."""
    bird, _, boxes = draw_bird(seed % 20, 64, np.random.default_rng(seed))
    left, top, width, height = boxes[part]
    upright = Image.new("RGB", (136, 112), (120, 140, 110))
    upright.paste(bird, (36, 20))
    box = np.array([left, top, left + width, top + height]).round() + [36, 20, 36, 20]
    upright.paste((255, 0, 255), tuple(int(side) for side in box))
    turn = STORED.get(orientation)
    stored = upright if turn is None else upright.transpose(Image.Transpose(turn))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored.save(path, exif=exif)
    return box


def centre_of(pixels):
    """The centre (x, y) of the magenta pixels (H, W, 3)."""
    rows, columns = np.nonzero(magenta(pixels) > 50)
    return np.array([columns.mean(), rows.mean()]) + 0.5


CASES = [
    *itertools.product(SIZES, TRANSFORMS, ["apply", "ignore"], [1, 6]),
    *itertools.product(["with overlap"], ["squeezed"], ["apply", "ignore"], [2, 3, 4, 5, 7, 8]),
]


@pytest.mark.parametrize(("overlap", "transform", "exif", "orientation"), CASES)
def test_boxes_and_maps_lie_on_the_true_part(
    tmp_path, predictor, overlap, transform, exif, orientation
):
    """The box covers the part's centre, and its own centre is the nearest that the grid has."""
    stride = SIZES[overlap]
    settings = [*TRANSFORMS[transform], f"data.exif={exif}", "model.patch=8"]
    model = predictor(*settings, f"model.stride={stride}")
    path = tmp_path / "bird.png"
    for seed, part in enumerate(PARTS):
        true = photograph(path, part, orientation, seed)
        stored = np.asarray(Image.open(path).convert("RGB"))
        upright = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
        assert np.allclose(centre_of(upright), (true[:2] + true[2:]) / 2)
        crop = model.crop(path, "bird")
        (found,) = explain(model, [crop])
        view = crop.view
        scale = np.array(view.seen[::-1]) / view.resized[::-1]
        swapped = orientation >= 5
        for boxes, pixels, turned in (
            (found.prediction.boxes, stored, exif == "apply" and swapped),
            (found.prediction.upright_boxes, upright, exif == "ignore" and swapped),
        ):
            centre = centre_of(pixels)
            assert len(boxes) == 2 and (boxes[0] == boxes[1]).all()
            assert (boxes[:, :2] <= centre).all() and (centre <= boxes[:, 2:]).all()
            # half a stride, and one pixel of the crop for the rounding of Pillow's resizing
            near = (stride / 2 + 1) * (scale[::-1] if turned else scale)
            assert (abs((boxes[0, :2] + boxes[0, 2:]) / 2 - centre) <= near).all()
        for name, values in found.maps.items():
            spread = view.spread(values, upright.shape[:2])
            # several pixels where the map keeps the value of an outermost patch
            brightest = np.argwhere(spread >= 0.9999 * np.nanmax(spread))[:, ::-1] + 0.5
            near = (stride / 2 + 2) * (scale[::-1] if exif == "ignore" and swapped else scale)
            if name == "saliency":  # of pixels: anywhere on the part
                near = near + (true[2:] - true[:2]) / 2
            assert (abs(brightest - centre_of(upright)) <= near).all(axis=1).any(), name


def test_a_stride_that_is_wrong_by_one_patch_shows(monkeypatch, tmp_path, predictor):
    """The test above fails for a grid one patch too late, and for one without overlap."""
    boxes, spread = "transfg_core.inference.predictor.patch_boxes", f"{maps.__name__}.spread_grid"
    planted = [
        (boxes, lambda grid: patch_boxes(grid) + [grid.stride, 0, grid.stride, 0]),
        (boxes, lambda grid: patch_boxes(grid) + [0, grid.stride, 0, grid.stride]),
        (boxes, lambda grid: patch_boxes(grid._replace(stride=grid.patch))),
        (spread, lambda values, size, stride, centre: spread_grid(values, size, 8, centre)),
        (spread, lambda values, size, stride, centre: spread_grid(values, size, stride, 4 - 6)),
        (spread, lambda values, size, stride, centre: spread_grid(values.T, size, stride, centre)),
    ]
    for place, wrong in planted:
        with monkeypatch.context() as patched:
            patched.setattr(place, wrong)
            with pytest.raises(AssertionError):
                test_boxes_and_maps_lie_on_the_true_part(
                    tmp_path, predictor, "with overlap", "squeezed", "apply", 6
                )
