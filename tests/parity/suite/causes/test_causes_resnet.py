"""Known mistakes in residual networks are recognised, and named by their own table.

The faults are computed here with NumPy, on the first block of a small network.
"""

from dataclasses import replace

import numpy as np
import pytest
from reference import convolution, pad, relative, windows

from parity.suite.causes import explain
from parity.suite.causes.context import Context
from transfg_core.config.resnet import ResNetConfig
from transfg_core.models.layout import architecture, param_shapes, taps_of
from transfg_core.models.rows import TapSpec

NOISE = 3e-7
MODEL = ResNetConfig(classes=4, width=5, blocks=(1,))
RNG = np.random.default_rng(3)
PARAMS = {
    name: 0.1 * RNG.standard_normal(shape) for name, shape in param_shapes(MODEL, (26, 22)).items()
}
for name, value in PARAMS.items():
    if name.endswith("var") or ("bn" in name and name.endswith("weight")):
        value += RNG.uniform(0.5, 2, value.shape)
    elif name.endswith("bias"):  # so that ReLU and borders change much
        value -= RNG.uniform(0, 3, value.shape)
IMAGES = RNG.standard_normal((3, 3, 26, 22))


def conv(x, name, stride=1, padding=1):
    """A convolution without bias."""
    return convolution(x, PARAMS[f"{name}.weight"], None, (stride,) * 2, (padding,) * 2)


def norm(x, name, statistics=None, eps=1e-5, weight=True, bias=True, ddof=0):
    """Batch norm by the batch, or by (mean, variance)."""
    axes, across = (0, *range(2, x.ndim)), (slice(None), *[None] * (x.ndim - 2))
    mean, var = statistics or (x.mean(axes), x.var(axes, ddof=ddof))
    y = (x - mean[across]) / np.sqrt(var[across] + eps)
    y = y * PARAMS[f"{name}.weight"][across] if weight else y
    return y + PARAMS[f"{name}.bias"][across] if bias else y


def running(name):
    return PARAMS[f"{name}.running_mean"], PARAMS[f"{name}.running_var"]


def pool(x, padding=1, outside=-np.inf, size=3, stride=2):
    """A max pool, window by window."""
    places = windows(x, (size, size), (stride, stride), (padding, padding))
    padded, (rows, columns) = pad(x, (padding, padding), outside), places[-1][0]
    out = np.zeros((*x.shape[:2], rows + 1, columns + 1))
    for (i, j), window in places:
        out[:, :, i, j] = padded[window].max((2, 3))
    return out


def passed(by_batch):
    """The activations of the stem and the first block."""

    def normal(x, name):
        return norm(x, name, None if by_batch else running(name))

    t = {"images": IMAGES, "conv1": conv(IMAGES, "conv1", 2, 3)}
    t["bn1"] = normal(t["conv1"], "bn1")
    t["relu1"] = np.maximum(t["bn1"], 0)
    t["pool1"] = pool(t["bn1"])  # not of ReLU's result, so that a border of zeros shows
    t["block00.conv1"] = conv(t["pool1"], "layer1.0.conv1")
    t["block00.bn1"] = normal(t["block00.conv1"], "layer1.0.bn1")
    t["block00.relu1"] = np.maximum(t["block00.bn1"], 0)
    t["block00.conv2"] = conv(t["block00.relu1"], "layer1.0.conv2")
    t["block00.bn2"] = normal(t["block00.conv2"], "layer1.0.bn2")
    t["block00"] = np.maximum(t["block00.bn2"] + t["pool1"], 0)
    return t


def noisy(value, seed=0):
    error = NOISE * np.random.default_rng(seed).standard_normal(value.shape)
    return (value * (1 + error)).astype(np.float32)


def context(by_batch):
    """What is known of A: the table says that the pool reads the batch norm, as `passed` does."""
    table = taps_of(MODEL)
    table = table | {"pool1": table["pool1"]._replace(reads=("bn1",))}
    taps = {name: noisy(value, seed) for seed, (name, value) in enumerate(passed(by_batch).items())}
    return Context(taps, PARAMS, table, architecture(MODEL).AXES, classes=4)


CONTEXT, X = context(True), passed(True)
C1, POOLED, BRANCH = X["conv1"], X["pool1"], X["block00.bn2"]
STEP = 0.1 * (X["conv1"].mean((0, 2, 3)) - running("bn1")[0])
VAR_STEP = 0.1 * (X["conv1"].var((0, 2, 3), ddof=1) - running("bn1")[1])
BIASED_STEP = 0.1 * (X["conv1"].var((0, 2, 3)) - running("bn1")[1])
FAULTS = [
    ("bn1", "the running statistics instead of the batch's", norm(C1, "bn1", running("bn1"))),
    ("bn1", "eps 0.001 instead of 1e-05", norm(C1, "bn1", eps=1e-3)),
    ("bn1", "unbiased variance", norm(C1, "bn1", ddof=1)),
    ("bn1", "bias is not applied", norm(C1, "bn1", bias=False)),
    ("bn1", "weight is not applied", norm(C1, "bn1", weight=False)),
    ("bn1", "left out", C1),
    ("pool1", "border of the max pool is zero", pool(X["bn1"], outside=0.0)),
    ("pool1", "no border", pool(X["bn1"], padding=0)),
    ("pool1", "2 x 2", pool(X["bn1"], padding=0, size=2)),
    ("block00.conv1", "padding 0 instead of 1", conv(POOLED, "layer1.0.conv1", padding=0)),
    ("block00.conv1", "stride 2 instead of 1", conv(POOLED, "layer1.0.conv1", stride=2)),
    ("block00", "before the addition", np.maximum(BRANCH, 0) + POOLED),
    ("block00", "ReLU after the addition is left out", BRANCH + POOLED),
    ("block00", "shortcut is not added", np.maximum(BRANCH, 0)),
    ("step/bn1.running_mean", "share 0.9 instead of 0.1", 9 * STEP),
    ("step/bn1.running_mean", "does not move", 0 * STEP),
    ("step/bn1.running_mean", "counts twice", 1.9 * STEP),
    ("step/bn1.running_var", "biased variance", BIASED_STEP),
]  # fmt: skip


def said(tap, found, known=CONTEXT):
    steps = {"step/bn1.running_mean": STEP, "step/bn1.running_var": VAR_STEP}
    expected = noisy(steps[tap], 98) if tap in steps else known.taps[tap]
    return [cause.text for cause in explain(tap, noisy(found, 99), expected, known)]


@pytest.mark.parametrize(("tap", "words", "found"), FAULTS)
def test_mistakes_are_named(tap, words, found):
    texts = said(tap, found)
    assert texts and any(words in text for text in texts[:2]), texts


@pytest.mark.parametrize("tap", [tap for tap in X if tap != "images"])
def test_silence_on_noise(tap):
    assert said(tap, X[tap]) == []


def test_running_statistics_are_told_from_the_batchs():
    known, taps = context(False), passed(False)
    found = norm(taps["conv1"], "bn1")
    texts = said("bn1", found, known)
    assert any("the batch's statistics instead of the running" in text for text in texts), texts
    assert said("bn1", taps["bn1"], known) == []


def test_batch_norm_of_rows():
    """(B, F), as behind a linear layer."""
    x = X["conv1"].reshape(-1, 5)[:40]
    table = {
        "rows": TapSpec("B F", "linear"),
        "norm": CONTEXT.made_by["bn1"]._replace(reads=("rows",)),
    }
    right = norm(x, "bn1")
    known = replace(CONTEXT, taps={"rows": noisy(x), "norm": noisy(right, 1)}, made_by=table)
    assert said("norm", right, known) == []
    texts = said("norm", norm(x, "bn1", ddof=1), known)
    assert any("unbiased variance" in text for text in texts[:2]), texts
    step = 0.1 * (x.mean(0) - running("bn1")[0])
    tap = "step/bn1.running_mean"
    causes = explain(tap, noisy(9 * step, 99), noisy(step, 98), known)
    assert any("share 0.9 instead of 0.1" in cause.text for cause in causes[:2]), causes


def test_a_wrong_first_implementation_is_seen():
    """A is wrong, B right: the definition gives B."""
    wrong = replace(CONTEXT, taps=CONTEXT.taps | {"block00": noisy(BRANCH + POOLED)})
    texts = said("block00", X["block00"], wrong)
    assert any("as defined, gives B" in text for text in texts), texts
    assert relative(X["block00"], BRANCH + POOLED) > 0.1
