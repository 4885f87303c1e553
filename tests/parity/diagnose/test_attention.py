"""Mistakes in attention are named: of a module with its projections, and of a function."""

import numpy as np
import pytest

from parity.comparison.trace import Trace
from parity.comparison.verdict import Evidence, Row
from parity.diagnose.causes.facts import Operation
from parity.diagnose.causes.pair import Context
from parity.diagnose.causes.rules import rule_for
from parity.diagnose.local import likely
from parity.diagnose.reach import Pass
from parity.diagnose.shown import unknown
from parity.diagnose.sources import operations_by_stage
from parity.diagnose.stages import place_of

RNG = np.random.default_rng(8)
B, T, K, D = 2, 5, 2, 3  # a width of 6
WIDTH = K * D
X = RNG.standard_normal((B, T, WIDTH))
W, BIAS = RNG.standard_normal((3 * WIDTH, WIDTH)), RNG.standard_normal(3 * WIDTH)
OUT, OUT_BIAS = RNG.standard_normal((WIDTH, WIDTH)), RNG.standard_normal(WIDTH)
HIDDEN = np.triu(np.ones((T, T)), 2) + np.eye(T, k=-3)
PARAMS = {
    "m.in_proj_weight": W,
    "m.in_proj_bias": BIAS,
    "m.out.weight": OUT,
    "m.out.bias": OUT_BIAS,
}


def mixed(q, k, v, scale=D**-0.5, added=0.0, axis=-1):
    """Attention head by head and token by token: (B, T, width) each."""
    result = np.zeros_like(v)
    for b in range(B):
        for h in range(K):
            part = slice(h * D, (h + 1) * D)
            scores = q[b, :, part] @ k[b, :, part].T * scale + added
            weights = np.exp(scores - scores.max())
            weights /= weights.sum(axis, keepdims=True)
            result[b, :, part] = weights @ v[b, :, part]
    return result


def module(order=(0, 1, 2), added=0.0, **more):
    parts = np.split(X @ W.T + BIAS, 3, axis=-1)
    return mixed(*(parts[i] for i in order), added=added, **more) @ OUT.T + OUT_BIAS


def masked(mask):
    return np.where(mask > 0, -np.inf, 0.0)


def noisy(value, seed):
    error = 2e-7 * np.random.default_rng(seed).standard_normal(value.shape)
    return (value * (1 + error)).astype(np.float32)


def code_of(found, expected, place, context):
    traces = [
        Trace("x", {"producer": {"name": "x"}, "precision": "float32"}, {place: noisy(value, seed)})
        for seed, value in enumerate((expected, found))
    ]
    stage, tap = place.split("/", 1)
    row = Row("", stage, tap, "float32", "b : a", "different", *[0.0] * 6)
    result = likely(row, Evidence(*traces), context, rule_for)
    return result[0].code if result else None


def of_module(found, expected, mask=None):
    reads = {"forward/x": X} | ({"inputs/m.1": mask} if mask is not None else {})
    place = "isolated forward/m"
    made = Operation("attention", tuple(reads), tuple(PARAMS), {"heads": K, "batch_first": True})
    return code_of(found, expected, place, Context(reads, PARAMS, {place: made}))


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("qkv order", module((0, 2, 1))),
        ("qkv order", module((2, 1, 0))),
        ("swapped", module((1, 0, 2))),
        ("scale", module(scale=1.0)),
        ("scale", module(scale=1 / D)),
        ("softmax axis", module(axis=-2)),
        ("causal", module(added=np.where(np.triu(np.ones((T, T)), 1) > 0, -np.inf, 0.0))),
    ],
)
def test_modules(code, found):
    named = of_module(found, module())
    assert named == code or {named, code} == {"swapped", "qkv order"}  # the same function


@pytest.mark.parametrize(
    "added",
    [0.0, masked(1 - HIDDEN), masked(HIDDEN).T, np.where(HIDDEN > 0, -1.0, 0.0)],
    ids=["not applied", "sign", "transposed", "number"],
)
def test_masks(added):
    assert of_module(module(added=added), module(added=masked(HIDDEN)), HIDDEN) == "mask"


def test_a_mask_with_another_meaning_of_one_is_understood():
    """PyTorch's module hides where the mask is one, its function where it is zero."""
    shown = 1 - HIDDEN
    assert of_module(module(), module(added=masked(HIDDEN)), shown) == "mask"


def test_a_near_miss_is_not_named():
    assert of_module(module() + 0.01 * np.sin(module()), module()) is None


QKV = RNG.standard_normal((B, T, 3 * WIDTH))


def interleaved():
    """q, k and v of each head side by side."""
    grid = QKV.reshape(B, T, K, 3, D)
    return mixed(*(grid[:, :, :, i].reshape(B, T, WIDTH) for i in range(3)))


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("qkv order", mixed(*(np.split(QKV, 3, axis=-1)[i] for i in (0, 2, 1)))),
        ("qkv order", interleaved()),
        ("scale", mixed(*np.split(QKV, 3, axis=-1), scale=1.0)),
    ],
)
def test_a_function_after_a_fused_layer(code, found):
    """No manifest says that it is attention: the tap before is three times as wide."""
    right = mixed(*np.split(QKV, 3, axis=-1))
    taps = {"forward/qkv": QKV, "inputs/proj": right}
    trace = Trace("x", {"operations": {}}, taps)
    made = operations_by_stage(trace, {})
    assert made["inputs/proj"].operation == "fused attention"
    assert code_of(found, right, "inputs/proj", Context(taps, {}, made)) == code


DISTANCE = -0.3 * np.abs(np.arange(T)[:, None] - np.arange(T) + 0.5)


@pytest.mark.parametrize(
    "added", [0.0, -DISTANCE, DISTANCE.T], ids=["not applied", "sign", "transposed"]
)
def test_a_mask_of_a_function_is_found_among_the_buffers(added):
    parts = np.split(QKV, 3, axis=-1)
    right = mixed(*parts, added=DISTANCE)
    taps = {"forward/qkv": QKV, "inputs/proj": right}
    made = operations_by_stage(Trace("x", {"operations": {}}, taps), {})
    found = mixed(*parts, added=added)
    context = Context(taps, {"block.mask": DISTANCE}, made)
    assert code_of(found, right, "inputs/proj", context) == "mask"
    assert code_of(found, right, "inputs/proj", Context(taps, {}, made)) is None


def test_what_a_module_reads_is_never_called_its_output():
    """Attention outside of modules may have made it, from a tap that agrees."""
    graph = Pass(made_by={"inputs/m": Operation("fused attention", ("forward/qkv",))})
    row = Row("", "inputs", "m", "float32", "b : a", "different", *[0.0] * 6)
    text, _ = unknown(row, place_of("inputs", "m"), graph, {"forward/qkv", "isolated forward/m"})
    assert text.startswith("between the inputs and m, outside of modules")
