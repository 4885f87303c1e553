"""Typed configuration: YAML plus dotted overrides, every problem reported at once.

    config = load_config("configs/quickstart.yaml", ["optim.lr=0.01", "run.name=trial"])

YAML is read by the 1.2 rules for scalars that users expect: `3e-2` is a number, `no` is a word,
and a key given twice is an error. An unknown key names the nearest known one.

Longer than most files here, so that every dial of the project stands in one place.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from transfg_core.config_text import describe_problem, dump_yaml, parse_yaml
from transfg_core.errors import UserError

# Width, heads, depth, MLP width of the Vision Transformer sizes (Dosovitskiy et al. 2021, table 1;
# Ti and S from Steiner et al. 2022). `tiny` is this project's own, for tests and the toy set.
SIZES: dict[str, tuple[int, int, int, int]] = {
    "tiny": (96, 4, 4, 192),
    "Ti": (192, 3, 12, 768),
    "S": (384, 6, 12, 1536),
    "B": (768, 12, 12, 3072),
    "L": (1024, 16, 24, 4096),
    "H": (1280, 16, 32, 5120),
}

# Channel means and standard deviations by name, on inputs in [0, 1].
NORMALISATION: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "cifar": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}

Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Size = Annotated[tuple[Positive, Positive], Field(strict=False)]


def _word(value: Any) -> Any:
    """A name such as 2024 is a word, though YAML reads a number."""
    return str(value) if type(value) is int else value


FilePath = Annotated[str, AfterValidator(os.path.expanduser)]


class Section(BaseModel):
    """Base of every section: frozen, strict about types, closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class RunConfig(Section):
    """Where a run goes and what it is seeded with."""

    name: Annotated[str, BeforeValidator(_word), Field(pattern=r"^[\w+-][\w.+-]*$")] = "toy"
    dir: FilePath = "runs"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 42
    # tf32: products of ten binary digits on CUDA, everything else in float32; bfloat16: products
    # in bfloat16, parameters and sums in float32; float64 is for references
    precision: Literal["float32", "tf32", "bfloat16", "float64"] = "float32"
    # keep only each block's input for the backward pass, which computes the block anew
    grad_checkpointing: bool = False
    compile: bool = False  # torch.compile of the encoder's blocks (PyTorch alone)


class ToyConfig(Section):
    """Size of the procedural bird set that `data.name: toy` renders when it is absent."""

    train_per_class: Positive = 100
    test_per_class: Positive = 25
    size: Annotated[int, Field(ge=48)] = 96
    seed: Annotated[int, Field(ge=0)] = 0


class DataConfig(Section):
    """Data set, transforms and loading. Image sizes are (height, width) in pixels."""

    name: Literal["toy", "cub", "folder"] = "toy"
    root: FilePath = "data/toy"
    split: Literal["official", "random"] = "official"
    resize: Size | Positive | None = None  # (h, w) exactly, or the shorter side
    crop: Size = (64, 64)
    random_resized_crop: Annotated[tuple[float, float], Field(strict=False)] | None = None
    flip: bool = True
    auto_augment: bool = False
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0  # degrees, drawn from [-r, r]
    normalise: Literal["imagenet", "half", "cifar"] = "imagenet"
    on_bad_image: Literal["error", "skip"] = "error"
    threads: Positive = 2
    workers: Annotated[int, Field(ge=0)] = 0
    toy: ToyConfig = ToyConfig()

    @field_validator("crop", mode="before")
    @classmethod
    def _square(cls, value: Any) -> Any:
        return (value, value) if isinstance(value, int) else value

    @field_validator("random_resized_crop")
    @classmethod
    def _scale(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0 < value[0] <= value[1] <= 1:
            raise ValueError(f"expected 0 < smallest <= largest <= 1, found {list(value)}")
        return value


class ModelConfig(Section):
    """Vision Transformer and part selection (docs/architecture.md names every symbol).

    `placement: transfg` selects one token per head before the last block (He et al. 2022);
    `none` is the plain Vision Transformer. `stride` below `patch` makes overlapping patches.
    """

    placement: Literal["transfg", "none"] = "transfg"
    size: Literal["tiny", "Ti", "S", "B", "L", "H"] = "tiny"
    width: Positive | None = None
    heads: Positive | None = None
    depth: Annotated[int, Field(ge=2)] | None = None
    mlp: Positive | None = None
    patch: Positive = 8
    stride: Positive | None = None
    classes: Annotated[int, Field(ge=2)] | None = None  # None: as many as the data set has
    fusion: Literal["matmul", "mul", "add", "lastlayer"] = "matmul"
    part_layer_init: Literal["random", "last_block"] = "random"
    dropout: Fraction = 0.1
    pretrained: FilePath | None = None  # Google's .npz, or .safetensors of this project
    pretrained_head: bool = False

    @model_validator(mode="after")
    def _fill(self) -> "ModelConfig":
        for name, value in zip(("width", "heads", "depth", "mlp"), SIZES[self.size], strict=True):
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        if self.stride is None:
            object.__setattr__(self, "stride", self.patch)
        assert self.width and self.heads and self.stride
        if self.width % self.heads:
            raise ValueError(
                f"width {self.width} is not a multiple of heads {self.heads}; "
                "change model.width or model.heads"
            )
        if self.stride > self.patch:
            raise ValueError(
                f"stride {self.stride} exceeds patch {self.patch}: gaps between patches"
            )
        return self


class LossConfig(Section):
    """Cross-entropy with label smoothing, plus the contrastive loss on the class token."""

    label_smoothing: Fraction = 0.0
    contrastive: bool = True
    margin: Annotated[float, Field(ge=-1, le=1)] = 0.4


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


class TrainConfig(Section):
    """Length of a run in updates, batches, and how often it evaluates and saves."""

    steps: Positive = 1000
    batch_size: Positive = 32  # images per update
    accumulation: Positive = 1  # micro-batches per update
    eval_batch_size: Positive = 32
    eval_every: Positive = 200
    save_every: Positive | None = None  # step-numbered checkpoints besides last and best
    keep: Positive = 3  # how many step-numbered checkpoints stay


class Config(Section):
    """One experiment."""

    run: RunConfig = RunConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
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
        if self.optim.warmup > self.train.steps:
            problems.append(
                f"optim.warmup {self.optim.warmup} exceeds train.steps {self.train.steps}"
            )
        if min(self.data.crop) < self.model.patch:
            problems.append(
                f"data.crop {list(self.data.crop)} is smaller than model.patch {self.model.patch}"
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


def load_config(path: str | Path | None, overrides: Iterable[str] = ()) -> Config:
    """Read a YAML file (None: all defaults) and apply `key.sub=value` overrides.

    Raises:
        UserError: the file is missing or not YAML, or any key or value is wrong; every problem
            is listed, each with its dotted key.
    """
    source = str(path) if path else "defaults"
    tree: dict[str, Any] = {}
    repeated: list[str] = []
    if path:
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(
                f"{path}: expected a configuration in YAML, found none that can be read "
                f"({reason}); check the path"
            ) from error
        loaded, repeated = parse_yaml(text, source)
        if loaded is not None and not isinstance(loaded, dict):
            raise UserError(f"{path}: expected sections such as `train:`, found {loaded!r}")
        # `train:` with every key below it commented out is an empty section
        tree = {key: {} if value is None else value for key, value in (loaded or {}).items()}
    apply_overrides(tree, overrides)
    return build_config(tree, source, repeated)


def apply_overrides(tree: dict[str, Any], overrides: Iterable[str]) -> None:
    """Set `key.sub=value` items in a nested mapping, values read as YAML.

    Raises:
        UserError: an item is not of that form, or its key leads through a value.
    """
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals or not all(key.split(".")):
            raise UserError(f"{item!r}: expected key=value, such as optim.lr=0.01")
        value, repeated = parse_yaml(text, f"override {item!r}")
        if repeated:
            raise UserError(f"override {item!r}: {'; '.join(repeated)}")
        _set_dotted(tree, key, value)


def build_config(tree: Mapping[str, Any], source: str, problems: Sequence[str] = ()) -> Config:
    """Validate a nested mapping; `source` names it in error messages.

    Raises:
        UserError: something is wrong with it, or `problems` were found before.
    """
    found: list[Any] = []
    try:
        config = Config.model_validate(tree)
        if not problems:
            return config
    except ValidationError as error:
        found = error.errors(include_url=False)
    problems = [*problems, *(describe_problem(item, Config) for item in found)]
    # what concerns several keys is checked once each is sound: try without the unsound ones
    try:
        Config.model_validate(_without(tree, [item["loc"] for item in found if item["loc"]]))
    except ValidationError as error:
        more = [describe_problem(item, Config) for item in error.errors(include_url=False)]
        problems += [problem for problem in more if problem not in problems]
    lines = list(dict.fromkeys(line for problem in problems for line in problem.split("\n  ")))
    count = f"{len(lines)} problem" + ("s" if len(lines) > 1 else "")
    raise UserError("\n  ".join([f"{source}: {count} in the configuration", *lines]))


def dump_config(config: Config) -> str:
    """The fully resolved configuration as YAML that `load_config` reads back to an equal one."""
    return dump_yaml(config.model_dump(mode="json"))


def differing_keys(left: Config, right: Config) -> list[str]:
    """Dotted keys whose values differ, as `key: left -> right` lines."""
    flat_left, flat_right = _flatten(left.model_dump()), _flatten(right.model_dump())
    return [
        f"{key}: {flat_left.get(key)!r} -> {flat_right.get(key)!r}"
        for key in dict.fromkeys([*flat_left, *flat_right])
        if flat_left.get(key) != flat_right.get(key)
    ]


def _set_dotted(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for depth, part in enumerate(parents):
        below = tree.setdefault(part, {})
        if not isinstance(below, dict):
            raise UserError(f"{key}: {'.'.join(parents[: depth + 1])} is a value, not a section")
        tree = below
    tree[last] = value


def _without(tree: Mapping[str, Any], places: Iterable[tuple[int | str, ...]]) -> dict[str, Any]:
    """The tree without the keys at these places; one in a list, or unknown, takes its key along."""
    copy = deepcopy(dict(tree))
    for section, *rest in places:
        below = copy.get(str(section))
        if rest and isinstance(below, dict) and rest[0] in below:
            del below[rest[0]]
        elif not rest or not isinstance(below, dict):
            copy.pop(str(section), None)
    return copy


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
