"""The Swin Transformer: window attention against NumPy, models against timm's and torchvision's.

Bound on relative L2 errors of window attention: 2e-6, as for attention (test_attention.py).
"""

import json
from dataclasses import replace

import numpy as np
import pytest
from reference import relative, softmax

from parity.cases.case import BY_NAME
from parity.cases.swin_reference import GOLDEN, REFERENCES, sketch
from transfg_core.backend import load_backend
from transfg_core.models.windows import Windows

BOUND = 2e-6
CASE = BY_NAME["swin"]
# (windows, images, heads, head width): padded and shifted; shifted; clipped in one direction; one
# window; more (window, head) pairs than threads, and more than a chunk of the backward pass
WINDOWS = [
    (Windows(11, 8, 4, True), 2, 3, 5),
    (Windows(8, 12, 4, True), 3, 1, 8),
    (Windows(6, 4, 4, True), 1, 2, 7),
    (Windows(3, 2, 4, False), 2, 4, 3),
    (Windows(28, 21, 7, True), 3, 5, 4),
]
each = pytest.mark.parametrize("shape", WINDOWS, ids=lambda shape: str(shape[0]))


def draw(shape):
    """Queries, keys, values and a gradient (B, U, D); a table (W, K)."""
    windows, images, heads, head = shape
    rng, tokens = np.random.default_rng(7), windows.padded[0] * windows.padded[1]
    arrays = [rng.standard_normal((images, tokens, heads * head)) for _ in range(4)]
    arrays.append(rng.standard_normal(((2 * windows.window - 1) ** 2, heads)))
    return [array.astype(np.float32) for array in arrays]


def together(windows):
    """Which tokens of the padded map attend to which, and the row of the table for each: (U, U).

    By loops over places; tests/core/models/test_windows.py has the same rule for the indices.
    """
    rows, columns = windows.padded
    w, (down, right) = windows.window, windows.shift
    height, width = windows.sides

    def home(place):
        r, c = place
        moved = ((r - down) % rows // height, (c - right) % columns // width)
        return (*moved, r < down, c < right)

    places = list(np.ndindex(rows, columns))
    allowed = np.array([[home(a) == home(b) for b in places] for a in places])
    row = np.array(
        [
            [(a[0] - b[0] + w - 1) * (2 * w - 1) + a[1] - b[1] + w - 1 for b in places]
            for a in places
        ]
    )
    return allowed, np.where(allowed, row, 0)


def attended(shape, q, k, v, grad, table):
    """Result, maps (B, K, U, U) and gradients of q, k, v and the table, over the whole map."""
    windows, images, heads, head = shape
    allowed, row = together(windows)

    def split(x):
        return x.astype(np.float64).reshape(images, -1, heads, head).swapaxes(1, 2)

    def join(x):
        return x.swapaxes(1, 2).reshape(q.shape)

    q_, k_, v_, g = (split(x) for x in (q, k, v, grad))
    scores = q_ @ k_.swapaxes(2, 3) / np.sqrt(head) + table.astype(np.float64)[row].transpose(
        2, 0, 1
    )
    maps = softmax(np.where(allowed, scores, -np.inf))
    by_map = g @ v_.swapaxes(2, 3)
    by_scores = maps * (by_map - (by_map * maps).sum(-1, keepdims=True))
    by_table = np.zeros(table.shape)
    np.add.at(by_table, row, by_scores.sum(0).transpose(1, 2, 0))
    by_q, by_k = by_scores @ k_ / np.sqrt(head), by_scores.swapaxes(2, 3) @ q_ / np.sqrt(head)
    gradients = [join(by_q), join(by_k), join(maps.swapaxes(2, 3) @ g), by_table]
    return join(maps @ v_), maps, gradients


@each
@pytest.mark.parametrize("chunk", [None, 1], ids=["chunks", "windows"])
def test_window_attention(twin, shape, chunk, monkeypatch):
    """Result and gradients; in PyTorch also with one window of the backward pass at a time."""
    module = twin.module("window_attention")
    if chunk and twin.name == "jittor":
        pytest.skip("concerns torch alone")
    if chunk:
        monkeypatch.setattr(module, "CPU_BYTES", chunk)
    q, k, v, grad, table = draw(shape)
    expected, _, gradients = attended(shape, q, k, v, grad, table)
    (out,) = twin.run(lambda *x: module.window_attention(*x, shape[0]), q, k, v, table)
    assert relative(out, expected) < BOUND
    weight = twin.tensor(grad)
    found = twin.gradients(
        lambda *x: (module.window_attention(*x, shape[0]) * weight).sum(), [q, k, v, table]
    )
    for name, a, b in zip(("q", "k", "v", "table"), found, gradients, strict=True):
        assert relative(a, b) < BOUND, name


@each
def test_attention_received(twin, shape):
    """The mean over the window's queries of each column of its map."""
    windows, images, heads, _ = shape
    q, k, v, grad, table = draw(shape)
    _, maps, _ = attended(shape, q, k, v, grad, table)
    found = twin.run(
        lambda *x: twin.module("window_attention").column_means(*x, windows), q, k, table
    )
    assert relative(found[0], maps.sum(2) / np.prod(windows.sides)) < BOUND


@pytest.mark.parametrize("reference", REFERENCES, ids=lambda reference: reference.name)
def test_results_of_other_programs(twin, reference):
    """The same weights and images: logits to 1e-5, gradients to 1e-4."""
    golden = json.loads(GOLDEN.read_text())[reference.name]
    backend = load_backend(twin.name, reference.config())
    backend.load_params(reference.params())
    trace = backend.trace(reference.batch())
    assert relative(trace["logits"][:, :20], golden["logits"]) < 1e-5
    assert float(trace["loss"]) == pytest.approx(golden["loss"], rel=1e-6)
    prefix = "grad/"
    found = {n.removeprefix(prefix): v for n, v in trace.items() if n.startswith(prefix)}
    named = reference.named(found)
    assert named.keys() == golden["gradients"].keys()
    for name, value in named.items():
        assert relative(sketch(name, value), golden["gradients"][name]) < 1e-4, name


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_recomputed_blocks(twin, precision):
    """With dropout and left-out branches: the second pass has the masks of the first."""
    case = replace(CASE, model=CASE.model | {"dropout": 0.2, "drop_path": 0.4})
    states = []
    for recompute in (False, True):
        config = case.config(precision)
        run = config.run.model_copy(update={"grad_checkpointing": recompute})
        backend = load_backend(twin.name, config.model_copy(update={"run": run}))
        backend.load_params(case.params())
        reports = [
            float(backend.fetch(backend.train_step(case.batches()[:2], 0.01))["loss"])
            for _ in range(2)
        ]
        states.append((reports, backend.state()))
    (expected, before), (found, after) = states
    assert found == pytest.approx(expected, rel=1e-5)
    for name, value in before.items():
        if not name.endswith("key.bias"):  # zero except for rounding
            assert relative(after[name], value) < 1e-4, name


def test_branches_are_left_out_by_image(twin):
    """Whole images, with the given probability; the others are divided by 1 - p."""
    layer = twin.module("models.layers").DropPath(0.3)
    layer.train()
    x = np.ones((2000, 2, 3), np.float32)
    (found,) = twin.run(layer, x)
    kept = found[:, :1, :1]
    assert (found == kept).all()
    assert np.unique(kept) == pytest.approx([0, 1 / 0.7])
    assert np.mean(kept == 0) == pytest.approx(0.3, abs=0.05)
    layer.eval()
    assert (twin.run(layer, x)[0] == x).all()


def test_branches_are_left_out_more_often_with_depth(twin):
    """From 0 at the first block to `drop_path` at the last, as in the published program."""
    case = replace(CASE, model=CASE.model | {"drop_path": 0.6})
    blocks = twin.backend(case).model.blocks
    assert [block.drop_path.p for block in blocks] == pytest.approx(np.linspace(0, 0.6, 7))


def test_bfloat16(twin):
    """Mixed precision: some per cent off, never equal; what a block adds to stays float32."""
    backend = load_backend(twin.name, CASE.config("bfloat16"))
    backend.load_params(CASE.params())
    trace = backend.trace(CASE.batches()[0], fine=True)
    query = np.ascontiguousarray(trace["stage0_block00.attn.query"])
    assert not (query.view(np.uint32) & 0xFFFF).any()  # the upper half of a float32
    assert (np.ascontiguousarray(trace["stage0_block00"]).view(np.uint32) & 0xFFFF).any()
    exact = twin.backend(CASE).trace(CASE.batches()[0])
    assert 1e-4 < relative(trace["logits"], exact["logits"]) < 5e-2


@pytest.mark.only("torch")
@pytest.mark.filterwarnings("ignore")  # the compiler warns of the cache of window_index
def test_a_compiled_block(twin, monkeypatch, tmp_path):
    """`run.compile`: the same function, with shifted windows."""
    # PyTorch's cache ignores ATEN_CPU_CAPABILITY: code for another one does not compile
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    block = twin.backend(CASE).model.blocks[1]
    shape = (2, block.windows.rows * block.windows.columns, CASE.config().model.width)
    x = np.random.default_rng(3).standard_normal(shape).astype(np.float32)

    def results():
        (gradient,) = twin.gradients(lambda y: (block(y)[0] ** 2).sum(), [x])
        return twin.run(lambda y: block(y)[0], x)[0], gradient

    expected = results()
    block.compile()
    for a, b in zip(results(), expected, strict=True):
        assert relative(a, b) < BOUND
