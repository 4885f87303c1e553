"""A small network in PyTorch, and its export to ONNX."""

import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Net(nn.Module):
    """(N, 3, height, width) -> (N, 5). The weights are drawn from a seed."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 8, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)
        for norm in (self.norm1, self.norm2):
            for value in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                nn.init.uniform_(value, 0.5, 1.5)

    def forward(self, x: Tensor) -> Tensor:
        """The logits of images."""
        x = F.max_pool2d(F.relu(self.norm1(self.conv1(x))), 2)
        x = F.relu(self.norm2(self.conv2(x)))
        return self.head(x.mean((2, 3)))


def export(net: nn.Module, shape: tuple[int, ...]) -> bytes:
    """The ONNX file of a network; the exporter folds its batch norms into convolutions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            net.eval(), (torch.zeros(shape),), dynamo=True, opset_version=18, verbose=False
        )
    return program.model_proto.SerializeToString()
