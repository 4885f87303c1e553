"""timm's and torchvision's models with this project's settings, or the reason why not."""

import importlib
from collections.abc import Callable
from functools import partial
from types import ModuleType

import torch
from torch import nn

from transfg_core.checkpoints.known import HYBRIDS
from transfg_core.config.resnet import ResNetConfig
from transfg_core.config.stem import GROUPS, STEMS
from transfg_core.config.swin import SwinConfig
from transfg_core.config.vit import VitConfig
from transfg_core.errors import UserError
from transfg_core.machine import install_command
from transfg_core.models.swin import windows_of
from transfg_core.params.merge import refuse
from transfg_torch.models.stem import GROUP_NORM_EPS


def package(program: str, module: str) -> ModuleType:
    """A module of timm or torchvision.

    Raises:
        UserError: the package is not installed, or does not fit PyTorch.
    """
    try:
        return importlib.import_module(f"{program}.{module}")
    except (ImportError, RuntimeError, AttributeError) as error:
        raise UserError(
            f"{program}: expected an installed version that fits PyTorch {torch.__version__}, "
            f"found none ({error}); install it: {install_command('bench')}"
        ) from error


def make_vit(program: str, model: VitConfig, image_size: tuple[int, int]) -> nn.Module:
    """The plain Vision Transformer.

    Raises:
        UserError: the program cannot have this placement, stride or image.
    """
    problems = []
    if model.placement != "none":
        problems.append(f"expected model.placement none, found {model.placement}")
    if model.stride != model.patch:
        problems.append(f"expected model.stride {model.patch} (no overlap), found {model.stride}")
    if program == "torchvision" and image_size[0] != image_size[1]:
        problems.append(f"expected a square data.crop, found {list(image_size)}")
    if model.stem != "none" and (program == "torchvision" or model.stem not in HYBRIDS):
        problems.append(f"expected model.stem none or a published one of timm, found {model.stem}")
    refuse(f"{program}: Vision Transformer", problems)
    if program == "timm":
        stem = {} if model.stem == "none" else {"embed_layer": timm_stem(model.stem)}
        return package("timm", "models.vision_transformer").VisionTransformer(
            img_size=image_size, patch_size=model.patch, num_classes=model.class_count,
            embed_dim=model.width, depth=model.depth, num_heads=model.heads,
            mlp_ratio=model.mlp / model.width, **stem,
        )  # fmt: skip
    return package("torchvision", "models.vision_transformer").VisionTransformer(
        image_size[0], model.patch, model.depth, model.heads, model.width, model.mlp,
        num_classes=model.class_count,
    )  # fmt: skip


def timm_stem(name: str) -> Callable[..., nn.Module]:
    """What timm's hybrids have in place of the patch embedding.

    Group norm gets this project's epsilon; that of standardised kernels is timm's own.
    """
    layers, resnets = package("timm", "layers"), package("timm", "models.resnetv2")
    shared = {
        "preact": False,
        "stem_type": "same",
        "conv_layer": partial(layers.StdConv2dSame, eps=1e-8),
        "norm_layer": partial(layers.GroupNormAct, num_groups=GROUPS, eps=GROUP_NORM_EPS),
    }
    if units := STEMS[name].units:
        backbone = resnets.ResNetV2(units, num_classes=0, global_pool="", **shared)
    else:
        backbone = resnets.create_resnetv2_stem(3, **shared)
    return partial(layers.HybridEmbed, backbone=backbone)


def make_swin(program: str, model: SwinConfig, image_size: tuple[int, int]) -> nn.Module:
    """The Swin Transformer.

    Raises:
        UserError: the program computes another function on maps of these sizes.
    """
    refuse(f"{program}: Swin Transformer", other_windows(program, model, image_size))
    sizes = {
        "embed_dim": model.width, "depths": model.depths, "num_heads": model.heads,
        "mlp_ratio": float(model.mlp_ratio), "num_classes": model.class_count,
    }  # fmt: skip
    if program == "timm":
        return package("timm", "models.swin_transformer").SwinTransformer(
            image_size, model.patch, window_size=model.window, drop_path_rate=0.0, **sizes
        )
    return package("torchvision", "models.swin_transformer").SwinTransformer(
        [model.patch] * 2, window_size=[model.window] * 2, stochastic_depth_prob=0.0, **sizes
    )


def other_windows(program: str, model: SwinConfig, image_size: tuple[int, int]) -> list[str]:
    """A line for each stage on whose map the program's windows are others than this project's.

    A window is clipped here to a smaller map, which torchvision pads, and for which timm has a
    smaller bias table. timm shifts a map before it pads it, and here it is padded first.
    """
    problems = []
    for stage, depth in enumerate(model.depths):
        last = windows_of(model, image_size, stage, min(depth, 2) - 1)  # shifted, if any block is
        size = (last.rows, last.columns)
        if last.sides != (model.window, model.window):
            expected = f"at least model.window {model.window} each way"
        elif program == "timm" and any(
            step and padded != side
            for step, padded, side in zip(last.shift, last.padded, size, strict=True)
        ):
            expected = f"multiples of model.window {model.window}, where windows are shifted"
        else:
            continue
        problems.append(
            f"data.crop {list(image_size)}: in stage {stage + 1} expected {expected}, "
            f"found {size[0]} x {size[1]} positions"
        )
    return problems


def make_resnet(program: str, model: ResNetConfig, image_size: tuple[int, int]) -> nn.Module:
    """The residual network; the programs fix the channels of the first stage at 64.

    Raises:
        UserError: `model.width` is another.
    """
    if model.width != 64:
        raise UserError(f"{program}: expected model.width 64, found {model.width}; leave it out")
    blocks = package(program, "models.resnet")
    block = blocks.Bottleneck if model.bottleneck else blocks.BasicBlock
    return blocks.ResNet(block, list(model.blocks), num_classes=model.class_count)


MAKERS = {"vit": make_vit, "swin": make_swin, "resnet": make_resnet}
