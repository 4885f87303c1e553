"""What a model returns. Twin: `transfg_jt/models/output.py`."""

from typing import NamedTuple

from torch import Tensor


class Output(NamedTuple):
    """Logits (B, C), and features (B, D), the inputs of the classifier and the contrastive loss.

    With part selection also part_index (B, K) int64, counted with the class token at 0, and
    part_scores (B, K, N).
    """

    logits: Tensor
    features: Tensor
    part_index: Tensor | None = None
    part_scores: Tensor | None = None
