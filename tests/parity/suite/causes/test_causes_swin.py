"""Known mistakes in the Swin Transformer are recognised, and named by its own table.

The faults are computed here, over whole maps with masks of who attends to whom.
"""

import numpy as np
import pytest

from parity.suite.causes import explain
from parity.suite.causes.context import Context
from transfg_core.config.swin import SwinConfig
from transfg_core.models.layout import taps_of

MODEL = SwinConfig(classes=4, width=6, heads=(2, 2, 4, 4), depths=(2, 2, 1, 1), window=4)
SIZE = (28, 32)  # maps of 7 x 8, padded to 8 x 8; 4 x 4; 2 x 2; 1 x 1
TABLE = np.random.default_rng(1).standard_normal((49, 2))
NAME, SIDE, SHIFT = "stage0_block01.attn", 8, 2
PLACES = list(np.ndindex(SIDE, SIDE))


def mix(q, k, v, way=1, masked=True, table=TABLE, back=None, exchange=False, scale=3**-0.5):
    """One block with windows of 4 x 4 on 8 x 8 tokens, shifted by 2: (B, 64, 6) -> (B, 56, 6)."""
    step = way * SHIFT

    def home(place):
        moved = [(side - step) % SIDE // 4 for side in place]
        outside = [side < step if step > 0 else side >= SIDE + step for side in place]
        return (*moved, *(outside if masked and step else ()))

    allowed = np.array([[home(a) == home(b) for b in PLACES] for a in PLACES])
    row = np.array([[offset(a, b, step) for b in PLACES] for a in PLACES])
    bias = table[np.where(allowed, row.T if exchange else row, 0)].transpose(2, 0, 1)
    heads = [x.reshape(len(x), 64, 2, 3).swapaxes(1, 2) for x in (q, k, v)]
    scores = np.where(allowed, heads[0] @ heads[1].swapaxes(2, 3) * scale + bias, -np.inf)
    maps = np.exp(scores - scores.max(-1, keepdims=True))
    out = (maps / maps.sum(-1, keepdims=True) @ heads[2]).swapaxes(1, 2).reshape(q.shape)
    grid = out.reshape(-1, SIDE, SIDE, 6)
    if back is not None:
        grid = np.roll(grid, back, (1, 2))
    return grid[:, :7].reshape(len(q), 56, 6)


def offset(a, b, step):
    """Row of the table for two tokens of one shifted window, which may lie on both sides."""
    down, right = ((x - step) % SIDE % 4 - (y - step) % SIDE % 4 for x, y in zip(a, b, strict=True))
    return (down + 3) * 7 + right + 3


def context():
    """Inputs of the second block and of the first merging."""
    rng = np.random.default_rng(4)
    taps = {f"{NAME}.{name}": rng.standard_normal((2, 64, 6)) for name in ("query", "key", "value")}
    taps["stage0_block01"] = rng.standard_normal((2, 56, 6))
    taps["norm"] = rng.standard_normal((2, 9, 48))
    params = {"stages.0.blocks.1.attn.bias_table": TABLE}
    return Context(taps, params, taps_of(MODEL), model=MODEL, image_size=SIZE)


def noisy(value, seed):
    error = 3e-7 * np.random.default_rng(seed).standard_normal(value.shape)
    return (value * (1 + error)).astype(np.float32)


TURNED = TABLE.reshape(7, 7, 2).swapaxes(0, 1).reshape(49, 2)
FAULTS = {
    "the mask between regions is missing": {"masked": False},
    "the windows are not shifted": {"way": 0},
    "shift of the windows is not undone": {"back": (-SHIFT, -SHIFT)},
    "bias of the offsets is not added": {"table": 0 * TABLE},
    "from query to key": {"exchange": True},
    "rows and columns of the bias table": {"table": TURNED},
    "scaled by 1/d": {"scale": 1 / 3},
    "scaled by nothing": {"scale": 1.0},
}


@pytest.mark.parametrize("words", FAULTS)
def test_faults_of_window_attention(words):
    known = context()
    inputs = [known.taps[f"{NAME}.{name}"] for name in ("query", "key", "value")]
    found, expected = noisy(mix(*inputs, **FAULTS[words]), 1), noisy(mix(*inputs), 2)
    causes = explain(f"{NAME}.mix", found, expected, known)
    assert causes and words in causes[0].text


def test_windows_that_are_right_are_as_defined():
    known = context()
    inputs = [known.taps[f"{NAME}.{name}"] for name in ("query", "key", "value")]
    right = mix(*inputs)
    causes = explain(f"{NAME}.mix", noisy(right, 1), noisy(right + 1, 2), known)
    assert causes[0].code == "as defined"


def test_faults_of_merging():
    known = context()
    grid = np.pad(
        known.taps["stage0_block01"].reshape(2, 7, 8, 6), [(0, 0), (0, 1), (0, 0), (0, 0)]
    )
    parts = [grid[:, r::2, c::2] for c in (0, 1) for r in (0, 1)]
    expected = np.concatenate(parts, -1).reshape(2, 16, 24)
    found = np.concatenate([parts[i] for i in (0, 2, 1, 3)], -1).reshape(2, 16, 24)
    (cause, *_) = explain("merging0.patches", noisy(found, 1), noisy(expected, 2), known)
    assert cause.code == "order" and "row by row" in cause.text


def test_another_mean_over_tokens():
    known = context()
    x = known.taps["norm"]
    (cause, *_) = explain("features", noisy(x.max(1), 1), noisy(x.mean(1), 2), known)
    assert cause.code == "pooling" and "largest" in cause.text
