"""What a model returns. Twin: `transfg_torch/models/output.py`."""

from typing import NamedTuple

from jittor import Var


class Output(NamedTuple):
    """Logits (B, C), and features (B, D), the inputs of the classifier and the contrastive loss.

    With part selection also part_index (B, K) int64, counted with the class token at 0, and
    part_scores (B, K, N).
    """

    logits: Var
    features: Var
    part_index: Var | None = None
    part_scores: Var | None = None
