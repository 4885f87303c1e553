"""This project's CUDA kernels for Jittor, run on the host (tests/cuda).

On the host cuBLAS is a loop, and the threads of a block run in turn. So these tests show that the
numbers are right, but not how fast the kernels are. tests/backend tests the operators on a device.
Bounds: as in tests/backend/test_attention.py; for bfloat16 its rounding.
"""

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import reference
from emulated import unwritten

HERE = Path(__file__).parents[1]
ROUNDING = {"float32": 2e-6, "bfloat16": 4e-3}  # half a unit of bfloat16 is 2 ** -9
ARRAYS = {"forward": 6, "backward": 11, "propagate": 5}  # arrays with a table of pointers

# batch, tokens, width, heads, maps held at a time: one head; a last group that is not full; a row
# with more elements than a block has threads
SHAPES = [(1, 5, 8, 1, 1), (2, 7, 24, 3, 4), (1, 131, 16, 2, 1)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
types = pytest.mark.parametrize("kind", ["float32", "bfloat16"])


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    if shutil.which("g++") is None:
        pytest.skip("no g++ on PATH, which compiles the kernels for this test")
    out = tmp_path_factory.mktemp("kernels") / "kernels.so"
    include = [f"-I{HERE / 'cuda'}", f"-I{HERE.parent / 'transfg_jt' / 'ops'}"]
    flags = ["-O1", "-std=c++20", "-Wall", "-Werror", "-shared", "-fPIC"]
    subprocess.run(
        ["g++", *flags, *include, str(HERE / "cuda/kernels_on_cpu.cpp"), "-o", str(out)], check=True
    )
    loaded = ctypes.CDLL(str(out))
    for name in ("norm", "norm_grad", "products", *(f"{x}_{y}" for x in ARRAYS for y in ROUNDING)):
        getattr(loaded, name).restype = ctypes.c_char_p
    return loaded


def to_bfloat16(x):
    bits = x.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def to_float64(x):
    x = (x.astype(np.uint32) << 16).view(np.float32) if x.dtype == np.uint16 else x
    return x.astype(np.float64)


def draw(shape, count, kind):
    """Arrays of this type whose attention is neither uniform nor on one token."""
    rng = np.random.default_rng(shape)
    drawn = [2 * rng.standard_normal(shape[:3]).astype(np.float32) for _ in range(count)]
    return [to_bfloat16(x) if kind == "bfloat16" else x for x in drawn]


def pointers(arrays):
    return (ctypes.c_void_p * len(arrays))(*(x.ctypes.data for x in arrays))


def run_attention(library, what, kind, shape, inputs, outputs, room=0, tf32=0):
    """Run a kernel with exactly the scratch memory that it may use."""
    batch, tokens, width, heads, held = shape
    stride = -(-tokens // 8) * 8 + 8
    maps = unwritten(((2 if what == "backward" else 1) * held * tokens * stride + 1), np.float32)
    table = np.zeros(ARRAYS[what] * batch * heads + 1, np.uint64)
    sizes = batch, tokens, width, heads, held, stride, ARRAYS[what] + room, tf32
    scratch = (x.ctypes.data_as(ctypes.c_void_p) for x in (maps, table))
    error = getattr(library, f"{what}_{kind}")(
        (ctypes.c_int64 * 8)(*sizes), pointers([*inputs, *outputs]), *scratch
    )
    if error is not None:
        raise RuntimeError(error.decode())
    assert np.isnan(maps[-1]) and table[-1] == 0 and table[-2] != 0


@types
@shapes
def test_attention(library, shape, kind):
    q, k, v = draw(shape, 3, kind)
    out = unwritten(q.shape, q.dtype)
    run_attention(library, "forward", kind, shape, [q, k, v], [out])
    expected = reference.attention(*map(to_float64, (q, k, v)), shape[3])
    assert reference.relative(to_float64(out), expected) < ROUNDING[kind]


@types
@shapes
def test_attention_gradients(library, shape, kind):
    q, k, v, g = draw(shape, 4, kind)
    found = [unwritten(q.shape, q.dtype) for _ in range(3)]
    run_attention(library, "backward", kind, shape, [q, k, v, g], found)
    wide = [to_float64(x) for x in (q, k, v, g)]
    expected = reference.attention_gradients(*wide[:3], shape[3], wide[3])
    for name, a, b in zip("qkv", found, expected, strict=True):
        assert reference.relative(to_float64(a), b) < ROUNDING[kind], name


@types
@shapes
def test_row_times_map(library, shape, kind):
    """In float32, also for queries and keys in bfloat16."""
    batch, tokens, _, heads, _ = shape
    q, k = draw(shape, 2, kind)
    row = np.random.default_rng(1).random((batch, heads, tokens)).astype(np.float32)
    out = unwritten(row.shape, np.float32)
    run_attention(library, "propagate", kind, shape, [q, k, row], [out])
    maps = reference.attention_maps(to_float64(q), to_float64(k), heads)
    assert reference.relative(out, np.einsum("bki,bkij->bkj", row, maps)) < ROUNDING["float32"]


def test_products_in_tf32(library):
    """With TF32, scores have ten binary digits; the row times the map stays in float32."""
    batch, tokens, _, heads, _ = shape = SHAPES[1]
    q, k, v = draw(shape, 3, "float32")
    out, row = unwritten(q.shape, q.dtype), np.full((batch, heads, tokens), 1 / 3, np.float32)
    run_attention(library, "forward", "float32", shape, [q, k, v], [out], tf32=1)
    expected = reference.attention(*map(to_float64, (q, k, v)), heads)
    assert 1e-5 < reference.relative(out, expected) < 5e-3
    total = unwritten(row.shape, np.float32)
    run_attention(library, "propagate", "float32", shape, [q, k, row], [total], tf32=1)
    assert abs(total.sum(-1) / row.sum(-1) - 1).max() < 1e-6  # rows of a map add up to 1


def test_heads_that_tensor_cores_do_not_support_are_refused(library):
    """The operator never passes such heads; here d is 5."""
    shape = (1, 7, 15, 3, 4)
    q, k, v = draw(shape, 3, "bfloat16")
    with pytest.raises(RuntimeError, match="begin at 16 bytes"):
        run_attention(library, "forward", "bfloat16", shape, [q, k, v], [q.copy()])
    out = unwritten(q.shape, np.float32)
    wide = draw(shape, 3, "float32")
    run_attention(library, "forward", "float32", shape, wide, [out])
    expected = reference.attention(*map(to_float64, wide), 3)
    assert reference.relative(out, expected) < ROUNDING["float32"]


def test_large_scores_do_not_overflow(library):
    q, k, v = (100 * x for x in draw(SHAPES[0], 3, "float32"))
    out = unwritten(q.shape, q.dtype)
    run_attention(library, "forward", "float32", SHAPES[0], [q, k, v], [out])
    assert np.isfinite(out).all()


def test_too_few_pointers_are_refused(library):
    q, k, v = draw(SHAPES[0], 3, "float32")
    with pytest.raises(RuntimeError, match="too few tables"):
        run_attention(library, "forward", "float32", SHAPES[0], [q, k, v], [q.copy()], room=-1)


@pytest.mark.parametrize("rows, width, blocks", [(1, 5, 1), (7, 131, 3), (4, 256, 4)])
def test_layer_norm_and_gradients(library, rows, width, blocks):
    rng = np.random.default_rng(rows)
    x = (rng.standard_normal((rows, width)) + 100).astype(np.float32)  # far from 0
    g, (weight, bias) = rng.standard_normal((rows, width)), rng.standard_normal((2, width))
    g, weight, bias = (a.astype(np.float32) for a in (g, weight, bias))
    out, mean, scale = (unwritten(s, np.float32) for s in ((rows, width), rows, rows))
    eps = ctypes.c_float(1e-6)
    assert library.norm(rows, width, eps, pointers([x, weight, bias, out, mean, scale])) is None
    wide = [a.astype(np.float64) for a in (x, weight, bias)]
    centred = wide[0] - wide[0].mean(-1, keepdims=True)
    y = centred / np.sqrt(wide[0].var(-1, keepdims=True) + 1e-6)
    # float32 has the mean of 100 to 4e-6, and the centred values are of size 1
    assert reference.relative(out, y * wide[1] + wide[2]) < 2e-5
    assert reference.relative(out, reference.layer_norm(*wide)) < 2e-5

    dx, dw, db = (unwritten(s, np.float32) for s in ((rows, width), width, width))
    sums = unwritten((blocks, 2 * width), np.float32)
    arrays = [x, weight, mean, scale, g, dx, dw, db, sums]
    assert library.norm_grad(rows, width, blocks, pointers(arrays)) is None
    h = g * wide[1]
    of_h, of_hy = h.mean(-1, keepdims=True), (h * y).mean(-1, keepdims=True)
    expected = (h - of_h - y * of_hy) / np.sqrt(wide[0].var(-1, keepdims=True) + 1e-6)
    for value, true in ((dx, expected), (dw, (g * y).sum(0)), (db, g.astype(np.float64).sum(0))):
        assert reference.relative(value, true) < 2e-5


def test_layer_norm_of_a_row_with_variance_near_eps(library):
    x = (1e-3 * np.random.default_rng(3).standard_normal((1, 64))).astype(np.float32)
    out, one = unwritten(x.shape, np.float32), np.ones(64, np.float32)
    arrays = [x, one, 0 * one, out, unwritten(1, np.float32), unwritten(1, np.float32)]
    assert library.norm(1, 64, ctypes.c_float(1e-6), pointers(arrays)) is None
    assert reference.relative(out, reference.layer_norm(x.astype(np.float64), 1.0, 0.0)) < 2e-6


@pytest.mark.parametrize("rows, width", [(1, 3), (12, 131)])  # one thread block; several
def test_inner_products_and_their_gradient(library, rows, width):
    rng = np.random.default_rng(rows)
    z, g = rng.standard_normal((rows, width)), rng.standard_normal((rows, rows))
    out, dz = unwritten(g.shape, np.float64), unwritten(z.shape, np.float64)
    assert library.products(rows, width, pointers([z, g, out, dz])) is None
    assert reference.relative(out, z @ z.T) < 1e-14
    assert reference.relative(dz, (g + g.T) @ z) < 1e-14
