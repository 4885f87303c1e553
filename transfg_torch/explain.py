"""What pictures of a trained model need of its gradients, in PyTorch.

Source: Simonyan et al. 2013 (arXiv 1312.6034); Selvaraju et al. 2017, Grad-CAM (arXiv 1610.02391).
Twin: `transfg_jt/explain.py`.

Shapes: B batch, C classes, N positions of a map, h and w its rows and columns, D channels.
"""

import torch.nn.functional as F
from torch import Tensor

from transfg_torch.attention import at_least_float32


def best_sum(logits: Tensor) -> Tensor:
    """The sum over images of the largest logit: its gradient is each image's own: (B, C) -> ()."""
    best = logits.gather(1, logits.argmax(dim=-1).unsqueeze(1))
    return best.sum()


def class_activation(values: Tensor, slopes: Tensor) -> Tensor:
    """Grad-CAM of a feature map and the gradient of a logit with respect to it: -> (B, N).

    Both are (B, D, h, w), or tokens (B, N, D). A channel's weight is the mean of its gradient over
    positions (equation 1); the map is the weighted sum of channels, cut off below 0 (equation 2).
    """
    maps, slopes = positions(at_least_float32(values)), positions(at_least_float32(slopes))
    return F.relu((maps * slopes.mean(1, keepdim=True)).sum(2))


def positions(x: Tensor) -> Tensor:
    """The positions of a map in a row, row by row: (B, D, h, w) or (B, N, D) -> (B, N, D)."""
    return x if x.ndim == 3 else x.flatten(2).transpose(1, 2)
