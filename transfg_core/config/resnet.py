"""The `model` section of the residual networks (`model.name: resnet`)."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from transfg_core.config.fields import Blocks, Fraction, Positive
from transfg_core.config.model import ModelConfig

# Whether blocks are bottlenecks, and blocks of each stage (He et al. 2016, table 1).
DEPTHS: dict[int, tuple[bool, tuple[int, ...]]] = {
    18: (False, (2, 2, 2, 2)),
    50: (True, (3, 4, 6, 3)),
}
EXPANSION = 4  # a bottleneck's output has so many times the channels of its 3 x 3 convolution
Stages = Annotated[tuple[Blocks, ...], Field(strict=False, min_length=1, max_length=4)]


class ResNetConfig(ModelConfig):
    """Residual network of He et al. 2016, with torchvision's strides (docs/spec.md).

    `depth` sets `blocks` and `bottleneck`; each can also be set separately, for small models.
    """

    name: Literal["resnet"] = "resnet"
    depth: Literal[18, 50] = 18
    bottleneck: bool = False
    blocks: Stages = (2, 2, 2, 2)  # of each stage
    width: Positive = 64  # channels of the stem and of the first stage; each stage doubles them
    dropout: Fraction = 0.0  # before the classifier; the published networks have none

    @model_validator(mode="before")
    @classmethod
    def _fill_sizes(cls, values: Any) -> Any:
        """Take absent or null numbers from `depth`."""
        if not isinstance(values, dict):
            return values
        depth = values.get("depth")
        bottleneck, blocks = DEPTHS[depth if type(depth) is int and depth in DEPTHS else 18]
        defaults = {"bottleneck": bottleneck, "blocks": blocks}
        given = {
            name: value
            for name, value in values.items()
            if value is not None or name not in defaults
        }
        return defaults | given

    @property
    def expansion(self) -> int:
        """The channels of a block's output, as a multiple of those inside it."""
        return EXPANSION if self.bottleneck else 1

    @property
    def has_blocks(self) -> bool:
        """Always."""
        return True
