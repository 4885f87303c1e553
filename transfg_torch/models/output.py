"""What a model returns. Twin: `transfg_jt/models/output.py`."""

from typing import NamedTuple

from torch import Tensor


class Output(NamedTuple):
    """Logits (B, C), and features (B, D), the inputs of the classifier and the contrastive loss.

    With part selection also part_index (B, K) int64, counted from 1, as a class token has place 0,
    and part_scores (B, K, N). With part_features (B, D), the contrastive loss is of these.
    stage_logits are those of further classifiers, (B, C) each, each with a loss of its own. With
    prediction (B, C), an image is classified by it, and not by the logits.
    """

    logits: Tensor
    features: Tensor
    part_index: Tensor | None = None
    part_scores: Tensor | None = None
    part_features: Tensor | None = None
    stage_logits: tuple[Tensor, ...] = ()
    prediction: Tensor | None = None

    @property
    def answer(self) -> Tensor:
        """The logits by which an image is classified: (B, C)."""
        return self.logits if self.prediction is None else self.prediction

    @property
    def compared(self) -> Tensor:
        """The features that the contrastive loss compares: (B, D)."""
        return self.features if self.part_features is None else self.part_features
