"""What a model returns. Twin: `transfg_torch/models/output.py`."""

from typing import NamedTuple

from jittor import Var


class Output(NamedTuple):
    """Logits (B, C), and features (B, D), the inputs of the classifier and the contrastive loss.

    With part selection also part_index (B, K) int64, counted from 1, as a class token has place 0,
    and part_scores (B, K, N). With part_features (B, D), the contrastive loss is of these.
    stage_logits are those of further classifiers, (B, C) each, each with a loss of its own. With
    prediction (B, C), an image is classified by it, and not by the logits.
    """

    logits: Var
    features: Var
    part_index: Var | None = None
    part_scores: Var | None = None
    part_features: Var | None = None
    stage_logits: tuple[Var, ...] = ()
    prediction: Var | None = None

    @property
    def answer(self) -> Var:
        """The logits by which an image is classified: (B, C)."""
        return self.logits if self.prediction is None else self.prediction

    @property
    def compared(self) -> Var:
        """The features that the contrastive loss compares: (B, D)."""
        return self.features if self.part_features is None else self.part_features
