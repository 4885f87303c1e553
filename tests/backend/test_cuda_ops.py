"""Jittor's whole CUDA operators, with their sizes and scratch memory, run on the host.

tests/jt/test_kernels.py tests the kernels; tests/cuda describes how the host emulates a device.
"""

import numpy as np
import pytest
import reference
from emulated import Emulator

from parity.cases.case import BY_NAME
from transfg_core.backend import load_backend

pytestmark = pytest.mark.only("jittor")
BOUND = {"float32": 2e-6, "bfloat16": 4e-3}  # as in tests/jt/test_kernels.py
types = pytest.mark.parametrize("kind", BOUND)
SHAPE, HEADS = (2, 9, 24), 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def emulator(twin, monkeypatch, folder):
    """Make the twin use its CUDA operators, on the host."""
    ops = twin.module("ops.cuda")
    emulator = Emulator(twin.framework, ops.HEADER, folder)
    monkeypatch.setattr(ops, "run_cuda", emulator)
    monkeypatch.setattr(ops, "supports_attention", lambda q, heads: True)
    monkeypatch.setattr(ops, "supports_norm", lambda x: True)
    monkeypatch.setattr(ops, "supports_products", lambda z: z.dtype == "float64")
    monkeypatch.setattr(twin.module("ops.cpu"), "on_cpu", lambda x: False)
    # two of the six maps of SHAPE at a time; their rows of 9 are padded to 16
    monkeypatch.setattr(ops, "MAPS_BYTES", 2 * SHAPE[1] * 16 * 4)
    return emulator


def draw(twin, kind, count):
    """Random tensors of the twin, and their values in float64."""
    rng = np.random.default_rng(4)
    tensors = [twin.tensor(rng.standard_normal(SHAPE).astype(np.float32)) for _ in range(count)]
    if kind == "bfloat16":
        tensors = [twin.module("ops.bfloat16").round_to_bfloat16(x) for x in tensors]
    return tensors, [x.float32().numpy().astype(np.float64) for x in tensors]


@types
def test_attention_and_its_gradients(twin, emulator, kind):
    tensors, (q, k, v, g) = draw(twin, kind, 4)
    module = twin.module("attention")
    out = module.attention(*tensors[:3], HEADS)
    assert str(out.dtype) == kind
    expected = reference.attention(q, k, v, HEADS)
    assert reference.relative(out.float32().numpy(), expected) < BOUND[kind]
    total = (out.float32() * tensors[3].float32()).sum()
    found = twin.framework.grad(total, tensors[:3])
    for a, b in zip(found, reference.attention_gradients(q, k, v, HEADS, g), strict=True):
        assert reference.relative(a.float32().numpy(), b) < BOUND[kind]
    assert len(emulator.ran) == 2


@types
def test_row_times_map(twin, emulator, kind):
    tensors, (q, k) = draw(twin, kind, 2)
    row = np.random.default_rng(5).random((SHAPE[0], HEADS, SHAPE[1])).astype(np.float32)
    found = twin.module("attention").propagate(twin.tensor(row), *tensors, HEADS).numpy()
    maps = reference.attention_maps(q, k, HEADS)
    expected = np.einsum("bki,bkij->bkj", row, maps)
    assert reference.relative(found, expected) < BOUND["float32"]
    assert len(emulator.ran) == 1


def test_layer_norm_and_its_gradients(twin, emulator, monkeypatch):
    monkeypatch.setattr(twin.module("ops.cuda"), "NORM_BLOCKS", 4)  # of 18 rows
    (x, g), (wide, factor) = draw(twin, "float32", 2)
    rng = np.random.default_rng(6)
    weight, bias = (rng.standard_normal(SHAPE[2]).astype(np.float32) for _ in range(2))
    norm = twin.module("ops.layer_norm").layer_norm
    y = norm(x, twin.tensor(weight), twin.tensor(bias), 1e-6).numpy()
    assert reference.relative(y, reference.layer_norm(wide, weight, bias)) < 2e-6
    found = twin.gradients(lambda *a: (norm(*a, 1e-6) * g).sum(), [x.numpy(), weight, bias])
    deviation = np.sqrt(wide.var(-1, keepdims=True) + 1e-6)
    unit, h = (wide - wide.mean(-1, keepdims=True)) / deviation, factor * weight
    by_x = (h - h.mean(-1, keepdims=True) - unit * (h * unit).mean(-1, keepdims=True)) / deviation
    expected = by_x, (factor * unit).sum((0, 1)), factor.sum((0, 1))
    for a, b in zip(found, expected, strict=True):
        assert reference.relative(a, b) < 5e-6


def test_contrastive_loss_and_its_gradient(twin, emulator):
    """Its products are the only ones in float64, which cuBLAS refuses as Jittor asks for them."""
    rng = np.random.default_rng(7)
    features = rng.standard_normal((13, 24)).astype(np.float32)  # 169 pairs: two thread blocks
    labels = rng.integers(0, 4, 13)
    loss = twin.module("loss").contrastive
    targets = twin.framework.array(labels)
    wide = features.astype(np.float64)
    value = loss(twin.tensor(features), targets, 0.4).item()
    assert reference.relative(value, reference.contrastive(wide, labels, 0.4)) < 2e-7
    (found,) = twin.gradients(lambda x: loss(x, targets, 0.4), [features])
    assert len(emulator.ran) == 3  # forward twice, backward once
    step = 1e-6
    for i, j in [(0, 0), (5, 11), (12, 23)]:
        up, down = wide.copy(), wide.copy()
        up[i, j], down[i, j] = up[i, j] + step, down[i, j] - step
        slope = reference.contrastive(up, labels, 0.4) - reference.contrastive(down, labels, 0.4)
        assert abs(found[i, j] - slope / (2 * step)) < 1e-6 * np.abs(found).max() + 1e-9


def test_an_update_multiplies_nothing_in_float64(twin, emulator, monkeypatch):
    jt, products = twin.framework, []

    def watch(owner, word):
        original = getattr(owner, word)

        def product(a, b, *rest):
            products.append({str(a.dtype), str(b.dtype)})
            return original(a, b, *rest)

        monkeypatch.setattr(owner, word, product)

    for owner, word in [(jt.Var, "__matmul__"), (jt.Var, "matmul"), (jt.nn, "matmul")]:
        watch(owner, word)
    square = jt.ones((2, 2)).float64()
    assert (square @ square).numel() == 4 and products == [{"float64"}]  # products are seen
    products.clear()
    case = BY_NAME["overlap"]
    backend = load_backend("jittor", case.config())
    backend.load_params(case.params())
    backend.fetch(backend.train_step([case.batches()[0]], 0.01))
    assert not [kinds for kinds in products if "float64" in kinds]


def test_supported_inputs(twin, monkeypatch):
    """Types, lengths, and the alignment of heads that tensor cores need."""
    jt, ops = twin.framework, twin.module("ops.cuda")

    def supports(shape, heads, kind="float32", tensor_cores=0):
        flags = type("flags", (), {"use_cuda": 1, "use_tensorcore": tensor_cores})
        with monkeypatch.context() as patch:
            patch.setattr(ops.jt, "flags", flags)
            return ops.supports_attention(array(shape, kind), heads)

    def array(shape, kind):
        return type("Var", (), {"shape": shape, "dtype": kind})

    assert supports((1, 9, 15), 3) and not supports((1, 9, 15), 3, tensor_cores=1)
    assert supports((1, 9, 24), 3, "bfloat16") and not supports((1, 9, 12), 3, "bfloat16")
    assert not supports((1, 9, 24), 3, "float64") and not supports((1, 7000, 24), 3)
    assert not ops.supports_attention(jt.zeros((1, 9, 24)), 3) or jt.flags.use_cuda
