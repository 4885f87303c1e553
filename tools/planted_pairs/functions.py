"""The faulty functions that are planted: each is a forward pass of (module, input).

Shapes: images x are (B, C, H, W), tokens are (B, T, D).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

Function = Callable[..., Any]


def batch_norm(
    eps: float | None = None,
    share: float | None = None,
    reverse: bool = False,
    biased: bool = False,
    batch: bool | None = None,
    short: bool = False,
) -> Function:
    """A batch norm with another epsilon, share of the newest batch, variance, or statistics."""

    def run(self: Any, x: Tensor) -> Tensor:
        training = self.training if batch is None else batch
        shape = (1, -1, 1, 1)
        mean, var = self.running_mean, self.running_var
        if training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        if self.training:
            with torch.no_grad():
                part = self.momentum if share is None else share
                part = 1 - part if reverse else part
                count = x.numel() // x.shape[1]
                spread = var if biased else var * count / (count - 1)
                self.running_mean.lerp_(mean, part)
                self.running_var.lerp_(spread, part)
                self.num_batches_tracked.add_(1)
        number = float(np.float32(self.eps)) if short else eps or self.eps
        y = (x - mean.view(shape)) / (var.view(shape) + number).sqrt()
        return y * self.weight.view(shape) + self.bias.view(shape)

    return run


def one_pass_batch_norm(self: Any, x: Tensor) -> Tensor:
    """E[x²] - E[x]² in place of the mean of (x - mean)²."""
    mean = x.mean((0, 2, 3))
    var = (x * x).mean((0, 2, 3)) - mean * mean
    count = x.numel() // x.shape[1]
    if self.training:
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * count / (count - 1), self.momentum)
            self.num_batches_tracked.add_(1)
    else:
        mean, var = self.running_mean, self.running_var
    shape = (1, -1, 1, 1)
    y = (x - mean.view(shape)) / (var.view(shape) + self.eps).sqrt()
    return y * self.weight.view(shape) + self.bias.view(shape)


def layer_norm(eps: float | None = None, one_pass: bool = False, short: bool = False) -> Function:
    """A layer norm with another epsilon, a one-pass variance, or an epsilon of float32."""

    def run(self: Any, x: Tensor) -> Tensor:
        mean = x.mean(-1, keepdim=True)
        if one_pass:
            var = (x * x).mean(-1, keepdim=True) - mean * mean
        else:
            var = ((x - mean) ** 2).mean(-1, keepdim=True)
        number = float(np.float32(self.eps)) if short else eps or self.eps
        return (x - mean) / (var + number).sqrt() * self.weight + self.bias

    return run


def mean_pool(include: bool | None = None, ceil: bool | None = None) -> Function:
    """A mean pool with another `count_include_pad` or `ceil_mode`."""

    def run(self: Any, x: Tensor) -> Tensor:
        return F.avg_pool2d(
            x,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode if ceil is None else ceil,
            self.count_include_pad if include is None else include,
        )

    return run


def max_pool(ceil: bool = False, zeros: bool = False) -> Function:
    """A max pool with `ceil_mode`, or with a border of zeros that counts."""

    def run(self: Any, x: Tensor) -> Tensor:
        padding = self.padding
        if zeros:
            x, padding = F.pad(x, (padding,) * 4), 0
        return F.max_pool2d(x, self.kernel_size, self.stride, padding, ceil_mode=ceil)

    return run


def uniform_windows(pool: Function) -> Function:
    """An adaptive pool whose windows have one size: stride floor(n / m), as in some frameworks."""

    def run(self: Any, x: Tensor) -> Tensor:
        size = self.output_size
        strides = [n // m for n, m in zip(x.shape[2:], size, strict=True)]
        kernel = [n - (m - 1) * s for n, m, s in zip(x.shape[2:], size, strides, strict=True)]
        return pool(x, kernel, strides)  # type: ignore[no-any-return]

    return run


def convolution(mode: str | None = None, bias: bool = True, **settings: Any) -> Function:
    """A convolution with another padding mode or other settings, or without its bias."""

    def run(self: Any, x: Tensor) -> Tensor:
        padding = settings.get("padding", self.padding)
        used = mode or ("constant" if self.padding_mode == "zeros" else self.padding_mode)
        x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]), mode=used)
        return F.conv2d(
            x,
            self.weight,
            self.bias if bias else None,
            settings.get("stride", self.stride),
            0,
            settings.get("dilation", self.dilation),
            settings.get("groups", self.groups),
        )

    return run


def transposed(**settings: Any) -> Function:
    """A transposed convolution with other settings."""

    def run(self: Any, x: Tensor) -> Tensor:
        names = ("stride", "padding", "output_padding", "groups", "dilation")
        used = [settings.get(name, getattr(self, name)) for name in names]
        return F.conv_transpose2d(x, self.weight, self.bias, *used)

    return run


def zero_output_padding(self: Any, x: Tensor) -> Tensor:
    """Output padding as rows and columns of the bias alone, not as computed places."""
    settings = (self.stride, self.padding, 0, self.groups, self.dilation)
    y = F.conv_transpose2d(x, self.weight, None, *settings)
    rows, columns = self.output_padding
    return F.pad(y, (0, columns, 0, rows)) + self.bias.view(1, -1, 1, 1)


def upsample(corners: bool = False, mode: str = "bilinear") -> Function:
    """Upsampling with other corners or another mode."""

    def run(self: Any, x: Tensor) -> Tensor:
        options = {} if mode == "nearest" else {"align_corners": corners}
        return F.interpolate(x, None, self.scale_factor, mode, **options)

    return run


def shuffle(self: Any, x: Tensor) -> Tensor:
    """The transposed order: C / groups groups."""
    batch, channels, *places = x.shape
    y = x.reshape(batch, channels // self.groups, self.groups, *places)
    return y.transpose(1, 2).reshape(x.shape)


def unchanged(self: Any, x: Tensor) -> Tensor:
    """The input itself."""
    return x


def always_dropout(self: Any, x: Tensor) -> Tensor:
    """Dropout that is on in evaluation too."""
    return F.dropout(x, self.p, training=True)


def gelu_tanh(self: Any, x: Tensor) -> Tensor:
    """GELU by its tanh form (Hendrycks and Gimpel 2016)."""
    return F.gelu(x, approximate="tanh")


def short_gelu(self: Any, x: Tensor) -> Tensor:
    """GELU whose √½ is a float32 number."""
    return 0.5 * x * (1 + torch.erf(x * float(np.sqrt(np.float32(0.5)))))


def detached(*names: str) -> Function:
    """A layer whose parameters of these names get no gradient."""

    def run(self: Any, x: Tensor) -> Tensor:
        kept = dict(self._parameters)
        self._parameters.update({name: kept[name].detach() for name in names})
        try:
            return type(self).__mro__[1].forward(self, x)  # type: ignore[no-any-return,attr-defined]
        finally:
            self._parameters.update(kept)

    return run


def mean_one_by_one(self: Any, x: Tensor) -> Tensor:
    """The mean over all places, whose sum adds one number after another; gradients as usual."""
    right = F.adaptive_avg_pool2d(x, 1)
    terms = x.detach().flatten(2).numpy()
    total = torch.from_numpy(np.cumsum(terms, -1, dtype=terms.dtype)[..., -1].copy())
    return right + ((total / terms.shape[-1]).view(right.shape) - right).detach()


def attend(
    order: str = "qkv",
    interleaved: bool = False,
    scale: float = -0.5,
    mask: Callable[[Tensor], Tensor] = lambda mask: mask,
) -> Function:
    """Attention of a fused block with another order, scale or mask: (B, T, 3 D) -> (B, T, D)."""

    def run(self: Any, qkv: Tensor) -> Tensor:
        batch, tokens, _ = qkv.shape
        if interleaved:
            parts = qkv.reshape(batch, tokens, self.heads, 3, -1).permute(3, 0, 2, 1, 4)
        else:
            parts = qkv.reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = (parts[order.index(letter)] for letter in "qkv")
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** scale + mask(self.mask)
        return (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, tokens, -1)

    return run


def masked(change: Callable[[Tensor], Tensor]) -> Function:
    """PyTorch's attention with another mask."""

    def run(self: Any, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor, **options: Any) -> Any:
        return nn.MultiheadAttention.forward(self, q, k, v, attn_mask=change(attn_mask), **options)

    return run
