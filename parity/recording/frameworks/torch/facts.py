"""What PyTorch's modules are: canonical operations and their settings, as tables."""

from collections.abc import Mapping
from typing import Any

from torch import nn

# setting -> attribute of the module
CONVOLUTION = {
    "stride": "stride",
    "padding": "padding",
    "dilation": "dilation",
    "groups": "groups",
    "padding_mode": "padding_mode",
    "transposed": "transposed",
    "output_padding": "output_padding",
}
BATCH_NORM = {"eps": "eps", "momentum": "momentum", "track": "track_running_stats"}
POOL = {
    "kernel": "kernel_size",
    "stride": "stride",
    "padding": "padding",
    "dilation": "dilation",
    "ceil_mode": "ceil_mode",
}
MEAN_POOL = {
    **{key: name for key, name in POOL.items() if key != "dilation"},
    "count_include_pad": "count_include_pad",
}
UPSAMPLE = {
    "mode": "mode",
    "align_corners": "align_corners",
    "size": "size",
    "scale": "scale_factor",
}

Facts = tuple[str, Mapping[str, str]]

# class, with its subclasses -> operation, settings; the first that fits counts
OPERATIONS: dict[type, Facts] = {
    nn.modules.conv._ConvNd: ("convolution", CONVOLUTION),
    nn.Linear: ("linear", {}),
    nn.modules.batchnorm._BatchNorm: ("batch_norm", BATCH_NORM),
    nn.LayerNorm: ("layer_norm", {"eps": "eps", "shape": "normalized_shape"}),
    nn.GroupNorm: ("group norm", {"groups": "num_groups", "eps": "eps"}),
    nn.ReLU6: ("relu6", {}),
    nn.Hardtanh: ("clamp", {"min": "min_val", "max": "max_val"}),
    nn.ReLU: ("relu", {}),
    nn.LeakyReLU: ("leaky relu", {"slope": "negative_slope"}),
    nn.Hardswish: ("hard swish", {}),
    nn.Hardsigmoid: ("hard sigmoid", {}),
    nn.GELU: ("gelu", {"form": "approximate"}),
    nn.SiLU: ("silu", {}),
    nn.Sigmoid: ("sigmoid", {}),
    nn.Softmax: ("softmax", {"axis": "dim"}),
    nn.modules.pooling._MaxPoolNd: ("max pool", POOL),
    nn.modules.pooling._AvgPoolNd: ("mean pool", MEAN_POOL),
    nn.modules.pooling._AdaptiveAvgPoolNd: ("adaptive mean pool", {"size": "output_size"}),
    nn.modules.pooling._AdaptiveMaxPoolNd: ("adaptive max pool", {"size": "output_size"}),
    nn.modules.dropout._DropoutNd: ("dropout", {"p": "p"}),
    nn.Embedding: ("embedding", {}),
    nn.Upsample: ("upsample", UPSAMPLE),
    nn.MultiheadAttention: ("attention", {"heads": "num_heads", "batch_first": "batch_first"}),
    nn.ChannelShuffle: ("channel shuffle", {"groups": "groups"}),
    nn.Flatten: ("flatten", {}),
    nn.Identity: ("identity", {}),
}
AXES = {"1d": 1, "2d": 2, "3d": 3}  # end of a class's name -> its spatial axes
PER_AXIS = ("kernel", "stride", "padding", "dilation", "output_padding", "size")
GELU_FORMS = {"none": "exact", "tanh": "tanh"}


def facts_of(module: nn.Module) -> tuple[str, dict[str, Any]]:
    """(canonical operation, canonical settings); empty for any other module."""
    fitting = (facts for known, facts in OPERATIONS.items() if isinstance(module, known))
    operation, names = next(fitting, ("", {}))
    if type(module) is nn.Sequential and not len(module):  # such as the shortcut of a block
        operation = "identity"
    found = {key: getattr(module, name) for key, name in names.items() if hasattr(module, name)}
    count = next(
        (AXES[n.__name__[-2:]] for n in type(module).__mro__ if n.__name__[-2:] in AXES), 0
    )
    settings = {
        key: _per_axis(value, count) if key in PER_AXIS else _plain(value)
        for key, value in found.items()
    }
    if operation == "batch_norm":
        settings["training"] = module.training or not settings.pop("track", True)
    if operation == "layer_norm":
        settings["axes"] = list(range(-len(settings.pop("shape")), 0))
    if operation == "gelu":
        settings["form"] = GELU_FORMS.get(settings["form"], settings["form"])
    return operation, settings


def _per_axis(value: Any, count: int) -> Any:
    if isinstance(value, (tuple, list)) or value is None or isinstance(value, str) or not count:
        return _plain(value)
    return [_plain(value)] * count


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (bool, int, float, str, type(None))) else str(value)
