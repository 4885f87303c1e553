"""The `model` section of SwinFC (`model.name: swinfc`)."""

from typing import Literal

from transfg_core.config.fields import Positive
from transfg_core.config.swin import SwinConfig


class SwinFCConfig(SwinConfig):
    """SwinFC (Xiang et al. 2023): a Swin Transformer with classifiers on the maps of three stages.

    Every module can be switched off, as in the paper's ablation. The keys below them are choices
    that the paper leaves open; docs/spec.md says what each one is inferred from.
    """

    name: Literal["swinfc"] = "swinfc"  # type: ignore[assignment]
    ea: bool = True  # external dependency attention
    ca: bool = True  # cross-space attention
    ffm: bool = True  # feature fusion module, on aligned maps
    fsm: bool = True  # feature selection module: the contrastive loss reads the chosen tokens
    memories: Positive = 64  # of external attention
    ea_norm: Literal["batch", "softmax"] = "batch"  # softmax: over positions, then L1 over memories
    align_width: Positive = 512  # channels between the two convolutions before FFM
    fused_width: Positive = 1024  # channels of the maps that FFM fuses
    similarity: Literal["dot", "cosine"] = "dot"  # cosine: times the root of fused_width
    stage_head: Literal["linear", "mlp"] = "linear"
    prediction: Literal["backbone", "sum"] = "backbone"  # sum: of the logits of all classifiers

    @property
    def branches(self) -> bool:
        """Whether stages 2 to 4 have classifiers: one module must work on their maps."""
        return self.ea or self.ca or self.ffm

    @property
    def selects_parts(self) -> bool:
        """Whether tokens of the last stage are chosen."""
        return self.fsm
