"""What torchvision's residual networks compute, kept as a few numbers of each array.

`tools/resnet_golden.py` writes them; tests compare without torchvision. A kept array is its norm
and its products with PROJECTIONS random directions. The differences of two arrays' products, over
the norm, show their relative L2 distance.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from transfg_core.backend import Arrays, Batch, load_backend
from transfg_core.config.loading import build_config
from transfg_core.config.sections import Config
from transfg_core.params.initial import initial_params

GOLDEN = Path(__file__).parent / "backend" / "golden" / "torchvision_resnet.json"
DEPTHS = (18, 50)
CROP = (72, 56)  # neither square nor a multiple of the strides
CLASSES = 11
PROJECTIONS = 6


def config(depth: int, precision: str = "float32") -> Config:
    """torchvision's network of this depth, with few classes."""
    tree = {
        "run": {"precision": precision},
        "data": {"crop": CROP},
        "model": {"name": "resnet", "depth": depth, "classes": CLASSES},
        "loss": {"contrastive": False},
        "optim": {"clip": None},
    }
    return build_config(tree, f"ResNet-{depth}")


def params(depth: int) -> Arrays:
    """Initial values plus noise, so that no parameter or statistic is constant."""
    own, rng = config(depth), np.random.default_rng(depth)
    return {
        name: (value + 0.02 * rng.standard_normal(value.shape)).astype(np.float32)
        for name, value in initial_params(own.model, CROP, 0).items()
    }


def batch() -> Batch:
    """Three images and their labels."""
    rng = np.random.default_rng(4)
    return Batch(rng.standard_normal((3, 3, *CROP)).astype(np.float32), np.array([3, 10, 3]))


def kept(array: Any) -> list[float]:
    """The norm of an array, then its products with random directions of norm 1 on average."""
    flat = np.asarray(array, np.float64).reshape(-1)
    rng = np.random.default_rng(flat.size)
    directions = rng.standard_normal((PROJECTIONS, flat.size))
    return [float(f"{number:.9g}") for number in (np.linalg.norm(flat), *(directions @ flat))]


def distance(array: Any, golden: list[float]) -> float:
    """An estimate of |array - golden| / |golden| from the kept numbers."""
    differences = np.array(kept(array)[1:]) - np.array(golden[1:])
    return float(np.sqrt(np.mean(differences**2)) / golden[0])


def read() -> dict[str, Any]:
    """The golden numbers: depth -> mode -> array -> kept numbers."""
    stored: dict[str, Any] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return stored


def distances(name: str, depth: int, mode: str) -> dict[str, float]:
    """Array -> its distance from torchvision's, of one twin; in training in float64."""
    backend = load_backend(name, config(depth, "float64" if mode == "training" else "float32"))
    backend.load_params(params(depth))
    found = backend.trace(batch(), training=mode == "training")
    if mode == "training":  # an update with rate 0 moves the statistics alone
        backend.fetch(backend.train_step([batch()], 0.0))
        found |= backend.state()
    expected = read()[str(depth)][mode]
    return {array: distance(found[array], numbers) for array, numbers in expected.items()}
