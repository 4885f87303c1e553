"""Jittor's operators let go of what they keep once their gradient was asked for."""

import weakref

import numpy as np
import pytest
from jittor_allocator import held_bytes

from parity.cases.case import Case
from transfg_core.backend import load_backend

pytestmark = pytest.mark.only("jittor")


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_update_leaves_nothing_with_them(twin, precision, checkpointing, monkeypatch):
    """The backward pass is asked for, and has not run."""
    case = Case("kept", model={"depth": 4, "stride": 6, "dropout": 0.3})
    config = case.config(precision)
    run = config.run.model_copy(update={"grad_checkpointing": checkpointing})
    backend = load_backend(twin.name, config.model_copy(update={"run": run}))
    backend.load_params(case.params())
    jt, module, seen = twin.framework, twin.module("backend"), {}
    call, clip = jt.Function.__call__, module.clip_gradients
    made = weakref.WeakSet()
    monkeypatch.setattr(
        jt.Function, "__call__", lambda self, *args: made.add(self) or call(self, *args)
    )

    def look(*args):
        seen.update((type(each).__name__, vars(each)) for each in made)
        return clip(*args)

    monkeypatch.setattr(module, "clip_gradients", look)
    backend.fetch(backend.train_step(case.batches()[:1], 0.01))
    assert {"FusedNorm", "FusedAttention", "Gelu"} <= set(seen)  # they live until all has run
    assert ("Recomputed" in seen) == checkpointing
    assert ("LowLinear" in seen) == (precision == "bfloat16")
    assert checkpointing or ("LeanLinear" in seen) == (precision == "float32")
    jittors_own, ours = {"input_mask", "output_mask"}, {"kept", "once", "run", "block", "low"}
    for name, attributes in seen.items():
        assert set(attributes) <= jittors_own | ours, name
        assert attributes.get("kept") is None, name


def test_a_gradient_asked_for_again(twin):
    jt, exact, function = twin.framework, twin.module("ops.exact"), twin.module("ops.custom_grad")
    x = jt.array(np.linspace(-2, 2, 9, dtype=np.float32))
    y = exact.gelu(x)
    first, second = (jt.grad(y.sum(), x).numpy() for _ in range(2))
    assert np.array_equal(first, second)
    with function.scope(function.ONCE, True):
        y = exact.gelu(x)
    assert np.array_equal(jt.grad(y.sum(), x).numpy(), first)
    with pytest.raises(RuntimeError, match="Gelu: what it kept for its gradient is gone"):
        jt.grad(y.sum(), x)


NORMS = """
from transfg_jt.ops.custom_grad import ONCE, scope
from transfg_jt.ops.layer_norm import layer_norm
x, weight, bias = jt.random([1024, 1024]), jt.ones(1024), jt.zeros(1024)
jt.sync([x, weight, bias])
y = x
with scope(ONCE, switch):
    for _ in range(12):
        y = layer_norm(y, weight, bias, 1e-6)
grad = jt.grad(y.sum(), x, retain_graph=False)
del y
jt.sync([grad + number for number in range(12)])
"""


def test_its_memory_is_free_for_what_comes_after(twin):
    """Twelve arrays of 4 MB for the gradient, and twelve after it."""
    assert held_bytes(NORMS, False) - held_bytes(NORMS, True) > 8 * 1024 * 1024 * 4
