"""What both frameworks compute: weights, a batch and settings, in NumPy.

Sizes are unequal on every axis, and weights and images random on every axis, so that a swapped axis
cannot hide. Shapes: B images, R colours, C classes; a weight of a convolution is (out, in, 3, 3).
"""

import numpy as np

B, R, C = 8, 3, 5
IMAGE = (13, 11)
SETTINGS = {"channels": [6, 10], "stride": [1, 2], "eps": 1e-5, "momentum": 0.1, "loss": "mean"}
# A batch norm takes a bias before it away again, so that the true gradient of that bias is zero
ZEROS = {f"gradients/conv{i}.bias": f"gradients/norm{i}.bias" for i in (1, 2)}


def draw_weights() -> dict[str, np.ndarray]:
    """Parameters and statistics by the names that both models use, float32."""
    rng = np.random.default_rng(1)
    one, two = SETTINGS["channels"]
    shapes = {"conv1": (one, R, 3, 3), "conv2": (two, one, 3, 3), "head": (C, two)}
    weights = {}
    for name, shape in shapes.items():
        deviation = np.prod(shape[1:]) ** -0.5
        weights[f"{name}.weight"] = deviation * rng.standard_normal(shape)
        weights[f"{name}.bias"] = 0.1 * rng.standard_normal(shape[:1])
    for name, width in (("norm1", one), ("norm2", two)):
        weights[f"{name}.weight"] = rng.uniform(0.5, 1.5, width)
        weights[f"{name}.bias"] = 0.1 * rng.standard_normal(width)
        weights[f"{name}.running_mean"] = 0.1 * rng.standard_normal(width)
        weights[f"{name}.running_var"] = rng.uniform(0.5, 1.5, width)
    return {name: value.astype(np.float32) for name, value in weights.items()}


def draw_inputs() -> dict[str, np.ndarray]:
    """images (B, R, 13, 11) float32, labels (B,)."""
    rng = np.random.default_rng(2)
    images = rng.standard_normal((B, R, *IMAGE)).astype(np.float32)
    return {"images": images, "labels": rng.integers(0, C, B)}
