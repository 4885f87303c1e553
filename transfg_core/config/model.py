"""The base of the `model` section: the settings and properties that every architecture has.

Each architecture has its own section (`vit.py`, `convnet.py`); `model.name` chooses it.
"""

from typing import Annotated

from pydantic import Field

from transfg_core.config.fields import FilePath, Fraction, Section
from transfg_core.errors import UserError


class ModelConfig(Section):
    """Settings that every architecture has."""

    name: str
    classes: Annotated[int, Field(ge=2)] | None = None  # None: as many as the data set has
    dropout: Fraction = 0.1
    pretrained: FilePath | None = None  # a checkpoint to start from (transfg_core/checkpoints)
    pretrained_head: bool = False

    @property
    def class_count(self) -> int:
        """The number of classes.

        Raises:
            UserError: `classes` is None and no data set has filled it in.
        """
        if self.classes is None:
            raise UserError("model.classes: expected a number, found none; set model.classes")
        return self.classes

    @property
    def selects_parts(self) -> bool:
        """Whether the model chooses image patches to classify by."""
        return False

    @property
    def draws_parts(self) -> bool:
        """Whether the backend gets the chosen patches from `transfg_core.parts`."""
        return False

    @property
    def has_blocks(self) -> bool:
        """Whether it has blocks: recompute and compilation work block by block."""
        return False

    @property
    def smallest_image(self) -> tuple[int, str]:
        """The shortest image side in pixels that the model takes, and the reason in words."""
        return 1, "one pixel"
