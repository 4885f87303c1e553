"""What both frameworks compute: weights, a batch and settings, in NumPy.

All sizes are unequal, and weights and images are random on every axis, so that a swapped axis
shows. Shapes: B images, R colours, C classes; a weight of a convolution is (out, in, 3, 3).
"""

import numpy as np

B, R, C = 8, 3, 5
IMAGE = (13, 11)
SETTINGS = {"channels": [6, 10], "stride": [1, 2], "eps": 1e-5, "momentum": 0.1, "loss": "mean"}
# A batch norm removes a bias before it, so the true gradient of that bias is zero
ZEROS = {f"gradients/conv{i}.bias": f"gradients/norm{i}.bias" for i in (1, 2)}


def draw_weights() -> dict[str, np.ndarray]:
    """Parameters and running statistics under the names that both models use; float32."""
    rng = np.random.default_rng(1)
    width1, width2 = SETTINGS["channels"]
    shapes = {"conv1": (width1, R, 3, 3), "conv2": (width2, width1, 3, 3), "head": (C, width2)}
    weights = {}
    for name, shape in shapes.items():
        deviation = np.prod(shape[1:]) ** -0.5
        weights[f"{name}.weight"] = deviation * rng.standard_normal(shape)
        weights[f"{name}.bias"] = 0.1 * rng.standard_normal(shape[:1])
    for name, width in (("norm1", width1), ("norm2", width2)):
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
