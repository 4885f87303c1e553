"""Losses of all models, in PyTorch.

Source: He et al. 2022 (arXiv 2103.07976), section 3.3 and equation 10; label smoothing from
Szegedy et al. 2016 (arXiv 1512.00567); losses of stages from SwinFC (Xiang et al. 2023, equation
16). Twin: `transfg_jt/loss.py`.

Targets are labels (B,), or the shares of the classes in each image (B, C).
Shapes: B batch, C classes, D width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from transfg_core.config.sections import LossConfig
from transfg_torch.attention import at_least_float32
from transfg_torch.models.output import Output


class Losses(NamedTuple):
    """Scalars; the gradients are those of `total`.

    `stages` are the cross-entropies of further classifiers, without their weights.
    """

    total: Tensor
    cross_entropy: Tensor
    contrastive: Tensor
    stages: Sequence[Tensor] = ()

    def named(self) -> dict[str, Tensor]:
        """The losses by the names of reports and traces; SwinFC counts its stages from 2."""
        names = {"loss": self.total, "cross_entropy": self.cross_entropy}
        names |= {f"stage_loss{i + 2}": loss for i, loss in enumerate(self.stages)}
        return names | {"contrastive": self.contrastive}


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
    """Cross-entropy; for each further classifier its own, times its weight; contrastive loss.

    The weights are `loss.stages` (SwinFC, equation 16); `loss.contrastive` switches on the last.
    """
    ce = cross_entropy(output.logits, targets, config.label_smoothing)
    stages = [cross_entropy(x, targets, config.label_smoothing) for x in output.stage_logits]
    weights = config.stages if stages else ()
    total = sum((b * loss for b, loss in zip(weights, stages, strict=True)), ce)
    if not config.contrastive:
        return Losses(total, ce, torch.zeros_like(ce), stages)
    con = contrastive(output.compared, targets, config.margin)
    return Losses(total + con, ce, con, stages)
