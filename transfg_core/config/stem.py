"""The convolutional stems of hybrid Vision Transformers: `model.stem`."""

from typing import NamedTuple

GROUPS = 32  # of every group norm, in google-research/vision_transformer


class Stem(NamedTuple):
    """A ResNet: channels of its root, and the number of bottleneck units of each stage."""

    width: int
    units: tuple[int, ...]

    @property
    def channels(self) -> int:
        """Channels of the last map: a stage has twice those of the stage before."""
        return self.width << (len(self.units) + 1) if self.units else self.width

    @property
    def step(self) -> int:
        """Pixels between two positions of the last map: root, pool and later stages halve it."""
        return 4 << max(len(self.units) - 1, 0)


# By name and step: `r50_s16` has 16 pixels between positions. Widths and units are those of
# google-research/vision_transformer (vit_jax/configs/models.py): R+Ti/16, R26+S/32, R50+B/16 and
# R50+L/32. `tiny_s8` belongs to this project, for tests and the toy set.
STEMS: dict[str, Stem] = {
    "tiny_s8": Stem(32, (1, 2)),
    "r_s4": Stem(64, ()),
    "r26_s32": Stem(64, (2, 2, 2, 2)),
    "r50_s16": Stem(64, (3, 4, 9)),
    "r50_s32": Stem(64, (3, 4, 6, 3)),
}
