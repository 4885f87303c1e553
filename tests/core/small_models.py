"""Small models of every architecture and selection; all sizes differ from one another."""

from transfg_core.config.loading import load_config
from transfg_core.params.initial import initial_params

VIT = {"width": 48, "heads": 3, "depth": 4, "mlp": 80, "patch": 8}
SWIN = {"width": 18, "depths": [2, 2, 1, 2], "heads": [2, 3, 4, 6], "mlp_ratio": 3, "patch": 4,
        "window": 4}  # fmt: skip
MODELS = {
    "nonoverlap": VIT,
    "overlap": VIT | {"stride": 6},
    "vit": VIT | {"placement": "none"},
    "maws": VIT | {"selection": "maws", "top_k": 3},
    "similarity": VIT | {"placement": "flatten", "selection": "cls_similarity", "top_k": 4},
    "random": VIT | {"selection": "random", "top_k": 8},
    "center": VIT | {"selection": "center", "top_k": 4},
    "hybrid": VIT | {"stem": "tiny_s8", "patch": 1},
    "convnet": {"name": "convnet", "width": 10, "width2": 14, "kernel": 5, "stride": 3},
    "resnet": {"name": "resnet", "width": 6, "blocks": [1, 2]},
    "swin": {"name": "swin"} | SWIN,
    "swinfc": {"name": "swinfc", "memories": 5, "align_width": 11, "fused_width": 13} | SWIN,
}


def config_of(name, crop=(44, 32)):
    """The configuration of a model with 7 classes, for images (height, width)."""
    settings = MODELS[name] | {"classes": 7}
    words = [f"model.{key}={str(value).lower()}" for key, value in settings.items()]
    return load_config(None, ["run.name=a", f"data.crop={list(crop)}", "data.resize=160", *words])


def params_of(name, crop=(44, 32)):
    """Its initial values."""
    return initial_params(config_of(name, crop).model, crop, 0)
