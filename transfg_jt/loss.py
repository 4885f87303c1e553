"""Losses of TransFG, in Jittor.

Source: He et al. 2022 (arXiv 2103.07976), section 3.3 and equation 10; label smoothing from
Szegedy et al. 2016 (arXiv 1512.00567). Twin: `transfg_torch/loss.py`.

Shapes: B batch, C classes, D width.
"""

from typing import NamedTuple

import jittor as jt
from jittor import Var, nn

from transfg_core.config.sections import LossConfig
from transfg_jt.attention import at_least_float32
from transfg_jt.models.output import Output
from transfg_jt.ops.exact import number


class Losses(NamedTuple):
    """Scalars; the gradients are those of `total`."""

    total: Var
    cross_entropy: Var
    contrastive: Var


def cross_entropy(logits: Var, labels: Var, smoothing: float) -> Var:
    """(1 - s) · nll + s · mean over classes of -log p, batch mean: (B, C) and (B,) -> scalar."""
    log_p = nn.log_softmax(at_least_float32(logits), dim=-1)  # jittor: smoothing is not built in
    batch, classes = log_p.shape  # jittor only: its mean has float32 constants
    s = number(smoothing, log_p)  # jittor only: exact in float64
    chosen = log_p.gather(1, labels.unsqueeze(1)).sum()  # jittor only: as above
    # jittor only: as above
    return (chosen * (s - 1) - log_p.sum(-1).sum() * s / classes) / batch


def contrastive(features: Var, labels: Var, margin: float) -> Var:
    """Contrastive loss on L2-normalised features: (B, D) and (B,) -> scalar.

    Over all ordered pairs, i = j included: 1 - cos where the labels agree, max(cos - margin, 0)
    where they differ, divided by B². Half precision becomes float32 first.
    """
    # jittor: sums over D in float64, since they are sequential; its normalize has eps 1e-30
    z = at_least_float32(features).float64()
    squares = (z * z).sum(-1, keepdims=True)  # jittor only: as above
    z = z / jt.sqrt(squares.maximum(number(1e-24, z)))  # jittor only: as above
    cosine = z @ z.transpose(0, 1)
    same = labels.unsqueeze(1) == labels.unsqueeze(0)
    # jittor: exact in float64
    pairs = jt.where(same, 1 - cosine, jt.clamp(cosine - number(margin, cosine), min_v=0.0))
    loss = pairs.sum() / labels.shape[0] ** 2  # jittor only: as above
    return loss if features.dtype == "float64" else loss.float32()  # jittor: as above


def compute_losses(output: Output, labels: Var, config: LossConfig) -> Losses:
    """Cross-entropy, plus the contrastive loss where it is switched on."""
    ce = cross_entropy(output.logits, labels, config.label_smoothing)
    if not config.contrastive:
        return Losses(ce, ce, jt.zeros_like(ce))
    con = contrastive(output.features, labels, config.margin)
    return Losses(ce + con, ce, con)
