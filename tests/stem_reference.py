"""The stem of hybrids in NumPy and float64, written only from the description of the method.

Sources: Dosovitskiy et al. 2021 (arXiv 2010.11929); Wu and He 2018 (arXiv 1803.08494); Qiao et al.
2019 (arXiv 1903.10520). Padding is what TensorFlow calls SAME. Shapes: B batch, C channels, H x W
positions.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from reference import convolution

Array = NDArray[Any]


def same(x: Array, kernel: int, stride: int, value: float = 0.0) -> Array:
    """x with a border, such that ceil(side / stride) windows fit; the end has the odd one."""
    border = [(0, 0), (0, 0)]
    for side in x.shape[2:]:
        windows = int(np.ceil(side / stride))
        total = max((windows - 1) * stride + kernel - side, 0)
        border.append((total // 2, total - total // 2))
    return np.pad(x, border, constant_values=value)


def standardised(weight: Array) -> Array:
    """Each kernel minus its mean, over its deviation plus 1e-5."""
    axes = (1, 2, 3)
    centred = weight - weight.mean(axes, keepdims=True)
    return centred / (weight.std(axes, keepdims=True) + 1e-5)


def norm(
    x: Array, weight: Array, bias: Array, groups: int = 32, eps: float = 1e-6, ddof: int = 0
) -> Array:
    """Group norm, group by group: (B, C, H, W) -> (B, C, H, W)."""
    out = np.empty_like(x)
    size = x.shape[1] // groups
    for start in range(0, x.shape[1], size):
        members = slice(start, start + size)
        part = x[:, members]
        mean = part.mean((1, 2, 3), keepdims=True)
        variance = part.var((1, 2, 3), keepdims=True, ddof=ddof)
        out[:, members] = (part - mean) / np.sqrt(variance + eps)
    return out * weight[:, None, None] + bias[:, None, None]


def max_pool(x: Array, before: bool = False) -> Array:
    """The largest of 3 x 3, every second position; `before`: the odd border is at the start."""
    padded = same(x, 3, 2, -np.inf)
    if before:
        padded = np.flip(same(np.flip(x, (2, 3)), 3, 2, -np.inf), (2, 3))
    rows, columns = (-(-side // 2) for side in x.shape[2:])
    out = np.empty((*x.shape[:2], rows, columns))
    for i in range(rows):
        for j in range(columns):
            out[:, :, i, j] = padded[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((2, 3))
    return out


def stem(p: dict[str, Array], images: Array, units: tuple[int, ...]) -> dict[str, Array]:
    """Every tap of a stem: parameters under canonical names, images (B, 3, H, W)."""
    taps: dict[str, Array] = {}

    def conv(name: str, x: Array, stride: int = 1) -> Array:
        weight = standardised(p[f"{name}.weight"])
        around = same(x, weight.shape[-1], stride)
        return convolution(around, weight, None, (stride, stride), (0, 0))

    def normed(name: str, x: Array) -> Array:
        return norm(x, p[f"{name}.weight"], p[f"{name}.bias"])

    taps["root.conv"] = conv("stem.root.conv", images, 2)
    taps["root"] = np.maximum(normed("stem.root.norm", taps["root.conv"]), 0)
    x = taps["pool"] = max_pool(taps["root"])
    for stage, count in enumerate(units):
        for unit in range(count):
            m, tap = f"stem.stages.{stage}.{unit}", f"unit{stage}_{unit:02d}"
            stride, shortcut = (2 if stage and not unit else 1), x
            if not unit:
                taps[f"{tap}.downsample.conv"] = conv(f"{m}.downsample.conv", x, stride)
                shortcut = normed(f"{m}.downsample.norm", taps[f"{tap}.downsample.conv"])
                taps[f"{tap}.downsample.norm"] = shortcut
            y = x
            for number, step in ((1, 1), (2, stride), (3, 1)):
                y = taps[f"{tap}.conv{number}"] = conv(f"{m}.conv{number}", y, step)
                y = normed(f"{m}.norm{number}", y)
                y = taps[f"{tap}.norm{number}"] = y if number == 3 else np.maximum(y, 0)
            x = taps[tap] = np.maximum(shortcut + y, 0)
    return taps
