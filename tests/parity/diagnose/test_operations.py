"""Every known mistake in a recorded module is named; a near miss is not.

The faults are computed here by other code: loops over single positions, as the definitions read.
Both sides carry float32 noise, as two right implementations do. One file, since all faults share
the functions that record a module.
"""

import itertools
import math

import numpy as np
import pytest

from parity.comparison.trace import Trace
from parity.comparison.verdict import Evidence, Row
from parity.diagnose.causes.facts import Operation
from parity.diagnose.causes.pair import Context
from parity.diagnose.causes.relations import factor, relations
from parity.diagnose.causes.rules import OPERATIONS, rule_for
from parity.diagnose.local import likely

RNG = np.random.default_rng(5)
X = RNG.standard_normal((3, 4, 7, 6)) + 0.3
NOISE = 2e-7


def noisy(value, seed):
    value = np.asarray(value, float)
    error = NOISE * np.random.default_rng(seed).standard_normal(value.shape)
    return (value * (1 + error)).astype(np.float32)


def trace(place, value):
    manifest = {"producer": {"name": "x"}, "precision": "float32"}
    return Trace("somewhere", manifest, {place: value})


def cause_of(found, expected, made, taps=None, params=None, place="isolated forward/m", **context):
    """The likeliest cause of a tap that one operation made; taps: its inputs in order."""
    taps = {"forward/x": X} if taps is None else taps
    reads = tuple(name for name in taps if name.startswith(("forward/", "training forward/")))
    operation = Operation(
        made[0], made[2] if len(made) > 2 else reads, tuple(params or {}), made[1]
    )
    facts = Context(
        taps={name: np.asarray(value, np.float32) for name, value in taps.items()},
        params={name: np.asarray(value, np.float32) for name, value in (params or {}).items()},
        made_by={
            "isolated forward/m": operation,
            "training forward/m": operation,
            place: operation,
        },
        **context,
    )
    stage, tap = place.split("/", 1)
    row = Row("", stage, tap, "float32", "b : a", "different", *[0.0] * 6)
    evidence = Evidence(trace(place, noisy(expected, 1)), trace(place, noisy(found, 2)))
    result = likely(row, evidence, facts, rule_for)
    return result[0] if result else None


def code_of(found, expected, *rest, **more):
    """The code of the cause. The same pair turned round shows that the right result is known: then
    B is as defined, and A is not."""
    cause = cause_of(found, expected, *rest, **more)
    if cause and cause.code != "statistics":  # a batch norm uses those that are nearer to A
        back = cause_of(expected, found, *rest, **more)
        assert back.code in ("as defined", "statistics")
    return cause.code if cause else None


def convolved(x, w, b=0.0, stride=1, padding=0, dilation=1, groups=1, mode="constant"):
    """A convolution, position by position."""
    x = np.pad(x, ((0, 0), (0, 0), (padding,) * 2, (padding,) * 2), mode=mode)
    size = [
        (n - dilation * (k - 1) - 1) // stride + 1
        for n, k in zip(x.shape[2:], w.shape[2:], strict=True)
    ]
    share, per = w.shape[1], len(w) // groups
    result = np.zeros((len(x), len(w), *size))
    for o, i, j in itertools.product(range(len(w)), *map(range, size)):
        rows = [i * stride + dilation * k for k in range(w.shape[2])]
        columns = [j * stride + dilation * k for k in range(w.shape[3])]
        part = x[:, o // per * share : (o // per + 1) * share][:, :, rows][:, :, :, columns]
        result[:, o, i, j] = (part * w[o]).sum((1, 2, 3))
    return result + np.reshape(b, (-1, 1, 1))


W = RNG.standard_normal((6, 4, 3, 3))
BIAS = RNG.standard_normal(6)
CONV = {
    "stride": [1, 1],
    "padding": [1, 1],
    "dilation": [1, 1],
    "groups": 1,
    "padding_mode": "zeros",
}


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("no bias", convolved(X, W, padding=1)),
        ("padding mode", convolved(X, W, BIAS, padding=1, mode="reflect")),
        ("padding mode", convolved(X, W, BIAS, padding=1, mode="edge")),
        ("padding mode", convolved(X, W, BIAS, padding=1, mode="wrap")),
        ("padding", convolved(X, W, BIAS)),
        ("stride", convolved(X, W, BIAS, padding=1, stride=2)),
        ("transposed", convolved(X, W.swapaxes(2, 3), BIAS, padding=1)),
        ("flipped", convolved(X, W[:, :, ::-1, ::-1], BIAS, padding=1)),
        ("layout", convolved(X, W.reshape(6, 3, 3, 4).transpose(0, 3, 1, 2), BIAS, padding=1)),
    ],
)
def test_convolutions(code, found):
    right = convolved(X, W, BIAS, padding=1)
    params = {"m.weight": W, "m.bias": BIAS}
    assert code_of(found, right, ("convolution", CONV), params=params) == code


def test_dilation_and_groups():
    w = RNG.standard_normal((6, 2, 3, 3))
    settings = CONV | {"padding": [0, 0], "groups": 2, "dilation": [2, 2]}
    right = convolved(X, w, groups=2, dilation=2)
    params = {"m.weight": w}
    made = ("convolution", settings)
    assert code_of(convolved(X, w, groups=2), right, made, params=params) == "dilation"
    mixed = X.reshape(3, 2, 2, 7, 6).swapaxes(1, 2).reshape(X.shape)
    assert (
        code_of(convolved(mixed, w, groups=2, dilation=2), right, made, params=params) == "groups"
    )


def deconvolved(x, w, stride, padding, output_padding=0, dilation=1, groups=1):
    """A transposed convolution: each input adds its kernel to the output."""
    size = [
        (n - 1) * stride + dilation * (k - 1) + 1
        for n, k in zip(x.shape[2:], w.shape[2:], strict=True)
    ]
    share, per = w.shape[1], x.shape[1] // groups
    full = np.zeros((len(x), share * groups, *(n + output_padding for n in size)))
    for c, i, j in itertools.product(range(x.shape[1]), *map(range, x.shape[2:])):
        rows = slice(i * stride, i * stride + dilation * (w.shape[2] - 1) + 1, dilation)
        columns = slice(j * stride, j * stride + dilation * (w.shape[3] - 1) + 1, dilation)
        out = slice(c // per * share, (c // per + 1) * share)
        full[:, out, rows, columns] += x[:, c, i, j][:, None, None, None] * w[c]
    return full[:, :, padding : full.shape[2] - padding, padding : full.shape[3] - padding]


def test_transposed_convolutions():
    w = RNG.standard_normal((4, 3, 3, 3))
    settings = CONV | {"stride": [2, 2], "transposed": True, "output_padding": [1, 1]}
    right = deconvolved(X, w, 2, 1, 1)
    made, params = ("convolution", settings), {"m.weight": w}
    assert code_of(deconvolved(X, w, 2, 1, 0), right, made, params=params) == "output padding"
    assert (
        code_of(deconvolved(X, w[:, :, ::-1, ::-1], 2, 1, 1), right, made, params=params)
        == "flipped"
    )
    bias = RNG.standard_normal(3)[:, None, None]
    filled = np.pad(deconvolved(X, w, 2, 1, 0), ((0, 0), (0, 0), (0, 1), (0, 1)))
    with_bias = params | {"m.bias": bias.ravel()}
    for found in (filled + bias, np.where(filled == 0, 0.0, filled + bias)):
        assert code_of(found, right + bias, made, params=with_bias) == "output padding"
    exchanged = deconvolved(X, w, 2, 1, 1, dilation=1, groups=2)
    settings = settings | {"dilation": [2, 2]}
    right = deconvolved(X, w, 2, 1, 1, dilation=2)
    made = ("convolution", settings)
    assert code_of(exchanged, right, made, params=params) == "dilation and groups"


FLAT = RNG.standard_normal((5, 6))
DENSE = RNG.standard_normal((9, 6))
SHIFT = RNG.standard_normal(9)


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("no bias", FLAT @ DENSE.T),
        ("layout", FLAT @ DENSE.reshape(6, 9) + SHIFT),
        ("qkv order", (FLAT @ DENSE.T + SHIFT)[:, [3, 4, 5, 0, 1, 2, 6, 7, 8]]),
    ],
)
def test_linear(code, found):
    params = {"m.weight": DENSE, "m.bias": SHIFT}
    right = FLAT @ DENSE.T + SHIFT
    assert code_of(found, right, ("linear", {}), {"forward/x": FLAT}, params) == code


def test_square_weight_transposed():
    w = RNG.standard_normal((6, 6))
    assert code_of(FLAT @ w, FLAT @ w.T, ("linear", {}), {"forward/x": FLAT}, {"m.weight": w}) == (
        "transposed"
    )


def wide(v):
    return np.reshape(v, (1, -1, 1, 1))


STATE = {
    "m.weight": RNG.uniform(0.5, 1.5, 4),
    "m.bias": RNG.standard_normal(4),
    "m.running_mean": RNG.standard_normal(4) * 0.1,
    "m.running_var": RNG.uniform(0.5, 1.5, 4),
}


def normed(mean=None, var=None, eps=1e-5, scale=True, shift=True):
    mean = STATE["m.running_mean"] if mean is None else mean
    var = STATE["m.running_var"] if var is None else var
    plain = (X - wide(mean)) / np.sqrt(wide(var) + eps)
    return plain * (wide(STATE["m.weight"]) if scale else 1) + (
        wide(STATE["m.bias"]) if shift else 0
    )


MEAN, VAR = X.mean((0, 2, 3)), X.var((0, 2, 3))
COUNT = X.size // 4
BATCH_NORM = ("batch_norm", {"eps": 1e-5, "momentum": 0.1})


@pytest.mark.parametrize(
    ("code", "found", "right"),
    [
        ("eps", normed(eps=1e-3), normed()),
        ("statistics", normed(MEAN, VAR), normed()),
        ("statistics", normed(), normed(MEAN, VAR)),
        ("unbiased", normed(MEAN, VAR * COUNT / (COUNT - 1)), normed(MEAN, VAR)),
        ("not loaded", normed(scale=False, shift=False), normed()),
        ("no bias", normed(shift=False), normed()),
        ("no weight", normed(scale=False), normed()),
        ("left out", X, normed()),
    ],
)
def test_batch_norms(code, found, right):
    assert code_of(found, right, BATCH_NORM, params=STATE) == code


def moved(share=0.1, target=None, old="running_var"):
    start = STATE[f"m.{old}"]
    unbiased = VAR * COUNT / (COUNT - 1)
    target = (unbiased if old == "running_var" else MEAN) if target is None else target
    return start + share * (target - start)


@pytest.mark.parametrize(
    ("code", "found", "name"),
    [
        ("biased", moved(target=VAR), "running_var"),
        ("momentum reversed", moved(0.9), "running_var"),
        ("momentum reversed", moved(0.9, old="running_mean"), "running_mean"),
        ("momentum", moved(0.01, old="running_mean"), "running_mean"),
        ("left out", STATE["m.running_mean"], "running_mean"),
        ("deviation", moved(target=np.sqrt(VAR * COUNT / (COUNT - 1))), "running_var"),
    ],
)
def test_running_statistics(code, found, name):
    taps = {"training forward/x": X}
    place = f"isolated statistics/m.{name}"
    params = {
        f"m.{end}": STATE[f"m.{end}"] for end in ("weight", "bias", "running_mean", "running_var")
    }
    assert code_of(found, moved(old=name), BATCH_NORM, taps, params, place) == code


TOKENS = RNG.standard_normal((3, 5, 8)) + 0.2
LN = {"m.weight": RNG.uniform(0.5, 1.5, 8), "m.bias": RNG.standard_normal(8)}


def layer(eps=1e-6, free=0, outside=False):
    mean = TOKENS.mean(-1, keepdims=True)
    spread = TOKENS.var(-1, keepdims=True, ddof=free)
    size = np.sqrt(spread) + eps if outside else np.sqrt(spread + eps)
    return (TOKENS - mean) / size * LN["m.weight"] + LN["m.bias"]


@pytest.mark.parametrize(("code", "found"), [("eps", layer(1e-3)), ("unbiased", layer(free=1))])
def test_layer_norms(code, found):
    made = ("layer_norm", {"eps": 1e-6, "axes": [-1]})
    assert code_of(found, layer(), made, {"forward/x": TOKENS}, LN) == code


def test_group_norm():
    def grouped(groups, eps=1e-5):
        rows = X.reshape(3, groups, -1)
        plain = (rows - rows.mean(-1, keepdims=True)) / np.sqrt(rows.var(-1, keepdims=True) + eps)
        return plain.reshape(X.shape)

    made = ("group norm", {"groups": 2, "eps": 1e-5})
    assert code_of(grouped(4), grouped(2), made) == "groups"
    assert code_of(grouped(2, 1e-3), grouped(2), made) == "eps"


def pooled(kernel, stride, padding, how="mean", include=True, ceil=False):
    """A pool, window by window, with PyTorch's rule for the last window."""
    rounded = math.ceil if ceil else math.floor
    size = []
    for n in X.shape[2:]:
        count = rounded((n + 2 * padding - kernel) / stride) + 1
        size.append(count - (ceil and (count - 1) * stride >= n + padding))
    result = np.zeros((3, 4, *size))
    for i, j in itertools.product(*map(range, size)):
        ends = [(k * stride - padding, k * stride - padding + kernel) for k in (i, j)]
        outer = [(a, min(b, n + padding)) for (a, b), n in zip(ends, X.shape[2:], strict=True)]
        inner = [(max(a, 0), min(b, n)) for (a, b), n in zip(ends, X.shape[2:], strict=True)]
        window = X[:, :, inner[0][0] : inner[0][1], inner[1][0] : inner[1][1]]
        counted = outer if include else inner
        area = np.prod([b - a for a, b in counted])
        result[:, :, i, j] = window.max((2, 3)) if how == "max" else window.sum((2, 3)) / area
    return result


POOL = {"kernel": [3, 3], "stride": [2, 2], "padding": [1, 1], "ceil_mode": False}


@pytest.mark.parametrize(
    ("code", "found", "right", "name", "settings"),
    [
        ("count_include_pad", pooled(3, 2, 1, include=False), pooled(3, 2, 1), "mean pool", {}),
        (
            "count_include_pad",
            pooled(3, 2, 1),
            pooled(3, 2, 1, include=False),
            "mean pool",
            {"count_include_pad": False},
        ),
        ("ceil_mode", pooled(3, 2, 1, "max", ceil=True), pooled(3, 2, 1, "max"), "max pool", {}),
        (
            "ceil_mode",
            pooled(2, 2, 0, "max"),
            pooled(2, 2, 0, "max", ceil=True),
            "max pool",
            {"kernel": [2, 2], "padding": [0, 0], "ceil_mode": True},
        ),
        ("pooling", pooled(3, 2, 1), pooled(3, 2, 1, "max"), "max pool", {}),
        ("kernel", pooled(2, 2, 0, "max"), pooled(3, 2, 0, "max"), "max pool", {"padding": [0, 0]}),
    ],
)
def test_pools(code, found, right, name, settings):
    assert code_of(found, right, (name, POOL | settings)) == code


def averaged(windows):
    result = [[X[:, :, a:b, c:d].mean((2, 3)) for c, d in windows[1]] for a, b in windows[0]]
    return np.moveaxis(np.array(result), (0, 1), (2, 3))


def test_adaptive_windows():
    right = averaged([((0, 3), (2, 5), (4, 7)), ((0, 2), (1, 3), (3, 5), (4, 6))])
    uniform = averaged([((0, 3), (2, 5), (4, 7)), ((0, 3), (1, 4), (2, 5), (3, 6))])
    made = ("adaptive mean pool", {"size": [3, 4]})
    assert code_of(uniform, right, made) == "adaptive windows"
    assert code_of(right + 0.05 * np.sin(right), right, made) is None


def resized(corners, mode="linear", size=(11, 9)):
    def place(k, n, m):
        return k * (n - 1) / (m - 1) if corners else max((k + 0.5) * n / m - 0.5, 0.0)

    result = np.zeros((3, 4, *size))
    for i, j in itertools.product(*map(range, size)):
        y, x = place(i, 7, size[0]), place(j, 6, size[1])
        if mode == "nearest":
            result[:, :, i, j] = X[:, :, i * 7 // size[0], j * 6 // size[1]]
            continue
        a, b = int(y), int(x)
        c, d = min(a + 1, 6), min(b + 1, 5)
        top = X[:, :, a, b] * (1 - x + b) + X[:, :, a, d] * (x - b)
        low = X[:, :, c, b] * (1 - x + b) + X[:, :, c, d] * (x - b)
        result[:, :, i, j] = top * (1 - y + a) + low * (y - a)
    return result


def test_upsampling():
    made = ("upsample", {"mode": "bilinear", "align_corners": False, "size": [11, 9]})
    assert code_of(resized(True), resized(False), made) == "align_corners"
    assert code_of(resized(False, "nearest"), resized(False), made) == "mode"


def phi(x):
    return 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


@pytest.mark.parametrize(
    ("code", "operation", "settings", "found", "right"),
    [
        (
            "tanh",
            "gelu",
            {"form": "exact"},
            0.5 * X * (1 + np.tanh(math.sqrt(2 / math.pi) * (X + 0.044715 * X**3))),
            X * phi(X),
        ),
        ("leaky relu", "relu", {}, np.where(X > 0, X, 0.01 * X), np.maximum(X, 0)),
        ("relu6", "relu", {}, np.clip(4 * X, 0, 6), np.maximum(4 * X, 0)),
        (
            "old hard sigmoid",
            "hard sigmoid",
            {},
            np.clip(0.2 * X + 0.5, 0, 1),
            np.clip((X + 3) / 6, 0, 1),
        ),
        (
            "slope",
            "leaky relu",
            {"slope": 0.01},
            np.where(X > 0, X, 0.1 * X),
            np.where(X > 0, X, 0.01 * X),
        ),
    ],
)
def test_activations(code, operation, settings, found, right):
    taps = {"forward/x": 4 * X} if code == "relu6" else None
    assert code_of(found, right, (operation, settings), taps) == code


def test_softmax_axis():
    def soft(axis):
        return np.exp(X) / np.exp(X).sum(axis, keepdims=True)

    assert code_of(soft(2), soft(1), ("softmax", {"axis": 1})) == "softmax axis"
    assert code_of(X, soft(1), ("softmax", {"axis": 1})) == "left out"


def test_channel_shuffle():
    x = RNG.standard_normal((2, 6, 3, 3))

    def shuffled(groups):
        return np.stack([x[:, (c % groups) * (6 // groups) + c // groups] for c in range(6)], 1)

    made = ("channel shuffle", {"groups": 2})
    assert code_of(shuffled(3), shuffled(2), made, {"forward/x": x}) == "shuffle"
    assert code_of(x, shuffled(2), made, {"forward/x": x}) == "left out"


def test_dropout_in_evaluation():
    keep = RNG.random(X.shape) > 0.25
    assert code_of(np.where(keep, X / 0.75, 0), X, ("dropout", {"p": 0.25})) == "dropout"


def test_large_taps_are_looked_at_in_part():
    x, w = RNG.standard_normal((8, 3, 40, 40)), RNG.standard_normal((16, 3, 3, 3))
    settings = CONV | {"padding": [1, 1]}
    right = sum(
        np.einsum(
            "bchw,oc->bohw",
            np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))[:, :, i : i + 40, j : j + 40],
            w[:, :, i, j],
        )
        for i in range(3)
        for j in range(3)
    )
    wrong = sum(
        np.einsum(
            "bchw,oc->bohw",
            np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")[:, :, i : i + 40, j : j + 40],
            w[:, :, i, j],
        )
        for i in range(3)
        for j in range(3)
    )
    taps, params = {"forward/x": x}, {"m.weight": w}
    assert right.size > 2**16
    assert code_of(wrong, right, ("convolution", settings), taps, params) == "padding mode"


def test_facts_that_do_not_fit_give_no_cause():
    """Manifests are other programs' facts: a wrong shape there is no error here."""
    params = {"m.weight": RNG.standard_normal((5, 9, 3, 3))}
    noise = RNG.standard_normal(X.shape)
    assert cause_of(X + noise, X, ("convolution", CONV), params=params) is None


@pytest.mark.parametrize("name", ["convolution", "linear", "batch_norm", "relu", "max pool"])
def test_unrelated_numbers_have_no_cause(name):
    noise = RNG.standard_normal((3, 4, 7, 6))
    params = {"m.weight": RNG.standard_normal((4, 4, 3, 3)), "m.bias": RNG.standard_normal(4)}
    assert name in OPERATIONS
    assert cause_of(noise, X, (name, CONV), params=params if name == "convolution" else {}) is None


def test_a_factor_near_one_is_not_shown_as_one():
    assert [factor(c) for c in (1.5, 1.0, 1 + 3e-8, 1 - 2e-7)] == [
        "1.5",
        "1",
        "(1 + 3e-08)",
        "(1 - 2e-07)",
    ]


def test_zeros_in_a_part_of_an_axis():
    expected = np.random.default_rng(1).standard_normal((6, 8, 5))
    found = expected.copy()
    found[:, 4:8] = 0
    (best, *_) = relations(found, expected, tap="backward/d/conv")
    assert best.code == "zero part"
    text = "B is zero at index 4 to 7 of axis 1 (4 of 8): no gradient reaches this part"
    assert best.text.startswith(text)
    found[0, 2] += 1.0  # other numbers differ as well
    assert "zero part" not in {cause.code for cause in relations(found, expected)}
