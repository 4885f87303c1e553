"""The cases of the suite: small experiments in which both backends must agree on every number.

All sizes differ, and weights and images are asymmetric along every axis, so that a swapped axis
shows. Dropout is off, because the frameworks draw different random numbers.

This file is longer than most, as the one list of all cases.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from transfg_core.backend import Array, Arrays, Batch
from transfg_core.config.loading import build_config
from transfg_core.config.model import ModelConfig
from transfg_core.config.sections import Config
from transfg_core.config.vit import SIZES
from transfg_core.models.layout import architecture, param_specs
from transfg_core.params.initial import initial_params

BATCH = 6
CLASSES = 7
UPDATES = 20
CONTINUED = 3  # updates after a state was loaded: fewer would hide a wrong count of updates
NOISE = 0.05  # added to initial values: a parameter of zeros or ones could hide a fault

# Settings that all cases of an architecture share; all sizes differ from one another.
MODELS: dict[str, dict[str, Any]] = {
    "vit": {"width": 48, "heads": 3, "depth": 4, "mlp": 80, "patch": 8},
    "convnet": {"width": 10, "width2": 14, "kernel": 5, "stride": 3},
    "resnet": {"width": 6, "blocks": [1, 2]},
    "swin": {
        "width": 18,
        "depths": [2, 2, 1, 2],
        "heads": [2, 3, 4, 6],
        "mlp_ratio": 3,
        "patch": 4,
        "window": 4,
        "drop_path": 0.0,
    },
}
MODELS["swinfc"] = MODELS["swin"] | {"memories": 5, "align_width": 11, "fused_width": 13}
SGD = {"name": "sgd", "lr": 0.03, "warmup": 5}


@dataclass(frozen=True)
class Case:
    """One experiment: the sections of its configuration that differ from the common ones."""

    name: str
    model: dict[str, Any] = field(default_factory=dict)
    loss: dict[str, Any] = field(default_factory=dict)
    optim: dict[str, Any] = field(default_factory=lambda: dict(SGD))
    crop: tuple[int, int] = (44, 32)
    mixed: bool = False  # each image is of two classes: the losses compare with targets
    accumulation: int = 1
    seed: int = 0
    weights: str = "noise"  # a key of WEIGHTS
    batch: int = BATCH
    updates: int = UPDATES
    fine: bool = False  # taps inside blocks as well
    training: bool = False  # whether passes normalise by the batch, as updates do
    sketch_above: int | None = None  # elements; larger arrays are stored as sketches

    @property
    def settings(self) -> dict[str, Any]:
        """The section `model`."""
        common = {"classes": CLASSES, "dropout": 0.0}
        return common | MODELS[self.model.get("name", "vit")] | self.model

    @property
    def continued(self) -> int:
        """The number of updates that each backend makes from the other's saved state."""
        return CONTINUED if self.updates > 1 else 0

    def config(self, precision: str = "float32") -> Config:
        """The full configuration; images (height, width) are not square."""
        tree = {
            "run": {"seed": self.seed, "precision": precision},
            "data": {"crop": self.crop},
            "model": self.settings,
            "loss": self.loss,
            "optim": self.optim,
            "train": {
                "steps": 2 * self.updates,  # all updates lie in the first half: no rate is zero
                "batch_size": self.batch,
                "accumulation": self.accumulation,
            },
        }
        return build_config(tree, f"parity case {self.name}")

    def params(self) -> Arrays:
        """The initial weights of every recording of this case, float32."""
        config = self.config()
        initial = initial_params(config.model, config.data.crop, self.seed)
        rng = np.random.default_rng([self.seed, 1])
        return WEIGHTS[self.weights](initial, rng, config.model)

    def batches(self) -> list[Batch]:
        """A batch for each update: images (6, 3, H, W) and labels (6,), some of them equal.

        With `mixed`, targets (6, 7) as well.
        """
        rng = np.random.default_rng([self.seed, 2])
        shape = (self.batch, 3, *self.crop)
        classes = self.config().model.class_count
        batches = [
            Batch(
                rng.standard_normal(shape).astype(np.float32),
                rng.integers(0, max(classes - 2, 1), self.batch),
            )
            for _ in range(self.updates + self.continued)
        ]
        return [with_targets(batch, rng, classes) for batch in batches] if self.mixed else batches

    def reseeded(self, seed: int, weights: str) -> "Case":
        """The same experiment with other weights and images."""
        return replace(self, name=f"{self.name}-{seed}-{weights}", seed=seed, weights=weights)


def with_targets(batch: Batch, rng: np.random.Generator, classes: int) -> Batch:
    """The batch with targets (B, C): a share above one half for the label, the rest for another."""
    others = (batch.labels + rng.integers(1, classes, len(batch.labels))) % classes
    shares = rng.uniform(0.5, 1, (len(batch.labels), 1)).astype(np.float32)
    one_hot = np.eye(classes, dtype=np.float32)
    targets = shares * one_hot[batch.labels] + (1 - shares) * one_hot[others]
    return batch._replace(targets=targets)


def with_noise(initial: Arrays, rng: np.random.Generator, model: ModelConfig) -> Arrays:
    """Initial values plus noise on every parameter."""
    return {
        name: (value + NOISE * rng.standard_normal(value.shape)).astype(np.float32)
        for name, value in initial.items()
    }


def truncated_normal(initial: Arrays, rng: np.random.Generator, model: ModelConfig) -> Arrays:
    """Values with standard deviation 0.02, clipped at two deviations; those of norms near 1.

    Many ViTs start so.
    """
    ones = {name for name, spec in param_specs(model).items() if spec.init == "ones"}
    return {
        name: (
            (value if name in ones else 0.0)
            + 0.02 * np.clip(rng.standard_normal(value.shape), -2, 2)
        ).astype(np.float32)
        for name, value in initial.items()
    }


def with_outliers(initial: Arrays, rng: np.random.Generator, model: ModelConfig) -> Arrays:
    """Two channels far from zero (80 and -50), as in the residual stream of pretrained ViTs."""
    params = with_noise(initial, rng, model)
    channels = params[architecture(model).CHANNELS]
    count = channels.shape[-1]
    channels[..., 5 % count] += 80
    channels[..., 17 % count - (17 % count == 5 % count)] -= 50
    return params


def params_of(state: Mapping[str, Array]) -> Arrays:
    """The parameters in the state of a backend or of a trace, by canonical name."""
    return {
        name.removeprefix("param/"): value
        for name, value in state.items()
        if name.startswith("param/")
    }


WEIGHTS = {"noise": with_noise, "truncated": truncated_normal, "outliers": with_outliers}

CASES = (
    Case("nonoverlap"),
    Case("overlap", model={"stride": 6}, loss={"label_smoothing": 0.1}, fine=True),
    Case("mul", model={"stride": 6, "fusion": "mul"}, loss={"margin": 0.0}, seed=1),
    Case("add", model={"fusion": "add"}, optim=SGD | {"weight_decay": 0.01}, seed=2),
    Case("lastlayer", model={"fusion": "lastlayer"}, optim=SGD | {"clip": None}, seed=3),
    Case(
        "vit", model={"placement": "none"}, loss={"contrastive": False}, accumulation=2, fine=True
    ),
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
    # More tokens (15 x 10 patches and the class token) than the rows that attention takes at a
    # time (ROWS)
    Case(
        "blocks",
        model={"depth": 3, "stride": 4},
        optim=SGD | {"warmup": 0, "lr": 1.0},
        crop=(64, 44),
        updates=1,
        seed=6,
    ),
    Case("convnet", model={"name": "convnet"}, loss={"label_smoothing": 0.1}, seed=7),
    Case(
        "mixed",
        model={"name": "convnet"},
        loss={"label_smoothing": 0.1},
        accumulation=2,
        mixed=True,
        seed=8,
    ),
    # from update 13 on, the decay of the average is `ema` itself
    Case(
        "finetune",
        optim={
            "name": "adamw",
            "lr": 1e-3,
            "warmup": 0,
            "weight_decay": 0.05,
            "layer_decay": 0.7,
            "ema": 0.6,
        },
        accumulation=2,
        seed=10,
    ),
    # A stem of two stages before the patches, and part selection after them. One update: in later
    # ones a rounding error may move an input of ReLU over zero, which changes a gradient by more
    # than rounding.
    Case(
        "hybrid",
        model={"stem": "tiny_s8", "patch": 1, "depth": 3},
        loss={"label_smoothing": 0.1},
        optim=SGD | {"warmup": 0, "lr": 1.0},
        updates=1,
        seed=11,
        fine=True,
    ),
    # batch norms by the batch's statistics, which updates move
    Case("resnet", model={"name": "resnet"}, fine=True, training=True, seed=14),
    # Bottlenecks by the running statistics, some of which stay as they are. One update, as above:
    # without the batch's statistics a moved ReLU grows from update to update.
    Case(
        "bottleneck",
        model={"name": "resnet", "depth": 50, "width": 5, "blocks": [2, 1]},
        optim=SGD | {"warmup": 0, "lr": 1.0, "frozen": ["bn1.*", "layer1.0.*"]},
        updates=1,
        fine=True,
        seed=15,
    ),
    # the first layers, and parameters amid trained ones
    Case(
        "frozen",
        model={"placement": "none"},
        optim=SGD | {"weight_decay": 0.01, "frozen": ["[cp]*", "blocks.0.*", "*.norm2.*"]},
        seed=9,
    ),
    # Maps of 19 x 16, 10 x 8, 5 x 4 and 3 x 2 tokens: windows of 4 x 4 are shifted, padded below,
    # and clipped; the merging pads odd sides. One large step: smaller ones of the first stage would
    # lose their digits in float32
    Case(
        "swin",
        model={"name": "swin"},
        loss={"label_smoothing": 0.1},
        optim=SGD | {"warmup": 0, "lr": 1.0},
        crop=(76, 64),
        updates=1,
        fine=True,
        seed=11,
    ),
    # maps of 8 x 16 to 1 x 2 tokens, which the windows divide; shifted along one axis or both
    Case(
        "swin-shifted",
        model={"name": "swin"},
        optim={"name": "adamw", "lr": 1e-3, "warmup": 0, "weight_decay": 0.05, "layer_decay": 0.8},
        crop=(32, 64),
        accumulation=2,
        seed=12,
    ),
    # other places of part selection, and other selections
    Case("extra", model={"placement": "extra"}, fine=True, seed=22),
    Case("flatten", model={"placement": "flatten", "fusion": "mul"}, updates=5, seed=21),
    Case("maws", model={"selection": "maws", "top_k": 3}, accumulation=2, seed=24),
    Case(
        "similarity",
        model={
            "placement": "flatten",
            "selection": "cls_similarity",
            "top_k": 4,
            "flatten_class_token": False,
            "flatten_part_layer": True,
        },
        updates=5,
        seed=26,
    ),
    Case("random", model={"selection": "random", "top_k": 8}, updates=5, seed=43),
    Case(
        "center",
        model={"placement": "flatten", "selection": "center", "top_k": 4},
        loss={"contrastive": False},
        updates=5,
        seed=60,
    ),
    # Maps of 10 x 8, 5 x 4 and 3 x 2 tokens behind the first stage; batch statistics. One update:
    # in later ones a rounding error may move an input of ReLU over zero.
    Case(
        "swinfc",
        model={"name": "swinfc"},
        optim=SGD | {"warmup": 0, "lr": 1.0},
        crop=(76, 64),
        updates=1,
        fine=True,
        training=True,
        seed=31,
    ),
    # the other choices, running statistics, and several shifted windows in the last stage
    Case(
        "swinfc-options",
        model={
            "name": "swinfc",
            "window": 2,
            "ea_norm": "softmax",
            "similarity": "cosine",
            "stage_head": "mlp",
            "prediction": "sum",
        },
        loss={"label_smoothing": 0.1, "stages": [1.0, 0.5, 0.2], "margin": 0.2},
        optim=SGD | {"warmup": 0, "lr": 1.0},
        crop=(76, 64),
        updates=1,
        accumulation=2,
        mixed=True,
        fine=True,
        seed=30,
    ),
)

# TransFG at its published size: one pass and one update on two images.
LARGE = Case(
    "b16-448-overlap",
    model={
        **dict(zip(("width", "heads", "depth", "mlp"), SIZES["B"], strict=True)),
        "size": "B",
        "patch": 16,
        "stride": 12,
        "classes": 200,
    },
    optim=SGD | {"warmup": 0, "lr": 1.0},  # a step large enough to keep its digits in float32
    crop=(448, 448),
    batch=2,
    updates=1,
    sketch_above=65536,
)
BY_NAME = {case.name: case for case in (*CASES, LARGE)}
