"""Planted faults of convolutions, norms and pools: they compute another function."""

from torch.nn import functional as F

from tools.planted_pairs import functions as f
from tools.planted_pairs import others as o
from tools.planted_pairs.planted import Planted, fault
from tools.planted_pairs.plants import forward, setting

LAYERS: tuple[Planted, ...] = (
    fault(
        "variance-biased-conv",
        "conv",
        forward("norm1", f.batch_norm(biased=True)),
        "biased",
        "norm1*",
    ),
    fault(
        "variance-biased-mobile",
        "mobile",
        forward("norm2", f.batch_norm(biased=True)),
        "biased",
        "norm2*",
    ),
    fault(
        "momentum-reversed-residual",
        "residual",
        forward("layer1.norm2", f.batch_norm(reverse=True)),
        "momentum reversed",
        "layer1.norm2*",
    ),
    fault(
        "momentum-reversed-setting",
        "mobile",
        setting("norm1", momentum=0.99),
        "momentum reversed",
        "norm1*",
    ),
    fault(
        "momentum-other", "conv", forward("norm2", f.batch_norm(share=0.01)), "momentum", "norm2*"
    ),
    fault(
        "batch-norm-eps-mobile", "mobile", forward("norm1", f.batch_norm(eps=1e-5)), "eps", "norm1"
    ),
    fault(
        "batch-norm-eps-setting",
        "residual",
        setting("layer2.norm1", eps=1e-3),
        "eps",
        "layer2.norm1",
    ),
    fault(
        "batch-norm-eps-decoder",
        "decoder",
        forward("norm2", f.batch_norm(eps=1e-4)),
        "eps",
        "norm2",
    ),
    fault(
        "layer-norm-eps",
        "transformer",
        forward("block1.norm2", f.layer_norm(eps=1e-5)),
        "eps",
        "block1.norm2",
    ),
    fault(
        "pad-counts",
        "conv",
        forward("mean_pool", f.mean_pool(include=True)),
        "count_include_pad",
        "mean_pool",
    ),
    fault(
        "pad-counts-setting",
        "conv",
        setting("mean_pool", count_include_pad=True),
        "count_include_pad",
        "mean_pool",
    ),
    fault(
        "max-pool-zeros",
        "conv",
        forward("max_pool", f.max_pool(zeros=True)),
        "padding",
        "max_pool",
        prepare=o.shifted("act1", -2.0),
    ),
    fault(
        "ceil-mode-max",
        "conv",
        forward("max_pool", f.max_pool(ceil=True)),
        "ceil_mode",
        "max_pool",
        prepare=setting("max_pool", kernel_size=2, padding=0),
    ),
    fault(
        "ceil-mode-mean",
        "conv",
        forward("mean_pool", f.mean_pool(ceil=True)),
        "ceil_mode",
        "mean_pool",
        prepare=setting("mean_pool", stride=2, kernel_size=2, padding=0),
    ),
    fault(
        "windows-mean",
        "conv",
        forward("adaptive", f.uniform_windows(F.avg_pool2d)),
        "adaptive windows",
        "adaptive",
    ),
    fault(
        "windows-max",
        "mobile",
        forward("pool", f.uniform_windows(F.max_pool2d)),
        "adaptive windows",
        "pool",
    ),
    fault(
        "padding-mode-conv",
        "conv",
        forward("stem", f.convolution(mode="replicate")),
        "padding mode",
        "stem",
    ),
    fault(
        "padding-mode-decoder",
        "decoder",
        forward("mix", f.convolution(mode="constant")),
        "padding mode",
        "mix",
    ),
    fault(
        "align-corners", "decoder", forward("up2", f.upsample(corners=True)), "align_corners", "up2"
    ),
    fault(
        "align-corners-setting",
        "decoder",
        setting("up2", align_corners=True),
        "align_corners",
        "up2",
    ),
    fault("upsample-mode", "decoder", forward("up2", f.upsample(mode="nearest")), "mode", "up2"),
    fault(
        "dilation-groups-decoder",
        "decoder",
        forward("last", f.transposed(dilation=1, groups=2)),
        "dilation and groups",
        "last",
    ),
    fault(
        "dilation-missing", "conv", forward("wide", f.convolution(dilation=1)), "dilation", "wide"
    ),
)
