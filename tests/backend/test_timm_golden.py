"""Every size of the Vision Transformer and every hybrid against timm's golden values.

`tools/timm_golden.py` writes them. In float64 PyTorch's twin gives timm's numbers to rounding; a
process of Jittor has one precision, and the suite compares its float64 with PyTorch's. In float32
an input of ReLU may be on the other side of zero, which changes a gradient of a hybrid by more than
rounding; so gradients of hybrids are compared in float64 alone.
"""

import numpy as np
import pytest
from reference import relative
from timm_cases import MODELS, batch_of, config_of, fingerprints, golden, params_of

from transfg_core.backend import load_backend

GOLDEN = golden()


def traced(twin, name, precision):
    backend = load_backend(twin.name, config_of(name, precision))
    backend.load_params(params_of(name))
    trace = backend.trace(batch_of(name))
    prefix = "grad/"
    grads = {n.removeprefix(prefix): v for n, v in trace.items() if n.startswith(prefix)}
    return trace, fingerprints(grads)


def worst_gradient(found, expected):
    """The largest difference of a part's product with random numbers, over the gradient's norm."""
    assert found.keys() == expected.keys()
    return max(abs(found[part][1] - product) / norm for part, (norm, product) in expected.items())


@pytest.mark.only("torch")
@pytest.mark.parametrize("name", MODELS)
def test_float64(twin, name):
    trace, found = traced(twin, name, "float64")
    assert relative(trace["logits"], np.array(GOLDEN[name]["logits"])) < 1e-11
    assert trace["loss"] == pytest.approx(GOLDEN[name]["loss"], rel=1e-11)
    assert worst_gradient(found, GOLDEN[name]["gradients"]) < 1e-9


@pytest.mark.parametrize("name", MODELS)
def test_float32(twin, name):
    trace, found = traced(twin, name, "float32")
    assert relative(trace["logits"], np.array(GOLDEN[name]["logits"])) < 1e-5
    if MODELS[name].stem == "none":
        assert worst_gradient(found, GOLDEN[name]["gradients"]) < 1e-4
