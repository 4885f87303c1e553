"""Batch normalisation against NumPy: passes, gradients and running statistics."""

import numpy as np
import pytest
from reference import relative

SHAPE = (5, 4, 3, 7)


@pytest.fixture
def arrays():
    """Channels far from zero, so that E[x²] - E[x]² would cancel."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal(SHAPE) * 0.1 + np.array([100, -30, 0, 7])[:, None, None]
    return {
        "x": x.astype("f4"),
        "weight": rng.uniform(0.5, 2, 4).astype("f4"),
        "bias": rng.standard_normal(4).astype("f4"),
        "running_mean": rng.standard_normal(4).astype("f4"),
        "running_var": rng.uniform(0.5, 2, 4).astype("f4"),
        "grad": rng.standard_normal(SHAPE).astype("f4"),
    }


def replace(norm, weight, bias):
    """Other tensors in place of the module's parameters."""
    for name, value in (("weight", weight), ("bias", bias)):
        if name in getattr(norm, "_parameters", ()):  # PyTorch's setattr refuses a tensor
            del norm._parameters[name]
        setattr(norm, name, value)


def expected(arrays, by_batch):
    """The result, and the gradients of input, weight and bias; Ioffe and Szegedy 2015."""
    a = {name: value.astype("f8") for name, value in arrays.items()}
    axes, across = (0, 2, 3), (slice(None), None, None)
    mean = a["x"].mean(axes) if by_batch else a["running_mean"]
    var = a["x"].var(axes) if by_batch else a["running_var"]
    scale = 1 / np.sqrt(var + 1e-5)
    y = (a["x"] - mean[across]) * scale[across]
    h = a["grad"] * a["weight"][across]
    if by_batch:
        h = h - h.mean(axes)[across] - y * (h * y).mean(axes)[across]
    out = y * a["weight"][across] + a["bias"][across]
    return out, h * scale[across], (a["grad"] * y).sum(axes), a["grad"].sum(axes)


@pytest.mark.parametrize("mode", ["training", "evaluation", "fixed"])
def test_equals_numpy(twin, arrays, mode):
    norm, inputs = twin.module("models.batch_norm").BatchNorm(4), ("x", "weight", "bias")
    norm.running_mean = twin.tensor(arrays["running_mean"].copy())
    norm.running_var = twin.tensor(arrays["running_var"].copy())
    norm.fixed = mode == "fixed"
    if mode != "evaluation":
        norm.train()
    else:
        norm.eval()

    def run(x, weight, bias):
        replace(norm, weight, bias)
        return norm(x)

    results = twin.run(run, *(arrays[name] for name in inputs))
    norm.running_mean = twin.tensor(arrays["running_mean"].copy())
    norm.running_var = twin.tensor(arrays["running_var"].copy())
    grad = twin.tensor(arrays["grad"])

    def weighted(*tensors):
        return (run(*tensors) * grad).sum()

    results += tuple(twin.gradients(weighted, [arrays[name] for name in inputs]))
    for found, true in zip(results, expected(arrays, mode == "training"), strict=True):
        assert relative(found, true) < 3e-5
    for name, moment in (("running_mean", np.mean), ("running_var", np.var)):
        true = arrays[name].astype("f8")
        if mode == "training":
            count = arrays["x"].size // 4
            value = moment(arrays["x"].astype("f8"), (0, 2, 3))
            value *= count / (count - 1) if moment is np.var else 1
            true = 0.9 * true + 0.1 * value
        assert relative(twin.array(getattr(norm, name)), true) < 1e-6, name
