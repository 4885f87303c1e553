"""Losses of TransFG, in PyTorch.

Source: He et al. 2022 (arXiv 2103.07976), section 3.3 and equation 10; label smoothing from
Szegedy et al. 2016 (arXiv 1512.00567). Twin: `transfg_jt/loss.py`.

Targets are labels (B,), or the shares of the classes in each image (B, C).
Shapes: B batch, C classes, D width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from transfg_core.config.sections import LossConfig
from transfg_torch.attention import at_least_float32
from transfg_torch.models.output import Output


class Losses(NamedTuple):
    """Scalars; the gradients are those of `total`."""

    total: Tensor
    cross_entropy: Tensor
    contrastive: Tensor


def cross_entropy(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """(1 - s) · -t · log p + s · mean over classes of -log p, batch mean: logits (B, C) -> scalar.

    t is a row of the targets (B, C); of a label, 1 at the label and 0 elsewhere.
    """
    return F.cross_entropy(at_least_float32(logits), targets, label_smoothing=smoothing)


def same_class(targets: Tensor) -> Tensor:
    """Weight of "one class" for each pair of images, (B, B): t_i · t_j; of labels, equality."""
    if targets.ndim == 2:
        return targets @ targets.transpose(0, 1)
    return targets.unsqueeze(1) == targets.unsqueeze(0)


def contrastive(features: Tensor, targets: Tensor, margin: float) -> Tensor:
    """Contrastive loss on L2-normalised features: (B, D) and targets -> scalar.

    Over all ordered pairs, i = j included: w (1 - cos) + (1 - w) max(cos - margin, 0), divided by
    B². w is 1 where the labels agree and 0 where they differ. Half precision becomes float32 first.
    """
    z = F.normalize(at_least_float32(features), dim=-1)
    cosine = z @ z.transpose(0, 1)
    same = same_class(targets).to(cosine.dtype)
    pairs = same * (1 - cosine) + (1 - same) * torch.clamp(cosine - margin, min=0.0)
    return pairs.sum() / cosine.shape[0] ** 2


def compute_losses(output: Output, targets: Tensor, config: LossConfig) -> Losses:
    """Cross-entropy, plus the contrastive loss where it is switched on."""
    ce = cross_entropy(output.logits, targets, config.label_smoothing)
    if not config.contrastive:
        return Losses(ce, ce, torch.zeros_like(ce))
    con = contrastive(output.features, targets, config.margin)
    return Losses(ce + con, ce, con)
