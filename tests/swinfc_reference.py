"""SwinFC's modules in NumPy and float64, written from the paper's equations (Xiang et al. 2023).

As `tests/reference.py`: simple on purpose, with loops over images, heads and positions. A map of
one image is (F, H, W), or (F, N) with its positions in one line, as in the equations.
"""

import numpy as np
from reference import softmax
from scipy.signal import correlate

EPS = 1e-5  # of a batch norm


def batch_norm(x, params, name, training=True):
    """Each channel of (B, F, ...): minus its mean, over its deviation, times weight, plus bias."""
    axes = (0, *range(2, x.ndim))
    mean = x.mean(axes) if training else params[f"{name}.running_mean"]
    var = x.var(axes) if training else params[f"{name}.running_var"]
    scale = params[f"{name}.weight"] / np.sqrt(var + EPS)
    across = (slice(None), *[None] * (x.ndim - 2))
    return (x - mean[across]) * scale[across] + params[f"{name}.bias"][across]


def correlate_all(x, weight):
    """A convolution with zeros around: (F, H, W), (G, F, k, l) -> (G, H, W)."""
    return np.stack([correlate(np.pad(x, pads(kernel)), kernel, "valid")[0] for kernel in weight])


def pads(kernel):
    """Zeros on each side of (F, H, W) that keep the map's size under a kernel (F, k, l)."""
    return [(0, 0), *[(side // 2, side // 2) for side in kernel.shape[1:]]]


def ea(x, params, name, training=True):
    """Equations 1 to 3 of a batch (B, F, H, W): X + Conv(Norm(Conv(X))), along one line."""
    line = x.reshape(*x.shape[:2], -1, 1)
    read = np.stack([correlate_all(image, params[f"{name}.read.weight"]) for image in line])
    if f"{name}.norm.weight" in params:
        memories = batch_norm(read, params, f"{name}.norm", training)
    else:
        weights = softmax(read.swapaxes(2, 3)).swapaxes(2, 3)  # over positions
        memories = weights / weights.sum(1, keepdims=True)  # over memories
    write = params[f"{name}.write.weight"][:, :, 0, 0]
    return x + np.einsum("fm,bmn->bfn", write, memories[..., 0]).reshape(x.shape)


def ca(x, params, name):
    """Equations 4 to 6 of a batch (B, F, H, W): X (AH + AW)."""
    out = np.empty_like(x)
    for b, image in enumerate(x):
        by_row = correlate_all(image.mean(2)[:, :, None], params[f"{name}.rows.weight"])[:, :, 0]
        by_column = correlate_all(image.mean(1)[:, None], params[f"{name}.columns.weight"])[:, 0]
        out[b] = image * (softmax(by_row)[:, :, None] + softmax(by_column)[:, None, :])
    return out


def align(x, params, name, training=True):
    """1x1 and 3x3 convolutions, each with batch norm and ReLU: (B, F, H, W) -> (B, G, H, W)."""
    for number in (1, 2):
        weight = params[f"{name}.conv{number}.weight"]
        x = np.stack([correlate_all(image, weight) for image in x])
        x = np.maximum(batch_norm(x, params, f"{name}.norm{number}", training), 0)
    return x


def lacking(x, y, scale):
    """Equations 7 to 11: what x (F, N) lacks of y (F, S), for each position of x: (F, N).

    M = xᵀ y; x's position n gets y · softmax(-M[n]) over y's positions. `scale` None: M is not
    scaled; else the columns have length 1, and M is multiplied by it.
    """
    out = np.empty_like(x)
    for n in range(x.shape[1]):
        products = y.T @ x[:, n]
        if scale is not None:
            products *= scale / (np.linalg.norm(x[:, n]) * np.linalg.norm(y, axis=0))
        out[:, n] = y @ softmax(-products)
    return out


def ffm(maps, cosine=False):
    """Equation 12 for all maps (B, F, H, W), then the mean over positions: a list of (B, F)."""
    pooled = []
    for i, own in enumerate(maps):
        rows = []
        for b in range(len(own)):
            lines = [x[b].reshape(x.shape[1], -1) for x in maps]
            scale = np.sqrt(own.shape[1]) if cosine else None
            others = [lacking(lines[i], y, scale) for j, y in enumerate(lines) if j != i]
            rows.append((lines[i] + sum(others)).mean(1))
        pooled.append(np.stack(rows))
    return pooled


def mlp_head(x, params, name, training=True):
    """Batch norm, linear, batch norm, ELU, linear: (B, F) -> (B, C)."""
    x = batch_norm(x, params, f"{name}.norm1", training)
    x = x @ params[f"{name}.fc1.weight"].T + params[f"{name}.fc1.bias"]
    x = batch_norm(x, params, f"{name}.norm2", training)
    x = np.where(x > 0, x, np.expm1(x))
    return x @ params[f"{name}.fc2.weight"].T + params[f"{name}.fc2.bias"]


def fsm_scores(q, k, table, windows, heads):
    """Equation 13 with windows: mean over a token's window of what its tokens pay it.

    q, k (U, D) of the padded map -> (K, U). The maps are formed token by token.
    """
    width = q.shape[1] // heads
    scores = np.zeros((heads, len(q)))
    for order, region in zip(windows.order, windows.regions, strict=True):
        for head in range(heads):
            own = slice(head * width, (head + 1) * width)
            for i in range(len(order)):
                row = k[order, own] @ q[order[i], own] / np.sqrt(width)
                row = row + table[windows.offsets[i], head]
                row = np.where(region == region[i], row, -np.inf)
                scores[head, order] += softmax(row) / len(order)
    return scores
