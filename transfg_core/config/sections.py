"""The sections of a configuration, and the conditions between them.

Each model has its section in a separate file: `vit.py`, `convnet.py`, `resnet.py`. This file is
longer than most, as the one list of all other keys, with the conditions that join them.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    field_validator,
    model_serializer,
    model_validator,
)

from transfg_core.config.convnet import ConvNetConfig
from transfg_core.config.erasing import ErasingConfig
from transfg_core.config.fields import (
    Alpha,
    FilePath,
    Fraction,
    Images,
    NonNegative,
    Pixels,
    Positive,
    Probability,
    Scale,
    Section,
    Size,
    Threads,
    Workers,
)
from transfg_core.config.resnet import ResNetConfig
from transfg_core.config.swin import SwinConfig
from transfg_core.config.swinfc import SwinFCConfig
from transfg_core.config.vit import VitConfig

# Channel means and standard deviations by name, on inputs in [0, 1].
NORMALISATION: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "cifar": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}


BOXED = ("cub", "nabirds", "cars", "dogs", "aircraft", "toy")  # data sets with boxes


def _run_name(value: Any) -> Any:
    """Check a name; a whole number becomes text, since YAML reads a name such as 2024 as one."""
    text = str(value) if type(value) is int else value
    if isinstance(text, str) and not re.fullmatch(r"[\w+-][\w.+-]*", text):
        raise ValueError(
            "expected a name of letters, digits and . _ + - that does not begin with a dot, found "
            f"{text!r}"
        )
    return text


class RunConfig(Section):
    """Name, folder, seed and arithmetic of a run."""

    name: Annotated[str, BeforeValidator(_run_name)] = "toy"
    dir: FilePath = "runs"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 42
    # tf32: matmuls with a 10-bit mantissa, CUDA only; bfloat16: mixed precision with float32
    # parameters; float64: for references
    precision: Literal["float32", "tf32", "bfloat16", "float64"] = "float32"
    # save only each block's input; recompute the block in the backward pass
    grad_checkpointing: bool = False
    compile: bool = False  # torch.compile of the encoder's blocks (PyTorch only)


class ToyConfig(Section):
    """Size of the procedural bird set, which `data.name: toy` renders if it does not exist yet."""

    train_per_class: Positive = 100
    test_per_class: Positive = 25
    size: Annotated[int, Field(ge=48)] = 96
    seed: Annotated[int, Field(ge=0)] = 0


ColorJitter = Annotated[
    tuple[NonNegative, NonNegative, NonNegative, Annotated[float, Field(ge=0, le=0.5)]],
    Field(strict=False),
]
_OTHER = {"fold": "folds", "folds": "fold"}


class DataConfig(Section):
    """Data set, transforms and loading. Image sizes are (height, width) in pixels."""

    name: Literal[
        "toy", "cub", "nabirds", "cars", "dogs", "aircraft", "flowers", "pets", "food", "inat2017",
        "cifar10", "cifar100", "web-bird", "web-aircraft", "web-car", "folder", "list", "parquet",
    ] = "toy"  # fmt: skip
    root: FilePath = "data/toy"
    unpacked: FilePath | None = None  # folder for the images of CIFAR and Parquet; null: the set's
    # random: drawn from run.seed; auto: official if the data set has a split, else random
    split: Literal["official", "random", "auto"] = "official"
    level: Literal["variant", "family", "manufacturer"] = "variant"  # labels of FGVC-Aircraft
    label: str | None = None  # column of the labels in Parquet; null: the one that fits
    box_crop: bool = False  # cut each image to the data set's box; for the sets in BOXED
    banner: Literal["cut", "keep"] = "cut"  # the lowest 20 rows of FGVC-Aircraft's images
    folds: Annotated[int, Field(ge=2)] | None = None  # cross-validation in place of a drawn split
    fold: Annotated[int, Field(ge=0)] | None = None  # the fold that is the test split, from 0
    # share of each class's images that choose the best step, in place of the test split
    validation: Annotated[float, Field(gt=0, lt=1)] | None = None
    group: str | None = None  # regular expression on an image's id; a drawn split keeps groups
    balance: bool = False  # as many training images of each class in an epoch
    exif: Literal["ignore", "apply"] = "ignore"  # apply: turn photographs as their camera noted
    max_megapixels: Annotated[int, Field(ge=1, le=10_000)] = 178  # Pillow's own limit
    resize: Size | Pixels | None = None  # (h, w), or the length of the shorter side
    crop: Size = (64, 64)
    random_resized_crop: Scale | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"  # of every resizing
    flip: bool = True
    auto_augment: bool = False
    color_jitter: ColorJitter | None = None  # brightness, contrast, saturation, hue
    grayscale: Probability = 0.0
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0  # degrees, drawn from [-r, r]
    random_erasing: ErasingConfig = ErasingConfig()
    normalise: Literal["imagenet", "half", "cifar"] = "imagenet"
    mixup: Alpha = 0.0  # the share of an image is drawn from Beta(alpha, alpha)
    cutmix: Alpha = 0.0
    mix_prob: Probability = 1.0  # of mixing a batch, if mixup or cutmix is on
    mix_switch_prob: Probability = 0.5  # of cutmix, if both are on
    on_bad_image: Literal["error", "skip"] = "error"
    threads: Threads = 2
    workers: Workers = 0
    cache: FilePath | None = None  # folder for decoded and resized images
    toy: ToyConfig = ToyConfig()

    def fold_problems(self) -> list[str]:
        """What is wrong with `folds` and `fold`, which belong together."""
        if (self.folds is None) != (self.fold is None):
            missing = "fold" if self.fold is None else "folds"
            return [f"data.{missing}: expected a number beside data.{_OTHER[missing]}, found null"]
        if self.folds is None or self.fold is None:
            return []
        problems = []
        if self.fold >= self.folds:
            problems.append(
                f"data.fold {self.fold}: expected 0 to {self.folds - 1}, since data.folds is "
                f"{self.folds}"
            )
        if self.split == "official":
            problems.append(
                "data.folds: the official split has no folds; set data.split=random, or auto for "
                "a folder without a split"
            )
        return problems

    @field_validator("group")
    @classmethod
    def _pattern(cls, value: str | None) -> str | None:
        try:
            groups = 1 if value is None else re.compile(value).groups
        except re.error as error:
            raise ValueError(f"expected a regular expression, found {value!r}: {error}") from error
        if not groups:
            raise ValueError(f"expected a regular expression with a group (...), found {value!r}")
        return value

    @field_validator("crop", mode="before")
    @classmethod
    def _square(cls, value: Any) -> Any:
        return (value, value) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _boxes(self) -> "DataConfig":
        if self.box_crop and self.name not in BOXED:
            raise ValueError(
                f"box_crop: expected a data set with boxes ({', '.join(BOXED)}), found name "
                f"{self.name}; leave data.box_crop out"
            )
        if self.box_crop and self.exif == "apply":
            raise ValueError(
                "box_crop: boxes are in pixels of images as they are stored, expected exif: ignore;"
                " leave data.box_crop or data.exif out"
            )
        return self


class LossConfig(Section):
    """Cross-entropy with label smoothing, plus the contrastive loss on the features.

    `stages` are the weights of the cross-entropies of SwinFC's stages 2, 3 and 4.
    """

    label_smoothing: Fraction = 0.0
    contrastive: bool = True
    margin: Annotated[float, Field(ge=-1, le=1)] = 0.4
    stages: Annotated[tuple[NonNegative, NonNegative, NonNegative], Field(strict=False)] = (
        0.4,
        0.6,
        0.8,
    )


class GroupConfig(Section):
    """Parameters whose canonical name matches a glob; the first matching group wins."""

    match: str
    lr_scale: NonNegative = 1.0
    weight_decay: NonNegative | None = None


class OptimConfig(Section):
    """Optimiser, learning-rate schedule and gradient clipping."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: NonNegative = 0.03
    momentum: Fraction = 0.9
    betas: Annotated[tuple[Fraction, Fraction], Field(strict=False)] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-8
    weight_decay: NonNegative = 0.0
    clip: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = 1.0
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: Annotated[int, Field(ge=0)] = 500
    groups: Annotated[tuple[GroupConfig, ...], Field(strict=False)] = ()
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0  # factor on the rate from layer to layer
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None  # decay of the averaged parameters
    # globs of parameters that stay as they are; ["[!h]*"] is all but the head, a linear probe
    frozen: Annotated[tuple[str, ...], Field(strict=False)] = ()


class TrainConfig(Section):
    """Length of a run, batches, and how often it evaluates and saves, in updates."""

    steps: Positive = 1000  # updates
    epochs: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None  # instead of steps
    batch_size: Images = 32  # images per update
    accumulation: Positive = 1  # micro-batches per update
    eval_batch_size: Images = 32
    eval_every: Positive = 200
    save_every: Positive | None = None  # of step-numbered checkpoints, besides last and best
    keep: Positive = 3  # number of step-numbered checkpoints to keep

    @model_validator(mode="before")
    @classmethod
    def _one_length(cls, tree: Any) -> Any:
        """Refuse two lengths; `steps: null` leaves the length to `epochs`."""
        if not isinstance(tree, dict) or "steps" not in tree:
            return tree
        if tree["steps"] is None:
            return {key: value for key, value in tree.items() if key != "steps"}
        if tree.get("epochs") is not None:
            raise ValueError(
                f"expected train.steps or train.epochs, found steps {tree['steps']} and epochs "
                f"{tree['epochs']}; set one of them to null"
            )
        return tree

    @model_serializer(mode="wrap")
    def _without_steps(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """With `epochs`, `steps` has no meaning before `with_length` (experiment.py)."""
        tree: dict[str, Any] = dump(self)
        return tree | {"steps": None} if self.epochs is not None else tree


def _architecture(value: Any) -> Any:
    """The name that chooses the model's section; the default is `vit`."""
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    return "vit" if name is None else name


Model = Annotated[
    Annotated[VitConfig, Tag("vit")]
    | Annotated[ConvNetConfig, Tag("convnet")]
    | Annotated[SwinConfig, Tag("swin")]
    | Annotated[ResNetConfig, Tag("resnet")]
    | Annotated[SwinFCConfig, Tag("swinfc")],
    Discriminator(_architecture),
]


class Config(Section):
    """One experiment."""

    run: RunConfig = RunConfig()
    data: DataConfig = DataConfig()
    model: Model = VitConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        problems = []
        if self.train.batch_size % self.train.accumulation:
            problems.append(
                f"train.batch_size {self.train.batch_size} is not a multiple of "
                f"train.accumulation {self.train.accumulation}"
            )
        if self.train.epochs is None and self.optim.warmup > self.train.steps:
            problems.append(
                f"optim.warmup {self.optim.warmup} exceeds train.steps {self.train.steps}"
            )
        problems += self.data.fold_problems()
        if (self.data.mixup or self.data.cutmix) and self.train.batch_size < 2:
            problems.append(
                "train.batch_size: data.mixup and data.cutmix mix two images of a batch, found "
                f"{self.train.batch_size} image; use 2 or more, or set both to 0"
            )
        side, why = self.model.smallest_image
        if min(self.data.crop) < side:
            problems.append(f"data.crop {list(self.data.crop)} is smaller than {why}")
        for setting in ("grad_checkpointing", "compile"):
            if getattr(self.run, setting) and not self.model.has_blocks:
                problems.append(
                    f"run.{setting}: expected a model with blocks, found model.name "
                    f"{self.model.name}; leave run.{setting} out"
                )
        if isinstance(self.data.resize, tuple) and (
            self.data.resize[0] < self.data.crop[0] or self.data.resize[1] < self.data.crop[1]
        ):
            problems.append(
                f"data.resize {list(self.data.resize)} is smaller than "
                f"data.crop {list(self.data.crop)}"
            )
        if isinstance(self.data.resize, int) and self.data.resize < max(self.data.crop):
            problems.append(
                f"data.resize {self.data.resize} (shorter side) is smaller than "
                f"data.crop {list(self.data.crop)}"
            )
        if problems:
            raise ValueError("\n  ".join(problems))
        return self
