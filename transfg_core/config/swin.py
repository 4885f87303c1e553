"""The `model` section of the Swin Transformer (`model.name: swin`)."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from transfg_core.config.fields import Blocks, Fraction, Positive
from transfg_core.config.model import ModelConfig

Stages = Annotated[tuple[Positive, Positive, Positive, Positive], Field(strict=False)]
Depths = Annotated[tuple[Blocks, Blocks, Blocks, Blocks], Field(strict=False)]

# Width of the first stage, blocks and heads of each stage (Liu et al. 2021, section 3.3; heads have
# 32 channels). `tiny` belongs to this project, for tests and the toy set.
SIZES: dict[str, tuple[int, tuple[int, ...], tuple[int, ...]]] = {
    "tiny": (32, (2, 2, 2, 2), (1, 2, 4, 8)),
    "T": (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "S": (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "B": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "L": (192, (2, 2, 18, 2), (6, 12, 24, 48)),
}


class SwinConfig(ModelConfig):
    """Swin Transformer (Liu et al. 2021); docs/spec.md names every symbol.

    `size` sets width, depths and heads; each can also be set separately. The width doubles from
    stage to stage. `window` is the side of a window in tokens, and `drop_path` the probability with
    which the last block's branches are left out in training; it grows from 0 at the first block.
    """

    name: Literal["swin"] = "swin"
    dropout: Fraction = 0.0  # the published program's default
    size: Literal["tiny", "T", "S", "B", "L"] = "tiny"
    width: Positive = 32
    depths: Depths = (2, 2, 2, 2)
    heads: Stages = (1, 2, 4, 8)
    mlp_ratio: Positive = 4  # width of the MLP over the width of its block
    patch: Positive = 4
    window: Annotated[int, Field(ge=2)] = 7
    drop_path: Fraction = 0.1  # the published program's default

    @model_validator(mode="before")
    @classmethod
    def _fill_sizes(cls, values: Any) -> Any:
        """Take absent or null numbers from `size`."""
        if not isinstance(values, dict):
            return values
        size = values.get("size", "tiny")
        numbers = SIZES.get(size, SIZES["tiny"]) if isinstance(size, str) else SIZES["tiny"]
        defaults = dict(zip(("width", "depths", "heads"), numbers, strict=True))
        given = {
            name: value
            for name, value in values.items()
            if value is not None or name not in defaults
        }
        return defaults | given

    @model_validator(mode="after")
    def _consistent(self) -> "SwinConfig":
        for stage, heads in enumerate(self.heads):
            if self.width * 2**stage % heads:
                raise ValueError(
                    f"heads: stage {stage} has width {self.width * 2**stage}, which is not a "
                    f"multiple of its {heads} heads; change model.width or model.heads"
                )
        return self

    @property
    def has_blocks(self) -> bool:
        """Always."""
        return True

    @property
    def smallest_image(self) -> tuple[int, str]:
        """The side of one patch."""
        return self.patch, f"model.patch {self.patch}"
