"""Vision Transformers of every size and every hybrid, as timm and this project build them.

`tools/timm_golden.py` computes them with timm, `tests/backend/test_timm_golden.py` with both twins.
They have two blocks and small images; widths, heads, patches and stems are the published ones.
"""

import json
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from transfg_core.backend import Arrays, Batch
from transfg_core.config.loading import build_config
from transfg_core.config.sections import Config
from transfg_core.params.initial import initial_params

GOLDEN = Path(__file__).parent / "backend" / "golden" / "timm.json"
CLASSES = 10


class Model(NamedTuple):
    """timm's name, model.size, model.stem, model.patch, and the side of the images."""

    timm: str
    size: str
    stem: str
    patch: int
    image: int


MODELS = {
    "Ti/16": Model("vit_tiny_patch16_224", "Ti", "none", 16, 48),
    "S/32": Model("vit_small_patch32_224", "S", "none", 32, 64),
    "B/8": Model("vit_base_patch8_224", "B", "none", 8, 24),
    "L/32": Model("vit_large_patch32_224", "L", "none", 32, 64),
    "H/14": Model("vit_huge_patch14_224", "H", "none", 14, 28),
    "R+Ti/16": Model("vit_tiny_r_s16_p8_224", "Ti", "r_s4", 8, 64),
    "R26+S/32": Model("vit_small_r26_s32_224", "S", "r26_s32", 1, 64),
    "R50+B/16": Model("vit_base_r50_s16_224", "B", "r50_s16", 1, 48),
    "R50+L/32": Model("vit_large_r50_s32_224", "L", "r50_s32", 1, 64),
}


def config_of(name: str, precision: str = "float64") -> Config:
    """The experiment of a model."""
    model = MODELS[name]
    section = {
        "placement": "none", "size": model.size, "stem": model.stem, "patch": model.patch,
        "depth": 2, "classes": CLASSES, "dropout": 0.0,
    }  # fmt: skip
    tree = {
        "run": {"precision": precision},
        "data": {"crop": model.image},
        "model": section,
        "loss": {"contrastive": False},
    }
    return build_config(tree, name)


def params_of(name: str) -> Arrays:
    """Initial values plus noise, float32, so that no parameter is constant."""
    config, rng = config_of(name), np.random.default_rng(31)
    return {
        key: (value + 0.02 * rng.standard_normal(value.shape)).astype(np.float32)
        for key, value in initial_params(config.model, config.data.crop, 0).items()
    }


def batch_of(name: str) -> Batch:
    """Two images."""
    side, rng = MODELS[name].image, np.random.default_rng(32)
    return Batch(rng.standard_normal((2, 3, side, side)).astype(np.float32), np.array([3, 8]))


def part_of(name: str) -> str:
    """The part of the model that a parameter is of: `stem.stages.2.0`, `blocks.1`, `head`."""
    pieces = name.split(".")
    length = {"stem": 2 if pieces[1:2] == ["root"] else 4, "blocks": 2}.get(pieces[0], 1)
    return ".".join(pieces[:length])


def fingerprints(grads: Arrays) -> dict[str, tuple[float, float]]:
    """Part -> norm of its gradients, and their product with random numbers that the names seed."""
    squares: dict[str, float] = {}
    products: dict[str, float] = {}
    for name, grad in grads.items():
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        part, wide = part_of(name), grad.astype(np.float64)
        squares[part] = squares.get(part, 0.0) + float((wide * wide).sum())
        product = float((wide * rng.standard_normal(grad.shape)).sum())
        products[part] = products.get(part, 0.0) + product
    return {part: (square**0.5, products[part]) for part, square in squares.items()}


def golden() -> dict:
    """The golden values by model: logits, loss, and the fingerprints of the gradients."""
    return json.loads(GOLDEN.read_text(encoding="utf-8"))["models"]
