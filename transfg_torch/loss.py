"""Losses of TransFG, in PyTorch.

Source: He et al. 2022 (arXiv 2103.07976), section 3.3 and equation 10; label smoothing from
Szegedy et al. 2016 (arXiv 1512.00567). Twin: `transfg_jt/loss.py`.

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


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """(1 - s) · nll + s · mean over classes of -log p, batch mean: (B, C) and (B,) -> scalar."""
    return F.cross_entropy(at_least_float32(logits), labels, label_smoothing=smoothing)


def contrastive(features: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Contrastive loss on L2-normalised features: (B, D) and (B,) -> scalar.

    Over all ordered pairs, i = j included: 1 - cos where the labels agree, max(cos - margin, 0)
    where they differ, divided by B². Half precision becomes float32 first.
    """
    z = F.normalize(at_least_float32(features), dim=-1)
    cosine = z @ z.transpose(0, 1)
    same = labels.unsqueeze(1) == labels.unsqueeze(0)
    pairs = torch.where(same, 1 - cosine, torch.clamp(cosine - margin, min=0.0))
    return pairs.sum() / labels.shape[0] ** 2


def compute_losses(output: Output, labels: Tensor, config: LossConfig) -> Losses:
    """Cross-entropy, plus the contrastive loss where it is switched on."""
    ce = cross_entropy(output.logits, labels, config.label_smoothing)
    if not config.contrastive:
        return Losses(ce, ce, torch.zeros_like(ce))
    con = contrastive(output.features, labels, config.margin)
    return Losses(ce + con, ce, con)
