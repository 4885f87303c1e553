"""Batch normalisation, in Jittor.

Source: Ioffe and Szegedy 2015 (arXiv 1502.03167), algorithm 1. Twin:
`transfg_torch/models/batch_norm.py`.

Shapes: B batch, F channels, then any number of positions.
"""

import jittor as jt
from jittor import Var, nn

from transfg_core.errors import UserError
from transfg_jt.checkpointing import RECOMPUTING
from transfg_jt.ops.batch_norm import batch_norm
from transfg_jt.ops.bfloat16 import cast_like, to_float32
from transfg_jt.ops.exact import number

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
        self.weight = jt.ones(channels)
        self.bias = jt.zeros(channels)
        # jittor block for 2 lines: it has no buffers
        self.running_mean = jt.zeros(channels).stop_grad()
        self.running_var = jt.ones(channels).stop_grad()

    def execute(self, x: Var) -> Var:  # native: the running variance of Jittor's is biased
        """A batch needs more than one value per channel in training.

        Raises:
            UserError: it has one.
        """
        by_batch = self.is_train and not self.fixed
        count = x.numel() // x.shape[1]
        if by_batch:
            check_count(count)
        statistics = None if by_batch else (self.running_mean, self.running_var)
        wide = to_float32(x)
        y, mean, var = batch_norm(wide, self.weight, self.bias, statistics, BATCH_NORM_EPS)
        if by_batch and not RECOMPUTING.get():  # a second pass must not count a batch twice
            self.move(mean.detach(), var.detach() * number(count / (count - 1), wide))
        return cast_like(y, x)

    def move(self, mean: Var, var: Var) -> None:  # native: PyTorch's operator does it
        """Move the running statistics towards those of a batch, (F,)."""
        for running, value in ((self.running_mean, mean), (self.running_var, var)):
            running.update(running + (value - running) * number(MOMENTUM, running))


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
