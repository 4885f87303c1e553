"""Convolutions of both twins against NumPy: passes and gradients, by kernel, stride and padding."""

import numpy as np
import pytest
from reference import convolution, convolution_gradients, relative

# kernel, stride, padding: those of ResNets, an overlapping one without padding, a 1-D one, and one
# that differs in every number of its two axes
CONVOLUTIONS = {
    "3x3": (3, 1, 1),
    "3x3 by 2": (3, 2, 1),
    "1x1": (1, 1, 0),
    "1x1 by 2": (1, 2, 0),
    "root": (7, 2, 3),
    "patches": (4, 3, 0),
    "sequence": ((3, 1), 1, (1, 0)),
    "oblong": ((2, 3), (3, 2), (1, 2)),
}
SHAPE = (2, 3, 9, 11)  # strides leave rows and columns over
FEATURES = 5


def layer_and_arrays(twin, name, bias):
    """A layer; float32 arrays for input, weight and bias; (stride, padding)."""
    kernel, stride, padding = CONVOLUTIONS[name]
    module = twin.framework.nn if twin.name == "torch" else twin.module("ops.convolution")
    layer = module.Conv2d(SHAPE[1], FEATURES, kernel, stride, padding, bias=bias)
    rng = np.random.default_rng(5)
    x = rng.standard_normal(SHAPE).astype("f4")
    weight = rng.standard_normal(tuple(layer.weight.shape)).astype("f4")
    offset = rng.standard_normal(FEATURES).astype("f4") if bias else None
    stride, padding = (v if isinstance(v, tuple) else (v, v) for v in (stride, padding))
    return layer, (x, weight, offset), (stride, padding)


def forward(layer, x, weight, bias=None):
    """The layer's result with these values in place of its parameters."""
    values = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    for name, value in values.items():
        if name in getattr(layer, "_parameters", ()):  # PyTorch's setattr refuses a tensor
            del layer._parameters[name]
        setattr(layer, name, value)
    return layer(x)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_equals_numpy(twin, name, bias):
    layer, arrays, how = layer_and_arrays(twin, name, bias)
    inputs = [array for array in arrays if array is not None]
    (found,) = twin.run(lambda *tensors: forward(layer, *tensors), *inputs)
    wide = [None if array is None else array.astype("f8") for array in arrays]
    true = convolution(*wide, *how)
    assert relative(found, true) < 1e-6
    grad = np.random.default_rng(6).standard_normal(true.shape).astype("f4")
    factor = twin.tensor(grad)
    gradients = twin.gradients(lambda *t: (forward(layer, *t) * factor).sum(), inputs)
    expected = convolution_gradients(*wide[:2], grad.astype("f8"), *how)
    for value, right in zip(
        gradients, expected, strict=False
    ):  # without the bias's, if there is none
        assert relative(value, right) < 1e-6


@pytest.mark.only("jittor")
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_unfolded_patches_give_the_same(twin, name):
    """What runs in float64 and on CUDA."""
    layer, (x, weight, bias), (stride, padding) = layer_and_arrays(twin, name, True)
    module = twin.module("ops.convolution")
    true = convolution(x.astype("f8"), weight.astype("f8"), bias, stride, padding)

    def tokens(x, weight, bias):
        return module.conv2d_tokens(x, weight, bias, stride, padding)

    (found,) = twin.run(tokens, x, weight, bias)
    flat = true.reshape(*true.shape[:2], -1).transpose(0, 2, 1)
    assert relative(found, flat) < 1e-6
    grad = np.random.default_rng(6).standard_normal(flat.shape).astype("f4")
    factor = twin.tensor(grad)
    gradients = twin.gradients(lambda *t: (tokens(*t) * factor).sum(), [x, weight, bias])
    grad = grad.transpose(0, 2, 1).reshape(true.shape).astype("f8")
    expected = convolution_gradients(x.astype("f8"), weight.astype("f8"), grad, stride, padding)
    for value, right in zip(gradients, expected, strict=True):
        assert relative(value, right) < 1e-6


@pytest.mark.only("jittor")
@pytest.mark.parametrize("bias", [False, True])
def test_bfloat16_rounds_factors_and_results(twin, bias):
    layer, arrays, how = layer_and_arrays(twin, "3x3", bias)
    inputs = [array for array in arrays if array is not None]
    bfloat16 = twin.module("ops.bfloat16")

    def run(x, *params):
        with bfloat16.autocast(True):
            return bfloat16.to_float32(forward(layer, bfloat16.cast_once(x), *params))

    def rounded(array):
        return twin.array(bfloat16.round_to_bfloat16(twin.tensor(array)).float32())

    def same(found, exact):
        assert np.array_equal(found, rounded(found))
        assert (found == rounded(exact.astype("f4"))).mean() > 0.98

    (found,) = twin.run(run, *inputs)
    wide = [None if array is None else rounded(array).astype("f8") for array in arrays]
    same(found, convolution(*wide, *how))
    grad = rounded(np.random.default_rng(6).standard_normal(found.shape).astype("f4"))
    factor = twin.tensor(grad)
    gradients = twin.gradients(lambda *t: (run(*t) * factor).sum(), inputs)
    expected = convolution_gradients(*wide[:2], grad.astype("f8"), *how)
    for value, right in zip(gradients, expected[: len(inputs)], strict=True):
        same(value, right)


@pytest.mark.only("jittor")
def test_bfloat16_on_the_cpu_unfolds_nothing(twin, monkeypatch):
    """Patches would take nine times the memory of the input."""
    if twin.has_cuda():
        pytest.skip("CUDA has the plain formulas")
    bfloat16, maps = twin.module("ops.bfloat16"), twin.module("ops.feature_maps")
    convolution = twin.module("ops.convolution")
    monkeypatch.delattr(convolution, "unfold")
    monkeypatch.delattr(twin.framework, "arg_reduce")
    layer, (x, *_), _ = layer_and_arrays(twin, "3x3", False)

    def run(x):
        y = maps.max_pool2d(layer(bfloat16.cast_once(x)), 3, 2, 1)
        return bfloat16.to_float32(y).sum()

    with bfloat16.autocast(True):
        (slope,) = twin.gradients(run, [x])
    assert np.isfinite(slope).all() and slope.any()


@pytest.mark.only("jittor")
def test_a_gradient_that_nobody_reads_is_not_computed(twin):
    """The images of a training step need no gradient, and it is as expensive as a forward pass."""
    jt = twin.framework
    layer = twin.module("ops.convolution").Conv2d(3, 4, 3, 1, 1, bias=False)
    x = jt.random((1, 3, 8, 8))
    with jt.profile_scope() as report:
        y = layer(x)
        jt.sync([y, jt.grad(y.sum(), layer.weight)])
    sources = [row[0] for row in report if row[0].startswith("code")]
    assert [("DIFF_SRC" in row, "DIFF_WEIGHTS" in row) for row in sources] in (
        [(False, False), (False, True)],
        [(False, True), (False, False)],
    )
