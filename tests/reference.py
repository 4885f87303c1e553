"""TransFG in NumPy and float64, written only from the description of the method.

The code is simple on purpose: full attention maps, their full products, and loops over heads and
images where they read best. Parameters have canonical names. Shapes: B batch, N patches,
T = N + 1 tokens, D width, K heads, C classes.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

Array = NDArray[Any]


class Result(NamedTuple):
    """logits (B, C); features (B, D); index and scores of the parts; activations by tap name."""

    logits: Array
    features: Array
    part_index: Array | None
    part_scores: Array | None
    taps: dict[str, Array]


def relative(value: Array, reference: Array) -> float:
    """|value - reference| / |reference|, over all elements."""
    value, reference = np.asarray(value, np.float64), np.asarray(reference, np.float64)
    assert value.shape == reference.shape, (value.shape, reference.shape)
    return float(np.linalg.norm(value - reference) / np.linalg.norm(reference))


def softmax(x: Array) -> Array:
    """Softmax over the last axis."""
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def gelu(x: Array) -> Array:
    """x times the distribution function of the standard normal at x."""
    return x * 0.5 * (1 + erf(x / np.sqrt(2)))


def layer_norm(x: Array, weight: Array, bias: Array) -> Array:
    """Layer norm over the last axis, eps 1e-6."""
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(
        x.var(-1, keepdims=True) + 1e-6
    ) * weight + bias


def heads_of(x: Array, heads: int) -> Array:
    """(B, T, D) -> (B, K, T, D / K)."""
    return np.stack(np.split(x, heads, axis=-1), axis=1)


def attention_scores(q: Array, k: Array, heads: int) -> Array:
    """q kᵀ / √d: q, k (B, T, D) -> (B, K, T, T)."""
    q, k = heads_of(q, heads), heads_of(k, heads)
    return np.einsum("bkid,bkjd->bkij", q, k) / np.sqrt(q.shape[-1])


def attention_maps(q: Array, k: Array, heads: int) -> Array:
    """softmax(q kᵀ / √d): q, k (B, T, D) -> (B, K, T, T)."""
    return softmax(attention_scores(q, k, heads))


def attention(q: Array, k: Array, v: Array, heads: int) -> Array:
    """Attention: q, k, v (B, T, D) -> (B, T, D)."""
    out = np.einsum("bkij,bkjd->bkid", attention_maps(q, k, heads), heads_of(v, heads))
    return np.concatenate(list(np.moveaxis(out, 1, 0)), axis=-1)


def attention_gradients(
    q: Array, k: Array, v: Array, heads: int, grad: Array
) -> tuple[Array, Array, Array]:
    """Gradients of sum(grad · attention) by q, k and v."""
    p = attention_maps(q, k, heads)
    q, k, v, g = (heads_of(x, heads) for x in (q, k, v, grad))
    dp = np.einsum("bkid,bkjd->bkij", g, v)
    ds = p * (dp - (dp * p).sum(-1, keepdims=True)) / np.sqrt(q.shape[-1])
    parts = (
        np.einsum("bkij,bkjd->bkid", ds, k),
        np.einsum("bkij,bkid->bkjd", ds, q),
        np.einsum("bkij,bkid->bkjd", p, g),
    )
    dq, dk, dv = (np.concatenate(list(np.moveaxis(x, 1, 0)), axis=-1) for x in parts)
    return dq, dk, dv


def block(p: dict[str, Array], name: str, x: Array, heads: int) -> tuple[Array, Array]:
    """Output of one pre-norm encoder block, and its attention scores before the softmax."""

    def linear(layer: str, x: Array) -> Array:
        return x @ p[f"{name}.{layer}.weight"].T + p[f"{name}.{layer}.bias"]

    def norm(layer: str, x: Array) -> Array:
        return layer_norm(x, p[f"{name}.{layer}.weight"], p[f"{name}.{layer}.bias"])

    y = norm("norm1", x)
    q, k, v = (linear(layer, y) for layer in ("attn.query", "attn.key", "attn.value"))
    x = x + linear("attn.out", attention(q, k, v, heads))
    x = x + linear("mlp.fc2", gelu(linear("mlp.fc1", norm("norm2", x))))
    return x, attention_scores(q, k, heads)


def mutual_attention(scores: Array) -> Array:
    """How much class token and patch attend to each other: scores (B, K, T, T) -> (B, N)."""
    given = softmax(scores).mean(1)[:, 0, 1:]
    received = softmax(scores.swapaxes(-2, -1)).swapaxes(-2, -1).mean(1)[:, 1:, 0]
    return given * received


def cosines(x: Array) -> Array:
    """Cosine of token 0 and every other, pair by pair: (B, T, D) -> (B, N)."""
    size = np.linalg.norm
    return np.array([[a[0] @ b / (size(a[0]) * size(b)) for b in a[1:]] for a in x])


def largest(scores: Array, count: int) -> Array:
    """Indices from 1 of the `count` largest of each row, the first of equals: -> (B, J count)."""
    order = [[sorted(range(len(row)), key=lambda j: (-row[j], j)) for row in a] for a in scores]
    return np.array(order)[..., :count].reshape(len(scores), -1) + 1


def fuse(maps: list[Array], fusion: str) -> Array:
    """(B, K, T, T) per block -> part scores (B, K, N): the whole product, then its row 0."""
    if fusion == "matmul":
        fused = maps[0]
        for attention_map in maps[1:]:
            fused = attention_map @ fused
    elif fusion == "mul":
        fused = np.log(np.prod(maps, axis=0))  # float64 does not underflow at these sizes
    elif fusion == "add":
        fused = np.sum(maps, axis=0)
    else:
        fused = maps[-1]
    return fused[:, :, 0, 1:]


def patches(images: Array, weight: Array, bias: Array, stride: int) -> Array:
    """(B, 3, H, W) -> (B, N, D), patch by patch."""
    size = weight.shape[-1]
    tokens = [
        np.einsum("bchw,dchw->bd", images[:, :, i : i + size, j : j + size], weight) + bias
        for i in range(0, images.shape[2] - size + 1, stride)
        for j in range(0, images.shape[3] - size + 1, stride)
    ]
    return np.stack(tokens, axis=1)


def select(
    p: dict[str, Array], layers: list[Array], scores: list[Array], model: Any
) -> tuple[Array, Array]:
    """Part scores (B, J, N) and indices (B, S), from every block's output and attention scores."""
    if model.selection == "maws":
        rows = np.stack([mutual_attention(x) for x in scores], axis=1)
    elif model.selection == "cls_similarity":
        norm = "part_norm" if "part_norm.weight" in p else "norm"
        rows = cosines(layer_norm(layers[-1], p[f"{norm}.weight"], p[f"{norm}.bias"]))[:, None]
    else:
        rows = fuse([softmax(x) for x in scores], model.fusion)
        return rows, largest(rows, 1)
    return rows, largest(rows, model.top_k or model.heads)


def gather(layers: list[Array], index: Array, model: Any) -> Array:
    """The last class token and the chosen tokens; `maws` takes them from the layer that chose."""
    images = []
    for b, chosen in enumerate(index):
        tokens = [layers[-1][b, 0]]
        for place, token in enumerate(chosen):
            layer = place // (model.top_k or model.heads) if model.selection == "maws" else -1
            tokens.append(layers[layer][b, token])
        images.append(tokens)
    return np.array(images)


def forward(
    params: dict[str, Array], images: Array, model: Any, index: Array | None = None
) -> Result:
    """The whole network; `model` is a VitConfig, and `index` (B, S) replaces its choice."""
    p = {name: np.asarray(value, np.float64) for name, value in params.items()}
    x = patches(
        images.astype(np.float64), p["patch_embed.weight"], p["patch_embed.bias"], model.stride
    )
    taps = {"patch_embed": x}
    cls = np.repeat(p["cls_token"], len(x), axis=0)
    x = taps["embed"] = np.concatenate([cls, x], axis=1) + p["pos_embed"]
    layers, attention = [], []
    for depth in range(model.depth - (model.placement == "transfg")):
        x, raw = block(p, f"blocks.{depth}", x, model.heads)
        taps[f"block{depth:02d}"] = x
        layers.append(x)
        attention.append(raw)
    scores = None
    if model.placement != "none":
        if model.selection not in ("random", "center"):
            scores, own = select(p, layers, attention, model)
            taps["part_scores"] = scores
            index = own if index is None else index
        taps["part_index"] = index
        x = taps["part_tokens"] = gather(layers, index, model)
    if "part_layer.norm1.weight" in p:
        x = taps["part_layer"] = block(p, "part_layer", x, model.heads)[0]
    norm = "part_norm" if "part_norm.weight" in p else "norm"
    x = taps[norm] = layer_norm(x, p[f"{norm}.weight"], p[f"{norm}.bias"])
    if model.placement == "flatten":
        first = 0 if model.flatten_class_token else 1
        features = np.array([np.concatenate(list(image[first:])) for image in x])
    else:
        features = x[:, 0]
    taps["features"] = features
    logits = taps["logits"] = features @ p["head.weight"].T + p["head.bias"]
    return Result(logits, features, index, scores, taps)


def cross_entropy(logits: Array, targets: Array, smoothing: float) -> float:
    """(1 - s) · -t · log p + s · mean over classes of -log p, mean over the batch.

    `targets` are labels (B,), or the shares of the classes in each image (B, C).
    """
    log_p = np.log(softmax(logits.astype(np.float64)))
    if targets.ndim == 1:
        nll = -log_p[np.arange(len(targets)), targets]
    else:
        nll = np.array([-row.astype(np.float64) @ p for row, p in zip(targets, log_p, strict=True)])
    return float(((1 - smoothing) * nll + smoothing * -log_p.mean(-1)).mean())


def contrastive(features: Array, targets: Array, margin: float) -> float:
    """Contrastive loss over all ordered pairs, i = j included, divided by B².

    A pair counts as of one class with the weight t_i · t_j; labels agree or differ.
    """
    norms = np.linalg.norm(features.astype(np.float64), axis=-1, keepdims=True)
    z = features / np.maximum(norms, 1e-12)
    total = 0.0
    for i, a in enumerate(targets):
        for j, b in enumerate(targets):
            cosine = float(z[i] @ z[j])
            weight = float(a == b) if targets.ndim == 1 else float(sum(a.astype(np.float64) * b))
            total += weight * (1 - cosine) + (1 - weight) * max(cosine - margin, 0.0)
    return total / len(targets) ** 2


class Optimizer:
    """SGD with momentum, Adam and AdamW, with groups and clipping; `optim` is an OptimConfig."""

    def __init__(
        self, params: dict[str, Array], groups: dict[str, tuple[float, float]], optim: Any
    ):
        self.params = {name: np.asarray(value, np.float64) for name, value in params.items()}
        self.groups, self.optim, self.updates = groups, optim, 0
        names = ("momentum",) if optim.name == "sgd" else ("exp_avg", "exp_avg_sq")
        self.slots = {slot: {n: np.zeros_like(v) for n, v in self.params.items()} for slot in names}

    def step(self, grads: dict[str, Array], lr: float) -> float:
        """Do one update; return the norm of all gradients before clipping."""
        self.updates += 1
        norm = float(np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in grads.values())))
        clip = self.optim.clip
        factor = 1.0 if clip is None else min(clip / (norm + 1e-6), 1.0)
        for name, grad in grads.items():
            scale, decay = self.groups[name]
            self.update(name, grad.astype(np.float64) * factor, lr * scale, decay)
        return norm

    def update(self, name: str, g: Array, lr: float, decay: float) -> None:
        """Update one parameter."""
        w, optim = self.params[name], self.optim
        if optim.name == "sgd":
            buf = self.slots["momentum"][name] = (
                optim.momentum * self.slots["momentum"][name] + g + decay * w
            )
            self.params[name] = w - lr * buf
            return
        if optim.name == "adam":
            g = g + decay * w
        else:
            w = w - lr * decay * w
        b1, b2 = optim.betas
        m = self.slots["exp_avg"][name] = b1 * self.slots["exp_avg"][name] + (1 - b1) * g
        v = self.slots["exp_avg_sq"][name] = b2 * self.slots["exp_avg_sq"][name] + (1 - b2) * g**2
        m_hat, v_hat = m / (1 - b1**self.updates), v / (1 - b2**self.updates)
        self.params[name] = w - lr * m_hat / (np.sqrt(v_hat) + optim.eps)


def windows(
    x: Array, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> list[tuple[tuple[int, int], tuple[slice, ...]]]:
    """Of each position (i, j) of a convolution: the slice of the padded input under its kernel."""
    sides = [side + 2 * border for side, border in zip(x.shape[2:], padding, strict=True)]
    rows, columns = (
        range(0, side - length + 1, step)
        for side, length, step in zip(sides, kernel, stride, strict=True)
    )
    return [
        ((i, j), (slice(None), slice(None), slice(r, r + kernel[0]), slice(c, c + kernel[1])))
        for i, r in enumerate(rows)
        for j, c in enumerate(columns)
    ]


def pad(x: Array, padding: tuple[int, int], value: float = 0.0) -> Array:
    """Rows and columns of `value` around the last two axes."""
    around = [(0, 0), (0, 0), *((border, border) for border in padding)]
    return np.pad(x, around, constant_values=value)


def convolution(
    x: Array,
    weight: Array,
    bias: Array | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> Array:
    """Cross-correlation, position by position: (B, C, H, W), (F, C, k, l) -> (B, F, h, w)."""
    places = windows(x, weight.shape[2:], stride, padding)
    (rows, columns), padded = places[-1][0], pad(x, padding)
    out = np.zeros((len(x), len(weight), rows + 1, columns + 1))
    for (i, j), window in places:
        out[:, :, i, j] = np.einsum("bckl,fckl->bf", padded[window], weight)
    return out if bias is None else out + bias[:, None, None]


def convolution_gradients(
    x: Array, weight: Array, grad: Array, stride: tuple[int, int], padding: tuple[int, int]
) -> tuple[Array, Array, Array]:
    """Gradients of sum(grad · convolution) by input, weight and bias."""
    padded = pad(x, padding)
    by_padded, by_weight = np.zeros_like(padded), np.zeros_like(weight)
    for (i, j), window in windows(x, weight.shape[2:], stride, padding):
        by_padded[window] += np.einsum("bf,fckl->bckl", grad[:, :, i, j], weight)
        by_weight += np.einsum("bf,bckl->fckl", grad[:, :, i, j], padded[window])
    (top, left), (rows, columns) = padding, x.shape[2:]
    by_x = by_padded[:, :, top : top + rows, left : left + columns]
    return by_x, by_weight, grad.sum((0, 2, 3))
