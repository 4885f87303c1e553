"""Attention and its gradients against float64 NumPy with full maps.

Bound on the relative L2 error: 2e-6. Float32 sums of up to 131 products are exact to a few 1e-7,
and Jittor's exponential is three times less exact.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import reference

from transfg_core.machine import forget_peak_rss, peak_rss

BOUND = 2e-6

# batch, tokens, width, heads: no size is a multiple of a vector length; one head; more (image,
# head) pairs than threads
SHAPES = [(2, 7, 15, 3), (1, 5, 8, 1), (2, 131, 132, 12)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def draw(shape: tuple[int, ...], count: int) -> list[np.ndarray]:
    """Arrays (B, T, D) whose attention is neither uniform nor on one token."""
    rng = np.random.default_rng(shape)
    return [2 * rng.standard_normal(shape[:3]).astype(np.float32) for _ in range(count)]


@shapes
def test_attention(twin, shape):
    q, k, v = draw(shape, 3)
    (out,) = twin.run(lambda *x: twin.module("attention").attention(*x, shape[3]), q, k, v)
    wide = [x.astype(np.float64) for x in (q, k, v)]
    assert reference.relative(out, reference.attention(*wide, shape[3])) < BOUND


@shapes
def test_attention_gradients(twin, shape):
    q, k, v, g = draw(shape, 4)
    weight = twin.tensor(g)
    found = twin.gradients(
        lambda *x: (twin.module("attention").attention(*x, shape[3]) * weight).sum(), [q, k, v]
    )
    wide = [x.astype(np.float64) for x in (q, k, v)]
    expected = reference.attention_gradients(*wide, shape[3], g.astype(np.float64))
    for name, a, b in zip("qkv", found, expected, strict=True):
        assert reference.relative(a, b) < BOUND, name


@shapes
def test_row_times_map(twin, shape):
    q, k = draw(shape, 2)
    batch, tokens, _, heads = shape
    row = np.random.default_rng(1).random((batch, heads, tokens)).astype(np.float32)
    (out,) = twin.run(lambda *x: twin.module("attention").propagate(*x, heads), row, q, k)
    maps = reference.attention_maps(q.astype(np.float64), k.astype(np.float64), heads)
    assert reference.relative(out, np.einsum("bki,bkij->bkj", row, maps)) < BOUND


@pytest.mark.gpu
@pytest.mark.only("torch")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_row_times_map_on_a_device(twin, dtype):
    torch, module = twin.framework, twin.module("attention")
    assert module.row_kernel(getattr(torch, dtype), 64) is not None
    q, k = (twin.tensor(x).to(getattr(torch, dtype)) for x in draw((2, 785, 768, 12), 2))
    row = torch.rand(2, 12, 785).softmax(-1)
    found = module.propagate(row, q, k, 12)
    expected = module.propagate(row.double(), q.double(), k.double(), 12)
    assert (found - expected).norm() / expected.norm() < BOUND


@pytest.mark.gpu
@pytest.mark.only("jittor")
@pytest.mark.parametrize("dtype, bound", [("float32", BOUND), ("bfloat16", 2.0**-8)])
def test_operators_on_a_device(twin, dtype, bound):
    """At the size of B/16, where the scratch memory holds the maps of only some heads."""
    module, cast = twin.module("attention"), twin.module("ops.bfloat16").round_to_bfloat16
    q, k, v, g = (twin.tensor(x) for x in draw((2, 785, 768, 12), 4))
    if dtype == "bfloat16":
        q, k, v, g = map(cast, (q, k, v, g))
    assert twin.module("ops.cuda").supports_attention(q, 12)
    wide = [x.float32().numpy().astype(np.float64) for x in (q, k, v, g)]
    out = module.attention(q, k, v, 12)
    grads = twin.framework.grad((out.float32() * g.float32()).sum(), [q, k, v])
    assert reference.relative(out.float32().numpy(), reference.attention(*wide[:3], 12)) < bound
    expected = reference.attention_gradients(*wide[:3], 12, wide[3])
    for name, a, b in zip("qkv", grads, expected, strict=True):
        assert reference.relative(a.float32().numpy(), b) < bound, name
    row = np.random.default_rng(1).random((2, 12, 785)).astype(np.float32)
    found = module.propagate(twin.tensor(row), q, k, 12).numpy()
    maps = reference.attention_maps(*wide[:2], 12)
    assert reference.relative(found, np.einsum("bki,bkij->bkj", row, maps)) < BOUND


@shapes
def test_scores_of_the_class_token(twin, shape):
    q, k = draw(shape, 2)
    (scores,) = twin.run(lambda *x: twin.module("attention").cls_scores(*x, shape[3]), q, k)
    maps = reference.attention_maps(q.astype(np.float64), k.astype(np.float64), shape[3])
    assert reference.relative(reference.softmax(scores.astype(np.float64)), maps[:, :, 0]) < BOUND


def test_large_scores_do_not_overflow(twin):
    q, k, v = (100 * x for x in draw((1, 5, 8, 1), 3))
    (out,) = twin.run(lambda *x: twin.module("attention").attention(*x, 1), q, k, v)
    assert np.isfinite(out).all()


@pytest.mark.only("torch")
def test_no_map_is_saved(twin):
    # heads of 12: on CUDA, PyTorch stores the maps of heads that are no multiple of 16 bytes
    q, k, v = (twin.tensor(x).requires_grad_() for x in draw((2, 131, 144, 12), 3))
    sizes = []
    with twin.framework.autograd.graph.saved_tensors_hooks(
        lambda x: sizes.append(x.numel()) or x, lambda x: x
    ):
        twin.module("attention").attention(q, k, v, 12)
    assert sizes and max(sizes) <= q.numel()  # one map of all heads has twelve times as many


@pytest.mark.only("jittor")
def test_no_map_stays_after_the_forward_pass(twin):
    """Resident memory grows by less than eight maps of 9 MB; a thread's buffer may stay."""
    jt = twin.framework
    q, k, v = (twin.tensor(x) for x in draw((1, 1500, 16, 8), 3))
    jt.sync([q, k, v], True)
    before = resident_bytes()
    out = twin.module("attention").attention(q, k, v, 8)
    jt.sync([out], True)
    assert resident_bytes() - before < 4 * 1500**2 * 4


@pytest.fixture
def plain(twin, monkeypatch):
    """Use Jittor's plain formulas for float64, here in float32."""
    monkeypatch.setattr(twin.module("attention"), "on_cpu", lambda x: False)
    monkeypatch.setattr(twin.module("ops.cuda"), "supports_attention", lambda *x: False)


@pytest.mark.only("jittor")
def test_plain_formulas(twin, plain):
    shape = SHAPES[0]
    test_attention(twin, shape)
    test_attention_gradients(twin, shape)
    test_row_times_map(twin, shape)


@pytest.mark.only("jittor")
def test_plain_formulas_form_the_maps_of_one_layer_at_a_time(twin, plain):
    """Peak memory of twelve layers: one map, its gradient, and temporary arrays of that size."""
    jt, shape = twin.framework, (1, 1000, 16, 4)
    q, k, v = (twin.tensor(x) for x in draw(shape, 3))
    width = q.shape[-1]
    weight = twin.tensor(np.eye(width, dtype=np.float32))

    def run():
        x = q
        for _ in range(12):
            x = twin.module("attention").attention(x @ weight, k, v, shape[3])
        jt.sync(jt.grad(x.sum(), [q, k, v, weight]), True)

    run()  # allocations that happen once
    jt.gc()
    forget_peak_rss()
    before = peak_rss()
    run()
    assert peak_rss() - before < 8 * shape[3] * shape[1] ** 2 * 4


def resident_bytes() -> int:
    """Resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
