"""A picture, a batch and settings whose pixels torchvision and this project compute.

`tools/torchvision_golden.py` writes the golden digests of torchvision's pixels into GOLDEN.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image

GOLDEN = Path(__file__).parent / "core" / "data" / "golden" / "torchvision.json"
# Pillow 13 resizes some images in another order of passes; gradio still needs an older one
OLD_PILLOW = int(PIL.__version__.partition(".")[0]) < 13
SEEDS = range(12)
SIZE = (150, 190)  # of the picture, height and width

# The published pipelines at a quarter of their size, and each other setting once.
SMALL = {"resize": [120, 120], "crop": [96, 96]}
PIPELINES: dict[str, dict[str, Any]] = {
    "cub": SMALL,
    "cars": SMALL | {"auto_augment": True},
    "inat2017": {"resize": [100, 100], "crop": [76, 76], "auto_augment": True},
    "cifar100": {
        "resize": [56, 56],
        "crop": [56, 56],
        "random_resized_crop": [0.05, 1.0],
        "flip": False,
        "normalise": "cifar",
    },
    "swinfc": {"resize": [128, 128], "crop": [96, 96], "rotation": 15.0},
    "shorter side, bicubic": {"resize": 110, "crop": [96, 80], "interpolation": "bicubic"},
    "random resized crop, bicubic": {
        "resize": [72, 64],
        "crop": [72, 64],
        "random_resized_crop": [0.08, 1.0],
        "interpolation": "bicubic",
    },
    "colour jitter": SMALL | {"color_jitter": [0.4, 0.5, 0.6, 0.1]},
    "colour jitter without hue": SMALL | {"color_jitter": [0.4, 1.5, 0.4, 0.0]},
    "greyscale": SMALL | {"grayscale": 0.5},
    "erasing": SMALL | {"random_erasing": {"probability": 0.7, "value": "zero"}},
    "erasing by the mean": SMALL
    | {"random_erasing": {"probability": 1.0, "scale": [0.1, 0.9], "aspect": [0.2, 4.0]}},
    "everything": SMALL
    | {
        "auto_augment": True,
        "color_jitter": [0.4, 0.4, 0.4, 0.5],
        "grayscale": 0.3,
        "rotation": 20.0,
        "random_erasing": {"probability": 0.5},
        "normalise": "half",
    },
}
# name in transfg_core/data/autoaugment.py -> name in torchvision
OPERATIONS = {
    "shear_x": "ShearX",
    "rotate": "Rotate",
    "color": "Color",
    "contrast": "Contrast",
    "sharpness": "Sharpness",
    "posterize": "Posterize",
    "solarize": "Solarize",
    "autocontrast": "AutoContrast",
    "equalize": "Equalize",
    "invert": "Invert",
}
FACTORS = (0.0, 0.3, 0.77, 1.0, 1.4, 2.5)
TURNS = (-0.5, -0.313, -0.05, 0.0, 0.004, 0.2, 0.5)
# share, row and column of the centre
CUTS = ((0.3, 5, 60), (0.71, 33, 33), (0.999, 3, 4), (0.0, 20, 10), (0.5, 47, 63))


def picture() -> Image.Image:
    """A picture (150, 190) with smooth colours, fine texture, and flat, dark and bright parts."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float64)
    waves = [
        120 + 80 * np.sin(columns / 17 + shift) + 50 * np.cos(rows / (9 + 5 * shift))
        for shift in range(3)
    ]
    noise = np.random.default_rng(0).normal(0, 12, (*SIZE, 3))
    pixels = np.clip(np.stack(waves, -1) + noise, 0, 255)
    pixels[100:130, 20:70] = 0, 0, 0
    pixels[20:60, 120:170] = 250, 255, 240
    pixels[70:90, 60:150] = 200, 30, 60
    return Image.fromarray(pixels.astype(np.uint8))


def batch() -> tuple[Any, Any]:
    """Images (5, 48, 64, 3) uint8 and labels (5,) int64, of which two are equal."""
    images = np.random.default_rng(1).integers(0, 256, (5, 48, 64, 3), dtype=np.uint8)
    return images, np.array([2, 0, 3, 3, 1])


def digest(array: Any) -> str:
    """The first 16 digits of the SHA-256 over shape, type and bytes."""
    array = np.ascontiguousarray(array)
    head = f"{array.shape} {array.dtype.str} ".encode()
    return hashlib.sha256(head + array.tobytes()).hexdigest()[:16]
