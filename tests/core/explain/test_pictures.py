"""Maps and boxes over a photograph: colours, what was not seen, frames and their numbers."""

import numpy as np
import pytest
from PIL import Image
from small_models import config_of

from transfg_core.explain.drawing import CHOSEN
from transfg_core.explain.labels import mask_labels, part_labels
from transfg_core.explain.pictures import DIMMED, VIRIDIS, boxed, colours, masked, overlay, tag

PHOTO = Image.new("RGB", (60, 40), (200, 100, 50))


def test_the_colours_are_matplotlibs_viridis():
    matplotlib = pytest.importorskip("matplotlib")
    values = np.linspace(0, 1, 101)
    expected = 255 * matplotlib.colormaps["viridis"](values)[:, :3]
    assert abs(colours(values) - expected).max() < 6  # between the seventeen stops here
    assert np.array_equal(colours(np.linspace(0, 1, 17)), VIRIDIS)


def test_lightness_grows_with_the_value():
    """For readers who cannot tell some hues apart; luma as in Pillow."""
    luma = colours(np.linspace(0, 1, 65)) @ (0.299, 0.587, 0.114)
    assert (np.diff(luma) > 0).all() and luma[-1] - luma[0] > 150


def test_an_overlay_mixes_and_greys_what_was_not_seen():
    values = np.zeros((40, 60), np.float32)
    values[:, 30:] = 1
    values[:10] = np.nan
    found = np.asarray(overlay(PHOTO, values, opacity=0.5))
    assert (found[20, 10] == np.round((np.array([200, 100, 50]) + VIRIDIS[0]) / 2)).all()
    assert (found[20, 50] == np.round((np.array([200, 100, 50]) + VIRIDIS[-1]) / 2)).all()
    assert len(set(found[5, 10])) == 1 and found[5, 10, 0] < 60  # grey and dark
    assert (np.asarray(overlay(PHOTO, np.zeros((40, 60)), 0.0)) == np.asarray(PHOTO)).all()
    with pytest.raises(AssertionError, match="expected"):
        overlay(PHOTO, values.T)


def test_what_the_part_layer_does_not_see_is_dimmed():
    seen = np.ones((40, 60), bool)
    seen[:, :6] = False
    found = np.asarray(masked(PHOTO, np.array([[10.0, 5, 20, 15], [15, 10, 25, 20]]), seen))
    bright = (found == (200, 100, 50)).all(axis=2)
    expected = np.zeros((40, 60), bool)
    expected[5:15, 10:20] = expected[10:20, 15:25] = True
    assert np.array_equal(bright, expected)
    assert (found[30, 30] == np.round(DIMMED * np.array([200, 100, 50]))).all()
    assert len(set(found[30, 2])) == 1


def test_a_patch_of_several_heads_has_one_frame_with_all_numbers(monkeypatch):
    written = []
    monkeypatch.setattr(
        "transfg_core.explain.pictures.write_tag",
        lambda pen, box, text, size, limit: written.append((box, text)),
    )
    boxes = np.array([[10.0, 5, 20, 15], [30, 5, 40, 15], [10, 5, 20, 15]])
    found = np.asarray(boxed(PHOTO, boxes, ["1", "2", "3"]))
    assert written == [((10, 5, 20, 15), "1, 3"), ((30, 5, 40, 15), "2")]
    rows, columns = np.nonzero((found == CHOSEN).all(axis=2))
    assert (rows.min(), columns.min(), rows.max(), columns.max()) == (4, 9, 15, 40)
    assert (np.asarray(PHOTO) == (200, 100, 50)).all()  # the photograph stays as it is


def test_labels_of_one_frame():
    assert tag(["3"]) == "3" and tag(["1", "2", "2"]) == "1, 2"
    assert tag(list("1234")) == "1, 2, 3, 4" and tag(list("12345")) == "1, 2, 3, +2"


@pytest.mark.parametrize("corner", [(0, 0), (59, 39), (30, 0), (0, 39)])
def test_a_tag_stays_inside_the_picture(corner):
    left, top = corner
    box = np.array([[left - 5.0, top - 5, left + 5, top + 5]])
    found = np.asarray(boxed(PHOTO, box, ["12"]))
    assert found.shape == (40, 60, 3) and (found == CHOSEN).all(axis=2).sum() > 60


LABELS = {
    "overlap": (["1", "2", "3"], "head"),
    "maws": (["1", "1", "1", "2", "2", "2", "3", "3", "3"], "block"),
    "similarity": (["1", "2", "3", "4"], "most like the class token"),
    "random": ([str(k) for k in range(1, 9)], "at random"),
    "center": (["1", "2", "3", "4"], "around the centre"),
    "swinfc": ([f"{b}.{h}" for b in (1, 2) for h in range(1, 7)], "head 3 in block 2"),
}


@pytest.mark.parametrize("case", LABELS)
def test_what_the_numbers_of_patches_mean(case):
    """As many labels as parts; heads of each block of SwinFC in the order of `part_index`."""
    config = config_of(case)
    found = part_labels(config.model)
    assert found.labels == LABELS[case][0] and LABELS[case][1] in found.meaning


def test_who_reads_the_selected_patches():
    def read(**settings):
        return mask_labels(config_of("overlap").model.model_copy(update=settings))

    assert read() == (
        "What the part layer reads",
        "The tokens of these patches, and the class token.",
    )
    flat = {"placement": "flatten"}
    assert read(**flat)[0] == "What the classifier reads"
    assert "without" in read(**flat, flatten_class_token=False)[1]
