"""Two convolutions with batch norm and a linear head in Jittor, and one recorded pass."""

from collections.abc import Callable

import jittor as jt
import numpy as np
from experiment import SETTINGS, C, R, draw_inputs
from jittor import Var, nn

Tap = Callable[[str, Var], Var]


class BatchNorm(nn.BatchNorm):
    """Batch norm with an unbiased running variance, like PyTorch's; Jittor's own is biased."""

    def execute(self, x: Var) -> Var:
        if not self.is_train:
            return super().execute(x)
        mean = x.mean((0, 2, 3), keepdims=True)
        variance = ((x - mean) * (x - mean)).mean((0, 2, 3), keepdims=True)
        count = x.numel() // x.shape[1]
        for running, now in (
            (self.running_mean, mean),
            (self.running_var, variance * (count / (count - 1))),
        ):
            running.update(running + (now.reshape((-1,)) - running) * self.momentum)
        scale, shift = (param.reshape((1, -1, 1, 1)) for param in (self.weight, self.bias))
        return (x - mean) / jt.sqrt(variance + self.eps) * scale + shift


class ConvNet(nn.Module):
    """Images (B, R, H, W) -> logits (B, C)."""

    def __init__(self, colours: int, channels: list[int], classes: int) -> None:
        super().__init__()
        width1, width2 = channels
        self.conv1 = nn.Conv(colours, width1, 3)
        self.norm1 = BatchNorm(width1)
        self.conv2 = nn.Conv(width1, width2, 3, stride=2)
        self.norm2 = BatchNorm(width2)
        self.head = nn.Linear(width2, classes)

    def execute(self, x: Var, tap: Tap) -> Var:
        x = tap("conv1", self.conv1(x))
        x = tap("norm1", self.norm1(x))
        x = tap("relu1", nn.relu(x))
        x = tap("conv2", self.conv2(x))
        x = tap("norm2", self.norm2(x))
        x = tap("relu2", nn.relu(x))
        x = tap("pool", x.mean((2, 3)))
        return tap("logits", self.head(x))


def loss_of(logits: Var, labels: Var) -> Var:
    """Cross-entropy, mean over the batch: (B, C) and (B,) -> scalar."""
    return nn.cross_entropy_loss(logits, labels)


def compute(weights: dict[str, np.ndarray], bug: str) -> dict[str, np.ndarray]:
    """One forward and backward pass in training mode: every tap as an array."""
    inputs = draw_inputs()
    model = ConvNet(R, SETTINGS["channels"], C)
    if bug == "eps":
        model.norm2.eps = 1e-3
    if bug == "transpose":
        weights = weights | {"conv2.weight": weights["conv2.weight"].transpose(0, 1, 3, 2)}
    if bug == "stock":
        model.norm1, model.norm2 = (nn.BatchNorm(n) for n in SETTINGS["channels"])
    model.train()
    for name, param in model.named_parameters():
        param.assign(jt.array(np.ascontiguousarray(weights[name])))
    taps: dict[str, Var] = {}

    def tap(name: str, value: Var) -> Var:
        taps[f"forward/{name}"] = value
        return value

    loss = loss_of(model(jt.array(inputs["images"]), tap), jt.array(inputs["labels"]))
    trained = [(n, p) for n, p in model.named_parameters() if "running" not in n]
    grads = jt.grad(loss, [param for _, param in trained])
    taps["losses/loss"] = loss
    for (name, _), grad in zip(trained, grads, strict=True):
        taps[f"gradients/{name}"] = grad
    for name, param in model.named_parameters():
        if "running" in name:
            taps[f"statistics/{name}"] = param
    arrays = {name: value.numpy() for name, value in taps.items()}
    arrays["losses/loss"] = arrays["losses/loss"].reshape(())  # Jittor's scalars have shape (1,)
    if bug == "transpose":  # back to the axes of the given kernel
        arrays["gradients/conv2.weight"] = arrays["gradients/conv2.weight"].transpose(0, 1, 3, 2)
    return arrays
