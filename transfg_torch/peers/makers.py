"""timm's and torchvision's models with this project's settings, or the reason why not."""

import importlib
from collections.abc import Callable
from functools import partial
from types import ModuleType

import torch
from torch import nn

from transfg_core.checkpoints.programs import misfits
from transfg_core.config.resnet import ResNetConfig
from transfg_core.config.stem import GROUPS, STEMS
from transfg_core.config.swin import SwinConfig
from transfg_core.config.vit import VitConfig
from transfg_core.errors import UserError
from transfg_core.machine import install_command
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
    refuse(f"{program}: Vision Transformer", misfits(program, model, image_size))
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
    refuse(f"{program}: Swin Transformer", misfits(program, model, image_size))
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


def make_resnet(program: str, model: ResNetConfig, image_size: tuple[int, int]) -> nn.Module:
    """The residual network.

    Raises:
        UserError: the program cannot have its width or its stages.
    """
    if lines := misfits(program, model, image_size):
        raise UserError(f"{program}: {lines[0]}")
    blocks = package(program, "models.resnet")
    block = blocks.Bottleneck if model.bottleneck else blocks.BasicBlock
    return blocks.ResNet(block, list(model.blocks), num_classes=model.class_count)


MAKERS = {"vit": make_vit, "swin": make_swin, "resnet": make_resnet}
