"""Batch normalisation, in PyTorch.

Source: Ioffe and Szegedy 2015 (arXiv 1502.03167), algorithm 1. Twin:
`transfg_jt/models/batch_norm.py`.

Shapes: B batch, F channels, then any number of positions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transfg_core.errors import UserError
from transfg_torch.checkpointing import RECOMPUTING

BATCH_NORM_EPS = 1e-5  # torchvision's ResNet, and the default of both frameworks
MOMENTUM = 0.1  # share of the newest batch in the running statistics; as above


class BatchNorm(nn.Module):
    """Normalise each channel: (B, F, ...) -> (B, F, ...).

    In training by the batch's mean and biased variance; the running statistics move towards the
    batch's mean and unbiased variance. In evaluation by the running statistics.
    """

    fixed = False  # whether the running statistics are frozen, and used in training too

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        # torch block for 2 lines: Jittor has no buffers
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:  # native: the running variance of Jittor's is biased
        """A batch needs more than one value per channel in training.

        Raises:
            UserError: it has one.
        """
        by_batch = self.training and not self.fixed
        if by_batch:
            check_count(x.numel() // x.shape[1])
        statistics = self.running_mean, self.running_var
        if by_batch and RECOMPUTING.get():  # a second pass must not count a batch twice
            statistics = tuple(running.clone() for running in statistics)
        return F.batch_norm(
            x, *statistics, self.weight, self.bias, by_batch, MOMENTUM, BATCH_NORM_EPS
        )


def check_count(count: int) -> None:
    """Refuse a batch with one value per channel, of which there is no variance.

    Raises:
        UserError: as said.
    """
    if count < 2:
        raise UserError(
            "batch norm: expected more than one value per channel in training, found one image "
            "with one position; enlarge train.batch_size or data.crop"
        )
