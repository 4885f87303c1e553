"""Known mistakes in the stem of hybrids are recognised, and named by their own table.

The faults are computed here with NumPy, on the tiny stem.
"""

import numpy as np
import pytest
from reference import convolution, relative
from stem_reference import max_pool, norm, same, standardised

from parity.suite.causes import explain
from parity.suite.causes.context import Context
from transfg_core.config.vit import VitConfig
from transfg_core.models.layout import param_shapes, taps_of

NOISE = 3e-7
MODEL = VitConfig(stem="tiny_s8", classes=4, placement="none")
SIZE = (23, 18)
RNG = np.random.default_rng(5)
PARAMS = {
    name: 0.3 * RNG.standard_normal(shape) + (name.endswith("norm.weight"))
    for name, shape in param_shapes(MODEL, SIZE).items()
    if name.startswith("stem.")
}
IMAGES = RNG.standard_normal((3, 3, *SIZE))
WEIGHT = PARAMS["stem.root.conv.weight"]
ROOT = convolution(same(IMAGES, 7, 2), standardised(WEIGHT), None, (2, 2), (0, 0))
SCALE, SHIFT = (PARAMS[f"stem.root.norm.{leaf}"] for leaf in ("weight", "bias"))
INNER = "stem.stages.0.0.downsample"
WIDE = 0.05 * RNG.standard_normal((3, 128, 6, 5))  # variances small enough for an eps to show
WIDE_SCALE, WIDE_SHIFT = (PARAMS[f"{INNER}.norm.{leaf}"] for leaf in ("weight", "bias"))
CONTEXT = Context(
    {
        "images": IMAGES,
        "root.conv": ROOT,
        "root": np.maximum(norm(ROOT, SCALE, SHIFT), 0),
        "unit0_00.downsample.conv": WIDE,
    },
    PARAMS,
    taps_of(MODEL),
)


def root_conv(weight, around=None, stride=2):
    around = same(IMAGES, 7, 2) if around is None else around
    return convolution(around, weight, None, (stride, stride), (0, 0))


def wrong_std(ddof=0, eps=1e-5, inside=0.0):
    flat = WEIGHT.reshape(len(WEIGHT), -1)
    centred = flat - flat.mean(1, keepdims=True)
    deviation = np.sqrt(centred.var(1, keepdims=True, ddof=ddof) + inside) + eps
    return (centred / deviation).reshape(WEIGHT.shape)


FAULTS = {
    "not standardised": ("root.conv", lambda: root_conv(WEIGHT)),
    "unbiased": ("root.conv", lambda: root_conv(wrong_std(ddof=1))),
    "eps inside": ("root.conv", lambda: root_conv(wrong_std(eps=0.0, inside=1e-5))),
    "eps": ("root.conv", lambda: root_conv(wrong_std(eps=1e-3))),
    "transposed": ("root.conv", lambda: root_conv(standardised(WEIGHT).swapaxes(2, 3))),
    "padding": (
        "root.conv",
        lambda: root_conv(standardised(WEIGHT), np.flip(same(np.flip(IMAGES, 3), 7, 2), 3)),
    ),
    "stride": ("root.conv", lambda: root_conv(standardised(WEIGHT), same(IMAGES, 7, 1), 1)),
    "groups": ("unit0_00.downsample.norm", lambda: norm(WIDE, WIDE_SCALE, WIDE_SHIFT, groups=16)),
    "eps ": (
        "unit0_00.downsample.norm", lambda: norm(WIDE, WIDE_SCALE, WIDE_SHIFT, eps=1e-5)
    ),
    "unbiased ": (
        "unit0_00.downsample.norm", lambda: norm(WIDE, WIDE_SCALE, WIDE_SHIFT, ddof=1)
    ),
    "relu": (
        "unit0_00.downsample.norm", lambda: np.maximum(norm(WIDE, WIDE_SCALE, WIDE_SHIFT), 0)
    ),
    "no weight": ("unit0_00.downsample.norm", lambda: norm(WIDE, 1 + 0 * WIDE_SCALE, WIDE_SHIFT)),
    "no relu": ("root", lambda: norm(ROOT, SCALE, SHIFT)),
    "relu first": ("root", lambda: norm(np.maximum(ROOT, 0), SCALE, SHIFT)),
    "padding ": ("pool", lambda: max_pool(np.maximum(norm(ROOT, SCALE, SHIFT), 0), before=True)),
}  # fmt: skip


def right(tap):
    if tap == "root.conv":
        return ROOT
    if tap == "root":
        return np.maximum(norm(ROOT, SCALE, SHIFT), 0)
    if tap == "pool":
        return max_pool(np.maximum(norm(ROOT, SCALE, SHIFT), 0))
    return norm(WIDE, WIDE_SCALE, WIDE_SHIFT)


@pytest.mark.parametrize("code", FAULTS)
def test_faults_of_a_stem_are_named(code):
    tap, make = FAULTS[code]
    expected, faulty = right(tap), make()
    if faulty.shape == expected.shape:
        assert relative(faulty, expected) > 30 * NOISE
    noise = NOISE * RNG.standard_normal(faulty.shape) * np.abs(faulty).mean()
    causes = explain(tap, (faulty + noise).astype("f4"), expected.astype("f4"), CONTEXT)
    assert causes and causes[0].code == code.strip(), causes


@pytest.mark.parametrize("tap", ["root.conv", "root", "pool", "unit0_00.downsample.norm"])
def test_the_first_hypothesis_is_the_operation_as_defined(tap):
    """If B computes it and A does not, the fault is in A."""
    expected = right(tap)
    causes = explain(tap, expected, expected * 1.01 + 0.001, CONTEXT)
    assert "as defined" in [cause.code for cause in causes], causes
