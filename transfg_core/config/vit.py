"""The `model` section of the Vision Transformer and of TransFG (`model.name: vit`)."""

from typing import Any, Literal

from pydantic import model_validator

from transfg_core.config.fields import Depth, Positive
from transfg_core.config.model import ModelConfig
from transfg_core.config.stem import STEMS

# Width, heads, depth, MLP width of the Vision Transformer sizes (Dosovitskiy et al. 2021, table 1;
# Ti and S from Steiner et al. 2022). `tiny` belongs to this project, for tests and the toy set.
SIZES: dict[str, tuple[int, int, int, int]] = {
    "tiny": (96, 4, 4, 192),
    "Ti": (192, 3, 12, 768),
    "S": (384, 6, 12, 1536),
    "B": (768, 12, 12, 3072),
    "L": (1024, 16, 24, 4096),
    "H": (1280, 16, 32, 5120),
}


class VitConfig(ModelConfig):
    """Vision Transformer with or without part selection (docs/spec.md names every symbol).

    `placement: transfg` selects one token per head before the last block (He et al. 2022);
    `none` is the plain Vision Transformer. Patches overlap if `stride` is smaller than `patch`.
    `size` sets width, heads, depth and mlp; each can also be set separately.
    With a `stem`, a hybrid: patches are of the stem's map, and `patch` and `stride` count its
    positions. Published: R+Ti/16 is Ti, r_s4, 8; R26+S/32 is S, r26_s32; R50+B/16 is B, r50_s16;
    R50+L/32 is L, r50_s32, all of patch 1.
    """

    name: Literal["vit"] = "vit"
    placement: Literal["transfg", "none"] = "transfg"
    size: Literal["tiny", "Ti", "S", "B", "L", "H"] = "tiny"
    width: Positive = 96
    heads: Positive = 4
    depth: Depth = 4
    mlp: Positive = 192
    stem: Literal["none", "tiny_s8", "r_s4", "r26_s32", "r50_s16", "r50_s32"] = "none"
    patch: Positive = 8
    stride: Positive = 8
    fusion: Literal["matmul", "mul", "add", "lastlayer"] = "matmul"
    part_layer_init: Literal["random", "last_block"] = "random"

    @model_validator(mode="before")
    @classmethod
    def _fill_sizes(cls, values: Any) -> Any:
        """Take absent or null sizes from `size`, and an absent or null stride from the patch.

        The patch of a stem with stages is 1: these already see a region of the image.
        """
        if not isinstance(values, dict):
            return values
        size = values.get("size", "tiny")
        numbers = SIZES.get(size, SIZES["tiny"]) if isinstance(size, str) else SIZES["tiny"]
        defaults = dict(zip(("width", "heads", "depth", "mlp"), numbers, strict=True))
        stem = values.get("stem")
        stages = STEMS[stem].units if isinstance(stem, str) and stem in STEMS else ()
        default = 1 if stages else cls.model_fields["patch"].default
        patch = values.get("patch") or default
        defaults |= {"patch": default, "stride": patch if type(patch) is int else default}
        given = {
            name: value
            for name, value in values.items()
            if value is not None or name not in defaults
        }
        return defaults | given

    @model_validator(mode="after")
    def _consistent(self) -> "VitConfig":
        if self.width % self.heads:
            raise ValueError(
                f"width {self.width} is not a multiple of heads {self.heads}; "
                "change model.width or model.heads"
            )
        if self.stride > self.patch:
            raise ValueError(
                f"stride {self.stride} exceeds patch {self.patch}, which leaves gaps between "
                "patches; change model.stride or model.patch"
            )
        return self

    @property
    def selects_parts(self) -> bool:
        """Whether the last block reads only the class token and the selected patches."""
        return self.placement == "transfg"

    @property
    def has_blocks(self) -> bool:
        """Always."""
        return True

    @property
    def step(self) -> int:
        """Pixels between the positions that patches are cut from: 1 without a stem."""
        return 1 if self.stem == "none" else STEMS[self.stem].step

    @property
    def smallest_image(self) -> tuple[int, str]:
        """The side of one patch; the stem's map rounds up."""
        stem = "" if self.stem == "none" else f" with model.stem {self.stem}"
        return (self.patch - 1) * self.step + 1, f"model.patch {self.patch}{stem}"
