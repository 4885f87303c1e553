"""Two convolutions with batch norm and a linear head in PyTorch, and one recorded pass."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from experiment import SETTINGS, C, R, draw_inputs
from torch import Tensor, nn

Tap = Callable[[str, Tensor], Tensor]


class ConvNet(nn.Module):
    """Images (B, R, H, W) -> logits (B, C)."""

    def __init__(self, colours: int, channels: list[int], classes: int) -> None:
        super().__init__()
        width1, width2 = channels
        self.conv1 = nn.Conv2d(colours, width1, 3)
        self.norm1 = nn.BatchNorm2d(width1)
        self.conv2 = nn.Conv2d(width1, width2, 3, stride=2)
        self.norm2 = nn.BatchNorm2d(width2)
        self.head = nn.Linear(width2, classes)

    def forward(self, x: Tensor, tap: Tap) -> Tensor:
        x = tap("conv1", self.conv1(x))
        x = tap("norm1", self.norm1(x))
        x = tap("relu1", F.relu(x))
        x = tap("conv2", self.conv2(x))
        x = tap("norm2", self.norm2(x))
        x = tap("relu2", F.relu(x))
        x = tap("pool", x.mean(dim=(2, 3)))
        return tap("logits", self.head(x))


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, mean over the batch: (B, C) and (B,) -> scalar."""
    return F.cross_entropy(logits, labels)


def compute(weights: dict[str, np.ndarray], dtype: torch.dtype) -> dict[str, np.ndarray]:
    """One forward and backward pass in training mode: every tap as an array."""
    inputs = draw_inputs()
    model = ConvNet(R, SETTINGS["channels"], C).to(dtype).train()
    state = {name: torch.from_numpy(value).to(dtype) for name, value in weights.items()}
    model.load_state_dict(state, strict=False)  # without num_batches_tracked, a counter
    taps: dict[str, Tensor] = {}

    def tap(name: str, value: Tensor) -> Tensor:
        taps[f"forward/{name}"] = value
        return value

    images = torch.from_numpy(inputs["images"]).to(dtype)
    loss = loss_of(model(images, tap), torch.from_numpy(inputs["labels"]))
    loss.backward()
    taps["losses/loss"] = loss
    for name, param in model.named_parameters():
        taps[f"gradients/{name}"] = param.grad
    for name, value in model.named_buffers():
        if value.is_floating_point():
            taps[f"statistics/{name}"] = value
    return {name: value.detach().numpy() for name, value in taps.items()}
