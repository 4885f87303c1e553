"""Every cause of the catalogue is recognised, and no cause is named without evidence.

Data are random and different along every axis. Both sides carry float32 noise, as two right
implementations do. The faults are computed here with other code than the catalogue's.
"""

import numpy as np
import pytest
from scipy.special import expit, log_softmax, softmax
from scipy.stats import norm

from parity.diagnose.causes.attention import MIXES, Mix
from parity.diagnose.causes.relations import relations
from parity.suite.causes import explain
from parity.suite.causes.context import Context
from transfg_core.config.vit import VitConfig
from transfg_core.models.layout import architecture, taps_of

NOISE = 3e-7
B, T, D, M, K, C, P, S = 3, 13, 8, 20, 2, 5, 4, 3  # T - 1 = 3 x 4 patches of a 10 x 13 image
MODEL = VitConfig(width=D, heads=K, depth=3, mlp=M, patch=P, stride=S, classes=C)
AXES = architecture(MODEL).AXES
RNG = np.random.default_rng(7)


def draw(*shape: int) -> np.ndarray:
    """Random numbers in float64, with another scale and mean at each index of every axis."""
    value = RNG.standard_normal(shape)
    for axis, count in enumerate(shape):
        ramp = np.linspace(0.7, 1.6, count).reshape(
            [-1 if i == axis else 1 for i in range(len(shape))]
        )
        value = value * ramp + 0.1 * ramp
    return value


def noisy(value, seed=0):
    """In float32, with a relative error of NOISE; integers do not change."""
    value = np.asarray(value)
    if value.dtype.kind == "i":
        return value
    error = NOISE * np.random.default_rng(seed).standard_normal(value.shape)
    return np.asarray(value * (1 + error)).astype(np.float32)


def codes(causes):
    return [cause.code for cause in causes]


def best(found, expected, context=None, tap=""):
    """The best relation between B and A, both with noise."""
    causes = relations(noisy(found, 1), noisy(expected, 2), context, tap)
    assert causes, "nothing was recognised"
    return causes[0]


A = draw(B, T, D)
FLAT = draw(40)
SETTINGS = Context(
    batch=3,
    classes=5,
    heads=2,
    width=8,
    momentum=0.9,
    lr=0.03,
    dropout=0.1,
    accumulation=4,
    clip=1.0,
    taps={"grad_norm": np.float64(2.5)},
    made_by=taps_of(MODEL),
)
SQUARE = draw(6, 6)
GRID = 1 + np.arange(T - 1).reshape(3, 4).T.ravel()
MIXED = RNG.permutation(T)
BIAS = {"head.bias": draw(D), "pos_embed": draw(1, T, D), "other.bias": draw(D)}


def only(axis, at):
    value = A.copy()
    value[(slice(None),) * axis + (at,)] **= 2
    return value


def mask(share):
    return np.random.default_rng(3).random(A.shape) >= share


@pytest.mark.parametrize(
    ("code", "words", "found", "expected"),
    [
        ("zero", "zeros", 0 * A, A),
        ("not zero", "A is all zeros", A, 0 * A),
        ("not finite", "of B", np.where(mask(0.1), A, np.nan), A),
        ("not finite", "of A", A, np.where(mask(0.1), A, np.inf)),
        ("negated", "-A", -A, A),
        ("scaled", "1.37", 1.37 * A, A),
        ("offset", "the constant 0.25", A + 0.25, A),
        ("offset", "axes (0, 1)", A + draw(D), A),
        ("offset", "axes (0,)", A + draw(1, T, D), A),
        ("axes", "(1, 0)", SQUARE.T, SQUARE),
        ("axes", "(0, 2, 1)", A.transpose(0, 2, 1), A),
        ("axes", "reshaped", A.transpose(0, 2, 1).reshape(A.shape), A),
        ("axes", "(0, 1, 2), then reshaped", A.reshape(B * T, D), A),
        ("order", "reversed", A[:, ::-1], A),
        ("order", "axis 2", A[..., [1, 0, *range(2, D)]], A),
        ("order", "0 and 1 are exchanged", A[..., [1, 0, *range(2, D)]], A),
        ("order", "axis 1: [", A[:, MIXED], A),
        ("order", "a grid of 3 rows, read by columns", A[:, [0, *GRID]], A),
        ("order", "the first is last", np.roll(A, -1, axis=1), A),
        ("order", "each line along axis 1", np.sort(SQUARE, axis=1), SQUARE),
        ("shifted", "A[k - 1] along axis 0", FLAT[:-1], FLAT[1:]),
        ("shifted", "A[k + 1] along axis 0", FLAT[1:], FLAT[:-1]),
        ("dropout", "dropout is on", np.where(mask(0.2), A / 0.8, 0), A),
        ("zeros", "zero where A is not", np.where(mask(0.2), A, 0), A),
        ("place", "the class token", only(1, 0), A),
        ("place", f"the last token ({T - 1})", only(1, T - 1), A),
        ("place", f"the last batch item ({B - 1})", only(0, B - 1), A),
        ("place", "2 of 13 in token: 3, 5", only(1, [3, 5]), A),
    ],
)
def test_relations_of_two_arrays(code, words, found, expected):
    cause = best(found, expected, Context(made_by=taps_of(MODEL), axes=AXES), tap="block00")
    assert (cause.code, words in cause.text) == (code, True), cause


@pytest.mark.parametrize(
    ("tap", "factor", "words"),
    [
        ("contrastive", 3.0, "the batch size"),
        ("loss", 1 / 3, "1 / batch size"),
        ("grad/head.weight", 4.0, "micro-batches"),
        ("block00.attn.mix", 2.0, "done twice or √d"),
        ("block00.attn.query", 0.5, "1/√d"),
        ("momentum/head.weight", 0.1, "dampening"),
        ("step/head.weight", 2.0, "done twice"),
        ("step/head.weight", 1.9, "Nesterov"),
        ("step/head.weight", 2.500001, "not clipped"),
        ("step/head.weight", 1 / 0.03, "1 / learning rate"),
        ("cross_entropy", 5 / 4, "C / (C - 1)"),
        ("block00.mlp.hidden", 1 / 0.9, "rescaled but not dropped"),
    ],
)
@pytest.mark.parametrize("scalar", [True, False])
def test_constants_that_have_a_meaning(tap, factor, words, scalar):
    expected = np.float64(0.7) if scalar else A
    cause = best(factor * expected, expected, SETTINGS, tap)
    assert (cause.code, words in cause.text, cause.fitted) == ("scaled", True, 0), cause


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("name", ["head.bias", "pos_embed"])
def test_a_bias_is_named(name, sign):
    cause = best(A + sign * BIAS[name], A, Context(params=BIAS))
    assert cause.code == "bias" and cause.text.endswith(name)
    assert ("without" in cause.text) == (sign < 0)


@pytest.mark.parametrize("shape", [(K, D // K), (D // K, K)])
def test_heads_interleaved(shape):
    found = A.reshape(B, T, *shape).swapaxes(-1, -2).reshape(B, T, D)
    causes = relations(noisy(found, 1), noisy(A, 2), Context(heads=K))
    assert "heads" in codes(causes)


def test_another_update_and_another_tap():
    sequence = [draw(4, 5) for _ in range(4)]
    context = Context(sequence=sequence, position=1, taps={"block00": sequence[3], "x": A})
    assert best(sequence[0], sequence[1], context).text == "B is A 1 update earlier"
    causes = relations(noisy(sequence[3]), noisy(sequence[1]), context)
    assert {"update", "other tap"} == set(codes(causes))
    assert "B is A 2 updates later" in [cause.text for cause in causes]


@pytest.mark.parametrize(("name", "bits"), [("bfloat16", 16), ("float16 or TF32", 13)])
def test_rounded_to_a_shorter_format(name, bits):
    half = np.uint32(1 << (bits - 1))
    raw = noisy(A, 1).view(np.uint32) + half
    found = (raw & ~np.uint32((1 << bits) - 1)).view(np.float32)
    cause = relations(found, noisy(A, 2))[0]
    assert (cause.code, cause.text) == ("rounded", f"B is A rounded to {name}")


INDEX = np.array([[3, 1, 7, 2], [5, 12, 4, 9]])


@pytest.mark.parametrize(
    ("code", "found"),
    [("offset", INDEX - 1), ("order", INDEX[:, [2, 0, 3, 1]]), ("order", np.sort(INDEX, axis=1))],
)
def test_indices(code, found):
    assert code in codes(relations(found, INDEX, tap="part_index"))
    assert relations(INDEX[::-1] * 2 % 11, INDEX, tap="part_index") == []


# --- operations -------------------------------------------------------------------------------

PARAMS = {
    "cls_token": draw(1, 1, D),
    "pos_embed": draw(1, T, D),
    "patch_embed.weight": draw(D, 3, P, P),
    "patch_embed.bias": draw(D),
    "part_norm.weight": draw(D),
    "part_norm.bias": draw(D),
    "head.weight": draw(C, D),
    "head.bias": draw(C),
}
for _prefix in ("blocks.0", "blocks.1", "part_layer"):
    for _name, _shape in {
        "norm1": (D,),
        "norm2": (D,),
        "mlp.fc1": (M, D),
        "mlp.fc2": (D, M),
    }.items():
        PARAMS |= {
            f"{_prefix}.{_name}.weight": draw(*_shape),
            f"{_prefix}.{_name}.bias": draw(_shape[0]),
        }
    for _name in ("query", "key", "value", "out"):
        PARAMS |= {
            f"{_prefix}.attn.{_name}.weight": draw(D, D),
            f"{_prefix}.attn.{_name}.bias": draw(D),
        }
PARAMS = {name: p / {4: 60, 3: 3, 2: 4}.get(p.ndim, 1) for name, p in PARAMS.items()}
LABELS = np.array([1, 4, 1])


def ln(x, module, eps=1e-6, ddof=0, w=1, b=1):
    weight = PARAMS[f"{module}.weight"] if w else 1
    bias = PARAMS[f"{module}.bias"] if b else 0
    spread = np.sqrt(x.var(-1, ddof=ddof, keepdims=True) + eps)
    return (x - x.mean(-1, keepdims=True)) / spread * weight + bias


def conv(images, w, b=1, stride=S):
    rows, columns = ((n - P) // stride + 1 for n in images.shape[2:])
    out = [
        np.einsum("bcij,dcij->bd", images[:, :, r : r + P, c : c + P], w)
        for r in range(0, rows * stride, stride)
        for c in range(0, columns * stride, stride)
    ]
    return np.stack(out, 1) + b * PARAMS["patch_embed.bias"]


def heads_of(x, how="(K, d)"):
    d = D // K
    if how == "view":
        return x.reshape(B, K, -1, d)
    return np.stack(
        [x[..., k * d : (k + 1) * d] if how == "(K, d)" else x[..., k::K] for k in range(K)], 1
    )


def mixed(q, k, v, how):
    q, k, v = (heads_of(x, how.split) for x in ((k, q, v) if how.swap else (q, k, v)))
    d = D // K
    scores = np.einsum("bkid,bkjd->bkij", q, k)
    scaled = scores * {"1/√d": d**-0.5, "1/d": 1 / d, "1": 1, "1/√D": D**-0.5}[how.scale]
    weights = {
        "softmax": softmax(scaled, -1),
        "columns": softmax(scaled, -2),
        "none": scaled,
        "late scale": softmax(scores, -1) / d**0.5,
        "causal": softmax(scaled + np.triu(np.full(scores.shape[-2:], -1e9), 1), -1),
    }[how.weigh]
    out = np.einsum("bkij,bkjd->bkid", weights, v)
    if how.merge == "view":
        return out.reshape(B, -1, D)
    order = "bkid->bikd" if how.merge == "(K, d)" else "bkid->bidk"
    return np.einsum(order, out).reshape(B, -1, D)


def dense(x, module, b=1):
    return np.einsum("...i,oi->...o", x, PARAMS[f"{module}.weight"]) + b * PARAMS[f"{module}.bias"]


def gelu(x):
    return x * norm.cdf(x)


def passed():
    """A's taps of one small forward pass."""
    t = {"images": draw(B, 3, 10, 13), "labels": LABELS}
    t["patch_embed"] = conv(t["images"], PARAMS["patch_embed.weight"])
    cls = np.repeat(PARAMS["cls_token"], B, 0)
    t["tokens"] = np.concatenate([cls, t["patch_embed"]], 1) + PARAMS["pos_embed"]
    x = t["embed"] = t["tokens"]
    for outer, module in {
        "block00": "blocks.0",
        "block01": "blocks.1",
        "part_layer": "part_layer",
    }.items():
        if outer == "part_layer":
            t["part_scores"] = RNG.random((B, K, T - 1))
            t["part_index"] = t["part_scores"].argmax(-1) + 1
            x = t["part_tokens"] = np.stack([x[i][[0, *t["part_index"][i]]] for i in range(B)])
        y = t[f"{outer}.norm1"] = ln(x, f"{module}.norm1")
        for name in ("query", "key", "value"):
            t[f"{outer}.attn.{name}"] = dense(y, f"{module}.attn.{name}")
        q, k, v = (t[f"{outer}.attn.{name}"] for name in ("query", "key", "value"))
        t[f"{outer}.attn.mix"] = mixed(q, k, v, MIXES[0])
        t[f"{outer}.attn.out"] = dense(t[f"{outer}.attn.mix"], f"{module}.attn.out")
        x = t[f"{outer}.mid"] = x + t[f"{outer}.attn.out"]
        y = t[f"{outer}.norm2"] = ln(x, f"{module}.norm2")
        y = t[f"{outer}.mlp.fc1"] = dense(y, f"{module}.mlp.fc1")
        y = t[f"{outer}.mlp.gelu"] = t[f"{outer}.mlp.hidden"] = gelu(y)
        t[f"{outer}.mlp.fc2"] = t[f"{outer}.mlp.out"] = dense(y, f"{module}.mlp.fc2")
        x = t[outer] = x + t[f"{outer}.mlp.out"]
    t["part_norm"] = ln(x, "part_norm")
    t["features"] = t["part_norm"][:, 0]
    t["logits"] = dense(t["features"], "head")
    return t


TAPS = passed()
STORED = {n: noisy(v, i) for i, (n, v) in enumerate(TAPS.items())}
CONTEXT = Context(
    taps=STORED,
    params=PARAMS,
    heads=K,
    made_by=taps_of(MODEL),
    axes=AXES,
    margin=0.4,
    smoothing=0.1,
    batch=B,
    classes=C,
    width=D,
)
X, W = TAPS, PARAMS
FC1, IMAGES, KERNEL = X["block01.mlp.fc1"], X["images"], W["patch_embed.weight"]
QUERY, MIX = "blocks.1.attn.query", [X[f"block01.attn.{n}"] for n in ("query", "key", "value")]
CLS = np.repeat(W["cls_token"], B, 0)
BEFORE_HEAD = X["part_norm"]


def wrong_weight(x, module, weight):
    return x @ weight.T + PARAMS[f"{module}.bias"]


FAULTS = [
    ("block00.norm1", "eps 1e-05", ln(X["embed"], "blocks.0.norm1", 1e-5)),
    ("block01.norm1", "eps 0.001", ln(X["block00"], "blocks.1.norm1", 1e-3)),
    ("block01.norm2", "eps 0.0001", ln(X["block01.mid"], "blocks.1.norm2", 1e-4)),
    ("part_layer.norm1", "unbiased", ln(X["part_tokens"], "part_layer.norm1", ddof=1)),
    ("part_layer.norm2", "are 1 and 0", ln(X["part_layer.mid"], "part_layer.norm2", w=0, b=0)),
    ("part_norm", "weight is not applied", ln(X["part_layer"], "part_norm", w=0)),
    ("part_norm", "bias is not applied", ln(X["part_layer"], "part_norm", b=0)),
    ("part_norm", "left out", X["part_layer"]),
    (
        "block01.mlp.gelu",
        "tanh form",
        FC1 / 2 * (1 + np.tanh((2 / np.pi) ** 0.5 * (FC1 + 0.044715 * FC1**3))),
    ),
    ("block01.mlp.gelu", "1.702", FC1 / (1 + np.exp(-1.702 * FC1))),
    ("block01.mlp.gelu", "ReLU", FC1 * (FC1 > 0)),
    ("block01.mlp.gelu", "SiLU", FC1 * expit(FC1)),
    (
        "block01.attn.query",
        "transposed",
        wrong_weight(X["block01.norm1"], QUERY, W[f"{QUERY}.weight"].T),
    ),
    (
        "block01.attn.query",
        "blocks.1.attn.key is used",
        dense(X["block01.norm1"], "blocks.1.attn.key"),
    ),
    (
        "block01.attn.query",
        "blocks.0.attn.query is used",
        dense(X["block01.norm1"], "blocks.0.attn.query"),
    ),
    ("block01.attn.out", "not added", dense(X["block01.attn.mix"], "blocks.1.attn.out", b=0)),
    ("block01.mlp.fc1", "not added", dense(X["block01.norm2"], "blocks.1.mlp.fc1", b=0)),
    ("block01.mlp.fc2", "not added", dense(X["block01.mlp.hidden"], "blocks.1.mlp.fc2", b=0)),
    ("logits", "head.bias", dense(X["features"], "head", b=0)),
    ("logits", "log softmax", log_softmax(X["logits"], -1)),
    ("patch_embed", "rows and columns", conv(IMAGES, KERNEL.transpose(0, 1, 3, 2))),
    ("patch_embed", "BGR", conv(IMAGES[:, ::-1], KERNEL)),
    ("patch_embed", "flipped", conv(IMAGES, KERNEL[..., ::-1, ::-1])),
    ("patch_embed", "patch_embed.bias", conv(IMAGES, KERNEL, b=0)),
    ("patch_embed", "stride 4", conv(IMAGES, KERNEL, stride=P)),
    (
        "patch_embed",
        "(rows, columns, channels)",
        conv(IMAGES, np.moveaxis(KERNEL.reshape(D, P, P, 3), 3, 1)),
    ),
    ("tokens", "position embedding is not added", X["tokens"] - W["pos_embed"]),
    (
        "tokens",
        "is last, its position too",
        np.concatenate([X["patch_embed"], CLS], 1) + W["pos_embed"],
    ),
    (
        "tokens",
        "class token is zero",
        np.concatenate([0 * CLS, X["patch_embed"]], 1) + W["pos_embed"],
    ),
    ("block01.mid", "residual is not added", X["block01.attn.out"]),
    ("block01.mid", "after the layer norm", X["block01.norm1"] + X["block01.attn.out"]),
    ("block01", "without its attention", X["block00"] + X["block01.mlp.out"]),
    ("block01", "branch is not added", X["block01.mid"]),
    ("part_index", "one too small", X["part_index"] - 1),
    ("part_index", "smallest", X["part_scores"].argmin(-1) + 1),
    ("part_index", "best of the mean", np.stack([X["part_scores"].mean(1).argmax(-1) + 1] * K, 1)),
    ("part_tokens", "is last", np.roll(X["part_tokens"], -1, axis=1)),
    (
        "part_tokens",
        "index -1",
        np.stack([X["block01"][i][[0, *X["part_index"][i] - 1]] for i in range(B)]),
    ),
    ("features", "mean over all tokens is", BEFORE_HEAD.mean(1)),
    ("features", "last norm is left out", X["part_layer"][:, 0]),
]


def said(tap, found, context=CONTEXT, expected=None):
    """The sentences of all causes of a tap, best first."""
    stored = context.taps[tap] if expected is None else noisy(expected, 5)
    return [cause.text for cause in explain(tap, noisy(found, 99), stored, context)]


@pytest.mark.parametrize(("tap", "words", "found"), FAULTS)
def test_mistakes_in_operations(tap, words, found):
    texts = said(tap, found)
    assert texts and any(words in text for text in texts[:2]), texts


@pytest.mark.parametrize("mix", MIXES[1:], ids=[mix.text for mix in MIXES[1:]])
def test_mistakes_in_attention(mix: Mix):
    texts = said("block01.attn.mix", mixed(*MIX, mix))
    assert mix.text in texts[:2], texts


@pytest.mark.parametrize(
    "tap", [t for t in TAPS if t not in ("images", "labels", "embed", "part_scores")]
)
def test_no_cause_for_noise_or_for_an_unrelated_array(tap):
    assert said(tap, TAPS[tap]) == []
    if tap != "part_index":
        unrelated = np.random.default_rng(11).standard_normal(TAPS[tap].shape)
        assert said(tap, unrelated) == []
        assert said(tap, TAPS[tap] + 1e-3 * unrelated) == []


@pytest.mark.parametrize("tap", ["part_norm", "block01.mlp.gelu", "block01.attn.mix", "logits"])
def test_a_wrong_baseline_is_recognised(tap):
    """A is another function of its own inputs; B is the operation as defined."""
    right = TAPS[tap]
    damaged = right * np.linspace(0.5, 1.5, right.shape[-1]) ** 2
    texts = said(tap, right, expected=damaged)
    assert "as defined" in texts[0] and texts[0].endswith("gives B")


@pytest.mark.parametrize("ratio", [10, 100])
def test_one_pass_variance(ratio):
    rng = np.random.default_rng(ratio)
    x = rng.standard_normal((2, 9, 64)) + ratio
    weight, bias = rng.standard_normal((2, 64))
    core = x - x.mean(-1, keepdims=True)
    x32 = x.astype(np.float32)
    total, squares = np.zeros((2, 9, 1), np.float32), np.zeros((2, 9, 1), np.float32)
    for i in range(64):  # one by one in float32
        total, squares = total + x32[..., i : i + 1], squares + x32[..., i : i + 1] ** 2
    one_pass = squares / np.float32(64) - (total / np.float32(64)) ** 2
    expected = core / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * weight + bias
    found = core / np.sqrt(one_pass.astype(float) + 1e-6) * weight + bias
    params = {"part_norm.weight": weight, "part_norm.bias": bias}
    taps = {"part_layer": x, "part_norm": noisy(expected, 1)}
    context = Context(taps=taps, params=params, made_by=taps_of(MODEL))
    assert "E[x²] - E[x]²" in said("part_norm", found, context)[0]


def test_gelu_in_the_gradient():
    after = draw(*FC1.shape)
    taps = STORED | {"d/block01.mlp.gelu": after}
    right = after * (norm.cdf(FC1) + FC1 * norm.pdf(FC1))
    found = after * (expit(1.702 * FC1) * (1 + 1.702 * FC1 * expit(-1.702 * FC1)))
    taps["d/block01.mlp.fc1"] = noisy(right)
    context = Context(taps=taps, made_by=taps_of(MODEL))
    assert "1.702" in said("d/block01.mlp.fc1", found, context)[0]
    assert said("d/block01.mlp.fc1", right, context) == []


@pytest.mark.parametrize(("bits", "words"), [(16, "bfloat16"), (13, "TF32")])
def test_products_of_short_inputs(bits, words):
    def short(x):
        raw = x.astype(np.float32).view(np.uint32) + np.uint32(1 << (bits - 1))
        return (raw & ~np.uint32((1 << bits) - 1)).view(np.float32).astype(float)

    weight = short(W[f"{QUERY}.weight"])
    x = short(STORED["block01.norm1"])  # as stored in A's trace: rounding is not continuous
    assert words in said("block01.attn.query", wrong_weight(x, QUERY, weight))[0]


def pair_sum(x, labels, margin, normal=True, diagonal=True):
    total = 0.0
    for i in range(len(x)):
        for j in range(len(x)):
            size = np.linalg.norm(x[i]) * np.linalg.norm(x[j]) if normal else 1
            cos = x[i] @ x[j] / size
            if i != j or diagonal:
                total += 1 - cos if labels[i] == labels[j] else max(cos - margin, 0)
    return total


def smoothed(logits, target):
    return -(target * log_softmax(logits, -1)).sum(-1).mean()


F = X["features"] + 2  # cosines above the margin
ONE_HOT = np.eye(C)[LABELS]
CON, CE = pair_sum(F, LABELS, 0.4) / B**2, smoothed(X["logits"], 0.9 * ONE_HOT + 0.1 / C)
LOSSES = [
    ("contrastive", "margin 0 ", pair_sum(F, LABELS, 0) / B**2),
    ("contrastive", "margin 0.3 ", pair_sum(F, LABELS, 0.3) / B**2),
    ("contrastive", "divided by B,", CON * B),
    ("contrastive", "B (B - 1):", CON * B / (B - 1)),
    ("contrastive", "not normalised", pair_sum(F, LABELS, 0.4, normal=False) / B**2),
    ("contrastive", "not normalised, the diag", pair_sum(F, LABELS, 0.4, False, False) / B**2),
    (
        "cross_entropy",
        "C - 1 other",
        smoothed(X["logits"], 0.9 * ONE_HOT + 0.1 / (C - 1) * (1 - ONE_HOT)),
    ),
    ("cross_entropy", "no label smoothing", smoothed(X["logits"], ONE_HOT)),
    ("cross_entropy", "comes before", smoothed(softmax(X["logits"], -1), 0.9 * ONE_HOT + 0.1 / C)),
    ("loss", "contrastive loss is left out", CE),
    ("loss", "margin 0.5 ", CE + pair_sum(F, LABELS, 0.5) / B**2),
]
LOSS_TAPS = STORED | {
    "features": noisy(F),
    "cross_entropy": noisy(CE),
    "contrastive": noisy(CON),
    "loss": noisy(CE + CON),
}


@pytest.mark.parametrize(("tap", "words", "found"), LOSSES)
def test_mistakes_in_losses(tap, words, found):
    context = Context(taps=LOSS_TAPS, margin=0.4, smoothing=0.1, batch=B, classes=C)
    texts = said(tap, found, context)
    assert any(words in text for text in texts), texts
    assert said(tap, float(LOSS_TAPS[tap]), context) == []
    assert said(tap, 1.0317 * found, context) == []


SHARES, G = RNG.dirichlet(np.full(C, 0.5), B), draw(B, D)  # G: cosines of many sizes


def soft_pairs(x, shares, margin=0.4):
    z = x / np.linalg.norm(x, axis=1, keepdims=True)
    pairs = [(z[i] @ z[j], shares[i] @ shares[j]) for i in range(B) for j in range(B)]
    return sum(w * (1 - cos) + (1 - w) * max(cos - margin, 0) for cos, w in pairs) / B**2


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ("reverse order", SHARES[::-1]),
        ("image before", SHARES[[-1, 0, 1]]),
        ("larger label alone", ONE_HOT),
        ("no label smoothing", None),
    ],
)
def test_mistakes_with_targets(words, wrong):
    logits, targets = X["logits"], noisy(SHARES)
    ce, con = smoothed(logits, 0.9 * SHARES + 0.1 / C), soft_pairs(G, SHARES)
    taps = LOSS_TAPS | {"targets": targets, "features": noisy(G)}
    taps |= {"cross_entropy": noisy(ce), "contrastive": noisy(con)}
    context = Context(taps=taps, margin=0.4, smoothing=0.1, batch=B, classes=C)
    found = smoothed(logits, SHARES if wrong is None else 0.9 * wrong + 0.1 / C)
    assert any(words in text for text in said("cross_entropy", found, context))
    if wrong is not None:
        pairs = said("contrastive", soft_pairs(G, wrong), context)
        assert any(words in text for text in pairs), pairs
    assert said("cross_entropy", ce, context) == said("contrastive", con, context) == []


LR, DECAY, CLIP = 0.03, 0.2, 1.0
NAME = "blocks.1.attn.query.weight"
GRAD, WEIGHT, NORM = draw(D, D), W[NAME], 40.0
FACTOR = CLIP / NORM
UPDATES = [
    ("decay is missing", FACTOR * GRAD),
    ("decay comes twice", FACTOR * GRAD + 2 * DECAY * WEIGHT),
    ("not clipped", GRAD + DECAY * WEIGHT),
    ("before clipping", FACTOR * (GRAD + DECAY * WEIGHT)),
    ("dampening", 0.1 * (FACTOR * GRAD + DECAY * WEIGHT)),
]


@pytest.mark.parametrize("kind", ["momentum", "step"])
@pytest.mark.parametrize(("words", "momentum"), UPDATES)
def test_mistakes_in_the_update(kind, words, momentum):
    unit = -LR if kind == "step" else 1.0
    tap, expected = f"{kind}/{NAME}", unit * (FACTOR * GRAD + DECAY * WEIGHT)
    taps = {f"grad/{NAME}": GRAD, "grad_norm": np.float64(NORM), tap: noisy(expected)}
    context = Context(taps=taps, params=PARAMS, lr=LR, momentum=0.9, weight_decay=DECAY, clip=CLIP)
    texts = said(tap, unit * momentum, context)
    if words == "before clipping" and kind == "momentum":
        assert any(words in text for text in texts), texts
        return
    assert any(words in text for text in texts), texts
    assert said(tap, expected, context) == []


def test_learning_rates_off_by_one():
    rates = 0.03 * np.cos(np.linspace(0, 1.5, 6))
    assert (
        "A[k - 1]"
        in said("lr", np.concatenate([[0.0], rates[:-1]]), Context(taps={"lr": rates}))[0]
    )


def test_nothing_but_relations_without_inputs():
    tanh = FAULTS[8][2]
    assert explain("block01.mlp.gelu", noisy(tanh), STORED["block01.mlp.gelu"]) == []
    doubled = explain(
        "block01.mlp.gelu", 2 * STORED["block01.mlp.gelu"], STORED["block01.mlp.gelu"]
    )
    assert codes(doubled) == ["scaled"]


@pytest.mark.parametrize(
    ("words", "found"),
    [("the square", 25.0), ("after clipping", 1.0), ("are added up", 7.0), ("the largest", 4.0)],
)
def test_mistakes_in_the_norm_of_gradients(words, found):
    grads = {"grad/a": np.array([[3.0, 0.0]]), "grad/b": np.array([0.0, 4.0])}
    context = Context(taps=grads | {"grad_norm": noisy(5.0)}, clip=1.0)
    assert any(words in text for text in said("grad_norm", found, context))
    assert said("grad_norm", 5.0, context) == []
