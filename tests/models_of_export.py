"""Small trained models without a run, for the tests of `transfg export`."""

from pathlib import Path

import numpy as np

from transfg_core.checkpoints.training import SavedPosition
from transfg_core.config.loading import build_config
from transfg_core.inference.source import TrainedModel
from transfg_core.params.initial import initial_params

VIT = {"name": "vit", "width": 24, "heads": 3, "depth": 3, "mlp": 40, "patch": 8}
SWIN = {
    "name": "swin", "width": 8, "depths": (1, 2, 2, 1), "heads": (1, 2, 2, 4), "window": 3,
    "drop_path": 0.0,
}  # fmt: skip
MODELS = {  # name -> model, crop, whether timm can hold it
    "vit": (VIT | {"placement": "none"}, (32, 40), True),
    "transfg": (VIT, (32, 40), False),
    "maws": (VIT | {"selection": "maws", "top_k": 2, "placement": "flatten"}, (32, 40), False),
    "center": (VIT | {"selection": "center", "placement": "extra"}, (32, 40), False),
    "random": (VIT | {"selection": "random"}, (32, 40), False),
    "overlap": (VIT | {"placement": "none", "stride": 6}, (32, 40), False),
    "hybrid": (VIT | {"placement": "none", "stem": "r_s4", "patch": 2}, (32, 40), False),
    "convnet": ({"name": "convnet"}, (32, 40), False),
    "resnet": ({"name": "resnet", "blocks": (1, 1, 1, 1)}, (32, 40), True),
    "bottlenecks": ({"name": "resnet", "depth": 50, "blocks": (1, 1, 1, 1)}, (32, 40), True),
    "narrow": ({"name": "resnet", "width": 8, "blocks": (1, 1)}, (32, 40), False),
    "swin": (SWIN, (96, 96), True),
    "clipped": (SWIN | {"window": 4}, (72, 64), False),
    "swinfc": (
        SWIN | {"name": "swinfc", "memories": 5, "align_width": 11, "fused_width": 13}, (72, 64),
        False,
    ),
}  # fmt: skip
CLASSES = ("ant", "bee", "cat *and* dog", "élan", "fly")
FACTS = {
    "run": "trial", "checkpoint": "best.safetensors", "update": 40, "updates": 50, "seed": 7,
    "backend": "torch", "commits": ["0123abc-dirty"], "precision": "float32", "averaged": False,
    "parameters": 1234,
    "weights": {"file": "/home/someone/weights/vit.npz", "bytes": 9, "sha256": "f" * 64,
                "form": "Google"},
    "data": {"name": "cub", "classes": 5, "split": "official", "folds": None, "fold": None,
             "validation": None, "level": "variant", "box_crop": False, "exif": "ignore"},
    "transform": "pixels as stored, resize, crop", "chosen_on": "test",
    "accuracy": {"top1": 0.8765, "top5": 0.99, "loss": 0.4321, "part_hit": None,
                 "part_hit_chance": None, "images": 123},
    "caution": "",
}  # fmt: skip


def model_of(name, **sections):
    """A model with random parameters; `sections` change other keys of its configuration."""
    section, crop, _ = MODELS[name]
    tree = {
        "model": section | {"classes": len(CLASSES), "dropout": 0.0},
        "data": {"name": "cub", "root": "/home/someone/birds", "crop": crop},
    }
    for key, values in sections.items():
        tree[key] = tree.get(key, {}) | values
    config = build_config(tree, name)
    rng = np.random.default_rng(3)
    kind = np.float64 if config.run.precision == "float64" else np.float32
    params = {}
    for key, value in initial_params(config.model, config.data.crop, 0).items():
        noise = 0.03 * rng.standard_normal(value.shape)
        noise = np.abs(noise) if key.endswith("running_var") else noise  # it stays positive
        params[key] = (value + noise).astype(kind)
    position = SavedPosition(update=40, evaluated=40, best_top1=0.8765, best_update=40)
    return TrainedModel(Path("trial"), config, CLASSES, params, position, "torch", dict(FACTS))


def pixels_of(config, count=3):
    """Crops, uint8 (B, H, W, 3)."""
    rng = np.random.default_rng(5)
    return rng.integers(0, 256, (count, *config.data.crop, 3), dtype=np.uint8)
