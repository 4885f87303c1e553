"""Planted faults of attention, activations, shuffles, biases: they compute another function."""

from torch import nn

from tools.planted_pairs import functions as f
from tools.planted_pairs.planted import Planted, fault
from tools.planted_pairs.plants import forward, other, setting

BLOCKS: tuple[Planted, ...] = (
    fault("shuffle-order", "mobile", forward("shuffle", f.shuffle), "shuffle", "shuffle"),
    fault("shuffle-missing", "mobile", forward("shuffle", f.unchanged), "left out", "shuffle"),
    fault(
        "bias-missing-conv",
        "conv",
        forward("thin", f.convolution(bias=False, padding=(0, 0))),
        "no bias",
        "thin",
    ),
    fault(
        "bias-missing-linear",
        "transformer",
        forward("block2.fc1", lambda self, x: x @ self.weight.T),
        "no bias",
        "block2.fc1",
    ),
    fault(
        "bias-not-made",
        "conv",
        other("thin", lambda _: nn.Conv2d(12, 10, 1, bias=False)),
        "no bias",
        "thin",
    ),
    fault(
        "output-padding",
        "decoder",
        forward("up1", f.transposed(output_padding=0)),
        "output padding",
        "up1",
    ),
    fault(
        "output-padding-zeros",
        "decoder",
        forward("up1", f.zero_output_padding),
        "output padding",
        "up1",
    ),
    fault(
        "qkv-order",
        "transformer",
        forward("block1", f.attend("kqv"), "attend"),
        "swapped",
        "block1.proj",
    ),
    fault(
        "qkv-order-values",
        "transformer",
        forward("block1", f.attend("qvk"), "attend"),
        "qkv order",
        "block1.proj",
    ),
    fault(
        "qkv-interleaved",
        "transformer",
        forward("block1", f.attend(interleaved=True), "attend"),
        "qkv order",
        "block1.proj",
    ),
    fault(
        "attention-scale",
        "transformer",
        forward("block1", f.attend(scale=-1.0), "attend"),
        "scale",
        "block1.proj",
    ),
    fault("gelu-tanh", "transformer", forward("block1.act", f.gelu_tanh), "tanh", "block1.act"),
    fault(
        "gelu-setting",
        "transformer",
        setting("block1.act", approximate="tanh"),
        "tanh",
        "block1.act",
    ),
    fault(
        "mask-sign",
        "transformer",
        forward("block2.attention", f.masked(lambda m: ~m)),
        "mask",
        "block2.attention*",
    ),
    fault(
        "mask-transposed",
        "transformer",
        forward("block2.attention", f.masked(lambda m: m.T)),
        "mask",
        "block2.attention*",
    ),
    fault(
        "mask-sign-function",
        "transformer",
        forward("block1", f.attend(mask=lambda m: -m), "attend"),
        "mask",
        "block1.proj",
    ),
    fault(
        "mask-shape-function",
        "transformer",
        forward("block1", f.attend(mask=lambda m: m.T), "attend"),
        "mask",
        "block1.proj",
    ),
    fault(
        "mask-missing-function",
        "transformer",
        forward("block1", f.attend(mask=lambda m: 0 * m), "attend"),
        "mask",
        "block1.proj",
    ),
    fault(
        "parameters-missing",
        "residual",
        other("head", lambda _: nn.Linear(12, 5, bias=False)),
        "no bias",
        "head",
    ),
)
