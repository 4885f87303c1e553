"""A model in timm's hub form: its architecture, arguments, and transform, or the reasons why not.

Source: timm 1.0, `timm/models/_hub.py` (`_parse_model_cfg`), `timm/models/_pretrained.py`
(`PretrainedCfg`) and `timm/data/transforms_factory.py` (`transforms_imagenet_eval`).
"""

import math
from typing import Any, NamedTuple

from transfg_core.checkpoints.programs import PROGRAMS, misfits
from transfg_core.config.model import ModelConfig
from transfg_core.config.resnet import ResNetConfig
from transfg_core.config.sections import NORMALISATION, Config, DataConfig
from transfg_core.config.swin import SwinConfig
from transfg_core.config.vit import VitConfig

# model.width -> timm's model of that width; its other settings are given as arguments
VITS = {192: "vit_tiny_patch16_224", 384: "vit_small_patch16_224", 768: "vit_base_patch16_224",
        1024: "vit_large_patch16_224", 1280: "vit_huge_patch14_224"}  # fmt: skip
SWINS = {96: "swin_tiny_patch4_window7_224", 128: "swin_base_patch4_window7_224",
         192: "swin_large_patch4_window7_224"}  # fmt: skip


class TimmModel(NamedTuple):
    """How timm makes a model: a name of its registry, arguments, and names of layers."""

    architecture: str
    arguments: dict[str, Any]
    features: int  # inputs of the classifier
    first_conv: str
    classifier: str


def reasons_against(config: Config) -> list[str]:
    """Why timm cannot hold this model; empty if it can."""
    model = config.model
    if model.name not in PROGRAMS["timm"]:
        return [f"timm has no model.name {model.name}"]
    if isinstance(model, VitConfig) and model.stem != "none":
        return ["timm standardises the kernels of a hybrid with another epsilon"]
    return misfits("timm", model, config.data.crop)


def timm_model(model: ModelConfig, crop: tuple[int, int]) -> TimmModel:
    """timm's model for one that `reasons_against` has nothing against."""
    if isinstance(model, VitConfig):
        arguments: dict[str, Any] = {
            "img_size": list(crop), "patch_size": model.patch, "embed_dim": model.width,
            "depth": model.depth, "num_heads": model.heads,
            "mlp_ratio": exact_ratio(model.mlp, model.width),
        }  # fmt: skip
        name = VITS.get(model.width, VITS[384])
        return TimmModel(name, arguments, model.width, "patch_embed.proj", "head")
    if isinstance(model, SwinConfig):
        arguments = {
            "img_size": list(crop), "patch_size": model.patch, "window_size": model.window,
            "embed_dim": model.width, "depths": list(model.depths), "num_heads": list(model.heads),
            "mlp_ratio": float(model.mlp_ratio),
        }  # fmt: skip
        name = SWINS.get(model.width, SWINS[96])
        return TimmModel(name, arguments, 8 * model.width, "patch_embed.proj", "head.fc")
    assert isinstance(model, ResNetConfig)
    name = "resnet50" if model.bottleneck else "resnet18"
    features = 8 * model.width * model.expansion
    return TimmModel(name, {"layers": list(model.blocks)}, features, "conv1", "fc")


def exact_ratio(mlp: int, width: int) -> float:
    """The number whose product with `width`, cut to a whole number as timm does, is `mlp`."""
    ratio = mlp / width
    return ratio if int(width * ratio) == mlp else math.nextafter(ratio, math.inf)


def pretrained_cfg(config: Config) -> dict[str, Any]:
    """timm's description of input, transform and classifier; `transform_gap` says where it differs.

    Architectures that timm lacks have one too, as the hub's form for input and transform.
    """
    data, model = config.data, config.model
    mean, deviation = NORMALISATION[data.normalise]
    percent, mode, _ = timm_transform(data)
    cfg: dict[str, Any] = {
        "num_classes": model.class_count,
        "input_size": [3, *data.crop],
        "fixed_input_size": model.name != "resnet",
        "interpolation": data.interpolation,
        "crop_pct": percent,
        "crop_mode": mode,
        "mean": list(mean),
        "std": list(deviation),
    }
    if not reasons_against(config):
        made = timm_model(model, data.crop)
        cfg |= {"first_conv": made.first_conv, "classifier": made.classifier}
    return cfg


def timm_transform(data: DataConfig) -> tuple[float, str, str]:
    """timm's crop_pct and crop_mode for this transform, and what timm then does otherwise.

    timm resizes to floor(crop / crop_pct): in mode `squash` to this height and width, in mode
    `center` the shorter side, if the crop is square.
    """
    height, width = data.crop
    if data.resize is None:
        return 1.0, "center", "timm resizes the shorter side to the crop; here nothing is resized"
    if isinstance(data.resize, tuple):
        percent = _percent(data.crop, data.resize)
        if percent:
            return percent, "squash", ""
        gap = f"timm has one crop_pct for both sides; here images become {list(data.resize)}"
        return height / data.resize[0], "squash", gap
    if height != width:
        gap = "timm resizes for an oblong crop by both sides; here by the shorter side of the image"
        return min(data.crop) / data.resize, "center", gap
    percent = _percent(data.crop, (data.resize, data.resize))
    assert percent is not None
    return percent, "center", ""


def _percent(crop: tuple[int, int], resize: tuple[int, int]) -> float | None:
    """The share with floor(crop / share) = resize on both sides; None if there is none."""
    for side, target in zip(crop, resize, strict=True):
        # the quotient may come out just below the target
        for share in (side / target, math.nextafter(side / target, 0)):
            sides = zip(crop, resize, strict=True)
            if all(math.floor(a / share) == b for a, b in sides):
                return share
    return None
