"""The custom-gradient operators of the Jittor twin free saved tensors in the backward pass."""

import weakref

import numpy as np
import pytest
from jittor_allocator import held_bytes

from parity.cases.case import Case
from transfg_core.backend import load_backend

pytestmark = pytest.mark.only("jittor")


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_update_frees_all_saved_tensors(twin, precision, checkpointing, monkeypatch):
    """Looks when the backward pass is built, but has not run."""
    case = Case("saved", model={"depth": 4, "stride": 6, "dropout": 0.3})
    config = case.config(precision)
    run = config.run.model_copy(update={"grad_checkpointing": checkpointing})
    backend = load_backend(twin.name, config.model_copy(update={"run": run}))
    backend.load_params(case.params())
    jt, module, attributes = twin.framework, twin.module("backend"), {}
    call, clip = jt.Function.__call__, module.clip_gradients
    operators = weakref.WeakSet()
    monkeypatch.setattr(
        jt.Function, "__call__", lambda self, *args: operators.add(self) or call(self, *args)
    )

    def record(*args):
        attributes.update((type(each).__name__, vars(each)) for each in operators)
        return clip(*args)

    monkeypatch.setattr(module, "clip_gradients", record)
    backend.fetch(backend.train_step(case.batches()[:1], 0.01))
    # operators live until everything has run
    assert {"FusedNorm", "FusedAttention", "Gelu"} <= set(attributes)
    assert ("Recomputed" in attributes) == checkpointing
    assert ("Bfloat16Linear" in attributes) == (precision == "bfloat16")
    assert checkpointing or ("RecomputingLinear" in attributes) == (precision == "float32")
    of_jittor = {"input_mask", "output_mask"}
    of_twin = {"saved", "free_saved", "run", "block", "bfloat16", "has_bias"}
    for name, values in attributes.items():
        assert set(values) <= of_jittor | of_twin, name
        assert values.get("saved") is None, name


def test_a_second_gradient(twin):
    jt, exact, function = twin.framework, twin.module("ops.exact"), twin.module("ops.custom_grad")
    x = jt.array(np.linspace(-2, 2, 9, dtype=np.float32))
    y = exact.gelu(x)
    first, second = (jt.grad(y.sum(), x).numpy() for _ in range(2))
    assert np.array_equal(first, second)
    with function.override(function.FREE_SAVED, True):
        y = exact.gelu(x)
    assert np.array_equal(jt.grad(y.sum(), x).numpy(), first)
    with pytest.raises(RuntimeError, match="Gelu: saved tensors were already freed"):
        jt.grad(y.sum(), x)


NORMS = """
from transfg_jt.ops.custom_grad import FREE_SAVED, override
from transfg_jt.ops.layer_norm import layer_norm
x, weight, bias = jt.random([1024, 1024]), jt.ones(1024), jt.zeros(1024)
jt.sync([x, weight, bias])
y = x
with override(FREE_SAVED, switch):
    for _ in range(12):
        y = layer_norm(y, weight, bias, 1e-6)
grad = jt.grad(y.sum(), x, retain_graph=False)
del y
jt.sync([grad + number for number in range(12)])
"""


def test_freed_memory_is_used_again(twin):
    """Twelve saved arrays of 4 MB, and twelve arrays after the gradient."""
    assert held_bytes(NORMS, False) - held_bytes(NORMS, True) > 8 * 1024 * 1024 * 4
