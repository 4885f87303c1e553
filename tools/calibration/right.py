"""Right candidates: the same function, computed in another way.

Each entry of REWRITTEN takes a model of `nets.py` and changes how it computes, in place. Parameters
keep their names, so both sides load the same weights.
"""

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tools.calibration.nets import Attention

Change = Callable[[nn.Module], nn.Module]


def becomes(classes: dict[type[nn.Module], type[nn.Module]]) -> Change:
    """The change of every module of one class into a subclass of it, with its state."""

    def change(model: nn.Module) -> nn.Module:
        for module in model.modules():
            if type(module) in classes:
                module.__class__ = classes[type(module)]
        return model

    return change


class ReversedConv(nn.Conv2d):
    """Input channels in reverse, so every sum runs the other way."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, d, h', w')."""
        y: Tensor = self._conv_forward(x.flip(1), self.weight.flip(1), self.bias)
        return y


class ReversedLinear(nn.Linear):
    """Inputs in reverse."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., c) -> (..., d)."""
        return F.linear(x.flip(-1), self.weight.flip(1), self.bias)


class SplitConv(nn.Conv2d):
    """The sum of two convolutions, each over half of the input channels."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, d, h', w')."""
        half = self.in_channels // 2
        first: Tensor = self._conv_forward(x[:, :half], self.weight[:, :half], None)
        second: Tensor = self._conv_forward(x[:, half:], self.weight[:, half:], self.bias)
        return first + second


class SplitLinear(nn.Linear):
    """The sum of two products, each over half of the inputs."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., c) -> (..., d)."""
        half = self.in_features // 2
        first = x[..., :half] @ self.weight[:, :half].T
        return first + F.linear(x[..., half:], self.weight[:, half:], self.bias)


class PatchConv(nn.Conv2d):
    """One matrix product of all patches."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, d, h', w')."""
        padding = cast(tuple[int, int], self.padding)
        patches = F.unfold(x, self.kernel_size, padding=padding, stride=self.stride)
        sizes = [
            (s + 2 * p - k) // t + 1
            for s, p, k, t in zip(x.shape[2:], padding, self.kernel_size, self.stride, strict=True)
        ]
        y = (self.weight.flatten(1) @ patches).reshape(len(x), self.out_channels, *sizes)
        return y if self.bias is None else y + self.bias[:, None, None]


class WrittenBatchNorm(nn.BatchNorm2d):
    """Batch norm from its formula: means, then squared distances from them."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> the same."""
        mean, variance = cast(Tensor, self.running_mean), cast(Tensor, self.running_var)
        if self.training:
            count = x.numel() / x.shape[1]
            batch = x.mean((0, 2, 3))
            spread = (x - batch[:, None, None]).square().mean((0, 2, 3))
            share = cast(float, self.momentum)
            with torch.no_grad():
                mean.mul_(1 - share).add_(share * batch)
                variance.mul_(1 - share).add_(share * spread * (count / (count - 1)))
                cast(Tensor, self.num_batches_tracked).add_(1)
            mean, variance = batch, spread
        y = (x - mean[:, None, None]) / torch.sqrt(variance[:, None, None] + self.eps)
        return y * self.weight[:, None, None] + self.bias[:, None, None]


class WrittenLayerNorm(nn.LayerNorm):
    """Layer norm from its formula."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., c) -> the same."""
        centred = x - x.mean(-1, keepdim=True)
        spread = centred.square().mean(-1, keepdim=True)
        return centred / torch.sqrt(spread + self.eps) * self.weight + self.bias


class FoldedBatchNorm(nn.BatchNorm2d):
    """In evaluation one factor and one shift for each channel, as inference engines fold it."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> the same."""
        if self.training:
            return super().forward(x)
        factor = self.weight * torch.rsqrt(cast(Tensor, self.running_var) + self.eps)
        shift = self.bias - cast(Tensor, self.running_mean) * factor
        return x * factor[:, None, None] + shift[:, None, None]


class WrittenReLU(nn.ReLU):
    """(x + |x|) / 2."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return (x + x.abs()) / 2


class WrittenGELU(nn.GELU):
    """x (1 + erf(x / sqrt(2))) / 2."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return x * (1 + torch.erf(x / 2**0.5)) / 2


class WrittenHardswish(nn.Hardswish):
    """x clamp(x + 3, 0, 6) / 6."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return x * (x + 3).clamp(0, 6) / 6


class WrittenTanh(nn.Tanh):
    """e / (e + 2) with e = exp(2 x) - 1."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        e = torch.expm1(2 * x)
        return e / (e + 2)


class FusedAttention(Attention):
    """PyTorch's fused attention."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `Attention`."""
        return F.scaled_dot_product_attention(q, k, v)


class WrittenMeanPool(nn.AvgPool2d):
    """A mean over patches."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, c, h', w')."""
        count, channels, *sizes = x.shape
        patches = F.unfold(x, 3, padding=1, stride=2).reshape(count, channels, 9, -1)
        return patches.mean(2).reshape(count, channels, *((s + 1) // 2 for s in sizes))


def channels_last(model: nn.Module) -> nn.Module:
    """Weights, and so activations, with the channels last in memory."""
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def without_onednn(model: nn.Module) -> nn.Module:
    """PyTorch's own convolutions; holds for the whole process, which serves this setting only."""
    torch.backends.mkldnn.set_flags(False)  # type: ignore[no-untyped-call]
    return model


REWRITTEN: dict[str, Change] = {
    "reversed sums": becomes({nn.Conv2d: ReversedConv, nn.Linear: ReversedLinear}),
    "split sums": becomes({nn.Conv2d: SplitConv, nn.Linear: SplitLinear}),
    "convolutions as matrix products": becomes({nn.Conv2d: PatchConv}),
    "channels last": channels_last,
    "norms from the formula": becomes(
        {nn.BatchNorm2d: WrittenBatchNorm, nn.LayerNorm: WrittenLayerNorm}
    ),
    "folded batch norm": becomes({nn.BatchNorm2d: FoldedBatchNorm}),
    "activations from the formula": becomes(
        {
            nn.ReLU: WrittenReLU,
            nn.GELU: WrittenGELU,
            nn.Hardswish: WrittenHardswish,
            nn.Tanh: WrittenTanh,
        }
    ),
    "fused attention": becomes({Attention: FusedAttention}),
    "mean pool over patches": becomes({nn.AvgPool2d: WrittenMeanPool}),
    "without oneDNN": without_onednn,
}
