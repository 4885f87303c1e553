"""Faulty candidates: one subtle fault each, planted in a network of `nets.py`, in place."""

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tools.calibration.nets import Attention, middle
from tools.calibration.right import Change


def block(change: Callable[[Any], None]) -> Change:
    """A change of the middle block."""

    def changed(model: nn.Module) -> nn.Module:
        change(middle(model))
        return model

    return changed


def scaled(factor: float) -> Callable[[Any], None]:
    """The output of the block's first convolution or product, times a factor."""

    def change(target: Any) -> None:
        target.conv.register_forward_hook(lambda _, __, output: output * factor)

    return change


def all_norms(eps: float) -> Change:
    """Another epsilon in every norm."""

    def change(model: nn.Module) -> nn.Module:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
                module.eps = eps
        return model

    return change


def one_norm(target: Any) -> None:
    """Epsilon 1e-6 instead of 1e-5 in one norm."""
    target.norm.eps = 1e-6


def tanh_gelu(target: Any) -> None:
    """GELU in its tanh form in one block."""
    target.act.approximate = "tanh"


class Without(nn.Linear):
    """A product that leaves out its bias."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., c) -> (..., d)."""
        return F.linear(x, self.weight)


def no_bias(model: nn.Module) -> nn.Module:
    """The head's bias is not added."""
    model.head.__class__ = Without
    return model


class BiasedVariance(nn.BatchNorm2d):
    """Batch norm whose running variance divides by n instead of n - 1."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> the same."""
        if not self.training:
            return super().forward(x)
        share = cast(float, self.momentum)
        with torch.no_grad():
            spread, mean = torch.var_mean(x, (0, 2, 3), unbiased=False)
            for kept, new in ((self.running_mean, mean), (self.running_var, spread)):
                cast(Tensor, kept).mul_(1 - share).add_(share * new)
            cast(Tensor, self.num_batches_tracked).add_(1)
        return F.batch_norm(x, None, None, self.weight, self.bias, True, eps=self.eps)


def biased_variance(target: Any) -> None:
    """Of one batch norm."""
    target.norm.__class__ = BiasedVariance


def reversed_momentum(target: Any) -> None:
    """Share 0.9 of the newest batch instead of 0.1."""
    target.norm.momentum = 1 - target.norm.momentum


def padding_not_counted(model: nn.Module) -> nn.Module:
    """The mean pool divides by the number of pixels inside the image."""
    cast(nn.AvgPool2d, model.get_submodule("pool")).count_include_pad = False
    return model


def frozen(target: Any) -> None:
    """A parameter that does not train."""
    target.norm.weight.requires_grad_(False)


class Transposed(nn.Linear):
    """A square weight that is transposed."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., c) -> (..., c)."""
        return F.linear(x, self.weight.T, self.bias)


class TransposedKernel(nn.Conv2d):
    """A kernel whose height and width are exchanged."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, d, h, w)."""
        y: Tensor = self._conv_forward(x, self.weight.transpose(2, 3), self.bias)
        return y


def transposed(target: Any) -> None:
    """One weight."""
    if hasattr(target, "attention"):
        target.attention.out.__class__ = Transposed
    else:
        target.conv.__class__ = TransposedKernel


def early(target: Any) -> None:
    """The residual sum is at another place."""
    target.early = True


def cut(target: Any) -> None:
    """The shortcut passes no gradient."""
    target.cut = True


class HalfGradient(torch.autograd.Function):
    """Identity whose gradient is halved."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Any shape."""
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Any shape."""
        return gradient / 2


def half_gradient(target: Any) -> None:
    """A factor of one gradient is missing; the output is right."""
    half: Any = HalfGradient.apply
    target.act.register_forward_hook(lambda _, __, output: half(output))


def border(target: Any) -> None:
    """Zeros at the border become copies of the border."""
    target.conv.padding_mode = "replicate"
    target.conv._reversed_padding_repeated_twice = (1, 1, 1, 1)


def attention_scale(target: Any) -> None:
    """A factor of 1.001 on the scale of one attention."""
    target.attention.factor = 1.001


def softmax_axis(target: Any) -> None:
    """Softmax over the queries."""
    target.attention.softmax.dim = -2


def interleaved(target: Any) -> None:
    """Heads are split with their axis last."""
    attention: Attention = target.attention
    attention.interleaved = True


def no_dropout(model: nn.Module) -> nn.Module:
    """Dropout that never drops."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


class UnbiasedLayerNorm(nn.LayerNorm):
    """Layer norm with the unbiased variance, n - 1."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., c) -> the same."""
        spread = x.var(-1, keepdim=True, unbiased=True)
        y = (x - x.mean(-1, keepdim=True)) / torch.sqrt(spread + self.eps)
        return y * self.weight + self.bias


class UnbiasedBatchNorm(nn.BatchNorm2d):
    """Batch norm that trains with the unbiased variance, n - 1."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> the same."""
        y = super().forward(x)
        if not self.training:
            return y
        spread = x.var((0, 2, 3), keepdim=True, unbiased=True)
        z = (x - x.mean((0, 2, 3), keepdim=True)) / torch.sqrt(spread + self.eps)
        return z * self.weight[:, None, None] + self.bias[:, None, None]


def unbiased(target: Any) -> None:
    """One norm."""
    layer = isinstance(target.norm, nn.LayerNorm)
    target.norm.__class__ = UnbiasedLayerNorm if layer else UnbiasedBatchNorm


class FixedLayerNorm(nn.LayerNorm):
    """Layer norm whose statistics are constants for the gradient."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., c) -> the same."""
        mean, spread = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
        y = (x - mean.detach()) / torch.sqrt(spread.detach() + self.eps)
        return y * self.weight + self.bias


class FixedBatchNorm(nn.BatchNorm2d):
    """Batch norm whose statistics are constants for the gradient in training."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> the same."""
        y = super().forward(x)
        if not self.training:
            return y
        axes = (0, 2, 3)
        mean, spread = x.mean(axes, keepdim=True), x.var(axes, keepdim=True, unbiased=False)
        z = (x - mean.detach()) / torch.sqrt(spread.detach() + self.eps)
        return z * self.weight[:, None, None] + self.bias[:, None, None]


def fixed_statistics(target: Any) -> None:
    """One norm."""
    layer = isinstance(target.norm, nn.LayerNorm)
    target.norm.__class__ = FixedLayerNorm if layer else FixedBatchNorm


def rounded(target: Any) -> None:
    """The input of one convolution or product has eight digits."""
    target.conv.register_forward_pre_hook(
        lambda _, inputs: (inputs[0].to(torch.bfloat16).to(inputs[0].dtype),)
    )


class NearReLU(nn.ReLU):
    """A slope of 0.001 below zero."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return F.leaky_relu(x, 1e-3)


class NearHardswish(nn.Hardswish):
    """SiLU."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return F.silu(x)


class NearTanh(nn.Tanh):
    """A quotient of polynomials: Padé's of order (7, 6), to 1e-6 for |x| < 1."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        s = x * x
        above = x * (135135 + s * (17325 + s * (378 + s)))
        return above / (135135 + s * (62370 + s * (3150 + 28 * s)))


NEAR = {nn.ReLU: NearReLU, nn.Hardswish: NearHardswish, nn.Tanh: NearTanh}


def near_activation(target: Any) -> None:
    """Another function that is near."""
    target.act.__class__ = NEAR[type(target.act)]


PLANTED: dict[str, Change] = {
    "epsilon of one norm": block(one_norm),
    "epsilon of all norms": all_norms(1e-3),
    "tanh GELU in one block": block(tanh_gelu),
    "factor 1.001": block(scaled(1.001)),
    "factor 1.00001": block(scaled(1.00001)),
    "bias missing": no_bias,
    "biased running variance": block(biased_variance),
    "momentum reversed": block(reversed_momentum),
    "padding not counted": padding_not_counted,
    "frozen parameter": block(frozen),
    "transposed weight": block(transposed),
    "residual order": block(early),
    "shortcut without gradient": block(cut),
    "gradient halved": block(half_gradient),
    "border replicated": block(border),
    "attention scale": block(attention_scale),
    "softmax axis": block(softmax_axis),
    "heads interleaved": block(interleaved),
    "dropout missing": no_dropout,
    "unbiased norm": block(unbiased),
    "norm gradient without statistics": block(fixed_statistics),
    "bfloat16 input": block(rounded),
    "activation approximated": block(near_activation),
}
