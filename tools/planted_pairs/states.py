"""Planted faults that lose digits or change a state, other structures, and clean controls."""

from torch import nn

from tools.planted_pairs import functions as f
from tools.planted_pairs import others as o
from tools.planted_pairs.planted import PRECISION, STATE, STRUCTURE, Planted, control, fault, short
from tools.planted_pairs.plants import both, forward, other, tied

STATES: tuple[Planted, ...] = (
    fault(
        "batch-norm-statistics",
        "residual",
        forward("norm", f.batch_norm(batch=True)),
        "statistics",
        "norm",
        STATE,
    ),
    fault(
        "dropout-in-evaluation",
        "conv",
        forward("dropout", f.always_dropout),
        "dropout",
        "dropout",
        STATE,
    ),
    fault(
        "dropout-in-evaluation-block",
        "transformer",
        forward("block1.dropout", f.always_dropout),
        "dropout",
        "block1.dropout",
        STATE,
    ),
    fault("dropout-never", "conv", forward("dropout", f.unchanged), "no dropout", "random", STATE),
    fault(
        "dropout-never-block",
        "transformer",
        forward("block1.dropout", f.unchanged),
        "no dropout",
        "random",
        STATE,
    ),
    fault(
        "frozen-convolution",
        "residual",
        forward("layer2.conv1", f.detached("weight")),
        "frozen",
        "layer2.conv1.weight",
        STATE,
    ),
    fault(
        "frozen-norm",
        "transformer",
        forward("block2.norm2", f.detached("weight", "bias")),
        "frozen",
        "block2.norm2.*",
        STATE,
    ),
    fault(
        "frozen-setting",
        "conv",
        lambda net: o.without_gradient(net, "thin.weight"),
        "frozen",
        "thin.weight",
        STATE,
    ),
    fault(
        "unused-decay",
        "conv",
        lambda net: o.zero_gradient(net, "auxiliary"),
        "unused decay",
        "auxiliary.*",
        STATE,
    ),
    fault(
        "unused-decay-transformer",
        "transformer",
        lambda net: o.zero_gradient(net, "spare"),
        "unused decay",
        "spare.*",
        STATE,
    ),
    fault(
        "auxiliary-head",
        "conv",
        o.with_auxiliary(returned=False),
        "outputs",
        "loss",
        STRUCTURE,
        o.with_auxiliary(returned=True),
    ),
    fault(
        "one-pass-layer-norm",
        "transformer",
        forward("block1.norm1", f.layer_norm(one_pass=True)),
        "one-pass",
        "block1.norm1",
        PRECISION,
        o.shifted("patches", o.FAR),
    ),
    fault(
        "one-pass-batch-norm",
        "residual",
        forward("norm", f.one_pass_batch_norm),
        "one-pass",
        "norm",
        PRECISION,
        o.shifted("stem", o.FAR),
    ),
    fault(
        "long-sum",
        "long",
        forward("pool", f.mean_one_by_one),
        "long sum",
        "pool",
        PRECISION,
    ),
    short("short-batch-norm-eps", "mobile", forward("norm1", f.batch_norm(short=True)), "norm1"),
    short("short-gelu", "transformer", forward("block1.act", f.short_gelu), "block1.act"),
    fault(
        "tied-weights",
        "residual",
        tied("layer1.conv2", "weight", "layer1.conv1.weight"),
        "state",
        "layer1.conv*.weight",
        STATE,
    ),
    fault(
        "tied-norms",
        "transformer",
        tied("block2.norm2", "weight", "block2.norm1.weight"),
        "state",
        "block2.norm*.weight",
        STATE,
    ),
)

# the same function, built otherwise: equivalent, and the output tells what is other
STRUCTURES: tuple[Planted, ...] = (
    Planted(
        "extra-identity",
        "residual",
        other("pool", lambda m: nn.Sequential(nn.Identity(), m)),
        verdict="equivalent",
        told="only",
    ),
    Planted(
        "other-names", "residual", lambda _: o.Renamed(), verdict="equivalent", told="stem.weight"
    ),
    Planted(
        "layout",
        "transformer",
        other("head", o.Transposed),
        verdict="equivalent",
        told="(in, out)",
        layouts={"head.weight": "(in, out)"},
    ),
)

# the same function, computed otherwise: nothing may be told
CONTROLS: tuple[Planted, ...] = (
    control("clean-conv", "conv", lambda net: net),
    control(
        "clean-batch-norm",
        "conv",
        both(forward("norm1", f.batch_norm()), forward("norm2", f.batch_norm())),
    ),
    control("clean-convolution", "conv", forward("stem", o.unfolded)),
    control("clean-residual", "residual", forward("layer2.conv2", o.unfolded)),
    control("clean-channels-last", "residual", o.channels_last),
    control("clean-attention", "transformer", forward("block1", o.fused_kernel, "attend")),
    control(
        "clean-layer-norm",
        "transformer",
        both(forward("block1.norm1", f.layer_norm()), forward("block2.norm2", f.layer_norm())),
    ),
    control("clean-decoder", "decoder", forward("mix", f.convolution())),
    control(
        "clean-mobile",
        "mobile",
        both(forward("norm1", f.batch_norm()), forward("act1", o.hard_swish)),
    ),
    control("clean-depthwise", "mobile", forward("depthwise", o.depthwise_by_shifts)),
)
