"""Losses of all models, in Jittor.

Source: He et al. 2022 (arXiv 2103.07976), section 3.3 and equation 10; label smoothing from
Szegedy et al. 2016 (arXiv 1512.00567); losses of stages from SwinFC (Xiang et al. 2023, equation
16). Twin: `transfg_torch/loss.py`.

Targets are labels (B,), or the shares of the classes in each image (B, C).
Shapes: B batch, C classes, D width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jittor as jt
from jittor import Var, nn

from transfg_core.config.sections import LossConfig
from transfg_jt.attention import at_least_float32
from transfg_jt.models.output import Output
from transfg_jt.ops.exact import inner_products, number


class Losses(NamedTuple):
    """Scalars; the gradients are those of `total`.

    `stages` are the cross-entropies of further classifiers, without their weights.
    """

    total: Var
    cross_entropy: Var
    contrastive: Var
    stages: Sequence[Var] = ()

    def named(self) -> dict[str, Var]:
        """The losses by the names of reports and traces; SwinFC counts its stages from 2."""
        names = {"loss": self.total, "cross_entropy": self.cross_entropy}
        names |= {f"stage_loss{i + 2}": loss for i, loss in enumerate(self.stages)}
        return names | {"contrastive": self.contrastive}


def cross_entropy(logits: Var, targets: Var, smoothing: float) -> Var:  # native: no such operator
    """(1 - s) · -t · log p + s · mean over classes of -log p, batch mean: logits (B, C) -> scalar.

    t is a row of the targets (B, C); of a label, 1 at the label and 0 elsewhere.
    """
    log_p = nn.log_softmax(at_least_float32(logits), dim=-1)
    batch, classes = log_p.shape
    s = number(smoothing, log_p)
    soft = targets.ndim == 2
    chosen = log_p * targets if soft else log_p.gather(1, targets.unsqueeze(1))
    # sums, since Jittor's mean has float32 constants
    return (chosen.sum(-1).sum() * (s - 1) - log_p.sum(-1).sum() * s / classes) / batch


def same_class(targets: Var) -> Var:
    """Weight of "one class" for each pair of images, (B, B): t_i · t_j; of labels, equality."""
    if targets.ndim == 2:
        return targets @ targets.transpose(0, 1)
    return targets.unsqueeze(1) == targets.unsqueeze(0)


def contrastive(features: Var, targets: Var, margin: float) -> Var:
    """Contrastive loss on L2-normalised features: (B, D) and targets -> scalar.

    Over all ordered pairs, i = j included: w (1 - cos) + (1 - w) max(cos - margin, 0), divided by
    B². w is 1 where the labels agree and 0 where they differ. Half precision becomes float32 first.
    """
    # jittor: sums over D in float64, since they are sequential; its normalize has eps 1e-30
    z = at_least_float32(features).float64()
    squares = (z * z).sum(-1, keepdims=True)  # jittor only: as above
    z = z / jt.sqrt(squares.maximum(number(1e-24, z)))  # jittor only: as above
    cosine = inner_products(z)  # jittor: cuBLAS gives it no product in float64
    same = same_class(targets).cast(cosine.dtype)  # jittor: another name
    margin = number(margin, cosine)  # jittor only: exact in float64
    pairs = same * (1 - cosine) + (1 - same) * jt.clamp(cosine - margin, min_v=0.0)
    loss = pairs.sum() / cosine.shape[0] ** 2  # jittor only: as above
    return loss if features.dtype == "float64" else loss.float32()  # jittor: as above


def compute_losses(output: Output, targets: Var, config: LossConfig) -> Losses:
    """Cross-entropy; for each further classifier its own, times its weight; contrastive loss.

    The weights are `loss.stages` (SwinFC, equation 16); `loss.contrastive` switches on the last.
    """
    ce = cross_entropy(output.logits, targets, config.label_smoothing)
    stages = [cross_entropy(x, targets, config.label_smoothing) for x in output.stage_logits]
    weights = config.stages if stages else ()
    # jittor: exact in float64
    total = sum((number(b, ce) * loss for b, loss in zip(weights, stages, strict=True)), ce)
    if not config.contrastive:
        return Losses(total, ce, jt.zeros_like(ce), stages)
    con = contrastive(output.compared, targets, config.margin)
    return Losses(total + con, ce, con, stages)
