"""The cases of the ladder: small experiments whose every number both backends must agree on.

Sizes are unequal on purpose, and weights and images asymmetric on every axis, so that a swapped
axis cannot hide. Dropout is off: the frameworks draw different random numbers.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from transfg_core.backend import Arrays, Batch
from transfg_core.config import Config, build_config
from transfg_core.params import initial_params

BATCH = 6
CLASSES = 7
UPDATES = 20
NOISE = 0.05  # added to every initial value, so that zeros and ones do not hide a parameter

MODEL: dict[str, Any] = {
    "width": 48,
    "heads": 3,
    "depth": 4,
    "mlp": 80,
    "patch": 8,
    "classes": CLASSES,
    "dropout": 0.0,
}
SGD = {"name": "sgd", "lr": 0.03, "warmup": 5}


@dataclass(frozen=True)
class Case:
    """One experiment: sections of its configuration that differ from the common ones."""

    name: str
    model: dict[str, Any] = field(default_factory=dict)
    loss: dict[str, Any] = field(default_factory=dict)
    optim: dict[str, Any] = field(default_factory=lambda: dict(SGD))
    crop: tuple[int, int] = (44, 32)
    accumulation: int = 1
    seed: int = 0

    def config(self) -> Config:
        """The full configuration; image size (height, width) is not square."""
        tree = {
            "run": {"seed": self.seed},
            "data": {"crop": self.crop},
            "model": MODEL | self.model,
            "loss": self.loss,
            "optim": self.optim,
            "train": {
                "steps": UPDATES + 1,
                "batch_size": BATCH,
                "accumulation": self.accumulation,
            },
        }
        return build_config(tree, f"parity case {self.name}")

    def params(self) -> Arrays:
        """Initial values plus noise on every parameter."""
        config = self.config()
        rng = np.random.default_rng([self.seed, 1])
        return {
            name: (value + NOISE * rng.standard_normal(value.shape)).astype(np.float32)
            for name, value in initial_params(config.model, config.data.crop, self.seed).items()
        }

    def batches(self) -> list[Batch]:
        """The batches of UPDATES + 1 updates: images (6, 3, H, W), labels (6,), some equal."""
        rng = np.random.default_rng([self.seed, 2])
        shape = (BATCH, 3, *self.crop)
        return [
            Batch(
                rng.standard_normal(shape).astype(np.float32),
                rng.integers(0, CLASSES - 2, BATCH),
            )
            for _ in range(UPDATES + 1)
        ]


CASES = (
    Case("nonoverlap"),
    Case("overlap", model={"stride": 6}, loss={"label_smoothing": 0.1}),
    Case("mul", model={"stride": 6, "fusion": "mul"}, loss={"margin": 0.0}, seed=1),
    Case("add", model={"fusion": "add"}, optim=SGD | {"weight_decay": 0.01}, seed=2),
    Case("lastlayer", model={"fusion": "lastlayer"}, optim=SGD | {"clip": None}, seed=3),
    Case("vit", model={"placement": "none"}, loss={"contrastive": False}, accumulation=2),
    Case(
        "adamw",
        model={"stride": 5},
        optim={
            "name": "adamw",
            "lr": 1e-3,
            "warmup": 0,
            "schedule": "linear",
            "weight_decay": 0.05,
            "groups": [{"match": "head.*", "lr_scale": 5.0, "weight_decay": 0.0}],
        },
        accumulation=2,
        seed=4,
    ),
    Case("adam", optim={"name": "adam", "lr": 1e-3, "warmup": 0, "weight_decay": 0.01}, seed=5),
)
