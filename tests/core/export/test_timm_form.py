"""The numbers of timm's hub form: ratio, crop_pct and crop_mode."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from transfg_core.config.sections import DataConfig
from transfg_core.export.timm_form import exact_ratio, timm_transform

SIDES = st.integers(1, 1000)


@given(st.integers(1, 20000), st.integers(1, 5000))
@example(1, 49)  # 49 (1 / 49) is below 1
def test_the_ratio_gives_the_width_of_the_mlp(mlp, width):
    assert int(width * exact_ratio(mlp, width)) == mlp


@given(SIDES, SIDES)
def test_the_share_gives_the_resized_side(crop, more):
    """timm resizes to floor(crop / crop_pct)."""
    percent, mode, gap = timm_transform(DataConfig(crop=(crop, crop), resize=crop + more))
    assert (mode, gap) == ("center", "") and math.floor(crop / percent) == crop + more


@pytest.mark.parametrize(
    ("crop", "resize", "mode", "gap"),
    [
        ((448, 448), (600, 600), "squash", ""),
        ((64, 32), (96, 48), "squash", ""),
        ((64, 32), (96, 50), "squash", "one crop_pct for both sides"),
        ((64, 32), 70, "center", "oblong crop"),
        ((64, 64), None, "center", "here nothing is resized"),
        ((64, 64), 64, "center", ""),
    ],
)
def test_transforms(crop, resize, mode, gap):
    percent, found, text = timm_transform(DataConfig(crop=crop, resize=resize))
    assert found == mode and gap in text and bool(gap) == bool(text)
    if isinstance(resize, tuple) and not gap:
        assert tuple(math.floor(side / percent) for side in crop) == resize
