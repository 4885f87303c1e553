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

    `placement` says where tokens are selected, and what reads them:

    - `transfg`: before the last block, which reads the class token and them (He et al. 2022);
    - `extra`: after all blocks; a new block, the part layer, reads the class token and them;
    - `flatten`: after all blocks; the classifier reads them side by side, after the class token
      (`flatten_class_token`), and after a part layer if `flatten_part_layer` is set;
    - `none`: nowhere, the plain Vision Transformer.

    `selection` says which tokens: `fused` attention maps (He et al. 2022), joined by `fusion`;
    `maws` (Wang et al. 2021); `cls_similarity` (Rios et al. 2024); `random` and `center` are
    controls. `top_k` is the number of tokens, for `maws` of each block. By default it is `heads`:
    then each selection but `maws` takes as many tokens as `fused`, `maws` as many of each block.

    Patches overlap if `stride` is smaller than `patch`. `size` sets width, heads, depth and mlp;
    each can also be set separately.

    With a `stem`, a hybrid: patches are of the stem's map, and `patch` and `stride` count its
    positions. Published: R+Ti/16 is Ti, r_s4, 8; R26+S/32 is S, r26_s32; R50+B/16 is B, r50_s16;
    R50+L/32 is L, r50_s32, all of patch 1.
    """

    name: Literal["vit"] = "vit"
    placement: Literal["transfg", "extra", "flatten", "none"] = "transfg"
    size: Literal["tiny", "Ti", "S", "B", "L", "H"] = "tiny"
    width: Positive = 96
    heads: Positive = 4
    depth: Depth = 4
    mlp: Positive = 192
    stem: Literal["none", "tiny_s8", "r_s4", "r26_s32", "r50_s16", "r50_s32"] = "none"
    patch: Positive = 8
    stride: Positive = 8
    selection: Literal["fused", "maws", "cls_similarity", "random", "center"] = "fused"
    fusion: Literal["matmul", "mul", "add", "lastlayer"] = "matmul"
    top_k: Positive | None = None  # None: as many as heads; `fused` selects one for each head
    flatten_class_token: bool = True  # it alone has seen all patches
    flatten_part_layer: bool = False  # the study that proposed the head has none
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

    @model_validator(mode="after")
    def _fits_placement(self) -> "VitConfig":
        """Refuse settings that would change nothing, or that the placement cannot follow.

        With placement `none` all settings of parts are allowed: one key then makes the plain model
        of any file, as comparisons need it.
        """
        if self.placement in ("transfg", "extra"):
            for key, default in (("flatten_class_token", True), ("flatten_part_layer", False)):
                if getattr(self, key) != default:
                    raise ValueError(
                        f"{key}: expected {str(default).lower()}, since it changes nothing with "
                        f"placement {self.placement}; leave model.{key} out, or set "
                        "model.placement=flatten"
                    )
        if self.selects_parts and self.selection != "fused" and self.fusion != "matmul":
            raise ValueError(
                f"fusion: expected matmul, since selection {self.selection} fuses no attention "
                "maps; leave model.fusion out, or set model.selection=fused"
            )
        if self.top_k is not None and self.selection == "fused":
            raise ValueError(
                "top_k: expected null, since selection fused takes one token for each head; leave "
                "model.top_k out, or choose another model.selection"
            )
        if self.part_layer_init == "last_block" and self.placement in ("extra", "flatten"):
            raise ValueError(
                f"part_layer_init: the part layer of placement {self.placement} is a new block; "
                "leave model.part_layer_init out"
            )
        if self.pretrained_head and self.placement == "flatten":
            raise ValueError(
                "pretrained_head: the classifier of placement flatten reads several tokens, that "
                "of a file one; leave model.pretrained_head out"
            )
        return self

    @property
    def selects_parts(self) -> bool:
        """Whether the model chooses image patches to classify by."""
        return self.placement != "none"

    @property
    def draws_parts(self) -> bool:
        """Whether the tokens are chosen without the model's numbers (`transfg_core.parts`)."""
        return self.selects_parts and self.selection in ("random", "center")

    @property
    def encoder_depth(self) -> int:
        """The number of blocks before part selection; without it, of all blocks."""
        return self.depth - 1 if self.placement == "transfg" else self.depth

    @property
    def has_part_layer(self) -> bool:
        """Whether a block and a norm of their own read the selected tokens."""
        return self.placement in ("transfg", "extra") or (
            self.placement == "flatten" and self.flatten_part_layer
        )

    @property
    def row_count(self) -> int:
        """Rows of part scores: one for each head (`fused`) or block (`maws`), else a single one."""
        return {"fused": self.heads, "maws": self.encoder_depth}.get(self.selection, 1)

    @property
    def row_parts(self) -> int:
        """The number of tokens that each row of scores selects."""
        return 1 if self.selection == "fused" else self.top_k or self.heads

    @property
    def part_count(self) -> int:
        """The number of selected tokens."""
        return self.row_count * self.row_parts

    @property
    def feature_width(self) -> int:
        """The number of inputs of the classifier."""
        if self.placement == "flatten":
            return (self.part_count + int(self.flatten_class_token)) * self.width
        return self.width

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
