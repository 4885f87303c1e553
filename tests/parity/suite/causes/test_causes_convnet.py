"""Known mistakes in the convolutional classifier are recognised, and named by its own table.

The faults are computed here, by sums over shifted feature maps.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from parity.suite.causes import explain
from parity.suite.causes.context import Context
from transfg_core.config.convnet import ConvNetConfig
from transfg_core.models.layout import architecture, taps_of
from transfg_core.models.rows import TapSpec

NOISE = 3e-7
MODEL = ConvNetConfig(classes=4, width=5, width2=6, kernel=3, stride=2)
RNG = np.random.default_rng(3)
PARAMS = {
    "conv1.weight": RNG.standard_normal((5, 3, 3, 3)),
    "conv1.bias": 0.5 + RNG.standard_normal(5),
    "conv2.weight": RNG.standard_normal((6, 5, 3, 3)),
    "conv2.bias": 0.5 + RNG.standard_normal(6),
    "head.weight": RNG.standard_normal((4, 6)),
    "head.bias": RNG.standard_normal(4),
}
IMAGES = RNG.standard_normal((2, 3, 18, 15))


def conv(x, name, b=1, stride=2, kernel=None):
    """Without padding: (B, R, H, W) -> (B, F, h, w), one place of the kernel after the other."""
    w = PARAMS[f"{name}.weight"] if kernel is None else kernel
    rows, columns = ((side - 3) // stride + 1 for side in x.shape[2:])
    total = np.zeros((len(x), len(w), rows, columns)) + b * PARAMS[f"{name}.bias"][:, None, None]
    for i in range(3):
        for j in range(3):
            part = x[:, :, i : i + stride * rows : stride, j : j + stride * columns : stride]
            total += np.einsum("brhw,fr->bfhw", part, w[:, :, i, j])
    return total


def passed():
    """Every activation, and the gradients around the second ReLU."""
    t = {"images": IMAGES, "conv1": conv(IMAGES, "conv1")}
    t["relu1"] = np.maximum(t["conv1"], 0)
    t["conv2"] = conv(t["relu1"], "conv2")
    t["relu2"] = np.maximum(t["conv2"], 0)
    t["pool"] = t["features"] = t["relu2"].mean((2, 3))
    t["logits"] = t["features"] @ PARAMS["head.weight"].T + PARAMS["head.bias"]
    t["d/relu2"] = np.random.default_rng(5).standard_normal(t["relu2"].shape)
    t["d/conv2"] = t["d/relu2"] * (t["conv2"] > 0)
    return t


def noisy(value, seed=0):
    error = NOISE * np.random.default_rng(seed).standard_normal(value.shape)
    return (value * (1 + error)).astype(np.float32)


X = passed()
CONTEXT = Context(
    taps={name: noisy(value, seed) for seed, (name, value) in enumerate(X.items())},
    params=PARAMS,
    made_by=taps_of(MODEL),
    axes=architecture(MODEL).AXES,
    classes=4,
)
W1, W2 = PARAMS["conv1.weight"], PARAMS["conv2.weight"]
CONV2, SIGMOID = X["conv2"], expit(X["conv2"])
FAULTS = [
    ("conv1", "rows and columns", conv(IMAGES, "conv1", kernel=W1.swapaxes(2, 3))),
    ("conv1", "BGR", conv(IMAGES[:, ::-1], "conv1")),
    ("conv1", "stride 3 instead of 2", conv(IMAGES, "conv1", stride=3)),
    ("conv1", "stride 1 instead of 2", conv(IMAGES, "conv1", stride=1)),
    ("conv2", "conv2.bias", conv(X["relu1"], "conv2", b=0)),
    ("conv2", "flipped", conv(X["relu1"], "conv2", kernel=W2[..., ::-1, ::-1])),
    ("conv2", "height and width", conv(X["relu1"].swapaxes(2, 3), "conv2")),
    ("relu1", "leaky ReLU", np.where(X["conv1"] > 0, X["conv1"], 0.01 * X["conv1"])),
    ("relu1", "no activation instead of ReLU", X["conv1"]),
    ("relu2", "SiLU instead of ReLU", CONV2 * SIGMOID),
    ("pool", "sum over positions", X["relu2"].sum((2, 3))),
    ("pool", "largest over positions", X["relu2"].max((2, 3))),
    ("logits", "head.bias", X["logits"] - PARAMS["head.bias"]),
    ("d/conv2", "in the gradient: SiLU", X["d/relu2"] * SIGMOID * (1 + CONV2 * (1 - SIGMOID))),
]


def said(tap, found):
    return [cause.text for cause in explain(tap, noisy(found, 99), CONTEXT.taps[tap], CONTEXT)]


@pytest.mark.parametrize(("tap", "words", "found"), FAULTS)
def test_mistakes_are_named(tap, words, found):
    texts = said(tap, found)
    assert texts and any(words in text for text in texts[:2]), texts


@pytest.mark.parametrize("tap", [tap for tap in X if tap != "images"])
def test_silence_on_noise(tap):
    assert said(tap, X[tap]) == []


def test_a_convolution_without_bias_and_a_residual_sum_of_two():
    row = TapSpec("B F H W", "convolution", ("relu1",), ("conv2.weight",), stride=2)
    rows = {"bare": row, "sum": TapSpec("B F H W", "residual", ("relu1", "conv1"))}
    context = replace(CONTEXT, made_by=rows)
    right = conv(X["relu1"], "conv2", b=0)
    flipped = conv(X["relu1"], "conv2", b=0, kernel=W2[..., ::-1, ::-1])
    texts = [c.text for c in explain("bare", noisy(flipped, 9), noisy(right), context)]
    assert any("flipped" in text for text in texts), texts
    right = X["relu1"] + X["conv1"]
    texts = [c.text for c in explain("sum", noisy(X["conv1"], 9), noisy(right), context)]
    assert any("the residual is not added" in text for text in texts), texts


def test_places_have_the_names_of_their_axes():
    found = X["conv2"].copy()
    found[:, 2] += 1
    assert any("1 of 6 in channel: 2" in text for text in said("conv2", found))
